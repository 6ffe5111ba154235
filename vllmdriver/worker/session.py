"""What stands beside the model runner: the plan of sites, the fires, and the answers of measure."""

import time

import catalog
import collectives
import contents
import provenance
from batch import Batches, Infeasible, Mismatch, Witness
from routing import Capture, Forge
from telemetry import Telemetry

MAX_UNACCOUNTED = 0.05
MAX_UNATTRIBUTED = 0.02
CPU_REPEATS = 2
MAX_SPREAD = 0.10  # of a shot's steps, beyond which it is measured again on a CPU
EXPERT_COUNT_KEYS = ("num_local_experts", "num_experts", "n_routed_experts")
TOP_K_KEYS = ("num_experts_per_tok", "num_experts_per_token", "moe_k")


class LostDevice(Exception):
    """A CUDA error other than out of memory: nothing works after it."""


def is_out_of_memory(e):
    text = str(e).lower()
    return (isinstance(e, MemoryError) or type(e).__name__ in ("OutOfMemoryError",)
            or "out of memory" in text or "bad_alloc" in text or "can't allocate memory" in text or "cannot allocate memory" in text)


def is_lost_device(e):
    text = str(e)
    return (not is_out_of_memory(e)) and (type(e).__name__ == "AcceleratorError" or any(
        w in text for w in ("CUDA error", "CUDA driver error", "CUBLAS_STATUS", "CUDNN_STATUS", "cudaError", "illegal memory access", "NCCL error")))


class Plan:
    """Where hooks go."""

    def __init__(self, model, sampler, entries, blocks, group):
        self.model, self.group = model, group
        self.sites, self.blocks, self.block_list = catalog.find_sites(model, sampler, entries, blocks)


class Job:
    """One shot ready to be fired."""

    def __init__(self, session, requests, routing):
        self.session, self.requests, self.routing = session, requests, routing
        self.before = 0

    def fire(self):
        self.session.batches_.fire(self.requests)

    def arm(self):
        """Sets this shot's routing; the fires that follow are its own."""
        forge = self.session.forge
        forge.logits, forge.wanted = self.routing
        self.before = forge.calls

    def verify(self, fires):
        self.session.forge.expect(self.before, fires)

    def recover(self, e):
        self.session.recover(e)


