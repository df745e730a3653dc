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
import random
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras.src.backend.common import global_state
from keras.src.random import seed_generator
from tensorflow.core.protobuf import config_pb2
from tensorflow.python.eager import context as tf_context

from ..records import NAN, Histogram, LayerInfo, LossKind, Snapshot, Statistics
from ..theory import gains
from . import describe, duplicates, measures, movement
from .batch import batch_size, first_samples, fixed_batch_size, unpack
from .rows import Row, as_columns, rows_of, statistics_of, tensors_of
from .taps import Recording, UnobservableError, optimizers, scales_loss

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
    optimizers: dict[int, Any]
    """id of a weight -> the optimizer that it is given to."""


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
        model: A compiled `keras.Model` on the TensorFlow backend. One that is not built is built by the first
            `measure`, as its `fit` would.
        batch: What `train_step` takes: `(x,)`, `(x, y)` or `(x, y, sample_weight)`, of tensors, or what `fit` hands to
            it.
        size: Number of its samples to use; a model that works with batches of one size only gets the whole batch.
            None for all of them.
        histograms: Whether snapshots carry histograms.
        data_runs_python: Whether Python functions of the data may run beside, in threads of their own: the random
            states of Python and numpy are theirs then, and are not put back.

    Raises:
        UnobservableError: By `measure`, where the training step hides its gradients in a nested loop or condition.
    """

    def __init__(
        self,
        model: Any,
        batch: Any,
        *,
        size: int | None = None,
        histograms: bool = True,
        data_runs_python: bool = False,
    ) -> None:
        self.model = model
        self._whole_batch = first_samples(batch, None)
        self.batch = self._whole_batch if size is None else first_samples(batch, size)
        self.histograms = histograms
        self._data_runs_python = data_runs_python
        self._activations: dict[tuple[int, str], gains.ActivationFacts] | None = None
        self._layout: _Layout | None = None
        self._layers: tuple[LayerInfo, ...] | None = None
        self.kernels: list[tuple[int, Any]] = []
        self.marked: list[Any] | None = None
        self._marked_states: dict[int, movement.State] = {}
        self._baseline: float | None = None
        self._loss_kind: LossKind = ""
        self._peak_rate: float | None = None
        self._trace: Any = None
        self._written: list[Any] = []
        self._sample_kernels: Any = None
        self._generator: Any = None
        self._scale: float | None = None

    def ready(self) -> bool:
        """Whether the shadow step can run now: an eager model must be built, which not every one can be beforehand."""
        if not self.model.run_eagerly or _all_built(self.model):
            return True
        try:
            self.model._symbolic_build(data_batch=self._whole_batch)
        except Exception:
            return False
        return True

    def mark(self) -> None:
        """Remembers the weights, so that the next snapshot can tell by how much one update has changed them."""
        if self._layers is not None:
            self.marked = self._kernel_samples()
            self._marked_states = self._optimizer_states()

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
            self._describe(layout, tensors)
        values: list[dict[str, float]] = [{} for _ in layout.rows]
        histograms: dict[str, dict[str, Histogram]] = {}
        for (i, prefix), tensor in zip(layout.parts, tensors[:-1], strict=True):
            row = layout.rows[i]
            if prefix == "entropy":
                values[i]["attention_entropy"] = measures.entropy(tensor)
                continue
            if prefix == "passed" or prefix.startswith("scale "):
                continue
            if prefix in ("backward", "gradient") and layout.scaled:
                tensor = tensor / np.float32(self._scale)
            values[i] |= statistics_of(row, prefix, tensor)
            if self.histograms and prefix in _HISTOGRAM_OF and row.info.role in ("layer", "weight"):
                counted = measures.histogram(tensor)
                if counted is not None:
                    histograms.setdefault(_HISTOGRAM_OF[prefix], {})[row.info.path] = counted
        weights = {i: tensor for (i, prefix), tensor in zip(layout.parts, tensors, strict=False) if prefix == "weight"}
        for i, columns in self._movement(weights, updates):
            values[i] |= columns
        parts = dict(zip(layout.parts, tensors, strict=False))
        for i, row in enumerate(layout.rows):
            if row.ends is not None and (i, "passed") in parts:
                passed, backward, before = (parts[i, prefix] for prefix in ("passed", "backward", "preactivation"))
                values[i]["activation_saturated"] = measures.blocked(passed, backward, before, row.ends)
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
        with self.randomness_kept():
            held = {id(variable): variable for variable in (*_all_variables(self.model), *self._written)}
            with _variables_kept(list(held.values())):
                yield

    @contextlib.contextmanager
    def randomness_kept(self) -> Iterator[None]:
        """Puts back every random state that is no variable of the model, at the end of the block."""
        with (
            _keras_seeds_kept(self._global_generator),
            _eager_seeds_kept(),
            _python_states_kept(wind_back=not self._data_runs_python),
        ):
            yield

    def _global_generator(self) -> Any:
        """The one that stands in for Keras's own; the kept trace uses its state, and so it is kept as well."""
        if self._generator is None:
            self._generator = keras.random.SeedGenerator(seed=0, name="initaudit_seed_generator")
        return self._generator

    @property
    def _optimizer(self) -> Any:
        """The first one that the training step uses: a step of the person's own may leave the compiled one alone."""
        used = self._layout.optimizers.values() if self._layout is not None else ()
        return next(iter((*used, *optimizers(self.model))), None)

    def _describe(self, layout: _Layout, tensors: list[measures.Array]) -> None:
        weights = {row.info.path: row.variable for row in layout.rows if row.variable is not None}
        repeated = self.duplicates()
        zeros: dict[int, tuple[str, ...]] = {}
        for (i, prefix), tensor in zip(layout.parts, tensors, strict=False):
            if prefix.startswith("scale ") and not tensor[0].any() and tensor[1].any():
                zeros[i] = (*zeros.get(i, ()), prefix.removeprefix("scale "))
        self._layers = tuple(
            dataclasses.replace(row.info, duplicate_of=repeated.get(row.info.path), zero_scales=zeros.get(i, ()))
            for i, row in enumerate(layout.rows)
        )
        self.kernels = [(i, weights[row.info.path]) for i, row in enumerate(layout.rows) if row.info.path in weights]
        _, y, sample_weight = unpack(self.batch)
        self._loss_kind = describe.loss_kind(self.model)
        self._baseline = describe.baseline_loss(self.model, y, sample_weight)
        self._peak_rate = _peak_rate(self._optimizer)

    # The run

    def _run_scaled(self) -> list[measures.Array]:
        """A shadow step, with a loss scale that its float16 gradients survive, as the optimizer would find one."""
        if self._scale is None:
            scaling = [optimizer for optimizer in optimizers(self.model) if scales_loss(optimizer)]
            self._scale = float(scaling[0].scale_loss(tf.constant(1.0))) if scaling else 1.0
        tensors = self._run()
        while self._scale > 1.0 and self._overflows(tensors):
            self._scale = max(1.0, self._scale / 16.0)
            tensors = self._run()
        return tensors

    def _overflows(self, tensors: list[measures.Array]) -> bool:
        assert self._layout is not None
        broken = {
            prefix
            for (_, prefix), tensor in zip(self._layout.parts, tensors[:-1], strict=True)
            if not np.isfinite(tensor).all()
        }
        return bool(broken & {"backward", "gradient"}) and not broken & {"activation", "preactivation"}

    def _run(self) -> list[measures.Array]:
        """One shadow step; the thinned tensors, and the loss behind them."""
        tensors = self._run_eagerly() if self.model.run_eagerly else self._run_traced()
        return _on_host(tensors)

    def _run_traced(self) -> list[Any]:
        if self._trace is None:
            self._build()
            try:
                self._trace = self._traced()
            except UnobservableError:
                raise
            except Exception:
                # A size may stand in the code of the model, where nothing tells it beforehand.
                if batch_size(self.batch) == batch_size(self._whole_batch):
                    raise
                self.batch = self._whole_batch
                self._trace = self._traced()
            self._written = _written_variables(self._trace.graph)
        with _variables_kept(self._written), _unoptimized():
            return list(self._trace(self.batch, tf.constant(self._scale)))

    def _build(self) -> None:
        """Makes the variables that the model does not have yet, and looks at its activations; see `_prepared`.

        A `tf.function` that makes variables is traced twice, and where it raises, they stay without values: the
        training could not go on. In a graph of its own they are made outside of it, with the values that they have in
        `fit`. What is drawn for it from the random states is not drawn again, and so not put back.
        """
        built = all(layer.built for layer in self.model._flatten_layers())
        if not built and self.model.distribute_strategy.num_replicas_in_sync == 1:
            graph = tf.__internal__.FuncGraph("InitAuditBuild")
            with graph.as_default(), tf.variable_creator_scope(_with_known_value):
                batch = keras.tree.map_structure(_placeholder, self._whole_batch)
                with self._recording(None).installed(), nested_functions_inlined():
                    _python_function(self.model.train_step)(batch)
        self._prepare()

    def _prepare(self) -> None:
        """What must be known before the step is recorded: the activations, and how large its batch has to be."""
        if fixed_batch_size(self.model) is not None:
            self.batch = self._whole_batch
        with self.everything_kept():
            self._activations = describe.activations(self.model)

    def _traced(self) -> Any:
        with self.randomness_kept():
            return tf.function(self._step, autograph=False).get_concrete_function(self.batch, tf.constant(1.0))

    def _run_eagerly(self) -> list[Any]:
        if not self.ready():
            raise UnobservableError("the model runs eagerly and cannot be built without running it")
        if self._activations is None:
            self._prepare()
        with self.everything_kept():
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
        return Recording(self.model, graph, scale=scale if scaled else None, activations=self._activations or {})

    def _step_on_replica(self, batch: Any, recording: Recording) -> list[Any]:
        with recording.installed(), nested_functions_inlined():
            _python_function(self.model.train_step)(batch)
        if not recording._on_first_replica():
            return []
        rows = list(rows_of(recording, batch))
        tensors, parts = tensors_of(rows)
        # Of the last trace: one that makes variables is followed by another one, which is the one that is run.
        self._layout = _Layout(
            [dataclasses.replace(row, tensors={}, probabilities=None, scales={}) for row in rows],
            parts,
            recording.scaled,
            recording.applied,
        )
        loss = tf.constant(NAN) if recording.loss is None else tf.reduce_mean(tf.cast(recording.loss, tf.float32))
        return [*tensors, loss]

    # The change of the weights

    def _kernel_samples(self) -> list[measures.Array]:
        if self._sample_kernels is None:
            assert self._layout is not None
            rows = [row for row in self._layout.rows if row.variable is not None]

            def sample() -> list[Any]:
                return [as_columns(row.owner, row.variable, tf.convert_to_tensor(row.variable.value)) for row in rows]

            # Not called by its name: TensorFlow would count the traces of all probes, and warn that they are many.
            self._sample_kernels = tf.function(sample, autograph=False).get_concrete_function()
        with _unoptimized():
            return _on_host(self._sample_kernels())

    def _optimizer_states(self) -> dict[int, movement.State]:
        used = {id(o): o for o in self._layout.optimizers.values()} if self._layout is not None else {}
        return {key: (iterations(o), _number(o, "learning_rate")) for key, o in used.items()}

    def _movement(self, weights: dict[int, measures.Array], updates: int) -> Iterator[tuple[int, dict[str, float]]]:
        """Row and columns of each kernel that is marked; `weights` holds the samples of them as they are now."""
        before, self.marked = self.marked, None
        layout, states = self._layout, self._optimizer_states()
        assert layout is not None
        updated = {key for key, old in self._marked_states.items() if movement.was_updated(old, states[key])}
        for (i, kernel), old in zip(self.kernels, before or (), strict=False):
            if not kernel.trainable:
                continue
            yield i, {"update_log10": movement.update_log10(old, weights[i], updates)}
            # Of what is gathered only the rows that were looked up move; float64 does not survive the cast of a sample.
            compared = "gradient" in layout.rows[i].matrices and kernel.dtype != "float64"
            if compared and id(layout.optimizers.get(id(kernel))) in updated:
                yield i, {"update_zero": movement.unchanged(old, weights[i])}


