"""GPU timing: kernels from torch.profiler, attributed by launch correlation to ranges that module hooks open."""

import gc
import time

import attribution
import collectives
from catalog import Wrapping


class Ranges:
    """Hooks that open profiler ranges. Module hooks in a block that does not count stay silent."""

    def __init__(self, plan):
        import torch

        # The C functions that record_function ends in, at a quarter of its cost.
        self.enter = torch._C._autograd._record_function_with_args_enter
        self.exit = torch._C._autograd._record_function_with_args_exit
        self.open, self.handles, self.wrapping = [], [], Wrapping()
        self.skipping = 0
        self.plan = plan
        self.calls = {}
        self.collectives = []  # of the whole session, by the number in their ranges' names

    def install(self):
        plan = self.plan
        self.span(plan.model, "F")
        for block in plan.blocks[:-1]:
            self.block(block)
        for number, site in enumerate(plan.sites):
            if site.module is not None:
                self.span(site.module, f"L#{number}", number)
            else:
                label = f"L#{number}"
                self.wrapping.wrap(site.owner, site.method, lambda n=number, l=label: self.begin(l, n), self.end)
        if plan.group is not None:
            self.wrapping.undo.append(collectives.watch_ranges(plan.group, self))

    def begin(self, label, number):
        self.calls[number] = self.calls.get(number, 0) + 1
        self.open.append(self.enter(label))

    def end(self):
        self.exit(self.open.pop())

    def span(self, module, label, number=None):
        enter, leave, stack, calls = self.enter, self.exit, self.open, self.calls

        def before(m, args):
            if self.skipping:
                return
            if number is not None:
                calls[number] = calls.get(number, 0) + 1
            stack.append(enter(label))

        def after(m, args, output):
            if not self.skipping:
                leave(stack.pop())

        self.handles.append(module.register_forward_pre_hook(before))
        self.handles.append(module.register_forward_hook(after))

    def block(self, module):
        def before(m, args):
            self.open.append(self.enter("B"))
            self.skipping += 1

        def after(m, args, output):
            self.skipping -= 1
            self.exit(self.open.pop())

        self.handles.append(module.register_forward_pre_hook(before))
        self.handles.append(module.register_forward_hook(after))

    def unwind(self):
        """Closes what an exception left open."""
        self.skipping = 0
        while self.open:
            self.exit(self.open.pop())

    def remove(self):
        self.unwind()
        for h in self.handles:
            h.remove()
        self.handles = []
        self.wrapping.remove()


class Profiler:
    """One torch.profiler session that records ranges, launches and kernels, and no operators where it can do without."""

    def __init__(self, narrow):
        from torch.profiler import ProfilerActivity

        self.activities = [ProfilerActivity.CPU, ProfilerActivity.CUDA]
        self.narrow = narrow
        self.kinds = {}  # event name -> "host", "launch" or "device"

    def start(self):
        import torch
        import torch.autograd.profiler as autograd
        from torch.profiler import profile

        arguments = {"activities": self.activities}
        try:
            self.session = profile(acc_events=False, **arguments)
        except TypeError:
            self.session = profile(**arguments)
        kept = getattr(autograd, "_enable_profiler", None)
        if self.narrow and kept is not None:
            scope = {torch._C._profiler.RecordScope.USER_SCOPE}
            autograd._enable_profiler = lambda config, activities, *rest: kept(config, activities, scope)
        try:
            self.session.__enter__()
        finally:
            if kept is not None:
                autograd._enable_profiler = kept

    def stop(self):
        self.session.__exit__(None, None, None)

    def read(self):
        """The session's ranges, launches and kernels as attribution has them."""
        from torch.autograd import DeviceType

        cpu = DeviceType.CPU
        ranges, launches, kernels, kinds = [], {}, [], self.kinds
        for e in self.session.profiler.kineto_results.events():
            name = e.name()
            kind = kinds.get(name)
            if kind is None:
                kind = kinds[name] = self.kind(e, name, cpu)
            if kind == "device":
                kernels.append((e.start_ns(), e.duration_ns(), name, e.correlation_id()))
            elif kind == "launch":
                launches[e.correlation_id()] = e.start_ns()
            elif kind == "range":
                if e.device_type() == cpu:  # the device shows each range once more
                    start = e.start_ns()
                    parts = name.split("#")
                    ranges.append((start, start + e.duration_ns(), parts[0],
                                   int(parts[1]) if len(parts) > 1 else 0, int(parts[2]) if len(parts) > 2 else 0))
        self.session = None
        if len(kinds) > 100000:
            kinds.clear()
        return ranges, launches, kernels

    def kind(self, e, name, cpu):
        head = name.split("#")[0]
        if head in ("S", "F", "L", "B", "X", "C"):
            return "range"
        if e.device_type() != cpu:
            annotation = getattr(e, "is_user_annotation", None)
            return "host" if annotation is not None and annotation() else "device"
        return "launch" if name.startswith("cu") else "host"


