#!/usr/bin/env python3
# What each type of weights costs and gives, as one command: converts a checkpoint to f32, bf16, f16,
# q80 and q40, and measures perplexity, right answers, divergence from f32 and speed of each.
# Table as CSV and Markdown, plot as SVG and PNG (docs/quantisation_study.md).
# SPDX-License-Identifier: MIT
import argparse
import csv
import json
import pathlib
import random
import shlex
import subprocess
import sys

import numpy

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent / "scaling"))
from samples import median_interval  # noqa: E402

DTYPES = ("f32", "bf16", "f16", "q80", "q40")
COLUMNS = ("dtype", "model_bytes", "bytes_per_token", "perplexity", "perplexity_change",
           "kl_mean", "kl_p99", "kl_max", "same_token", "right", "questions", "prefill", "decode",
           "decode_low", "decode_high", "runs")


def parse():
    parser = argparse.ArgumentParser(description="Measures what types of weights cost and give.")
    parser.add_argument("checkpoint", type=pathlib.Path, help="folder that glm_convert reads")
    parser.add_argument("out", type=pathlib.Path, help="folder of the results; model files go there")
    parser.add_argument("--text", type=pathlib.Path, required=True, help="for perplexity and divergence")
    parser.add_argument("--questions", type=pathlib.Path, help="JSON lines of glm_eval answers")
    parser.add_argument("--dtypes", default=",".join(DTYPES), help="f32 first (default: %(default)s)")
    parser.add_argument("--bin", type=pathlib.Path,
                        default=pathlib.Path(__file__).resolve().parents[1] / "build/release/bin")
    parser.add_argument("--launcher", default="", help="e.g. 'mpirun -np 4' or 'srun --mpi=pmix'")
    parser.add_argument("--threads", type=int, default=0, help="of each rank (default: the program's)")
    parser.add_argument("--limit", type=int, default=0, help="tokens of the text, and questions; 0: all")
    parser.add_argument("--prompt-tokens", type=int, default=256, help="of the speed measurement")
    parser.add_argument("--max-tokens", type=int, default=64, help="likewise")
    parser.add_argument("--rounds", type=int, default=3, help="launches of each type, in random order")
    parser.add_argument("--repeat", type=int, default=3, help="runs of each launch")
    parser.add_argument("--note", default="", help="a line for report and plot")
    args = parser.parse_args()
    args.dtypes = args.dtypes.split(",")
    if args.dtypes[0] != "f32" or set(args.dtypes) - set(DTYPES):
        parser.error(f"--dtypes: f32 first, then any of {', '.join(DTYPES[1:])}")
    return args


class Programs:
    def __init__(self, args):
        self.folder, self.launcher = args.bin, shlex.split(args.launcher)
        self.threads = ["--threads", args.threads] if args.threads else []

    def run(self, name, *words, ranks=True):
        """The JSON object of the last line."""
        command = [*(self.launcher if ranks else []), self.folder / name, *words, "--json"]
        command = [str(word) for word in command]
        try:
            done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL,
                                  check=False)
        except OSError as error:
            raise SystemExit(f"quantisation_study: {command[0]}: {error}") from error
        if done.returncode != 0:
            raise SystemExit(f"quantisation_study: {shlex.join(command)} ended with "
                             f"{done.returncode}:\n{done.stderr.strip()}")
        return json.loads(done.stdout.splitlines()[-1])

    def commit(self):
        text = subprocess.run([self.folder / "glm_infer", "--version"], capture_output=True, text=True,
                              check=True).stdout
        return text.split("(commit ")[1].split(",")[0]


def convert(programs, args, dtype):
    path = args.out / f"{dtype}.h5"
    programs.run("glm_convert", args.checkpoint, path, "--dtype", dtype, "--embedding-dtype", dtype,
                 "--head-dtype", dtype, ranks=False)
    return path


def quality(programs, args, models):
    """{dtype: what its answers and distributions are worth}."""
    limit = ["--limit", args.limit] if args.limit else []
    rows = {}
    for dtype, path in models.items():
        row = {"dtype": dtype}
        if dtype == "f32":
            found = programs.run("glm_eval", "perplexity", "--model", path, "--text", args.text, *limit)
            row.update(perplexity=found["perplexity"], kl_mean=0.0, kl_p99=0.0, kl_max=0.0,
                       same_token=1.0)
        else:
            found = programs.run("glm_eval", "compare", models["f32"], path, "--text", args.text, *limit)
            kl = found["kl_divergence"]
            row.update(perplexity=found["perplexity_b"], kl_mean=kl["mean"], kl_p99=kl["p99"],
                       kl_max=kl["max"], same_token=found["top1_agreement"])
        row["tokens"] = found["tokens"]
        row["perplexity_change"] = row["perplexity"] / rows.get("f32", row)["perplexity"] - 1
        if args.questions:
            found = programs.run("glm_eval", "answers", "--model", path, "--jsonl", args.questions,
                                 *limit)
            row.update(right=found["right"], questions=found["questions"])
        rows[dtype] = row
    return rows


