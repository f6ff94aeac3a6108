# The time of a step on a grid of ranks: what the slowest rank reads and computes against the measured
# roofs, and messages of latency and bytes (alpha-beta), in two classes, within a node and across
# nodes. The terms follow core/model/grid_cost.cpp; here their coefficients are fitted to measurements
# with their scatter. SPDX-License-Identifier: MIT
import dataclasses
import functools
import itertools
import math

import numpy

CHUNK_ROWS = 512  # of a prompt, per step
SMALL_BYTES = 32768  # up to here an all-reduce is one exchange, else two
FEW_ROWS = 64  # up to here ranks that share tokens sum instead of exchanging rows
UNCOUNTED_ROWS = 8  # up to here messages have a known size
TERMS = ("step", "layers", "work", "messages_near", "bytes_near", "messages_far", "bytes_far")


@dataclasses.dataclass
class Model:
    """What a step reads and multiplies; from the dry run of glm_infer, which knows the tensors."""
    name: str
    shape: dict
    bytes_by_kind: dict
    element_bytes: float  # of a weight of a matrix
    popularity: tuple = ()  # of the experts, measured; (): all alike

    @property
    def moe(self):
        return self.shape.get("moe")


@dataclasses.dataclass
class Machine:
    """Rates in bytes and operations per second. node: ranks that share near links and a memory."""
    name: str
    node: int
    rank_read: float
    node_read: float  # of all ranks of a node together
    rank_compute: float
    node_compute: float

    def read(self, active):
        return min(self.rank_read, self.node_read / active)

    def compute(self, active):
        return min(self.rank_compute, self.node_compute / active)


@functools.lru_cache(maxsize=4096)
def busiest(experts, top_k, rows, shares, popularity=()):
    """(experts that the busiest share must read, pairs of row and expert that it computes), over
    random choices of `rows` rows: means over trials."""
    random = numpy.random.default_rng(experts * 7919 + rows * 31 + shares)
    weight = numpy.log(numpy.asarray(popularity)) if popularity else numpy.zeros(experts)
    trials = 8 if rows > 64 else 40
    touched, pairs = 0.0, 0.0
    borders = numpy.arange(1, shares) * experts // shares
    for _ in range(trials):
        noise = random.gumbel(size=(rows, experts)) + weight
        chosen = numpy.argpartition(-noise, top_k - 1, axis=1)[:, :top_k]
        counts = numpy.bincount(chosen.ravel(), minlength=experts)
        parts = numpy.split(counts, borders)
        touched += max((part > 0).sum() for part in parts)
        pairs += max(part.sum() for part in parts)
    return touched / trials, pairs / trials


