"""TensorFlow: the step is traced once into a graph that is kept, neither compiled by XLA nor rewritten.

Compiling and rewriting take far longer than all the audits of a training take to run, and the second fuses away what is
to be seen: on the CPU, a fused ReLU turns NaN into 0. What the graph writes is known from it, and put back after each
run.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf
from keras.src.backend.common import global_state
from keras.src.random import seed_generator
from keras.src.trainers.data_adapters import get_data_adapter
from tensorflow.core.protobuf import config_pb2
from tensorflow.python.eager import context as tf_context
from tensorflow.python.eager import record as tape_record

from . import Array, Flow, Step, Tap, UnobservableError, Updates, Use
from . import tensorflow_graph as reading
from .undocumented import all_built

# The run


class GraphFrame:
    """One run of the step: the graph that is traced, or eager execution.

    Tensors of another graph (the body of a loop or of a nested `tf.function`) are let through unseen: they have no
    meaning outside it.
    """

    def __init__(self) -> None:
        self.graph = None if tf.executing_eagerly() else tf.compat.v1.get_default_graph()

    def sees(self, x: Any) -> bool:
        """See `Frame`."""
        return isinstance(x, tf.Tensor) and x.dtype.is_floating and getattr(x, "graph", None) is self.graph

    def here(self) -> bool:
        """See `Frame`."""
        return (None if tf.executing_eagerly() else tf.compat.v1.get_default_graph()) is self.graph

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

    def tap(self, x: Any, seen: Callable[[Any], None]) -> Any:
        """See `Frame`.

        It is what `tf.custom_gradient` does, less its registry, in which every traced tensor would stay for the life of
        the process.
        """
        given: list[Any] = []

        def seen_here(dy: Any) -> None:
            given.append(dy)
            seen(dy)

        y = self._identity(x, seen_here)
        logits = getattr(x, "_keras_logits", None)
        if self.sees(logits):
            # Cross-entropy takes what enters a softmax or sigmoid from here, past the output: so must this step.
            y._keras_logits = self._identity(logits, lambda dy: None if given else seen(dy))
        mask = getattr(x, "_keras_mask", None)
        if mask is not None:
            y._keras_mask = mask
        return y

    def _identity(self, x: Any, seen: Callable[[Any], None]) -> Any:
        with tape_record.stop_recording():
            y = tf.identity(x)

        def backward(dy: Any) -> Any:
            if self.here():
                seen(dy)
            return [dy]

        tape_record.record_operation("InitAuditTap", [y], [x], backward)
        return y

    def value(self, variable: Any) -> Any:
        """See `Frame`."""
        return tf.convert_to_tensor(variable.value)

    def position(self) -> int:
        """See `Frame`."""
        return 0 if self.graph is None else int(self.graph.version)

    def attention(self, layer: Any, start: int, inner: Sequence[range]) -> Any:
        """See `Frame`."""
        if self.graph is None or type(layer).__module__.startswith("keras.src."):
            return None
        return reading.attention_weights(self.graph, start, inner)

    def uses(self, data: Sequence[Any], outputs: Sequence[Any], weights: Sequence[Any]) -> dict[int, Use]:
        """See `Frame`."""
        return {} if self.graph is None else reading.uses(self.graph, data, outputs, weights)

    def looked_up(self, tensor: Any) -> bool:
        """See `Frame`."""
        return self.graph is not None and reading.looked_up(tensor)

    def flows(self, taps: Sequence[Tap], inputs: Sequence[tuple[str, Any]]) -> list[tuple[str, ...]]:
        """See `Frame`.

        In a graph it follows the operations backwards, so that an addition written in a model's own `call` is seen.
        Eager tensors have no past: there it takes the arguments that the layer was called with, and the inputs of their
        shape for one that it cannot know, because the layer has cast its data first.
        """
        known = {id(tensor): path for path, tensor in inputs} | {id(tap.output): tap.path for tap in taps}
        found = []
        for tap in taps:
            if self.graph is not None:
                names = list(reading.above(tap.source, known))
            else:
                names = [known[id(x)] for x in tap.arguments if id(x) in known]
                shapes = [x.shape for x in tap.arguments]
                names = names or [path for path, tensor in inputs if tensor.shape in shapes]
            found.append(tuple(dict.fromkeys(reversed(names))))
        return found


class GraphRunner:
    """Runs the step of one model: traced once, or eagerly where the model runs eagerly."""

    def __init__(self, model: Any, *, data_runs_python: bool) -> None:
        self.model = model
        self._data_runs_python = data_runs_python
        self._trace: Any = None
        self._written: list[Any] = []
        self._generator: Any = None

    def ready(self, batch: Any) -> bool:
        """See `Runner`. An eager model must be built, which not every one can be beforehand."""
        if not self.model.run_eagerly or all_built(self.model):
            return True
        try:
            self.model._symbolic_build(data_batch=batch)
        except Exception:
            return False
        return True

    def build(self, step: Step, batch: Any) -> None:
        """See `Runner`.

        A `tf.function` that makes variables is traced twice, and where it raises, they stay without values: the
        training could not go on. In a graph of its own they are made outside of it, with the values that they have in
        `fit`. What is drawn for it from the random states is not drawn again, and so not put back.
        """
        built = all(layer.built for layer in self.model._flatten_layers())
        if self.model.run_eagerly:
            self.ready(batch)
        if built or self.model.run_eagerly or replicas(self.model) > 1:
            return
        graph = tf.__internal__.FuncGraph("InitAuditBuild")
        with graph.as_default(), tf.variable_creator_scope(_with_known_value), _nested_functions_inlined():
            step(GraphFrame(), keras.tree.map_structure(_placeholder, batch), None)

    def run(self, step: Step, batch: Any, scale: float) -> list[Array]:
        """See `Runner`."""
        if self.model.run_eagerly:
            if not self.ready(batch):
                raise UnobservableError("the model runs eagerly and cannot be built without running it")
            with self.everything_kept():
                return _on_host(self._on_replicas(step, batch, tf.constant(scale)))
        if self._trace is None:
            with self.randomness_kept():
                traced = tf.function(functools.partial(self._on_replicas, step), autograph=False)
                self._trace = traced.get_concrete_function(batch, tf.constant(1.0))
            self._written = _written_variables(self._trace.graph)
        with _variables_kept(self._written), _unoptimized():
            return _on_host(self._trace(batch, tf.constant(scale)))

    def _on_replicas(self, step: Step, batch: Any, scale: Any) -> list[Any]:
        """The step on every replica; the tensors of the first one."""
        frame = GraphFrame()
        with _nested_functions_inlined():
            if replicas(self.model) == 1:
                return step(frame, batch, scale)
            found: list[Any] = []
            self.model.distribute_strategy.run(lambda data: found.extend(step(frame, data, scale)), args=(batch,))
            return found

    @contextlib.contextmanager
    def everything_kept(self) -> Iterator[None]:
        """See `Runner`."""
        with self.randomness_kept():
            held = {id(variable): variable for variable in (*_all_variables(self.model), *self._written)}
            with _variables_kept(list(held.values())):
                yield

    @contextlib.contextmanager
    def randomness_kept(self) -> Iterator[None]:
        """See `Runner`."""
        python_states = _python_states_kept(wind_back=not self._data_runs_python)
        with _keras_seeds_kept(self._global_generator), _eager_seeds_kept(), python_states:
            yield

    def _global_generator(self) -> Any:
        """The one that stands in for Keras's own; the kept trace uses its state, and so it is kept as well."""
        if self._generator is None:
            self._generator = keras.random.SeedGenerator(seed=0, name="initaudit_seed_generator")
        return self._generator

    def update(self, batch: Any) -> None:
        """See `Runner`."""
        self.model.train_step(batch)

    @property
    def graph(self) -> Any:
        """That of the traced step; None where it runs eagerly."""
        return None if self._trace is None else self._trace.graph

    @property
    def written(self) -> list[Any]:
        """The variables that the traced step may write."""
        return self._written

    def uses_stand_in_generator(self) -> bool:
        """Whether the traced step draws from the generator that stands in for Keras's own."""
        made = self._generator
        return made is not None and self._trace is not None and any(v is made.state.value for v in self.graph.variables)

    def sampler(self, tensors: Callable[[], list[Any]]) -> Callable[[], list[Array]]:
        """See `Runner`."""
        # Not called by its name: TensorFlow would count the traces of all probes, and warn that they are many.
        function = tf.function(tensors, autograph=False).get_concrete_function()

        def sample() -> list[Array]:
            with _unoptimized():
                return _on_host(function())

        return sample


