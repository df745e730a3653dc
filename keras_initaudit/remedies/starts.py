"""A start: what is left of a model and its data when some remedies are applied to them together."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ..records.remedies import (
    Activate,
    CleanData,
    LearningRate,
    PlainNormalization,
    Preprocess,
    Reinitialize,
    Remedy,
    ScaleTargets,
    SetBias,
    Together,
    WholeModel,
)
from .applying import apply
from .initialization import initialize

Start = tuple[Remedy, ...]
"""Distinct remedies, those of the worst findings first."""

TRIED: tuple[type[Remedy], ...] = (
    *(CleanData, Preprocess, ScaleTargets),
    *(Activate, PlainNormalization, WholeModel, Reinitialize, SetBias),
    *(LearningRate, Together),
)
"""What a model that is built can be given, in the order in which it is applied: the data first, for the weights may go
by them, and activations before kernels, which go by those. Any other remedy is proposed untried."""


def distinct(remedies: Iterable[Remedy | None]) -> Start:
    """Each remedy once, in the order in which they come."""
    found: list[Remedy] = []
    for remedy in remedies:
        if remedy is not None and remedy not in found:
            found.append(remedy)
    return tuple(found)


def parts(start: Start) -> Start:
    """The single remedies of a start, those of a `Together` among them."""
    return tuple(r for remedy in start for r in (remedy.remedies if isinstance(remedy, Together) else (remedy,)))


def applied(start: Start, model: Any, batch: Any) -> Any:
    """Changes the model in place, alike at each call; what comes back is the batch, or another one.

    Args:
        start: Remedies of the kinds in `TRIED`.
        model: The model.
        batch: `(x,)`, `(x, y)` or `(x, y, sample_weight)`.
    """
    for remedy in sorted(parts(start), key=lambda remedy: TRIED.index(type(remedy))):
        if isinstance(remedy, WholeModel):
            initialize(model, seed=0)
        else:
            batch = apply(remedy, model, batch)
    return batch


def can_be_applied(remedy: Remedy, model: Any, batch: Any) -> bool:
    """Whether nothing speaks against it, as a schedule does where the learning rate is to be set.

    The model is changed by it.
    """
    try:
        applied((remedy,), model, batch)
    except Exception:  # whatever the reason
        return False
    return True
