"""By how much an update changes the weights, and whether it changes them at all: numbers of two samples of a kernel.

Both samples are float32, which holds every number of a bfloat16 or float16 variable exactly. Needs numpy only.
"""

from __future__ import annotations

import math

import numpy as np

from ..records import NAN
from .engines import Array
from .measures import rms

State = tuple[int, float | None]
"""Of an optimizer: the updates that it has made, and the learning rate that it has now; None where that is unknown."""


def update_log10(old: Array, new: Array, updates: int = 1) -> float:
    """log10 of rms(change by one update) / rms(weight before it); NaN where it is not a finite number.

    Example:
        >>> update_log10(np.float32([1.0, -1.0]), np.float32([1.01, -1.01]))  # doctest: +ELLIPSIS
        -2.0000...
    """
    with np.errstate(invalid="ignore", over="ignore"):  # infinite weights are found by other columns
        change = new - old
    size, moved = rms(old), rms(change) / updates
    return math.log10(moved / size) if size > 0 and moved > 0 and math.isfinite(moved / size) else NAN


def unchanged(old: Array, new: Array) -> float:
    """Fraction of the numbers that are exactly what they were; NaN of nothing.

    Example:
        >>> unchanged(np.float32([1.0, 2.0]), np.float32([1.0, 2.5]))
        0.5
    """
    return float(np.mean(new == old)) if old.size else NAN


def was_updated(before: State, after: State) -> bool:
    """Whether an optimizer made an update between two states, by a learning rate that was not 0.

    It made none where it gathers gradients over several steps, or has thrown them away because the loss scale was too
    large. A schedule has the rate of an update before it, a callback may set it later: neither may be 0.

    Example:
        >>> was_updated((0, 0.1), (1, 0.1)), was_updated((0, 0.0), (1, 0.1)), was_updated((0, 0.1), (0, 0.1))
        (True, False, False)
    """
    return after[0] > before[0] and before[1] != 0.0 and after[1] != 0.0
