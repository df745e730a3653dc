"""From a tensor to its statistics: a strided sample of it in the graph, the numbers on the host. Decides nothing.

Every tensor is looked at as `[samples, positions, units]` and, where it is large, through a strided sample: the moments
of n independent values have a relative error of 1/sqrt(2n), 0.6 % for 2^14 and 0.3 % for 2^16, and the cost of an audit
does not grow with the width of the network. The samples (axis 0) and, where they fit, the units are all kept, so that a
dead unit or a collapsed batch is seen, not estimated.

The graph does no more than the thinning, two operations a tensor. Thirty operations of arithmetic for each of 800
tensors take longer to trace, to optimize and to instantiate than a training step takes to run; numpy needs none of
that, and is as fast on arrays that fit the cache. So only the three functions of thinning know the backend.
"""

from __future__ import annotations

import functools
import math
import operator
from typing import Any

import numpy as np
import numpy.typing as npt
from keras import ops

from ..records import NAN, Histogram
from .engines import Array, engine

SAMPLE_SIZE = 2**14
"""Elements that a statistic is taken over, at the most."""

ACTIVATION_SAMPLE_SIZE = 2**16
"""The same for activations: a unit that is active at 1 % of 256 positions would pass for dead in 8 % of the cases, at
1 % of 1024 in 0.003 %."""

MIN_POSITIONS = 16
"""Positions that are kept, at least, before units are left out: of a small map that was padded most are border, and a
few of them may all be zero."""

MATRIX_SIZE = 2**15
"""The same for kernels, whose units are all kept, with `MATRIX_ROWS` of their inputs at least: a copy is to be seen."""
MATRIX_ROWS = 16

ENTROPY_ROWS = 8
"""Rows of probabilities that the entropy is taken of, at least; each is kept whole."""

_FLOAT32 = np.finfo(np.float32)

BINS = 30
"""Bins of a histogram, as many as TensorBoard draws."""

MEASURED = {
    "activation": ("mean", "std", "rms", "max", "zero", "dead", "nonfinite", "spread"),
    "preactivation": ("mean", "std", "rms", "max", "nonfinite", "saturated"),
    "entering": ("mean", "std", "rms", "max", "nonfinite"),
    "backward": ("rms", "max", "zero", "nonfinite"),
    "weight": ("mean", "std", "rms", "max", "zero", "nonfinite"),
    "gradient": ("rms", "max", "zero", "nonfinite"),
}
"""Kind of tensor -> what `measured` tells of it; `identical` needs a matrix, and is asked for by itself."""


# In the graph: which of the numbers to look at


def thinned(x: Any, size: int = SAMPLE_SIZE) -> Any:
    """`x` as `[samples, positions, units]`, strided down to about `size` elements.

    The first axis of `x` holds the samples, the last one the units. A tensor whose shape is not known stays whole.
    """
    shape = engine().shape(x)
    if shape is None:
        return ops.reshape(x, (-1, 1, 1))
    rank = len(shape)
    if None in shape:
        if rank < 2:
            return ops.reshape(x, (-1, 1, 1))
        first, *between, last = ops.shape(x)
        return ops.reshape(x, (first, functools.reduce(operator.mul, between, 1), last))
    known = [int(size or 0) for size in shape]
    # Not -1 for the positions: a tensor without elements has no unique answer.
    samples, positions, units = (math.prod(known), 1, 1) if rank < 2 else (known[0], math.prod(known[1:-1]), known[-1])
    by_sample, by_position, by_unit = _strides(samples, positions, units, size)
    if by_sample == by_position == by_unit == 1:
        return x if rank == 3 else ops.reshape(x, (samples, positions, units))
    # Rows are gathered, not sliced: a strided slice moves element by element, a gather row by row.
    kept = np.arange(0, samples, by_sample)[:, None] * positions + np.arange(0, positions, by_position)
    x = engine().gather(ops.reshape(x, (samples * positions, units)), kept.astype(np.int32))
    return x if by_unit == 1 else x[:, :, ::by_unit]


def thinned_matrix(x: Any, units: int) -> Any:
    """A kernel whose units stand last as `[fan_in, units]`, with all units and some of the inputs."""
    fan_in = math.prod(x.shape) // max(units, 1)
    stride = matrix_stride(fan_in, units)
    x = ops.reshape(x, (fan_in, units))
    return x if stride == 1 else engine().gather(x, np.arange(0, fan_in, stride, dtype=np.int32))