def speed(programs, args, models, rows):
    """Adds the speeds: launches of all types in random order, so that what changes with time hits all."""
    samples = {dtype: {"prefill": [], "decode": []} for dtype in models}
    order = random.Random(1)
    context = -(-(args.prompt_tokens + args.max_tokens + 1) // 64) * 64
    for _ in range(args.rounds):
        for dtype in order.sample(list(models), len(models)):
            found = programs.run("glm_infer", "--model", models[dtype], "--benchmark", "--no-roofs",
                                 "--prompt-tokens", args.prompt_tokens, "--max-tokens", args.max_tokens,
                                 "--context", context, "--repeat", args.repeat, "--no-verify",
                                 *programs.threads)
            samples[dtype]["prefill"] += found["benchmark"]["prefill_samples"]
            samples[dtype]["decode"] += found["benchmark"]["decode_samples"]
            rows[dtype].update(model_bytes=found["model_bytes"],
                               bytes_per_token=found["benchmark"]["bytes_per_token"])
    for dtype, mine in samples.items():
        middle, low, high = median_interval(mine["decode"])
        rows[dtype].update(prefill=float(numpy.median(mine["prefill"])), decode=middle, decode_low=low,
                           decode_high=high, runs=len(mine["decode"]))


def write_csv(path, rows):
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        for row in rows.values():
            writer.writerow([f"{value:.6g}" if isinstance(value, float) else value
                             for value in (row.get(column, "") for column in COLUMNS)])


def report(args, commit, rows):
    first = next(iter(rows.values()))
    lines = ["# Quantisation study", "", f"glm_infer, commit {commit}; {args.checkpoint.name}. "
             f"Perplexity and divergence over {first['tokens']} tokens of {args.text.name}; divergence "
             "(Kullback-Leibler, nats) and share of equal most likely tokens are against f32. Speeds: "
             f"prompt of {args.prompt_tokens}, answer of {args.max_tokens} tokens, medians of "
             f"{first['runs']} runs with 95 % intervals (bootstrap), types in random order."
             + (f" **{args.note}**" if args.note else ""), "",
             "| weights | GB | MB per token | perplexity | change | KL mean | KL 99 % | same token | "
             "right answers | prefill tokens/s | decode tokens/s |", "|" + "---|" * 11]
    for row in rows.values():
        right = f"{row['right']} of {row['questions']}" if "right" in row else ""
        lines.append(
            f"| {row['dtype']} | {row['model_bytes'] * 1e-9:.3f} | {row['bytes_per_token'] * 1e-6:.2f} | "
            f"{row['perplexity']:.4f} | {100 * row['perplexity_change']:+.2f} % | {row['kl_mean']:.2g} | "
            f"{row['kl_p99']:.2g} | {100 * row['same_token']:.2f} % | {right} | {row['prefill']:.0f} | "
            f"{row['decode']:.0f} ({row['decode_low']:.0f} to {row['decode_high']:.0f}) |")
    return "\n".join([*lines, "", "![Divergence, size and speed](quantisation.svg)", ""])


def plot(args, commit, rows):
    import matplotlib
    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "quantisation"
    from matplotlib import pyplot
    figure, axes = pyplot.subplots(1, 2, figsize=(8.5, 3.8))
    least = min([row["kl_mean"] for row in rows.values() if row["kl_mean"] > 0] + [1e-6]) / 3
    for side, key, label in ((0, "model_bytes", "size of the model, MB"), (1, "decode", "decode tokens/s")):
        scale = 1e-6 if key == "model_bytes" else 1
        for row in rows.values():
            kl = max(row["kl_mean"], least)
            axes[side].plot(row[key] * scale, kl, "o")
            axes[side].annotate(row["dtype"], (row[key] * scale, kl), xytext=(5, 4),
                                textcoords="offset points", fontsize=8)
        axes[side].set_yscale("log")
        axes[side].set_xlabel(label)
        axes[side].grid(True, which="both", linewidth=0.3)
    axes[0].set_ylabel("KL divergence from f32, nats (f32 itself: 0)")
    figure.subplots_adjust(bottom=0.2, left=0.1, right=0.97, top=0.95)
    figure.text(0.01, 0.01, f"commit {commit}, {args.checkpoint.name}. {args.note}", fontsize=6,
                color="0.4")
    for kind in ("svg", "png"):
        figure.savefig(args.out / f"quantisation.{kind}", dpi=110,
                       metadata={"Date": None} if kind == "svg" else None)


def main():
    args = parse()
    args.out.mkdir(parents=True, exist_ok=True)
    programs = Programs(args)
    commit = programs.commit()
    models = {dtype: convert(programs, args, dtype) for dtype in args.dtypes}
    rows = quality(programs, args, models)
    speed(programs, args, models, rows)
    write_csv(args.out / "quantisation.csv", rows)
    text = report(args, commit, rows)
    (args.out / "quantisation.md").write_text(text, encoding="utf-8")
    plot(args, commit, rows)
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
