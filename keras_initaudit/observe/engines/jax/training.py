"""JAX: real updates of a model on one batch, again and again, after which everything is as it was.

The function that `fit` has compiled makes them: nothing is left of them but the state that it gives back, which is
dropped. It takes the memory of the state that it is given, and so is given a copy.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import keras

from ...batch import first_samples
from ...hooks import replaced
from .. import NoTrialError, Update
from ..starting import (
    RISING,
    activations_kept,
    activations_of,
    activations_since,
    batch_after,
    copied_optimizer,
    loss_tracker,
    prepared_optimizer,
    steps_an_update,
    variables_of_training,
)
from ..undocumented import has_foreign_layers, names_kept, optimizer_state, weights_of
from .state import scope_of, state_of, state_variables, values_kept

StepFunction = Callable[[Any, Any], Any]
"""(state, batch) -> the state after an update."""


class JaxUpdates:
    """Updates of one model; see `Updates`."""

    def __init__(self, runner: Any, batch: Any, train: Any, iterator: Any) -> None:
        del iterator
        self._runner, self._batch, self._train = runner, batch, train
        self.model = runner.model
        self.samples = first_samples(batch, None)
        self._own: dict[str, StepFunction] = {}
        self._penalty: Any = None
        self._tracker = loss_tracker(self.model)
        self._check()
        self._optimizer, self._rate, self._peak = self._prepared_optimizer()
        self._held = [*variables_of_training(self.model), *optimizer_state(self._optimizer)]
        fits = train is not None and self._optimizer is self.model.optimizer and not runner.runs_eagerly()
        self._step = self._by_fit() if fits else None

    def _check(self) -> None:
        if self._runner.runs_eagerly() and has_foreign_layers(self.model):
            raise NoTrialError("the model runs eagerly, and so does code of layers that are not Keras's")
        if self._runner.acts_outside:
            raise NoTrialError("the training step acts on more than the model")

    def _prepared_optimizer(self) -> tuple[Any, Any, float]:
        """The optimizer that the updates are made with, the variable of a rate that warms up, and the peak of it."""
        with names_kept(), self._runner.randomness_kept():
            optimizer, peak = prepared_optimizer(self.model, self._train is not None, copied_optimizer)
        if peak is None:
            return optimizer, None, 0.0
        rate = next((v for v in optimizer.variables if v.path.rpartition("/")[2] == "learning_rate"), None)
        if rate is None:
            raise NoTrialError("the learning rate of the optimizer cannot be set")
        return optimizer, rate, peak

    @contextlib.contextmanager
    def kept(self) -> Iterator[None]:
        """See `Updates`."""
        with names_kept(), values_kept(self._held), self._runner.randomness_kept(), activations_kept(self.model):
            yield

    @contextlib.contextmanager
    def start(self, change: Callable[[], Any] | None = None) -> Iterator[tuple[Any, Update]]:
        """See `Updates`."""
        activations = activations_of(self.model)
        with self.kept(), replaced(self.model, "optimizer", self._optimizer):
            batch, samples = batch_after(change, self._batch, self.samples)
            if change is not None or int(self._optimizer.iterations):
                self._begin_optimizer()
            others = activations_since(activations, self.model)
            step = self._step if self._step is not None and not others else self._by_own(batch, others)
            yield samples, self._update(step, batch)

    def _begin_optimizer(self) -> None:
        """Gives the optimizer the state that a freshly built copy of it has for the weights as they are now."""
        peak = None if self._rate is None else self._peak
        fresh = copied_optimizer(self._optimizer, weights_of(self._optimizer), peak)
        for variable, new in zip(optimizer_state(self._optimizer), optimizer_state(fresh), strict=True):
            variable._value = new._value

    def _update(self, step: StepFunction, batch: Any) -> Update:
        state = jax.tree.map(jnp.copy, state_of(self.model))
        variables = state_variables(self.model)
        total, count = (_place(variables[3], getattr(self._tracker, name)) for name in ("total", "count"))
        rate = None if self._rate is None else _place(variables[2], self._rate)
        steps = steps_an_update(self._optimizer)
        penalty = self._penalties()
        made = itertools.count(1)

        def update() -> float:
            nonlocal state
            for place in (total, count):
                state[3][place] = jnp.zeros_like(state[3][place])
            if rate is not None:
                state[2][rate] = jnp.full_like(state[2][rate], self._peak * min(1.0, next(made) / RISING))
            taken_off = penalty(state)
            for _ in range(steps):
                state = step(state, batch)
            seen = float(state[3][count])
            return float(state[3][total]) / seen - taken_off if seen else float("nan")

        return update

    def _penalties(self) -> Callable[[Any], float]:
        """What the regularizers of the weights add to the loss."""
        weights = [v for v in self.model.trainable_weights if v.regularizer is not None]
        if not weights:
            return lambda _: 0.0

        def penalty(state: Any) -> Any:
            with scope_of(self.model, state):
                return sum(v.regularizer(v) for v in weights)

        if self._penalty is None:
            self._penalty = jax.jit(penalty)
        compiled = self._penalty
        return lambda state: float(compiled(state))

    def _by_fit(self) -> StepFunction:
        """The step of `fit`, which is compiled here, as it would be by its first call.

        What a trace draws from the random states of Python, it does not draw again in the training.
        """

        def step(state: Any, batch: Any) -> Any:
            _, after = self._train(state, iter([batch]))
            return tuple(list(part) for part in after)

        with values_kept(self._held):
            step(jax.tree.map(jnp.copy, state_of(self.model)), self._batch)
        return step

    def _by_own(self, batch: Any, others: list[Any]) -> StepFunction:
        """A step that is dropped with this object; `others` are its activations."""

        def step(state: Any, batch: Any) -> Any:
            # The metrics need no updates, and those that are not built yet would be made here.
            with replaced(self.model, "compute_metrics", lambda *_args, **_kwargs: {}):
                _, after = self.model.train_step(state, batch)
            return tuple(list(part) for part in after)

        if self._runner.runs_eagerly():
            return step
        key = str((keras.tree.map_structure(lambda x: None if x is None else (x.shape, x.dtype), batch), others))
        if key not in self._own:
            self._own[key] = jax.jit(step, donate_argnums=0)
        return self._own[key]


def _place(variables: list[Any], variable: Any) -> int:
    return next(place for place, other in enumerate(variables) if other is variable)
