"""From a tensor to a vector of statistics, inside the graph. Decides nothing.

Every tensor is first brought to the form `[samples, positions, units]` and, where it is large, to a strided sample of
`SAMPLE_SIZE` elements: the moments of n independent values have a relative error of 1/sqrt(2n), 0.3 % for 2^16, and
the cost of an audit does not grow with the width of the network. Samples (axis 0) and, where they fit, units are all
kept, so that a dead unit or a collapsed batch is seen, not estimated.

The vector functions are `tf.function`s of unknown shape that the graph does not inline: a network with 800 observed
tensors pays for 800 calls, not for 800 copies of thirty operations, and its trace is three times as fast.
"""

from __future__ import annotations

import math
from typing import Any

import tensorflow as tf

SAMPLE_SIZE = 2**16
"""Elements that a statistic is taken over, at the most."""

BINS = 30
"""Bins of a histogram, as many as TensorBoard draws."""

MOMENTS = ("mean", "std", "rms", "max", "zero", "dead", "nonfinite", "spread", "outside")
"""What `moments` returns, in this order."""


def sampled(x: Any, *, channels_first: bool = False) -> Any:
    """`x` as float32 `[samples, positions, units]`, strided down to about `SAMPLE_SIZE` elements.

    The first axis holds the samples, the last one the units (the second one where `channels_first`).
    """
    rank = x.shape.rank
    if rank is None:
        return tf.reshape(tf.cast(x, tf.float32), [1, -1, 1])
    if channels_first and rank > 2:
        x = tf.transpose(x, [0, *range(2, rank), 1])
    if rank < 2:
        x = tf.reshape(x, [-1, 1, 1])
    elif rank != 3:
        units = x.shape[-1] if x.shape[-1] is not None else tf.shape(x)[-1]
        samples = x.shape[0] if x.shape[0] is not None else tf.shape(x)[0]
        # Not -1 for the positions: a tensor without elements has no unique answer.
        positions = math.prod(x.shape[1:-1]) if x.shape[1:-1].is_fully_defined() else tf.reduce_prod(tf.shape(x)[1:-1])
        x = tf.reshape(x, [samples, positions, units])
    if x.shape.is_fully_defined():
        strides = _strides(*x.shape.as_list())
        if strides != (1, 1, 1):
            x = x[:: strides[0], :: strides[1], :: strides[2]]
    return tf.cast(x, tf.float32)


