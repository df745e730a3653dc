"""What real updates need on every backend: a start that is tried changes activations, and its optimizer begins anew."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import keras

from ...layers.inside import layers_below
from ..hooks import replace
from . import NoTrialError
from .undocumented import optimizer_state, scheduled_rates, weights_of

RISING = 20
"""Updates over which a learning rate that warms up rises to its peak."""


def loss_tracker(model: Any) -> Any:
    """The metric that keeps the loss of a model, which updates read it from.

    Raises:
        NoTrialError: There is none, or the model has no optimizer, or one beside it is not built.
    """
    tracker = next((m for m in model.metrics if m.name == "loss" and hasattr(m, "total")), None)
    if tracker is None:
        raise NoTrialError("the model does not keep its loss among its metrics")
    if model.optimizer is None:
        raise NoTrialError("the model has no optimizer")
    if not all(optimizer.built for optimizer in optimizers_of(model) if optimizer is not model.optimizer):
        raise NoTrialError("an optimizer of the model is not built")
    return tracker


def optimizers_of(model: Any) -> list[Any]:
    """Those that the model holds, in lists and dicts as well."""
    return [member for member in members(model) if isinstance(member, keras.optimizers.Optimizer)]


def members(model: Any) -> Iterator[Any]:
    """The attributes of a model, and what stands in its lists and dicts."""
    for value in vars(model).values():
        yield from value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else (value,)


def variables_of_training(model: Any) -> list[Any]:
    """The Keras variables of a model, its metrics and its optimizers, once each."""
    held = [*model.variables, *model.metrics_variables]
    for optimizer in optimizers_of(model):
        held.extend(optimizer_state(optimizer) if optimizer.built else optimizer.variables)
    return list({id(v): v for v in held}.values())


def batch_after(change: Callable[[], Any] | None, batch: Any, samples: Any) -> tuple[Any, Any]:
    """Makes a change of the model; what to train on then, as `fit` hands it over and as the samples of all replicas.

    These are the batch and its samples, or another batch that the change returns.
    """
    changed = None if change is None else change()
    same = changed is None or changed is samples or changed is batch
    return (batch, samples) if same else (changed, changed)


def activations_of(model: Any) -> list[tuple[Any, Any]]:
    """The layers that have an activation, each with it: a trace holds what they were when it was made."""
    return [(layer, vars(layer)["activation"]) for layer in layers_below(model) if "activation" in vars(layer)]


def activations_since(before: list[tuple[Any, Any]], model: Any) -> list[tuple[Any, Any]]:
    """Those that are others than `activations_of` has given before."""
    return [now for old, now in zip(before, activations_of(model), strict=True) if now != old]


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


def prepared_optimizer(
    model: Any, in_fit: bool, copied: Callable[[Any, list[Any], float | None], Any]
) -> tuple[Any, float | None]:
    """The optimizer that updates are made with, and the peak of its rate, where that warms up.

    Outside of a `fit` it is a copy: to build the model's own would leave it built, for weights that may yet be frozen.
    So it is where the rate warms up: the copy has one that rises faster.

    Args:
        model: The model.
        in_fit: Whether it is in its `fit`.
        copied: (optimizer, weights, peak) -> a copy that is built for these weights.
    """
    optimizer = model.optimizer
    peak = peak_of_warm_up(optimizer)
    if in_fit and optimizer.built and peak is None:
        return optimizer, None
    weights = weights_of(optimizer) if optimizer.built else model.trainable_variables
    return copied(optimizer, weights, peak), peak


def copied_optimizer(optimizer: Any, weights: list[Any], rate: float | None = None) -> Any:
    """One that is built for these weights; with `rate`, the learning rate is a variable."""
    config = optimizer.get_config()
    if rate is not None:
        of_rate = config["inner_optimizer"]["config"] if "inner_optimizer" in config else config
        of_rate["learning_rate"] = rate
    copy = type(optimizer).from_config(config)
    copy.build(weights)
    return copy


def steps_an_update(optimizer: Any) -> int:
    """The training steps that it takes to change the weights once: those whose gradients are accumulated."""
    inner = getattr(optimizer, "inner_optimizer", optimizer)
    return getattr(inner, "gradient_accumulation_steps", None) or 1
