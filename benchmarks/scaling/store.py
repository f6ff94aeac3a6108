# Raw samples of a study: every launch's whole run record and its place in the order of launches, in
# one HDF5 file with a manifest. One file holds one commit of the program on one set of hosts; what
# differs is refused. SPDX-License-Identifier: MIT
import dataclasses
import datetime
import json
import os
import pathlib
import platform
import subprocess
import sys

import h5py
import numpy

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
import read_record  # noqa: E402
from points import Point  # noqa: E402

FORMAT = "glm_infer scaling study"


def topology():
    """What the machine says of itself; a tool that is not there says nothing."""
    out = {}
    for name, command in (("lscpu", ["lscpu"]), ("gpus", ["nvidia-smi", "topo", "-m"])):
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
            out[name] = done.stdout
        except (OSError, subprocess.TimeoutExpired):
            continue
    return out


def new_manifest(plan, commit, words):
    return {"format": FORMAT, "version": 1, "commit": commit, "plan": plan, "command_line": words,
            "created": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
            "host": platform.node(), "kernel": platform.release(), "topology": topology(),
            "environment": {name: value for name, value in sorted(os.environ.items())
                            if name.startswith(("OMP_", "OMPI_MCA_", "GLM_", "UCX_", "NCCL_",
                                                "CUDA_VISIBLE", "SLURM_JOB_NODELIST"))}}


class Results:
    """The file of a study that measures. Opened again it goes on."""

    def __init__(self, path, manifest):
        self.path = path
        self.file = h5py.File(path, "a")
        if "manifest" not in self.file:
            self.file["manifest"] = json.dumps(manifest)
            self.file.create_group("launches")
        self.manifest = json.loads(self.file["manifest"][()].decode())
        check_same(self.manifest, manifest, path)

    def add(self, point, record_path):
        """Keeps a launch; its record goes into the file as it is."""
        record = read_record.Record(record_path)
        commit = record.manifest["program"]["commit"]
        if commit != self.manifest["commit"]:
            raise SystemExit(f"study: {record_path} is of commit {commit}, the study of "
                             f"{self.manifest['commit']}")
        launches = self.file["launches"]
        group = launches.create_group(f"{len(launches):05d}")
        group.attrs["point"] = json.dumps(dataclasses.asdict(point))
        with h5py.File(record_path, "r") as source:
            for name in source:
                source.copy(name, group)
        self.file.flush()
        return Launch(point, record)

    def launches(self):
        return [Launch(Point(**json.loads(group.attrs["point"])), read_record.Record(group=group))
                for group in self.file["launches"].values()]


def check_same(manifest, other, name):
    for key, what in (("commit", "commit"), ("host", "host")):
        if manifest[key] != other[key]:
            raise SystemExit(f"study: {name} was measured with {what} {manifest[key]}, not "
                             f"{other[key]}; results of different {what}s are not mixed: take "
                             "another folder")


def read_all(paths):
    """(manifest, launches) of several files of one commit. Hosts may differ: jobs of one cluster."""
    manifest, launches = None, []
    for path in paths:
        try:
            with h5py.File(path, "r") as file:
                one = json.loads(file["manifest"][()].decode())
                if one.get("format") != FORMAT:
                    raise ValueError("not the results of a study")
                if manifest is not None and one["commit"] != manifest["commit"]:
                    raise SystemExit(f"study: {path} is of commit {one['commit']}, the others of "
                                     f"{manifest['commit']}; results of different commits are not "
                                     "mixed")
                manifest = manifest or one
                launches += [Launch(Point(**json.loads(group.attrs["point"])),
                                    read_record.Record(group=group))
                             for group in file["launches"].values()]
        except (OSError, KeyError, ValueError) as error:
            raise SystemExit(f"study: {path}: {error}") from error
    return manifest, launches


class Launch:
    """One start of the program: several runs of one point."""

    def __init__(self, point, record):
        self.point, self.record = point, record
        result = record.manifest["result"]
        self.decode = [point.sequences / rate for rate in result["decode_samples"]]
        self.prefill = [point.sequences * point.prompt / rate for rate in result["prefill_samples"]]
        self.roofs = ({"read": result["read_bandwidth_bytes_per_second"],
                       "int8": result["int8_peak_operations_per_second"]}
                      if "roofs_before" in result else None)
        self.oversubscribed = record.manifest["oversubscribed"]


class Measured:
    """All launches of a point."""

    def __init__(self, launches):
        self.point = launches[0].point
        self.launches = launches
        self.records = [launch.record for launch in launches]
        self.decode = [value for launch in launches for value in launch.decode]
        self.prefill = [value for launch in launches for value in launch.prefill]
        self.oversubscribed = any(launch.oversubscribed for launch in launches)
        self.grid = self.records[0].manifest["grid"]

    def breakdown(self, kind):
        """{part: seconds per step of each rank}, means over the launches."""
        all_parts = [record.breakdown(kind) for record in self.records]
        return {part: numpy.mean([parts[part] for parts in all_parts], axis=0)
                for part in read_record.PARTS}


def by_point(launches):
    """{key: Measured}, in the order of first appearance."""
    groups = {}
    for launch in launches:
        groups.setdefault(launch.point.key, []).append(launch)
    return {key: Measured(group) for key, group in groups.items()}
