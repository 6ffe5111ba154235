"""Builds a scheduler's output for a named batch and hands it straight to the model runner."""

import dataclasses
from dataclasses import MISSING

import numpy as np

TOKEN_POOL = 1 << 18


class Infeasible(Exception):
    """A shot beyond the engine's limits; never fired."""


class Mismatch(Exception):
    """The engine ran something other than the batch that it was given."""


def construct(cls, known):
    """Keyword arguments of a dataclass by field name; unknown required fields are filled by annotation and reported."""
    arguments, filled = {}, []
    for f in dataclasses.fields(cls):
        if not f.init:
            continue
        if f.name in known:
            arguments[f.name] = known[f.name]
        elif f.default is MISSING and f.default_factory is MISSING:
            kind = str(f.type)
            arguments[f.name] = [] if kind.startswith("list") else {} if kind.startswith("dict") else set() if kind.startswith("set") else None
            filled.append(f"{cls.__name__}.{f.name}")
    dropped = [f"{cls.__name__}.{k}" for k in known if k not in arguments]
    return arguments, filled, dropped


class Batches:
    """Builds and fires. Requests are always new to the engine; the next fire frees them."""

    def __init__(self, runner, vocab_size, max_num_batched_tokens, max_num_seqs, max_model_len, seed):
        from vllm import SamplingParams
        from vllm.v1.core.sched.output import NewRequestData, SchedulerOutput

        self.runner = runner
        self.output_class, self.request_class = SchedulerOutput, NewRequestData
        self.v2 = hasattr(runner, "req_states") and hasattr(runner, "block_tables")
        self.max_tokens, self.max_seqs, self.max_len = max_num_batched_tokens, max_num_seqs, max_model_len
        cache = runner.kv_cache_config
        self.num_blocks = int(cache.num_blocks)
        self.block_sizes = [int(g.kv_cache_spec.block_size) for g in cache.kv_cache_groups]
        self.random = np.random.default_rng(seed)
        # Block 0 is the engine's null block. Windows of one permutation give distinct blocks.
        self.blocks = (self.random.permutation(self.num_blocks - 1) + 1).astype(np.int32)
        if len(self.blocks) == 0 or self.blocks.min() < 1 or self.blocks.max() >= self.num_blocks:
            raise ValueError(f"block ids outside 1..{self.num_blocks - 1}")
        pool = max(TOKEN_POOL, 2 * max_model_len)
        self.tokens = self.random.integers(0, vocab_size, pool, dtype=np.int32)
        sampling = SamplingParams(temperature=0, max_tokens=4)
        self.template, self.filled, self.dropped = construct(NewRequestData, {
            "req_id": "", "prompt_token_ids": [], "mm_features": [], "sampling_params": sampling,
            "pooling_params": None, "block_ids": (), "num_computed_tokens": 0, "lora_request": None,
            "prefill_token_ids": None,
        })
        self.numpy_ids = not self.v2  # V2 stages lists
        if self.v2:
            self.spread_last_tokens(vocab_size)
        self.token_list = None
        self.serial = 0
        self.previous = set()

    def spread_last_tokens(self, vocab_size):
        """V2's decodes read the token that their slot sampled last: all zero after a boot, which is one embedding row."""
        last = getattr(self.runner.req_states, "last_sampled_tokens", None)
        if last is not None:
            import torch

            chosen = self.random.integers(0, vocab_size, tuple(last.shape))
            last.copy_(torch.from_numpy(chosen).to(last.dtype))

    def check(self, requests):
        """Raises Infeasible for a batch that must not be fired; vLLM itself would overrun arrays."""
        if not requests:
            raise Infeasible("no requests")
        if len(requests) > self.max_seqs:
            raise Infeasible(f"{len(requests)} requests, max_num_seqs is {self.max_seqs}")
        need, total = 0, 0
        for new, history in requests:
            if new < 1 or history < 0:
                raise Infeasible(f"a request of {new} new tokens and history {history}")
            if new + history + 1 > self.max_len:
                raise Infeasible(f"{new} new tokens on {history} need a max_model_len of {new + history + 1}, it is {self.max_len}")
            total += new
            for size in self.block_sizes:
                need += -(-(new + history) // size)
        if total > self.max_tokens:
            raise Infeasible(f"{total} tokens, max_num_batched_tokens is {self.max_tokens}")
        if need > len(self.blocks):
            raise Infeasible(f"{need} KV blocks, the cache has {len(self.blocks)}")
        return need

    def build(self, requests):
        need = self.check(requests)
        at = int(self.random.integers(0, len(self.blocks) - need + 1))
        offsets = self.random.integers(0, len(self.tokens) - self.max_len, len(requests)).tolist()
        blocks, tokens, template, sizes = self.blocks, self.tokens, self.template, self.block_sizes
        if not self.numpy_ids:
            if self.token_list is None:
                self.token_list = tokens.tolist()
            tokens = self.token_list
        new_requests, scheduled, total = [], {}, 0
        for (new, history), offset in zip(requests, offsets):
            self.serial += 1
            name = f"lsp{self.serial}"
            length = new + history
            ids = []
            for size in sizes:
                count = -(-length // size)
                ids.append(blocks[at:at + count].tolist())
                at += count
            # V1 tells a decode by nothing. V2 tells it by a history that covers the prompt, and stages prompts as lists,
            # token by token: one token will do, since a decode reads the token sampled last.
            known = 1 if self.v2 and new == 1 and history > 0 else length
            prompt = tokens[offset:offset + known]
            arguments = dict(template)
            arguments["req_id"] = name
            arguments["prompt_token_ids"] = prompt
            arguments["block_ids"] = tuple(ids)
            arguments["num_computed_tokens"] = history
            if "prefill_token_ids" in arguments:
                arguments["prefill_token_ids"] = prompt
            new_requests.append(self.request_class(**arguments))
            scheduled[name] = new
            total += new
        output = self.output_class.make_empty()
        output.scheduled_new_reqs = new_requests
        output.num_scheduled_tokens = scheduled
        output.total_num_scheduled_tokens = total
        output.num_common_prefix_blocks = [0] * len(sizes)
        output.finished_req_ids = self.previous
        self.previous = set(scheduled)
        return output

    def run(self, output):
        runner = self.runner
        try:
            out = runner.execute_model(output)
            if out is None and hasattr(runner, "sample_tokens"):
                out = runner.sample_tokens(None)
            if hasattr(out, "get_output"):
                out = out.get_output()
            return out
        finally:
            if getattr(runner, "execute_model_state", None) is not None:
                runner.execute_model_state = None

    def fire(self, requests):
        out = self.run(self.build(requests))
        sampled = getattr(out, "sampled_token_ids", None)
        if sampled is not None and len(sampled) != len(requests):
            raise Mismatch(f"the engine sampled for {len(sampled)} of {len(requests)} requests")

    def finish(self):
        """Frees the last batch's requests; what the engine still holds afterwards."""
        output = self.output_class.make_empty()
        output.finished_req_ids = self.previous
        output.num_common_prefix_blocks = [0] * len(self.block_sizes)
        self.previous = set()
        self.run(output)
        states = getattr(self.runner, "req_states", None)
        if states is not None and hasattr(states, "num_reqs"):
            return int(states.num_reqs)
        return len(getattr(self.runner, "requests", ()))


class Witness:
    """Reads, from inside a fire, which batch the attention kernels are given."""

    def __init__(self, attention, layer_name):
        self.attention, self.layer_name = attention, layer_name
        self.status = "not tried"
        self.seen = None

    def watch(self, count):
        """Arms a hook for the next fire; returns its handle."""
        self.seen = None

        def read(module, args):
            try:
                self.seen = self.read(count)
            except Exception as e:
                self.seen = f"{type(e).__name__}: {e}"

        return self.attention.register_forward_pre_hook(read)

    def read(self, count):
        from vllm.forward_context import get_forward_context

        metadata = get_forward_context().attn_metadata
        if isinstance(metadata, list):
            metadata = metadata[0]
        if isinstance(metadata, dict):
            metadata = metadata.get(self.layer_name) or next(iter(metadata.values()))
        starts = metadata.query_start_loc[:count + 1].tolist()
        lengths = metadata.seq_lens[:count].tolist()
        return [[b - a, length - (b - a)] for a, b, length in zip(starts, starts[1:], lengths)]

    def executed(self, requests):
        """None where the engine ran the batch as listed, its own order otherwise."""
        if not isinstance(self.seen, list):
            raise Mismatch(f"the attention layer was not given a batch that can be read: {self.seen}")
        if self.seen == requests:
            return None
        if sorted(self.seen) != sorted(requests):
            raise Mismatch(f"the engine ran {compact(self.seen)} instead of {compact(requests)}")
        return self.seen


def compact(requests):
    text = ",".join(f"{n}@{h}" for n, h in requests[:12])
    return text + (",..." if len(requests) > 12 else "")
