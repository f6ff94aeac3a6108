# What follows from the samples of a study: scaling against the base, the fitted model of time and its
# error on points that it has not seen. SPDX-License-Identifier: MIT
import dataclasses

import numpy

import ladder
from cost_model import Machine, Model, bootstrap, decode_terms, interval, prefill_terms
from samples import median_interval, ratio_interval

ELEMENT_BYTES = {"f32": 4.0, "bf16": 2.0, "f16": 2.0, "q80": 34 / 32, "q40": 18 / 32}


def model_of(name, dtype, dry_run, popularity=()):
    """dry_run: of one rank (Runner.dry_run), which says what each kind of tensor takes."""
    config = ladder.MODELS[name]
    shape = {"layers": config["num_hidden_layers"], "hidden": config["hidden_size"],
             "heads": config["num_attention_heads"], "kv_heads": config["num_key_value_heads"],
             "head_dim": config["head_dim"], "vocab": config["vocab_size"],
             "dense_layers": config.get("first_k_dense_replace", 0)}
    if "n_routed_experts" in config:
        shape["moe"] = {"experts": config["n_routed_experts"],
                        "top_k": config["num_experts_per_tok"]}
    return Model(name, shape, dry_run["ranks"][0]["weight_bytes_by_kind"], ELEMENT_BYTES[dtype],
                 popularity)


def popularity_of(measured):
    """How often each expert was chosen, in the mean over layers in which all are sorted: which expert
    it is differs from layer to layer, how uneven they are does not. () without experts."""
    counts = [record.experts["counts"].sum(axis=0) for record in measured.records
              if record.experts is not None]
    if not counts:
        return ()
    layers = sum(counts)
    layers = layers[layers.sum(axis=1) > 0]
    if len(layers) == 0:
        return ()
    shares = numpy.sort((layers + 1) / (layers + 1).sum(axis=1, keepdims=True), axis=1).mean(axis=0)
    spread = numpy.random.default_rng(0).permutation(len(shares))
    return tuple(float(share) for share in shares[spread])


def local_machine(measured):
    """The hosts of the study by their measured roofs: of one rank, and of all together."""
    roofs = {}
    for one in measured.values():
        for launch in one.launches:
            if launch.roofs and not one.oversubscribed:
                roofs.setdefault(one.point.ranks, []).append(launch.roofs)
    if not roofs:
        return None
    best = {ranks: {name: max(roof[name] for roof in several) for name in ("read", "int8")}
            for ranks, several in roofs.items()}
    least, most = min(best), max(best)
    hosts = len(next(iter(measured.values())).records[0].manifest["hosts"])
    return Machine("hosts of the study", max(1, most // hosts), best[least]["read"] / least,
                   best[most]["read"], best[least]["int8"] / least, best[most]["int8"])


@dataclasses.dataclass
class Row:
    """A point in a table of scaling."""
    measured: object
    seconds: tuple  # median and interval, of a decoded token of every sequence
    speed_up: tuple | None = None
    efficiency: tuple | None = None


def scaling_rows(measured, study_points, weak=False):
    """Rows of points that differ in ranks only. The base is the fewest ranks that are not
    oversubscribed; points that are have no speed-up and no efficiency."""
    chosen = sorted((measured[point.key] for point in study_points if point.key in measured),
                    key=lambda one: one.point.ranks)
    base = next((one for one in chosen if not one.oversubscribed), None)
    rows = []
    for one in chosen:
        row = Row(one, median_interval(one.decode))
        if base is not None and not one.oversubscribed:
            ratio = ratio_interval(base.decode, one.decode)
            share = one.point.ranks / base.point.ranks
            # In a weak study the work grows with the ranks.
            factor = one.point.sequences / base.point.sequences if weak else 1.0
            row.speed_up = tuple(value * factor for value in ratio)
            row.efficiency = tuple(value * factor / share for value in ratio)
        rows.append(row)
    return rows


def model_bytes(one):
    return one.records[0].manifest["shape"]["model_bytes"]


def split(measured):
    """(keys to fit on, keys held out): with three counts of ranks or more the highest is held out;
    with fewer all of the highest but the points of the smallest model, which show latencies."""
    usable = {key: one for key, one in measured.items() if not one.oversubscribed}
    counts = sorted({one.point.ranks for one in usable.values()})
    if len(counts) < 2:
        return list(usable), []
    top = [key for key, one in usable.items() if one.point.ranks == counts[-1]]
    if len(counts) > 2:
        held = top
    else:
        learned = min((usable[key] for key in top), key=model_bytes).point.model
        held = [key for key in top if usable[key].point.model != learned]
    return [key for key in usable if key not in held], held


@dataclasses.dataclass
class Prediction:
    key: str
    phase: str
    measured: float
    predicted: float
    low: float
    high: float
    held_out: bool

    @property
    def error(self):
        return self.predicted / self.measured - 1


def terms_of(one, models, machine, phase):
    point = one.point
    if phase == "decode":
        return decode_terms(models[point.model], one.grid, point.sequences,
                            point.prompt + point.answer / 2, machine)
    return prefill_terms(models[point.model], one.grid, point.sequences, point.prompt, machine)


class FittedModel:
    """Coefficients of decode and of prefill, and what they predict for all points."""

    def __init__(self, measured, models, machine):
        fitted, held = split(measured)
        self.machine, self.models = machine, models
        self.coefficients, self.draws, self.predictions = {}, {}, []
        for phase in ("decode", "prefill"):
            terms = {key: terms_of(measured[key], models, machine, phase) for key in fitted + held}
            seconds = {key: float(numpy.median(getattr(measured[key], phase))) for key in terms}
            self.coefficients[phase], self.draws[phase] = bootstrap(
                [terms[key] for key in fitted], [seconds[key] for key in fitted])
            for key, term in terms.items():
                low, high = interval(term, self.draws[phase])
                self.predictions.append(Prediction(
                    key, phase, seconds[key], self.coefficients[phase].seconds(term), low, high,
                    key in held))

    def errors(self, phase, held_out):
        return [abs(one.error) for one in self.predictions
                if one.phase == phase and one.held_out == held_out]

    def predict(self, model, grid, sequences, prompt, answer):
        """(middle, low, high) seconds of a decoded token of every sequence."""
        terms = decode_terms(model, grid, sequences, prompt + answer / 2, self.machine)
        low, high = interval(terms, self.draws["decode"])
        return self.coefficients["decode"].seconds(terms), low, high
