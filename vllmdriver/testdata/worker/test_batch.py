import dataclasses
import types
import unittest

from batch import Batches, Infeasible, Mismatch, Witness, construct


@dataclasses.dataclass
class Request:
    req_id: str
    prompt_token_ids: list
    block_ids: tuple
    num_computed_tokens: int
    something_new: list[int]
    optional: int = 3


def batches(blocks=100, v2=False, sizes=(16,)):
    b = Batches.__new__(Batches)
    import numpy as np

    b.runner, b.v2, b.numpy_ids, b.token_list = None, v2, not v2, None
    b.max_tokens, b.max_seqs, b.max_len = 64, 4, 100
    b.block_sizes, b.num_blocks = list(sizes), blocks
    b.random = np.random.default_rng(1)
    b.blocks = (b.random.permutation(blocks - 1) + 1).astype(np.int32)
    b.tokens = np.arange(300, dtype=np.int32)
    b.serial, b.previous = 0, set()
    b.request_class = lambda **kw: types.SimpleNamespace(**kw)
    b.output_class = types.SimpleNamespace(make_empty=types.SimpleNamespace)
    b.template = {"req_id": "", "prompt_token_ids": None, "block_ids": (), "num_computed_tokens": 0, "prefill_token_ids": None}
    return b


class BatchTest(unittest.TestCase):
    def test_unknown_fields_are_filled_and_reported(self):
        arguments, filled, dropped = construct(Request, {"req_id": "a", "prompt_token_ids": [], "block_ids": (), "num_computed_tokens": 0, "gone": 1})
        self.assertEqual(filled, ["Request.something_new"])
        self.assertEqual(dropped, ["Request.gone"])
        self.assertEqual(Request(**arguments).something_new, [])

    def test_blocks_are_distinct_and_never_the_null_block(self):
        b = batches(blocks=17, sizes=(16, 16))
        for _ in range(50):
            out = b.build([[1, 15], [20, 12], [16, 0]])
            ids = [i for r in out.scheduled_new_reqs for group in r.block_ids for i in group]
            self.assertEqual(len(ids), 8)
            self.assertEqual(len(set(ids)), len(ids))
            self.assertTrue(0 < min(ids) and max(ids) < 17)

    def test_request_ids_are_never_used_twice_and_the_last_ones_are_freed(self):
        b = batches()
        first, second = b.build([[1, 5], [2, 0]]), b.build([[1, 5]])
        self.assertEqual(second.finished_req_ids, set(first.num_scheduled_tokens))
        self.assertFalse(set(first.num_scheduled_tokens) & set(second.num_scheduled_tokens))

    def test_a_decode_as_each_runner_needs_it(self):
        for v2, want in ((False, 31), (True, 1)):
            request = batches(v2=v2).build([[1, 30]]).scheduled_new_reqs[0]
            self.assertEqual((len(request.prompt_token_ids), request.num_computed_tokens, len(request.block_ids[0])), (want, 30, 2))

    def test_limits(self):
        b = batches(blocks=5)
        for requests in ([], [[0, 5]], [[1, -1]], [[1, 1]] * 5, [[65, 0]], [[1, 99]], [[1, 31], [1, 31], [1, 15]]):
            with self.assertRaises(Infeasible, msg=str(requests)):
                b.check(requests)
        b.check([[1, 31], [1, 31]])

    def test_the_witness_tells_another_order_from_another_batch(self):
        w = Witness(None, "")
        w.seen = [[1, 5], [7, 0]]
        self.assertIsNone(w.executed([[1, 5], [7, 0]]))
        self.assertEqual(w.executed([[7, 0], [1, 5]]), [[1, 5], [7, 0]])
        with self.assertRaises(Mismatch):
            w.executed([[7, 0], [1, 6]])
        w.seen = "AttributeError: x"
        with self.assertRaises(Mismatch):
            w.executed([[7, 0]])


if __name__ == "__main__":
    unittest.main()
