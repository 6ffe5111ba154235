import unittest

import numpy as np

from batch import Infeasible
from routing import assign, even_histogram


class RoutingTest(unittest.TestCase):
    def setUp(self):
        self.random = np.random.default_rng(3)

    def check(self, counts, tokens, top_k):
        table = assign(counts, tokens, top_k, self.random)
        self.assertEqual(table.shape, (tokens, top_k))
        self.assertTrue((np.bincount(table.ravel(), minlength=len(counts)) == counts).all())
        self.assertTrue(all(len(set(row)) == top_k for row in table.tolist()))

    def test_even_load_over_some_experts(self):
        for tokens, top_k, experts, total in ((1, 8, 8, 128), (16, 8, 8, 128), (17, 8, 100, 128), (2048, 8, 128, 128), (3, 2, 5, 8)):
            counts = even_histogram(tokens, top_k, experts, total, self.random)
            self.assertEqual((int((counts > 0).sum()), int(counts.sum())), (experts, tokens * top_k))
            self.assertLessEqual(counts[counts > 0].max() - counts[counts > 0].min(), 1)
            self.check(counts, tokens, top_k)

    def test_any_histogram_that_can_be(self):
        self.check(np.array([10, 10, 5, 3, 2]), 10, 3)
        self.check(np.array([0, 4, 0, 4]), 4, 2)

    def test_what_cannot_be_is_infeasible(self):
        for tokens, experts in ((4, 1), (1, 3), (4, 9)):
            with self.assertRaises(Infeasible):
                even_histogram(tokens, 2, experts, 8, self.random)
        for counts in ([5, 1, 0], [2, 2, 3], [-1, 4, 5]):
            with self.assertRaises(Infeasible):
                assign(np.array(counts), 4, 2, self.random)


if __name__ == "__main__":
    unittest.main()
