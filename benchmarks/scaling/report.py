# The report of a study in Markdown: tables, pictures, what was measured and what is only predicted.
# SPDX-License-Identifier: MIT
import numpy

import analysis
import ladder
import plots as drawing
import predict
import read_record
from points import points_of
from samples import median_interval

GPU_COUNTS = (8, 16, 32, 64, 128, 256, 512, 1024)
GPU_BYTES = {"H200": 141e9, "A100": 80e9, "one GPU": 128e9, "CPU": 512e9}


def capacity_of(name):
    return next(size for start, size in GPU_BYTES.items() if name.startswith(start))


def percent(triple):
    return f"{100 * triple[0]:.0f} % ({100 * triple[1]:.0f} to {100 * triple[2]:.0f})"


def milliseconds(triple):
    middle, low, high = (1e3 * value for value in triple)
    if high == float("inf"):
        return f"{middle:.3f} (one sample)"
    return f"{middle:.3f} ({low:.3f} to {high:.3f})"


def table(header, rows):
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    lines += ["| " + " | ".join(str(cell) for cell in row) + " |" for row in rows]
    return lines + [""]


class Report:
    """plan, launches and dry runs in; report.md, plots/ and csv/ out. `dry_run(model, dtype)`."""

    def __init__(self, folder, manifest, launches, measured, dry_run):
        self.folder, self.manifest, self.measured, self.dry_run = folder, manifest, measured, dry_run
        self.plan = manifest["plan"]
        self.note = self.plan.get("note", "")
        host = launches[0].record.manifest["hosts"][0]
        self.hosts = sorted({one["host"] for launch in launches
                             for one in launch.record.manifest["hosts"]})
        self.host = host
        caption = f"commit {manifest['commit']}, {host['cpu']}" + (f"; {self.note}" if self.note else "")
        self.plots = drawing.Plots(folder, caption)
        self.points = [point for point in points_of(self.plan) if point.key in measured]
        self.models = {}
        self.lines = []

    def model(self, name):
        if name not in self.models:
            mine = [one for one in self.measured.values() if one.point.model == name]
            popularity = analysis.popularity_of(max(mine, key=lambda one: len(one.decode))) if mine else ()
            self.models[name] = analysis.model_of(name, self.plan["dtype"],
                                                  self.dry_run(name, self.plan["dtype"]), popularity)
        return self.models[name]

    def say(self, *lines):
        self.lines += lines

    def picture(self, name):
        self.say(f"![{name}](plots/{name}.svg)", "", f"[CSV](csv/{name}.csv)", "")

    def write(self, too_large=()):
        self.head()
        self.samples()
        self.strong()
        self.weak()
        self.parts()
        self.load()
        self.latency()
        fitted = self.fitted()
        self.ladder(fitted, too_large)
        self.extrapolated()
        self.claim()
        path = self.folder / "report.md"
        path.write_text("\n".join(self.lines), encoding="utf-8")
        return path

    def head(self):
        m = self.manifest
        self.say("# Scaling study", "")
        if self.note:
            self.say(f"**{self.note}**", "")
        self.say(f"glm_infer, commit {m['commit']}; begun {m['created']}. Hosts: "
                 f"{', '.join(self.hosts)}: {self.host['cpu']}, {self.host['cores']} cores of which "
                 f"{self.host['physical_cores']} are physical by what the system says. Raw samples, "
                 "environment and topology: `results.h5`.", "",
                 "Times are medians with 95 % intervals (bootstrap) over runs; each run answers the "
                 "same random prompts. The first run of every launch warms up and does not count. "
                 "Points were measured in random order, round after round. Ranks begin each run "
                 "together. A step takes as long as its slowest rank.", "")

    def samples(self):
        rows, order = [], list(ladder.MODELS)
        for one in sorted(self.measured.values(), key=lambda one: (
                order.index(one.point.model), one.point.ranks, one.point.grid, one.point.prompt,
                one.point.sequences)):
            point = one.point
            shown = {axis: size for axis, size in one.grid.items() if size > 1}
            grid = " ".join(f"{axis} {size}" for axis, size in shown.items()) or "one rank"
            rows.append([point.model, point.ranks, grid, point.sequences, point.prompt,
                         len(one.decode), milliseconds(median_interval(one.decode)),
                         f"{point.sequences / np_median(one.decode):.1f}",
                         f"{point.sequences * point.prompt / np_median(one.prefill):.1f}",
                         "ranks share cores" if one.oversubscribed else ""])
        self.say("## All points", "", f"Weights: {self.plan['dtype']}; {self.plan['threads']} "
                 f"thread(s) per rank; answers of {self.plan['answer']} tokens.", "")
        self.say(*table(["model", "ranks", "grid", "sequences", "prompt", "runs", "ms per token",
                         "decode tokens/s", "prefill tokens/s", ""], rows))
        if any(one.oversubscribed for one in self.measured.values()):
            self.say("Where ranks share cores a point shows that the grid runs and answers, and "
                     "nothing about scaling: it has no speed-up and no efficiency.", "")

    def series(self, study):
        groups = {}
        for point in self.points:
            if point.study != study:
                continue
            one = self.measured[point.key]
            axes = [axis for axis, size in one.grid.items() if size > 1 and axis != "expert"]
            label = point.model if study == "strong" else "weak"
            groups.setdefault((label, tuple(axes)), []).append(point)
        bases = {label: points for (label, axes), points in groups.items() if not axes}
        out = {}
        for (label, axes), points in groups.items():
            if axes:
                name = f"{label}, {' x '.join(axes)}"
                out[name] = bases.get(label, []) + points
        return out or {label: points for (label, _), points in groups.items()}

    def scaling(self, study, weak):
        return {name: analysis.scaling_rows(self.measured, points, weak)
                for name, points in self.series(study).items()}

    def scaling_table(self, series):
        rows = []
        for name, several in series.items():
            for row in several:
                rows.append([name, row.measured.point.ranks, milliseconds(row.seconds),
                             f"{row.speed_up[0]:.2f} ({row.speed_up[1]:.2f} to {row.speed_up[2]:.2f})"
                             if row.speed_up else "none: ranks share cores",
                             percent(row.efficiency) if row.efficiency else ""])
        self.say(*table(["series", "ranks", "ms per token", "speed-up", "efficiency"], rows))

    def strong(self):
        series = self.scaling("strong", False)
        self.say("## Strong scaling", "", "The same request on more ranks. Base: one rank of the "
                 "same model (the fewest ranks that do not share cores).", "")
        self.scaling_table(series)
        drawing.strong_time(self.plots, series)
        drawing.efficiency(self.plots, series)
        self.picture("strong_time")
        self.picture("strong_efficiency")

    def weak(self):
        series = self.scaling("weak", True)
        self.say("## Weak scaling", "", f"{self.plan['weak_sequences']} sequence(s) for each rank: "
                 "the work grows with the ranks.", "")
        self.scaling_table(series)
        drawing.efficiency(self.plots, series, "weak_efficiency", "Weak scaling: efficiency")
        self.picture("weak_efficiency")

    def parts(self):
        self.say("## Where the time goes", "", "Of each rank, mean per step. compute: everything "
                 "outside of collectives. wait: what a collective took beyond the fastest rank of "
                 "its group. stage: rows and logits between stages, and until they come; plan: until "
                 "the next step is known.", "")
        for kind in ("decode", "prefill"):
            bars = [(f"{point.model}, {self.short(point)}", self.measured[point.key].breakdown(kind))
                    for point in self.points if point.study == "strong"]
            if any(numpy.isnan(by_part["compute"]).any() for _, by_part in bars):
                self.say(f"Ranks on GPUs run ahead of their host: no parts of {kind} steps.", "")
                continue
            drawing.breakdown(self.plots, bars, read_record.PARTS, kind)
            self.picture(f"breakdown_{kind}")

    def load(self):
        bars = []
        for point in self.points:
            record = self.measured[point.key].records[0]
            experts = record.expert_imbalance("decode")
            if point.study == "strong" and experts is not None and len(experts):
                bars.append((f"{point.model}, {self.short(point)}", float(experts.mean()),
                             float(record.rank_imbalance("decode") or 1)))
        if bars:
            self.say("## Uneven experts", "", "Rows of the busiest expert over the mean of a layer's "
                     "experts (mean over layers), and of the busiest rank over the mean of ranks; "
                     "the counts of every layer and the routing of single steps are in "
                     "`results.h5`.", "")
            drawing.imbalance(self.plots, bars)
            self.picture("imbalance")

    def short(self, point):
        shown = [f"{axis} {size}" for axis, size in self.measured[point.key].grid.items() if size > 1]
        return " ".join(shown) or "1 rank"

    def latency(self):
        series = {}
        for point in self.points:
            one = self.measured[point.key]
            if point.study == "batch" and not one.oversubscribed:
                series.setdefault(f"{point.model}, {self.short(point)}", []).append(
                    (point.sequences, median_interval(one.decode)))
        if series:
            self.say("## Throughput against latency", "")
            drawing.throughput(self.plots, {name: sorted(points) for name, points in series.items()})
            self.picture("throughput")

    def fitted(self):
        machine = analysis.local_machine(self.measured)
        if machine is None:
            self.say("## Model of time", "", "No roofs were measured: nothing to fit against.", "")
            return None
        models = {one.point.model: self.model(one.point.model) for one in self.measured.values()}
        fitted = analysis.FittedModel(self.measured, models, machine)
        self.roofline(fitted, machine)
        self.say("## Model of time", "", "Seconds of a step = step + layers x layer + the larger of "
                 "read x (bytes / roof) and compute x (operations / roof) + messages x alpha + bytes / "
                 "beta, along the slowest ranks; fitted with least relative error to some of the "
                 "points. With three counts of ranks or more the highest is held out; with two, all "
                 "points of two ranks but those of the smallest model.", "")
        names = ("step", "layers", "read", "compute", "messages_near", "bytes_near")
        self.say(*table(["phase", "step us", "layer us", "read", "compute", "alpha us", "1/beta ns/KB"],
                        [[phase, *(f"{c.values[n] * scale:.3g}" for n, scale in
                                   zip(names, (1e6, 1e6, 1, 1, 1e6, 1e12)))]
                         for phase, c in fitted.coefficients.items()]))
        rows = []
        for phase in ("decode", "prefill"):
            for held in (False, True):
                errors = fitted.errors(phase, held)
                if errors:
                    rows.append([phase, "held out" if held else "fitted", len(errors),
                                 f"{100 * float(numpy.median(errors)):.1f} %",
                                 f"{100 * max(errors):.1f} %"])
        self.say(*table(["phase", "points", "n", "median error", "largest error"], rows))
        held = [[one.key, one.phase, f"{1e3 * one.measured:.3f}", f"{1e3 * one.predicted:.3f}",
                 f"{100 * one.error:+.1f} %", "yes" if one.low <= one.measured <= one.high else "NO"]
                for one in fitted.predictions if one.held_out]
        if held:
            self.say(*table(["held-out point", "phase", "measured ms", "predicted ms", "error",
                             "inside its interval"], held))
        drawing.predictions(self.plots, fitted.predictions)
        self.picture("predictions")
        return fitted

    def roofline(self, fitted, machine):
        points = []
        for key, one in self.measured.items():
            if one.oversubscribed:
                continue
            for phase in ("decode", "prefill"):
                terms = analysis.terms_of(one, fitted.models, machine, phase)
                active = min(one.point.ranks, machine.node)
                read = terms["read"] * machine.read(active)
                operations = terms["compute"] * machine.compute(active)
                seconds = np_median(getattr(one, phase))
                ranks = one.grid["data"] * one.grid["tensor"]
                points.append((key, phase, operations / read, operations * ranks / seconds))
        self.say("## Roofline", "", "Operations and bytes of weights and cache as the model of time "
                 "counts them; roofs as `glm_infer --benchmark` measures them.", "")
        drawing.roofline(self.plots, machine, points)
        self.picture("roofline")

    def ladder(self, fitted, too_large):
        if not self.plan["ladder"] or fitted is None:
            return
        self.say("## Ladder of models", "", "What does not fit is **predicted** by the fitted model, "
                 "as if this host had the memory; larger steps away from what was measured make the "
                 "interval an understatement.", "")
        rows = []
        for name in self.plan["ladder"]:
            model = self.model(name)
            size = sum(model.bytes_by_kind.values()) * 1e-9
            keys = [point.key for point in self.points if point.model == name
                    and point.study == "ladder" and not self.measured[point.key].oversubscribed]
            for key in keys:
                one = self.measured[key]
                rows.append([name, f"{size:.1f}", one.point.ranks, "measured",
                             milliseconds(median_interval(one.decode))])
            if not keys:
                alone = {axis: 1 for axis in ("data", "pipeline", "tensor", "expert")}
                triple = fitted.predict(model, alone, self.plan["sequences"][0],
                                        self.plan["contexts"][0], self.plan["answer"])
                rows.append([name, f"{size:.1f}", 1, "**predicted**", milliseconds(triple)])
        self.say(*table(["model", "GB", "ranks", "", "ms per token"], rows))

    def extrapolated(self):
        """Decode of many sequences on up to 1024 GPUs."""
        name, sequences, context = "355B", 1024, 4096
        model = self.model(name)
        self.say("## 64 to 1024 GPUs: predicted", "", "**Nothing in this section was measured.** The "
                 "formula is the one above; the coefficients are ranges of described machines "
                 "(`benchmarks/scaling/machines.json`), drawn many times: medians with 90 % "
                 "intervals, never narrower than 25 %. GLM-4.5 (355 billion parameters, "
                 f"{self.plan['dtype']}), {sequences} sequences at once, {context} tokens of context, the fastest of the "
                 "grids that fit. No point behind a border (node, switch) has been measured at that "
                 "border: take one there before money depends on it.", "")
        series, rows = {}, []
        for machine, described in predict.read_machines().items():
            if described["node"] == 1:
                continue
            for count in GPU_COUNTS:
                found = predict.fastest(model, count, sequences, context, described, machine,
                                        capacity_of(machine))
                if found is None:
                    continue
                value = predict.summary(sequences / found[1])
                series.setdefault(machine, []).append((count, value))
                if count >= 64:
                    grid = " x ".join(f"{axis} {size}" for axis, size in found[0].items() if size > 1)
                    rows.append([machine, count, grid, f"{value[0]:.0f} ({value[1]:.0f} to {value[2]:.0f})"])
        self.say(*table(["machine", "GPUs", "grid", "**predicted** tokens/s"], rows))
        drawing.extrapolation(self.plots, series)
        self.picture("extrapolation")

    def claim(self):
        """One figure for four nodes says nothing without what it is of."""
        self.say("## \"A 3.4x speed-up on 4 nodes\"", "", "The claim names neither the model, nor the "
                 "machine, the network, the batch or the base, and each of them decides. **Predicted** "
                 "speed-up of decode on four nodes over one, GLM-4.5-Air (106 billion parameters), "
                 "512 tokens of context, the fastest grid on either side, intervals as above:", "")
        model, rows, hits = self.model("106B"), [], 0
        for machine, described in predict.read_machines().items():
            for sequences in (1, 16, 256):
                found = predict.speed_up(model, 4, sequences, 512, described, machine,
                                         capacity_of(machine))
                if found is None:
                    continue
                grid, (middle, low, high) = found
                hit = low <= 3.4 <= high
                hits += hit
                axes = " x ".join(f"{axis} {size}" for axis, size in grid.items() if size > 1)
                rows.append([machine, sequences, axes, f"{middle:.2f} ({low:.2f} to {high:.2f})",
                             "possible" if hit else "no: less" if high < 3.4 else "no: more"])
        self.say(*table(["machine", "sequences", "grid", "**predicted** speed-up", "3.4?"], rows))
        self.plots.table("claim", ["machine", "sequences", "grid", "speed_up", "verdict"], rows)
        self.say(f"3.4 lies within the interval of {hits} of {len(rows)} cases. Said without such a "
                 "line it is neither right nor wrong.", "")


def np_median(values):
    return float(numpy.median(values))
