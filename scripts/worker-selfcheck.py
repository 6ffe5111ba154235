#!/usr/bin/env python3
"""Boots one model through the embedded worker and measures a few shots: the first look at a new machine or release.

    worker-selfcheck.py [--python PY] [--model llama|qwen3|moe|tiny-llama|tiny-qwen3|tiny-moe] [--blocks 2]
                        [--warmup N] [--iterations N] [--shots N] [--kv-cache-dtype fp8] [--engine-arg k=v] [--flush-l2]

Prints the boot's findings, each probe shot by layer, the rate over N random shots, the spread of the samples, the
unaccounted share, and what failed. Exit status 1 where a shot failed.
"""

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time

LLAMA = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 4096, "intermediate_size": 14336,
    "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128, "vocab_size": 128256,
    "max_position_embeddings": 131072, "rms_norm_eps": 1e-5, "rope_theta": 500000.0, "hidden_act": "silu",
    "tie_word_embeddings": False, "torch_dtype": "bfloat16", "bos_token_id": 1, "eos_token_id": 2,
    "rope_scaling": {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                     "original_max_position_embeddings": 8192, "rope_type": "llama3"},
}
QWEN3 = {
    "architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "hidden_size": 5120, "intermediate_size": 25600,
    "num_attention_heads": 64, "num_key_value_heads": 8, "head_dim": 128, "vocab_size": 151936,
    "max_position_embeddings": 40960, "rms_norm_eps": 1e-6, "rope_theta": 1e6, "hidden_act": "silu",
    "tie_word_embeddings": False, "torch_dtype": "bfloat16", "bos_token_id": 1, "eos_token_id": 2,
}
MOE = {
    "architectures": ["Qwen3MoeForCausalLM"], "model_type": "qwen3_moe", "hidden_size": 2048, "intermediate_size": 6144,
    "moe_intermediate_size": 768, "num_experts": 128, "num_experts_per_tok": 8, "norm_topk_prob": True,
    "decoder_sparse_step": 1, "mlp_only_layers": [], "num_attention_heads": 32, "num_key_value_heads": 4, "head_dim": 128,
    "vocab_size": 151936, "max_position_embeddings": 40960, "rms_norm_eps": 1e-6, "rope_theta": 1e7, "hidden_act": "silu",
    "tie_word_embeddings": False, "torch_dtype": "bfloat16", "bos_token_id": 1, "eos_token_id": 2,
}
TINY = {"hidden_size": 512, "intermediate_size": 1536, "num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 64,
        "vocab_size": 8192, "max_position_embeddings": 4096, "rope_scaling": None}
MODELS = {
    "llama": LLAMA, "qwen3": QWEN3, "moe": MOE, "tiny-llama": {**LLAMA, **TINY}, "tiny-qwen3": {**QWEN3, **TINY},
    "tiny-moe": {**MOE, **TINY, "moe_intermediate_size": 256, "num_experts": 16, "num_experts_per_tok": 4},
}


def catalog(kind):
    family = {"llama": "Llama", "qwen3": "Qwen3", "moe": "Qwen3Moe"}[kind]

    def entry(layer, category, classes, within=""):
        return {"layer": layer, "category": category, "vllm": classes.split("|"), "within": within}

    entries = [
        entry("embedding", "dense", "VocabParallelEmbedding"),
        entry("layernorm", "dense", "RMSNorm", family + "DecoderLayer"),
        entry("qkv_proj", "dense", "QKVParallelLinear"),
        entry("rotary_emb", "dense", "Llama3RotaryEmbedding|RotaryEmbedding"),
        entry("o_proj", "dense", "RowParallelLinear", family + "Attention"),
        entry("final_layernorm", "dense", "RMSNorm", family + "ForCausalLM"),
        entry("attention", "attention", "Attention"),
        entry("lm_head", "per_sequence", "LogitsProcessor"),
        entry("sampler", "per_sequence", "Sampler"),
    ]
    if kind != "llama":
        entries.append(entry("qk_norm", "dense", "RMSNorm", family + "Attention"))
    if kind == "moe":
        entries.append(entry("moe", "moe", "Qwen3MoeSparseMoeBlock"))
    else:
        entries += [
            entry("gate_up_proj", "dense", "MergedColumnParallelLinear"), entry("act_fn", "dense", "SiluAndMul"),
            entry("down_proj", "dense", "RowParallelLinear", "LlamaMLP" if kind == "llama" else "Qwen2MLP"),
        ]
    return entries


