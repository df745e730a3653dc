"""One shadow step: a model's own `train_step` on a small fixed batch, everything recorded, nothing changed.

The step is run beside the training, never within it: reading an intermediate of the real step would stop the compiler
from fusing it, and the numbers of the training would change. What the shadow step writes (batch-norm averages, metrics,
random seeds, and the weights themselves where `train_step` is the user's own) is put back, whatever happens.

What comes back are thinned samples of the tensors, and their statistics are taken outside. The step is traced once and
kept; it is neither compiled by XLA nor rewritten by TensorFlow's graph optimizer. Both take far longer than all the
audits of a training take to run, and the second fuses away what is to be seen: on the CPU, a fused ReLU turns NaN
into 0.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import random
from collections.abc import Iterable, Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import config_pb2
from tensorflow.python.eager import context as tf_context

from . import describe, duplicates, statistics
from .batch import batch_size, unpack
from .recording import Recording, UnobservableError, optimizers, scales_loss
from .records import NAN, Histogram, LayerInfo, LossKind, Snapshot, Statistics
from .rows import Row, as_columns, rows_of, statistics_of, tensors_of

_HISTOGRAM_OF = {"weight": "weights", "activation": "activations", "gradient": "gradients"}
_READS = frozenset({"ReadVariableOp", "ResourceGather", "ResourceGatherNd", "VariableShape", "VarIsInitializedOp"})
"""Operations that take a variable and leave it as it is."""


@dataclasses.dataclass(eq=False)
class _Layout:
    """What the tensors that a shadow step returns are, the loss behind them left out."""

    rows: list[Row]
    parts: list[tuple[int, str]]
    """Of each tensor its row, and the prefix of its statistics or `entropy`."""
    scaled: bool
    """Whether the gradients are those of a scaled loss."""


def require_tensorflow(what: str) -> None:
    """RuntimeError, with the remedy, where Keras runs on a backend that cannot be probed."""
    if keras.backend.backend() != "tensorflow":
        raise RuntimeError(
            f"{what} runs training steps on the TensorFlow backend, and Keras runs on {keras.backend.backend()!r}; "
            'set KERAS_BACKEND="tensorflow" before keras is imported. The initializers, gain() and fans() run on any.'
        )


class Probe:
    """Takes snapshots of a compiled model, always on the same batch, and leaves no trace on it.

    Args:
        model: A compiled `keras.Model` on the TensorFlow backend, built or not.
        batch: What `train_step` takes: `(x,)`, `(x, y)` or `(x, y, sample_weight)`, of tensors; see `first_samples`.
        histograms: Whether snapshots carry histograms.

    Raises:
        UnobservableError: By `measure`, where the training step hides its gradients in a nested function.
    """

    def __init__(self, model: Any, batch: Any, *, histograms: bool = True) -> None:
        self.model = model
        self.batch = batch
        self.histograms = histograms
        self._layout: _Layout | None = None
        self._layers: tuple[LayerInfo, ...] | None = None
        self.kernels: list[tuple[int, Any]] = []
        self.marked: list[Any] | None = None
        self._baseline: float | None = None
        self._loss_kind: LossKind = ""
        self._peak_rate: float | None = None
        self._trace: Any = None
        self._written: list[Any] = []
        self._sample_kernels: Any = None
        self._scale: float | None = None

    def ready(self) -> bool:
        """Whether the shadow step can run now: an eager model must be built, which not every one can be beforehand."""
        if not self.model.run_eagerly or _all_built(self.model):
            return True
        try:
            self.model._symbolic_build(data_batch=self.batch)
        except Exception:
            return False
        return True

    def mark(self) -> None:
        """Remembers the weights, so that the next snapshot can tell by how much one update has changed them."""
        if self._layers is not None:
            self.marked = self._kernel_samples()

    def measure(self, step: int, *, updates: int = 1) -> Snapshot:
        """The snapshot of the model as it is.

        Args:
            step: Number of updates that were made so far.
            updates: Number of them since `mark`; the update ratio is that of one of them.

        Returns:
            A snapshot whose `layers` are the same at each call.
        """
        tensors = self._run_scaled()
        layout = self._layout
        assert layout is not None
        if self._layers is None:
            self._describe(layout)
        values: list[dict[str, float]] = [{} for _ in layout.rows]
        histograms: dict[str, dict[str, Histogram]] = {}
        for (i, prefix), tensor in zip(layout.parts, tensors[:-1], strict=True):
            row = layout.rows[i]
            if prefix == "entropy":
                values[i]["attention_entropy"] = statistics.entropy(tensor)
                continue
            if prefix in ("backward", "gradient") and layout.scaled:
                tensor = tensor / np.float32(self._scale)
            values[i] |= statistics_of(row, prefix, tensor)
            if self.histograms and prefix in _HISTOGRAM_OF and row.info.role in ("layer", "weight"):
                counted = statistics.histogram(tensor)
                if counted is not None:
                    histograms.setdefault(_HISTOGRAM_OF[prefix], {})[row.info.path] = counted
        weights = {i: tensor for (i, prefix), tensor in zip(layout.parts, tensors, strict=False) if prefix == "weight"}
        for i, ratio in self._update_ratios(weights, updates):
            values[i]["update_log10"] = ratio
        assert self._layers is not None
        return Snapshot(
            step=step,
            layers=self._layers,
            statistics=tuple(Statistics(**row) for row in values),
            loss=float(tensors[-1]),
            baseline_loss=self._baseline,
            batch_size=batch_size(self.batch),
            histograms=histograms,
            optimizer=_kind(self._optimizer),
            learning_rate=_number(self._optimizer, "learning_rate"),
            peak_rate=self._peak_rate,
            momentum=_number(self._optimizer, "momentum") or 0.0,
            loss_kind=self._loss_kind,
        )

    def duplicates(self) -> dict[str, str]:
        """Row path -> path of an earlier row whose kernel has the same units, as the weights are now."""
        rows = [] if self._layout is None else self._layout.rows
        return duplicates.repeated({r.info.path: (r.owner, r.variable) for r in rows if r.variable is not None})

    def update(self) -> None:
        """One real update of the model on the batch. For trials, within `everything_kept`."""
        self.model.train_step(self.batch)

    @contextlib.contextmanager
    def everything_kept(self) -> Iterator[None]:
        """Puts back all that a training step changes, weights and optimizers included, at the end of the block."""
        with python_state_kept(), _variables_kept(_all_variables(self.model)):
            yield

    @property
    def _optimizer(self) -> Any:
        return next(iter(optimizers(self.model)), None)

    def _describe(self, layout: _Layout) -> None:
        weights = {row.info.path: row.variable for row in layout.rows if row.variable is not None}
        repeated = self.duplicates()
        self._layers = tuple(
            dataclasses.replace(row.info, duplicate_of=repeated.get(row.info.path)) for row in layout.rows
        )
        self.kernels = [(i, weights[row.info.path]) for i, row in enumerate(layout.rows) if row.info.path in weights]
        _, y, sample_weight = unpack(self.batch)
        self._loss_kind = describe.loss_kind(self.model)
        self._baseline = describe.baseline_loss(self.model, y, sample_weight)
        self._peak_rate = _peak_rate(self._optimizer)

    # The run

    def _run_scaled(self) -> list[statistics.Array]:
        """A shadow step, with a loss scale that its float16 gradients survive, as the optimizer would find one."""
        if self._scale is None:
            scaling = [optimizer for optimizer in optimizers(self.model) if scales_loss(optimizer)]
            self._scale = float(scaling[0].scale_loss(tf.constant(1.0))) if scaling else 1.0
        tensors = self._run()
        while self._scale > 1.0 and self._overflows(tensors):
            self._scale = max(1.0, self._scale / 16.0)
            tensors = self._run()
        return tensors

    def _overflows(self, tensors: list[statistics.Array]) -> bool:
        assert self._layout is not None
        broken = {
            prefix
            for (_, prefix), tensor in zip(self._layout.parts, tensors[:-1], strict=True)
            if not np.isfinite(tensor).all()
        }
        return bool(broken & {"backward", "gradient"}) and not broken & {"activation", "preactivation"}

    def _run(self) -> list[statistics.Array]:
        """One shadow step; the thinned tensors, and the loss behind them."""
        tensors = self._run_eagerly() if self.model.run_eagerly else self._run_traced()
        return _on_host(tensors)

    def _run_traced(self) -> list[Any]:
        if self._trace is None:
            variables = len(self.model.variables)
            with python_state_kept() as forget:
                self._trace = tf.function(self._step, autograph=False).get_concrete_function(
                    self.batch, tf.constant(1.0)
                )
                if len(self.model.variables) > variables:
                    forget()  # what was drawn to build the model is not drawn again
            self._written = _written_variables(self._trace.graph)
        with _variables_kept(self._written), _unoptimized():
            return list(self._trace(self.batch, tf.constant(self._scale)))

    def _run_eagerly(self) -> list[Any]:
        if not self.ready():
            raise UnobservableError("the model runs eagerly and cannot be built without running it")
        with python_state_kept(), _variables_kept(_all_variables(self.model)):
            return self._step(self.batch, tf.constant(self._scale))

    def _step(self, batch: Any, scale: Any) -> list[Any]:
        """The shadow step on every replica; the tensors of the first one."""
        strategy = self.model.distribute_strategy
        recording = self._recording(scale)
        if strategy.num_replicas_in_sync == 1:
            return self._step_on_replica(batch, recording)
        found: list[Any] = []
        strategy.run(lambda data: found.extend(self._step_on_replica(data, recording)), args=(batch,))
        return found

    def _recording(self, scale: Any) -> Recording:
        graph = None if tf.executing_eagerly() else tf.compat.v1.get_default_graph()
        scaled = any(scales_loss(optimizer) for optimizer in optimizers(self.model))
        return Recording(self.model, graph, scale=scale if scaled else None)

    def _step_on_replica(self, batch: Any, recording: Recording) -> list[Any]:
        train_step = self.model.train_step
        # A nested function would hide the gradients, and would keep the trace in which they are applied nowhere.
        train_step = getattr(train_step, "python_function", train_step)
        with recording.installed():
            train_step(batch)
        if not recording._on_first_replica():
            return []
        rows = list(rows_of(recording, batch))
        tensors, parts = tensors_of(rows)
        if self._layout is None:
            self._layout = _Layout(
                [dataclasses.replace(row, tensors={}, probabilities=None) for row in rows], parts, recording.scaled
            )
        loss = tf.constant(NAN) if recording.loss is None else tf.reduce_mean(tf.cast(recording.loss, tf.float32))
        return [*tensors, loss]

    # The change of the weights

    def _kernel_samples(self) -> list[statistics.Array]:
        if self._sample_kernels is None:
            assert self._layout is not None
            rows = [row for row in self._layout.rows if row.variable is not None]

            def sample() -> list[Any]:
                return [as_columns(row.owner, row.variable, tf.convert_to_tensor(row.variable.value)) for row in rows]

            self._sample_kernels = tf.function(sample, autograph=False)
        with _unoptimized():
            return _on_host(self._sample_kernels())

    def _update_ratios(self, weights: dict[int, statistics.Array], updates: int) -> Iterator[tuple[int, float]]:
        """Row and update ratio of each kernel that has moved; `weights` holds the samples of them as they are now."""
        before, self.marked = self.marked, None
        for (i, kernel), old in zip(self.kernels, before or (), strict=False):
            with np.errstate(invalid="ignore", over="ignore"):  # infinite weights are found by other columns
                change = weights[i] - old
            size, moved = statistics.rms(old), statistics.rms(change) / updates
            if kernel.trainable and size > 0 and moved > 0 and math.isfinite(moved / size):
                yield i, math.log10(moved / size)


def _on_host(tensors: Iterable[Any]) -> list[statistics.Array]:
    with np.errstate(over="ignore"):  # a float64 past the range of float32 is infinite here
        return [np.asarray(tensor).astype(np.float32, copy=False) for tensor in tensors]


# What is put back


@contextlib.contextmanager
def _unoptimized() -> Iterator[None]:
    """Switches TensorFlow's graph optimizer off for the functions that this thread calls within the block."""
    context = tf_context.context()
    kept = context.function_call_options
    config = config_pb2.ConfigProto.FromString(kept.config_proto_serialized)
    config.graph_options.rewrite_options.disable_meta_optimizer = True
    context.function_call_options = tf_context.FunctionCallOptions(config_proto=config)
    try:
        yield
    finally:
        context.function_call_options = kept


