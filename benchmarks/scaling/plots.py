# The pictures of a study: each as SVG and PNG, with the CSV of exactly what it shows.
# SPDX-License-Identifier: MIT
import csv

import matplotlib

matplotlib.use("Agg")
matplotlib.rcParams["svg.hashsalt"] = "scaling"  # equal pictures are equal files
from matplotlib import pyplot  # noqa: E402

SIZE = (6.4, 4.0)


class Plots:
    """Where pictures and tables go; `note` stands under every picture."""

    def __init__(self, folder, note):
        self.folder, self.note, self.made = folder, note, []
        (folder / "plots").mkdir(parents=True, exist_ok=True)
        (folder / "csv").mkdir(parents=True, exist_ok=True)

    def table(self, name, header, rows):
        with open(self.folder / "csv" / f"{name}.csv", "w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(header)
            writer.writerows([[f"{cell:.6g}" if isinstance(cell, float) else cell for cell in row]
                              for row in rows])

    def save(self, name, figure):
        figure.text(0.01, 0.005, self.note, fontsize=6, color="0.4")
        for kind in ("svg", "png"):
            figure.savefig(self.folder / "plots" / f"{name}.{kind}", dpi=110,
                           metadata={"Date": None} if kind == "svg" else None)
        pyplot.close(figure)
        self.made.append(name)


def figure_with(xlabel, ylabel, title):
    figure, axes = pyplot.subplots(figsize=SIZE)
    figure.subplots_adjust(bottom=0.16, top=0.9, left=0.12, right=0.97)
    axes.set_xlabel(xlabel)
    axes.set_ylabel(ylabel)
    axes.set_title(title, fontsize=10)
    axes.grid(True, which="both", linewidth=0.3)
    return figure, axes


def _error_bars(triples):
    middle = [triple[0] for triple in triples]
    low = [max(0.0, m - max(triple[1], 0.0)) for m, triple in zip(middle, triples)]
    high = [max(0.0, triple[2] - m) if triple[2] < float("inf") else 0.0
            for m, triple in zip(middle, triples)]
    return middle, [low, high]


def _count_axis(axes, counts):
    axes.set_xscale("log", base=2)
    axes.set_xticks(sorted(set(counts)), [str(count) for count in sorted(set(counts))])
    axes.minorticks_off()


def strong_time(plots, series):
    """series: {label: rows of analysis.scaling_rows}. Points that share cores are open circles."""
    figure, axes = figure_with("ranks", "ms per token", "Strong scaling: time of a decoded token")
    table, counts = [], []
    for label, rows in series.items():
        good = [row for row in rows if row.efficiency]
        shared = [row for row in rows if not row.efficiency]
        for row in rows:
            table.append([label, row.measured.point.ranks, *row.seconds, len(row.measured.decode),
                          "oversubscribed" if not row.efficiency else ""])
            counts.append(row.measured.point.ranks)
        if len(good) > 1:
            ranks = [row.measured.point.ranks for row in good]
            middle, bars = _error_bars([[1e3 * v for v in row.seconds] for row in good])
            line = axes.errorbar(ranks, middle, yerr=bars, marker="o", capsize=3, label=label)
            axes.plot(ranks, [middle[0] * ranks[0] / count for count in ranks], "--", linewidth=0.8,
                      color=line[0].get_color())
        if shared:
            axes.plot([row.measured.point.ranks for row in shared],
                      [1e3 * row.seconds[0] for row in shared], "o", fillstyle="none", color="0.5")
    axes.set_yscale("log")
    _count_axis(axes, counts)
    axes.plot([], [], "--", linewidth=0.8, color="0.3", label="ideal")
    axes.plot([], [], "o", fillstyle="none", color="0.5", label="ranks share cores: they run, no more")
    axes.legend(fontsize=7)
    plots.table("strong_time", ["series", "ranks", "seconds", "low", "high", "samples", "mark"], table)
    plots.save("strong_time", figure)


def efficiency(plots, series, name="strong_efficiency", title="Strong scaling: efficiency"):
    figure, axes = figure_with("ranks", "efficiency", title)
    table, counts = [], []
    for label, rows in series.items():
        good = [row for row in rows if row.efficiency]
        if len(good) < 2:
            continue
        ranks = [row.measured.point.ranks for row in good]
        middle, bars = _error_bars([row.efficiency for row in good])
        axes.errorbar(ranks, middle, yerr=bars, marker="o", capsize=3, label=label)
        table += [[label, row.measured.point.ranks, *row.speed_up, *row.efficiency] for row in good]
        counts += ranks
    axes.axhline(1, linestyle="--", linewidth=0.8, color="0.3", label="ideal")
    axes.set_ylim(0, 1.1)
    if counts:
        _count_axis(axes, counts)
    axes.legend(fontsize=7)
    plots.table(name, ["series", "ranks", "speed_up", "speed_up_low", "speed_up_high", "efficiency",
                       "efficiency_low", "efficiency_high"], table)
    plots.save(name, figure)


def breakdown(plots, bars, parts, kind):
    """bars: [(label, {part: seconds of each rank})]; a bar for each rank."""
    figure, axes = figure_with(f"ms per {kind} step", "", f"Where the time of a {kind} step goes")
    labels, values = [], []
    for label, by_part in bars:
        for rank in range(len(by_part[parts[0]])):
            labels.append(f"{label}, rank {rank}")
            values.append([float(by_part[part][rank]) for part in parts])
    left = [0.0] * len(labels)
    for i, part in enumerate(parts):
        widths = [1e3 * row[i] for row in values]
        axes.barh(labels, widths, left=left, label=part)
        left = [a + b for a, b in zip(left, widths)]
    axes.invert_yaxis()
    axes.tick_params(axis="y", labelsize=6)
    figure.subplots_adjust(left=0.32)
    axes.legend(fontsize=6)
    plots.table(f"breakdown_{kind}", ["rank", *parts],
                [[label, *row] for label, row in zip(labels, values)])
    plots.save(f"breakdown_{kind}", figure)


def throughput(plots, series):
    """series: {label: [(sequences, latency triple)]}."""
    figure, axes = figure_with("ms per token of a sequence", "tokens/s of all sequences",
                               "Throughput against latency, by sequences at once")
    table = []
    for label, points in series.items():
        x = [1e3 * seconds[0] for _, seconds in points]
        y = [count / seconds[0] for count, seconds in points]
        axes.plot(x, y, "o-", label=label)
        for (count, seconds), a, b in zip(points, x, y):
            axes.annotate(str(count), (a, b), fontsize=6, xytext=(3, 3), textcoords="offset points")
            table.append([label, count, *seconds, b])
    axes.legend(fontsize=7)
    plots.table("throughput", ["series", "sequences", "seconds", "low", "high", "tokens_per_second"],
                table)
    plots.save("throughput", figure)


def roofline(plots, machine, points):
    """points: [(label, phase, operations per byte, operations per second)]; roofs of all ranks."""
    figure, axes = figure_with("operations per byte of weights", "G operations/s",
                               "Roofline of the hosts")
    low = min([point[2] for point in points] + [1.0]) / 2
    high = max([point[2] for point in points] + [machine.node_compute / machine.node_read]) * 4
    knee = machine.node_compute / machine.node_read
    axes.plot([low, knee, high],
              [low * machine.node_read * 1e-9, machine.node_compute * 1e-9, machine.node_compute * 1e-9],
              "k-", linewidth=1, label="measured roofs, all ranks")
    for phase, mark in (("decode", "o"), ("prefill", "s")):
        mine = [point for point in points if point[1] == phase]
        axes.plot([point[2] for point in mine], [point[3] * 1e-9 for point in mine], mark, label=phase,
                  alpha=0.7)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.legend(fontsize=7)
    plots.table("roofline", ["point", "phase", "operations_per_byte", "operations_per_second"], points)
    plots.save("roofline", figure)


def predictions(plots, rows):
    """rows: analysis.Prediction."""
    figure, axes = figure_with("measured, s", "predicted, s", "Model of time against measurements")
    for held, mark, label in ((False, ".", "fitted"), (True, "D", "held out")):
        mine = [row for row in rows if row.held_out == held]
        axes.errorbar([row.measured for row in mine], [row.predicted for row in mine], fmt=mark,
                      yerr=[[max(0.0, row.predicted - row.low) for row in mine],
                            [max(0.0, row.high - row.predicted) for row in mine]],
                      markersize=5, linewidth=0.7, label=label)
    ends = [min(row.measured for row in rows) / 2, max(row.measured for row in rows) * 2]
    axes.plot(ends, ends, "k--", linewidth=0.8)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.legend(fontsize=7)
    plots.table("predictions", ["point", "phase", "measured", "predicted", "low", "high", "error",
                                "held_out"],
                [[row.key, row.phase, row.measured, row.predicted, row.low, row.high, row.error,
                  row.held_out] for row in rows])
    plots.save("predictions", figure)


def extrapolation(plots, series, unit="tokens/s of all sequences"):
    """series: {label: [(ranks, (median, low, high))]}; nothing here is measured."""
    figure, axes = figure_with("GPUs", unit, "PREDICTED, not measured: described machines")
    table = []
    for label, points in series.items():
        counts = [count for count, _ in points]
        line, = axes.plot(counts, [value[0] for _, value in points], "o-", label=label)
        axes.fill_between(counts, [value[1] for _, value in points], [value[2] for _, value in points],
                          alpha=0.2, color=line.get_color())
        table += [[label, count, *value] for count, value in points]
    axes.set_yscale("log")
    _count_axis(axes, [count for points in series.values() for count, _ in points])
    axes.legend(fontsize=6)
    plots.table("extrapolation", ["series", "ranks", "tokens_per_second", "low", "high"], table)
    plots.save("extrapolation", figure)


def imbalance(plots, bars):
    """bars: [(label, busiest expert over mean, busiest rank over mean)]."""
    figure, axes = figure_with("busiest over mean", "", "Uneven work of experts, decode")
    labels = [bar[0] for bar in bars]
    places = range(len(labels))
    axes.barh([place - 0.2 for place in places], [bar[1] for bar in bars], 0.4, label="experts")
    axes.barh([place + 0.2 for place in places], [bar[2] for bar in bars], 0.4, label="ranks")
    axes.set_yticks(list(places), labels, fontsize=6)
    axes.axvline(1, color="0.3", linewidth=0.8)
    axes.invert_yaxis()
    figure.subplots_adjust(left=0.32)
    axes.legend(fontsize=7)
    plots.table("imbalance", ["point", "experts", "ranks"], bars)
    plots.save("imbalance", figure)
