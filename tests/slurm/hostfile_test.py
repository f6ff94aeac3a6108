# mpirun with a file of hosts, without Slurm: two pretended hosts with two networks between them.
# Where the ranks run, which network they use, what happens when a host has another model file,
# when a network or a host is lost.
# Usage: hostfile_test.py GLM_INFER GLM_CONVERT CHECKPOINT SCRIPTS [unittest options]
# SPDX-License-Identifier: MIT
import json
import os
import pathlib
import subprocess
import sys
import time
import unittest

import hosts

NETWORKS = {"eth0": "10.231.0", "fast0": "10.232.0"}
NAMES = {1: "n1", 2: "n2"}
ANSWER = "The capital of France is Paris."
AGENT = pathlib.Path(__file__).resolve().parent / "agent.sh"


class Hostfile(unittest.TestCase):
    def setUp(self):
        self.start = time.monotonic()
        self.hosts = [hosts.Host(name, number, NETWORKS) for number, name in NAMES.items()]
        # A folder of its own on each host, under one name.
        self.model = hosts.ROOT / "scratch/tiny.h5"
        self.model.parent.mkdir(exist_ok=True)
        for host in self.hosts:
            host.run("mount", "-t", "tmpfs", "tmpfs", self.model.parent)
            host.run("cp", MODEL, self.model)
        self.hostfile = hosts.ROOT / "hostfile"
        self.hostfile.write_text("n1 slots=2\nn2 slots=2\n")

    def tearDown(self):
        for host in self.hosts:
            host.cut_power()
        print(f"{time.monotonic() - self.start:.1f} s ", end="", flush=True)

    def start_job(self, *arguments, network="eth0", ranks=4):
        chosen = ["--mca", "btl_tcp_if_include", f"{NETWORKS[network]}.0/24"] if network else []
        command = ["mpirun", "--mca", "plm_rsh_agent", AGENT, "--hostfile", self.hostfile, "-np", ranks,
                   *chosen, "--mca", "oob_tcp_if_include", "10.231.0.0/24",
                   "--mca", "oob_tcp_keepalive_time", 3, "--mca", "oob_tcp_keepalive_intvl", 1,
                   "--mca", "oob_tcp_keepalive_probes", 2,
                   INFER, "--model", self.model, "--device", "cpu", "--temperature", 0, *arguments]
        return subprocess.Popen([str(word) for word in command], text=True, stdout=subprocess.PIPE,
                                stderr=subprocess.PIPE)

    def finish(self, job, seconds=60):
        """Exit code and output; no rank is left behind."""
        text = "".join(job.communicate(timeout=seconds))
        hosts.wait_for("the end of all ranks", 5, lambda: not hosts.processes("glm_infer"))
        return job.returncode, text

    def answer(self, *arguments, **options):
        return self.finish(self.start_job("--prompt", "What is the capital of France?", *arguments, **options))

    def endless(self, *arguments):
        """A job that runs until it is disturbed, after its first answer."""
        requests = hosts.ROOT / "requests.jsonl"
        requests.write_text("".join(json.dumps({"prompt": f"Question {number}?", "max_tokens": 500}) + "\n"
                                    for number in range(5000)))
        answers = self.hosts[0].folder / "answers.jsonl"
        answers.unlink(missing_ok=True)
        job = self.start_job("--batch", requests, "--output", answers, *arguments, network="fast0")
        hosts.wait_for("the first answer", 30,
                       lambda: job.poll() is not None or answers.exists() and answers.stat().st_size > 0)
        if job.poll() is not None:
            self.fail("".join(job.communicate()))
        return job

    def expect_refused(self, texts):
        code, output = self.answer()
        self.assertEqual(code, 3, output)
        errors = [line for line in output.splitlines() if line.startswith("glm_infer: error: ")]
        self.assertEqual(len(errors), 1, output)
        for text in texts:
            self.assertIn(text, errors[0])

    def test_answer(self):
        code, output = self.answer("--json")
        self.assertEqual(code, 0, output)
        self.assertIn(ANSWER, output)
        result = json.loads(next(line for line in output.splitlines() if line.startswith("{")))
        self.assertEqual([rank["host"] for rank in result["ranks"]], ["n1", "n1", "n2", "n2"])

    def test_chosen_network(self):
        for chosen, other in (("eth0", "fast0"), ("fast0", "eth0")):
            before = [{name: host.sent_bytes(name) for name in NETWORKS} for host in self.hosts]
            code, output = self.answer("--tensor", 4, network=chosen)
            self.assertEqual(code, 0, output)
            for host, old in zip(self.hosts, before):
                sent = {name: host.sent_bytes(name) - old[name] for name in NETWORKS}
                self.assertGreater(sent[chosen], 4 * sent[other], sent)

    def test_misleading_interface(self):
        # The same address on every host, as Docker has it: ranks that try it reach themselves.
        for host in self.hosts:
            host.run("ip", "link", "add", "docker0", "type", "veth", "peer", "name", "docker1")
            host.run("ip", "address", "add", "172.17.0.1/16", "dev", "docker0")
            host.run("ip", "link", "set", "docker0", "up")
            host.run("ip", "link", "set", "docker1", "up")
        code, output = self.answer("--timeout", 5, network=None)
        self.assertEqual(code, 5, output)
        self.assertEqual(output.count("glm_infer: error: "), 1, output)
        self.assertIn("waited 10 s for the others at the start", output)
        self.assertIn("btl_tcp_if_include", output)
        code, output = self.answer("--timeout", 5)
        self.assertEqual(code, 0, output)

    def test_other_model_on_a_host(self):
        other = hosts.ROOT / "other.h5"
        hosts.run(CONVERT, CHECKPOINT, other, "--dtype", "q80")
        self.hosts[1].run("cp", other, self.model)
        self.expect_refused([str(self.model), "rank 2 on host n2 finds another file", "rank 0 on host n1"])

    def test_no_model_on_a_host(self):
        self.hosts[1].run("rm", self.model)
        self.expect_refused([str(self.model), "rank 2 on host n2 cannot read the model"])

    def test_damaged_model_on_a_host(self):
        with open(f"/proc/{self.hosts[1].init}/root{self.model}", "r+b") as file:
            size = file.seek(0, 2)
            for offset in range(size // 4, size * 3 // 4, 4096):
                file.seek(offset)
                file.write(b"damaged!")
        self.expect_refused([str(self.model), "on host n2", "checksum"])

    def test_network_is_cut(self):
        job = self.endless("--timeout", 4)
        self.hosts[1].cut_link("fast0")
        code, output = self.finish(job, 30)
        self.assertEqual(code, 5, output)
        self.assertIn("glm_infer: error: ", output)

    def test_host_dies(self):
        job = self.endless("--timeout", 60)
        self.hosts[1].cut_power()
        code, output = self.finish(job, 30)
        self.assertNotEqual(code, 0, output)


if __name__ == "__main__":
    hosts.enter_namespaces(["mpirun"])
    INFER, CONVERT, CHECKPOINT = [pathlib.Path(path).resolve() for path in sys.argv[1:4]]
    hosts.make_head(NAMES, NETWORKS)
    MODEL = hosts.ROOT / "tiny.h5"
    hosts.run(CONVERT, CHECKPOINT, MODEL)
    unittest.main(argv=sys.argv[:1] + sys.argv[5:], verbosity=2, warnings="ignore")
