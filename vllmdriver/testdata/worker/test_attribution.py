import unittest

from attribution import attribute, kernel_class


class AttributionTest(unittest.TestCase):
    def test_kernels_go_to_the_innermost_range_of_their_launch(self):
        ranges = [(0, 100, "S", 0, 0), (10, 80, "F", 0, 0), (20, 30, "L", 0, 0), (40, 50, "L", 1, 0), (90, 95, "L", 2, 0)]
        launches = {1: 5, 2: 25, 3: 45, 4: 47, 5: 92, 6: 60}
        # Kernels run long after their launches and in any order of the list.
        kernels = [(1005, 7, "copy", 1), (1020, 10, "gemm", 2), (1030, 20, "flash", 3), (1050, 3, "combine", 4), (1060, 4, "argmax", 5), (1053, 1, "add", 6)]
        found = attribute(ranges, launches, kernels, split={1})
        sample = found.samples[(0, 0)]
        self.assertEqual(sample.layers, {0: 10, 1: 23, 2: 4})
        self.assertEqual(sample.launches, {0: 1, 1: 2, 2: 1})
        self.assertEqual(sample.classes, {(1, "flash"): 20, (1, "combine"): 3})
        self.assertEqual(sample.outside_ns, 7)       # input preparation
        self.assertEqual(sample.inside_ns, 38)
        self.assertAlmostEqual(sample.unaccounted(), 1 / 38)  # "add" belongs to no layer
        self.assertEqual(found.unattributed(), 0)

    def test_a_kernel_without_launch_or_step_is_unattributed(self):
        ranges = [(0, 10, "S", 0, 0), (20, 30, "X", 0, 0)]
        found = attribute(ranges, {1: 5, 2: 15, 3: 25}, [(0, 1, "a", 1), (0, 1, "b", 2), (0, 1, "flush", 3), (0, 1, "lost", 9)])
        self.assertEqual((found.kernels, found.lost), (4, 2))
        self.assertEqual(found.samples[(0, 0)].outside_ns, 1)

    def test_blocks_that_do_not_count_are_accounted_and_in_no_layer(self):
        ranges = [(0, 100, "S", 3, 1), (1, 99, "F", 0, 0), (2, 40, "B", 0, 0), (50, 60, "L", 0, 0)]
        found = attribute(ranges, {1: 10, 2: 55}, [(0, 8, "a", 1), (8, 2, "b", 2)])
        sample = found.samples[(3, 1)]
        self.assertEqual((sample.layers, sample.skipped_ns, sample.unaccounted()), ({0: 2}, 8, 0))

    def test_overlapping_kernels_raise_the_unaccounted_share(self):
        ranges = [(0, 100, "S", 0, 0), (1, 99, "F", 0, 0), (2, 50, "L", 0, 0)]
        found = attribute(ranges, {1: 10, 2: 20}, [(0, 10, "a", 1), (5, 10, "b", 2)])
        self.assertAlmostEqual(found.samples[(0, 0)].unaccounted(), 5 / 15)

    def test_two_steps_in_a_row_do_not_mix(self):
        ranges = [(0, 10, "S", 0, 0), (2, 8, "L", 0, 0), (10, 20, "S", 0, 1), (12, 18, "L", 0, 0)]
        found = attribute(ranges, {1: 3, 2: 13}, [(100, 4, "a", 1), (104, 6, "a", 2)])
        self.assertEqual([found.samples[(0, i)].layers for i in (0, 1)], [{0: 4}, {0: 6}])

    def test_a_step_without_kernels_accounts_for_nothing(self):
        self.assertEqual(attribute([(0, 10, "S", 0, 0)], {}, []).samples[(0, 0)].unaccounted(), 1)

    def test_kernel_classes(self):
        for name, want in {
            "void vllm::reshape_and_cache_flash_kernel<__nv_bfloat16>": "cache_write",
            "void flash::FlashAttnFwdCombine<...>": "combine",
            "void cutlass::device_kernel<flash::FlashAttnFwdSm90<...>>": "flash",
            "flash::prepare_varlen_num_blocks_kernel": "other",
            "Memset (Device)": "other",
        }.items():
            self.assertEqual(kernel_class(name), want, name)


if __name__ == "__main__":
    unittest.main()
