#!/usr/bin/env python3
# A scaling study as one command: measures the points of a plan, fits the model of time, and writes
# the report with its pictures and tables (docs/scaling_studies.md). SPDX-License-Identifier: MIT
import argparse
import json
import os
import pathlib
import sys

FOLDER = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(FOLDER))
sys.path.insert(0, str(FOLDER.parent))
from points import complete_plan, points_of, read_plan  # noqa: E402
from report import Report  # noqa: E402
from runner import Runner, commit_of, default_launcher, measure  # noqa: E402
from store import Results, by_point, new_manifest, read_all  # noqa: E402


def parse():
    parser = argparse.ArgumentParser(description="Measures how glm_infer scales, and reports it.")
    parser.add_argument("out", type=pathlib.Path, help="folder of the study; one that exists goes on")
    parser.add_argument("--plan", type=pathlib.Path, default=FOLDER / "plans" / "host.json",
                        help="what to measure (default: plans/host.json)")
    parser.add_argument("--bin", type=pathlib.Path, default=FOLDER.parents[1] / "build/release/bin",
                        help="folder of the programs")
    parser.add_argument("--launcher", default=default_launcher(),
                        help="command before the program, with {ranks} in it (default: %(default)s)")
    parser.add_argument("--minutes", type=float, help="time for measuring (default: the plan's)")
    parser.add_argument("--seed", type=int, default=1, help="of the order of points")
    parser.add_argument("--report-only", action="store_true", help="measure nothing more")
    parser.add_argument("--merge", type=pathlib.Path, nargs="*", default=[], metavar="RESULTS.h5",
                        help="results of other jobs to report together; one commit only")
    return parser.parse_args()


def main():
    args = parse()
    program = args.bin / "glm_infer"
    # Cores are counted where the launcher is mpirun on this host; else each record says it itself.
    cores = len(os.sched_getaffinity(0)) if args.launcher.startswith("mpirun") else None
    args.out.mkdir(parents=True, exist_ok=True)
    runner = Runner(program, args.out, args.launcher, cores)
    path = args.out / "results.h5"
    too_large = set()
    if not args.report_only:
        plan = read_plan(args.plan)
        if args.minutes is not None:
            plan["minutes"] = args.minutes
        results = Results(path, new_manifest(plan, commit_of(program), sys.argv))
        points = points_of(complete_plan(results.manifest["plan"]))
        too_large = measure(runner, results, {**results.manifest["plan"], "minutes": plan["minutes"]},
                            points, args.seed, lambda text: print(text, flush=True))
        results.file.close()
    manifest, launches = read_all([path, *args.merge])
    if not launches:
        raise SystemExit("study: nothing was measured")
    report = Report(args.out, manifest, launches, by_point(launches),
                    lambda model, dtype: cached_dry_run(runner, args.out, model, dtype))
    print(report.write(too_large))
    return 0


def cached_dry_run(runner, folder, model, dtype):
    """Kept beside the results, so that a report can be written where the program does not run."""
    path = folder / "configs" / f"{model}_{dtype}.plan.json"
    if not path.exists():
        path.write_text(json.dumps(runner.dry_run(model, dtype, 1)))
    return json.loads(path.read_text())


if __name__ == "__main__":
    sys.exit(main())
