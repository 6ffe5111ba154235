import unittest

try:
    import torch
except ImportError:
    raise unittest.SkipTest("torch is not installed")

from catalog import CatalogError, Wrapping, find_sites, settle
from torch import nn


class VocabParallelEmbedding(nn.Embedding):
    pass


class ParallelLMHead(VocabParallelEmbedding):
    pass


class RMSNorm(nn.LayerNorm):
    pass


class RotaryEmbedding(nn.Identity):
    pass


class SelfAttention(nn.Module):
    def __init__(self, rotary):
        super().__init__()
        self.q_norm, self.rotary = RMSNorm(4), rotary


class DecoderLayer(nn.Module):
    def __init__(self, rotary):
        super().__init__()
        self.self_attn, self.input_layernorm, self.post_attention_layernorm = SelfAttention(rotary), RMSNorm(4), RMSNorm(4)


class ForCausalLM(nn.Module):
    def __init__(self, blocks):
        super().__init__()
        self.embed, self.norm, self.lm_head = VocabParallelEmbedding(4, 4), RMSNorm(4), ParallelLMHead(4, 4)
        rotary = RotaryEmbedding()  # one for all blocks, as in vLLM
        self.layers = nn.ModuleList(DecoderLayer(rotary) for _ in range(blocks))

    def compute_logits(self, x):
        return x


class Sampler:
    def __call__(self, x):
        return x + 1


def entry(layer, cls, within="", category="dense"):
    return {"layer": layer, "category": category, "vllm": cls.split("|"), "within": within}


class CatalogTest(unittest.TestCase):
    entries = [
        entry("embedding", "VocabParallelEmbedding"), entry("layernorm", "RMSNorm", "DecoderLayer"), entry("qk_norm", "RMSNorm", "SelfAttention"),
        entry("final_layernorm", "RMSNorm", "ForCausalLM"), entry("rotary_emb", "Other|RotaryEmbedding"),
        entry("lm_head", "LogitsProcessor"), entry("sampler", "Sampler"),
    ]

    def names(self, blocks):
        sites, _, name = find_sites(ForCausalLM(blocks), Sampler(), self.entries, blocks)
        self.assertEqual(name, "layers")
        found = {}
        for s in sites:
            found.setdefault(s.layer, []).append(s.name)
        return found

    def test_the_last_block_counts_and_the_deepest_ancestor_wins(self):
        self.assertEqual(self.names(2), {
            "embedding": ["embed", "lm_head"], "layernorm": ["layers.1.input_layernorm", "layers.1.post_attention_layernorm"],
            "qk_norm": ["layers.1.self_attn.q_norm"], "final_layernorm": ["norm"], "rotary_emb": ["layers.1.self_attn.rotary"],
            "lm_head": ["compute_logits"], "sampler": ["sampler"],
        })

    def test_an_entry_that_never_ran_is_an_error(self):
        sites, _, _ = find_sites(ForCausalLM(1), Sampler(), self.entries, 1)
        for s in sites:
            s.calls = 0 if s.name == "lm_head" else 1
        used, idle = settle(sites, self.entries)
        self.assertEqual([s.name for s in idle], ["lm_head"])
        for s in sites:
            s.calls = s.layer != "qk_norm"
        with self.assertRaisesRegex(CatalogError, "qk_norm.*q_norm never ran"):
            settle(sites, self.entries)
        with self.assertRaisesRegex(CatalogError, "moe .Mixture.: no such module"):
            settle(sites, self.entries[:1] + [entry("moe", "Mixture")])

    def test_wrapping_is_undone(self):
        sampler, model, seen = Sampler(), ForCausalLM(1), []
        wrapping = Wrapping()
        for owner, method in ((sampler, "__call__"), (model, "compute_logits")):
            wrapping.wrap(owner, method, lambda: seen.append("before"), lambda: seen.append("after"))
        self.assertEqual((sampler(1), model.compute_logits(5)), (2, 5))
        self.assertEqual(seen, ["before", "after"] * 2)
        self.assertIsInstance(sampler, Sampler)
        wrapping.remove()
        self.assertIs(type(sampler), Sampler)
        self.assertNotIn("compute_logits", model.__dict__)


if __name__ == "__main__":
    unittest.main()
