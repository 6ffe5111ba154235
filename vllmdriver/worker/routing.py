"""Forges the gates' logits, so that top-k routes exactly as wanted, and checks that it did."""

import sys

import numpy as np

from batch import Infeasible, Mismatch


def even_histogram(tokens, top_k, experts, num_experts, random):
    """tokens*top_k slots over that many distinct experts, as evenly as whole numbers allow."""
    if not top_k <= experts <= min(num_experts, tokens * top_k):
        raise Infeasible(f"{experts} experts for {tokens} tokens, top {top_k} of {num_experts}")
    counts = np.zeros(num_experts, dtype=np.int64)
    chosen = random.permutation(num_experts)[:experts]
    counts[chosen] = tokens * top_k // experts
    counts[chosen[:tokens * top_k % experts]] += 1
    return counts


def assign(counts, tokens, top_k, random):
    """A (tokens, top_k) table of experts that has exactly these counts, no expert twice in a row."""
    if counts.min() < 0 or counts.sum() != tokens * top_k or counts.max() > tokens:
        raise Infeasible(f"a histogram of {int(counts.sum())} slots, the largest {int(counts.max())}, for {tokens} tokens and top {top_k}")
    # One expert's slots are neighbours; dealt out round robin they meet distinct tokens.
    order = random.permutation(len(counts))
    slots = np.repeat(order, counts[order])
    return slots.reshape(top_k, tokens).T[random.permutation(tokens)]


class Forge:
    """Hooks on every gate; idle until a shot wants a routing."""

    def __init__(self, model, num_experts, top_k, seed):
        self.num_experts, self.top_k = num_experts, top_k
        self.random = np.random.default_rng(seed)
        self.gates = [(n, m) for n, m in model.named_modules() if n.split(".")[-1] == "gate" and hasattr(m, "weight")]
        self.model = model
        self.logits = None
        self.calls = 0
        self.wrong_rows = 0
        self.wanted = None
        self.status = "not verified yet"
        for _, gate in self.gates:
            gate.register_forward_hook(self.hook)

    def hook(self, module, args, output):
        if self.logits is None:
            return None
        self.calls += 1
        first = output[0] if isinstance(output, tuple) else output
        if first.shape != self.logits.shape:
            self.wrong_rows += 1
            return None
        logits = self.logits
        if logits.dtype != first.dtype or logits.device != first.device:
            logits = self.logits = logits.to(device=first.device, dtype=first.dtype)
        return (logits,) + tuple(output[1:]) if isinstance(output, tuple) else logits

    def want(self, tokens, experts, histogram, device):
        """Sets the routing of the fires that follow; neither experts nor histogram: the gate's own."""
        import torch

        self.logits = self.wanted = None
        if not experts and histogram is None:
            return
        if not self.gates:
            raise Infeasible("a routing is asked for and the model has no gate")
        if histogram is not None:
            counts = np.asarray(histogram, dtype=np.int64)
            if len(counts) != self.num_experts:
                raise Infeasible(f"a histogram of {len(counts)} experts, the model has {self.num_experts}")
        else:
            counts = even_histogram(tokens, self.top_k, experts, self.num_experts, self.random)
        table = assign(counts, tokens, self.top_k, self.random)
        logits = np.full((tokens, self.num_experts), -20.0, dtype=np.float32)
        np.put_along_axis(logits, table, 20.0, axis=1)
        self.logits = torch.from_numpy(logits).to(device)
        self.wanted = counts

    def expect(self, before, fires):
        """Raises unless every gate was forged in each of the fires since `before`."""
        if self.logits is None:
            return
        want = fires * len(self.gates)
        if self.calls - before != want or self.wrong_rows:
            wrong, self.wrong_rows = self.wrong_rows, 0
            raise Mismatch(f"gates forged {self.calls - before} times, expected {want}; {wrong} with another number of rows")


class Capture:
    """Records the experts that the routing functions give, where they can be reached."""

    def __init__(self, forge):
        self.forge = forge
        self.undo, self.found, self.names = [], [], set()

    def __enter__(self):
        seen = set()
        for _, module in self.forge.model.named_modules():
            router = getattr(module, "router", None)
            if router is not None and hasattr(router, "_compute_routing") and id(router) not in seen:
                seen.add(id(router))
                self.replace(router, "_compute_routing", type(router).__name__ + "._compute_routing", True)
        # The CPU kernels' routing is a function of a module, whichever this release keeps it in.
        for name, module in list(sys.modules.items()):
            if name.startswith("vllm.model_executor.layers.fused_moe") and callable(getattr(module, "select_experts", None)) and not isinstance(module.select_experts, type):
                self.replace(module, "select_experts", name.split(".")[-1] + ".select_experts", False)
        return self

    def replace(self, owner, attribute, label, instance):
        original = getattr(owner, attribute)

        def call(*args, **kwargs):
            out = original(*args, **kwargs)
            try:
                import torch

                ids = [t for t in out if torch.is_tensor(t) and t.dtype in (torch.int32, torch.int64, torch.uint32)][0]
                self.found.append(ids.detach().clone())
                self.names.add(label)
            except Exception as e:
                self.names.add(f"{label}: {type(e).__name__}")
            return out

        own = attribute in getattr(owner, "__dict__", {})
        setattr(owner, attribute, call)
        self.undo.append((owner, attribute, original, own))

    def __exit__(self, *_):
        for owner, attribute, original, own in reversed(self.undo):
            if own:
                setattr(owner, attribute, original)
            else:
                delattr(owner, attribute)

    def verify(self):
        """Compares with what was wanted; false where nothing could be captured."""
        if not self.found:
            return False
        for ids in self.found:
            counts = np.bincount(ids.flatten().long().cpu().numpy(), minlength=self.forge.num_experts)
            if len(counts) != len(self.forge.wanted) or (counts != self.forge.wanted).any():
                raise Mismatch(f"routed to {int((counts > 0).sum())} experts ({int(counts.sum())} slots), "
                               f"wanted {int((self.forge.wanted > 0).sum())} ({int(self.forge.wanted.sum())})")
        return True
