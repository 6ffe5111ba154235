"""Marks the parts of an engine's steps: clocks around the scheduler's and the runner's calls, events on the device."""

import time

HOST = ("schedule", "scheduled", "execute", "forward", "forwarded", "executed", "sampled", "update", "updated", "returned")


class Step:
    __slots__ = ("output", "requests", "admitted", "finished", "at", "events", "padded", "graph")

    def __init__(self, output):
        self.output, self.requests, self.admitted, self.finished = output, [], 0, 0
        self.at = {}
        self.events = []
        self.padded, self.graph = 0, ""


class Marks:
    """Wraps methods of the engine's objects for one run, and puts them back."""

    def __init__(self, core, engine):
        self.core = core
        self.scheduler = core.scheduler
        self.runner = runner_of(core.model_executor)
        self.steps, self.history, self.wrapped, self.handles = [], {}, [], []
        self.current, self.unreturned = None, []
        self.origin = 0.0
        self.cuda = None
        self.found = {"order": "scheduler", "forward": "", "device": False}

    # the run's clock

    def start(self):
        if self.cuda is not None:
            self.cuda.synchronize()
            self.zero = self.cuda.Event(enable_timing=True)
            self.zero.record()
            self.cuda.synchronize()
        self.origin = time.perf_counter()

    def now_us(self):
        return (time.perf_counter() - self.origin) * 1e6

    def returned(self, outputs):
        now = self.now_us()
        for step in self.unreturned:
            step.at["returned"] = now
        self.unreturned.clear()
        return now

    # wrapping

    def install(self):
        import torch

        if torch.cuda.is_available() and next(model_of(self.runner).parameters()).device.type == "cuda":
            self.cuda = torch.cuda
        self.found["device"] = self.cuda is not None
        self.wrap(self.scheduler, "schedule", self.schedule)
        self.wrap(self.scheduler, "update_from_output", self.update)
        self.wrap(self.runner, "execute_model", self.execute)
        if hasattr(self.runner, "sample_tokens"):
            self.wrap(self.runner, "sample_tokens", self.sample)
        graphs = getattr(self.runner, "cudagraph_manager", None)
        if hasattr(self.runner, "_model_forward"):
            self.wrap(self.runner, "_model_forward", self.forward)
            self.found["forward"] = "_model_forward"
        else:
            # A runner without that method: the model's own hooks, and the replay of whole graphs beside them.
            model = model_of(self.runner)
            self.handles.append(model.register_forward_pre_hook(lambda m, args, kwargs: self.begin_forward(args, kwargs), with_kwargs=True))
            self.handles.append(model.register_forward_hook(lambda m, args, out: self.end_forward()))
            self.found["forward"] = "model hooks"
            if hasattr(graphs, "run_fullgraph"):
                self.wrap(graphs, "run_fullgraph", self.replay)
                self.found["forward"] += ", run_fullgraph"

    def wrap(self, owner, name, around):
        original, own = getattr(owner, name), name in vars(owner)

        def call(*args, **kwargs):
            return around(original, *args, **kwargs)

        setattr(owner, name, call)
        self.wrapped.append((owner, name, original, own))

    def remove(self):
        for owner, name, original, own in reversed(self.wrapped):
            if own:
                setattr(owner, name, original)
            else:
                delattr(owner, name)
        for handle in self.handles:
            handle.remove()
        self.wrapped, self.handles = [], []

    def event(self, step):
        if self.cuda is not None:
            e = self.cuda.Event(enable_timing=True)
            e.record()
            step.events.append(e)

    # around the engine's calls

    def schedule(self, original, *args, **kwargs):
        begun = self.now_us()
        output = original(*args, **kwargs)
        if output.total_num_scheduled_tokens > 0:
            step = Step(output)
            step.at["schedule"], step.at["scheduled"] = begun, self.now_us()
            self.describe(step, output)
            self.steps.append(step)
        return output

    def describe(self, step, output):
        history = self.history
        for new in output.scheduled_new_reqs:
            history[new.req_id] = new.num_computed_tokens
        step.admitted = len(output.scheduled_new_reqs)
        cached = output.scheduled_cached_reqs
        if hasattr(cached, "req_ids"):
            for name, computed in zip(cached.req_ids, cached.num_computed_tokens):
                history[name] = computed
        else:
            for request in cached:
                history[request.req_id] = request.num_computed_tokens
        step.finished = len(output.finished_req_ids)
        for name in output.finished_req_ids:
            history.pop(name, None)
        step.requests = [[n, history.get(name, 0)] for name, n in output.num_scheduled_tokens.items()]

    def step_of(self, output):
        for step in reversed(self.steps):
            if step.output is output:
                return step
        return None

    def execute(self, original, output, *args, **kwargs):
        step = self.current = self.step_of(output)
        if step is None:
            return original(output, *args, **kwargs)
        step.at["execute"] = self.now_us()
        self.event(step)
        try:
            return original(output, *args, **kwargs)
        finally:
            step.at["executed"] = self.now_us()

    def forward(self, original, *args, **kwargs):
        self.begin_forward(args, kwargs)
        try:
            return original(*args, **kwargs)
        finally:
            self.end_forward()

    def replay(self, original, description, *args, **kwargs):
        self.begin_forward((), {}, getattr(description, "num_tokens", 0), "FULL")
        try:
            return original(description, *args, **kwargs)
        finally:
            self.end_forward()

    def begin_forward(self, args, kwargs, padded=0, graph=""):
        step = self.current
        if step is None or "forward" in step.at:
            return
        if not padded:
            for value in list(kwargs.values()) + list(args):
                if hasattr(value, "shape") and len(value.shape) >= 1:
                    padded = int(value.shape[-1] if len(value.shape) > 1 and value.shape[0] <= 4 else value.shape[0])
                    break
        step.padded, step.graph = padded, graph or graph_mode()
        self.executed_order(step)
        step.at["forward"] = self.now_us()
        self.event(step)

    def end_forward(self):
        step = self.current
        if step is None or "forward" not in step.at or "forwarded" in step.at:
            return
        self.event(step)
        step.at["forwarded"] = self.now_us()

    def executed_order(self, step):
        """The runner's own order of the batch, where it says one."""
        names = getattr(getattr(self.runner, "input_batch", None), "req_ids", None)
        scheduled = step.output.num_scheduled_tokens
        if isinstance(names, (list, tuple)) and len(names) == len(scheduled) and set(names) == set(scheduled):
            step.requests = [[scheduled[n], self.history.get(n, 0)] for n in names]
            self.found["order"] = "runner"

    def sample(self, original, *args, **kwargs):
        step = self.current
        out = original(*args, **kwargs)
        if step is not None and "sampled" not in step.at:
            self.event(step)
            step.at["sampled"] = self.now_us()
        return out

    def update(self, original, output, *args, **kwargs):
        step = self.step_of(output)
        begun = self.now_us()
        result = original(output, *args, **kwargs)
        if step is not None:
            step.at["update"], step.at["updated"] = begun, self.now_us()
            self.unreturned.append(step)
        return result

    # the record

    def steps_done(self):
        """Plain data, a dictionary a step that was carried out to its end."""
        if self.cuda is not None:
            self.cuda.synchronize()
        rows = []
        for step in self.steps:
            if "updated" not in step.at:
                continue
            device = [round(self.zero.elapsed_time(e) * 1e3, 1) for e in step.events] if self.cuda is not None else []
            rows.append({
                "requests": step.requests, "admitted": step.admitted, "finished": step.finished,
                "padded_tokens": step.padded, "graph": step.graph,
                "host_marks_us": [round(step.at[k], 1) if k in step.at else None for k in HOST],
                "device_marks_us": device if len(device) == 4 else None,
            })
        return rows


def graph_mode():
    try:
        from vllm.forward_context import get_forward_context

        mode = get_forward_context().cudagraph_runtime_mode
        return str(getattr(mode, "name", mode))
    except Exception:
        return ""


def runner_of(executor):
    """The model runner of an executor that works in this process."""
    worker = getattr(executor, "driver_worker", None)
    for _ in range(3):
        if worker is None or hasattr(worker, "model_runner"):
            break
        worker = getattr(worker, "worker", None)
    runner = getattr(worker, "model_runner", None)
    if runner is None:
        raise AttributeError(f"no model runner below {type(executor).__name__}")
    return runner


def model_of(runner):
    return runner.get_model() if hasattr(runner, "get_model") else runner.model
