"""The levels of the gradient at many audits of one run at once: `Flow.gradient_levels` in numpy.

What flows where is the same at every audit, so that it is found once a run; what is left is one maximum for each set
of rows that lead to the same ends. Imports the graph, the records and numpy.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..flow import SMALLEST, Flow
from ..records import LayerInfo, Snapshot, Statistics

Floats = npt.NDArray[np.floating]
Doubles = npt.NDArray[np.float64]

LEVELS: Mapping[str, tuple[str, ...]] = {
    "backward_level": ("backward_rms", "weight_rms"),
    "gradient_level": ("backward_rms", "weight_rms", "gradient_rms"),
}
"""Columns in decades over the gradient's point of reference, and the measured columns that they are made of. The first
is what the rules read; the second is dL/d(weight), which no rule compares between layers."""


@dataclass(frozen=True, slots=True)
class Ends:
    """The last hidden rows of a model, by position, and which rows lead to them."""

    sqrt_sizes: Doubles
    """`[rows]`: the norm over the rms of one sample's output."""
    heads: Mapping[int, Sequence[int]]
    """Last hidden row -> the heads that take in its output."""
    rows: Mapping[tuple[int, ...], Sequence[int]]
    """Some of the last hidden rows -> the rows that lead to exactly these."""


def ends_of(layers: Sequence[LayerInfo]) -> Ends:
    """The ends of the model that has these rows."""
    flow = Flow(Snapshot(0, tuple(layers), (Statistics(),) * len(layers)))
    rows: dict[tuple[int, ...], list[int]] = {}
    for index, ends in flow.ends.items():
        rows.setdefault(tuple(end.index for end in ends), []).append(index)
    return Ends(
        sqrt_sizes=np.array([row.sqrt_size for row in flow.rows], np.float64),
        heads={index: [head.index for head in heads] for index, heads in flow.heads_after.items()},
        rows=rows,
    )


def level_columns(ends: Ends, names: Iterable[str], column: Callable[[str], Floats]) -> dict[str, Doubles]:
    """`[audits, rows]` of columns of `LEVELS`, in decades; NaN for a row without a level.

    Args:
        ends: the ends of the model.
        names: which columns.
        column: gives the measured column of a name, `[audits, rows]`.
    """
    norm = column("backward_rms") * ends.sqrt_sizes
    reference = _references(ends, norm, column("weight_rms"))
    sizes = ((name, norm if name == "backward_level" else column("gradient_rms")) for name in names)
    return {name: _log10(np.where(np.isfinite(size), size, np.nan)) - reference for name, size in sizes}


def _references(ends: Ends, norm: Doubles, weight_rms: Floats) -> Doubles:
    """`[audits, rows]`: the logarithm of the backward norm at each row's point of reference."""
    at_end = {}
    for end, heads in ends.heads.items():
        passes = (weight_rms[:, heads] > 0.0).any(axis=1) & (norm[:, end] > 0.0)
        at_end[end] = np.where(passes, _log10(norm[:, end]), np.nan)
    found = np.full(norm.shape, np.nan)
    for reached, rows in ends.rows.items():
        found[:, rows] = np.fmax.reduce([at_end[end] for end in reached])[:, None]
    return found


def _log10(values: Floats) -> Doubles:
    """`flow.log10` of each value."""
    return np.log10(np.maximum(values, SMALLEST, dtype=np.float64))
