"""What one run of a model's own `train_step` is made to leave behind: activations, gradients, gates, attention, loss.

While a `Recording` is installed, each layer's `call` passes its output through a tap whose backward side sees
dL/d(output), each layer's `activation` shows what enters it, and the optimizers give their gradients away and apply
nothing. These are instance attributes, set past Keras's trackers and taken away again; the model's classes, its graph
and its own compiled functions are not touched. Knows the backend by its `Frame` alone.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import keras
from keras import ops

from ..layers import attention, catalogue, table
from ..layers.inside import layers_below, own_weights, with_layers_below
from ..theory import gains
from . import recurrence
from .engines import Frame
from .hooks import replaced

MAX_CALLS = 4
"""Calls of one layer that get a row each; a layer that is called more often is the body of an unrolled loop. What
stands below a `TimeDistributed` is that by design: its first time step is looked at."""

ATTENTION_QUERIES = 64
"""Queries of an attention layer whose weights are looked at."""

_NOTHING = gains.ActivationFacts(None, None, None)


@dataclass(eq=False)
class Call:
    """One observed call of one layer: the tensors that it left."""

    layer: Any
    number: int
    """1 for the layer's first call."""
    output: Any
    """What goes on from the tap, whose label is the number of calls with an output before this one; None where the
    layer has no row: a container returns what its last layer returned, and that layer has the row."""
    arguments: list[Any]
    value: Any = None
    """The output as it was then, for statistics; as all tensors below."""
    argument: Any = None
    """The first of the arguments, where it is not what another call gave."""
    preactivation: Any = None
    passed: list[Any] = field(default_factory=list)
    """The gradient at what enters an activation of the person's own: its backward side need not be its slope."""
    backward: Any = None
    """The gradient at the output; where the loss passes it by, at the logits that it takes instead."""
    gates: Any = None
    attention: Any = None
    logits: Any = None
    """What the weights of Keras's own attention layers are the softmax of; 0 where masked."""
    through_time: list[Any] = field(default_factory=list)
    """The gradient at the sequence that enters a recurrent layer."""
    mask: Any = None
    """The mask of that sequence."""


