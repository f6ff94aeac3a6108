# A real Slurm on the pretended hosts of hosts.py: munge, a controller on c0 and a slurmd on each
# host, with GPUs that are null devices. Owns its configuration, start and the questions a test
# asks it. SPDX-License-Identifier: MIT
import os
import pathlib
import shutil
import stat
import subprocess
import time

import hosts

PROGRAMS = ["munged", "slurmctld", "slurmd", "sbatch", "srun", "scontrol", "squeue", "sinfo"]
NETWORKS = {"eth0": "10.231.0"}
NAMES = {1: "n1", 2: "n2"}
GPUS = 4
FINAL = {"COMPLETED", "FAILED", "TIMEOUT", "CANCELLED", "NODE_FAIL", "OUT_OF_MEMORY"}

# More cores than there are: the batch scripts run as they are shipped, and Slurm only counts.
# Times are shorter than a site's, so that a test need not wait: cred_expire is how long a job that
# was put back into the queue waits.
CONF = """ClusterName=test
SlurmctldHost=c0(10.231.0.254)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={root}/munge.socket,cred_expire=5
CredType=cred/munge
SlurmctldPort=16817
SlurmdPort=16818
SlurmctldPidFile={root}/slurmctld.pid
SlurmdPidFile={root}/slurmd-%n.pid
SlurmctldLogFile={root}/slurmctld.log
SlurmdLogFile={root}/slurmd-%n.log
StateSaveLocation={root}/state
SlurmdSpoolDir={root}/%n/spool
TmpFS={root}/%n/tmp
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=bf_interval=1,sched_interval=1,batch_sched_delay=0,sched_min_interval=100000
SwitchType=switch/none
MpiDefault=none
ReturnToService=2
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/none
KillWait=3
MessageTimeout=5
SlurmdTimeout=8
SlurmdParameters=config_overrides
MinJobAge=600
GresTypes=gpu
NodeName=n1 NodeAddr=10.231.0.1 {shape}
NodeName=n2 NodeAddr=10.231.0.2 {shape}
PartitionName=test Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""
SHAPE = f"Sockets=2 CoresPerSocket=64 ThreadsPerCore=1 RealMemory=2000 Gres=gpu:a100:{GPUS} State=UNKNOWN"


class Cluster:
    def __init__(self):
        hosts.make_head(NAMES, NETWORKS)
        self.root = hosts.ROOT
        self.daemons = []
        self.hosts = {name: hosts.Host(name, number, NETWORKS) for number, name in NAMES.items()}
        self.work = self.root / "work"
        self.work.mkdir()
        self._configure()
        self._start_head()
        for name in self.hosts:
            self.start_node(name)
        self.wait_for_nodes()

    def _configure(self):
        conf = self.root / "slurm.conf"
        conf.write_text(CONF.format(root=self.root, shape=SHAPE))
        for gpu in range(GPUS):
            os.mknod(self.root / f"nvidia{gpu}", stat.S_IFCHR | 0o666, os.makedev(1, 3))
        (self.root / "gres.conf").write_text(
            f"NodeName=n[1-2] Name=gpu Type=a100 File={self.root}/nvidia[0-{GPUS - 1}]\n")
        os.environ["SLURM_CONF"] = str(conf)

    def _daemon(self, command):
        with open(self.root / "daemons.log", "ab") as log:
            self.daemons.append(subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL))

    def _start_head(self):
        key = self.root / "munge.key"
        key.write_bytes(os.urandom(256))
        key.chmod(0o400)
        options = {"socket": "socket", "key-file": "key", "pid-file": "pid", "log-file": "log", "seed-file": "seed"}
        self._daemon(["munged", "--foreground", "--force"] +
                     [f"--{option}={self.root}/munge.{ending}" for option, ending in options.items()])
        hosts.wait_for("munge", 10, (self.root / "munge.socket").exists)
        (self.root / "state").mkdir()
        self._daemon(["slurmctld", "-D"])

    def start_node(self, name):
        (self.root / name / "spool").mkdir(exist_ok=True)
        self._daemon(self.hosts[name].command("slurmd", "-D", "-N", name))

    def restart_host(self, name):
        number = self.hosts[name].number
        # Slurm 22.05 cannot start a step with PMIx again where folders of the first one are left.
        shutil.rmtree(self.hosts[name].folder)
        self.hosts[name] = hosts.Host(name, number, NETWORKS)
        self.start_node(name)

    def wait_for_nodes(self):
        def idle():
            found = subprocess.run(["sinfo", "-h", "-N", "-o", "%T"], capture_output=True, text=True)
            return found.stdout.split() == ["idle"] * len(NAMES)
        hosts.wait_for("all nodes idle", 30, idle)

    def submit(self, *arguments, **variables):
        """Number of the job. `variables` are what a user sets in the environment."""
        environment = {**os.environ, **{name: str(value) for name, value in variables.items()}}
        return hosts.run("sbatch", "--parsable", *arguments, cwd=self.work, env=environment).strip()

    def show(self, job):
        """What `scontrol show job` says."""
        text = hosts.run("scontrol", "--oneliner", "show", "job", job)
        return dict(word.split("=", 1) for word in text.split() if "=" in word)

    def finish(self, job, seconds=60):
        """Waits for the end of a job. Returns its state, exit code and output."""
        def ended():
            shown = self.show(job)
            return shown if shown["JobState"] in FINAL else None
        shown = hosts.wait_for(f"the end of job {job}", seconds, ended)
        code, number = map(int, shown["ExitCode"].split(":"))
        # The state is known before the last processes are gone.
        hosts.wait_for(f"the processes of job {job}", 10, lambda: not hosts.processes("glm_infer"))
        return Outcome(shown["JobState"], code or (128 + number if number else 0), shown, self.output(job))

    def output(self, job):
        path = pathlib.Path(self.show(job)["StdOut"])
        return path.read_text() if path.exists() else ""


class Outcome:
    def __init__(self, state, code, shown, text):
        self.state = state
        self.code = code
        self.shown = shown
        self.text = text
