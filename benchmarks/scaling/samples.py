# Medians and how well they are known: percentile bootstrap, and when a point has been measured often
# enough. SPDX-License-Identifier: MIT
import numpy

RESAMPLES = 2000


def median_interval(values, level=0.95, seed=1):
    """(median, low, high): the bootstrap interval of the median. One value knows no interval."""
    values = numpy.asarray(values, dtype=float)
    if len(values) == 0:
        raise ValueError("no samples")
    middle = float(numpy.median(values))
    if len(values) == 1:
        return middle, float("-inf"), float("inf")
    random = numpy.random.default_rng(seed)
    picks = random.integers(0, len(values), (RESAMPLES, len(values)))
    medians = numpy.median(values[picks], axis=1)
    low, high = numpy.quantile(medians, [(1 - level) / 2, (1 + level) / 2])
    return middle, float(low), float(high)


def half_width(values):
    """Half of the interval over the median."""
    middle, low, high = median_interval(values)
    return float("inf") if high == float("inf") else (high - low) / 2 / middle


def settled(values, width, least):
    """Whether a point has been measured often enough."""
    return len(values) >= least and half_width(values) <= width


def ratio_interval(numerator, denominator, level=0.95, seed=2):
    """(ratio, low, high) of two medians, each resampled for itself."""
    random = numpy.random.default_rng(seed)

    def medians(values):
        values = numpy.asarray(values, dtype=float)
        return numpy.median(values[random.integers(0, len(values), (RESAMPLES, len(values)))], axis=1)

    ratios = medians(numerator) / medians(denominator)
    low, high = numpy.quantile(ratios, [(1 - level) / 2, (1 + level) / 2])
    return float(numpy.median(numerator) / numpy.median(denominator)), float(low), float(high)
