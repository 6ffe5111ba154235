"""What a serving engine is filled with, and what is known of it."""

import os

import contents
import provenance
from session import EXPERT_COUNT_KEYS, TOP_K_KEYS, first_int, worker_config
from telemetry import Telemetry


def prepare(worker, spec):
    import torch

    runner = worker.model_runner
    model = runner.get_model() if hasattr(runner, "get_model") else runner.model
    config = worker_config(worker, runner)
    hf = config.model_config.hf_text_config if hasattr(config.model_config, "hf_text_config") else config.model_config.hf_config
    seed = int(spec["seed"])
    if contents.FILLED["when"] == "never":
        contents.fill_weights(model, seed)
        contents.FILLED["when"] = "after load"
    cache = contents.fill_cache(runner, spec["kv_cache_dtype"], seed)
    blocks = int(runner.kv_cache_config.num_blocks)
    sizes = [int(g.kv_cache_spec.block_size) for g in runner.kv_cache_config.kv_cache_groups]
    device = next((p.device for p in model.parameters()), None)
    on_gpu = device is not None and device.type == "cuda"
    telemetry = Telemetry(on_gpu)
    experts = first_int(hf, EXPERT_COUNT_KEYS)
    compilation = getattr(config, "compilation_config", None)
    attention = next((m for _, m in model.named_modules() if hasattr(m, "attn_backend")), None)
    impl = getattr(attention, "impl", None)
    facts = {
        "on_gpu": on_gpu, "torch": torch.__version__, "cuda": torch.version.cuda or "" if on_gpu else "",
        "runner": provenance.qualified(runner), "worker": provenance.qualified(worker),
        "runner_kind": "V2" if hasattr(runner, "req_states") and hasattr(runner, "block_tables") else "V1",
        "attention_backend": provenance.attention_backend(attention, impl), "num_blocks": blocks, "block_sizes": sizes,
        "cache": cache[:1], "cache_tensors": len(cache), "weights_filled": dict(contents.FILLED),
        "capture_sizes": sorted(int(x) for x in getattr(compilation, "cudagraph_capture_sizes", None) or []),
        "graph_mode": str(getattr(getattr(compilation, "cudagraph_mode", None), "name", "")),
        "layers": int(hf.num_hidden_layers), "vocab_size": int(hf.vocab_size), "timing": "engine steps",
        "telemetry": telemetry.why, "state_at_boot": telemetry.read() or {}, "threads": torch.get_num_threads(),
        "affinity": sorted(os.sched_getaffinity(0)), "pid": os.getpid(), "cpu": provenance.cpu_model(),
    }
    if on_gpu:
        properties = torch.cuda.get_device_properties(torch.cuda.current_device())
        facts.update(gpu=properties.name, sm_count=properties.multi_processor_count, memory_mib=properties.total_memory >> 20)
    else:
        facts.update(gpu=provenance.cpu_model(), sm_count=0)
    limits = {
        "max_num_batched_tokens": int(config.scheduler_config.max_num_batched_tokens),
        "max_num_seqs": int(config.scheduler_config.max_num_seqs), "max_model_len": int(config.model_config.max_model_len),
        "cache_tokens": (blocks - 1) * min(sizes), "block_size": max(sizes), "num_experts": experts,
        "top_k": first_int(hf, TOP_K_KEYS) if experts else 0,
    }
    return {"limits": limits, "facts": facts}
