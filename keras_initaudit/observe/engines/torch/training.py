"""PyTorch: real updates of a model on one batch, again and again, after which everything is as it was.

They are made by Keras's own training step, as it is: a step of a person's own is code that may do anything each time
that it runs, and is not run for a trial. What layers of their own count, exchange and draw is put back.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import keras
import torch

from ...batch import first_samples
from ...hooks import replaced
from .. import NoTrialError, Update
from ..starting import (
    RISING,
    activations_kept,
    batch_after,
    copied_optimizer,
    loss_tracker,
    prepared_optimizer,
    steps_an_update,
)
from ..undocumented import learning_rate_setting, names_kept, optimizer_state, weights_of
from .state import modules_kept, tensors_kept, variables
from .step import running


class TorchUpdates:
    """Updates of one model; see `Updates`."""

    def __init__(self, runner: Any, batch: Any, *, in_fit: bool) -> None:
        self._runner, self._batch = runner, batch
        self.model = runner.model
        self.samples = first_samples(batch, None)
        if type(self.model).train_step is not keras.Model.train_step:
            raise NoTrialError("the model's own training step runs as Python, and what that does is not known")
        self._tracker = loss_tracker(self.model)
        self._optimizer, self._rate, self._peak = self._prepared_optimizer(in_fit)
        held = [*variables(self.model, optimizers=True), *(v.value for v in optimizer_state(self._optimizer))]
        self._held = list({id(tensor): tensor for tensor in held}.values())

    def _prepared_optimizer(self, in_fit: bool) -> tuple[Any, Any, float]:
        """The optimizer that the updates are made with, the variable of a rate that warms up, and the peak of it."""
        with names_kept(), self._runner.randomness_kept():
            optimizer, peak = prepared_optimizer(self.model, in_fit, copied_optimizer)
        if peak is None:
            return optimizer, None, 0.0
        return optimizer, learning_rate_setting(getattr(optimizer, "inner_optimizer", optimizer)), peak

    @contextlib.contextmanager
    def kept(self) -> Iterator[None]:
        """See `Updates`."""
        tensors = tensors_kept(self._held)
        randomness = self._runner.randomness_kept()
        with names_kept(), randomness, activations_kept(self.model), tensors, modules_kept(self.model):
            yield

    @contextlib.contextmanager
    def start(self, change: Callable[[], Any] | None = None) -> Iterator[tuple[Any, Update]]:
        """See `Updates`."""
        with self.kept(), replaced(self.model, "optimizer", self._optimizer):
            _, batch = batch_after(change, self._batch, self.samples)
            if change is not None or int(self._optimizer.iterations):
                self._begin_optimizer()
            yield batch, self._update(batch)

    def _begin_optimizer(self) -> None:
        """Gives the optimizer the state that a freshly built copy of it has for the weights as they are now."""
        peak = None if self._rate is None else self._peak
        fresh = copied_optimizer(self._optimizer, weights_of(self._optimizer), peak)
        with torch.no_grad():
            for variable, new in zip(optimizer_state(self._optimizer), optimizer_state(fresh), strict=True):
                if variable is not new:
                    variable.value.copy_(new.value)

    def _update(self, batch: Any) -> Update:
        tracker, model = self._tracker, self.model
        steps = steps_an_update(self._optimizer)
        weights = [v for v in model.trainable_weights if v.regularizer is not None]
        made = itertools.count(1)

        def update() -> float:
            tracker.reset_state()
            if self._rate is not None:
                self._rate.assign(self._peak * min(1.0, next(made) / RISING))
            with torch.no_grad():
                taken_off = float(sum(v.regularizer(v) for v in weights))
            with running(model), replaced(model, "compute_metrics", lambda *_args, **_kwargs: {}):
                for _ in range(steps):
                    model.train_step(batch)
            return float(tracker.result()) - taken_off

        return update
