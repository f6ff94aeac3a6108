# benchmarks/quantisation_study.py on the tiny model: every type has its row, the rows agree with what
# is known of them, a command that fails is said in one line. Usage: quantisation_test.py BIN DATA TMP
# MPIEXEC. SPDX-License-Identifier: MIT
import csv
import shutil
import sys
import unittest

import programs

programs.need_modules()
STUDY = programs.ROOT / "benchmarks" / "quantisation_study.py"
EXPECTED = programs.DATA / "tiny" / "expected"


class Quantisation(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.out = programs.TMP / "studies" / "quantisation"
        shutil.rmtree(cls.out, ignore_errors=True)
        cls.text, _ = programs.run(
            [sys.executable, "-B", STUDY, programs.DATA / "tiny", cls.out, "--bin", programs.BIN,
             "--text", EXPECTED / "eval.txt", "--questions", EXPECTED / "answers.jsonl", "--limit",
             "24", "--prompt-tokens", "32", "--max-tokens", "8", "--rounds", "1", "--repeat", "2",
             "--threads", "1"])
        with open(cls.out / "quantisation.csv", newline="", encoding="utf-8") as file:
            cls.rows = {row["dtype"]: row for row in csv.DictReader(file)}

    def number(self, dtype, column):
        return float(self.rows[dtype][column])

    def test_rows_agree_with_what_is_known(self):
        self.assertEqual(list(self.rows), ["f32", "bf16", "f16", "q80", "q40"])
        sizes = [self.number(dtype, "model_bytes") for dtype in self.rows]
        self.assertEqual(sizes, sorted(sizes, reverse=True))
        self.assertEqual(self.number("f32", "kl_mean"), 0)
        self.assertLess(self.number("q80", "kl_mean"), self.number("q40", "kl_mean"))
        for dtype in self.rows:
            self.assertEqual(self.number(dtype, "questions"), 24)
            self.assertGreaterEqual(self.number(dtype, "right"), 23)
            self.assertLess(abs(self.number(dtype, "perplexity_change")), 0.2)
            self.assertGreater(self.number(dtype, "decode"), 0)
            self.assertEqual(self.number(dtype, "runs"), 2)
            self.assertIn(f"| {dtype} |", self.text)

    def test_pictures(self):
        self.assertIn("<svg", (self.out / "quantisation.svg").read_text()[:1000])
        self.assertEqual((self.out / "quantisation.png").read_bytes()[:4], b"\x89PNG")
        self.assertEqual((self.out / "quantisation.md").read_text().strip(), self.text.strip())

    def test_what_fails_is_said(self):
        _, err = programs.run([sys.executable, "-B", STUDY, programs.DATA / "missing", self.out,
                               "--bin", programs.BIN, "--text", EXPECTED / "eval.txt"], 1)
        self.assertIn("glm_convert", err)
        self.assertIn("missing", err)
        self.assertNotIn("Traceback", err)


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])
