# benchmarks/scaling as a whole: a tiny sweep over ranks, grids and batches, its results, report,
# pictures and tables; going on, and refusing another commit. Usage: sweep_test.py BIN DATA TMP
# MPIEXEC. SPDX-License-Identifier: MIT
import csv
import json
import os
import shutil
import sys
import unittest

import programs

programs.need_modules()
import h5py  # noqa: E402

STUDY = programs.ROOT / "benchmarks" / "scaling" / "study.py"
PLAN = STUDY.parent / "plans" / "tiny.json"


class Sweep(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.out = programs.TMP / "studies" / "sweep"
        shutil.rmtree(cls.out, ignore_errors=True)
        cls.said, _ = programs.run(cls.command())
        cls.report = (cls.out / "report.md").read_text()

    @classmethod
    def command(cls, *words):
        return [sys.executable, "-B", STUDY, cls.out, "--plan", PLAN, "--bin", programs.BIN,
                "--launcher", f"{programs.MPIEXEC} --oversubscribe -np {{ranks}}", *words]

    def table(self, name):
        with open(self.out / "csv" / f"{name}.csv", newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file))

    def test_every_point_was_measured_once(self):
        with h5py.File(self.out / "results.h5", "r") as file:
            manifest = json.loads(file["manifest"][()].decode())
            points = [json.loads(group.attrs["point"]) for group in file["launches"].values()]
            for group in file["launches"].values():
                self.assertIn("experts/trace", group)
                self.assertGreater(len(group["passes/seconds"]), 0)
        self.assertEqual({point["ranks"] for point in points}, {1, 2, 4})
        self.assertEqual({point["model"] for point in points}, {"tiny", "0.2B"})
        keys = [tuple(value for name, value in sorted(point.items()) if name != "study")
                for point in points]
        self.assertEqual(len(keys), len(set(keys)))
        version, _ = programs.run([programs.BIN / "glm_infer", "--version"])
        self.assertIn(f"(commit {manifest['commit']},", version)

    def test_efficiency_only_where_ranks_have_cores(self):
        cores = len(os.sched_getaffinity(0))
        rows = self.table("strong_time")
        self.assertEqual({int(row["ranks"]) for row in rows}, {1, 2, 4})
        for row in rows:
            shared = int(row["ranks"]) > cores
            self.assertEqual(row["mark"], "oversubscribed" if shared else "")
        self.assertTrue(all(int(row["ranks"]) <= cores for row in self.table("strong_efficiency")))
        self.assertEqual("ranks share cores" in self.report, cores < 4)

    def test_all_pictures_are_there_in_both_forms_with_their_tables(self):
        names = ["strong_time", "strong_efficiency", "weak_efficiency", "breakdown_decode",
                 "breakdown_prefill", "imbalance", "throughput", "roofline", "predictions",
                 "extrapolation"]
        for name in names:
            svg = self.out / "plots" / f"{name}.svg"
            self.assertIn("<svg", svg.read_text()[:1000])
            self.assertLess(svg.stat().st_size, 200_000, name)
            self.assertEqual((svg.with_suffix(".png")).read_bytes()[:4], b"\x89PNG")
            self.assertGreater(len(self.table(name)), 0, name)
            self.assertIn(f"plots/{name}.svg", self.report)

    def test_predictions_are_called_so(self):
        self.assertIn("**predicted**", self.report)  # 405B fits nowhere
        for heading in ("## 64 to 1024 GPUs: predicted", "3.4x speed-up on 4 nodes"):
            self.assertIn(heading, self.report)
        ranks = {int(row["ranks"]) for row in self.table("extrapolation")}
        self.assertGreaterEqual(ranks, {64, 128, 256, 512, 1024})
        for row in self.table("extrapolation"):
            self.assertLess(float(row["low"]), float(row["tokens_per_second"]) / 1.24)
        held = [row for row in self.table("predictions") if row["held_out"] == "True"]
        self.assertGreater(len(held), 0)

    def test_it_goes_on_where_it_ended_and_refuses_another_commit(self):
        before = (self.out / "results.h5").stat().st_mtime_ns
        said, _ = programs.run(self.command("--report-only"))
        self.assertTrue(said.strip().endswith("report.md"))
        self.assertEqual((self.out / "results.h5").stat().st_mtime_ns, before)
        other = self.out.parent / "sweep_other"
        shutil.rmtree(other, ignore_errors=True)
        other.mkdir()
        shutil.copy(self.out / "results.h5", other)
        with h5py.File(other / "results.h5", "a") as file:
            manifest = json.loads(file["manifest"][()].decode())
            manifest["commit"] = "another"
            del file["manifest"]
            file["manifest"] = json.dumps(manifest)
        command = self.command()
        command[3] = other
        _, err = programs.run(command, 1)
        self.assertIn("was measured with commit another", err)
        _, err = programs.run(self.command("--report-only", "--merge", other / "results.h5"), 1)
        self.assertIn("not mixed", err)


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])