class CudaTiming:
    """Measures many shots in one profiler session."""

    batches = True
    narrow = True  # operators are left out of the trace

    def __init__(self, plan):
        import torch

        self.torch, self.plan = torch, plan
        self.profiler = Profiler(self.narrow)
        self.l2 = None
        self.kernel_names = {}

    def synchronize(self):
        self.torch.cuda.synchronize()

    def flush(self):
        if self.l2 is None:
            self.l2 = self.torch.empty(256 << 20, dtype=self.torch.uint8, device="cuda")
        self.l2.zero_()

    def session(self, jobs, iterations, flush):
        """Fires each job `iterations` times. Returns per job its samples, step times and calls, or an exception."""
        ranges = Ranges(self.plan)
        out = [None] * len(jobs)
        steps, calls = {}, {}
        enabled = gc.isenabled()
        gc.disable()
        started = time.perf_counter()
        try:
            ranges.install()
            self.synchronize()
            self.profiler.start()
            try:
                for index, job in enumerate(jobs):
                    ranges.calls.clear()
                    try:
                        job.arm()
                        for sample in range(iterations):
                            if flush:
                                mark = ranges.enter("X")
                                self.flush()
                                ranges.exit(mark)
                            mark = ranges.enter(f"S#{index}#{sample}")
                            ranges.open.append(mark)
                            at = time.perf_counter()
                            job.fire()
                            self.synchronize()
                            steps.setdefault(index, []).append((time.perf_counter() - at) * 1e6)
                            ranges.end()
                        job.verify(iterations)
                    except Exception as e:
                        ranges.unwind()
                        out[index] = e
                        job.recover(e)
                    calls[index] = dict(ranges.calls)
                self.synchronize()
            finally:
                self.profiler.stop()
        finally:
            ranges.remove()
            if enabled:
                gc.enable()
        fired = time.perf_counter()
        split = {n for n, s in enumerate(self.plan.sites) if s.attention}
        found = attribution.attribute(*self.profiler.read(), split=split, collectives=ranges.collectives)
        for (layer, name), count in found.names.items():
            if len(self.kernel_names) < 2000 or (layer, name) in self.kernel_names:
                self.kernel_names[(layer, name)] = self.kernel_names.get((layer, name), 0) + count
        lost = found.unattributed()
        for index in range(len(jobs)):
            if out[index] is None:
                out[index] = {
                    "samples": [found.samples.get((index, i)) for i in range(iterations)],
                    "steps": steps.get(index, []), "calls": calls.get(index, {}), "unattributed": lost,
                }
        return out, {"fire": fired - started, "parse": time.perf_counter() - fired}

    def survey(self, job, modules):
        """One profiled step with a range for each of the modules: name -> kernel us by innermost module."""
        ranges = Ranges(self.plan)
        try:
            for block in self.plan.blocks[:-1]:
                ranges.block(block)
            for number, (_, module) in enumerate(modules):
                ranges.span(module, f"L#{number}", number)
            self.synchronize()
            self.profiler.start()
            try:
                mark = ranges.enter("S#0#0")
                job()
                self.synchronize()
                ranges.exit(mark)
            finally:
                self.profiler.stop()
        finally:
            ranges.remove()
        found = attribution.attribute(*self.profiler.read())
        sample = found.samples.get((0, 0))
        times = {modules[n][0]: ns / 1e3 for n, ns in sample.layers.items()} if sample else {}
        return times, {modules[n][0]: c for n, c in ranges.calls.items()}, found