class Worker:
    def __init__(self, python):
        main = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "vllmdriver", "worker", "main.py")
        requests_out, self.requests = os.pipe()
        self.replies, replies_in = os.pipe()
        self.folder = tempfile.TemporaryDirectory(prefix="layerprof-selfcheck-")  # goes with this object
        environment = {**os.environ, "LAYERPROF_FDS": f"{requests_out},{replies_in}", "TMPDIR": self.folder.name}
        self.process = subprocess.Popen([python, main], pass_fds=(requests_out, replies_in), env=environment,
                                        stdin=subprocess.DEVNULL, start_new_session=True)
        os.close(requests_out)
        os.close(replies_in)
        self.lines = os.fdopen(self.replies, "r")
        self.number = 0

    def ask(self, op, **fields):
        self.number += 1
        os.write(self.requests, json.dumps({"id": self.number, "op": op, **fields}).encode() + b"\n")
        shots = []
        for line in self.lines:
            reply = json.loads(line)
            if "error" in reply:
                sys.exit(f"{op}: {json.dumps(reply['error'])}")
            if "result" in reply:
                return reply["result"], shots
            if "status" in reply:  # not the note that a shot begins
                shots.append(reply)
        sys.exit(f"{op}: the worker ended with status {self.process.wait()}")


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--python", default=sys.executable)
    p.add_argument("--model", choices=MODELS, default="tiny-llama")
    p.add_argument("--blocks", type=int, default=2)
    p.add_argument("--warmup", type=int, default=1)
    p.add_argument("--iterations", type=int, default=3)
    p.add_argument("--shots", type=int, default=64)
    p.add_argument("--max-len", type=int, default=0)
    p.add_argument("--kv-cache-dtype", default="auto")
    p.add_argument("--engine-arg", action="append", default=[])
    p.add_argument("--flush-l2", action="store_true")
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--out", help="a file for all answers, JSON lines")
    a = p.parse_args()
    tiny = a.model.startswith("tiny")
    config = {**MODELS[a.model], "num_hidden_layers": a.blocks}
    tokens, seqs = (512, 16) if tiny else (2048, 256)
    length = a.max_len or (4096 if tiny else 32768)
    kind = a.model.removeprefix("tiny-")
    log = open(a.out, "w") if a.out else None

    def keep(x):
        if log:
            log.write(json.dumps(x) + "\n")
            log.flush()

    worker = Worker(a.python)
    hello, _ = worker.ask("hello", protocol=1)
    print("hello", json.dumps(hello), flush=True)
    started = time.time()
    boot, _ = worker.ask(
        "boot", model=a.model, config=config, tp=1, dtype="bfloat16", kv_cache_dtype=a.kv_cache_dtype,
        max_num_batched_tokens=tokens + seqs, max_num_seqs=seqs, max_model_len=length, blocks=a.blocks, catalog=catalog(kind),
        engine_args=dict(x.split("=", 1) for x in a.engine_arg), seed=a.seed)
    keep(boot)
    print(f"boot {time.time() - started:.1f} s", json.dumps({k: boot[k] for k in boot if k != "provenance"}), flush=True)
    print("checks", json.dumps({k: boot["provenance"].get(k) for k in (
        "checks", "auto_filled", "fields_dropped", "engine_arguments_dropped", "weights_filled", "never_called", "token_ids",
        "telemetry", "boot_seconds", "unattributed_in_survey", "sampler", "attention_impl", "cache", "moe", "hook_cost_us", "python_glue_us")}), flush=True)
    big, experts = (1, []) if tiny else (4, [])
    probes = [
        [[64 * big, 0]], [[1, 100]], [[1, 1024 * big]] * (8 * big), [[1, 512]] * (4 * big) + [[128 * big, 256 * big]],
        [[128 * big, 0]] + [[1, 256]] * (4 * big), [[1, 0]] * (8 * big), [[tokens, 0]],
    ]
    shots = [{"requests": r} for r in probes]
    if kind == "moe":
        top_k, most = boot["limits"]["top_k"], boot["limits"]["num_experts"]
        shots += [{"requests": [[128, 0]], "experts": e} for e in (top_k, 2 * top_k, most)]
        shots.append({"requests": [[most, 0]], "histogram": [top_k + 1, top_k - 1] * (most // 2)})
    shots.append({"requests": [[tokens + seqs + 1, 0]]})
    shots.append({"requests": [[1, length]]})
    options = {"warmup": a.warmup, "iterations": a.iterations, "flush_l2": a.flush_l2, "layers": None, "seed": 1}
    bad = 0
    _, answers = worker.ask("measure", shots=shots, **options)
    for answer in sorted(answers, key=lambda x: x["shot"]):
        keep(answer)
        shot = shots[answer["shot"]]
        first = shot["requests"]
        head = f"{len(first)} requests, first {first[0]} last {first[-1]}" + (f" experts {shot['experts']}" if "experts" in shot else "")
        if answer["status"] != "ok":
            print(head, answer["status"], answer["message"], flush=True)
            bad += answer["status"] not in ("ok", "infeasible")
            continue
        print(head, f"step {min(answer['step_us']):.0f} us, unaccounted {answer['unaccounted']:.2%}", "order " + str(answer["executed"][0]) if "executed" in answer else "",
              json.dumps({n: [statistics.median(v["us"]), v["calls"], v["launches"]] for n, v in answer["layers"].items()}),
              json.dumps({k: v[0] for k, v in answer["layers"].get("attention", {}).get("kernels", {}).items()}), flush=True)
    if not any(s["status"] == "infeasible" for s in answers):
        print("no shot was infeasible, though two are beyond the limits")
        bad += 1
    r = random.Random(a.seed)
    limits = boot["limits"]
    random_shots = []
    while len(random_shots) < a.shots:
        decodes = r.randrange(0, seqs)
        requests = [[1, int(2 ** r.uniform(4, 10 if tiny else 13))] for _ in range(decodes)]
        if r.random() < 0.5 or not requests:
            requests.append([int(2 ** r.uniform(4, 9 if tiny else 11)), r.choice([0, 0, 256, 1024])])
        if sum(-(-(n + h) // limits["block_size"]) * limits["block_size"] for n, h in requests) < limits["cache_tokens"] // 2 and sum(n for n, _ in requests) <= tokens:
            random_shots.append({"requests": requests})
    started = time.time()
    spread, shares, totals, got = [], [], {}, 0
    for at in range(0, len(random_shots), 32):
        result, answers = worker.ask("measure", shots=random_shots[at:at + 32], **options)
        for k, v in result["seconds"].items():
            totals[k] = totals.get(k, 0) + v
        for answer in answers:
            keep({"requests": random_shots[at + answer["shot"]]["requests"], **answer})
            got += 1
            if answer["status"] != "ok":
                bad += 1
                print(answer["status"], answer["message"], flush=True)
                continue
            shares.append(answer["unaccounted"])
            for v in answer["layers"].values():
                if len(v["us"]) > 1:
                    spread.append((max(v["us"]) - min(v["us"])) / statistics.median(v["us"]))
    took = time.time() - started
    print(f"{got} random shots in {took:.2f} s: {got / took:.1f} shots/s, seconds {json.dumps({k: round(v, 2) for k, v in totals.items()})}")
    if spread:
        print(f"spread of samples p50 {statistics.median(spread):.2%}, p90 {statistics.quantiles(spread, n=10)[-1]:.2%}; "
              f"unaccounted p50 {statistics.median(shares):.2%} max {max(shares):.2%}")
    if answers and "telemetry" in answers[-1]:
        print("telemetry", json.dumps(answers[-1]["telemetry"]))
    worker.ask("shutdown")
    print("exit status", worker.process.wait(), "bad", bad)
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
