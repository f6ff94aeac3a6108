# Every batch script of slurm/ under a real Slurm of two pretended nodes: what it prints, arrays,
# failing ranks, the walltime hand-over, a node that dies.
# Usage: slurm_test.py GLM_INFER GLM_CONVERT CHECKPOINT SCRIPTS [unittest options]
# SPDX-License-Identifier: MIT
import json
import os
import pathlib
import re
import signal
import sys
import time
import unittest

import cluster as slurm
import hosts

ANSWER = "The capital of France is Paris."
SMALL = "--max-tokens 4"


class OnCluster(unittest.TestCase):
    def setUp(self):
        self.start = time.monotonic()
        self.cluster = CLUSTER

    def tearDown(self):
        print(f"{time.monotonic() - self.start:.1f} s ", end="", flush=True)

    def submit(self, script, *options, **variables):
        return self.cluster.submit(*options, SCRIPTS / script,
                                   **{"MODEL": MODEL, "PROGRAM": INFER, "DEVICE": "cpu", **variables})

    def finish(self, job, state, seconds=60):
        outcome = self.cluster.finish(job, seconds)
        self.assertEqual(outcome.state, state, outcome.text)
        return outcome


class Scripts(OnCluster):
    """What the scripts print and write, and how they end."""

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

    def submit_command(self, command, *options):
        """A job of this command, in place of a script of ours."""
        return self.cluster.submit(*options, f"--wrap={command} {INFER} --model {MODEL} --device cpu --temperature 0 "
                                             "--prompt 'What is the capital of France?'")

    def test_mpirun_in_a_job(self):
        job = self.submit_command("mpirun", "--nodes=2", "--ntasks-per-node=2")
        outcome = self.finish(job, "COMPLETED")
        self.assertIn(ANSWER, outcome.text)
        self.assertEqual(re.findall(r"^ +[0-3]  (n\d) ", outcome.text, re.MULTILINE), ["n1", "n1", "n2", "n2"])

    def test_without_pmix(self):
        outcome = self.finish(self.submit_command("srun --mpi=none", "--ntasks=2"), "FAILED")
        self.assertEqual(outcome.code, 2, outcome.text)
        self.assertIn("launch with srun --mpi=pmix", outcome.text)
        self.assertNotIn(ANSWER, outcome.text)

    def test_missing_model(self):
        outcome = self.finish(self.submit("one_node.sbatch", MODEL="/nowhere.h5"), "FAILED")
        self.assertEqual(outcome.code, 2)
        self.assertIn("glm_infer: error: ", outcome.text)


class Disturbed(OnCluster):
    """A batch that is disturbed, and answers as if it were not."""

    def setUp(self):
        super().setUp()
        self.requests = self.cluster.work / f"{self.id()}.in.jsonl"
        self.answers = self.cluster.work / f"{self.id()}.out.jsonl"

    def ask(self, count):
        self.requests.write_text("".join(
            json.dumps({"prompt": f"What is {number} plus {number}?", "max_tokens": 150, "seed": number}) + "\n"
            for number in range(count)))

    def submit_batch(self, *options, nodes=1, ranks=4, **variables):
        """Returns when the first answer is there."""
        job = self.submit("long_batch.sbatch", f"--nodes={nodes}", f"--ntasks-per-node={ranks // nodes}", *options,
                          BATCH=self.requests, ANSWERS=self.answers,
                          **{"OPTIONS": "--temperature 1 --reproducible --timeout 60", **variables})

        def ready():
            if self.cluster.show(job)["JobState"] in slurm.FINAL:
                self.fail(self.cluster.output(job))
            return self.answers.exists() and self.answers.stat().st_size > 0
        hosts.wait_for("the first answer", 60, ready)
        return job

    def expect_answers(self):
        """Those of one rank that nobody disturbs."""
        alone = self.cluster.work / f"{self.id()}.alone.jsonl"
        hosts.run(INFER, "--model", MODEL, "--batch", self.requests, "--output", alone, "--device", "cpu",
                  "--temperature", 1, "--reproducible")
        read = [sorted(path.read_text().splitlines()) for path in (alone, self.answers)]
        self.assertEqual(read[0], read[1])

    def restarts(self, job):
        return int(self.cluster.show(job)["Restarts"])

