# Predictions for machines that are only described (machines.json): many draws of every coefficient
# within its range, the fastest grid, medians with intervals. SPDX-License-Identifier: MIT
import json
import pathlib

import numpy

from cost_model import Coefficients, Machine, decode_terms, prefill_terms

DRAWS = 200
BAND = 0.25  # no interval is narrower than this to both sides
RANGED = ("read", "compute", "layer", "step", "near", "near_rate", "far", "far_rate")


def read_machines(path=pathlib.Path(__file__).with_name("machines.json")):
    return json.loads(path.read_text())["machines"]


def machine_of(name, described):
    return Machine(name, described["node"], described["rank_read"], described["node_read"],
                   described["rank_compute"], described["node_compute"])


def draw(low, middle, high, random):
    """Log-triangular between the ends, whichever is the larger."""
    if low == high:
        return low
    ends = sorted((low, high))
    return float(numpy.exp(random.triangular(*numpy.log([ends[0], middle, ends[1]]))))


def coefficient_draws(described, seed=5):
    random = numpy.random.default_rng(seed)
    out = []
    for _ in range(DRAWS):
        v = {name: draw(*described[name], random) for name in RANGED}
        out.append(Coefficients({
            "step": v["step"], "layers": v["layer"], "read": v["read"], "compute": v["compute"],
            "messages_near": v["near"], "bytes_near": 1 / v["near_rate"],
            "messages_far": v["far"], "bytes_far": 1 / v["far_rate"]}))
    return out


def grids(ranks, model, node):
    """Grids that are worth a look: powers of two, tensor ranks within a node or over few of them."""
    out = []
    tensor = 1
    heads = model.shape["heads"]
    while tensor <= min(ranks, heads, max(8, node)):
        pipeline = 1
        while tensor * pipeline <= ranks and pipeline <= model.shape["layers"]:
            if ranks % (tensor * pipeline) == 0:
                data = ranks // (tensor * pipeline)
                experts = [1]
                if model.moe:
                    experts = sorted({tensor, min(data * tensor, model.moe["experts"])})
                out += [{"data": data, "pipeline": pipeline, "tensor": tensor, "expert": expert}
                        for expert in experts if (data * tensor) % expert == 0]
            pipeline *= 2
        tensor *= 2
    return out


def memory_fits(model, grid, capacity):
    """Bytes of a rank's weights; caches and buffers are left a fifth."""
    stages, tensor = grid["pipeline"], grid["tensor"]
    experts = model.bytes_by_kind.get("experts", 0) / max(grid["expert"], tensor)
    rest = (sum(model.bytes_by_kind.values()) - model.bytes_by_kind.get("experts", 0)) / tensor
    return (experts + rest) / stages <= 0.8 * capacity


def summary(seconds):
    """(median, low, high) of the draws: 90 %, at least the band."""
    middle = float(numpy.median(seconds))
    low, high = numpy.quantile(seconds, [0.05, 0.95])
    return middle, min(float(low), middle / (1 + BAND)), max(float(high), middle * (1 + BAND))


def fastest(model, ranks, sequences, context, described, name, capacity):
    """(grid, decode seconds of each draw, prefill seconds of each) of the grid with the least median
    decode time; None where nothing fits."""
    machine = machine_of(name, described)
    draws = coefficient_draws(described)
    best = None
    for grid in grids(ranks, model, described["node"]):
        if not memory_fits(model, grid, capacity) or grid["data"] > max(1, sequences):
            continue
        terms = decode_terms(model, grid, sequences, context, machine)
        seconds = numpy.array([coefficients.seconds(terms) for coefficients in draws])
        if best is None or numpy.median(seconds) < numpy.median(best[1]):
            best = grid, seconds
    if best is None:
        return None
    terms = prefill_terms(model, best[0], sequences, max(1, context), machine)
    return (*best, numpy.array([coefficients.seconds(terms) for coefficients in draws]))


def speed_up(model, nodes, sequences, context, described, name, capacity):
    """(grid, (median, low, high)) of the speed-up on so many nodes over one: both with the same draw
    of the machine, as its unknowns are the same on one node and on four."""
    node = described["node"]
    one = fastest(model, node, sequences, context, described, name, capacity)
    many = fastest(model, node * nodes, sequences, context, described, name, capacity)
    if one is None or many is None:
        return None
    return many[0], summary(one[1] / many[1])
