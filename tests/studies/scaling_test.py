# The arithmetic of benchmarks/scaling, without a run: intervals of medians, planning, the model of
# time and its fit, what may not be mixed, which points have no efficiency. Usage: scaling_test.py BIN
# DATA TMP MPIEXEC. SPDX-License-Identifier: MIT
import json
import pathlib
import sys
import tempfile
import types
import unittest

import programs

programs.need_modules()
sys.path.insert(0, str(programs.ROOT / "benchmarks" / "scaling"))
import h5py  # noqa: E402
import numpy  # noqa: E402

import analysis  # noqa: E402
import cost_model  # noqa: E402
import ladder  # noqa: E402
import predict  # noqa: E402
import samples  # noqa: E402
import store  # noqa: E402
from points import Point, complete_plan, oversubscribed, points_of, read_plan  # noqa: E402
from runner import enough  # noqa: E402

ONE = {"data": 1, "pipeline": 1, "tensor": 1, "expert": 1}
KINDS = {"attention": 4e8, "dense": 5e7, "experts": 2e9, "shared": 1e8, "router": 1e6, "head": 2e8,
         "norm": 1e5, "embedding": 2e8}
MACHINE = cost_model.Machine("test", 2, 1e10, 1.5e10, 1e11, 1.6e11)


def model(kinds=None, name="1B"):
    return analysis.model_of(name, "q40", {"ranks": [{"weight_bytes_by_kind": kinds or KINDS}]})


class Samples(unittest.TestCase):
    def test_interval_holds_the_median_and_narrows(self):
        random = numpy.random.default_rng(0)
        few, many = random.normal(10, 1, 6), random.normal(10, 1, 200)
        for values in (few, many):
            middle, low, high = samples.median_interval(values)
            self.assertEqual(middle, numpy.median(values))
            self.assertTrue(low <= middle <= high)
        self.assertLess(samples.half_width(many), samples.half_width(few))
        self.assertLess(abs(samples.median_interval(many)[0] - 10), 0.3)

    def test_interval_covers_as_often_as_it_says(self):
        random = numpy.random.default_rng(1)
        hits = 0
        for trial in range(100):
            _, low, high = samples.median_interval(random.exponential(1, 31), seed=trial)
            hits += low <= numpy.log(2) <= high
        self.assertGreaterEqual(hits, 87)

    def test_few_samples_are_not_enough(self):
        self.assertFalse(samples.settled([1.0], 0.05, 1))
        self.assertFalse(samples.settled([1.0, 1.0], 0.05, 3))
        self.assertTrue(samples.settled([1.0, 1.0, 1.0], 0.05, 3))
        self.assertFalse(samples.settled([1.0, 2.0, 3.0], 0.05, 3))
        with self.assertRaises(ValueError):
            samples.median_interval([])

    def test_ratio(self):
        ratio, low, high = samples.ratio_interval([2.0, 2.02, 1.98], [1.0, 1.01, 0.99])
        self.assertEqual(ratio, 2)
        self.assertTrue(1.9 < low <= 2 <= high < 2.1)


class Plans(unittest.TestCase):
    def test_points_of_several_studies_are_measured_once(self):
        points = points_of(complete_plan({"models": ["1B"], "ranks": [1, 2], "sequences": [1, 2],
                                          "grids": {"2": ["tensor 2", "data 2"]}}))
        keys = {point.key for point in points}
        self.assertLess(len(keys), len(points))
        self.assertEqual({point.grid for point in points if point.ranks == 2}, {"tensor 2", "data 2"})
        weak = [point.sequences for point in points if point.study == "weak"]
        self.assertEqual(sorted(set(weak)), [1, 2])

    def test_plans_that_cannot_be(self):
        with self.assertRaisesRegex(SystemExit, "unknown key modles"):
            complete_plan({"modles": []})
        with self.assertRaisesRegex(SystemExit, "ranks of at least 1"):
            complete_plan({"ranks": [0]})
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder) / "plan.json"
            path.write_text("{")
            with self.assertRaisesRegex(SystemExit, "plan.json"):
                read_plan(path)

    def test_shipped_plans_name_known_models(self):
        for path in (programs.ROOT / "benchmarks" / "scaling" / "plans").glob("*.json"):
            plan = read_plan(path)
            for name in plan["models"] + plan["ladder"]:
                self.assertIn(name, ladder.MODELS, path)

    def test_context_holds_prompt_and_answer(self):
        options = Point("strong", "1B", "q40", 2, "tensor 2 expert 2", 1, 1, 60, 8).options()
        self.assertEqual(options[:4], ["--tensor", "2", "--expert", "2"])
        self.assertEqual(options[options.index("--context") + 1], "128")

    def test_points_that_share_cores_are_run_once(self):
        plan = complete_plan({"least": 5, "most": 9})
        point = Point("strong", "1B", "q40", 4, "", 1, 1, 64, 8)
        self.assertTrue(oversubscribed(point, 2))
        self.assertFalse(oversubscribed(point, 4))
        self.assertTrue(enough(point, {point.key: [1.0]}, plan, 2))
        self.assertFalse(enough(point, {point.key: [1.0]}, plan, 4))
        self.assertTrue(enough(point, {point.key: [1.0, 3.0] * 5}, plan, 4))


