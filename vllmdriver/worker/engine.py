"""Boots vLLM for one config and hands batches to the worker extension."""

import dataclasses
import importlib.util
import json
import os
import sys
import tempfile
import time
import traceback

import provenance
import ranks

HERE = os.path.dirname(os.path.abspath(__file__))
SESSION_SHOTS = 32  # shots in one profiler session

# Set where the caller has not said otherwise; recorded in the provenance.
ENVIRONMENT = {
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_HOST_IP": "127.0.0.1",
    "GLOO_SOCKET_IFNAME": "lo",
    "HF_HUB_OFFLINE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_CPU_CI_ENV": "1",
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
}


class BootError(Exception):
    def __init__(self, code, message, fatal=True):
        super().__init__(message)
        self.code, self.fatal = code, fatal


class RequestError(Exception):
    """A request that makes no sense; the engine is untouched."""


class DeviceLost(Exception):
    """The device's context is gone; only a fresh process can go on."""


def boot(spec):
    for field in ("config", "catalog", "max_num_batched_tokens", "max_num_seqs"):
        if not spec.get(field):
            raise BootError("bad_request", f"boot: {field} is missing", fatal=False)
    prepare_environment()
    try:
        ranks.keep_to_cores()
    except OSError as e:
        raise BootError("boot", f"VLLM_CPU_OMP_THREADS_BIND={os.environ['VLLM_CPU_OMP_THREADS_BIND']}: {e}") from None
    llm_class, args_class = import_vllm()
    if world_size(spec) > 1:
        ranks.bind_cores(world_size(spec))
    seconds = {}
    started = time.perf_counter()
    folder = tempfile.mkdtemp(prefix="layerprof-model-")
    with open(os.path.join(folder, "config.json"), "w", encoding="utf-8") as f:
        json.dump(spec["config"], f)
    arguments, dropped = engine_arguments(spec, folder, args_class)
    try:
        llm = llm_class(**arguments)
    except Exception as e:
        traceback.print_exc()
        raise BootError("boot", f"vLLM does not boot: {describe(e)}") from None
    seconds["engine"] = round(time.perf_counter() - started, 1)
    engine = Engine(llm)
    try:
        found = engine.call("lsp_prepare", {
            "catalog": spec["catalog"], "blocks": spec.get("blocks") or 1, "seed": spec.get("seed") or 0,
            "kv_cache_dtype": spec.get("kv_cache_dtype") or "auto",
        })
    except Exception as e:
        traceback.print_exc()
        raise BootError("boot", f"the engine boots and does not run: {describe(e)}") from None
    if "error" in found:
        raise BootError(found["error"]["code"], found["error"]["message"])
    seconds["prepare"] = round(time.perf_counter() - started - seconds["engine"], 1)
    facts = provenance.collect(spec, arguments, dropped, found.pop("facts"), seconds)
    found.update(facts)
    return engine, found


def prepare_environment():
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    if importlib.util.find_spec("flashinfer") is None:
        os.environ.setdefault("VLLM_USE_FLASHINFER_SAMPLER", "0")
    # The extension is imported by name, also in processes that vLLM starts.
    path = os.environ.get("PYTHONPATH", "")
    if HERE not in path.split(os.pathsep):
        os.environ["PYTHONPATH"] = HERE + (os.pathsep + path if path else "")


def import_vllm():
    try:
        from vllm import LLM
        from vllm.engine.arg_utils import EngineArgs
    except ModuleNotFoundError as e:
        code = "missing" if (e.name or "").split(".")[0] == "vllm" else "import"
        raise BootError(code, f"import vllm: {e}") from None
    except BaseException as e:
        traceback.print_exc()
        raise BootError("import", f"import vllm: {describe(e)}") from None
    return LLM, EngineArgs


def engine_arguments(spec, folder, args_class):
    """The arguments of LLM, and those of ours that this release does not know."""
    config = spec["config"]
    text = config.get("text_config") or config
    wanted = {
        "model": folder, "load_format": "dummy", "skip_tokenizer_init": True, "enforce_eager": True,
        "dtype": spec.get("dtype") or "bfloat16", "kv_cache_dtype": spec.get("kv_cache_dtype") or "auto",
        "generation_config": "vllm", "seed": int(spec.get("seed") or 0),
        "max_model_len": spec.get("max_model_len") or text.get("max_position_embeddings"),
        "max_num_seqs": spec["max_num_seqs"], "max_num_batched_tokens": spec["max_num_batched_tokens"],
        "enable_prefix_caching": False, "async_scheduling": False, "tensor_parallel_size": world_size(spec),
        "disable_log_stats": True,
    }
    known = {f.name for f in dataclasses.fields(args_class)}
    dropped = sorted(k for k in wanted if k not in known)
    arguments = {k: v for k, v in wanted.items() if k in known}
    for name, value in (spec.get("engine_args") or {}).items():
        if name not in known:
            raise BootError("bad_request", f"engine_args: this vLLM knows no {name}", fatal=False)
        arguments[name] = literal(value)
    arguments["worker_extension_cls"] = "extension.Extension"
    return arguments, dropped


def world_size(spec):
    """Ranks to boot: an emulated degree is one rank of a divided model."""
    return int(spec["tp"]) if spec.get("tp_mode") == "real" else 1


def literal(text):
    """An engine argument from its text: JSON where it is JSON, else the text."""
    if not isinstance(text, str):
        return text
    try:
        return json.loads(text)
    except ValueError:
        return {"True": True, "False": False, "None": None}.get(text, text)


def describe(e):
    text = f"{type(e).__name__}: {e}".strip()
    cause = e.__cause__ or e.__context__
    if cause is not None and str(cause) and str(cause) not in text:
        text += f" (from {type(cause).__name__}: {cause})"
    return text


class Engine:
    def __init__(self, llm):
        self.llm = llm

    def call(self, method, *args):
        # The worker may live in another process, so nothing but plain data crosses.
        return ranks.merge(method, self.llm.collective_rpc(method, args=args))

    def measure(self, request, send):
        shots = request.get("shots")
        if not isinstance(shots, list):
            raise RequestError("measure: shots is not a list")
        options = {
            "warmup": int(request.get("warmup") or 0), "iterations": int(request.get("iterations") or 1),
            "flush_l2": bool(request.get("flush_l2")), "layers": request.get("layers"),
            "seed": int(request.get("seed") or 0),
        }
        # For the tests of a hanging engine.
        if os.environ.get("LAYERPROF_TEST_HANG_S"):
            time.sleep(float(os.environ["LAYERPROF_TEST_HANG_S"]))
        seconds = {}
        step = SESSION_SHOTS if self.call("lsp_batches") else 1
        for start in range(0, len(shots), step):
            if step == 1:
                send({"started": start})  # whom to blame if the engine dies
            answer = self.call("lsp_measure", shots[start:start + step], options)
            if "device_lost" in answer:
                raise DeviceLost(answer["device_lost"])
            for index, shot in enumerate(answer["shots"]):
                send({"shot": start + index, **shot})
            for name, value in answer["seconds"].items():
                seconds[name] = round(seconds.get(name, 0) + value, 4)
        return {"seconds": seconds}
