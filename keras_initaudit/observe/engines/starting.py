"""What real updates need on every backend: a start that is tried changes activations, and its optimizer begins anew."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import keras

from ...layers.inside import layers_below
from ..hooks import replace
from .undocumented import scheduled_rates

RISING = 20
"""Updates over which a learning rate that warms up rises to its peak."""


def optimizers_of(model: Any) -> list[Any]:
    """Those that the model holds, in lists and dicts as well."""
    held = (
        v.values() if isinstance(v, dict) else v if isinstance(v, list | tuple) else [v] for v in vars(model).values()
    )
    return [member for members in held for member in members if isinstance(member, keras.optimizers.Optimizer)]


def activations_of(model: Any) -> list[tuple[Any, Any]]:
    """The layers that have an activation, each with it: a trace holds what they were when it was made."""
    return [(layer, vars(layer)["activation"]) for layer in layers_below(model) if "activation" in vars(layer)]


@contextlib.contextmanager
def activations_kept(model: Any) -> Iterator[None]:
    """Puts the activations of the layers back at the end of the block."""
    before = activations_of(model)
    try:
        yield
    finally:
        for layer, activation in before:
            replace(layer, activation=activation)


def peak_of_warm_up(optimizer: Any) -> float | None:
    """The largest rate of a schedule that begins with less than half of it."""
    rates = scheduled_rates(optimizer)
    return max(rates) if rates and rates[0] < max(rates) / 2.0 else None
