# benchmarks/peers/compare.py: what it reads from each engine's output, its medians and ratios, and
# that it ends when a command fails. SPDX-License-Identifier: MIT
import json
import pathlib
import subprocess
import sys
import tempfile
import unittest

FOLDER = pathlib.Path(__file__).resolve().parents[2] / "benchmarks" / "peers"
sys.path.insert(0, str(FOLDER))
import compare  # noqa: E402

OURS = '{"benchmark": {"prefill_tokens_per_second": 400.5, "decode_tokens_per_second": 60.0, ' \
       '"bandwidth_share": 0.8}, "ops": "cpu vnni"}\n'
LLAMA_BENCH = 'warning: {not json}\n[\n  {"n_prompt": 480, "n_gen": 0, "avg_ts": 264.5},\n' \
              '  {"n_prompt": 480, "n_gen": 64, "avg_ts": "75.25"}\n]\n'
DLLAMA = """Evaluation
   nBatches: 32
    nTokens: 480
   tokens/s: 33.10 (30.21 ms/tok)
Prediction
    nTokens: 64
   tokens/s: 23.90 (41.84 ms/tok)
"""


class Parse(unittest.TestCase):
    def test_ours(self):
        self.assertEqual(compare.parse("some line\n" + OURS),
                         {"prefill": 400.5, "decode": 60.0, "bandwidth_share": 0.8})

    def test_llama_bench(self):
        self.assertEqual(compare.parse(LLAMA_BENCH), {"prefill": 264.5, "decode": 75.25})

    def test_llama_bench_called_twice(self):
        twice = '[{"n_gen": 0, "avg_ts": 1}]\n[{"n_gen": 64, "avg_ts": 2}]\n'
        self.assertEqual(compare.parse(twice), {"prefill": 1, "decode": 2})

    def test_distributed_llama(self):
        self.assertEqual(compare.parse(DLLAMA), {"prefill": 33.1, "decode": 23.9})

    def test_nothing(self):
        self.assertEqual(compare.parse("[broken\n{\n"), {})


class Program(unittest.TestCase):
    def run_compare(self, *args):
        return subprocess.run([sys.executable, str(FOLDER / "compare.py"), *args],
                              capture_output=True, text=True)

    def test_alternates_and_takes_ratios_within_rounds(self):
        with tempfile.TemporaryDirectory() as folder:
            # Each call prints the next number of a list: 100, 200, 400 against 50, 400, 100.
            def side(name, values):
                count = f"{folder}/{name}"
                return f'{name}=n=$(cat {count} 2>/dev/null || echo 0); echo $((n + 1)) > {count}; ' \
                       f'v=({values}); echo "[{{\\"n_gen\\": 1, \\"avg_ts\\": ${{v[n]}}}}]"'
            out = f"{folder}/out.json"
            done = self.run_compare("--rounds", "3", "--json", out,
                                    side("a", "100 200 400"), side("b", "50 400 100"))
            self.assertEqual(done.returncode, 0, done.stderr)
            with open(out) as file:
                figures = json.load(file)["figures"]["decode"]
        self.assertEqual(figures["a"]["median"], 200)
        self.assertEqual(figures["b"]["samples"], [50, 400, 100])
        self.assertEqual(figures["b"]["ratio_of_first"],
                         {"median": 2.0, "lowest": 0.5, "highest": 4.0})

    def test_a_command_that_fails_ends_it(self):
        done = self.run_compare("--rounds", "1", "a=true", "b=echo why >&2; exit 3")
        self.assertNotEqual(done.returncode, 0)
        self.assertIn("exit code 3", done.stderr)
        self.assertIn("why", done.stderr)

    def test_needs_two_sides(self):
        self.assertEqual(self.run_compare("a=true").returncode, 2)


unittest.main()