@contextlib.contextmanager
def _variables_kept(variables: list[Any]) -> Iterator[None]:
    """Puts the values of these TensorFlow variables back, whatever the block did to them.

    A read shares the variable's buffer and a write gives it another one: keeping costs an operation, no copy.
    """
    values = [variable.read_value() for variable in variables]
    try:
        yield
    finally:
        for variable, value in zip(variables, values, strict=True):
            variable.assign(value, read_value=False)


@contextlib.contextmanager
def python_state_kept() -> Iterator[Any]:
    """Puts back the random states of Python and numpy, unless the yielded function was called."""
    states = (random.getstate(), np.random.get_state())
    kept = [True]
    try:
        yield kept.clear
    finally:
        if kept:
            random.setstate(states[0])
            np.random.set_state(states[1])


def _written_variables(graph: Any) -> list[Any]:
    """The variables that a traced graph may write: those that it hands to any operation that does more than read."""
    outer = {id(inner): id(handle) for handle, inner in graph.captures}
    written = {
        outer.get(id(tensor))
        for op in graph.get_operations()
        if op.type not in _READS
        for tensor in op.inputs
        if tensor.dtype == tf.resource
    }
    return [variable for variable in graph.variables if id(variable.handle) in written]


def _all_variables(model: Any) -> list[Any]:
    held = [*model.variables, *model.metrics_variables, keras.random.SeedGenerator().state]
    for optimizer in optimizers(model):
        held.extend(optimizer.variables)
    return list({id(v): v.value for v in held if isinstance(v.value, tf.Variable)}.values())


