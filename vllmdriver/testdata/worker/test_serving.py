"""The serving part's own logic, without an engine."""

import types
import unittest

import marks
import provenance
import serving


class OutOfMemory(unittest.TestCase):
    def chained(self, inner):
        try:
            try:
                raise inner
            except Exception as e:
                raise RuntimeError("Engine core initialization failed.") from e
        except RuntimeError as e:
            return e

    def test_told_from_other_failures(self):
        for inner, want in (
            (ValueError("No available memory for the cache blocks. Try increasing `gpu_memory_utilization`"), True),
            (ValueError("8.0 GiB KV cache is needed, which is larger than the available KV cache memory (2.1 GiB)"), True),
            (RuntimeError("CUDA out of memory. Tried to allocate 112.00 MiB"), True),
            (type("OutOfMemoryError", (Exception,), {})("x"), True),
            (ValueError("unknown architecture"), False),
        ):
            self.assertEqual(serving.out_of_memory(self.chained(inner)), want, inner)
        self.assertFalse(serving.out_of_memory(None))


class StepModes(unittest.TestCase):
    def test_graphs_need_a_gpu_and_a_build_for_it(self):
        kept = provenance.gpus, provenance.vllm_version
        try:
            for gpus, version, graphs in ((["H100"], "0.22.1", True), ([], "0.22.1", False), (["H100"], "0.32.0+cpu", False), ([], None, False)):
                provenance.gpus, provenance.vllm_version = (lambda g=gpus: g), (lambda v=version: v)
                self.assertEqual("graph_async" in provenance.step_modes(), graphs)
                self.assertIn("eager_sync", provenance.step_modes())
        finally:
            provenance.gpus, provenance.vllm_version = kept


def scheduled(new, cached, tokens, finished=()):
    return types.SimpleNamespace(
        total_num_scheduled_tokens=sum(tokens.values()), num_scheduled_tokens=tokens, finished_req_ids=set(finished),
        scheduled_new_reqs=[types.SimpleNamespace(req_id=r, num_computed_tokens=0) for r in new],
        scheduled_cached_reqs=types.SimpleNamespace(req_ids=list(cached), num_computed_tokens=list(cached.values())))


class Scheduler:
    def __init__(self, outputs):
        self.outputs = list(outputs)

    def schedule(self):
        return self.outputs.pop(0)

    def update_from_output(self, output, result):
        return result


class Runner:
    input_batch = types.SimpleNamespace(req_ids=[])

    def get_model(self):
        return self

    def parameters(self):
        return iter([types.SimpleNamespace(device=types.SimpleNamespace(type="cpu"))])

    def execute_model(self, output):
        return self._model_forward(input_ids=types.SimpleNamespace(shape=(8,)))

    def _model_forward(self, **kwargs):
        return "hidden"

    def sample_tokens(self, grammar):
        return "tokens"


class Marking(unittest.TestCase):
    def test_a_run(self):
        try:
            import torch  # noqa: F401  the marks look for a device
        except ImportError:
            self.skipTest("there is no torch")
        outputs = [scheduled(["a"], {}, {"a": 8}), scheduled(["b"], {"a": 8}, {"a": 1, "b": 4}), scheduled([], {}, {}), scheduled([], {"b": 4}, {"b": 1}, ["a"])]
        scheduler, runner = Scheduler(outputs), Runner()
        core = types.SimpleNamespace(scheduler=scheduler, model_executor=types.SimpleNamespace(driver_worker=types.SimpleNamespace(model_runner=runner)))
        m = marks.Marks(core, None)
        m.install()
        m.start()
        for i in range(4):
            output = scheduler.schedule()
            if output.total_num_scheduled_tokens == 0:
                continue
            if i == 1:  # the runner has another order than the scheduler
                runner.input_batch = types.SimpleNamespace(req_ids=["b", "a"])
            runner.execute_model(output)
            runner.sample_tokens(None)
            scheduler.update_from_output(output, None)
            m.returned([])
        m.remove()
        steps = m.steps_done()
        self.assertEqual([s["requests"] for s in steps], [[[8, 0]], [[4, 0], [1, 8]], [[1, 4]]])
        self.assertEqual([(s["admitted"], s["finished"], s["padded_tokens"]) for s in steps], [(1, 0, 8), (1, 0, 8), (0, 1, 8)])
        for s in steps:
            self.assertEqual(s["host_marks_us"], sorted(s["host_marks_us"]))
            self.assertIsNone(s["device_marks_us"])
        self.assertNotIn("schedule", vars(scheduler))
        self.assertNotIn("execute_model", vars(runner))


if __name__ == "__main__":
    unittest.main()
