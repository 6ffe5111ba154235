"""Gives each kernel of a profiler session to the layer that launched it. Plain data in and out, no torch.

A range is (start_ns, end_ns, kind, a, b): kind "S" is a step (a: shot, b: sample), "F" the model's forward,
"L" a layer (a: its number), "B" a block whose layers do not count, "X" work of ours that is no part of a step,
"C" a collective (a: its number), whose kernels are its own and not those of the layer around it.
A kernel is (start_ns, duration_ns, name, correlation); a launch is correlation -> host time in ns.
"""

STEP, FORWARD, LAYER, BLOCK, OWN, COLLECTIVE = "S", "F", "L", "B", "X", "C"


def kernel_class(name):
    """The class of an attention kernel."""
    low = name.lower()
    if "reshape_and_cache" in low or "concat_and_cache" in low:
        return "cache_write"
    if "combine" in low or "reduce_segments" in low:
        return "combine"
    if "prepare" not in low and any(w in low for w in ("flash", "fmha", "paged_attention", "unified_attention", "batchprefill", "batchdecode")):
        return "flash"
    return "other"


def is_collective(name):
    """Whether a kernel is one in which ranks meet: NCCL's, vLLM's own all-reduce, symmetric memory's."""
    low = name.lower()
    return any(w in low for w in ("nccl", "cross_device_reduce", "all_reduce", "allreduce", "all_gather", "allgather", "reduce_scatter"))


class Sample:
    """One fire: what its kernels took, by layer."""

    __slots__ = ("layers", "launches", "classes", "inside_ns", "layer_ns", "skipped_ns", "outside_ns", "spans", "collectives", "stray")

    def __init__(self):
        self.layers = {}      # number -> ns
        self.launches = {}    # number -> kernels
        self.classes = {}     # (number, class) -> ns
        self.inside_ns = 0    # all kernels inside the forward, the head and the sampler
        self.layer_ns = 0     # of which layers that count
        self.skipped_ns = 0   # and blocks that do not
        self.outside_ns = 0   # preparation of inputs and the like
        self.spans = []       # (start, end) of the kernels inside
        self.collectives = [] # collectives.Call, in the order of their launches
        self.stray = None     # a collective's kernel that ran in a layer outside all of them

    def unaccounted(self):
        """The share of the kernels' union that no layer's sum explains: gaps and overlaps both count."""
        union, end = 0, 0
        for start, stop in sorted(self.spans):
            if stop > end:
                union += stop - max(start, end)
                end = stop
        if union == 0:
            return 1.0
        gap = self.inside_ns - self.layer_ns - self.skipped_ns
        overlap = self.inside_ns - union
        return (gap + overlap) / union


class Attribution:
    def __init__(self):
        self.samples = {}   # (shot, sample) -> Sample
        self.kernels = 0
        self.lost = 0       # kernels without a launch or outside every step
        self.names = {}     # (layer number or None, kernel name) -> count

    def unattributed(self):
        return self.lost / self.kernels if self.kernels else 0.0


def attribute(ranges, launches, kernels, split=(), collectives=()):
    """Attributes every kernel to the innermost range open at its launch; `split`: layers whose kernels are classed;
    `collectives`: the calls behind the ranges "C", which get their time and their layer."""
    result = Attribution()
    result.kernels = len(kernels)
    ranges = sorted(ranges, key=lambda r: (r[0], -r[1]))
    for r in ranges:
        if r[2] == STEP:
            result.samples[(r[3], r[4])] = Sample()
    order = []
    for kernel in kernels:
        at = launches.get(kernel[3])
        if at is None:
            result.lost += 1
        else:
            order.append((at, kernel))
    order.sort(key=lambda x: x[0])
    stack, following, count = [], 0, len(ranges)
    samples, names = result.samples, result.names
    for at, (start, duration, name, _) in order:
        while following < count and ranges[following][0] <= at:
            begin = ranges[following][0]
            while stack and stack[-1][1] < begin:
                stack.pop()
            stack.append(ranges[following])
            following += 1
        while stack and stack[-1][1] < at:
            stack.pop()
        step = layer = block = call = None
        inside = own = False
        for r in stack:
            kind = r[2]
            if kind == STEP:
                step = r
            elif kind == LAYER:
                layer, inside = r[3], True  # the innermost wins
            elif kind == BLOCK:
                block = inside = True
            elif kind == FORWARD:
                inside = True
            elif kind == COLLECTIVE:
                call, inside = collectives[r[3]], True
            elif kind == OWN:
                own = True
        if step is None:
            if not own:
                result.lost += 1
            continue
        sample = samples[(step[3], step[4])]
        key = (layer, name)
        names[key] = names.get(key, 0) + 1
        if not inside:
            sample.outside_ns += duration
            continue
        sample.inside_ns += duration
        sample.spans.append((start, start + duration))
        if block:
            sample.skipped_ns += duration
        elif call is not None:
            sample.layer_ns += duration
            if call.site is None:
                call.site = -1 if layer is None else layer
                sample.collectives.append(call)
            call.add(name, duration)
        elif layer is not None:
            sample.layer_ns += duration
            sample.layers[layer] = sample.layers.get(layer, 0) + duration
            sample.launches[layer] = sample.launches.get(layer, 0) + 1
            if is_collective(name):
                sample.stray = name
            if layer in split:
                at_class = (layer, kernel_class(name))
                sample.classes[at_class] = sample.classes.get(at_class, 0) + duration
    return result
