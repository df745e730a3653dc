"""TensorFlow: real updates of a model on one batch, again and again, after which everything is as it was.

The function that `fit` has compiled makes them where it leaves nothing behind: no trace is added. It does leave
something where the step has random operations of TensorFlow's own, whose counters live in the compiled function: then
the updates are made by a function that is dropped afterwards. Whatever acts on more than variables is not run at all.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator
from typing import Any, Literal

import keras
import tensorflow as tf
from tensorflow.python.framework import op_def_registry

from ...batch import batch_size
from ...hooks import replaced
from .. import NoTrialError, Update
from ..starting import (
    RISING,
    activations_kept,
    activations_of,
    activations_since,
    batch_after,
    loss_tracker,
    optimizers_of,
    prepared_optimizer,
    steps_an_update,
)
from ..undocumented import (
    build_metrics,
    has_foreign_layers,
    metrics_built,
    names_kept,
    optimizer_state,
    outputs_known,
    weights_of,
)
from .state import all_variables, components, read, variables_kept, write, written_variables
from .step import nested_functions_inlined, replicas


class GraphUpdates:
    """Updates of one model; see `Updates`."""

    def __init__(self, runner: Any, batch: Any, train: Callable[[Any], Any] | None, iterator: Any) -> None:
        self._runner, self._batch, self._train, self._iterator = runner, batch, train, iterator
        self.model = runner.model
        self.samples = _joined(batch)
        self._own: dict[str, Any] = {}
        self._penalty: Any = None
        self._built_in_trace = False
        self._tracker = loss_tracker(self.model)
        self._check()
        if train is not None and not self.model.run_eagerly:
            self._build()
        self._optimizer, self._rate, self._peak = self._prepared_optimizer()
        self._held = self._variables()
        self._serves = self._fits_serves()
        self._step = self._by_fit(batch, trace=True) if self._serves else None

    def _check(self) -> None:
        model = self.model
        if model.run_eagerly and replicas(model) > 1:
            raise NoTrialError("the model runs eagerly on several replicas")
        if model.run_eagerly and has_foreign_layers(model):
            raise NoTrialError("the model runs eagerly, and so does code of layers that are not Keras's")
        graph = self._runner.graph
        self._acts_on = "variables" if graph is None else acts_on(graph)
        if self._acts_on == "outside":
            raise NoTrialError("the training step acts on more than the model")

    def _build(self) -> None:
        """Makes the variables that the first step of `fit` would make: what is made in a trace cannot be put back."""
        model = self.model
        with model.distribute_strategy.scope():
            if not model.optimizer.built:
                self._built_in_trace = True
                _built(model.optimizer, model.trainable_variables, in_trace=True)
            if not metrics_built(model):
                x, y, _ = keras.utils.unpack_x_y_sample_weight(self.samples)
                outputs = outputs_known(model, batch_size(self.samples))
                if outputs is None:
                    with self._runner.everything_kept():
                        outputs = model(x)
                build_metrics(model, y, outputs)

    def _prepared_optimizer(self) -> tuple[Any, Any, float]:
        """The optimizer that the updates are made with, the variable of a rate that warms up, and the peak of it."""

        def copied(optimizer: Any, weights: list[Any], peak: float | None) -> Any:
            del peak  # the variable of the rate comes last, for its name
            return _copy(optimizer, weights)

        with names_kept(), self._runner.randomness_kept(), self.model.distribute_strategy.scope():
            optimizer, peak = prepared_optimizer(self.model, self._train is not None, copied)
            if peak is None:
                return optimizer, None, 0.0
            rate = keras.Variable(0.0, trainable=False, name="initaudit_learning_rate")
        object.__setattr__(getattr(optimizer, "inner_optimizer", optimizer), "_learning_rate", rate)
        return optimizer, rate, peak

    # What is put back

    def _variables(self) -> list[Any]:
        optimizers = (self._optimizer, *optimizers_of(self.model))
        held = [v.value for optimizer in optimizers if optimizer.built for v in optimizer_state(optimizer)]
        return list({id(v): v for v in (*all_variables(self.model), *self._runner.written, *held)}.values())

    @contextlib.contextmanager
    def kept(self) -> Iterator[None]:
        """See `Updates`."""
        with names_kept(), variables_kept(self._held), self._runner.randomness_kept(), activations_kept(self.model):
            yield

    @contextlib.contextmanager
    def start(self, change: Callable[[], Any] | None = None) -> Iterator[tuple[Any, Update]]:
        """See `Updates`."""
        activations = activations_of(self.model)
        with self.kept(), replaced(self.model, "optimizer", self._optimizer):
            batch, samples = batch_after(change, self._batch, self.samples)
            # One that was built in a trace holds no copies of the weights, and is new for any weights.
            as_new = int(self._optimizer.iterations.numpy()) == 0 and (change is None or self._built_in_trace)
            if not as_new:
                with self.model.distribute_strategy.scope():
                    self._begin_optimizer()
            others = activations_since(activations, self.model)
            same = batch is self._batch
            by_fit = None if others else self._step if same else self._by_fit(batch) if self._serves else None
            if by_fit is not None:
                yield samples, self._update(by_fit)
            else:
                step, written = self._by_own(batch, others)
                with variables_kept(written):
                    yield samples, self._update(step)

    def _begin_optimizer(self) -> None:
        """Gives the optimizer the state that a freshly built copy of it has for the weights as they are now.

        Zeros would not do: a loss scale of 0 makes NaN of every gradient, and slots may be copies of the weights.
        """
        rate = None if self._rate is None else self._rate.value
        fresh = _copy(self._optimizer, weights_of(self._optimizer), rate, in_trace=self._built_in_trace)
        for variable, value in zip(optimizer_state(self._optimizer), optimizer_state(fresh), strict=True):
            for mine, new in zip(components(variable.value), components(value.value), strict=True):
                if mine is not new:
                    mine.assign(new, read_value=False)

    # One update

    def _update(self, step: Callable[[], Any]) -> Update:
        total, count = (components(getattr(self._tracker, name).value) for name in ("total", "count"))
        zeros = {id(part): tf.zeros(part.shape, part.dtype) for part in (*total, *count)}
        seen = 0.0
        steps = steps_an_update(self._optimizer)
        penalty = self._penalties()
        made = itertools.count(1)

        def update() -> float:
            nonlocal seen
            for part in total if seen else (*total, *count):
                write(part, zeros[id(part)])
            if self._rate is not None:
                self._rate.assign(self._peak * min(1.0, next(made) / RISING))
            taken_off = penalty()
            for _ in range(steps):
                step()
            seen = seen or sum(float(read(part)) for part in count)  # of the first update, and so of each
            return sum(float(read(part)) for part in total) / seen - taken_off if seen else float("nan")

        return update

    def _penalties(self) -> Callable[[], float]:
        """What the regularizers of the weights add to the loss."""
        weights = [v for v in self.model.trainable_weights if v.regularizer is not None]
        if not weights:
            return lambda: 0.0
        if self._penalty is None:
            self._penalty = self._runner.sampler(lambda: [sum(v.regularizer(v) for v in weights)])
        sampled = self._penalty
        return lambda: float(sampled()[0])

    def _fits_serves(self) -> bool:
        """Whether `fit`'s own function may be used: it has no memory beside variables."""
        return (
            self._train is not None
            and self._optimizer is self.model.optimizer
            and type(self.model).train_step is keras.Model.train_step
            and not self.model.run_eagerly
            and self._acts_on == "variables"
            and type(self._optimizer).__module__.startswith("keras.")
            and not self._runner.uses_stand_in_generator()
        )

    def _by_fit(self, batch: Any, *, trace: bool = False) -> Callable[[], Any] | None:
        """Each call makes one update, also where the function makes several of an iterator that has more batches.

        None where the function would be traced anew for such a batch. With `trace` it is traced, as its first call
        would do it: what that draws from the random states of Python, it does not draw again in the training.
        """
        train = self._train
        assert train is not None
        if not isinstance(self._iterator, tf.data.Iterator):  # distributed
            step = (lambda: train(itertools.repeat(batch, 1))) if batch is self._batch else None
            if trace and step is not None:
                with variables_kept(self._held):
                    step()
            return step
        dataset = _like(tf.data.Dataset.from_tensors(batch), self._iterator.element_spec)
        if dataset is None:
            return None
        if trace:
            # Without a batch there is no update, but what does not wait for the batch may be done.
            with variables_kept(self._held), contextlib.suppress(StopIteration, tf.errors.OutOfRangeError):
                train(iter(dataset.take(0)))
        if self.model.steps_per_execution > 1:
            return lambda: train(iter(dataset))
        endless = iter(dataset.repeat())
        return lambda: train(endless)

    def _by_own(self, batch: Any, others: list[Any]) -> tuple[Callable[[], Any], list[Any]]:
        """A step that is dropped with this object, and the variables that it writes; `others` are its activations."""
        model = self.model
        if model.run_eagerly:
            return lambda: self._eagerly(batch), []
        several = replicas(model) > 1

        def step(data: Any) -> None:
            # The metrics need no updates, and those that are not built yet would be made here.
            with nested_functions_inlined(), replaced(model, "compute_metrics", lambda *_args, **_kwargs: {}):
                if several:
                    model.distribute_strategy.run(model.train_step, args=(data,))
                else:
                    model.train_step(data)

        key = str((tf.nest.map_structure(str, _spec(batch)), others))
        if key not in self._own:
            function = tf.function(step, autograph=False, jit_compile=model.jit_compile or None)
            self._own[key] = function.get_concrete_function(batch)
            if acts_on(self._own[key].graph) == "outside":
                raise NoTrialError("the optimizer acts on more than the model")
        function = self._own[key]
        return lambda: function(batch), written_variables(function.graph)

    def _eagerly(self, batch: Any) -> None:
        with replaced(self.model, "compute_metrics", lambda *_args, **_kwargs: {}):
            self.model.train_step(batch)