def runner(model: Any, *, data_runs_python: bool) -> GraphRunner:
    """See `Engine`."""
    return GraphRunner(model, data_runs_python=data_runs_python)


def replicas(model: Any) -> int:
    """See `Engine`."""
    return int(model.distribute_strategy.num_replicas_in_sync)


def _on_host(tensors: Any) -> list[Array]:
    with np.errstate(over="ignore"):  # a float64 past the range of float32 is infinite here
        return [np.asarray(tensor).astype(np.float32, copy=False) for tensor in tensors]


@contextlib.contextmanager
def _nested_functions_inlined() -> Iterator[None]:
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


# What is put back


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


_READS = frozenset({"ReadVariableOp", "ResourceGather", "ResourceGatherNd", "VariableShape", "VarIsInitializedOp"})
"""Operations that take a variable and leave it as it is."""


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
    for value in vars(model).values():
        members = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else [value]
        for member in members:
            if isinstance(member, keras.optimizers.Optimizer):
                held.extend(member.variables)
    return list({id(v): v.value for v in held if isinstance(v.value, tf.Variable)}.values())


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


# The graph of a forward pass


def follow(model: Any, inputs: Any, forward: Callable[[Any, Any], Sequence[Tap]]) -> Flow:
    """See `Engine`."""
    del model
    found: list[Flow] = []

    def traced(values: Any) -> None:
        frame = GraphFrame()
        taps = forward(frame, values)
        entries = keras.tree.flatten(values)
        flows = frame.flows(taps, [("-1", tensor) for tensor in entries])
        known = {id(tensor): -1 for tensor in entries} | {id(tap.output): i for i, tap in enumerate(taps)}
        number = {tap.path: i for i, tap in enumerate(taps)} | {"-1": -1}
        raw = {i: name for i, tap in enumerate(taps) if (name := reading.raw_activation(tap.output)) is not None}
        above = [{number[path] for path in paths} for paths in flows]
        found[:] = [Flow(above, raw, list(reading.sums(frame.graph, known)))]

    def spec(leaf: Any) -> Any:
        return tf.TensorSpec(leaf.shape, leaf.dtype) if isinstance(leaf, keras.KerasTensor) else leaf

    tf.function(traced, autograph=False).get_concrete_function(keras.tree.map_structure(spec, inputs))
    return found[0]