class LongBatch(Disturbed):
    def test_hand_over(self):
        self.ask(150)
        job = self.submit_batch()
        hosts.run("scancel", "--signal=USR1", "--batch", job)
        outcome = self.finish(job, "COMPLETED", 90)
        self.assertEqual(outcome.shown["Restarts"], "1", outcome.text)
        self.assertIn("saved, back into the queue", outcome.text)
        self.assertIn(f"job {job}, start 2: ", outcome.text)
        self.assertIn("all ranks ended well", outcome.text)
        self.expect_answers()

    def test_most_starts(self):
        self.ask(5000)
        job = self.submit_batch(MAX_STARTS=1)
        hosts.run("scancel", "--signal=USR1", "--batch", job)
        self.assertEqual(self.finish(job, "FAILED").code, 75)

    def test_killed_rank(self):
        self.ask(5000)
        job = self.submit_batch(nodes=2)
        os.kill(hosts.processes("glm_infer")[1], signal.SIGKILL)
        outcome = self.finish(job, "FAILED", 30)
        self.assertNotIn(outcome.code, (0, 75), outcome.text)
        self.assertIn("is gone: killed", outcome.text)
        self.assertEqual(self.restarts(job), 0)

    def test_dead_node(self):
        self.ask(5000)
        job = self.submit_batch("--no-requeue", nodes=2)
        self.cluster.hosts["n2"].cut_power()
        outcome = self.finish(job, "NODE_FAIL", 60)
        self.assertNotEqual(outcome.code, 0, outcome.text)
        self.cluster.restart_host("n2")
        self.cluster.wait_for_nodes()


class Minutes(Disturbed):
    """The same at the pace of Slurm's own clock."""

    def test_time_limit(self):
        self.ask(9000)
        job = self.submit_batch("--time=2", "--signal=B:USR1@40")
        outcome = self.finish(job, "COMPLETED", 1200)
        self.assertGreater(int(outcome.shown["Restarts"]), 0, outcome.text)
        self.expect_answers()

    def test_over_the_limit(self):
        self.ask(20000)
        job = self.submit_batch("--time=1", "--signal=B:CONT@1")
        outcome = self.finish(job, "TIMEOUT", 180)
        self.assertEqual(self.restarts(job), 0, outcome.text)

    def test_node_comes_back(self):
        self.ask(150)
        job = self.submit_batch(nodes=2)
        self.cluster.hosts["n2"].cut_power()
        hosts.wait_for("the job back in the queue", 60, lambda: self.restarts(job) == 1)
        self.cluster.restart_host("n2")
        outcome = self.finish(job, "COMPLETED", 120)
        self.assertIn("start 2: ", outcome.text)
        self.expect_answers()

    def test_another_grid(self):
        self.ask(150)
        job = self.submit_batch()
        hosts.run("scancel", "--signal=USR1", "--batch", job)
        hosts.wait_for("the job back in the queue", 60, lambda: self.restarts(job) == 1)
        hosts.run("scancel", job)
        self.finish(job, "CANCELLED")
        self.finish(self.submit_batch(nodes=2, GRID="--tensor 2 --data 2"), "COMPLETED", 120)
        self.expect_answers()


if __name__ == "__main__":
    hosts.enter_namespaces(slurm.PROGRAMS)
    INFER, CONVERT, CHECKPOINT, SCRIPTS = [pathlib.Path(path).resolve() for path in sys.argv[1:5]]
    MODEL = str(hosts.ROOT / "tiny.h5")
    CLUSTER = slurm.Cluster()
    hosts.run(CONVERT, CHECKPOINT, MODEL)
    unittest.main(argv=sys.argv[:1] + sys.argv[5:], verbosity=2, warnings="ignore")