def _on_host(tensors: Iterable[Any]) -> list[measures.Array]:
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
def nested_functions_inlined() -> Iterator[None]:
    """Within the block a `tf.function` that is called runs as the Python function that it is.

    A function within a function would hide the gradients. And one that meets an error in its first trace has used up
    the only call in which it may make variables, so that the training could not call it any more.
    """
    before = tf.config.functions_run_eagerly()
    tf.config.run_functions_eagerly(True)
    try:
        yield
    finally:
        tf.config.run_functions_eagerly(before)


def _python_function(function: Any) -> Any:
    return getattr(function, "python_function", function)


def _with_known_value(make: Any, **options: Any) -> Any:
    """Makes a variable whose first value, as zeros of a known shape, is a tensor of the graph that is built."""
    known = tf.get_static_value(options["initial_value"]) if _is_symbolic(options.get("initial_value")) else None
    return make(**options if known is None else options | {"initial_value": known})


def _is_symbolic(value: Any) -> bool:
    return isinstance(value, tf.Tensor) and hasattr(value, "graph")


def _placeholder(leaf: Any) -> Any:
    if isinstance(leaf, tf.SparseTensor):
        return tf.compat.v1.sparse_placeholder(leaf.dtype, leaf.shape)
    if isinstance(leaf, tf.Tensor):
        return tf.compat.v1.placeholder(leaf.dtype, leaf.shape)
    return leaf


