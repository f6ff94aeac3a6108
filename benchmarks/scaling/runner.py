# Starts the program for every point of a plan, in random order, round after round, until each median
# is known well enough or time is up. SPDX-License-Identifier: MIT
import json
import os
import random
import re
import shlex
import subprocess
import time

import ladder
from points import oversubscribed
from samples import half_width, settled

NO_FIT = 4  # exit code of glm_infer


def default_launcher():
    """Under Slurm its own; `{ranks}` stands for the number of ranks."""
    if "SLURM_JOB_ID" in os.environ:
        return "srun --mpi=pmix -n {ranks}"
    return "mpirun --oversubscribe -np {ranks}"


def commit_of(program):
    try:
        text = subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError) as error:
        raise SystemExit(f"study: {program} --version: {error}") from error
    found = re.search(r"\(commit ([^,]+),", text)
    return found.group(1) if found else "unknown"


def available_memory():
    with open("/proc/meminfo", encoding="ascii") as file:
        for line in file:
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return 0


class Runner:
    def __init__(self, program, folder, launcher, cores):
        self.program, self.folder, self.launcher, self.cores = program, folder, launcher, cores
        (folder / "configs").mkdir(parents=True, exist_ok=True)
        self.roofed = set()  # numbers of ranks whose roofs are measured

    def config(self, model):
        path = self.folder / "configs" / f"{model}.json"
        if model not in ladder.MODELS:
            raise SystemExit(f"study: no model {model}; there are {', '.join(ladder.MODELS)}")
        path.write_text(json.dumps(ladder.MODELS[model]))
        return path

    def dry_run(self, model, dtype, ranks, options=()):
        """The program's own plan, without ranks."""
        command = [self.program, "--synthetic", self.config(model), "--dry-run", "--json", "--ranks",
                   ranks, "--dtype", dtype, "--embedding-dtype", dtype, "--head-dtype", dtype, *options]
        done = subprocess.run([str(word) for word in command], capture_output=True, text=True,
                              check=False)
        if done.returncode != 0:
            raise SystemExit(f"study: {done.stderr.strip()}")
        return json.loads(done.stdout.splitlines()[-1])

    def fits(self, point, share):
        """On this host; a launcher that reaches others is asked by its program instead."""
        if self.cores is None:
            return True
        options = point.options()
        without_dtypes = options[:options.index("--dtype")]
        plan = self.dry_run(point.model, point.dtype, point.ranks, without_dtypes)
        needed = sum(rank["total_bytes"] for rank in plan["ranks"])
        return needed <= share * available_memory()

    def launch(self, point, repeat, record):
        """Exit code of a launch; any but 0 and 4 ends the study."""
        command = shlex.split(self.launcher.format(ranks=point.ranks))
        command += [self.program, "--synthetic", self.config(point.model), "--benchmark", "--repeat",
                    repeat, "--record", record, *point.options()]
        shared = oversubscribed(point, self.cores)
        if point.ranks in self.roofed or shared:
            command.append("--no-roofs")
        done = subprocess.run([str(word) for word in command], capture_output=True, text=True,
                              stdin=subprocess.DEVNULL, check=False)
        if done.returncode not in (0, NO_FIT):
            raise SystemExit(f"study: {shlex.join(map(str, command))} ended with {done.returncode}:\n"
                             f"{done.stderr}")
        if not shared:
            self.roofed.add(point.ranks)
        return done.returncode


def measure(runner, results, plan, points, seed, say):
    """Rounds over the points that are not settled. Returns the keys that did not fit."""
    order = random.Random(seed)
    points = list({point.key: point for point in points}.values())  # studies share points
    end = time.monotonic() + 60 * plan["minutes"]
    samples = {point.key: [] for point in points}
    for launch in results.launches():
        samples.setdefault(launch.point.key, []).extend(launch.decode)
        if launch.roofs:
            runner.roofed.add(launch.point.ranks)
    too_large = {point.key for point in points if not runner.fits(point, plan["memory_share"])}
    while True:
        open_points = [point for point in points
                       if point.key not in too_large and not enough(point, samples, plan, runner.cores)]
        if not open_points:
            break
        order.shuffle(open_points)
        for point in open_points:
            if time.monotonic() > end:
                say(f"study: time is up, {len(open_points)} points are not settled")
                return too_large
            record = runner.folder / "launch.h5"
            if runner.launch(point, plan["repeat"], record) == NO_FIT:
                too_large.add(point.key)
                continue
            launch = results.add(point, record)
            record.unlink()
            samples[point.key] += launch.decode
            say(f"study: {point.key}: {len(samples[point.key])} samples, "
                f"+-{100 * half_width(samples[point.key]):.1f} %")
    return too_large


def enough(point, samples, plan, cores):
    """Points that share cores show that they run; more samples would show nothing."""
    mine = samples[point.key]
    if oversubscribed(point, cores):
        return len(mine) > 0
    return settled(mine, plan["width"], plan["least"]) or len(mine) >= plan["most"]