class CostModel(unittest.TestCase):
    def test_ranks_read_less_and_talk_more(self):
        alone = cost_model.decode_terms(model(), ONE, 1, 100, MACHINE)
        tensor = cost_model.decode_terms(model(), {**ONE, "tensor": 2, "expert": 2}, 1, 100, MACHINE)
        self.assertEqual(alone["messages_near"], 0)
        self.assertEqual(alone["messages_far"], 0)
        self.assertGreater(tensor["messages_near"], 2 * 12)
        self.assertEqual(tensor["messages_far"], 0)
        # Two ranks share the node's memory, so time to read falls by less than half.
        self.assertTrue(0.5 < tensor["read"] / alone["read"] < 1)

    def test_groups_beyond_a_node_use_far_links(self):
        wide = cost_model.decode_terms(model(), {**ONE, "tensor": 4, "expert": 4}, 1, 100, MACHINE)
        self.assertGreater(wide["messages_far"], 0)
        spread = cost_model.decode_terms(model(), {**ONE, "data": 4, "expert": 4}, 64, 100, MACHINE)
        self.assertGreater(spread["bytes_far"], 0)
        self.assertGreater(spread["bytes_near"], 0)

    def test_more_rows_touch_more_experts_up_to_all(self):
        touched = [cost_model.busiest(32, 4, rows, 1)[0] for rows in (1, 4, 16, 512)]
        self.assertEqual(touched[0], 4)
        self.assertEqual(touched, sorted(touched))
        self.assertAlmostEqual(touched[-1], 32, delta=0.1)
        _, pairs = cost_model.busiest(32, 4, 100, 4)
        self.assertTrue(100 <= pairs <= 150)  # the mean is 100
        uneven = tuple([0.5] + [0.5 / 31] * 31)
        self.assertGreater(cost_model.busiest(32, 4, 100, 4, uneven)[1], pairs)

    def test_nonnegative_finds_what_is_there(self):
        random = numpy.random.default_rng(0)
        rows = random.uniform(0, 1, (30, 4))
        found = cost_model.nonnegative(rows, rows @ [1, 0, 2, 0])
        numpy.testing.assert_allclose(found, [1, 0, 2, 0], atol=1e-9)
        found = cost_model.nonnegative(rows, rows @ [1, -1, 2, 0])
        self.assertTrue((found >= 0).all())

    def truth(self):
        return cost_model.Coefficients({
            "step": 1e-4, "layers": 2e-5, "read": 1.4, "compute": 2.0, "messages_near": 2e-5,
            "bytes_near": 1e-9, "messages_far": 0.0, "bytes_far": 0.0})

    def terms(self):
        out = []
        for factor in (0.1, 0.3, 1.0):
            one = model({kind: size * factor for kind, size in KINDS.items()})
            for grid in (ONE, {**ONE, "tensor": 2, "expert": 2}, {**ONE, "pipeline": 2}):
                out += [cost_model.decode_terms(one, grid, sequences, 100, MACHINE)
                        for sequences in (1, 8, 64)]
        return out

    def test_fit_recovers_the_coefficients_it_was_made_with(self):
        terms, truth = self.terms(), self.truth()
        seconds = [truth.seconds(term) for term in terms]
        found = cost_model.fit(terms, seconds)
        for term, second in zip(terms, seconds):
            self.assertAlmostEqual(found.seconds(term) / second, 1, places=3)
        self.assertAlmostEqual(found.values["read"], 1.4, delta=0.05)
        self.assertAlmostEqual(found.values["messages_near"], 2e-5, delta=4e-6)

    def test_intervals_hold_points_not_seen(self):
        random = numpy.random.default_rng(4)
        terms, truth = self.terms(), self.truth()
        seconds = [truth.seconds(term) * random.lognormal(0, 0.05) for term in terms]
        _, draws = cost_model.bootstrap(terms, seconds, times=40)
        unseen = cost_model.decode_terms(model(), {**ONE, "data": 2, "expert": 2}, 16, 100, MACHINE)
        low, high = cost_model.interval(unseen, draws)
        self.assertTrue(low <= truth.seconds(unseen) <= high)
        middle = (low + high) / 2
        self.assertGreaterEqual((high - low) / middle, 0.49)  # never narrower than 25 % each way

    def test_predictions_of_described_machines(self):
        machines = predict.read_machines()
        for name, described in machines.items():
            self.assertGreaterEqual(set(described), set(predict.RANGED))
            for coefficients in predict.coefficient_draws(described)[:3]:
                self.assertTrue(all(value >= 0 for value in coefficients.values.values()), name)
        name = "H200, 8 per node, InfiniBand 400G"
        described = machines[name]
        grid, decode, prefill = predict.fastest(model(name="106B"), 8, 16, 512, described, name, 141e9)
        self.assertEqual(grid["data"] * grid["pipeline"] * grid["tensor"], 8)
        middle, low, high = predict.summary(decode)
        self.assertTrue(low <= middle / 1.25 and high >= middle * 1.25)
        self.assertGreater(prefill.min(), 0)
        self.assertIsNone(predict.fastest(model(name="106B"), 8, 16, 512, described, name, 1e8))


