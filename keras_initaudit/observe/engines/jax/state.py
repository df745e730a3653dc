"""Where JAX keeps the values of a model: in its variables, and within an epoch of `fit` in a state beside them.

An array of JAX cannot be written to: to keep a value is to hold it. The train function of `fit` alone takes the memory
of the state that it is given.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import keras

STATE = ("trainable_variables", "non_trainable_variables", "optimizer_variables", "metrics_variables")
"""The parts of the state of a training step, in their order."""


def state_variables(model: Any) -> list[list[Any]]:
    """The Keras variables whose values a training step is given and gives back, in its order."""
    optimizer = [] if model.optimizer is None else list(model.optimizer.variables)
    return [
        list(model.trainable_variables),
        list(model.non_trainable_variables),
        optimizer,
        list(model.metrics_variables),
    ]


def state_of(model: Any) -> tuple[list[Any], ...]:
    """The state that a training step is given, of variables that hold their values."""
    return tuple([variable.value for variable in part] for part in state_variables(model))


def scope_of(model: Any, state: Any) -> Any:
    """Within it the variables have the values of a state, and what is written to them is dropped."""
    parts = zip(state_variables(model), state, strict=True)
    pairs = [(v, value) for variables, values in parts for v, value in zip(variables, values, strict=True)]
    return keras.StatelessScope(state_mapping=pairs)


@contextlib.contextmanager
def attached(model: Any) -> Iterator[None]:
    """See `Engine`. The values are lent: what is written to the variables in the block goes with its end.

    Unless the person's own code asks a callback for its `model` in the block: then Keras gives the variables their
    values itself, and reads them from there before the next step.
    """
    state = None if model._jax_state_synced else getattr(model, "_jax_state", None)
    if not state:
        yield
        return
    parts = zip(state_variables(model), (state.get(name) or () for name in STATE), strict=True)
    pairs = [(v, value) for variables, values in parts for v, value in zip(variables, values, strict=False)]
    before = [(variable, variable._value) for variable, _ in pairs]
    for variable, value in pairs:
        variable._value = value
    try:
        yield
    finally:
        if not model._jax_state_synced:
            for variable, value in before:
                variable._value = value


def begin_with(model: Any, state: Any, begin: Callable[[], None]) -> Any:
    """Calls `begin` where Keras has taken the state from the variables and not begun the step, and gives the state.

    From here on `attached` finds it; and where `begin` raises, Keras, which puts it back into the variables.
    """
    before, model._jax_state = getattr(model, "_jax_state", None), dict(zip(STATE, state, strict=True))
    begin()
    if model._jax_state_synced:  # the person's own code has asked for it
        state = state_of(model)
        for variable in (v for part in state_variables(model) for v in part):
            variable._value = None
        model._jax_state_synced = False
    model._jax_state = before
    return state


@contextlib.contextmanager
def values_kept(variables: Iterable[Any]) -> Iterator[None]:
    """Puts the values of these Keras variables back, whatever the block did to them."""
    values = [(variable, variable._value) for variable in variables]
    try:
        yield
    finally:
        for variable, value in values:
            variable._value = value
