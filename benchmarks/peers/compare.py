#!/usr/bin/env python3
# Runs commands of several engines in turns and prints medians, spread and ratios to the first of
# them (docs/benchmarking.md). SPDX-License-Identifier: MIT
import argparse
import json
import os
import re
import statistics
import subprocess
import time

FIGURES = ("prefill", "decode")
DLLAMA = re.compile(r"^(Evaluation|Prediction)$.*?tokens/s:\s*([0-9.]+)", re.MULTILINE | re.DOTALL)


def json_values(text):
    """Every JSON object or array that begins a line."""
    decoder = json.JSONDecoder()
    at = 0
    while match := re.compile(r"^[\[{]", re.MULTILINE).search(text, at):
        try:
            value, at = decoder.raw_decode(text, match.start())
            yield value
        except json.JSONDecodeError:
            at = match.end()


def parse(text):
    """Tokens/s that an engine reports, and its roofs: glm_infer --json, llama-bench -o json, or
    distributed-llama's text."""
    out = {}
    for value in json_values(text):
        if isinstance(value, dict) and "benchmark" in value:
            benchmark = value["benchmark"]
            for figure in FIGURES:
                out[figure] = benchmark[figure + "_tokens_per_second"]
            for key in ("bandwidth_share", "int8_share", "read_bandwidth_bytes_per_second",
                        "int8_peak_operations_per_second", "bytes_per_token",
                        "operations_per_prompt_token"):
                if key in benchmark:
                    out[key] = benchmark[key]
        elif isinstance(value, list):
            for test in value:
                if isinstance(test, dict) and "avg_ts" in test:
                    out["decode" if test["n_gen"] > 0 else "prefill"] = float(test["avg_ts"])
    for what, rate in DLLAMA.findall(text):
        out["prefill" if what == "Evaluation" else "decode"] = float(rate)
    return out


def run(command, limit):
    start = time.monotonic()
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=limit)
    found = parse(done.stdout)
    found["seconds"] = time.monotonic() - start
    if done.returncode != 0:
        raise SystemExit(f"exit code {done.returncode}: {command}\n{done.stderr[-2000:]}")
    return found


def cpu():
    with open("/proc/cpuinfo") as file:
        for line in file:
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return "unknown"


def spread(values):
    return f"{statistics.median(values):9.2f} ({min(values):.2f} to {max(values):.2f})"


def summary(names, samples):
    """Rows of text, and the same as numbers. A ratio is taken within a round, where both saw the
    same machine; the median of these is reported."""
    lines, numbers = [], {}
    for figure in samples[names[0]][0]:
        for name in names:
            values = [s[figure] for s in samples[name] if figure in s]
            if not values:
                continue
            entry = {"median": statistics.median(values), "lowest": min(values),
                     "highest": max(values), "samples": values}
            line = f"{figure:34} {name:14} {spread(values)}"
            if name != names[0] and len(values) == len(samples[names[0]]):
                ratios = [s[figure] / v for s, v in zip(samples[names[0]], values)]
                entry["ratio_of_first"] = {"median": statistics.median(ratios),
                                           "lowest": min(ratios), "highest": max(ratios)}
                line += f"   {names[0]} is {statistics.median(ratios):.2f} times that " \
                        f"({min(ratios):.2f} to {max(ratios):.2f})"
            numbers.setdefault(figure, {})[name] = entry
            lines.append(line)
    return lines, numbers


def main():
    parser = argparse.ArgumentParser(description="Runs commands of several engines in turns.")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--limit", type=float, default=300, help="seconds for one command")
    parser.add_argument("--json", help="write figures, commands and host to this file")
    parser.add_argument("side", nargs="+", metavar="NAME=COMMAND", help="at least two; ours first")
    args = parser.parse_args()
    sides = dict(side.split("=", 1) for side in args.side if "=" in side)
    if len(sides) < 2 or len(sides) != len(args.side):
        parser.error("give at least two of NAME=COMMAND, with different names")
    samples = {name: [] for name in sides}
    for number in range(args.rounds):
        for name, command in sides.items():
            samples[name].append(run(command, args.limit))
            got = samples[name][-1]
            print(f"round {number + 1} {name}: " +
                  ", ".join(f"{f} {got[f]:.2f}" for f in (*FIGURES, "seconds") if f in got), flush=True)
    lines, numbers = summary(list(sides), samples)
    print("\n".join(lines))
    if args.json:
        with open(args.json, "w") as file:
            json.dump({"host": os.uname().nodename, "cpu": cpu(), "rounds": args.rounds,
                       "commands": sides, "figures": numbers}, file, indent=1)


if __name__ == "__main__":
    main()
