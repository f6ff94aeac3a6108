# glm_infer --record, and benchmarks/read_record.py: what the file says agrees with itself and with
# what the run says, on grids with every kind of collective; paths that cannot be. Usage:
# record_test.py BIN DATA TMP MPIEXEC. SPDX-License-Identifier: MIT
import json
import re
import sys
import unittest

import programs

programs.need_modules()
sys.path.insert(0, str(programs.ROOT / "benchmarks"))
import numpy  # noqa: E402

import read_record  # noqa: E402

BENCHMARK = ("--benchmark", "--prompt-tokens", "40", "--max-tokens", "8", "--repeat", "2",
             "--context", "128", "--threads", "1", "--no-verify", "--no-roofs")


class OfTinyModel(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.model = programs.tiny_model("q40")
        config = json.loads((programs.DATA / "tiny" / "config.json").read_text())
        cls.layers = config["num_hidden_layers"]
        cls.dense = config["first_k_dense_replace"]
        cls.experts = config["n_routed_experts"]
        cls.top_k = config["num_experts_per_tok"]

    def record(self, ranks, *words):
        path = self.model.with_suffix(f".{self._testMethodName}.record.h5")
        path.unlink(missing_ok=True)
        out, err = programs.infer(ranks, "--model", self.model, "--record", path, *words)
        self.assertIn(f"record: {path}", err)
        self.assertFalse(path.with_suffix(".h5.partial").exists())
        return read_record.Record(path), out, err

    def check(self, record, ranks):
        """What is true of every record."""
        p = record.passes
        self.assertEqual(record.n_ranks, ranks)
        self.assertEqual(set(p["rank"]), set(range(ranks)))
        parts = sum(p[part] for part in read_record.PARTS)
        numpy.testing.assert_allclose(parts, p["seconds"], atol=1e-9)
        for part in read_record.PARTS:
            self.assertGreaterEqual(p[part].min(), -1e-9, part)
        for rank in range(ranks):
            mine = p["rank"] == rank
            ends = p["start"][mine] + p["seconds"][mine]
            self.assertTrue((p["start"][mine][1:] >= ends[:-1] - 1e-9).all())
            self.assertLessEqual(ends[-1], record.ranks["run_seconds"][rank] + 0.1)
        self.assertTrue((record.ranks["peak_rss_bytes"] > record.ranks["weight_bytes"]).all())
        self.assertTrue((record.ranks["plan_bytes"] > record.ranks["weight_bytes"]).all())

    def check_experts(self, record):
        """Every row met top_k experts in every layer that has them."""
        counts = record.experts["counts"]
        self.assertEqual(counts.shape, (2, self.layers, self.experts))
        for kind, name in enumerate(("prefill", "decode")):
            chosen = record.select(name, warm=True) & (record.passes["rank"] == 0)
            rows = record.passes["step_rows"][chosen].sum()
            self.assertTrue((counts[kind, :self.dense] == 0).all())
            self.assertTrue((counts[kind, self.dense:].sum(axis=1) == rows * self.top_k).all(), name)
        trace = record.experts["trace"]
        self.assertEqual(len(trace), len(record.experts["trace_step"]))
        numpy.testing.assert_array_equal(trace.sum(axis=0), counts.sum(axis=0))
        main = record.passes["kind"] < 2
        pairs = record.passes["expert_rows"][main].sum()
        self.assertEqual(pairs, counts.sum())

    def test_one_rank(self):
        record, out, err = self.record(1, *BENCHMARK, "--json", "--price-per-hour", "7.2")
        self.check(record, 1)
        self.check_experts(record)
        self.assertEqual(sorted(set(record.passes["run"])), [0, 1, 2])
        self.assertEqual(len(record.step_seconds("decode")), 2 * 7)
        self.assertEqual(record.passes["sent_bytes"].sum(), 0)
        said = json.loads(out.splitlines()[-1])
        m = record.manifest
        self.assertEqual(m["result"]["decode_samples"], said["benchmark"]["decode_samples"])
        self.assertEqual(m["cost"], said["cost"])
        tokens = m["tokens"]
        self.assertAlmostEqual(m["cost"]["million_answer_tokens"],
                               7.2 / 3600 * tokens["decode_seconds"] / tokens["answer"] * 1e6)
        self.assertRegex(err, r"cost: .* for this run without loading")
        self.assertEqual(m["command_line"][1:3], ["--model", str(self.model)])
        version = programs.run([programs.BIN / "glm_infer", "--version"])[0]
        self.assertIn(f"(commit {m['program']['commit']},", version)
        self.assertTrue("joules" in m["energy"] or m["energy"]["absent"])
        self.assertNotIn("OVERSUBSCRIBED", "\n".join(read_record.lines(record)))
        # Where a median is that of two runs, decode steps make up its time.
        total = record.step_seconds("decode").sum()
        rates = m["result"]["decode_samples"]
        self.assertAlmostEqual(total, sum(7 / rate for rate in rates), delta=0.3 * total)

    def test_tensor_ranks(self):
        record, _, _ = self.record(2, *BENCHMARK, "--tensor", "2", "--sequences", "2")
        self.check(record, 2)
        self.check_experts(record)
        self.assertGreater(record.breakdown("decode")["all_reduce"].min(), 0)
        self.assertGreater(record.breakdown("decode")["combine"].min(), 0)
        self.assertEqual(record.passes["sequences"].max(), 2)

    def test_stages_and_data(self):
        record, _, _ = self.record(4, *BENCHMARK, "--pipeline", "2", "--data", "2",
                                   "--expert", "2", "--sequences", "2")
        self.check(record, 4)
        self.check_experts(record)
        for part in ("dispatch", "combine", "stage", "plan"):
            self.assertGreater(record.breakdown("prefill")[part].sum(), 0, part)
        self.assertEqual(record.manifest["grid"], {"data": 2, "pipeline": 2, "tensor": 1, "expert": 2})
        cores = record.manifest["hosts"][0]["cores"]
        self.assertEqual(record.manifest["oversubscribed"], cores < 4)

    def test_answers_and_batches(self):
        words = ("--prompt", "What is the capital of France?", "--temperature", "0")
        plain, _ = programs.infer(2, "--model", self.model, *words)
        record, out, _ = self.record(2, *words)
        self.assertEqual(plain, out)
        self.check(record, 2)
        self.assertEqual(record.manifest["mode"], "answer")
        batch = self.model.with_suffix(".jsonl")
        batch.write_text('{"id": "a", "tokens": [5, 6, 7], "max_tokens": 4}\n'
                         '{"id": "b", "tokens": [8], "max_tokens": 6}\n')
        answers = batch.with_suffix(".out.jsonl")
        answers.unlink(missing_ok=True)
        record, _, _ = self.record(2, "--batch", batch, "--output", answers)
        self.check(record, 2)
        self.assertEqual(record.manifest["result"]["answered"], 2)

    def test_shown_and_drawn(self):
        record, _, _ = self.record(2, *BENCHMARK, "--tensor", "2")
        drawing = self.model.with_suffix(".svg")
        out, _ = programs.run([sys.executable, "-B", programs.ROOT / "benchmarks" / "read_record.py",
                               record.path, "--plot", drawing])
        for text in ("grid: data 1 x pipeline 1 x tensor 2, expert 2", "decode: 14 steps",
                     "ms per step", "busiest expert over the mean", "energy: "):
            self.assertIn(text, out)
        self.assertIn("<svg", drawing.read_text())
        as_json, _ = programs.run([sys.executable, "-B",
                                   programs.ROOT / "benchmarks" / "read_record.py", record.path,
                                   "--json"])
        self.assertEqual(json.loads(as_json), record.manifest)
        drawing.write_text("no record")
        _, err = programs.run([sys.executable, "-B",
                               programs.ROOT / "benchmarks" / "read_record.py", drawing], 1)
        self.assertIn(f"read_record: {drawing}: ", err)
        self.assertNotIn("Traceback", err)

    def test_paths_that_cannot_be(self):
        for path, reason in ((self.model, "is the model file itself"),
                             (self.model / "x.h5", "cannot be written"), ("", "needs a path")):
            _, err = programs.infer(0, "--model", self.model, "--benchmark", "--record", path, code=2)
            self.assertEqual(len(re.findall("^glm_infer: error: ", err, re.M)), 1)
            self.assertIn(reason, err)
        _, err = programs.infer(0, "--model", self.model, "--dry-run", "--record", "x.h5", code=2)
        self.assertIn("leave out --dry-run", err)


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])