@dataclasses.dataclass
class Work:
    """One pass of `rows` rows of each data rank through all stages, along the slowest ranks."""
    model: Model
    grid: dict
    rows: float
    context: float
    machine: Machine
    in_flight: int = 1  # stages that work at once

    def kinds(self, name):
        return self.model.bytes_by_kind.get(name, 0.0)

    def read_and_compute(self):
        """Bytes, and operations, of the slowest rank of all stages together."""
        m, grid, per = self.model, self.grid, self.model.element_bytes
        tensor = grid["tensor"]
        whole = self.kinds("norm") + self.kinds("router")
        split = (self.kinds("attention") + self.kinds("dense") + self.kinds("shared")) / tensor
        head = self.kinds("head") / tensor
        read = whole + split + head
        elements = (split + head) / per + whole / 4
        operations = 2 * elements * self.rows
        if m.moe:
            spread = max(1, grid["expert"] // tensor) * self.rows
            slices = tensor // grid["expert"] if tensor % grid["expert"] == 0 else 1
            experts, layers = m.moe["experts"], self.moe_layers()
            one = self.kinds("experts") / (experts * layers)
            touched, pairs = busiest(experts, m.moe["top_k"], max(1, round(spread)), grid["expert"],
                                     m.popularity)
            read += touched * one * layers / slices
            operations += 2 * pairs * one / per * layers / slices
        shape = m.shape
        cache = 2 * shape["kv_heads"] * shape["head_dim"] * shape["layers"] / tensor
        pairs = 2 * 2 * shape["heads"] * shape["head_dim"] * shape["layers"] / tensor
        sequences = self.rows if self.rows < CHUNK_ROWS else 1
        return (read + 2 * cache * self.context * sequences,
                operations + pairs * self.context * self.rows)

    def moe_layers(self):
        return max(1, self.model.shape["layers"] - self.model.shape.get("dense_layers", 1))

    def crosses(self, ranks):
        return ranks > self.machine.node

    def all_reduce(self, ranks, count, out):
        if ranks == 1:
            return
        size = 4 * self.rows * self.model.shape["hidden"]
        where = "far" if self.crosses(ranks) else "near"
        small = size <= SMALL_BYTES
        out["messages_" + where] += count * (1 if small else 2)
        out["bytes_" + where] += count * ((ranks - 1) * size if small else 2 * (ranks - 1) / ranks * size)

    def exchange(self, ranks, count, size, out):
        """size: bytes that this rank sends to all others together."""
        if ranks == 1 or count == 0:
            return
        if not self.crosses(ranks):
            out["messages_near"] += count
            out["bytes_near"] += count * size
            return
        far = 1 - (self.machine.node - 1) / (ranks - 1)
        # Each node is a peer of its own: messages leave one after the other, at a fraction each.
        out["messages_far"] += count * (1 + math.log2(ranks / self.machine.node))
        out["bytes_far"] += count * size * far
        out["bytes_near"] += count * size * (1 - far)

    def messages(self, out):
        m, grid = self.model, self.grid
        tensor, plane = grid["tensor"], max(grid["tensor"], grid["expert"])
        hidden = 4 * self.rows * m.shape["hidden"]
        layers = m.shape["layers"]
        moe_layers = self.moe_layers() if m.moe else 0
        self.all_reduce(tensor, layers, out)  # attention
        sums = grid["expert"] == 1 or (grid["expert"] <= tensor and self.rows <= FEW_ROWS)
        self.all_reduce(tensor, layers if sums else layers - moe_layers, out)
        if m.moe and not sums:
            copies = min(grid["expert"], m.moe["top_k"])
            self.exchange(plane, 2 * moe_layers, hidden / tensor * copies, out)
            self.exchange(plane, (2 if self.rows > UNCOUNTED_ROWS else 0) * moe_layers, 0, out)
            self.all_reduce(tensor, moe_layers, out)
        stages = grid["pipeline"]
        ranks = grid["data"] * tensor * stages
        where = "far" if self.crosses(2 * grid["data"] * tensor) and stages > 1 else "near"
        out["messages_" + where] += stages - 1
        out["bytes_" + where] += (stages - 1) * hidden
        if ranks > 1:  # plan and logits
            where = "far" if self.crosses(ranks) else "near"
            out["messages_" + where] += math.log2(ranks) + 1
            out["bytes_" + where] += 4 * self.rows * m.shape["vocab"] * (1 - 1 / ranks)

    def terms(self):
        """Seconds of reading and computing at the roofs, and what messages there are."""
        out = dict.fromkeys(TERMS, 0.0)
        read, operations = self.read_and_compute()
        grid, machine = self.grid, self.machine
        ranks = grid["data"] * grid["tensor"] * min(self.in_flight, grid["pipeline"])
        active = min(ranks, machine.node)
        out["step"], out["layers"] = 1.0, float(self.model.shape["layers"])
        out["read"] = read / machine.read(active)
        out["compute"] = operations / machine.compute(active)
        self.messages(out)
        return out


def decode_terms(model, grid, sequences, context, machine):
    """Of one token of every sequence."""
    own = -(-sequences // grid["data"])
    steps = min(grid["pipeline"], own)
    return Work(model, grid, own / steps, context, machine, steps).terms()


def prefill_terms(model, grid, sequences, prompt, machine):
    """Of all prompts."""
    own = -(-sequences // grid["data"])
    chunks = -(-prompt // CHUNK_ROWS) * own
    rows = prompt * own / chunks
    stages = grid["pipeline"]
    one = Work(model, grid, rows, prompt / 2, machine, min(stages, chunks)).terms()
    times = 1 + (chunks - 1) / stages
    return {term: value * times for term, value in one.items()}


@dataclasses.dataclass
class Coefficients:
    """Seconds of each term. work: seconds per second at the roofs, of reading and of computing."""
    values: dict

    def bound(self, terms):
        read = self.values["read"] * terms["read"]
        compute = self.values["compute"] * terms["compute"]
        return "read" if read >= compute else "compute"

    def parts(self, terms):
        work = max(self.values[kind] * terms[kind] for kind in ("read", "compute"))
        parts = {name: self.values[name] * terms[name] for name in TERMS if name != "work"}
        return {**parts, "work": work}

    def seconds(self, terms):
        return sum(self.parts(terms).values())


def nonnegative(rows, wanted):
    """Least squares with coefficients of at least 0: the best of all sets of terms."""
    rows, wanted = numpy.asarray(rows), numpy.asarray(wanted)
    used = [i for i in range(rows.shape[1]) if rows[:, i].any()]
    best, best_error = numpy.zeros(rows.shape[1]), float((wanted ** 2).sum())
    for size in range(1, len(used) + 1):
        for columns in itertools.combinations(used, size):
            part, *_ = numpy.linalg.lstsq(rows[:, columns], wanted, rcond=None)
            if (part < 0).any():
                continue
            error = float(((rows[:, columns] @ part - wanted) ** 2).sum())
            if error < best_error * (1 - 1e-9):
                best, best_error = numpy.zeros(rows.shape[1]), error
                best[list(columns)] = part
    return best


FITTED = ("step", "layers", "read", "compute", "messages_near", "bytes_near", "messages_far",
          "bytes_far")


def fit(terms, seconds, rounds=6):
    """Coefficients with the least relative errors. Which of reading and computing binds a point is
    found by turns; a coefficient below its roof (1) is possible where caches help."""
    values = dict.fromkeys(FITTED, 0.0)
    values.update(read=1.5, compute=1.5)
    previous = None
    for _ in range(rounds):
        coefficients = Coefficients(values)
        bounds = [coefficients.bound(term) for term in terms]
        if bounds == previous:
            break
        previous = bounds
        rows = [[term[name] / second if name not in ("read", "compute") or name == bound else 0.0
                 for name in FITTED] for term, second, bound in zip(terms, seconds, bounds)]
        scale = numpy.maximum(numpy.abs(numpy.asarray(rows)).max(axis=0), 1e-300)
        found = nonnegative(numpy.asarray(rows) / scale, numpy.ones(len(rows))) / scale
        new = dict(zip(FITTED, (float(value) for value in found)))
        for name in ("read", "compute"):  # not seen by any point: as last
            if name not in bounds:
                new[name] = values[name]
        values = new
    return Coefficients(values)


def bootstrap(terms, seconds, times=100, seed=3):
    """Coefficients of resampled points, each with a factor of scatter drawn from the residuals."""
    random = numpy.random.default_rng(seed)
    middle = fit(terms, seconds)
    residuals = numpy.array([second / middle.seconds(term) for term, second in zip(terms, seconds)])
    out = []
    for _ in range(times):
        picks = random.integers(0, len(terms), len(terms))
        again = fit([terms[i] for i in picks], [seconds[i] for i in picks])
        out.append((again, float(random.choice(residuals))))
    return middle, out


def interval(term, draws, least=0.25, level=0.9):
    """(low, high) of the seconds of a point; never narrower than `least` to both sides of the
    middle draw, as no fit knows what it has not seen."""
    seconds = numpy.array([coefficients.seconds(term) * scatter for coefficients, scatter in draws])
    middle = float(numpy.median(seconds))
    low, high = numpy.quantile(seconds, [(1 - level) / 2, (1 + level) / 2])
    return min(float(low), middle * (1 - least)), max(float(high), middle * (1 + least))
