import unittest

import ranks


def shot(layer_us, collectives, **more):
    return {"status": "ok", "step_us": [1000.0] * len(layer_us), "unaccounted": 0.01, "collectives": collectives,
            "layers": {"o_proj": {"us": layer_us, "calls": 1, "launches": 2}}, **more}


def call(us, layer="o_proj", kind="all_reduce", size=1024, layer_calls=1):
    return {"layer": layer, "layer_calls": layer_calls, "kind": kind, "rows": 8, "bytes": size, "us": us}


class RanksTest(unittest.TestCase):
    def test_one_rank_is_left_as_it_is(self):
        answer = {"shots": [{"status": "ok"}], "seconds": {}}
        self.assertIs(ranks.merge("lsp_measure", [answer]), answer)

    def test_the_slowest_rank_counts_in_each_step(self):
        a, b = shot([10.0, 30.0, 12.0], [call([5.0, 5.0, 5.0])]), shot([20.0, 11.0, 13.0], [call([5.0, 5.0, 5.0])])
        a["layers"]["o_proj"]["kernels"], b["layers"]["o_proj"]["kernels"] = {"flash": [8.0, 28.0, 9.0]}, {"flash": [18.0, 9.0, 10.0]}
        b["unaccounted"], b["step_us"] = 0.03, [900.0, 1100.0, 1000.0]
        merged = ranks.merge_shot([a, b])
        self.assertEqual(merged["layers"]["o_proj"]["us"], [20.0, 30.0, 13.0])
        self.assertEqual(merged["layers"]["o_proj"]["kernels"], {"flash": [18.0, 28.0, 10.0]})  # of the same ranks
        self.assertEqual(merged["layers"]["o_proj"]["ranks_us"], [12.0, 13.0])
        self.assertEqual((merged["unaccounted"], merged["step_us"]), (0.03, [1000.0, 1100.0, 1000.0]))

    def test_waiting_is_what_a_rank_spends_beyond_the_last_to_come(self):
        # Two calls of a layer in the step: rank 1 comes late to the first, rank 0 to the second.
        a = shot([1.0, 1.0], [call([105.0, 7.0], layer_calls=2), call([5.0, 6.0], layer_calls=2)])
        b = shot([1.0, 1.0], [call([5.0, 5.0], layer_calls=2), call([45.0, 8.0], layer_calls=2)])
        self.assertEqual(ranks.merge_shot([a, b])["collectives"], [
            {"layer": "o_proj", "kind": "all_reduce", "rows": 8, "bytes": 1024, "ranks": 2, "calls": 1, "by": "",
             "us": [5.0, 5.5], "wait_us": [70.0, 2.0]}])

    def test_collectives_of_other_layers_and_sizes_are_apart(self):
        both = [shot([1.0], [call([5.0]), call([6.0], size=2048), call([7.0], layer="lm_head", kind="all_gather")]) for _ in range(2)]
        found = [(c["layer"], c["kind"], c["bytes"], c["calls"]) for c in ranks.merge_shot(both)["collectives"]]
        self.assertEqual(found, [("o_proj", "all_reduce", 1024, 1), ("o_proj", "all_reduce", 2048, 1), ("lm_head", "all_gather", 1024, 1)])

    def test_ranks_that_do_not_agree_are_no_measurement(self):
        good = shot([1.0], [call([5.0])])
        for other, words in ((shot([1.0], [call([5.0], size=9)]), "collectives"), (shot([1.0], []), "collectives"),
                             (shot([1.0], [call([5.0])], executed=[[1, 2]]), "orders"), (dict(good, layers={}), "o_proj")):
            merged = ranks.merge_shot([good, other])
            self.assertEqual(merged["status"], "failed")
            self.assertIn(words, merged["message"])
        uneven = [shot([1.0], [call([5.0], layer_calls=2)]) for _ in range(2)]
        self.assertEqual(ranks.merge_shot(uneven)["status"], "failed")

    def test_a_failure_of_one_rank_is_the_shots(self):
        merged = ranks.merge_shot([shot([1.0], []), {"status": "out_of_memory", "message": "none left"}])
        self.assertEqual((merged["status"], merged["message"]), ("out_of_memory", "rank 1: none left"))

    def test_limits_of_the_ranks_are_one(self):
        def prepared(blocks, rank):
            return {"limits": {"cache_tokens": blocks}, "catalog": [], "unmatched_modules": [f"m{rank}"], "facts": {"rank": rank, "gpu": "G"}}

        merged = ranks.merge("lsp_prepare", [prepared(8, 0), prepared(8, 1)])
        self.assertEqual((merged["unmatched_modules"], [r["rank"] for r in merged["facts"]["ranks"]]), (["m0", "m1"], [0, 1]))
        with self.assertRaises(ranks.RanksError):
            ranks.merge("lsp_prepare", [prepared(8, 0), prepared(16, 1)])

    def test_a_lost_device_or_an_error_of_any_rank_is_the_engines(self):
        for bad in ({"device_lost": "x"}, {"error": {"code": "boot", "message": "x"}}):
            self.assertIs(ranks.merge("lsp_measure", [{"shots": [], "seconds": {}}, bad]), bad)

    def test_lists_of_cores(self):
        for text, want in (("0", {0}), ("0-2,5", {0, 1, 2, 5}), ("0|1", {0, 1}), ("0-1|2-3", {0, 1, 2, 3}),
                           ("auto", None), ("nobind", None), ("", None), ("1-x", None), ("-1", None)):
            self.assertEqual(ranks.parse_cores(text), want, text)


if __name__ == "__main__":
    unittest.main()
