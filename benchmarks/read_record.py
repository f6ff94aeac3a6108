#!/usr/bin/env python3
# Reads what glm_infer --record wrote: prints what the job was, where each rank's time went, memory,
# experts, energy and cost; --plot draws it. Also the module that the studies read records with.
# SPDX-License-Identifier: MIT
import argparse
import json
import pathlib
import sys

import h5py
import numpy

FORMAT = "glm_infer run record"
PARTS = ("compute", "dispatch", "combine", "all_reduce", "stage", "plan", "wait")
KINDS = ("prefill", "decode", "draft")


class Record:
    """A run record in memory: manifest (dict), ranks and passes (columns by name), experts."""

    def __init__(self, path=None, group=None):
        """From a file, or from a group of an open file that holds the same."""
        self.path = str(path or group.name)
        try:
            if group is not None:
                self._read(group)
                return
            with h5py.File(path, "r") as file:
                self._read(file)
        except (OSError, ValueError, KeyError) as error:
            raise SystemExit(f"read_record: {self.path}: {error}") from error

    def _read(self, file):
        if "manifest" not in file:
            raise ValueError("no manifest in it")
        self.manifest = json.loads(file["manifest"][()].decode())
        if self.manifest.get("format") != FORMAT or self.manifest.get("version") != 1:
            raise ValueError("not a run record of version 1")
        self.ranks = {name: _texts(data[()]) for name, data in file["ranks"].items()}
        self.passes = {name: data[()] for name, data in file["passes"].items() if name != "kinds"}
        self.experts = ({name: data[()] for name, data in file["experts"].items()}
                        if "experts" in file else None)

    @property
    def n_ranks(self):
        return len(self.ranks["host"])

    def select(self, kind, warm=False):
        """Which passes are of a kind; those of a benchmark's first run only where `warm` is asked."""
        chosen = self.passes["kind"] == KINDS.index(kind)
        if self.manifest["mode"] == "benchmark" and not warm:
            chosen &= self.passes["run"] > 0
        return chosen

    def step_seconds(self, kind):
        """Seconds of each step of a kind: of its slowest rank."""
        chosen = self.select(kind)
        steps, index = numpy.unique(self.passes["step"][chosen], return_inverse=True)
        seconds = numpy.zeros(len(steps))
        numpy.maximum.at(seconds, index, self.passes["seconds"][chosen])
        return seconds

    def breakdown(self, kind):
        """{part: mean seconds per step, of each rank}."""
        chosen = self.select(kind)
        out = {}
        for part in PARTS:
            sums = numpy.zeros(self.n_ranks)
            counts = numpy.zeros(self.n_ranks)
            numpy.add.at(sums, self.passes["rank"][chosen], self.passes[part][chosen])
            numpy.add.at(counts, self.passes["rank"][chosen], 1)
            out[part] = sums / numpy.maximum(counts, 1)
        return out

    def expert_imbalance(self, kind):
        """Rows of the busiest expert over the mean, for each layer with experts; None without."""
        if self.experts is None:
            return None
        counts = self.experts["counts"][KINDS.index(kind)]
        counts = counts[counts.sum(axis=1) > 0]
        return counts.max(axis=1) / counts.mean(axis=1) if len(counts) else None

    def rank_imbalance(self, kind):
        """Pairs of row and expert of the busiest rank over the mean of the ranks, over all steps."""
        chosen = self.select(kind)
        rows = numpy.zeros(self.n_ranks)
        numpy.add.at(rows, self.passes["rank"][chosen], self.passes["expert_rows"][chosen])
        return rows.max() / rows.mean() if rows.sum() > 0 else None


def _texts(values):
    if values.dtype.kind != "S":
        return values
    return [value.decode(errors="replace") for value in values]


def grid_text(grid):
    return " x ".join(f"{axis} {grid[axis]}" for axis in ("data", "pipeline", "tensor")) + \
        f", expert {grid['expert']}"


def rank_lines(record):
    ranks = record.ranks
    yield f"{'rank':>4}  {'host':<16} {'cores':<10} {'plan GB':>8} {'peak GB':>8} {'load s':>7}"
    for rank in range(record.n_ranks):
        cores = ranks["cores"][rank]
        cores = cores if len(cores) <= 10 else cores[:7] + "..."
        yield (f"{rank:>4}  {ranks['host'][rank][:16]:<16} {cores:<10} "
               f"{ranks['plan_bytes'][rank] * 1e-9:>8.3f} {ranks['peak_rss_bytes'][rank] * 1e-9:>8.3f} "
               f"{ranks['load_seconds'][rank]:>7.2f}")