def _like(dataset: Any, spec: Any) -> Any:
    """The dataset, said to have elements of these types, as a traced function wants them; None where it has others.

    It is not tuned: threads that look for the best way to do nothing take longer than an update of a small model.
    """
    given = dataset.element_spec
    try:
        tf.nest.assert_same_structure(spec, given)
    except (TypeError, ValueError):
        return None
    if not all(a.is_compatible_with(b) for a, b in zip(tf.nest.flatten(spec), tf.nest.flatten(given), strict=True)):
        return None
    options = tf.data.Options()
    options.autotune.enabled = False
    options.experimental_optimization.apply_default_optimizations = False
    variant = tf.data.experimental.to_variant(dataset)
    return tf.data.experimental.from_variant(variant, spec).with_options(options)


def _spec(batch: Any) -> Any:
    return tf.data.Dataset.from_tensors(batch).element_spec


def _joined(batch: Any) -> Any:
    """A batch that is spread over replicas as one."""

    def join(leaf: Any) -> Any:
        if isinstance(leaf, tf.distribute.DistributedValues):
            return tf.concat(leaf.values, 0)
        return None if isinstance(leaf, tf.experimental.Optional) else leaf

    return keras.tree.map_structure(join, batch)


def _copy(optimizer: Any, weights: list[Any], rate: Any = None, *, in_trace: bool = False) -> Any:
    copy = type(optimizer).from_config(optimizer.get_config())
    if rate is not None:
        object.__setattr__(getattr(copy, "inner_optimizer", copy), "_learning_rate", rate)
    return _built(copy, weights, in_trace=in_trace)


