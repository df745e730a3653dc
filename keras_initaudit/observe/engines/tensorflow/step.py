"""TensorFlow: the step is traced once into a graph that is kept, neither compiled by XLA nor rewritten.

Compiling and rewriting take far longer than all the audits of a training take to run, and the second fuses away what is
to be seen: on the CPU, a fused ReLU turns NaN into 0. What the graph writes is known from it, and put back after each
run.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import config_pb2
from tensorflow.python.eager import context as tf_context

from .. import Array, Facts, Frame, Step, UnobservableError
from ..randomness import keras_seeds_kept, python_states_kept
from ..undocumented import all_built, build_with, layers_built
from .frame import GraphFrame
from .state import all_variables, eager_seeds_kept, variables_kept, written_variables


class GraphRunner:
    """Runs the step of one model: traced once, or eagerly where the model runs eagerly."""

    def __init__(self, model: Any, *, data_runs_python: bool) -> None:
        self.model = model
        self._data_runs_python = data_runs_python
        self._trace: Any = None
        self._written: list[Any] = []
        self._generator: Any = None
        self._frame: GraphFrame | None = None

    def ready(self, batch: Any) -> bool:
        """See `Runner`. An eager model must be built, which not every one can be beforehand."""
        if not self.model.run_eagerly or all_built(self.model):
            return True
        try:
            build_with(self.model, batch)
        except Exception:
            return False
        return True

    def build(self, step: Step, batch: Any) -> None:
        """See `Runner`.

        A `tf.function` that makes variables is traced twice, and where it raises, they stay without values: the
        training could not go on. In a graph of its own they are made outside of it, with the values that they have in
        `fit`. What is drawn for it from the random states is not drawn again, and so not put back.
        """
        built = layers_built(self.model)
        if self.model.run_eagerly:
            self.ready(batch)
        if built or self.model.run_eagerly or replicas(self.model) > 1:
            return
        graph = tf.__internal__.FuncGraph("InitAuditBuild")
        with graph.as_default(), tf.variable_creator_scope(_with_known_value), nested_functions_inlined():
            step(GraphFrame(), keras.tree.map_structure(_placeholder, batch), None)

    def run(self, step: Step, batch: Any, scale: float) -> tuple[list[Array], Facts | None]:
        """See `Runner`."""
        if self.model.run_eagerly:
            if not self.ready(batch):
                raise UnobservableError("the model runs eagerly and cannot be built without running it")
            with self.everything_kept():
                tensors = _on_host(self._on_replicas(step, batch, tf.constant(scale)))
        else:
            if self._trace is None:
                with self.randomness_kept():
                    traced = tf.function(functools.partial(self._on_replicas, step), autograph=False)
                    self._trace = traced.get_concrete_function(batch, tf.constant(1.0))
                self._written = written_variables(self._trace.graph)
            with variables_kept(self._written), _unoptimized():
                tensors = _on_host(self._trace(batch, tf.constant(scale)))
        frame, self._frame = self._frame, None
        return tensors, None if frame is None else frame.facts(self._trace)

    def _on_replicas(self, step: Step, batch: Any, scale: Any) -> list[Any]:
        """The step on every replica; the tensors of the first one."""
        # Of the last trace: one that makes variables is followed by another one, which is the one that is run.
        self._frame = frame = GraphFrame()
        with nested_functions_inlined():
            if replicas(self.model) == 1:
                return step(frame, batch, scale)
            found: list[Any] = []
            self.model.distribute_strategy.run(lambda data: found.extend(step(frame, data, scale)), args=(batch,))
            return found

    @contextlib.contextmanager
    def everything_kept(self) -> Iterator[None]:
        """See `Runner`."""
        with self.randomness_kept():
            held = {id(variable): variable for variable in (*all_variables(self.model), *self._written)}
            with variables_kept(list(held.values())):
                yield

    @contextlib.contextmanager
    def randomness_kept(self) -> Iterator[None]:
        """See `Runner`."""
        keras_seeds = keras_seeds_kept(self._global_generator, lambda state: variables_kept([state.value]))
        with keras_seeds, eager_seeds_kept(), python_states_kept(wind_back=not self._data_runs_python):
            yield

    def _global_generator(self) -> Any:
        """The one that stands in for Keras's own; the kept trace uses its state, and so it is kept as well."""
        if self._generator is None:
            self._generator = keras.random.SeedGenerator(seed=0, name="initaudit_seed_generator")
        return self._generator

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


# The graph of a forward pass


def follow(model: Any, inputs: Any, forward: Callable[[Frame, Any], None]) -> Facts:
    """See `Engine`."""
    del model
    frames: list[GraphFrame] = []

    def traced(values: Any) -> None:
        frames[:] = [GraphFrame(keras.tree.flatten(values))]
        forward(frames[0], values)

    def spec(leaf: Any) -> Any:
        return tf.TensorSpec(leaf.shape, leaf.dtype) if isinstance(leaf, keras.KerasTensor) else leaf

    function = tf.function(traced, autograph=False).get_concrete_function(keras.tree.map_structure(spec, inputs))
    return frames[0].facts(function)
