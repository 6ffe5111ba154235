"""Serves requests through the engine's own scheduler and loop, in this process, and records each step.

Unlike a measured shot nothing is forged here: requests are admitted, continue from step to step and finish as in a server.
"""

import json
import os
import random
import tempfile
import time
import traceback

import engine as booting
import provenance
from marks import Marks

CHUNK_STEPS = 200  # steps in one line of the answer
PROGRESS_SECONDS = 1.0


class ServingEngine:
    def __init__(self, llm, facts):
        self.llm, self.facts = llm, facts
        self.engine = llm.llm_engine
        self.core = getattr(self.engine.engine_core, "engine_core", None)
        self.serial = 0

    def serve(self, request, send):
        return Run(self, request, send).result()


def boot(spec):
    """Boots an engine as a server would have it: whole depth, no hooks; enforce_eager and async_scheduling as asked for."""
    for field in ("config", "max_num_batched_tokens", "max_num_seqs"):
        if not spec.get(field):
            raise booting.BootError("bad_request", f"boot_serving: {field} is missing", fatal=False)
    booting.prepare_environment()
    llm_class, args_class = booting.import_vllm()
    started = time.perf_counter()
    folder = tempfile.mkdtemp(prefix="layerprof-model-")
    with open(os.path.join(folder, "config.json"), "w", encoding="utf-8") as f:
        json.dump(spec["config"], f)
    arguments, dropped = booting.engine_arguments(spec, folder, args_class)
    arguments.update(enforce_eager=bool(spec.get("enforce_eager")), async_scheduling=bool(spec.get("async_scheduling")))
    try:
        llm = llm_class(**arguments)
    except Exception as e:
        traceback.print_exc()
        code = "out_of_memory" if out_of_memory(e) else "boot"
        raise booting.BootError(code, f"vLLM does not boot: {booting.describe(e)}") from None
    seconds = {"engine": round(time.perf_counter() - started, 1)}
    try:
        found = llm.collective_rpc("lsp_prepare_serving", args=({
            "seed": spec.get("seed") or 0, "kv_cache_dtype": spec.get("kv_cache_dtype") or "auto"},))[0]
    except Exception as e:
        traceback.print_exc()
        raise booting.BootError("boot", f"the engine boots and does not run: {booting.describe(e)}") from None
    if found["facts"]["pid"] != os.getpid():
        raise booting.BootError("boot", "this vLLM runs its model in a process of its own, where its steps cannot be watched")
    serving = ServingEngine(llm, found["facts"])
    if serving.core is None or not hasattr(serving.core, "scheduler"):
        raise booting.BootError("boot", "this vLLM's engine core is not in the process of its caller; VLLM_ENABLE_V1_MULTIPROCESSING=0 is needed")
    actual = serving.core.scheduler
    found["async_scheduling"] = bool(getattr(getattr(serving.engine.vllm_config, "scheduler_config", None), "async_scheduling", False))
    facts = found["facts"]
    facts["scheduler"] = provenance.qualified(actual)
    record = provenance.collect(spec, arguments, dropped, facts, seconds)
    found.pop("facts")
    found.update(record)
    return serving, found


def out_of_memory(error):
    """Whether the model, or any KV cache beside it, does not fit, as the engine's exceptions say it."""
    while error is not None:
        text = f"{type(error).__name__}: {error}"
        if any(words in text for words in ("OutOfMemoryError", "out of memory", "No available memory for the cache blocks",
                                           "larger than the available KV cache memory")):
            return True
        error = error.__cause__ or error.__context__
    return False


class Run:
    """One list of requests from the first arrival to the last token, or to a number of steps."""

    def __init__(self, serving, request, send):
        self.serving, self.engine, self.send = serving, serving.engine, send
        self.limit = int(request.get("steps") or 0)
        self.random = random.Random(int(request.get("seed") or 0))
        self.vocabulary = int(serving.facts["vocab_size"])
        self.waiting = []
        for number, (prompt, output, arrival_us, at_step) in enumerate(request["requests"]):
            if prompt < 1 or output < 1:
                raise booting.RequestError(f"serve: request {number}: found {prompt} prompt and {output} output tokens, expected at least 1")
            self.waiting.append((arrival_us, at_step, number, prompt, output))
        # By step where steps are given, else by time.
        self.by_step = any(w[1] is not None for w in self.waiting)
        self.waiting.sort(key=lambda w: (w[1] if self.by_step else w[0], w[2]))
        self.tokens = {w[2]: self.prompt(w[3]) for w in self.waiting}
        self.names, self.served = {}, []
        self.marks = Marks(serving.core, self.engine)

    def prompt(self, count):
        return [self.random.randrange(10, self.vocabulary - 10) for _ in range(count)]

    def add(self, entry, now_us):
        from vllm import SamplingParams

        arrival_us, _, number, prompt, output = entry
        self.serving.serial += 1
        name = f"serve{self.serving.serial}"
        self.names[name] = len(self.served)
        self.served.append([number, round(arrival_us if not self.by_step else now_us), round(now_us), None, None, 0])
        self.engine.add_request(name, {"prompt_token_ids": self.tokens.pop(number)},
                                SamplingParams(temperature=0, max_tokens=output, ignore_eos=True, detokenize=False))

    def result(self):
        marks = self.marks
        marks.install()
        try:
            self.loop()
        finally:
            marks.remove()
            left = [n for n, i in self.names.items() if self.served[i][4] is None]
            if left:
                self.engine.abort_request(left)
                while self.engine.has_unfinished_requests():
                    self.engine.step()
        steps = marks.steps_done()
        for start in range(0, len(steps), CHUNK_STEPS):
            self.send({"steps": steps[start:start + CHUNK_STEPS]})
        return {"requests": self.served, "steps": len(steps), "marks": marks.found}

    def loop(self):
        engine, marks, waiting = self.engine, self.marks, self.waiting
        at, reported = 0, 0.0
        marks.start()
        while at < len(waiting) or engine.has_unfinished_requests():
            now = marks.now_us()
            while at < len(waiting) and (waiting[at][1] <= len(marks.steps) if self.by_step else waiting[at][0] <= now):
                self.add(waiting[at], now)
                at += 1
            if not engine.has_unfinished_requests():
                if self.by_step:
                    self.add(waiting[at], now)
                    at += 1
                else:
                    time.sleep(0.0005)
                    continue
            outputs = engine.step()
            now = marks.returned(outputs)
            for out in outputs:
                index = self.names.get(out.request_id)
                if index is None:
                    continue
                entry, count = self.served[index], len(out.outputs[0].token_ids)
                if count and entry[3] is None:
                    entry[3] = round(now)
                entry[5] = count
                if out.finished:
                    entry[4] = round(now)
            if now - reported > PROGRESS_SECONDS * 1e6:
                reported = now
                self.send({"served": sum(1 for s in self.served if s[4] is not None)})
            if self.limit and len(marks.steps) >= self.limit:
                return