@contextlib.contextmanager
def _keras_seeds_kept(make_generator: Callable[[], Any]) -> Iterator[None]:
    """Puts back what Keras draws seeds from: for new layers and initializers, and for operations without a seed.

    The generator of the second kind is made at its first use. Where there is none yet, the training is to make it, at
    the moment in which it would; until the end of the block one of `make_generator` stands in its place.
    """
    private = random.Random()
    private.setstate(random.getstate())
    source = seed_generator.python_random
    kept = global_state.get_global_attribute(_GLOBAL_GENERATOR)
    value = None if kept is None else kept.state.value.read_value()
    try:
        seed_generator.python_random = private
        if kept is None:
            global_state.set_global_attribute(_GLOBAL_GENERATOR, make_generator())
        yield
    finally:
        seed_generator.python_random = source
        global_state.set_global_attribute(_GLOBAL_GENERATOR, kept)
        if kept is not None:
            kept.state.value.assign(value, read_value=False)


_GLOBAL_GENERATOR = "global_seed_generator"
"""The name under which Keras keeps it."""


@contextlib.contextmanager
def _eager_seeds_kept() -> Iterator[None]:
    """Gives TensorFlow's eager random operations another seed, until the end of the block.

    An operation with a seed keeps its counter in a kernel that it shares with all operations of the same seed: with
    the seeds of the training, the training would find that counter changed.
    """
    context = tf_context.context()
    names = ("_seed", "_rng")
    kept = {name: vars(context)[name] for name in names if name in vars(context)}
    context._seed, context._rng = _AUDIT_SEED, random.Random(_AUDIT_SEED)
    try:
        yield
    finally:
        for name in names:
            vars(context).pop(name, None)
        vars(context).update(kept)