def _all_built(model: Any) -> bool:
    parts = (model._compile_metrics, model._compile_loss, *model._flatten_layers())
    return all(part is None or part.built for part in parts)


def updates_made(model: Any) -> int:
    """Updates that the model's optimizer has made so far; 0 where it has none."""
    optimizer = next(iter(optimizers(model)), None)
    return 0 if optimizer is None else int(optimizer.iterations.numpy())


def _inner(optimizer: Any) -> Any:
    """The optimizer; of one that scales the loss, the one within."""
    return getattr(optimizer, "inner_optimizer", optimizer)


def _kind(optimizer: Any) -> str:
    return "" if optimizer is None else type(_inner(optimizer)).__name__


def _peak_rate(optimizer: Any) -> float | None:
    """The largest value of a learning rate schedule, as far as some steps up to a million tell; None without one."""
    schedule = getattr(_inner(optimizer), "_learning_rate", None)
    if not isinstance(schedule, keras.optimizers.schedules.LearningRateSchedule):
        return None
    with contextlib.suppress(Exception):  # one of the user's own may want what only training gives
        return max(float(schedule(step)) for step in (0, *(n * 10**k for k in range(6) for n in (1, 2, 5, 10))))
    return None


def _number(optimizer: Any, name: str) -> float | None:
    """A setting of the optimizer."""
    try:
        return float(getattr(_inner(optimizer), name))
    except (TypeError, ValueError, AttributeError):
        return None