@dataclass(eq=False)
class Recording:
    """The calls, gradients and loss of one run of `train_step`, in the order in which they happened."""

    model: Any
    frame: Frame
    calls: list[Call] = field(default_factory=list)
    gradients: dict[int, Any] = field(default_factory=dict)
    """id of the Keras variable -> dL/d(variable), as the optimizer was given it."""
    applied: dict[int, Any] = field(default_factory=dict)
    """id of the Keras variable -> the optimizer that was asked to update it."""
    loss: Any = None
    penalty: Any = None
    """What regularizers and the model's own `add_loss` add to it; None where nothing does."""
    scaled: bool = False
    """Whether the loss was multiplied by `scale`."""
    scale: Any = None
    """Factor by which a loss-scaling optimizer is to multiply the loss, and so the gradients; None for its own."""
    activations: Mapping[tuple[int, str], gains.ActivationFacts] = field(default_factory=dict)
    """What `describe.activations` says of the model: it is asked for before the run, and nothing is evaluated in it."""
    _pending: dict[int, dict[str, Any]] = field(default_factory=dict)
    _tapped: dict[int, Any] = field(default_factory=dict)
    _looped: set[int] = field(default_factory=set)
    _inner: list[list[range]] = field(default_factory=list)
    """Of each layer whose call is under way, the operations of the layers that it has called."""

    @contextlib.contextmanager
    def installed(self) -> Iterator[Recording]:
        """Hooks into the model for the length of the block; leaves it as it was, also after an exception."""
        with contextlib.ExitStack() as stack:
            for layer in observable_layers(self.model):
                if isinstance(layer, keras.layers.TimeDistributed):
                    self._looped |= {id(inner) for inner in layers_below(layer)}
                stack.enter_context(replaced(layer, "call", self._observing(layer, layer.call)))
                if callable(getattr(layer, "activation", None)) and not isinstance(layer, keras.layers.RNN):
                    stack.enter_context(replaced(layer, "activation", self._entering(layer, layer.activation)))
                watched = table.facts(layer).attention
                if watched is not None and catalogue.unchanged(layer, watched.method):
                    method = self._attending(layer, getattr(layer, watched.method), watched.weights)
                    stack.enter_context(replaced(layer, watched.method, method))
            stack.enter_context(self.frame.gradients(optimizers(self.model), self._take))
            for optimizer in optimizers(self.model):
                if scales_loss(optimizer) and self.scale is not None:
                    stack.enter_context(replaced(optimizer, "scale_loss", self._scaling))
            stack.enter_context(replaced(self.model, "compute_loss", self._losing(self.model.compute_loss)))
            if getattr(self.model.train_step, "__func__", None) is keras.Model.train_step:
                # Nobody looks at the metrics of a shadow step; to make their variables, it would be traced twice.
                stack.enter_context(replaced(self.model, "compute_metrics", lambda *_args, **_kwargs: {}))
            yield self

    def _observing(self, layer: Any, call: Callable[..., Any]) -> Callable[..., Any]:
        def observed(*args: Any, **kwargs: Any) -> Any:
            if not self.frame.here() or not self.frame.first_replica():
                return call(*args, **kwargs)
            start = self.frame.position()
            self._inner.append([])
            watched = self._watched(layer, args, kwargs) if isinstance(layer, keras.layers.RNN) else args
            try:
                outputs = call(*watched, **kwargs)
            finally:
                inner = self._inner.pop()
            weights = self.frame.attention(layer, start, inner)
            if weights is not None:
                with self.frame.unrecorded():
                    few = self.frame.snapshot(_few_samples(weights))
                    self._pending.setdefault(id(layer), {}).setdefault("attention", few)
            tapped = self._tap_first(layer, [*args, *kwargs.values()], outputs)
            if self._inner:
                self._inner[-1].append(range(start, self.frame.position()))
            return tapped

        return observed

    def _watched(self, layer: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[Any, ...]:
        """The arguments of a recurrent layer, of which the sequence is tapped: its gradient has passed through time."""
        sequence: Any = args[0] if args else None
        if not self.frame.sees(sequence) or len(sequence.shape) < 3 or not layer.trainable_weights:
            return args
        pending = self._pending.setdefault(id(layer), {})
        pending["through_time"] = []
        pending["mask"] = kwargs.get("mask", args[2] if len(args) > 2 else None)
        beside = self.frame.value(layer.trainable_weights[0])
        return self.frame.tap(sequence, pending["through_time"].append, beside=beside), *args[1:]

    def _tap_first(self, layer: Any, arguments: list[Any], outputs: Any) -> Any:
        flat = keras.tree.flatten(outputs)
        index = next((i for i, x in enumerate(flat) if self.frame.sees(x)), None)
        number = 1 + sum(call.layer is layer for call in self.calls)
        pending = self._pending.pop(id(layer), {})
        if index is None or number > (1 if id(layer) in self._looped else MAX_CALLS):
            return outputs
        call = Call(layer, number, None, [x for x in keras.tree.flatten(arguments) if self.frame.sees(x)])
        entered = pending.pop("entered", None)
        vars(call).update(pending)
        if id(flat[index]) in self._tapped:
            if call.attention is not None:
                self.calls.append(call)
            return outputs
        if isinstance(layer, keras.layers.RNN):
            if call.arguments:
                with self.frame.unrecorded():
                    gates, candidate = recurrence.gate_preactivations(self.frame, layer, call.arguments[0])
                    call.gates = None if gates is None else self.frame.snapshot(gates)
                    call.preactivation = None if candidate is None else self.frame.snapshot(candidate)
        elif call.preactivation is None and call.arguments and not own_weights(layer) and self._activates(layer):
            entered, call.preactivation = call.arguments[0], self.frame.snapshot(call.arguments[0])
        if call.arguments and id(call.arguments[0]) not in self._tapped:
            call.argument = self.frame.snapshot(call.arguments[0])

        def seen(dy: Any) -> None:
            call.backward = dy

        call.output = flat[index] = self.frame.tap(flat[index], seen, len(self._tapped), call.arguments, entered)
        call.value = self.frame.snapshot(call.output)
        self._tapped[id(call.output)] = call.output
        self.calls.append(call)
        return keras.tree.pack_sequence_as(outputs, flat)

    def _entering(self, layer: Any, activation: Callable[..., Any]) -> Callable[..., Any]:
        def entered(x: Any, *args: Any, **kwargs: Any) -> Any:
            if self.frame.sees(x) and self._activates(layer) and self.frame.first_replica():
                pending = self._pending.setdefault(id(layer), {})
                if "preactivation" not in pending and _is_of_ones_own(activation):
                    pending["passed"] = []
                    x = self.frame.tap(x, pending["passed"].append)
                if "preactivation" not in pending:
                    x = pending["entered"] = self.frame.entering(x)
                    pending["preactivation"] = self.frame.snapshot(x)
            return activation(x, *args, **kwargs)

        return entered

    def activation(self, layer: Any, name: str = "activation") -> gains.ActivationFacts:
        """What is known of the activation that a layer applies, or is."""
        return self.activations.get((id(layer), name), _NOTHING)

    def _activates(self, layer: Any) -> bool:
        return self.activation(layer).name is not None

    def _attending(self, layer: Any, method: Callable[..., Any], weights_of: Callable[..., Any]) -> Callable[..., Any]:
        def attended(*args: Any, **kwargs: Any) -> Any:
            first = next(iter([*args, *kwargs.values()]), None)
            if self.frame.sees(first) and self.frame.first_replica():
                # Of a kind of score or mask that is not known, there is no row, and no fault.
                with self.frame.unrecorded(), contextlib.suppress(Exception):
                    found = weights_of(*args, **kwargs)
                    if found is not None:
                        weights, logits = (self.frame.snapshot(_few_samples(x)) for x in found)
                        self._pending.setdefault(id(layer), {}).update(attention=weights, logits=logits)
            return method(*args, **kwargs)

        return attended

    def _take(self, optimizer: Any, gradients: Any, variables: Any) -> None:
        if self.frame.first_replica():
            for gradient, variable in zip(gradients, variables, strict=False):
                self.applied.setdefault(id(variable), optimizer)
                if gradient is not None:
                    self.gradients.setdefault(id(variable), gradient)

    def _scaling(self, loss: Any) -> Any:
        self.scaled = True
        return loss * ops.cast(self.scale, loss.dtype)

    def _losing(self, compute_loss: Callable[..., Any]) -> Callable[..., Any]:
        def lost(*args: Any, **kwargs: Any) -> Any:
            loss = compute_loss(*args, **kwargs)
            if self.loss is None and self.frame.sees(loss) and self.frame.first_replica():
                self.loss = self.frame.snapshot(loss)
                if type(self.model).compute_loss is keras.Model.compute_loss:
                    with self.frame.unrecorded():
                        added = [ops.sum(ops.cast(one, "float32")) for one in self.model.losses]
                        self.penalty = self.frame.snapshot(sum(added[1:], added[0])) if added else None
            return loss

        return lost


def observable_layers(model: Any) -> list[Any]:
    """The model and all layers below it, once each, less those that have no output of their own.

    The cells of a recurrent layer run in its loop; a layer that serves as another layer's `activation` is that layer's.
    """
    hidden: set[int] = set()
    for layer in with_layers_below(model):
        if isinstance(layer, keras.layers.RNN):
            hidden |= {id(inner) for inner in layers_below(layer)}
        if isinstance(getattr(layer, "activation", None), keras.layers.Layer):
            hidden.add(id(layer.activation))
    unique = {id(layer): layer for layer in with_layers_below(model) if id(layer) not in hidden}
    return list(unique.values())


def optimizers(model: Any) -> list[Any]:
    """All optimizers that the model holds as attributes: a model with a `train_step` of its own may have several."""
    found: dict[int, Any] = {}
    for value in vars(model).values():
        members = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else [value]
        found.update({id(member): member for member in members if isinstance(member, _Optimizer)})
    return list(found.values())


_Optimizer: Any = keras.optimizers.Optimizer


def scales_loss(optimizer: Any) -> bool:
    """Whether `optimizer.scale_loss` changes the loss."""
    return isinstance(optimizer, keras.optimizers.LossScaleOptimizer) or optimizer.loss_scale_factor is not None


def _is_of_ones_own(activation: Any) -> bool:
    name = getattr(activation, "__name__", "")
    return not isinstance(activation, keras.layers.Layer) and getattr(keras.activations, name, None) is not activation


def _few_samples(weights: Any) -> Any:
    """Attention weights of any rank as `[samples * heads, queries, keys]`, of some samples and queries."""
    weights = ops.cast(weights[: attention.SAMPLES], "float32")
    queries, keys = ops.shape(weights)[-2:]
    weights = ops.reshape(weights, (-1, queries, keys))
    return weights[:, :: max(1, queries // ATTENTION_QUERIES)] if isinstance(queries, int) else weights