def _built(optimizer: Any, weights: list[Any], *, in_trace: bool) -> Any:
    """Builds an optimizer; as `fit` does it in its first trace, or at once.

    What an optimizer assigns while it is built in a trace never happens: the momentum of ScheduleFreeAdamW, a copy of
    the weights elsewhere, is 0 then. What is tried, and trained afterwards, must have what `fit` would have had.
    """
    if in_trace:
        # What makes variables is traced twice, and a loss scale does not see that it is built already.
        build = tf.function(lambda: None if optimizer.built else optimizer.build(weights), autograph=False)
        build.get_concrete_function()
    else:
        optimizer.build(weights)
    return optimizer


# What a step acts on

_RANDOM = ("Random", "Multinomial", "TruncatedNormal", "Sampler", "SampleDistorted")
"""Parts of the names of operations that keep a counter in the function that they stand in."""
_OF_VARIABLES = ("Resource", "Stateful", "Rng", "VarHandle", "VarIsInitialized", "VariableShape")
"""Beginnings of the names of those that act on variables: `StatefulUniform` is that of `tf.random.Generator`."""
_HARMLESS = ("Assert", "Case", "Collective", "CudnnRNN", "If", "Nccl", "PartitionedCall", "Placeholder", "While")
"""Beginnings of the names of those that TensorFlow counts as stateful and that leave nothing behind; what a loop or a
function calls is looked at by itself."""


def acts_on(graph: Any) -> Literal["variables", "random", "outside"]:
    """What a step acts on beside tensors: variables at most, random numbers of its own as well, or anything else."""
    names = {operation.type for operation in graph.get_operations()}
    if any(map(_calls_functions, names)):  # a definition takes long to write
        names |= {node.op for function in graph.as_graph_def().library.function for node in function.node_def}
    stateful = {name for name in names if _is_stateful(name)}
    random = {name for name in stateful if any(part in name for part in _RANDOM)}
    known = (*_OF_VARIABLES, *_HARMLESS)
    if any(not name.startswith(known) and "Variable" not in name for name in stateful - random):
        return "outside"
    return "random" if random else "variables"


def _is_stateful(name: str) -> bool:
    definition = op_def_registry.get(name)  # None for a call of a function by its name
    return definition is not None and definition.is_stateful


def _calls_functions(name: str) -> bool:
    definition = op_def_registry.get(name)
    return definition is None or any("func" in attribute.type for attribute in definition.attr)
