"""One run of the step on JAX, traced or eager, and what it says of itself once it is over."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import keras
from jax.ad_checkpoint import checkpoint_name
from keras.src.backend.jax import nn, numpy

from ...hooks import replaced
from .. import Use
from ..undocumented import mask_of, weights_of, with_mask
from . import graph as reading
from .lookup import LookedUp

Seen = Callable[[Any], None]
_CROSS_ENTROPIES = ("categorical_crossentropy", "sparse_categorical_crossentropy", "binary_crossentropy")


class JaxFrame:
    """One run of the step: what belongs to one trace, or is computed at once.

    A tensor that is differentiated has a tracer around the tracer of the trace: its primal is the value. Tensors of
    another trace (the body of a loop or of a mapped function) are let through unseen: they have no meaning outside it.

    Args:
        trace: A tensor of the trace; None where operations run at once.
        state: The state that the step is given; None for a forward pass alone.
    """

    def __init__(self, trace: Any = None, state: Any = None) -> None:
        self._trace = getattr(trace, "_trace", None)
        self._state = state
        self._model: Any = None
        self._heard: dict[int, list[Seen]] = {}
        self._probabilities: dict[int, list[bool]] = {}
        self._looked_up: dict[int, list[Any]] = {}
        self._kept: list[Any] = []  # with them, their ids would be given away
        self.arguments: dict[int, tuple[Any, Sequence[Any]]] = {}
        self.labelled: list[int] = []
        """Ids of the weights whose gradients have labels, in their order."""

    def train(self, model: Any, batch: Any) -> None:
        """See `Frame`."""
        self._model = model
        with contextlib.ExitStack() as stack:
            for name in _CROSS_ENTROPIES:
                stack.enter_context(replaced(nn, name, self._noticing(getattr(nn, name))))
            stack.enter_context(replaced(numpy, "take", self._looking_up(numpy.take)))
            model.train_step(self._state, batch)

    def _noticing(self, cross_entropy: Callable[..., Any]) -> Callable[..., Any]:
        """The function, which notices the probabilities that it is given and that a tap knows."""

        def noticed(target: Any, output: Any, from_logits: bool = False, **options: Any) -> Any:
            if not from_logits:
                self._probabilities.get(id(output), []).append(True)
            return cross_entropy(target, output, from_logits=from_logits, **options)

        return noticed

    def _looking_up(self, take: Callable[..., Any]) -> Callable[..., Any]:
        """The function, which notices what is looked up in which weight."""

        def looking_up(x: Any, indices: Any, axis: Any = None) -> Any:
            rows = _primal(jnp.asarray(indices))
            if isinstance(x, keras.Variable) and axis == 0 and len(x.shape) == 2 and self._is_here(rows):
                self._looked_up.setdefault(id(x), []).append(rows)
            return take(x, indices, axis)

        return looking_up

    @contextlib.contextmanager
    def gradients(
        self, optimizers: Iterable[Any], take: Callable[[Any, Sequence[Any], Sequence[Any]], None]
    ) -> Iterator[None]:
        """See `Frame`."""

        def taken(optimizer: Any, grads: Any, variables: Any = None) -> None:
            if variables is None:
                variables = weights_of(optimizer) if optimizer.built else self._model.trainable_variables
            labelled = [self._label(g, v) for g, v in zip(grads, variables, strict=False)]
            take(optimizer, labelled, variables)

        def applying(optimizer: Any) -> Callable[..., Any]:
            def apply(grads: Any, trainable_variables: Any = None) -> Any:
                taken(optimizer, grads, trainable_variables)
                return optimizer.iterations

            return apply

        def applying_stateless(optimizer: Any) -> Callable[..., Any]:
            def stateless_apply(optimizer_variables: Any, grads: Any, trainable_variables: Any) -> Any:
                taken(optimizer, grads)
                return trainable_variables, optimizer_variables

            return stateless_apply

        with contextlib.ExitStack() as stack:
            for optimizer in optimizers:
                stack.enter_context(replaced(optimizer, "apply", applying(optimizer)))
                stack.enter_context(replaced(optimizer, "stateless_apply", applying_stateless(optimizer)))
            yield

    def _label(self, gradient: Any, variable: Any) -> Any:
        if gradient is None or not self.sees(gradient):
            return gradient
        if isinstance(gradient, jax.core.Tracer):
            self.labelled.append(id(variable))
            gradient = checkpoint_name(gradient, f"{reading.GRADIENT}{len(self.labelled) - 1}")
        rows = self._looked_up.get(id(variable))
        return gradient if rows is None else LookedUp(gradient, rows)

    def sees(self, x: Any) -> bool:
        """See `Frame`."""
        if not isinstance(x, jax.Array) or not jnp.issubdtype(x.dtype, jnp.floating):
            return False
        return self._is_here(_primal(x))

    def _is_here(self, x: Any) -> bool:
        return not isinstance(x, jax.core.Tracer) or x._trace is self._trace

    def here(self) -> bool:
        """See `Frame`."""
        return True

    def first_replica(self) -> bool:
        """See `Frame`."""
        return True

    def unrecorded(self) -> contextlib.AbstractContextManager[None]:
        """See `Frame`."""
        return contextlib.nullcontext()

    def tap(
        self,
        x: Any,
        seen: Seen,
        label: int | None = None,
        arguments: Sequence[Any] = (),
        entered: Any = None,
        beside: Any = None,
    ) -> Any:
        """See `Frame`."""
        heard: list[Seen] = []
        y = self._identity(x, heard, None if label is None else f"{reading.TAP}{label}", beside)
        of_entered = None if entered is None else self._heard.get(id(entered))
        if of_entered is None:
            heard.append(seen)
        else:
            # Where the loss is a cross-entropy of these probabilities, what counts is the gradient before them.
            passed = self._probabilities[id(y)] = []
            heard.append(lambda dy: None if passed else seen(dy))
            of_entered.append(lambda dy: seen(dy) if passed else None)
        if label is not None:
            self.arguments[label] = (y, arguments)
        return y

    def entering(self, x: Any) -> Any:
        """See `Frame`."""
        return self._identity(x, [], None)

    def _identity(self, x: Any, heard: list[Seen], name: str | None, beside: Any = None) -> Any:
        """A tensor equal to `x`, the gradient of which each function in `heard` is given."""
        y = self._named(x, name) if beside is None and _primal(x) is x else self._watched(x, heard, name, beside)
        mask = mask_of(x)
        if mask is not None:
            with_mask(y, mask)
        self._heard[id(y)] = heard
        self._kept.append(y)
        return y

    def _named(self, x: Any, name: str | None) -> Any:
        if not isinstance(x, jax.core.Tracer):
            return jnp.array(x, copy=True)
        return checkpoint_name(x, "initaudit" if name is None else name)

    def _watched(self, x: Any, heard: list[Seen], name: str | None, beside: Any) -> Any:
        def forward(x: Any, _: Any) -> tuple[Any, None]:
            inner = self._named(x, name) if _primal(x) is x else self._watched(x, heard, name, None)
            return inner, None

        def backward(_: None, dy: Any) -> tuple[Any, Any]:
            given = _primal(dy)
            if self._is_here(given):
                for function in heard:
                    function(given)
            return dy, None if beside is None else jnp.zeros_like(_primal(beside))

        identity = jax.custom_vjp(lambda x, _: x)
        identity.defvjp(forward, backward)
        return identity(x, beside)

    def snapshot(self, x: Any) -> Any:
        """See `Frame`."""
        return _primal(x)

    def value(self, variable: Any) -> Any:
        """See `Frame`."""
        return jnp.asarray(variable.value)

    def position(self) -> int:
        """See `Frame`."""
        return 0

    def attention(self, layer: Any, start: int, inner: Sequence[range]) -> Any:
        """See `Frame`."""
        del layer, start, inner


def _primal(x: Any) -> Any:
    """The value of a tensor, without the tracers that differentiate."""
    while isinstance(x, jax.core.Tracer) and hasattr(x, "primal"):
        x = x.primal
    return x


class JaxprFacts:
    """What the jaxpr of a step says.

    Args:
        jaxpr: A closed one, of which the inputs are the variables, then the leaves of the batch.
        variables: The Keras variables among its inputs.
        sizes: Of each leaf of the batch the number of inputs that it is.
        labelled: Ids of the weights whose gradients have labels.
    """

    def __init__(self, jaxpr: Any, variables: Sequence[Any], sizes: Sequence[int], labelled: Sequence[int]) -> None:
        self._graph = reading.Graph(jaxpr)
        self._variables = {id(v): tensor for v, tensor in zip(variables, self._graph.inputs, strict=False)}
        self._groups = reading.leaves_of(self._graph, len(variables), sizes)
        self._labelled = labelled

    def _leaves(self, leaves: Collection[int]) -> dict[int, reading.Tensor]:
        return {-1 - k: self._groups[k][0] for k in leaves if len(self._groups[k]) == 1}

    def flows(self, leaves: Collection[int]) -> dict[int, tuple[int, ...]]:
        """See `Facts`."""
        return reading.flows(self._graph, self._leaves(leaves))

    def uses(self, weights: Sequence[Any]) -> dict[int, Use]:
        """See `Facts`."""
        data = [tensor for group in self._groups for tensor in group]
        outputs = [operation.outputs[0] for operation in self._graph.taps.values()]
        known = {id(w): self._variables[id(w)] for w in weights if id(w) in self._variables}
        return reading.uses(self._graph, data, outputs, known)

    def looked_up(self, leaf: int) -> bool:
        """See `Facts`."""
        return len(self._groups[leaf]) == 1 and reading.looked_up(self._graph, self._groups[leaf][0])

    def unreached(self) -> set[int]:
        """See `Facts`."""
        return {self._labelled[number] for number in reading.unreached(self._graph)}

    def activations(self) -> dict[int, str]:
        """See `Facts`."""
        return reading.activations(self._graph)

    def sums(self) -> list[tuple[set[int], ...]]:
        """See `Facts`."""
        return list(reading.sums(self._graph, self._leaves(range(len(self._groups)))))
