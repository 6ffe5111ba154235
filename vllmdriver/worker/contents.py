"""Realistic contents: vLLM's dummy weights are +-1e-3 and its cache is zeros, which is cheap to compute on."""

FILLED = {"weights": 0, "norms": 0, "other": 0, "when": "never"}


def fill_dummy_weights_on_load():
    """Fills weights right after vLLM's dummy loader has, before kernels repack them."""
    try:
        from vllm.model_executor.model_loader.dummy_loader import DummyModelLoader
    except Exception:
        return
    original = DummyModelLoader.load_weights
    if getattr(original, "layerprof", False):
        return

    def load_weights(self, model, *args, **kwargs):
        result = original(self, model, *args, **kwargs)
        fill_weights(model, 0)
        FILLED["when"] = "on load"
        return result

    load_weights.layerprof = True
    DummyModelLoader.load_weights = load_weights


def fill_weights(model, seed):
    """N(0, fan_in^-1/2) for matrices, 1 for the norms' vectors; reports what it met."""
    import torch

    FILLED.update(weights=0, norms=0, other=0, empty=0)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if p.is_meta or p.numel() == 0:
                FILLED["empty"] += 1
            elif not p.is_floating_point():
                FILLED["other"] += 1
            elif p.dim() >= 2:
                generator = torch.Generator(device=p.device)
                generator.manual_seed(seed * 1000003 + FILLED["weights"])
                deviation = float(p.shape[-1]) ** -0.5
                if p.dtype in (torch.float32, torch.float16, torch.bfloat16):
                    p.normal_(0, deviation, generator=generator)
                else:  # 8-bit floats have no normal_
                    p.copy_(torch.empty(p.shape, dtype=torch.bfloat16, device=p.device).normal_(0, deviation, generator=generator).to(p.dtype))
                FILLED["weights"] += 1
            elif "norm" in name and name.endswith("weight"):
                p.fill_(1)
                FILLED["norms"] += 1
            else:
                FILLED["other"] += 1


def cache_tensors(runner):
    """The runner's KV cache tensors, each storage once."""
    import torch

    found, seen = [], set()

    def visit(item):
        if torch.is_tensor(item):
            if item.numel() and item.data_ptr() not in seen:
                seen.add(item.data_ptr())
                found.append(item)
        elif isinstance(item, (list, tuple)):
            for x in item:
                visit(x)
        elif isinstance(item, dict):
            for x in item.values():
                visit(x)

    visit(getattr(runner, "kv_caches", None))
    context = getattr(getattr(runner, "compilation_config", None), "static_forward_context", None) or {}
    for layer in context.values():
        visit(getattr(layer, "kv_cache", None))
    return found


def fill_cache(runner, kv_cache_dtype, seed):
    """Fills the KV cache with N(0, 1), as fp8 bytes where it holds such."""
    import torch

    tensors = cache_tensors(runner)
    with torch.no_grad():
        for t in tensors:
            generator = torch.Generator(device=t.device)
            generator.manual_seed(seed + 17)
            if t.dtype in (torch.float32, torch.float16, torch.bfloat16):
                t.normal_(0, 1, generator=generator)
                continue
            # Encoded from normal numbers, the bytes hold no NaN or infinity in either 8-bit format.
            eight = torch.float8_e5m2 if "e5m2" in kv_cache_dtype or t.dtype == torch.float8_e5m2 else torch.float8_e4m3fn
            count = min(t.numel(), 1 << 24)
            pool = torch.empty(count, dtype=torch.float32, device=t.device).normal_(0, 1, generator=generator).to(eight).view(torch.uint8)
            flat = torch.as_strided(t, (t.untyped_storage().nbytes() // t.element_size() - t.storage_offset(),), (1,), t.storage_offset()).view(torch.uint8)
            for start in range(0, flat.numel(), count):
                part = flat[start:start + count]
                part.copy_(pool[:part.numel()])
    return [{"shape": list(t.shape), "dtype": str(t.dtype), "stride": list(t.stride())} for t in tensors]