def launch(point, decode, shared=False, size=1e9):
    manifest = {"shape": {"model_bytes": size}, "grid": ONE, "oversubscribed": shared}
    record = types.SimpleNamespace(manifest=manifest, experts=None)
    return types.SimpleNamespace(point=point, record=record, decode=decode, prefill=[1.0],
                                 roofs=None, oversubscribed=shared)


def point(ranks, name="1B", sequences=1):
    return Point("strong", name, "q40", ranks, "", 1, sequences, 64, 8)


class Analysis(unittest.TestCase):
    def measured(self, *launches):
        return store.by_point(launches)

    def test_ranks_that_share_cores_have_no_efficiency(self):
        points = [point(1), point(2), point(4)]
        measured = self.measured(launch(points[0], [2.0, 2.0]), launch(points[1], [1.25, 1.25]),
                                 launch(points[2], [0.5, 0.5], shared=True))
        rows = analysis.scaling_rows(measured, points)
        self.assertAlmostEqual(rows[1].speed_up[0], 1.6)
        self.assertAlmostEqual(rows[1].efficiency[0], 0.8)
        self.assertIsNone(rows[2].speed_up)
        self.assertIsNone(rows[2].efficiency)

    def test_weak_efficiency_counts_the_work(self):
        points = [point(1), point(2, sequences=2)]
        measured = self.measured(launch(points[0], [1.0, 1.0]), launch(points[1], [1.25, 1.25]))
        rows = analysis.scaling_rows(measured, points, weak=True)
        self.assertAlmostEqual(rows[1].efficiency[0], 0.8)

    def test_the_highest_count_is_held_out(self):
        three = self.measured(*(launch(point(ranks), [1.0]) for ranks in (1, 2, 4)),
                              launch(point(8), [1.0], shared=True))
        fitted, held = analysis.split(three)
        self.assertEqual(held, [point(4).key])
        self.assertEqual(len(fitted), 2)
        two = self.measured(launch(point(1), [1.0]), launch(point(2), [1.0]),
                            launch(point(2, "3B"), [1.0], size=2e9))
        fitted, held = analysis.split(two)
        self.assertEqual(held, [point(2, "3B").key])


class Store(unittest.TestCase):
    def test_commits_are_not_mixed(self):
        with tempfile.TemporaryDirectory() as folder:
            paths = []
            for commit in ("abc", "def"):
                paths.append(pathlib.Path(folder) / f"{commit}.h5")
                store.Results(paths[-1], store.new_manifest({}, commit, [])).file.close()
            with self.assertRaisesRegex(SystemExit, "not mixed"):
                store.Results(paths[0], store.new_manifest({}, "def", []))
            with self.assertRaisesRegex(SystemExit, "of commit def, the others of abc"):
                store.read_all(paths)
            self.assertEqual(store.read_all(paths[:1])[0]["commit"], "abc")

    def test_files_that_are_none(self):
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder) / "x.h5"
            with h5py.File(path, "w") as file:
                file["manifest"] = json.dumps({"format": "other"})
            with self.assertRaisesRegex(SystemExit, "not the results of a study"):
                store.read_all([path])


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])
