"""Finds the modules that a catalog's entries stand for."""

from dataclasses import dataclass


class CatalogError(Exception):
    pass


@dataclass
class Site:
    """One place whose time belongs to a layer: a module, or a callable that is none."""

    layer: str
    name: str
    module: object = None       # hooks go here
    owner: object = None        # or this object's method is wrapped
    method: str = ""
    attention: bool = False
    calls: int = 0              # in the survey's step


def class_names(obj):
    return [c.__name__ for c in type(obj).__mro__]


def find_blocks(model, count):
    """The model's list of decoder blocks: the shallowest ModuleList of that length."""
    import torch

    lists = [(name.count("."), name, m) for name, m in model.named_modules()
             if isinstance(m, torch.nn.ModuleList) and len(m) == count]
    if not lists:
        raise CatalogError(f"no list of {count} decoder blocks in {type(model).__name__}")
    _, name, blocks = min(lists, key=lambda x: x[:2])
    return name, list(blocks)


def choose(entries, module, ancestors):
    """The entry that a module belongs to: class over its MRO, then the deepest matching ancestor."""
    names = class_names(module)
    best, best_rank = None, None
    for entry in entries:
        near = [names.index(c) for c in entry["vllm"] if c in names]
        if not near:
            continue
        within, depth = entry.get("within") or "", -1
        if within:
            depths = [d for d, names_ in enumerate(ancestors) if within in names_]
            if not depths:
                continue
            depth = max(depths)
        rank = (depth, -min(near))
        if best_rank is None or rank > best_rank:
            best, best_rank = entry, rank
    return best


def find_sites(model, sampler, entries, blocks):
    """The places that entries match: in the last block and outside all blocks. A match takes its whole subtree."""
    block_list, block_modules = find_blocks(model, blocks)
    skipped = {f"{block_list}.{i}" for i in range(blocks - 1)}
    sites, seen = [], set()

    def walk(module, name, ancestors):
        if name in skipped:
            return
        entry = choose(entries, module, ancestors)
        if entry is not None:
            if id(module) not in seen:
                seen.add(id(module))
                sites.append(Site(entry["layer"], name, module=module, attention=entry["category"] == "attention"))
            return
        deeper = ancestors + [class_names(module)]
        for child, m in module.named_children():
            walk(m, f"{name}.{child}" if name else child, deeper)

    walk(model, "", [])
    if sampler is not None:
        entry = choose(entries, sampler, [])
        if entry is not None:
            if hasattr(sampler, "register_forward_hook"):
                sites.append(Site(entry["layer"], "sampler", module=sampler))
            else:
                sites.append(Site(entry["layer"], "sampler", owner=sampler, method="__call__"))
    matched = {s.layer for s in sites}
    for entry in entries:
        # A head whose logits processor is no module: the model's own method is the same span.
        if entry["layer"] not in matched and "LogitsProcessor" in entry["vllm"] and hasattr(model, "compute_logits"):
            sites.append(Site(entry["layer"], "compute_logits", owner=model, method="compute_logits"))
    return sites, block_modules, block_list


def settle(sites, entries):
    """Keeps the sites that ran; an entry without one is an error."""
    used = [s for s in sites if s.calls > 0]
    idle = [s for s in sites if s.calls == 0]
    missing = [e for e in entries if e["layer"] not in {s.layer for s in used}]
    if missing:
        texts = []
        for e in missing:
            where = f" within {e['within']}" if e.get("within") else ""
            silent = [s.name for s in idle if s.layer == e["layer"]]
            texts.append(f"{e['layer']} ({' or '.join(e['vllm'])}{where})" + (f": {', '.join(silent)} never ran" if silent else ": no such module"))
        raise CatalogError("catalog entries without a running module: " + "; ".join(texts))
    return used, idle


class Wrapping:
    """Replaces a callable that is no module, and puts it back."""

    def __init__(self):
        self.undo = []

    def wrap(self, owner, method, before, after):
        original = getattr(owner, method)

        def around(*args, **kwargs):
            before()
            try:
                return original(*args, **kwargs)
            finally:
                after()

        if method == "__call__":  # looked up on the class, so give the instance one of its own
            kept = type(owner)
            owner.__class__ = type(kept.__name__, (kept,), {"__call__": lambda self, *a, **k: around(*a, **k)})
            # original is bound to the instance; its function is still the old class's.
            self.undo.append(lambda: setattr(owner, "__class__", kept))
            return
        own = method in getattr(owner, "__dict__", {})
        setattr(owner, method, around)
        self.undo.append(lambda: setattr(owner, method, original) if own else delattr(owner, method))

    def remove(self):
        while self.undo:
            self.undo.pop()()
