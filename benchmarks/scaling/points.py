# What a study measures: points of model, ranks, grid and workload, from a plan in JSON
# (docs/scaling_studies.md). SPDX-License-Identifier: MIT
import dataclasses
import json


@dataclasses.dataclass(frozen=True)
class Point:
    study: str  # "strong", "weak", "batch", "context" or "ladder"
    model: str
    dtype: str
    ranks: int
    grid: str  # "tensor 2 expert 2"; "": the program's choice
    threads: int
    sequences: int
    prompt: int
    answer: int

    @property
    def key(self):
        """Points of several studies may be one measurement."""
        grid = self.grid.replace(" ", "") or "default"
        return (f"{self.model}_{self.dtype}_np{self.ranks}_{grid}_t{self.threads}"
                f"_s{self.sequences}_p{self.prompt}_n{self.answer}")

    def options(self):
        words = []
        grid = self.grid.split()
        for axis, size in zip(grid[::2], grid[1::2]):
            words += [f"--{axis}", size]
        context = -(-(self.prompt + self.answer + 1) // 64) * 64
        return words + ["--threads", str(self.threads), "--sequences", str(self.sequences),
                        "--prompt-tokens", str(self.prompt), "--max-tokens", str(self.answer),
                        "--context", str(context), "--dtype", self.dtype,
                        "--embedding-dtype", self.dtype, "--head-dtype", self.dtype]


def read_plan(path):
    """A plan with all its keys; SystemExit says what is wrong."""
    try:
        plan = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise SystemExit(f"study: {path}: {error}") from error
    return complete_plan(plan, str(path))


DEFAULTS = {"note": "", "models": ["1B"], "dtype": "q40", "ranks": [1, 2], "grids": {}, "threads": 1,
            "sequences": [1], "contexts": [64], "answer": 32, "weak_sequences": 1,
            "ladder": [], "least": 5, "most": 20, "width": 0.05, "repeat": 3, "minutes": 30,
            "memory_share": 0.5}


def complete_plan(plan, name="plan"):
    unknown = sorted(set(plan) - set(DEFAULTS))
    if unknown:
        raise SystemExit(f"study: {name}: unknown key {unknown[0]}; there are {', '.join(DEFAULTS)}")
    full = {**DEFAULTS, **plan}
    if not full["ranks"] or min(full["ranks"]) < 1 or not full["models"]:
        raise SystemExit(f"study: {name}: it needs models and ranks of at least 1")
    return full


def grids_of(plan, ranks):
    """Grids for a number of ranks; JSON keys are text."""
    return plan["grids"].get(str(ranks), [""]) if ranks > 1 else [""]


def points_of(plan):
    """Every point of a plan, in the order in which its studies are told; equal ones are shared."""
    first, *_ = plan["models"]
    prompt, sequences = plan["contexts"][0], plan["sequences"][0]

    def point(study, model, ranks, grid, n_sequences, n_prompt):
        return Point(study, model, plan["dtype"], ranks, grid, plan["threads"], n_sequences, n_prompt,
                     plan["answer"])

    points = []
    for ranks in plan["ranks"]:
        for grid in grids_of(plan, ranks):
            points += [point("strong", model, ranks, grid, sequences, prompt)
                       for model in plan["models"]]
            points.append(point("weak", first, ranks, grid, plan["weak_sequences"] * ranks, prompt))
            points += [point("batch", first, ranks, grid, n, prompt) for n in plan["sequences"]]
            points += [point("context", first, ranks, grid, sequences, n) for n in plan["contexts"]]
    most = max(plan["ranks"])
    for model in plan["ladder"]:
        points += [point("ladder", model, ranks, grids_of(plan, ranks)[0], sequences, prompt)
                   for ranks in sorted({1, most})]
    return list(dict.fromkeys(points))


def oversubscribed(point, cores):
    """Threads of all ranks against the cores that they run on; `cores` None: not known, so trusted."""
    return cores is not None and point.ranks * point.threads > cores
