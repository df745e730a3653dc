"""One run of the step on TensorFlow, traced into a graph or eager, and what it says of itself once it is over."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import keras
import tensorflow as tf
from tensorflow.python.eager import record as tape_record

from ...hooks import replaced
from .. import Facts, UnobservableError, Use
from ..eager import EagerFacts
from ..undocumented import keras_made, weights_of
from . import graph as reading


class _Tap(NamedTuple):
    """A tensor that is observed on its way: what came in, what goes on, and what its layer was called with."""

    source: Any
    output: Any
    arguments: Sequence[Any]


class GraphFrame:
    """One run of the step: the graph that is traced, or eager execution.

    Tensors of another graph (the body of a loop or of a nested `tf.function`) are let through unseen: they have no
    meaning outside it.
    """

    def __init__(self, leaves: Sequence[Any] = ()) -> None:
        self.graph = _graph()
        self._leaves = leaves
        self._taps: dict[int, _Tap] = {}
        self._end: int | None = None

    def train(self, model: Any, batch: Any) -> None:
        """See `Frame`."""
        first = self.first_replica()
        if first:
            self._leaves = keras.tree.flatten(batch)
        # What is behind a compiled function, which would hide its gradients.
        getattr(model.train_step, "python_function", model.train_step)(batch)
        if first and self.graph is not None:
            self._end = len(self.graph.get_operations())

    @contextlib.contextmanager
    def gradients(
        self, optimizers: Iterable[Any], take: Callable[[Any, Sequence[Any], Sequence[Any]], None]
    ) -> Iterator[None]:
        """See `Frame`."""

        def taking(optimizer: Any) -> Callable[..., Any]:
            def apply(grads: Any, trainable_variables: Any = None) -> Any:
                if not self.here():
                    raise UnobservableError(
                        "the model's own train_step applies its optimizer inside a condition or a loop of the backend"
                    )
                take(optimizer, grads, weights_of(optimizer) if trainable_variables is None else trainable_variables)
                return optimizer.iterations

            return apply

        with contextlib.ExitStack() as stack:
            for optimizer in optimizers:
                stack.enter_context(replaced(optimizer, "apply", taking(optimizer)))
            yield

    def sees(self, x: Any) -> bool:
        """See `Frame`."""
        return isinstance(x, tf.Tensor) and x.dtype.is_floating and getattr(x, "graph", None) is self.graph

    def here(self) -> bool:
        """See `Frame`."""
        return _graph() is self.graph

    def first_replica(self) -> bool:
        """See `Frame`."""
        context = tf.distribute.get_replica_context()
        replica = None if context is None else context.replica_id_in_sync_group
        if isinstance(replica, tf.Tensor):
            replica = tf.get_static_value(replica)
        return not replica

    def unrecorded(self) -> Any:
        """See `Frame`."""
        return tape_record.stop_recording()

    def tap(
        self,
        x: Any,
        seen: Callable[[Any], None],
        label: int | None = None,
        arguments: Sequence[Any] = (),
        entered: Any = None,
        beside: Any = None,
    ) -> Any:
        """See `Frame`.

        It is what `tf.custom_gradient` does, less its registry, in which every traced tensor would stay for the life of
        the process.
        """
        del entered
        given: list[Any] = []

        def seen_here(dy: Any) -> None:
            given.append(dy)
            seen(dy)

        y = self._identity(x, seen_here, beside)
        logits = getattr(x, "_keras_logits", None)
        if self.sees(logits):
            # Cross-entropy takes what enters a softmax or sigmoid from here, past the output: so must this step.
            y._keras_logits = self._identity(logits, lambda dy: None if given else seen(dy))
        mask = getattr(x, "_keras_mask", None)
        if mask is not None:
            y._keras_mask = mask
        if label is not None:
            self._taps[label] = _Tap(x, y, arguments)
        return y

    def _identity(self, x: Any, seen: Callable[[Any], None], beside: Any = None) -> Any:
        with tape_record.stop_recording():
            y = tf.identity(x)

        def backward(dy: Any) -> Any:
            if self.here():
                seen(dy)
            return [dy] if beside is None else [dy, None]

        tape_record.record_operation("InitAuditTap", [y], [x] if beside is None else [x, beside], backward)
        return y

    def entering(self, x: Any) -> Any:
        """See `Frame`."""
        return x

    def snapshot(self, x: Any) -> Any:
        """See `Frame`."""
        return x

    def value(self, variable: Any) -> Any:
        """See `Frame`."""
        return tf.convert_to_tensor(variable.value)

    def position(self) -> int:
        """See `Frame`."""
        return 0 if self.graph is None else int(self.graph.version)

    def attention(self, layer: Any, start: int, inner: Sequence[range]) -> Any:
        """See `Frame`."""
        if self.graph is None or keras_made(layer):
            return None
        return reading.attention_weights(self.graph, start, inner)

    def facts(self, function: Any) -> Facts:
        """What the run says of itself, now that it is over; `function` is what it was traced into."""
        if self.graph is None:
            return EagerFacts(self._leaves, {label: (tap.output, tap.arguments) for label, tap in self._taps.items()})
        return _GraphFacts(function, self.graph.get_operations()[: self._end], self._leaves, self._taps)


def _graph() -> Any:
    """The graph that operations are added to now; None where they run."""
    return None if tf.executing_eagerly() else tf.compat.v1.get_default_graph()


class _GraphFacts:
    """What the operations of the training step say; those of the statistics, which come after them, are left out."""

    def __init__(self, function: Any, operations: list[Any], leaves: Sequence[Any], taps: dict[int, _Tap]) -> None:
        self._function = function  # with it, its graph would go
        self._operations, self._leaves, self._taps = operations, leaves, taps

    def flows(self, leaves: Collection[int]) -> dict[int, tuple[int, ...]]:
        """See `Facts`. The operations are followed backwards: an addition in a model's own `call` is seen."""
        known = {id(self._leaves[k]): -1 - k for k in leaves}
        known |= {id(tap.output): label for label, tap in self._taps.items()}
        # The names of the nearest come last.
        found = {label: list(reading.above(tap.source, known)) for label, tap in self._taps.items()}
        return {label: tuple(dict.fromkeys(reversed(sources))) for label, sources in found.items()}

    def uses(self, weights: Sequence[Any]) -> dict[int, Use]:
        """See `Facts`."""
        outputs = [tap.output for tap in self._taps.values()]
        return reading.uses(self._operations, self._function.graph.captures, self._leaves, outputs, weights)

    def looked_up(self, leaf: int) -> bool:
        """See `Facts`."""
        return reading.looked_up(self._leaves[leaf], self._operations)

    def unreached(self) -> set[int]:
        """See `Facts`."""
        return set()

    def activations(self) -> dict[int, str]:
        """See `Facts`."""
        found = {label: reading.raw_activation(tap.output) for label, tap in self._taps.items()}
        return {label: name for label, name in found.items() if name is not None}

    def sums(self) -> list[tuple[set[int], ...]]:
        """See `Facts`."""
        known = {id(leaf): -1 - k for k, leaf in enumerate(self._leaves)}
        known |= {id(tap.output): label for label, tap in self._taps.items()}
        return list(reading.sums(self._operations, known))