def kind_lines(record, kind):
    chosen = record.select(kind)
    if not chosen.any():
        return
    seconds = record.step_seconds(kind)
    rows = record.passes["step_rows"][chosen & (record.passes["rank"] == 0)]
    yield (f"{kind}: {len(seconds)} steps, median {numpy.median(seconds) * 1e3:.3f} ms, "
           f"95 % below {numpy.percentile(seconds, 95) * 1e3:.3f} ms"
           + (f", {rows.mean():.1f} rows a step" if len(rows) else ""))
    parts = record.breakdown(kind)
    if numpy.isnan(parts["compute"]).any():
        yield "  parts of a step are not known of ranks on GPUs"
        return
    yield "  ms per step   " + " ".join(f"{part:>10}" for part in PARTS)
    for rank in range(record.n_ranks):
        yield f"  rank {rank:<9}" + " ".join(f"{parts[part][rank] * 1e3:>10.3f}" for part in PARTS)
    imbalance = record.expert_imbalance(kind)
    if imbalance is not None and kind != "draft":
        yield (f"  busiest expert over the mean: {imbalance.mean():.2f} (layers {imbalance.min():.2f} "
               f"to {imbalance.max():.2f}); busiest rank over the mean: "
               f"{record.rank_imbalance(kind):.2f}")


def money(value):
    return "none" if value is None else f"{value:.4g}"


def lines(record):
    m = record.manifest
    program = m["program"]
    yield (f"glm_infer {program['version']} (commit {program['commit']}), {m['created']}, "
           f"{m['mode']}")
    yield "command: " + " ".join(m["command_line"])
    yield f"model: {m['model']['path']}, {m['shape']['layers']} layers, " \
          f"{m['shape']['model_bytes'] * 1e-9:.3f} GB"
    yield f"grid: {grid_text(m['grid'])}"
    for host in m["hosts"]:
        yield (f"host {host['host']}: {host['ranks']} ranks, {host['threads']} threads on "
               f"{host['cores']} cores ({host['physical_cores']} physical) of {host['cpu']}"
               + ("; OVERSUBSCRIBED: times say nothing about scaling" if host["oversubscribed"] else ""))
    yield from rank_lines(record)
    for kind in KINDS:
        yield from kind_lines(record, kind)
    if m["passes_left_out"]:
        yield f"{m['passes_left_out']} later passes were not kept"
    tokens = m["tokens"]
    yield (f"tokens: {tokens['prompt']} of prompts in {tokens['prefill_seconds']:.3f} s, "
           f"{tokens['answer']} of answers in {tokens['decode_seconds']:.3f} s")
    energy = m["energy"]
    yield f"energy: {energy['joules']:.1f} J" if "joules" in energy else \
        f"energy: not readable ({energy['absent']})"
    cost = m["cost"]
    if cost:
        yield (f"cost: {money(cost['run'])} for the run; a million prompt tokens "
               f"{money(cost['million_prompt_tokens'])}, a million answer tokens "
               f"{money(cost['million_answer_tokens'])}")


def plot(record, path):
    import matplotlib
    matplotlib.use("Agg")
    from matplotlib import pyplot
    figure, (bars, steps) = pyplot.subplots(1, 2, figsize=(11, 4), constrained_layout=True)
    kind = "decode" if record.select("decode").any() else "prefill"
    left = numpy.zeros(record.n_ranks)
    names = [f"rank {rank}" for rank in range(record.n_ranks)]
    for part, seconds in record.breakdown(kind).items():
        seconds = numpy.nan_to_num(seconds) * 1e3
        bars.barh(names, seconds, left=left, label=part)
        left += seconds
    bars.set_xlabel(f"ms per {kind} step")
    bars.invert_yaxis()
    bars.legend(fontsize="small")
    for name in ("prefill", "decode"):
        chosen = record.select(name, warm=True) & (record.passes["rank"] == 0)
        steps.plot(record.passes["start"][chosen], record.passes["seconds"][chosen] * 1e3, ".",
                   markersize=3, label=name)
    steps.set_xlabel("seconds since the run began")
    steps.set_ylabel("ms per step, rank 0")
    steps.set_yscale("log")
    steps.legend(fontsize="small")
    figure.savefig(path)


def main():
    parser = argparse.ArgumentParser(description="Shows a run record of glm_infer --record.")
    parser.add_argument("record", type=pathlib.Path)
    parser.add_argument("--json", action="store_true", help="print the manifest as JSON instead")
    parser.add_argument("--plot", type=pathlib.Path, metavar="OUT.svg",
                        help="draw the steps and where their time went (.svg, .png, .pdf)")
    args = parser.parse_args()
    record = Record(args.record)
    print(json.dumps(record.manifest) if args.json else "\n".join(lines(record)))
    if args.plot:
        plot(record, args.plot)
    return 0


if __name__ == "__main__":
    sys.exit(main())
