"""One run of the step on PyTorch, and what it says of itself once it is over."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import Any

import keras
import torch
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

from ...hooks import replaced
from .. import Use
from ..undocumented import (
    cross_entropies,
    is_wrapped,
    logits_of,
    mask_of,
    parameter_of,
    runs_backward,
    weights_of,
    with_mask,
)
from .graph import Reading, Trace


class TorchFrame:
    """One run of the step, which runs as it is.

    Args:
        model: Whose step it is.
        trace: Writes down the operations; None where nobody asks for them.
    """

    def __init__(self, model: Any, trace: Trace | None = None, leaves: Sequence[Any] = ()) -> None:
        self._model, self._trace, self._leaves = model, trace, leaves
        self._taps: dict[int, tuple[int, int]] = {}
        self._passed_by: set[int] = set()
        self._probabilities: dict[int, Any] = {}
        self._looked_up: dict[int, list[Any]] = {}
        self._take: Callable[[Any, Sequence[Any], Sequence[Any]], None] = lambda *_: None
        self._taken = False

    def train(self, model: Any, batch: Any) -> None:
        """See `Frame`."""
        self._leaves = keras.tree.flatten(batch)
        with self._trace or contextlib.nullcontext(), self._noting():
            model.train_step(batch)
        if not self._taken:  # where a person updates the weights by hand
            found = [(v, v.value.grad) for v in model.trainable_variables if v.value.grad is not None]
            if found:
                self._given(_by_hand(), [gradient for _, gradient in found], [v for v, _ in found])

    # Gradients

    @contextlib.contextmanager
    def gradients(
        self, optimizers: Iterable[Any], take: Callable[[Any, Sequence[Any], Sequence[Any]], None]
    ) -> Iterator[None]:
        """See `Frame`.

        An optimizer of PyTorch leaves a weight without a gradient alone, its own state as well: for the length of its
        step there is none. That reaches also those that a schedule has wrapped, and those that the model does not hold.
        """
        self._take = take

        def taking(optimizer: Any) -> Callable[..., Any]:
            def apply(grads: Any, trainable_variables: Any = None) -> Any:
                self._given(optimizer, grads, trainable_variables or weights_of(optimizer))
                return optimizer.iterations

            return apply

        variables = {id(v.value): v for v in self._model.trainable_variables}
        hidden: list[tuple[Any, Any]] = []

        def before(optimizer: Any, args: Any, kwargs: Any) -> Any:
            closure = next((x for x in (*args[1:], *kwargs.values()) if callable(x)), None)
            loss = None
            if closure is not None:
                with torch.enable_grad():
                    loss = closure()
            parameters = [p for group in optimizer.param_groups for p in group["params"]]
            pairs = [(variables[id(p)], p.grad) for p in parameters if id(p) in variables]
            self._given(_described(optimizer), [g for _, g in pairs], [v for v, _ in pairs])
            for parameter in parameters:
                hidden.append((parameter, parameter.grad))
                parameter.grad = None
            return None if closure is None else ((optimizer, lambda: loss), {})

        def after(optimizer: Any, args: Any, kwargs: Any) -> None:
            del optimizer, args, kwargs
            for parameter, gradient in hidden:
                parameter.grad = gradient
            hidden.clear()

        with contextlib.ExitStack() as stack:
            for optimizer in optimizers:
                stack.enter_context(replaced(optimizer, "apply", taking(optimizer)))
            for handle in (register_optimizer_step_pre_hook(before), register_optimizer_step_post_hook(after)):
                stack.callback(handle.remove)
            yield

    def _given(self, optimizer: Any, gradients: Any, weights: Any) -> None:
        self._taken = True
        gradients, weights = list(gradients), list(weights)
        own = type(self._model).train_step is not keras.Model.train_step
        kept = [g if g is None else self._kept(g, w, own) for g, w in zip(gradients, weights, strict=False)]
        self._take(optimizer, kept, weights)

    def _kept(self, gradient: Any, weight: Any, own: bool) -> Any:
        """A gradient that nobody writes into any more; of a table, with the rows that were looked up."""
        gradient = gradient.detach()
        gradient = gradient.to_dense() if gradient.layout != torch.strided else gradient.clone() if own else gradient
        rows = self._looked_up.get(id(getattr(weight, "value", weight)))
        if rows is not None:
            setattr(gradient, ROWS, rows)
        return gradient

    # Tensors

    def sees(self, x: Any) -> bool:
        """See `Frame`."""
        return isinstance(x, torch.Tensor) and x.is_floating_point() and not x.is_meta and not is_wrapped(x)

    def here(self) -> bool:
        """See `Frame`."""
        return not runs_backward()

    def first_replica(self) -> bool:
        """See `Frame`."""
        return True

    @contextlib.contextmanager
    def unrecorded(self) -> Iterator[None]:
        """See `Frame`."""
        with torch.no_grad(), self._trace.paused() if self._trace is not None else contextlib.nullcontext():
            yield

    def tap(
        self,
        x: Any,
        seen: Callable[[Any], None],
        label: int | None = None,
        arguments: Sequence[Any] = (),
        entered: Any = None,
        beside: Any = None,
    ) -> Any:
        """See `Frame`."""
        del arguments, entered
        logits = logits_of(x)
        passes = self.sees(logits) and logits.requires_grad
        source = self._number(x)
        y = _Tap.apply(x, beside, seen)
        mask = mask_of(x)
        if mask is not None:
            y = with_mask(y, mask)
        if passes:
            self._probabilities[id(y)] = y
            y._keras_logits = logits
            logits.register_hook(lambda dy: seen(dy.detach()) if id(y) in self._passed_by else None)
        if label is not None and source is not None and self._trace is not None:
            self._taps[label] = (source, self._trace.number(y))
        return y

    def entering(self, x: Any) -> Any:
        """See `Frame`."""
        return x

    def snapshot(self, x: Any) -> Any:
        """See `Frame`."""
        with self.unrecorded():
            return x.detach().clone()

    def value(self, variable: Any) -> Any:
        """See `Frame`."""
        return variable.value.detach()

    def position(self) -> int:
        """See `Frame`."""
        return 0

    def attention(self, layer: Any, start: int, inner: Sequence[range]) -> Any:
        """See `Frame`."""
        del layer, start, inner

    # The run

    @contextlib.contextmanager
    def _noting(self) -> Iterator[None]:
        """Within the block, what a cross-entropy takes is known, and which rows of a table are looked up.

        Keras computes a cross-entropy from probabilities; as elsewhere, the gradient that counts is that of the logits.
        """

        def taking_probabilities(function: Callable[..., Any]) -> Callable[..., Any]:
            def noted(target: Any, output: Any, *args: Any, **kwargs: Any) -> Any:
                self._passed_by.add(id(output))
                return function(target, output, *args, **kwargs)

            return noted

        def embedding(rows: Any, weight: Any, *args: Any, **kwargs: Any) -> Any:
            if self.here():
                self._looked_up.setdefault(id(parameter_of(weight)), []).append(rows)
            return looking_up(rows, weight, *args, **kwargs)

        looking_up = torch.nn.functional.embedding
        holder, names = cross_entropies()
        with contextlib.ExitStack() as stack:
            for name in names:
                stack.enter_context(replaced(holder, name, taking_probabilities(getattr(holder, name))))
            stack.enter_context(replaced(torch.nn.functional, "embedding", embedding))
            yield

    def _number(self, x: Any) -> int | None:
        return None if self._trace is None else self._trace.number(x)

    def facts(self) -> TorchFacts:
        """What the run says of itself, now that it is over."""
        assert self._trace is not None
        return TorchFacts(self._trace, self._leaves, self._taps)


ROWS = "initaudit_rows"
"""The attribute of a gradient that holds the rows of a table that were looked up."""


class _Tap(torch.autograd.Function):
    """The identity, whose gradient is seen.

    What it gives is no view of what it takes: code that writes into it comes after the tap, in the backward pass too.
    """

    @staticmethod
    def forward(ctx: Any, x: Any, beside: Any, seen: Callable[[Any], None]) -> Any:
        del beside  # makes the result require a gradient
        ctx.seen = seen
        return x.detach()

    @staticmethod
    def backward(ctx: Any, dy: Any) -> Any:
        ctx.seen(dy.detach())
        return dy, None, None


class _Optimizer:
    """What the audit asks of an optimizer, of one of PyTorch."""

    def __init__(self, of: Any) -> None:
        self._of = of

    @property
    def iterations(self) -> int:
        """Updates made; 0 where it does not count them."""
        states = self._of.state.values() if self._of is not None else ()
        return max((int(state["step"]) for state in states if "step" in state), default=0)

    @property
    def learning_rate(self) -> float | None:
        """That of the first group."""
        return None if self._of is None else float(self._of.param_groups[0]["lr"])

    @property
    def momentum(self) -> float:
        """That of the first group."""
        return 0.0 if self._of is None else float(self._of.param_groups[0].get("momentum", 0.0))


def _described(optimizer: Any) -> Any:
    """It has the class's name."""
    return type(type(optimizer).__name__, (_Optimizer,), {})(optimizer)


