import unittest

import attribution
import collectives


class Tensor:
    def __init__(self, rows, columns):
        self.shape = (rows, columns)

    def numel(self):
        return self.shape[0] * self.shape[1]

    def element_size(self):
        return 2


class Communicator:
    """As vLLM's: one of its methods is made of another."""

    def __init__(self):
        self.ran = []

    def all_reduce(self, input_):
        self.ran.append("all_reduce")
        return input_

    def all_gather(self, input_, dim=-1):
        self.ran.append(f"all_gather {dim}")
        return self.all_reduce(input_)


class Coordinator:
    world_size, rank_in_group = 2, 1

    def __init__(self):
        self.device_communicator = Communicator()


class CollectivesTest(unittest.TestCase):
    def setUp(self):
        self.group = collectives.Group(Coordinator())

    def test_only_the_outermost_call_is_seen_and_nothing_is_left_behind(self):
        seen, communicator = [], self.group.communicator
        remove = self.group.watch(lambda kind, tensor: seen.append(kind) or kind, lambda token: seen.append("end " + token))
        communicator.all_gather(Tensor(2, 3), 0)
        communicator.all_reduce(Tensor(2, 3))
        remove()
        communicator.all_reduce(Tensor(2, 3))
        self.assertEqual(seen, ["all_gather", "end all_gather", "all_reduce", "end all_reduce"])
        self.assertEqual(communicator.ran, ["all_gather 0", "all_reduce", "all_reduce", "all_reduce"])
        self.assertEqual([k for k in communicator.__dict__ if k != "ran"], [])

    def test_a_call_that_raises_is_ended(self):
        seen = []

        def broken(input_):
            raise RuntimeError("link down")

        self.group.communicator.all_reduce = broken
        remove = self.group.watch(lambda kind, tensor: 1, seen.append)
        with self.assertRaises(RuntimeError):
            self.group.communicator.all_reduce(Tensor(1, 1))
        self.assertEqual(seen, [1])
        remove()
        self.assertIs(self.group.communicator.all_reduce, broken)

    def test_a_collectives_kernels_are_its_own_and_not_the_layers(self):
        calls = [collectives.Call(None, "all_reduce", Tensor(4, 8)), collectives.Call(None, "all_gather", Tensor(1, 8))]
        ranges = [(0, 100, "S", 0, 0), (1, 99, "F", 0, 0), (10, 40, "L", 7, 0), (20, 30, "C", 0, 0), (50, 60, "C", 1, 0)]
        launches = {1: 12, 2: 22, 3: 24, 4: 55}
        kernels = [(0, 50, "gemm", 1), (50, 2, "Memcpy DtoD", 2), (52, 9, "cross_device_reduce_1stage", 3), (61, 5, "ncclDevKernel_AllGather", 4)]
        found = attribution.attribute(ranges, launches, kernels, collectives=calls)
        sample = found.samples[(0, 0)]
        self.assertEqual((sample.layers, sample.launches, sample.unaccounted(), sample.stray), ({7: 50}, {7: 1}, 0, None))
        self.assertEqual([(c.site, c.kind, c.rows, c.bytes, c.ns, c.by) for c in sample.collectives],
                         [(7, "all_reduce", 4, 64, 11, "cross_device_reduce_1stage"), (-1, "all_gather", 1, 16, 5, "ncclDevKernel_AllGather")])
        self.assertEqual(collectives.short_name("void vllm::cross_device_reduce_1stage<__nv_bfloat16, 2>(vllm::RankData*)"), "vllm::cross_device_reduce_1stage")

    def test_a_collectives_kernel_inside_a_layer_alone_is_a_stray(self):
        found = attribution.attribute([(0, 100, "S", 0, 0), (10, 40, "L", 7, 0)], {1: 12}, [(0, 5, "ncclDevKernel_AllReduce_Sum_bf16_RING_LL", 1)])
        self.assertIn("nccl", found.samples[(0, 0)].stray)

    def test_answers_need_every_call_to_have_run(self):
        class Sample:
            def __init__(self, *ns):
                self.collectives = []
                for n in ns:
                    self.collectives.append(collectives.Call(0, "all_reduce", Tensor(4, 8)))
                    self.collectives[-1].ns = n

        class Site:
            layer = "o_proj"

        got = collectives.answer([Sample(1000, 2000), Sample(3000, 4000)], [Site], 4, {"o_proj": 2})
        self.assertEqual([(c["layer"], c["us"], c["layer_calls"]) for c in got], [("o_proj", [1.0, 3.0], 2), ("o_proj", [2.0, 4.0], 2)])
        for samples, begun in (([Sample(1000, 2000)], 3), ([Sample(0)], 1), ([Sample(1), Sample(1, 1)], 3)):
            with self.assertRaises(ValueError):
                collectives.answer(samples, [Site], begun, {})


class ClockTest(unittest.TestCase):
    def test_a_collectives_time_is_taken_out_of_its_layers(self):
        try:
            import timing_cpu
        except ImportError as e:
            self.skipTest(str(e))
        group, watch = collectives.Group(Coordinator()), timing_cpu.Clock()
        ticks = iter(range(0, 100000, 10))
        timing_cpu.clock, kept = lambda: next(ticks), timing_cpu.clock
        watch.now = timing_cpu.clock
        try:
            remove = collectives.watch_clock(group, watch)
            watch.begin("F")
            watch.begin(3)
            group.communicator.all_reduce(Tensor(4, 8))
            watch.end()
            watch.end()
            spans = watch.take()
            remove()
        finally:
            timing_cpu.clock = kept
        whole = spans[3].total - spans[3].hooks
        sample = timing_cpu.CpuSample(spans, 0, 0)
        (call,) = sample.collectives
        self.assertEqual((call.site, call.kind, call.rows, call.bytes), (3, "all_reduce", 4, 64))
        self.assertGreater(call.ns, 0)
        self.assertEqual(sample.layers, {3: whole - call.ns})


if __name__ == "__main__":
    unittest.main()