def _strides(samples: int, positions: int, units: int) -> tuple[int, int, int]:
    """Thin the positions first, then the units, then the samples."""
    room = max(1, SAMPLE_SIZE // max(1, samples * units))
    stride_p = _stride(positions, room)
    room = max(1, SAMPLE_SIZE // max(1, samples * math.ceil(positions / stride_p)))
    stride_u = _stride(units, room)
    return _stride(samples, SAMPLE_SIZE), stride_p, stride_u


def _stride(size: int, room: int) -> int:
    """The stride that leaves at most `room` of `size`, odd where it is not 1.

    An even stride keeps step with the powers of two that images, heads and gates are laid out in, and would see one
    column of them alone.
    """
    stride = math.ceil(size / room)
    return stride if stride <= 1 or stride % 2 else stride + 1


_ANY = tf.TensorSpec([None, None, None], tf.float32)
_SCALAR = tf.TensorSpec([], tf.float32)


def _not_inlined(*signature: Any) -> Any:
    return tf.function(
        input_signature=signature, autograph=False, jit_compile=False, experimental_attributes={"_noinline": True}
    )


@_not_inlined(_ANY, _SCALAR, _SCALAR)
def moments(x: Any, low: Any, high: Any) -> Any:
    """The vector `MOMENTS` of `x` `[samples, positions, units]`; NaN where `x` has no finite value.

    `outside` is the fraction of the finite values below `low` or above `high`. Values are scaled by the largest of
    them before they are squared, so that 1e-30 does not underflow and 1e30 does not overflow.
    """
    finite = tf.math.is_finite(x)
    count = tf.reduce_sum(tf.cast(finite, tf.float32))
    size = tf.cast(tf.size(x), tf.float32)
    x = tf.where(finite, x, 0.0)
    largest = tf.reduce_max(tf.concat([tf.reshape(tf.abs(x), [-1]), [0.0]], 0))
    unit = tf.where(largest > 0, largest, 1.0)
    scaled = x / unit
    mean = tf.reduce_sum(scaled) / count
    square = tf.reduce_sum(tf.square(scaled)) / count
    deviation = tf.where(finite, scaled - mean, 0.0)
    std = tf.sqrt(tf.reduce_sum(tf.square(deviation)) / count)
    is_zero = tf.equal(x, 0.0) & finite
    over_samples = tf.reduce_mean(tf.math.reduce_variance(scaled, 0))
    samples = tf.shape(x)[0]
    outside = tf.reduce_sum(tf.cast(finite & ((x < low) | (x > high)), tf.float32)) / count
    return tf.stack(
        [
            mean * unit,
            std * unit,
            tf.sqrt(square) * unit,
            tf.where(count > 0, largest, math.nan),
            tf.reduce_sum(tf.cast(is_zero, tf.float32)) / count,
            tf.reduce_mean(tf.cast(tf.reduce_all(is_zero, [0, 1]), tf.float32)),
            1.0 - count / size,
            tf.where(samples > 1, tf.sqrt(over_samples / square), math.nan),
            outside,
        ]
    )


@_not_inlined(_ANY)
def histogram(x: Any) -> Any:
    """`[low, high, counts...]` of the finite values of `x` in `BINS` equal bins; all zeros where there are none."""
    flat = tf.reshape(x, [-1])
    flat = tf.boolean_mask(flat, tf.math.is_finite(flat))

    def counted() -> Any:
        low, high = tf.reduce_min(flat), tf.reduce_max(flat)
        # Of the ends that float32 can still tell apart: a constant tensor gets one filled bin, not a division by zero.
        width = tf.maximum(high - low, tf.maximum(tf.abs(high), 1e-30) * 1e-6)
        index = tf.cast((flat - low) / width * BINS, tf.int32)
        counts = tf.math.bincount(tf.clip_by_value(index, 0, BINS - 1), minlength=BINS, maxlength=BINS)
        return tf.concat([[low, low + width], tf.cast(counts, tf.float32)], 0)

    return tf.cond(tf.size(flat) > 0, counted, lambda: tf.zeros([BINS + 2]))


@_not_inlined(tf.TensorSpec([None, None], tf.float32))
def identical(columns: Any) -> Any:
    """Fraction of the columns of `[fan_in, units]` that equal another column, to float32 rounding.

    Each column is projected on two fixed directions; two columns are taken as equal when both projections agree to
    1e-5 of the matrix's scale. Of 4096 independent columns, 1e-6 pairs do by chance.
    """
    rows, units = tf.shape(columns)[0], tf.shape(columns)[1]
    scale = tf.reduce_max(tf.abs(tf.concat([tf.reshape(columns, [-1]), [0.0]], 0)))
    columns = columns / tf.where(scale > 0, scale, 1.0)
    index = tf.cast(tf.range(rows), tf.float32)
    directions = tf.stack([tf.cos(0.7 + 1.3 * index), tf.cos(2.1 + 2.7 * index)])
    first, second = tf.unstack(tf.matmul(directions, columns))
    order = tf.argsort(first)
    first, second = tf.gather(first, order), tf.gather(second, order)
    tolerance = 1e-5 * tf.sqrt(tf.cast(tf.maximum(rows, 1), tf.float32)) * tf.where(scale > 0, 0.1, 1.0)
    same = (tf.abs(first[1:] - first[:-1]) <= tolerance) & (tf.abs(second[1:] - second[:-1]) <= tolerance)
    alike = tf.pad(same, [[1, 0]]) | tf.pad(same, [[0, 1]])
    # A matrix that holds a NaN compares unequal to itself: it has no identical columns to speak of.
    return tf.where(units > 1, tf.reduce_mean(tf.cast(alike, tf.float32)), 0.0)


@_not_inlined(_ANY)
def entropy(probabilities: Any) -> Any:
    """Mean entropy over the last axis of `[..., ..., choices]`, over log(choices): 1 uniform, 0 certain."""
    p = tf.maximum(probabilities, 1e-30)
    choices = tf.cast(tf.shape(p)[-1], tf.float32)
    mean = tf.reduce_mean(-tf.reduce_sum(p * tf.math.log(p), -1))
    return tf.where(choices > 1, mean / tf.math.log(tf.maximum(choices, 2.0)), math.nan)
