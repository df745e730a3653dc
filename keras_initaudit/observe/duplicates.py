"""Kernels that start with the units of another one: which repeats which, up to a factor.

Layers that share an integer seed, or one initializer that holds one, draw the same numbers. Where their kernels have
the same arrangement of them, whole units are the same; of another shape, the same numbers in other places are as good
as independent.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import keras
import numpy as np

from . import describe

_LEAST_NUMBERS = 64
"""Numbers that a kernel must have, for a copy of it to be no chance."""
_MARKED_INPUTS = 16
"""Inputs of each unit by which it is recognized in another kernel, evenly spread."""
_GLANCE = 4
"""Units that are compared before all are, for most kernels to be ruled out by."""
_WHOLE = 2**16
"""Numbers up to which a kernel is read whole, which takes less time than to have it thinned where it lies."""
_SAME_MARK = 1e-6
"""How near two marks of equal units are, of units that are scaled to length 1: the rounding of float32."""


def repeated(weights: Mapping[str, tuple[Any, Any]]) -> dict[str, str]:
    """Row path -> path of an earlier row whose kernel has the same units, up to a factor.

    Two kernels are duplicates where every unit of the smaller one is a unit of the other. A unit is looked at through
    `_MARKED_INPUTS` of its inputs; two that were drawn independently do not agree in them. Kernels of another fan_in
    have no unit in common, and a constant or sparse kernel is nobody's duplicate.

    Args:
        weights: Row path -> (the layer that owns the kernel, the kernel).
    """
    groups: dict[int, list[tuple[str, Any]]] = {}
    for path, (owner, weight) in weights.items():
        fan_in, marks = _unit_marks(owner, weight)
        if marks is not None:
            groups.setdefault(fan_in, []).append((path, marks))
    found: dict[str, str] = {}
    for group in groups.values():
        for early, late in sorted(_copies([marks for _, marks in group])):
            found.setdefault(group[late][0], group[early][0])
    return found


def _unit_marks(owner: Any, weight: Any) -> tuple[int, Any]:
    """The fan_in by the shape, and `[units, 3]` numbers by which units are compared; None where there is no telling."""
    permutation = describe.columns_last(owner, weight)
    shape = [int(weight.shape[axis]) for axis in permutation]
    units = describe.units(owner, weight)
    fan_in = math.prod(shape) // max(units, 1)
    if fan_in * units < _LEAST_NUMBERS:
        return fan_in, None
    inputs = np.unique(np.linspace(0, fan_in - 1, _MARKED_INPUTS).astype(np.int32))
    if fan_in * units <= _WHOLE:
        whole = np.asarray(keras.ops.convert_to_numpy(keras.ops.copy(weight))).transpose(permutation)
        columns = whole.reshape(fan_in, units)[inputs].astype(np.float64)
    else:
        value = keras.ops.convert_to_tensor(weight)
        if permutation != tuple(range(len(shape))):
            value = keras.ops.transpose(value, permutation)
        value = keras.ops.take(keras.ops.reshape(value, [fan_in, units]), inputs, axis=0)
        columns = np.asarray(keras.ops.convert_to_numpy(value)).astype(np.float64)
    norms = np.linalg.norm(columns, axis=0)
    distinct = 1 + np.count_nonzero(np.diff(np.sort(columns, axis=0), axis=0), axis=0)
    drawn = (norms > 0.0) & np.isfinite(norms) & (2 * distinct > len(inputs))
    if 2 * np.count_nonzero(drawn) <= units:
        return fan_in, None
    places = np.arange(len(inputs))
    directions = np.stack([np.cos(0.7 + 1.3 * places), np.cos(2.1 + 2.7 * places), np.cos(0.3 + 1.9 * places)])
    marks = (directions @ (columns[:, drawn] / norms[drawn])).T
    marks *= np.where(marks[:, :1] < 0.0, -1.0, 1.0)
    return fan_in, None if np.ptp(marks, axis=0).max() <= _SAME_MARK else marks[np.argsort(marks[:, 0])]


def _copies(kernels: list[Any]) -> Iterator[tuple[int, int]]:
    """(earlier, later) of the kernels whose units are those of each other, each with the earliest that it repeats."""
    sizes = np.array([len(marks) for marks in kernels])
    numbers = np.concatenate([np.full(len(marks), i) for i, marks in enumerate(kernels)])
    values = np.concatenate([marks[:, 0] for marks in kernels])
    order = np.argsort(values)
    numbers, values = numbers[order], values[order]
    # The first unit of the smaller kernel must be one of the larger: that leaves few pairs to look at.
    firsts = np.array([marks[0, 0] for marks in kernels])
    starts, ends = (np.searchsorted(values, firsts + side * _SAME_MARK) for side in (-1, 1))
    for i in np.flatnonzero(ends - starts > 1):
        others = np.unique(numbers[starts[i] : ends[i]])
        for j in others[sizes[others] > sizes[i]]:
            if _holds(kernels[j], kernels[i]):
                yield int(min(i, j)), int(max(i, j))
        of_its_size = others[(sizes[others] == sizes[i]) & (others < i)]
        first = next((j for j in of_its_size if _holds(kernels[j], kernels[i])), None)
        if first is not None:
            yield int(first), int(i)


def _holds(large: Any, small: Any) -> bool:
    """Whether each of the units of one kernel is a unit of another; both in the order of their first marks."""
    if len(small) > _GLANCE and not _holds(large, small[:_GLANCE]):
        return False
    places = np.searchsorted(large[:, 0], small[:, 0])
    same = np.zeros(len(small), bool)
    for offset in (-2, -1, 0, 1):  # rounding may change the order of neighbours
        near = large[np.clip(places + offset, 0, len(large) - 1)]
        same |= (np.abs(near - small) <= _SAME_MARK).all(-1)
    return bool(same.all())