# The data


def take_batch(iterator: Any, count: int) -> tuple[Any, Any]:
    """See `Engine`.

    The second iterator has the element type of the first, so that the model's train function, which is traced for that
    type, is not traced again for it. It holds the next `count` batches alone: what one call of the train function
    consumes.

    Args:
        iterator: What `fit` hands to `model.train_function`.
        count: `model.steps_per_execution`.
    """
    if not isinstance(iterator, tf.data.Iterator):  # distributed: its batches live on several devices
        batch = next(iterator, None)
        return batch, iterator if batch is None else itertools.chain([batch], iterator)
    batches: list[Any] = []
    while len(batches) < count and (optional := iterator.get_next_as_optional()).has_value():
        batches.append(optional.get_value())
    if not batches:
        return None, iterator
    datasets = [tf.data.Dataset.from_tensors(batch) for batch in batches]
    joined = functools.reduce(lambda left, right: left.concatenate(right), datasets)
    variant = tf.data.experimental.to_variant(joined)
    return batches[0], iter(tf.data.experimental.from_variant(variant, iterator.element_spec))


def first_batch(x: Any, y: Any, sample_weight: Any, size: int) -> Any:
    """See `Engine`."""
    adapter = get_data_adapter(x=x, y=y, sample_weight=sample_weight, batch_size=size, shuffle=False)
    adapter.on_epoch_begin()
    try:
        return next(iter(adapter.get_tf_dataset()), None)
    finally:
        adapter.on_epoch_end()


def runs_python(iterator: Any) -> bool:
    """See `Engine`. Of a dataset whose functions cannot be looked at, it is assumed."""
    datasets: list[Any] = [getattr(iterator, "_dataset", None)]
    try:
        while datasets:
            dataset = datasets.pop()
            for function in dataset._functions():
                graph = function.function.graph.as_graph_def()
                nodes = itertools.chain(graph.node, *(inner.node_def for inner in graph.library.function))
                if any("PyFunc" in node.op for node in nodes):
                    return True
            datasets.extend(dataset._inputs())
    except Exception:  # names that TensorFlow does not document
        return True
    return False


def first_samples(batch: Any, size: int | None) -> Any:
    """See `Engine`. Of the first replica, where the batch is spread over several."""

    def take(leaf: Any) -> Any:
        if isinstance(leaf, tf.distribute.DistributedValues):
            leaf = leaf.values[0]
        if leaf is None or isinstance(leaf, tf.experimental.Optional):
            return None
        if isinstance(leaf, tf.SparseTensor):
            return leaf if size is None else tf.sparse.slice(leaf, [0] * len(leaf.shape), [size, *leaf.dense_shape[1:]])
        leaf = leaf if isinstance(leaf, tf.RaggedTensor) else tf.convert_to_tensor(leaf)
        return leaf if leaf.shape.rank == 0 or size is None else leaf[:size]

    return keras.tree.map_structure(take, batch)


# Tensors


def is_tensor(x: Any) -> bool:
    """See `Engine`."""
    return isinstance(x, tf.Tensor)


def shape(x: Any) -> tuple[int | None, ...] | None:
    """See `Engine`."""
    return None if x.shape.rank is None else tuple(x.shape.as_list())


def gather(x: Any, rows: npt.NDArray[np.int32]) -> Any:
    """See `Engine`."""
    return tf.gather(x, rows)


def dense(gradient: Any) -> Any:
    """See `Engine`."""
    return tf.convert_to_tensor(gradient)


def rows_of(gradient: Any) -> tuple[Any, int | None] | None:
    """See `Engine`. Of a table, the rows that the batch looked up; those that it did not look up are zero."""
    if not isinstance(gradient, tf.IndexedSlices):
        return None
    _, places = tf.unique(tf.reshape(gradient.indices, [-1]))
    values = tf.reshape(gradient.values, [-1, gradient.values.shape[-1]])
    return tf.math.unsorted_segment_sum(values, places, tf.reduce_max(places) + 1), gradient.values.shape[0]


# Trials


def updates(runner: GraphRunner, batch: Any, train: Callable[[Any], Any] | None, iterator: Any) -> Updates:
    """See `Engine`."""
    from .tensorflow_updates import GraphUpdates  # which stands on this module

    return GraphUpdates(runner, batch, train, iterator)
