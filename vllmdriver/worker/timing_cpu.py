"""CPU timing: the engine is synchronous, so clocks in module hooks do, with what is nested subtracted."""

import time

import collectives
from catalog import Wrapping

clock = time.perf_counter_ns


class Span:
    """All calls under one label in one fire."""

    __slots__ = ("total", "calls", "own", "hooks", "own_hooks", "nested")

    def __init__(self):
        self.total = self.calls = self.own = 0
        self.hooks = self.own_hooks = 0  # our hooks' time inside it; of that, outside what is nested
        self.nested = 0                  # spans directly inside it

    def glue(self, hook_ns):
        """Time outside all that is nested, without our hooks."""
        return self.own - self.own_hooks - self.nested * hook_ns


class Clock:
    """A stack of open spans. Times of our own hooks are kept apart, as they belong to nobody."""

    def __init__(self):
        self.stack = []     # [label, start, children, own hooks, hooks, nested]
        self.spans = {}
        self.collectives = []
        self.hooks = 0
        self.skipping = 0
        self.handles, self.wrapping = [], Wrapping()

    now = staticmethod(clock)

    def begin(self, label):
        entered = clock()
        if self.skipping:
            return
        frame = [label, 0, 0, 0, 0, 0]
        self.stack.append(frame)
        frame[1] = now = clock()
        self.charge(now - entered, -2)

    def charge(self, cost, parent):
        self.hooks += cost
        if len(self.stack) >= -parent:
            frame = self.stack[parent]
            frame[3] += cost
            frame[4] += cost

    def end(self):
        now = clock()
        if self.skipping:
            return
        label, start, children, own_hooks, hooks, nested = self.stack.pop()
        took = now - start
        span = self.spans.get(label)
        if span is None:
            span = self.spans[label] = Span()
        span.total += took
        span.calls += 1
        span.own += took - children
        span.hooks += hooks
        span.own_hooks += own_hooks
        span.nested += nested
        if self.stack:
            frame = self.stack[-1]
            frame[2] += took
            frame[4] += hooks
            frame[5] += 1
        self.charge(clock() - now, -1)

    def module(self, module, label):
        self.handles.append(module.register_forward_pre_hook(lambda m, a: self.begin(label)))
        self.handles.append(module.register_forward_hook(lambda m, a, o: self.end()))

    def block(self, module):
        def before(m, a):
            self.begin("B")
            self.skipping += 1

        def after(m, a, o):
            self.skipping -= 1
            self.end()

        self.handles.append(module.register_forward_pre_hook(before))
        self.handles.append(module.register_forward_hook(after))

    def callable(self, owner, method, label):
        self.wrapping.wrap(owner, method, lambda: self.begin(label), self.end)

    def take(self):
        spans, self.spans, self.collectives = self.spans, {}, []
        self.stack.clear()
        self.skipping = self.hooks = 0
        return spans

    def remove(self):
        for h in self.handles:
            h.remove()
        self.handles = []
        self.wrapping.remove()


