"""Tensor parallelism for real: what the ranks of one engine tell each other, timed where they call it.

Every rank runs the same steps, so the n-th collective of a step on one rank is the n-th on all of them: that is all
that ranks.py needs to tell waiting from transferring, without a clock in common.
"""

# What vLLM's device communicators are called for; which of them one has depends on the release and the device.
METHODS = ("all_reduce", "all_gather", "all_gatherv", "reduce_scatter", "reduce_scatterv", "gather", "dispatch", "combine")


class Call:
    """One collective of one step on this rank."""

    __slots__ = ("site", "kind", "rows", "bytes", "ns", "by", "longest_ns")  # site: the layer's site around it; -1: none, None: not known yet

    def __init__(self, site, kind, tensor):
        self.site, self.kind, self.ns = site, kind, 0
        self.by, self.longest_ns = "", 0  # the kernel that took most of it
        shape = getattr(tensor, "shape", None)
        self.rows = int(shape[0]) if shape else 0
        self.bytes = int(tensor.numel() * tensor.element_size()) if shape is not None else 0

    def add(self, kernel, ns):
        self.ns += ns
        if ns > self.longest_ns:
            self.by, self.longest_ns = kernel, ns

    def described(self):
        return self.site, self.kind, self.rows, self.bytes


class Group:
    """The tensor-parallel group of this rank."""

    def __init__(self, group):
        self.group = group
        self.ranks, self.rank = int(group.world_size), int(group.rank_in_group)
        self.communicator = group.device_communicator
        self.methods = [m for m in METHODS if callable(getattr(self.communicator, m, None))]

    def watch(self, begin, end):
        """Has begin(kind, tensor) and end(what begin gave) called around each outermost collective; returns what undoes it."""
        communicator, depth = self.communicator, [0]

        def wrap(kind, original):
            def call(input_, *args, **kwargs):
                if depth[0]:  # one that is made of others
                    return original(input_, *args, **kwargs)
                depth[0] = 1
                token = begin(kind, input_)
                try:
                    return original(input_, *args, **kwargs)
                finally:
                    end(token)
                    depth[0] = 0
            return call

        undo = []
        for name in self.methods:
            own = name in communicator.__dict__
            original = getattr(communicator, name)
            setattr(communicator, name, wrap(name, original))
            undo.append((name, original if own else None))

        def remove():
            for name, original in undo:
                if original is None:
                    delattr(communicator, name)
                else:
                    setattr(communicator, name, original)

        return remove

    def worst(self, *values):
        """The largest of each value over the ranks, the same on all: what ranks do must not depend on their own clocks."""
        import torch

        numbers = torch.tensor(values, dtype=torch.float64)
        torch.distributed.all_reduce(numbers, op=torch.distributed.ReduceOp.MAX, group=self.group.cpu_group)
        return tuple(numbers.tolist())


def find_group():
    """This process's tensor-parallel group; None where it is alone."""
    try:
        from vllm.distributed.parallel_state import get_tp_group

        group = get_tp_group()
    except (ImportError, AssertionError):
        return None
    return Group(group) if group.world_size > 1 else None


def watch_clock(group, watch):
    """CPU: the time around the communicator's calls, in a span of its own inside the layer's. `watch` is a timing_cpu.Clock."""

    def begin(kind, tensor):
        if watch.skipping:
            return None
        entered = watch.now()
        site = next((frame[0] for frame in reversed(watch.stack) if isinstance(frame[0], int)), -1)
        call = Call(site, kind, tensor)
        watch.collectives.append(call)
        watch.charge(watch.now() - entered, -1)
        watch.begin(("collective", call))
        return call

    def end(call):
        if call is not None:
            watch.end()

    return group.watch(begin, end)


def watch_ranges(group, ranges):
    """CUDA: a profiler range around the communicator's calls; attribution finds their kernels and the layer around them."""

    def begin(kind, tensor):
        if ranges.skipping:
            return False
        ranges.open.append(ranges.enter(f"C#{len(ranges.collectives)}"))
        ranges.collectives.append(Call(None, kind, tensor))
        ranges.calls["C"] = ranges.calls.get("C", 0) + 1
        return True

    def end(began):
        if began:
            ranges.end()

    return group.watch(begin, end)


def short_name(kernel):
    """A kernel's name without its types."""
    return kernel.removeprefix("void ").split("<")[0].split("(")[0].strip()[:100]


def answer(samples, sites, begun, layer_calls):
    """The collectives of a shot as ranks.py wants them: one entry a call of the step, in order, a time a sample.
    `begun`: how many were called in all samples, None where each has its clock; `layer_calls`: by layer, in one step."""
    first = samples[0].collectives
    found = sum(len(s.collectives) for s in samples)
    if begun is not None and found != begun:
        raise ValueError(f"{begun} collectives were called and {found} ran a kernel")
    for s in samples[1:]:
        if [c.described() for c in s.collectives] != [c.described() for c in first]:
            raise ValueError("the steps of one shot differ in their collectives")
    out = []
    for n, call in enumerate(first):
        times = [s.collectives[n].ns / 1e3 for s in samples]
        if min(times) <= 0:
            raise ValueError(f"a {call.kind} of {call.bytes} bytes took no time: {times} us")
        layer = sites[call.site].layer if call.site >= 0 else ""
        out.append({"layer": layer, "layer_calls": layer_calls.get(layer, 1), "kind": call.kind, "rows": call.rows,
                    "bytes": call.bytes, "by": short_name(call.by), "us": [round(t, 4) for t in times]})
    return out
