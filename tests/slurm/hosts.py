# Two pretended hosts on this machine for tests of launches over several nodes: each has its own
# network, process, host name, shared memory and mount namespace. Owns entering the namespaces,
# the network between the hosts and commands on them. Everything lives in one process namespace
# whose first process dies with the test, however that ends, and in a tmpfs of one mount
# namespace: nothing is left behind. SPDX-License-Identifier: MIT
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

SKIP = 77
INSIDE = "--inside-namespaces"
ROOT = pathlib.Path("/run/glm")  # in the test's own tmpfs
NAMESPACES = ["--mount", "--net", "--pid", "--uts", "--ipc"]
UNSHARE = ["unshare", *NAMESPACES, "--fork", "--kill-child", "--mount-proc"]
# First process of a host: collects what others leave behind.
INIT = """import signal
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
while True: signal.pause()"""


def skip(reason):
    print(f"skipped: {reason}")
    sys.exit(SKIP)


def enter_namespaces(needed):
    """Runs this script again inside namespaces of its own; returns there only."""
    if INSIDE in sys.argv:
        sys.argv.remove(INSIDE)
        return
    if os.geteuid() != 0:
        skip("needs root to make namespaces")
    for program in [*needed, "ip", "unshare", "nsenter"]:
        if not shutil.which(program):
            skip(f"{program} is not installed (bash .ci/setup installs it)")
    trial = subprocess.run([*UNSHARE, "sh", "-c", "mount -t tmpfs tmpfs /run && ip link add v0 type veth && "
                            "ip link add b0 type bridge"], capture_output=True, text=True)
    if trial.returncode != 0:
        skip("cannot make namespaces with a network of their own here: " + trial.stderr.strip())
    sys.stdout.flush()
    os.execvp("unshare", [*UNSHARE, sys.executable, "-B", *sys.argv, INSIDE])


def run(*command, **options):
    """Ends the test where the command fails. Returns its output."""
    command = [str(word) for word in command]
    result = subprocess.run(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **options)
    if result.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}: code {result.returncode}\n{result.stdout}")
    return result.stdout


def wait_for(what, seconds, condition):
    """The condition's first true value, or a failure after so many seconds."""
    end = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise TimeoutError(f"not within {seconds} s: {what}")
        time.sleep(0.1)


class Host:
    """A host with an interface in each of `networks`, which map a name to the first three numbers."""

    def __init__(self, name, number, networks):
        self.name = name
        self.number = number
        self.folder = ROOT / name
        self.networks = networks
        (self.folder / "tmp").mkdir(parents=True, exist_ok=True)
        self.outer = subprocess.Popen([*UNSHARE, sys.executable, "-c", INIT], stderr=subprocess.DEVNULL)
        children = pathlib.Path(f"/proc/{self.outer.pid}/task/{self.outer.pid}/children")
        self.init = int(wait_for(f"host {name}", 10, lambda: children.read_text().split())[0])
        wait_for(f"namespaces of {name}", 10, self._apart)
        for interface, prefix in networks.items():
            outside = f"{name}-{interface}"
            run("ip", "link", "add", outside, "type", "veth", "peer", "name", interface, "netns", str(self.init))
            run("ip", "link", "set", outside, "master", f"br-{interface}", "up")
            self.run("ip", "address", "add", f"{prefix}.{number}/24", "dev", interface)
            self.run("ip", "link", "set", interface, "up")
        self.run("ip", "link", "set", "lo", "up")
        self.run("hostname", name)
        self.run("mount", "-t", "tmpfs", "tmpfs", "/dev/shm")
        (self.folder / "init").write_text(str(self.init))

    def _apart(self):
        # The links change when unshare has done its work and before it starts the command.
        try:
            return os.readlink(f"/proc/{self.init}/exe") == os.readlink("/proc/self/exe")
        except OSError:
            return False

    def command(self, *command):
        enter = [f"--{kind}" for kind in ("mount", "net", "pid", "uts", "ipc")]
        return ["nsenter", f"--target={self.init}", *enter, "env", f"TMPDIR={self.folder}/tmp", *map(str, command)]

    def run(self, *command):
        return run(*self.command(*command))

    def cut_power(self):
        """All its processes die at once, and its interfaces are gone. May be called again."""
        if self.outer.poll() is not None:
            return
        os.kill(self.init, signal.SIGKILL)
        self.outer.wait()
        for interface in self.networks:  # else the kernel takes its time
            subprocess.run(["ip", "link", "delete", f"{self.name}-{interface}"], capture_output=True)

    def cut_link(self, interface):
        run("ip", "link", "set", f"{self.name}-{interface}", "down")

    def sent_bytes(self, interface):
        shown = json.loads(run("ip", "-json", "-statistics", "link", "show", f"{self.name}-{interface}"))
        return shown[0]["stats64"]["rx"]["bytes"]


def make_network(interface, prefix):
    """A bridge that this host, number 254, shares with the pretended ones."""
    run("ip", "link", "add", f"br-{interface}", "type", "bridge")
    run("ip", "address", "add", f"{prefix}.254/24", "dev", f"br-{interface}")
    run("ip", "link", "set", f"br-{interface}", "up")


def make_head(names, networks):
    """The host that the test itself runs on, c0, and the names of all hosts."""
    run("mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", "/run")
    run("mount", "-t", "tmpfs", "tmpfs", "/dev/shm")
    (ROOT / "tmp").mkdir(parents=True)
    os.environ["TMPDIR"] = str(ROOT / "tmp")
    run("ip", "link", "set", "lo", "up")
    run("hostname", "c0")
    first = next(iter(networks.values()))
    lines = ["127.0.0.1 localhost", f"{first}.254 c0"]
    lines += [f"{first}.{number} {name}" for number, name in names.items()]
    (ROOT / "hosts").write_text("\n".join(lines) + "\n")
    run("mount", "--bind", ROOT / "hosts", "/etc/hosts")
    for interface, prefix in networks.items():
        make_network(interface, prefix)


def processes(name):
    """Ids of the living processes of this name on all hosts."""
    found = []
    for folder in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            status = (folder / "status").read_text()
        except OSError:
            continue
        fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
        if fields["Name"] == name and fields["State"][0] != "Z":
            found.append(int(folder.name))
    return found