_AUDIT_SEED = 0x1217A0D1
"""A seed that nobody else is likely to use."""


@contextlib.contextmanager
def _python_states_kept(*, wind_back: bool) -> Iterator[None]:
    """Puts back the random states of Python and numpy, which the person's own code may draw from in a trace.

    Not where Python functions of the data run beside: they draw from the same states, and would draw the same again.
    """
    states = (random.getstate(), np.random.get_state())
    try:
        yield
    finally:
        if wind_back:
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
    held = [*model.variables, *model.metrics_variables]
    for optimizer in optimizers(model):
        held.extend(optimizer.variables)
    return list({id(v): v.value for v in held if isinstance(v.value, tf.Variable)}.values())


def _all_built(model: Any) -> bool:
    parts = (model._compile_metrics, model._compile_loss, *model._flatten_layers())
    return all(part is None or part.built for part in parts)


def updates_made(model: Any) -> int:
    """Updates that the model's optimizer has made so far; 0 where it has none."""
    optimizer = next(iter(optimizers(model)), None)
    return 0 if optimizer is None else iterations(optimizer)


def iterations(optimizer: Any) -> int:
    """Updates that an optimizer has made, on one replica or several."""
    return int(keras.ops.convert_to_numpy(keras.ops.copy(optimizer.iterations)))


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
