# Every batch script of slurm/ under a real Slurm of two pretended nodes: what it prints, arrays,
# failing ranks, the walltime hand-over, a node that dies.
# Usage: slurm_test.py GLM_INFER GLM_CONVERT CHECKPOINT SCRIPTS [unittest options]
# SPDX-License-Identifier: MIT
import json
import pathlib
import sys
import time
import unittest

import cluster as slurm
import hosts

ANSWER = "The capital of France is Paris."
SMALL = "--max-tokens 4"


class Scripts(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.cluster = slurm.Cluster()
        cls.model = str(hosts.ROOT / "tiny.h5")
        hosts.run(CONVERT, CHECKPOINT, cls.model)

    def setUp(self):
        self.start = time.monotonic()

    def tearDown(self):
        print(f"{time.monotonic() - self.start:.1f} s ", end="", flush=True)

    def submit(self, script, *options, **variables):
        return self.cluster.submit(SCRIPTS / script, *options,
                                   **{"MODEL": self.model, "PROGRAM": INFER, "DEVICE": "cpu", **variables})

    def finish(self, job, state, seconds=60):
        outcome = self.cluster.finish(job, seconds)
        self.assertEqual(outcome.state, state, outcome.text)
        return outcome

    def expect_binding(self, text, nodes, gpus):
        """A line for each rank: these many on each node, with these GPUs."""
        for node, ranks in nodes.items():
            found = [line for line in text.splitlines() if f": {node}: cores " in line]
            self.assertEqual(len(found), ranks, text)
            for line in found:
                self.assertTrue(line.endswith(f"GPUs {gpus}"), line)

    def test_one_node(self):
        outcome = self.finish(self.submit("one_node.sbatch"), "COMPLETED")
        self.expect_binding(outcome.text, {"n1": 4}, "none")
        self.assertIn("4 ranks: data 1 x pipeline 2 x tensor 2, expert 2", outcome.text)  # the plan
        self.assertIn(ANSWER, outcome.text)
        self.assertIn("all ranks ended well", outcome.text)

    def test_a100_nodes(self):
        outcome = self.finish(self.submit("a100_multi_node.sbatch"), "COMPLETED")
        self.expect_binding(outcome.text, {"n1": 4, "n2": 4}, "0,1,2,3")
        self.assertIn("grid: data 1 x pipeline 2 x tensor 4", outcome.text)
        self.assertIn(ANSWER, outcome.text)

    def test_a100_nodes_without_gpus(self):
        outcome = self.finish(self.submit("a100_multi_node.sbatch", DEVICE="cuda"), "FAILED")
        self.assertIn(outcome.code, (2, 4), outcome.text)
        self.assertNotIn("all ranks ended well", outcome.text)

    def test_wrong_width(self):
        outcome = self.finish(self.submit("a100_multi_node.sbatch", WIDTH=3), "FAILED")
        self.assertEqual(outcome.code, 2)
        self.assertIn("STAGES 2 x WIDTH 3 is not 8 ranks", outcome.text)

    def test_cpu_nodes(self):
        outcome = self.finish(self.submit("cpu_nodes.sbatch"), "COMPLETED")
        self.expect_binding(outcome.text, {"n1": 2, "n2": 2}, "none")
        self.assertIn("grid: data 1 x pipeline 2 x tensor 2", outcome.text)
        self.assertIn(ANSWER, outcome.text)

    def test_sweep(self):
        table = self.cluster.work / "table.txt"
        table.write_text("# a comment\n--sequences 1\n\n--top-k many\n  --seed 3\n")
        job = self.submit("sweep.sbatch", "--array=1-4%2", "--ntasks-per-node=2", SWEEP=table, RESULTS="results",
                          OPTIONS=f"--tokens 1,2,3 {SMALL}")
        codes = [self.cluster.finish(f"{job}_{number}").code for number in range(1, 5)]
        texts = [self.cluster.output(f"{job}_{number}") for number in range(1, 5)]
        self.assertEqual(codes, [0, 2, 0, 2], texts)
        self.assertIn("has no line 4, but 3", texts[3])
        self.assertIn("line 3 of 3: --seed 3", texts[2])
        results = self.cluster.work / "results"
        for number in (1, 3):
            self.assertEqual(len(json.loads((results / f"{number}.json").read_text().splitlines()[-1])["ranks"]), 2)
        self.assertFalse((results / "2.json").exists())

    def test_scaling_study(self):
        # One rank has not enough for 16 sequences, two nodes have.
        job = self.submit("scaling_study.sbatch", RESULTS="scaling", COUNTS="1 2", PER_NODE=1,
                          OPTIONS="--prompt-tokens 16 --max-tokens 4 --repeat 1 --threads 1 "
                                  "--sequences 16 --capacity 0.075")
        outcome = self.finish(job, "COMPLETED", 120)
        self.expect_binding(outcome.text, {"n1": 2, "n2": 1}, "none")
        self.assertIn("1 ranks: does not fit, left out", outcome.text)
        table = outcome.text[outcome.text.index("ranks   prefill"):].splitlines()
        self.assertEqual(table[1].split()[0::3], ["2", "1.00x"], outcome.text)
        two = json.loads((self.cluster.work / "scaling/2.json").read_text().splitlines()[-1])
        self.assertEqual([rank["host"] for rank in two["ranks"]], ["n1", "n2"])
        self.assertFalse((self.cluster.work / "scaling/1.json").exists())

    def test_scaling_study_fails(self):
        outcome = self.finish(self.submit("scaling_study.sbatch", COUNTS="1 2", OPTIONS="--repeat none"), "FAILED")
        self.assertEqual(outcome.code, 2)
        self.assertIn("2 ranks: FAILED with code 2", outcome.text)

    def test_missing_model(self):
        outcome = self.finish(self.submit("one_node.sbatch", MODEL="/nowhere.h5"), "FAILED")
        self.assertEqual(outcome.code, 2)
        self.assertIn("glm_infer: error: ", outcome.text)


if __name__ == "__main__":
    hosts.enter_namespaces(slurm.PROGRAMS)
    INFER, CONVERT, CHECKPOINT, SCRIPTS = [pathlib.Path(path).resolve() for path in sys.argv[1:5]]
    unittest.main(argv=sys.argv[:1] + sys.argv[5:], verbosity=2, warnings="ignore")