def _by_hand() -> Any:
    return type("", (_Optimizer,), {})(None)


class TorchFacts:
    """What the operations of the training step say; those of the statistics are left out."""

    def __init__(self, trace: Trace, leaves: Sequence[Any], taps: dict[int, tuple[int, int]]) -> None:
        self._reading, self._taps = Reading(trace), taps
        self._number = trace.number
        self._leaves = [trace.number(x) if isinstance(x, torch.Tensor) else None for x in leaves]

    def flows(self, leaves: Collection[int]) -> dict[int, tuple[int, ...]]:
        """See `Facts`."""
        known = self._known({k: self._leaves[k] for k in leaves})
        # The names of the nearest come last.
        found = {label: list(self._reading.above(source, known)) for label, (source, _) in self._taps.items()}
        return {label: tuple(dict.fromkeys(reversed(sources))) for label, sources in found.items()}

    def _known(self, leaves: dict[int, int | None]) -> dict[int, int]:
        known = {number: -1 - k for k, number in leaves.items() if number is not None}
        return known | {output: label for label, (_, output) in self._taps.items()}

    def uses(self, weights: Sequence[Any]) -> dict[int, Use]:
        """See `Facts`."""
        data = [number for number in self._leaves if number is not None]
        outputs = {output for _, output in self._taps.values()}
        return self._reading.uses(data, outputs, {id(w): self._number(w.value) for w in weights})

    def looked_up(self, leaf: int) -> bool:
        """See `Facts`."""
        number = self._leaves[leaf]
        return number is not None and self._reading.looked_up(number)

    def unreached(self) -> set[int]:
        """See `Facts`."""
        return set()

    def activations(self) -> dict[int, str]:
        """See `Facts`."""
        found = {label: self._reading.activation(output) for label, (_, output) in self._taps.items()}
        return {label: name for label, name in found.items() if name is not None}

    def sums(self) -> list[tuple[set[int], ...]]:
        """See `Facts`."""
        return list(self._reading.sums(self._known(dict(enumerate(self._leaves)))))