class Session:
    def __init__(self, worker, spec):
        self.worker, self.spec = worker, spec
        self.runner = worker.model_runner
        self.batches = False

    # boot

    def prepare(self):
        try:
            return self.prepare_()
        except catalog.CatalogError as e:
            return {"error": {"code": "catalog", "message": str(e)}}

    def prepare_(self):
        runner, spec = self.runner, self.spec
        self.model = runner.get_model() if hasattr(runner, "get_model") else runner.model
        config = worker_config(self.worker, runner)
        hf = config.model_config.hf_text_config if hasattr(config.model_config, "hf_text_config") else config.model_config.hf_config
        self.num_experts = first_int(hf, EXPERT_COUNT_KEYS)
        self.top_k = first_int(hf, TOP_K_KEYS) if self.num_experts else 0
        self.limits = {
            "max_num_batched_tokens": int(config.scheduler_config.max_num_batched_tokens),
            "max_num_seqs": int(config.scheduler_config.max_num_seqs),
            "max_model_len": int(config.model_config.max_model_len),
        }
        seed = int(spec["seed"])
        if contents.FILLED["when"] == "never":
            contents.fill_weights(self.model, seed)
            contents.FILLED["when"] = "after load"
        self.cache = contents.fill_cache(runner, spec["kv_cache_dtype"], seed)
        if not self.cache:
            return {"error": {"code": "boot", "message": "no KV cache tensor was found to fill"}}
        self.batches_ = Batches(runner, int(hf.vocab_size), self.limits["max_num_batched_tokens"],
                                self.limits["max_num_seqs"], self.limits["max_model_len"], seed)
        sizes = self.batches_.block_sizes
        self.limits.update(cache_tokens=(self.batches_.num_blocks - 1) * min(sizes), block_size=max(sizes),
                           num_experts=self.num_experts, top_k=self.top_k)
        self.forge = Forge(self.model, self.num_experts, self.top_k, seed)
        self.group = collectives.find_group()
        self.plan = Plan(self.model, getattr(runner, "sampler", None), spec["catalog"], int(spec["blocks"]), self.group)
        self.device = next((p.device for p in self.model.parameters()), None)
        on_gpu = self.device is not None and self.device.type == "cuda"
        if on_gpu:
            from timing_cuda import CudaTiming as Timing
        else:
            from timing_cpu import CpuTiming as Timing
        self.telemetry = Telemetry(on_gpu)
        self.warm_up_engine()
        self.survey(Timing)
        self.plan.sites, self.idle = catalog.settle(self.plan.sites, spec["catalog"])
        self.timing = Timing(self.plan)
        self.batches = self.timing.batches
        if hasattr(self.timing, "calibrate"):
            smallest = self.probe_requests()[:1]
            self.timing.calibrate(lambda: self.batches_.fire(smallest), self.modules)
        self.checks = self.check_itself()
        if self.group is not None:
            problem = self.check_collectives()
            if problem:
                return {"error": {"code": "boot", "message": problem}}
        self.settle_memory()
        by_layer = {}
        for s in self.plan.sites:
            by_layer.setdefault(s.layer, []).append(s.name)
        return {
            "limits": self.limits,
            "catalog": [{"layer": e["layer"], "modules": by_layer[e["layer"]]} for e in spec["catalog"]],
            "unmatched_modules": self.unmatched,
            "facts": provenance.engine_facts(self),
        }

    def warm_up_engine(self):
        """A throw-away series; the first steps after a boot can be very slow. Finds out how ids may be passed."""
        requests = self.probe_requests()
        if self.batches_.numpy_ids:
            try:
                self.batches_.fire(requests)
            except Exception as e:
                if is_lost_device(e):
                    raise
                self.batches_.numpy_ids = False  # a release that wants lists
        for _ in range(6):
            self.batches_.fire(requests)
        for _ in range(2):
            self.batches_.fire(requests[:1])

    def probe_requests(self):
        """A mixed batch of two decodes and a prefill within the limits."""
        longest = self.limits["max_model_len"] - 2
        history = max(1, min(100, longest, (self.limits["cache_tokens"] // 4) - 1))
        new = max(2, min(64, longest, self.limits["max_num_batched_tokens"] - 2))
        requests = [[1, history], [1, history], [new, 0]]
        return requests[-self.limits["max_num_seqs"]:]

    def survey(self, timing_class):
        """Which modules run and take time in one step, with hooks on all of them."""
        skipped = tuple(f"{self.plan.block_list}.{i}." for i in range(len(self.plan.blocks) - 1))
        modules, seen = [], set()
        for name, module in self.model.named_modules(remove_duplicate=False):
            if name and id(module) not in seen and not (skipped and (name + ".").startswith(skipped)):
                seen.add(id(module))
                modules.append((name, module))
        self.modules = list(modules)
        sampler = getattr(self.runner, "sampler", None)
        if hasattr(sampler, "register_forward_hook"):
            modules.append(("sampler", sampler))
        wrapping, counts = catalog.Wrapping(), {}
        for number, site in enumerate(self.plan.sites):
            if site.module is None:
                def count(n=number):
                    counts[n] = counts.get(n, 0) + 1
                wrapping.wrap(site.owner, site.method, count, lambda: None)
        timing = timing_class(self.plan)
        requests = self.probe_requests()
        try:
            times, calls, found = timing.survey(lambda: self.batches_.fire(requests), modules)
            incomplete = found is not None and (found.unattributed() > MAX_UNATTRIBUTED or not found.samples or not found.kernels)
            if self.group is not None:
                incomplete = any(self.group.worst(incomplete))  # another fire takes all ranks
            if incomplete:
                # A release whose traces need operators in them: take the full trace instead.
                timing_class.narrow = False
                timing = timing_class(self.plan)
                counts.clear()
                times, calls, found = timing.survey(lambda: self.batches_.fire(requests), modules)
        finally:
            wrapping.remove()
        for number, site in enumerate(self.plan.sites):
            if site.module is None:
                site.calls = counts.get(number, 0)
            else:
                names = [n for n, m in modules if m is site.module]
                site.calls = sum(calls.get(n, 0) for n in names)
        inside = [s.name for s in self.plan.sites if s.calls]
        leaves = {n for n, m in modules if not list(m.children())}
        total = sum(times.values()) or 1.0
        self.unmatched = sorted(
            n for n, us in times.items() if us > 0
            and not any(n == s or n.startswith(s + ".") for s in inside)
            # On a GPU a container that launches kernels counts, too; on a CPU it only holds Python.
            and (n in leaves or found is not None) and us / total > 1e-3)
        self.survey_us = {n: round(us, 2) for n, us in sorted(times.items()) if us > 0}
        self.survey_unattributed = None if found is None else found.unattributed()

    def check_itself(self):
        """Runs the checks of every shot once and says which of them this engine allows."""
        attention = [s for s in self.plan.sites if s.attention and s.module is not None]
        checks = {"batch": "not verifiable: no attention module", "routing": "no experts", "logits": "not verifiable: no compute_logits"}
        self.witness = None
        requests = self.probe_requests()
        if hasattr(self.model, "compute_logits"):
            checks["logits"] = self.check_finite(requests)
        if attention:
            self.witness = Witness(attention[0].module, getattr(attention[0].module, "layer_name", attention[0].name))
            handle = self.witness.watch(len(requests))
            try:
                self.batches_.fire(requests)
            finally:
                handle.remove()
            if isinstance(self.witness.seen, list):
                self.witness.executed(requests)
                checks["batch"] = "attention metadata"
            else:
                checks["batch"] = f"not verifiable: {self.witness.seen}"
                self.witness = None
        try:
            left = self.batches_.finish()
            checks["released"] = "all requests" if left == 0 else f"{left} requests stay"
        except Exception as e:
            if is_lost_device(e):
                raise
            checks["released"] = f"not verifiable: {type(e).__name__}: {e}"
        self.capturing = False
        if self.num_experts and self.forge.gates:
            tokens = sum(n for n, _ in requests)
            self.forge.want(tokens, min(self.num_experts, max(self.top_k, 2)), None, self.device)
            before = self.forge.calls
            with Capture(self.forge) as capture:
                self.batches_.fire(requests)
            self.forge.expect(before, 1)
            self.capturing = capture.verify()
            checks["routing"] = "captured from " + ", ".join(sorted(capture.names)) if self.capturing else "not verifiable: hook calls only"
            self.forge.logits = None
        return checks

    def check_collectives(self):
        """What the ranks tell each other in one step; that none is seen would mean that they were timed as layers."""
        job = Job(self, self.probe_requests(), (None, None))
        found = self.timing.session([job], 1, False)[0][0]
        if isinstance(found, Exception):
            return f"a step with its collectives timed: {type(found).__name__}: {found}"
        seen = collectives.answer(found["samples"], self.plan.sites, found["calls"].get("C"), {})
        self.checks["collectives"] = [f"{c['layer'] or 'outside all layers'}: {c['kind']} of {c['bytes']} bytes" for c in seen]
        if not any(c["layer"] for c in seen):
            return f"{self.group.ranks} ranks, and no layer has a collective: {type(self.group.communicator).__name__} is not called as expected"

    def check_finite(self, requests):
        """Random contents must not lead to infinities, which may take other paths."""
        import torch

        compute, seen = self.model.compute_logits, []

        def keep(*args, **kwargs):
            out = compute(*args, **kwargs)
            if torch.is_tensor(out):
                seen.append(bool(torch.isfinite(out).all()))
            return out

        own = "compute_logits" in self.model.__dict__
        self.model.compute_logits = keep
        try:
            self.batches_.fire(requests)
        finally:
            if own:
                self.model.compute_logits = compute
            else:
                del self.model.compute_logits
        return "not verifiable: never called" if not seen else "finite" if all(seen) else "NOT finite"

    def settle_memory(self):
        import gc

        gc.collect()
        gc.freeze()

    # measure

    def recover(self, e):
        """After an exception in a fire: gives memory back, and ends the session where the device is lost."""
        if is_lost_device(e):
            raise LostDevice(f"{type(e).__name__}: {e}")
        if is_out_of_memory(e) and self.device is not None and self.device.type == "cuda":
            import torch

            torch.cuda.empty_cache()

    def measure(self, shots, options):
        try:
            return self.measure_(shots, options)
        except LostDevice as e:
            return {"device_lost": str(e)[:2000]}
        except Exception as e:
            if is_lost_device(e):
                return {"device_lost": f"{type(e).__name__}: {e}"[:2000]}
            raise

    def measure_(self, shots, options):
        warmup, iterations = max(1, options["warmup"]), max(1, options["iterations"])
        answers, jobs, indices = [None] * len(shots), [], []
        begun = time.perf_counter()
        for index, shot in enumerate(shots):
            try:
                job, executed = self.warm_up(shot, warmup)
            except Infeasible as e:
                answers[index] = {"status": "infeasible", "message": str(e)}
            except LostDevice:
                raise
            except Exception as e:
                answers[index] = failure(e)
                self.recover(e)
            else:
                answers[index] = {"executed": executed} if executed else {}
                jobs.append(job)
                indices.append(index)
        warmed = time.perf_counter()
        seconds = {"warm": warmed - begun}
        if jobs:
            found, spent = self.timing.session(jobs, iterations, options["flush_l2"])
            seconds.update(spent)
            state = self.telemetry.read()
            for index, one in zip(indices, found):
                if isinstance(one, Exception):
                    answers[index] = failure(one)
                    continue
                try:
                    answer = self.answer_or_error(one, options["layers"])
                    unrest = self.unrest(answer)
                    for _ in range(CPU_REPEATS):
                        # Clocks count whatever else the machine does meanwhile; kernels do not.
                        if self.batches or unrest <= (False, MAX_SPREAD):
                            break
                        again, _ = self.timing.session([jobs[indices.index(index)]], iterations, options["flush_l2"])
                        other = self.answer_or_error(again[0], options["layers"])
                        unrest_of_other = self.unrest(other)
                        if unrest_of_other < unrest:
                            answer, unrest = other, unrest_of_other
                    if isinstance(answer, Exception):
                        raise answer
                    if answer["unaccounted"] > MAX_UNACCOUNTED:
                        raise Mismatch(f"{answer['unaccounted']:.1%} of the forward belongs to no layer")
                    answers[index].update(answer, status="ok")
                    if state:
                        answers[index]["telemetry"] = state
                except Exception as e:
                    answers[index] = failure(e)
        return {"shots": answers, "seconds": {k: round(v, 4) for k, v in seconds.items()}}

    def unrest(self, answer):
        """How little an answer is to be relied on: the worst over the ranks, so that all of them choose alike."""
        found = (True, float("inf")) if isinstance(answer, Exception) else (answer["unaccounted"] > MAX_UNACCOUNTED, spread(answer["step_us"]))
        return found if self.group is None or self.batches else self.group.worst(*found)

    def warm_up(self, shot, warmup):
        """Checks a shot's first fire against what the engine says of it, then fires the rest unwatched."""
        requests = [[int(n), int(h)] for n, h in shot["requests"]]
        self.batches_.check(requests)
        forge = self.forge
        tokens = sum(n for n, _ in requests)
        forge.want(tokens, int(shot.get("experts") or 0), shot.get("histogram"), self.device)
        job = Job(self, requests, (forge.logits, forge.wanted))
        job.arm()
        executed = None
        handle = self.witness.watch(len(requests)) if self.witness else None
        try:
            if self.capturing and forge.logits is not None:
                with Capture(forge) as capture:
                    job.fire()
                if not capture.verify():
                    raise Mismatch("the routing could be captured at boot and not in this shot")
            else:
                job.fire()
        finally:
            if handle is not None:
                handle.remove()
        if self.witness:
            executed = self.witness.executed(requests)
        for _ in range(warmup - 1):
            job.fire()
        job.verify(warmup)
        job.routing = (forge.logits, forge.wanted)  # moved to the device's type by now
        return job, executed

    def answer_or_error(self, one, wanted_layers):
        """An error is an answer, too: a rank that raised it alone would leave the others waiting for its choice."""
        try:
            return one if isinstance(one, Exception) else self.answer(one, wanted_layers)
        except Exception as e:
            return e

    def answer(self, one, wanted_layers):
        samples, sites = one["samples"], self.plan.sites
        if any(s is None for s in samples):
            raise Mismatch("a step is missing in the profiler's trace")
        if one["unattributed"] > MAX_UNATTRIBUTED:
            raise Mismatch(f"{one['unattributed']:.1%} of the session's kernels belong to no step")
        stray = next((s.stray for s in samples if s.stray), None)
        if stray:
            raise Mismatch(f"a layer's time has a collective in it: {stray}")
        layers, calls = {}, {}
        for number, site in enumerate(sites):
            entry = layers.setdefault(site.layer, {"us": [0.0] * len(samples), "calls": 0, "launches": 0})
            # On CUDA the count covers all samples, on a CPU one; whole fires either way.
            calls.setdefault(site.layer, 0)
            count = one["calls"].get(number, 0)
            entry["calls"] += count // len(samples) if self.batches else count
            for i, sample in enumerate(samples):
                entry["us"][i] += sample.layers.get(number, 0) / 1e3
            entry["launches"] += samples[-1].launches.get(number, 0)
            if site.attention:
                kernels = entry.setdefault("kernels", {})
                for name in ("flash", "combine", "cache_write", "other"):
                    times = [s.classes.get((number, name), 0) / 1e3 for s in samples]
                    if any(times):
                        have = kernels.setdefault(name, [0.0] * len(samples))
                        for i, t in enumerate(times):
                            have[i] += t
        for name, entry in layers.items():
            if entry["calls"] < 1 or min(entry["us"]) <= 0:
                raise Mismatch(f"layer {name}: {entry['calls']} calls, samples {entry['us']} us")
            # Both forms are the time per call.
            entry["us"] = [round(t / entry["calls"], 4) for t in entry["us"]]
            if "kernels" in entry:
                entry["kernels"] = {k: [round(t / entry["calls"], 4) for t in v] for k, v in entry["kernels"].items()}
                if not entry["kernels"]:
                    del entry["kernels"]
        shares = sorted(s.unaccounted() for s in samples)
        share = shares[len(shares) // 2]
        layer_calls = {name: entry["calls"] for name, entry in layers.items()}
        if wanted_layers is not None:
            layers = {k: v for k, v in layers.items() if k in wanted_layers}
        answer = {"layers": layers, "step_us": [round(s, 1) for s in one["steps"]], "unaccounted": round(share, 5)}
        if self.group is not None:
            answer["collectives"] = collectives.answer(samples, sites, one["calls"].get("C"), layer_calls)
        return answer


def spread(steps):
    """How far the median of a shot's steps stands above their minimum."""
    ordered = sorted(steps)
    return ordered[len(ordered) // 2] / ordered[0] - 1


def failure(e):
    status = "infeasible" if isinstance(e, Infeasible) else "out_of_memory" if is_out_of_memory(e) else "failed"
    text = str(e) if isinstance(e, (Infeasible, Mismatch)) else f"{type(e).__name__}: {e}"
    return {"status": status, "message": text[:2000]}


def first_int(config, names):
    for n in names:
        value = getattr(config, n, None)
        if isinstance(value, int) and value > 0:
            return value
    return 0


def worker_config(worker, runner):
    return getattr(worker, "vllm_config", None) or runner.vllm_config
