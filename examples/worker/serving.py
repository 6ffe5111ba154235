#!/usr/bin/env python3
"""The example worker with whole steps: it also serves lists of requests.

The two operations of vllmdriver/PROTOCOL.md that are optional, on the same
made-up device: a small continuous-batching scheduler and a clock that runs by
what the steps cost, so a list of requests is served in no time and gives the
same steps every time.
"""
import json
import sys

import worker

# A Llama's calls: of dense layers before the blocks, in one block beside attention, and behind them; then of the head's.
BEFORE, IN_BLOCK, BEHIND, HEAD = 1, 8, 1, 2
# What the host does in a step, in microseconds: fixed, and for each request.
SCHEDULE, PREPARE, LAUNCH_LAYER, SAMPLE, UPDATE, BETWEEN = (40, 2), (300, 1), 120, (80, 0.5), (30, 3), (20, 1)


class ServingWorker(worker.Worker):
    operations = worker.Worker.operations + ("boot_serving", "serve")

    def hello(self, request, send):
        answer = super().hello(request, send)
        answer["capabilities"].append("serve")
        return answer

    def probe(self, request, send):
        return {**super().probe(request, send), "step_modes": ["graph_sync", "graph_async", "eager_sync"]}

    def boot_serving(self, request, send):
        answer = self.boot({**request, "catalog": [{"layer": "all", "category": "dense", "vllm": ["X"]}]}, send)
        for field in ("catalog", "unmatched_modules"):
            answer.pop(field)
        self.serving = {"layers": request["config"]["num_hidden_layers"], "eager": bool(request.get("enforce_eager")),
                        "async": bool(request.get("async_scheduling")), "worker": self}
        self.sizes = [] if self.serving["eager"] else [n for n in (1, 2, 4, 8, 16, 32, 64, 128, 256) if n <= 2 * request["max_num_seqs"]]
        answer["async_scheduling"] = self.serving["async"]
        answer["provenance"].update(layers=self.serving["layers"], capture_sizes=self.sizes, cpu="example host",
                                    graph_mode="NONE" if self.serving["eager"] else "FULL_AND_PIECEWISE")
        return answer

    def serve(self, request, send):
        if getattr(self, "serving", None) is None:
            raise worker.Refused("not_booted", "boot_serving comes first")
        waiting = []
        for number, (prompt, output, arrival, at_step) in enumerate(request["requests"]):
            if prompt < 1 or output < 1:
                raise worker.Refused("bad_request", f"serve: request {number}: at least 1 token in and out")
            if prompt + output > self.limits["max_model_len"]:
                raise worker.Refused("bad_request", f"serve: request {number} is longer than max_model_len")
            waiting.append([number, prompt, output, arrival, at_step])
        run = Run(self.serving, self.limits, self.sizes, waiting, request.get("steps") or 0)
        run.serve()
        for start in range(0, len(run.steps), 200):
            send({"steps": run.steps[start:start + 200]})
        return {"requests": run.done, "steps": len(run.steps)}


class Run:
    def __init__(self, engine, limits, sizes, waiting, limit):
        self.engine, self.limits, self.sizes, self.limit = engine, limits, sizes, limit
        self.by_step = any(w[4] is not None for w in waiting)
        self.waiting = sorted(waiting, key=lambda w: (w[4] if self.by_step else w[3], w[0]))
        self.host, self.device = 5.0, 0.0  # the host's clock, and when the device is free
        self.running, self.steps, self.done, self.finished = [], [], [], 0
        self.late = None  # with asynchronous scheduling, the step whose output is not taken up yet

    def serve(self):
        while self.waiting or self.running or self.late:
            if self.limit and len(self.steps) >= self.limit:
                break
            self.admit()
            self.step()
        if self.late:
            self.take_up(self.late)
        for q in self.running:  # given up
            self.done.append(q["row"])

    def admit(self):
        while self.waiting and (self.waiting[0][4] <= len(self.steps) if self.by_step else self.waiting[0][3] <= self.host):
            self.take()
        if not self.running and not self.late and self.waiting:
            if not self.by_step:
                self.host = max(self.host, self.waiting[0][3])
            self.take()

    def take(self):
        number, prompt, output, arrival, _ = self.waiting.pop(0)
        self.running.append({"prompt": prompt, "output": output, "left": output, "computed": 0,
                             "row": [number, arrival if not self.by_step else self.host, self.host, None, None, 0]})

    def spend(self, cost, requests=0):
        fixed, each = cost if isinstance(cost, tuple) else (cost, 0)
        self.host = round(self.host + fixed + each * requests, 1)
        return self.host

    def step(self):
        batch, budget = [], self.limits["max_num_batched_tokens"]
        for q in self.running[:self.limits["max_num_seqs"]]:
            new = min(max(q["prompt"] - q["computed"], 1), budget)
            if q["left"] > 0 and new > 0:
                batch.append((q, new))
                budget -= new
        if batch:
            self.launch(batch)
        elif self.late:
            self.take_up(self.late)
            self.late = None

    def launch(self, batch):
        n, tokens = len(batch), sum(new for _, new in batch)
        prefill = any(new > 1 or q["computed"] == 0 for q, new in batch)
        padded = next((s for s in self.sizes if s >= tokens), tokens)
        graph = "NONE" if self.engine["eager"] or padded == tokens and tokens not in self.sizes else "PIECEWISE" if prefill else "FULL"
        marks = [self.host, self.spend(SCHEDULE, n), self.spend(5), self.spend(PREPARE, n)]
        marks.append(self.spend(LAUNCH_LAYER * self.engine["layers"] if graph == "NONE" else 60))
        marks.append(self.spend(20))
        requests = [[new, q["computed"]] for q, new in batch]
        us, layers = self.engine["worker"].layer_us, self.engine["layers"]
        dense = us("dense", requests, padded=padded)
        came = max(marks[2], self.device)  # the device comes to a mark when it is done with what was before
        begin = max(marks[3], self.device)
        end = max(begin + (BEFORE + BEHIND + IN_BLOCK * layers) * dense + layers * us("attention", requests), marks[4])
        self.device = round(end + HEAD * us("per_sequence", requests), 1)
        step = {"requests": requests, "admitted": sum(q["computed"] == 0 for q, _ in batch),
                "finished": self.finished, "padded_tokens": padded, "graph": graph,
                "device_marks_us": [came, round(begin, 1), round(end, 1), self.device]}
        self.finished = 0
        if not self.engine["async"]:
            self.host = max(self.host, self.device)
        marks.append(self.spend(SAMPLE, n))
        step["host_marks_us"] = marks
        self.steps.append(step)
        ended = []
        for q, new in batch:
            q["computed"] += new
            if q["computed"] >= q["prompt"]:
                q["left"] -= 1
                ended.append(q)
        mine, self.late = (step, ended, n, self.device), self.late
        if not self.engine["async"]:
            self.take_up(mine)
            return
        if self.late:
            self.take_up(self.late)
        else:
            self.spend(BETWEEN)
        self.late = mine

    def take_up(self, late):
        """The scheduler's update with a step's output, and the return to the caller."""
        step, ended, n, ready = late
        self.host = max(self.host, ready)
        step["host_marks_us"] += [self.spend(5), self.spend(UPDATE, n), self.spend(UPDATE, n)]
        for q in ended:
            row = q["row"]
            row[5] += 1
            row[3] = row[3] or self.host
            if row[5] == q["output"]:
                row[4] = self.host
                self.running.remove(q)
                self.done.append(row)
                self.finished += 1
        self.spend(BETWEEN, n)


if __name__ == "__main__":
    sys.exit(worker.main(ServingWorker()))