def matrix_stride(fan_in: int, units: int) -> int:
    """The stride over its inputs by which a kernel is thinned."""
    return _stride(fan_in, max(MATRIX_ROWS, MATRIX_SIZE // max(1, units)))


def thinned_rows(x: Any) -> Any:
    """Probabilities `[..., choices]` as `[rows, choices]`, with all choices and some of the rows."""
    shape = engine().shape(x)
    if shape is None or None in shape:
        return ops.reshape(x, (-1, ops.shape(x)[-1]))
    *rest, choices = (int(size or 0) for size in shape)
    rows = math.prod(rest)
    stride = _stride(rows, max(ENTROPY_ROWS, SAMPLE_SIZE // max(1, choices)))
    return ops.reshape(x, (rows, choices))[::stride]


def _strides(samples: int, positions: int, units: int, size: int) -> tuple[int, int, int]:
    """Thin the positions first, as long as `MIN_POSITIONS` are left, then the units, then the samples."""
    by_position = _stride(positions, max(MIN_POSITIONS, size // max(1, samples * units)))
    by_unit = _stride(units, max(1, size // max(1, samples * math.ceil(positions / by_position))))
    return _stride(samples, size), by_position, by_unit


def _stride(size: int, room: int) -> int:
    """The stride that leaves at most `room` of `size`, odd where it is not 1.

    An even stride keeps step with the powers of two that images, heads and gates are laid out in, and would see one
    column of them alone.
    """
    stride = max(1, math.ceil(size / room))
    return stride if stride == 1 or stride % 2 else stride + 1


# On the host: what they are


def measured(kind: str, x: Array, ends: tuple[float, float] = (-math.inf, math.inf)) -> dict[str, float]:
    """What `MEASURED` lists for this kind of tensor; NaN where `x` has no finite value.

    Args:
        kind: A key of `MEASURED`.
        x: float32 `[samples, positions, units]`.
        ends: Of a pre-activation: `saturated` is the fraction of values below the first or above the second.
    """
    names = MEASURED[kind]
    with np.errstate(all="ignore"):
        numbers, finite = x.reshape(-1), None
        low, high = _bounds(numbers)
        if not (math.isfinite(low) and math.isfinite(high)):
            finite = np.isfinite(x)
            numbers = x[finite]
            low, high = _bounds(numbers)
        if not numbers.size:
            return dict.fromkeys(names, NAN) | {"nonfinite": 1.0 if x.size else NAN}
        largest = max(-low, high)
        # Squares of float32 overflow from 1e19 on and are zero below 1e-23; then the largest value is the unit.
        unit = 1.0 if 1e-6 < largest < 1e12 or largest == 0.0 else largest
        scaled = numbers if unit == 1.0 else numbers / np.float32(unit)
        size = _rms(scaled)
        values = {"rms": size * unit, "max": largest, "nonfinite": 1.0 - numbers.size / x.size}
        if "mean" in names:
            mean = scaled.mean()
            values |= {"mean": float(mean) * unit, "std": _rms(scaled - mean) * unit}
        if "zero" in names:
            values["zero"] = 1.0 - float(np.count_nonzero(numbers) / numbers.size)
        if "dead" in names:
            values["dead"] = _dead(x) if values["zero"] > 0.0 else 0.0
            values["spread"] = _deviation_of_samples(x, finite, unit) / size if len(x) > 1 and size > 0.0 else NAN
        if "saturated" in names:
            outside = np.count_nonzero(numbers < ends[0]) + np.count_nonzero(numbers > ends[1])
            values["saturated"] = float(outside / numbers.size)
        return values


def blocked(passed: Array, backward: Array, preactivation: Array, ends: tuple[float, float]) -> float:
    """Fraction of pre-activations on a flat end that let under 2 % of the gradient of their output through.

    This is measured, for an activation whose backward side is a function of its own: a straight-through estimator.
    """
    with np.errstate(invalid="ignore"):
        flat = (preactivation < ends[0]) | (preactivation > ends[1])
        return float(np.mean(flat & ~(np.abs(passed) > 0.02 * np.abs(backward))))


def rms(x: Array) -> float:
    """Root mean square, whatever the scale; NaN of nothing or where a value is not finite."""
    with np.errstate(all="ignore"):
        low, high = _bounds(x)
        scale = max(-low, high)
        return _rms(x / np.float32(scale)) * scale if scale > 0.0 else scale


def histogram(x: Array) -> Histogram | None:
    """Of the finite values of `x`, in `BINS` equal bins; None where there are none."""
    with np.errstate(all="ignore"):
        numbers = x.reshape(-1)
        low, high = _bounds(numbers)
        if not (math.isfinite(low) and math.isfinite(high)):
            numbers = numbers[np.isfinite(numbers)]
            low, high = _bounds(numbers)
        if not numbers.size:
            return None
        # Of the ends that float32 can still tell apart: a constant tensor gets one filled bin, not a division by zero.
        width = max(high - low, max(-low, high, 1e-30) * 1e-6)
        step = width / BINS
        # Below what float32 can divide by, all is in the first bin.
        places = (numbers - np.float32(low)) * np.float32(1.0 / step if step > 1e-37 else 0.0)
        counts = np.bincount(np.minimum(places, BINS - 1).astype(np.int32), minlength=BINS)
        return Histogram(low, low + width, tuple(counts.astype(float).tolist()))


def identical(columns: Array, *, sampled: bool = False) -> float:
    """Fraction of the columns of `[fan_in, units]` that equal another column, to float32 rounding.

    Each column is projected on two fixed directions; two columns are taken as equal when both projections agree to
    1e-6 of the largest entry times the root of the number of rows. Of 4096 independent columns, 1e-6 pairs do by
    chance.

    Args:
        columns: The matrix, or some of its rows.
        sampled: Whether rows are missing. A column without a single number other than zero is then nobody's copy,
            unless all are so: the few numbers of a sparse or an identity kernel may stand in the missing rows.
    """
    rows, units = columns.shape
    if units < 2 or not rows:
        return 0.0
    low, high = _bounds(columns)
    scale = max(-low, high)
    if scale == 0.0:
        return 1.0
    if not math.isfinite(scale):
        return 0.0
    index = np.arange(rows, dtype=np.float32)
    directions = np.stack([np.cos(0.7 + 1.3 * index), np.cos(2.1 + 2.7 * index)])
    first, second = directions @ (columns / np.float32(scale))
    tolerance = 1e-6 * math.sqrt(rows)
    order = np.argsort(first)
    first, second = first[order], second[order]
    same = (np.diff(first) <= tolerance) & (np.abs(np.diff(second)) <= tolerance)
    if sampled:
        same &= first[1:] != 0.0
    return float((np.append(same, False) | np.append(False, same)).mean())


def entropy(probabilities: Array) -> float:
    """Mean entropy over the last axis of `[rows, choices]`, over log(choices): 1 uniform, 0 certain.

    A row of zeros, which is what a query that may look nowhere has, does not count.
    """
    choices = probabilities.shape[-1]
    rows = np.count_nonzero(probabilities.any(-1))
    if choices < 2 or not rows:
        return NAN
    with np.errstate(all="ignore"):
        p = np.maximum(probabilities, np.float32(1e-30))
        return float(-np.sum(p * np.log(p)) / rows / math.log(choices))


def largest(x: Array) -> float:
    """The largest absolute value of those that are finite; NaN where there is none."""
    numbers = x[np.isfinite(x)]
    return max(map(abs, _bounds(numbers)))


def time_log10(both: Array) -> float:
    """log10 of the factor by which one time step changes a gradient on its way back, from the last to the first one.

    Of steps at which it is smaller than float32 can hold, the last one that is not takes the place of the first one.

    Args:
        both: `[2, samples, steps]`: the size of the gradient, and 1 where a step is real, 0 where it is padding.
    """
    sizes, real = both[:, :, ::-1]
    order = np.argsort(real == 0.0, axis=1, kind="stable")  # each sample from its last real step on
    sizes, real = (np.take_along_axis(x, order, 1).astype(np.float64) for x in (sizes, real))
    counts = real.sum(0)
    with np.errstate(invalid="ignore"):
        means = np.sum(sizes * real, 0)[counts > 0.0] / counts[counts > 0.0]
    if len(means) < 2 or not np.isfinite(means).all() or means[0] == 0.0:
        return NAN
    lost = np.flatnonzero(means < _FLOAT32.tiny)
    first = max(1, int(lost[0]) - 1) if len(lost) else len(means) - 1
    return (math.log10(max(means[first], float(_FLOAT32.smallest_subnormal))) - math.log10(means[0])) / first


def _bounds(x: Array) -> tuple[float, float]:
    """The smallest and the largest value; NaN where there is one or none."""
    return (float(x.min()), float(x.max())) if x.size else (NAN, NAN)


def _rms(x: Array) -> float:
    return math.sqrt(np.mean(np.square(x)))


def _dead(x: Array) -> float:
    """Fraction of units that are zero for every sample and position."""
    return 1.0 - float((x != 0.0).reshape(-1, x.shape[-1]).any(0).mean())


def _deviation_of_samples(x: Array, finite: npt.NDArray[np.bool_] | None, unit: float) -> float:
    """Root of the mean over positions and units of the variance across samples, in `unit`s."""
    x = x.reshape(len(x), -1)
    x = x if unit == 1.0 else x / np.float32(unit)
    if finite is None:
        distance = x - x[0]  # exactly zero where all samples give the same
        # Of the distances, which are of the size of the deviation: nothing cancels.
        return math.sqrt(max(0.0, float(np.mean(np.square(distance)) - np.mean(np.square(distance.mean(0))))))
    finite = finite.reshape(x.shape)
    x = np.where(finite, x, 0.0)
    distance = np.where(finite, x - x.sum(0) / np.maximum(finite.sum(0), 1), 0.0)
    return math.sqrt(np.sum(np.square(distance)) / finite.sum())