def hook_cost(rounds=400):
    """ns that a hooked call costs its caller beyond what the hooks see of themselves."""
    import torch

    class Nothing(torch.nn.Module):
        def forward(self, x):
            return x

    module, costs = Nothing(), []
    watch = Clock()
    plain = [0] * rounds
    for i in range(rounds):
        at = clock()
        module(1)
        plain[i] = clock() - at
    watch.module(module, "L")
    try:
        for _ in range(rounds):
            watch.take()
            at = clock()
            module(1)
            took = clock() - at
            hooks = watch.hooks
            costs.append(took - hooks - watch.spans["L"].total)
    finally:
        watch.remove()
    return max(0, sorted(costs)[rounds // 2] - sorted(plain)[rounds // 2])


class CpuTiming:
    """Measures one shot at a time."""

    batches = False

    def __init__(self, plan):
        self.plan = plan
        self.kernel_names = {}
        self.split = self.splits()
        self.buffer = None
        self.hook_ns = hook_cost()
        self.glue_ns = 0

    def splits(self):
        """The attention layer's two calls, where this release makes both."""
        found = []
        for number, site in enumerate(self.plan.sites):
            impl = getattr(site.module, "impl", None) if site.attention else None
            if impl is not None and hasattr(impl, "forward") and hasattr(impl, "do_kv_cache_update"):
                found.append((number, impl))
        return found

    def synchronize(self):
        pass

    def flush(self):
        import torch

        if self.buffer is None:
            self.buffer = torch.zeros(128 << 20, dtype=torch.uint8)
        self.buffer.add_(1)

    def install(self, watch):
        plan = self.plan
        watch.module(plan.model, "F")
        for block in plan.blocks[:-1]:
            watch.block(block)
        for number, site in enumerate(plan.sites):
            if site.module is not None:
                watch.module(site.module, number)
            else:
                watch.callable(site.owner, site.method, number)
        for number, impl in self.split:
            watch.callable(impl, "forward", ("flash", number))
            watch.callable(impl, "do_kv_cache_update", ("cache_write", number))
        if plan.group is not None:
            watch.wrapping.undo.append(collectives.watch_clock(plan.group, watch))

    def session(self, jobs, iterations, flush):
        out, began = [], time.perf_counter()
        for job in jobs:
            watch = Clock()
            steps, samples = [], []
            try:
                self.install(watch)
                job.arm()
                for _ in range(iterations):
                    if flush:
                        self.flush()
                    watch.take()
                    at = clock()
                    job.fire()
                    steps.append((clock() - at) / 1e3)
                    samples.append(CpuSample(watch.take(), self.hook_ns, self.glue_ns))
                job.verify(iterations)
                out.append({"samples": samples, "steps": steps, "calls": samples[-1].calls, "unattributed": 0.0})
            except Exception as e:
                out.append(e)
                job.recover(e)
            finally:
                watch.remove()
        return out, {"fire": time.perf_counter() - began}

    def survey(self, job, modules):
        watch = Clock()
        try:
            for block in self.plan.blocks[:-1]:
                watch.block(block)
            for name, module in modules:
                watch.module(module, name)
            job()
            spans = watch.take()
        finally:
            watch.remove()
        spans.pop("B", None)
        return {n: s.glue(self.hook_ns) / 1e3 for n, s in spans.items()}, {n: s.calls for n, s in spans.items()}, None

    def calibrate(self, job, modules, rounds=15):
        """Measures what the modules that only hold others spend on Python alone, on the smallest batch there is.

        On a GPU that time is no kernel's; here it would pass for a layer's. Work that grows with the batch stays
        unaccounted, and so does every leaf that the catalog does not have.
        """
        inside = [s.name + "." for s in self.plan.sites if s.module is not None]
        names = {s.name for s in self.plan.sites}
        holders = [n for n, m in modules if list(m.children()) and n not in names and not (n + ".").startswith(tuple(inside))]
        found = []
        watch = Clock()
        try:
            watch.module(self.plan.model, "")
            for block in self.plan.blocks[:-1]:
                watch.block(block)
            for name, module in modules:
                watch.module(module, name)
            for _ in range(rounds):
                watch.take()
                job()
                spans = watch.take()
                found.append(sum(spans[n].glue(self.hook_ns) for n in [""] + holders if n in spans))
        finally:
            watch.remove()
        self.glue_ns = max(0, sorted(found)[rounds // 2])


class CpuSample:
    """One fire, in the form of attribution.Sample."""

    def __init__(self, spans, hook_ns, glue_ns):
        self.layers, self.launches, self.classes, self.calls, self.collectives = {}, {}, {}, {}, []
        self.stray = None
        self.forward = spans.get("F") or Span()
        self.hook_ns, self.glue_ns = hook_ns, glue_ns
        for label, span in spans.items():
            if isinstance(label, int):
                # Splits of a layer are hooked inside it.
                self.layers[label] = max(0, span.total - span.hooks)
                self.launches[label] = self.calls[label] = span.calls
        for label in [label for label in spans if isinstance(label, tuple) and label[0] == "collective"]:
            call = label[1]  # in the order of the calls, as spans are
            call.ns = spans.pop(label).total
            self.collectives.append(call)
            if call.site in self.layers:
                self.layers[call.site] = max(0, self.layers[call.site] - call.ns)
        for number in {label[1] for label in spans if isinstance(label, tuple)}:
            flash, write = spans.get(("flash", number)), spans.get(("cache_write", number))
            if flash and write and number in self.layers:
                self.classes[(number, "flash")] = flash.own
                self.classes[(number, "cache_write")] = write.own
                self.classes[(number, "other")] = max(0, self.layers[number] - flash.own - write.own)

    def unaccounted(self):
        """The share of the forward that belongs to no layer: its time outside all layers, less our hooks and Python's."""
        whole = self.forward.total - self.forward.hooks
        if whole <= 0:
            return 1.0
        return max(0.0, self.forward.glue(self.hook_ns) - self.glue_ns) / whole
