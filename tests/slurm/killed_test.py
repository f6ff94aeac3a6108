# Nothing is left of a cluster whose test is killed: no process, no mount, no interface.
# Usage: killed_test.py GLM_INFER GLM_CONVERT CHECKPOINT SCRIPTS. SPDX-License-Identifier: MIT
import pathlib
import subprocess
import sys

import hosts


def parents():
    found = {}
    for folder in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if fields[0] != "Z":
            found[int(folder.name)] = int(fields[1])
    return found


def descendants(ancestor):
    family = {ancestor}
    everyone = parents()
    while True:
        more = {pid for pid, parent in everyone.items() if parent in family} - family
        if not more:
            return family
        family |= more


def names(pids):
    found = []
    for pid in pids:
        try:
            found.append(pathlib.Path(f"/proc/{pid}/comm").read_text().strip())
        except OSError:
            pass
    return found


def traces():
    return pathlib.Path("/proc/self/mounts").read_text(), subprocess.run(
        ["ip", "-brief", "link"], capture_output=True, text=True).stdout


def main():
    before = traces()
    script = pathlib.Path(__file__).resolve().parent / "slurm_test.py"
    test = subprocess.Popen([sys.executable, "-B", script, *sys.argv[1:], "Scripts.test_a100_nodes"],
                            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def ranks():
        return test.poll() is not None or "glm_infer" in names(descendants(test.pid))
    hosts.wait_for("a job", 60, ranks)
    if test.poll() is not None:
        if test.returncode == hosts.SKIP:
            hosts.skip("slurm_test.py skips")
        sys.exit(f"ended before it was killed, with {test.returncode}")
    family = descendants(test.pid)
    for daemon in ("munged", "slurmctld", "slurmd"):
        if daemon not in names(family):
            sys.exit(f"{daemon} does not run under the test")
    test.kill()
    test.wait()
    hosts.wait_for(f"the end of all of {family}", 10, lambda: not family & set(parents()))
    if traces() != before:
        sys.exit(f"mounts and interfaces were {before}, now they are {traces()}")
    print(f"{len(family)} processes are gone, no mount and no interface is left")


if __name__ == "__main__":
    main()
