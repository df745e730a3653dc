"""Names that Keras, TensorFlow and TensorBoard do not document and the package uses: what is needed of each.

A release may move any of them. Then one test here fails, and says which; it runs with the newest and the oldest
versions that `pyproject.toml` admits. The package's source is searched for private names, so that none is left out.
A name that only looks public, as `Model.train_function`, no search can find: whoever uses one adds its line.
"""

import ast
import functools
import importlib
import inspect
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import keras
import numpy as np
import pytest
from names_of_torch import NAMES as OF_TORCH

BACKEND = keras.backend.backend()
if BACKEND == "tensorflow":
    import tensorflow as tf

PACKAGE = Path(__file__).parents[2] / "keras_initaudit"


# Real objects to look names up on


@functools.cache
def trained():
    """A compiled model after one update."""
    inputs = keras.Input((4, 6))
    x = keras.layers.MultiHeadAttention(2, 3, name="attention")(inputs, inputs)
    x = keras.layers.EinsumDense("btd,de->bte", output_shape=(4, 5), name="einsum")(x)
    outputs = keras.layers.Dense(3, activation="softmax", name="dense")(keras.layers.Flatten()(x))
    model = keras.Model(inputs, outputs)
    rate = keras.optimizers.schedules.ExponentialDecay(0.01, 100, 0.9)
    model.compile(keras.optimizers.Adam(rate), "mse", metrics=["mae"])
    model.fit(np.ones((4, 4, 6)), np.ones((4, 3)), verbose=0)
    return model


def dense():
    return trained().get_layer("dense")


def unbuilt():
    model = keras.Sequential([keras.layers.Dense(2)])
    model.compile("sgd", "mse", metrics=["mae"])
    return model


def scaling():
    return keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD())


def traced():
    """The graph of a function that reads a variable."""
    variable = tf.Variable(np.ones((2, 3), "float32"))
    function = tf.function(lambda x: x @ variable).get_concrete_function(tf.TensorSpec((4, 2)))
    return function.graph, variable


def mapped():
    return tf.data.Dataset.from_tensors(np.ones(3)).map(lambda x: 2.0 * x)


def imported(name):
    """A module, or what a module holds."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError:
        module, _, attribute = name.rpartition(".")
        return getattr(importlib.import_module(module), attribute)


# What is asked of them


def keeps_attributes(name):
    state = imported(name)
    state.set_global_attribute("initaudit_test", 3)
    try:
        return state.get_global_attribute("initaudit_test") == 3
    finally:
        state.set_global_attribute("initaudit_test", None)


def counts_names():
    keras.layers.Dense(1)
    counters = imported("keras.src.backend.common.global_state").get_global_attribute("object_name_uids")
    before = counters["dense"]
    keras.layers.Dense(1)
    return counters["dense"] == before + 1


def holds_generator():
    keras.random.normal((2,))
    kept = imported("keras.src.backend.common.global_state").get_global_attribute("global_seed_generator")
    return isinstance(kept, keras.random.SeedGenerator) and tuple(kept.state.shape) == (2,)


def seeds_come_from(name):
    """Whether an initializer without a seed draws it from there."""
    module, source = imported(name), imported(name).python_random
    asked = []
    module.python_random = SimpleNamespace(randint=lambda low, high: asked.append(low) or 7)
    try:
        return keras.initializers.HeNormal().seed == 7 and len(asked) == 1
    finally:
        module.python_random = source


def makes_batches(name):
    adapter = imported(name)(x=np.ones((4, 2)), y=np.ones(4), sample_weight=None, batch_size=3, shuffle=False)
    adapter.on_epoch_begin()
    first = next(iter(adapter.get_tf_dataset() if BACKEND == "tensorflow" else adapter.get_jax_iterator()))
    adapter.on_epoch_end()
    return len(first) == 2 and first[0].shape == (3, 2)


def options_of_calls(name):
    """Whether the options of calls can be read and set, and hold the configuration of the graph optimizer."""
    context, config_pb2 = imported(name).context(), imported("tensorflow.core.protobuf.config_pb2")
    kept = context.function_call_options
    config = config_pb2.ConfigProto.FromString(kept.config_proto_serialized)
    config.graph_options.rewrite_options.disable_meta_optimizer = True
    context.function_call_options = imported(name).FunctionCallOptions(config_proto=config)
    try:
        serialized = context.function_call_options.config_proto_serialized
        now = config_pb2.ConfigProto.FromString(serialized)
        return now.graph_options.rewrite_options.disable_meta_optimizer
    finally:
        context.function_call_options = kept


def backward_is_ours(name):
    """Whether a recorded operation gets the gradient, and one within `stop_recording` leaves none."""
    record, x, seen = imported(name), tf.constant([1.0, 2.0]), []
    with tf.GradientTape() as tape:
        tape.watch(x)
        with record.stop_recording():
            y = tf.identity(x)
        record.record_operation("InitAuditTest", [y], [x], lambda dy: seen.append(dy) or [5.0 * dy])
        loss = tf.reduce_sum(y)
    return tape.gradient(loss, x).numpy().tolist() == [5.0, 5.0] and len(seen) == 1


def knows_operations(name):
    registry = imported(name)
    return (
        registry.get("RandomUniform").is_stateful and not registry.get("MatMul").is_stateful and not registry.get("f")
    )


def makes_variables_outside():
    graph = tf.__internal__.FuncGraph("initaudit_test")
    with graph.as_default():
        tf.compat.v1.placeholder("float32", (2,))
        dense = keras.layers.Dense(1)
        with tf.init_scope():
            dense.build((None, 2))
    return dense.kernel.numpy().shape == (2, 1) and len(graph.get_operations()) == 1


def captures_variables():
    graph, variable = traced()
    return [outer is variable.handle for outer, _ in graph.captures] == [True]


def uses_variables():
    graph, variable = traced()
    return [used is variable for used in graph.variables] == [True]


def has_seed_and_rng():
    """Whether the two attributes exist once a seed is set, and an eager operation draws from the second."""
    context = imported("tensorflow.python.eager.context").context()
    names = ("_seed", "_rng")
    before = {name: vars(context)[name] for name in names if name in vars(context)}
    try:
        tf.random.set_seed(5)
        state = context._rng.getstate()
        tf.random.normal((2,))
        return context._seed == 5 and context._rng.getstate() != state
    finally:
        for name in names:
            vars(context).pop(name, None)
        vars(context).update(before)


def functions_of_data():
    (function,) = mapped()._functions()
    return "Mul" in {node.op for node in function.function.graph.as_graph_def().node}


# JAX


def state_is_beside():
    """Whether within `fit` the variables are empty before a step, and the state after it stands beside them."""
    model, seen = unbuilt(), []

    class Looking(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            names = ("trainable_variables", "non_trainable_variables", "optimizer_variables", "metrics_variables")
            state, kernel = self._model._jax_state, self._model.layers[0].kernel
            values = [state[name] for name in names]
            seen.append(
                kernel._value is None and values[0][0].shape == kernel.shape and not self._model._jax_state_synced
            )

    model.fit(np.ones((4, 3)), np.ones((4, 2)), verbose=0, callbacks=[Looking()])
    return seen == [True] and model.layers[0].kernel._value is not None


def has_primal_of_a_trace():
    import jax

    seen = []

    def loss(x):
        return seen.append((x, x.primal._trace)) or x.sum()

    def traced(x):
        jax.grad(loss)(x)
        return seen.append(x._trace)

    jax.jit(traced).trace(np.ones(2, "float32"))
    return seen[0][1] is seen[1]


def is_called_by_losses(name):
    """Whether the loss of probabilities calls the function with them, as they are."""
    backend, seen = imported("keras.src.backend.jax.nn"), []
    functions = ("categorical_crossentropy", "sparse_categorical_crossentropy", "binary_crossentropy")
    kept = {one: getattr(backend, one) for one in functions}
    given = keras.ops.ones((4, 2)) / 2.0
    try:
        for one in functions:
            setattr(
                backend,
                one,
                lambda target, output, *args, f=kept[one], **more: (
                    seen.append(output is given) or f(target, output, *args, **more)
                ),
            )
        keras.losses.CategoricalCrossentropy()(keras.ops.ones((4, 2)), given)
        keras.losses.SparseCategoricalCrossentropy()(keras.ops.ones(4, "int32"), given)
        keras.losses.BinaryCrossentropy()(keras.ops.ones((4, 2)), given)
    finally:
        for one in functions:
            setattr(backend, one, kept[one])
    return seen == [True] * 3


def is_called_with_the_variable(name):
    backend, seen = imported("keras.src.backend.jax.numpy"), []
    take = backend.take
    table = keras.layers.Embedding(3, 2)
    table.build()
    backend.take = lambda x, indices, axis=None: seen.append((x, axis)) or take(x, indices, axis)
    try:
        table(np.array([0, 1]))
    finally:
        backend.take = take
    return seen[0][0] is table.embeddings and seen[0][1] == 0


def generator_holds_adapter(name):
    class Data(keras.utils.PyDataset):
        def __len__(self):
            return 1

        def __getitem__(self, index):
            return np.ones((4, 3)), np.ones((4, 2))

    from keras.src.trainers.data_adapters import get_data_adapter

    iterator = get_data_adapter(x=Data(workers=2), y=None).get_jax_iterator()
    next(iterator)
    inner = next(value for value in iterator.gi_frame.f_locals.values() if inspect.isgenerator(value))
    return any(isinstance(value, imported(name)) for value in inner.gi_frame.f_locals.values())


def masked():
    return keras.layers.Masking()(keras.ops.ones((2, 3, 4)))


def calls(layer, method, expected):
    """Whether attention of a tensor to itself goes through a method, which gets arguments of these names first."""
    x, behind, seen = keras.ops.ones((2, 4, 6)), getattr(layer, method), []
    signature = inspect.signature(behind)

    def watched(*args, **kwargs):
        seen.append(list(signature.bind(*args, **kwargs).arguments))
        return behind(*args, **kwargs)

    object.__setattr__(layer, method, watched)
    layer([x, x] if method == "_apply_scores" else x, **({} if method == "_apply_scores" else {"value": x}))
    return len(seen) == 1 and seen[0][: len(expected)] == expected == list(signature.parameters)[: len(expected)]


def has_part(kind, attribute):
    layer = kind(3, 2, 1) if kind is keras.layers.GroupQueryAttention else kind(2, 3)
    if attribute == "_gate_dense":  # of a newer Keras; the package does without it
        if "use_gate" not in inspect.signature(kind).parameters:
            return True
        layer = type(layer).from_config(layer.get_config() | {"use_gate": True})
    layer.build(query_shape=(None, 4, 6), value_shape=(None, 4, 6))
    return isinstance(getattr(layer, attribute), keras.layers.EinsumDense)


def part_of_attention(attribute):
    return all(
        has_part(kind, attribute) for kind in (keras.layers.MultiHeadAttention, keras.layers.GroupQueryAttention)
    )


def builds_symbolically():
    model = unbuilt()
    model._symbolic_build(data_batch=(keras.ops.ones((4, 3)), keras.ops.ones((4, 2))))
    return model.built and model._compile_metrics.built and model._compile_loss.built


def train_function_is_kept():
    """Whether `fit` asks for the train function once, keeps it, and calls what stands there with the iterator."""
    model, seen = unbuilt(), []
    make = model.make_train_function

    class StandIn(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            if not seen:
                train = self.model.train_function
                object.__setattr__(self.model, "train_function", lambda *given: seen.append(given) or train(*given))

    object.__setattr__(model, "make_train_function", lambda *args, **kwargs: make(*args, **kwargs))
    model.fit(np.ones((4, 3)), np.ones((4, 2)), batch_size=2, verbose=0, callbacks=[StandIn()])
    if BACKEND == "tensorflow":
        return isinstance(seen[0][0], tf.data.Iterator) and len(seen) == 2
    state, iterator = seen[0]
    return len(state) == 4 and next(iterator, None) is None and len(seen) == 2


class Name(NamedTuple):
    name: str
    need: str
    look: Callable[[], object]


def module(name, need, look=imported):
    return Name(name, need, lambda: look(name))


OF_ALL = [
    # Keras: modules
    module(
        "keras.src.backend.common.global_state", "attributes of the process, read and set by name", keeps_attributes
    ),
    Name("global_state: object_name_uids", "a counter for each class, from which names are made", counts_names),
    Name("global_state: global_seed_generator", "what operations without a seed draw from", holds_generator),
    module(
        "keras.src.backend.common.masking",
        "the mask that goes with a tensor",
        lambda name: imported(name).get_keras_mask(masked()).shape == (2, 3),
    ),
    module("keras.src.random.seed_generator", "its python_random gives initializers their seeds", seeds_come_from),
    module("keras.src.trainers.data_adapters.get_data_adapter", "batches of whatever fit takes", makes_batches),
    module("keras.src.layers.rnn.conv_lstm.ConvLSTMCell", "the cell's class, which has no public name"),
    Name("keras.src.", "the modules of Keras's own classes begin so", lambda: _module_of(keras.layers.Dense)),
    # Keras: layers
    Name(
        "Layer._flatten_layers",
        "the layer and all layers below it, or those below alone",
        lambda: (
            dense() in trained()._flatten_layers()
            and trained() in trained()._flatten_layers()
            and trained() not in trained()._flatten_layers(include_self=False, recursive=True)
        ),
    ),
    Name("Layer._layers", "the layers that it holds itself", lambda: dense() in trained()._layers),
    Name(
        "Layer._trainable_variables",
        "the weights of the layer itself, without those of layers below it",
        lambda: len(dense()._trainable_variables) == 2 and not trained()._trainable_variables,
    ),
    Name(
        "EinsumDense: kernel",
        "is an attribute of this name, or with an underscore in front",
        lambda: (
            [
                tuple(value.shape)
                for name, value in vars(trained().get_layer("einsum")).items()
                if name.lstrip("_") == "kernel" and isinstance(value, keras.Variable)
            ]
            == [(6, 5)]
        ),
    ),
    *(
        Name(f"MultiHeadAttention.{part}", "the layer of one projection", functools.partial(part_of_attention, part))
        for part in ("_query_dense", "_key_dense", "_value_dense", "_gate_dense", "_output_dense")
    ),
    Name(
        "MultiHeadAttention._compute_attention",
        "is called with the projected query and key, and the mask",
        lambda: all(
            calls(layer, "_compute_attention", ["query", "key", "value", "attention_mask"])
            for layer in (keras.layers.MultiHeadAttention(2, 3), keras.layers.GroupQueryAttention(3, 2, 1))
        ),
    ),
    Name(
        "Attention._apply_scores",
        "is called with the scores, and the mask",
        lambda: all(
            calls(layer, "_apply_scores", ["scores", "value", "scores_mask"])
            for layer in (keras.layers.Attention(), keras.layers.AdditiveAttention())
        ),
    ),
    # Keras: models, optimizers, variables, callbacks
    Name("Model._compile_loss", "what computes the loss: compile makes a new one", lambda: _is_new("_compile_loss")),
    Name("CompileLoss._flat_losses", "paths of outputs, and the loss at each", lambda: has_losses()),
    Name("Model._compile_metrics", "is built with the first batch", lambda: trained()._compile_metrics.built),
    Name("Model._symbolic_build", "builds model, loss and metrics from one batch", builds_symbolically),
    Name(
        "Model._inputs_struct", "the inputs, in their structure", lambda: trained()._inputs_struct.shape[1:] == (4, 6)
    ),
    Name(
        "KerasTensor._keras_history",
        "the operation that made a symbolic output",
        lambda: trained().outputs[0]._keras_history.operation is trained().layers[-1],
    ),
    Name("Model.train_function", "what fit calls with its iterator, kept as an attribute", train_function_is_kept),
    Name(
        "Model.steps_per_execution", "batches a call of the train function", lambda: unbuilt().steps_per_execution == 1
    ),
    Name("Model.metrics_variables", "the state of the metrics", lambda: len(trained().metrics_variables) > 1),
    Name(
        "Optimizer._learning_rate",
        "the schedule that it was given",
        lambda: isinstance(trained().optimizer._learning_rate, keras.optimizers.schedules.LearningRateSchedule),
    ),
    Name(
        "Optimizer._trainable_variables",
        "the weights that it was built for",
        lambda: _same_objects(trained().optimizer._trainable_variables, trained().trainable_variables),
    ),
    Name(
        "LossScaleOptimizer.inner_optimizer",
        "the optimizer that it wraps",
        lambda: isinstance(scaling().inner_optimizer, keras.optimizers.SGD),
    ),
    Name("LossScaleOptimizer.scale_loss", "makes the loss larger", lambda: float(scaling().scale_loss(1.0)) > 1.0),
    Name("Callback._model", "the model, which a copy does not keep", lambda: _model_of_callback()),
    # TensorBoard
    module("tensorboard.backend.http_util", "answers of its server", lambda name: imported(name).Respond),
    module("tensorboard.compat.proto.event_pb2", "what a log consists of", lambda name: imported(name).Event),
    module("tensorboard.compat.proto.summary_pb2", "summaries in a log", lambda name: imported(name).SummaryMetadata),
    module("tensorboard.compat.proto.tensor_pb2", "tensors in a log", lambda name: imported(name).TensorProto),
    module("tensorboard.compat.proto.types_pb2", "their dtypes", lambda name: imported(name).DT_FLOAT == 1),
    module("tensorboard.data.provider", "reads logs", lambda name: imported(name).RunTagFilter(runs=["a"])),
    module("tensorboard.errors", "tells that an experiment is not there", lambda name: imported(name).NotFoundError),
    module(
        "tensorboard.plugin_util", "the experiment of a request", lambda name: imported(name).experiment_id({}) == ""
    ),
    module("tensorboard.plugins.base_plugin", "what a plugin is", lambda name: imported(name).TBLoader),
    module("tensorboard.plugins.custom_scalar.layout_pb2", "a page of charts", lambda name: imported(name).Layout),
    module("tensorboard.util.tb_logging", "its log", lambda name: imported(name).get_logger()),
]
OF_TENSORFLOW = [
    Name(
        "Model.distribute_strategy",
        "the replicas that a step runs on",
        lambda: unbuilt().distribute_strategy.num_replicas_in_sync == 1,
    ),
    Name("Variable.value", "the variable of TensorFlow", lambda: isinstance(dense().kernel.value, tf.Variable)),
    Name("Tensor._keras_mask", "the mask that goes with a tensor", lambda: masked()._keras_mask.shape == (2, 3)),
    Name(
        "Tensor._keras_logits",
        "what enters a softmax, from which cross-entropy is computed",
        lambda: keras.activations.softmax(tf.ones((2, 3)))._keras_logits.shape == (2, 3),
    ),
    module("tensorflow.python.eager.context", "options for calls of functions in this thread", options_of_calls),
    Name("Context._seed and _rng", "the seed of eager random operations, and where theirs come from", has_seed_and_rng),
    module("tensorflow.python.eager.record", "an operation with a backward side of ours", backward_is_ours),
    module("tensorflow.python.framework.op_def_registry", "whether an operation is stateful", knows_operations),
    module("tensorflow.core.protobuf.config_pb2", "the configuration of the graph optimizer"),
    Name("tf.__internal__.FuncGraph", "a graph outside of which variables are made", makes_variables_outside),
    Name("FuncGraph.captures", "pairs (handle of a variable, tensor that stands for it)", captures_variables),
    Name("FuncGraph.variables", "the variables that it uses", uses_variables),
    Name(
        "Graph.version", "grows with the operations", lambda: traced()[0].version >= len(traced()[0].get_operations())
    ),
    Name("Function.python_function", "the Python function behind it", lambda: tf.function(abs).python_function is abs),
    Name("Iterator._dataset", "the dataset that it runs through", lambda: iter(mapped())._dataset is not None),
    Name("Dataset._functions", "the functions of its map, each with a graph", functions_of_data),
    Name("Dataset._inputs", "the datasets that it is made of", lambda: len(mapped()._inputs()) == 1),
    Name(
        "DistributedValues.values",
        "the value on each replica",
        lambda: imported("tensorflow.python.distribute.values").PerReplica((1, 2)).values == (1, 2),
    ),
    module("tensorflow.python.keras.", "begins the modules of Keras 2", lambda name: imported(name.rstrip("."))),
]
OF_JAX = [
    module("keras.src.backend.jax.nn", "the cross-entropies, which get probabilities", is_called_by_losses),
    module("keras.src.backend.jax.numpy", "its take looks up in a weight", is_called_with_the_variable),
    module(
        "keras.src.trainers.data_adapters.py_dataset_adapter.PyDatasetAdapter",
        "what the generator of batches runs through",
        generator_holds_adapter,
    ),
    Name("Model._jax_state, _jax_state_synced and Variable._value", "where the values are in fit", state_is_beside),
    Name(
        "Tracer._trace and primal", "what it belongs to, and what it is without differentiation", has_primal_of_a_trace
    ),
]
TABLE = [*OF_ALL, *OF_TENSORFLOW, *OF_JAX]
HERE = [*OF_ALL, *(OF_TENSORFLOW if BACKEND == "tensorflow" else OF_JAX)]


def _module_of(kind):
    return kind.__module__.startswith("keras.src.")


def has_losses():
    (part,) = trained()._compile_loss._flat_losses
    return part.path == () and part.loss.fn is keras.losses.mean_squared_error


def _is_new(attribute):
    model = unbuilt()
    before = getattr(model, attribute)
    model.compile("sgd", "mse")
    return before is not None and getattr(model, attribute) is not before


def _same_objects(left, right):
    return [id(x) for x in left] == [id(x) for x in right]


def _model_of_callback():
    callback = keras.callbacks.Callback()
    callback.set_model(trained())
    return vars(callback)["_model"] is trained()


@pytest.mark.parametrize("entry", HERE, ids=[entry.name for entry in HERE])
def test_a_name_is_there_and_means_what_is_needed(entry):
    assert entry.look(), f"{entry.name}: {entry.need}"


# Whether the table is whole

FOREIGN = (
    "keras.src",
    "tensorflow.python",
    "tensorflow.core",
    "tf.python",
    "tf.core",
    "tf.__internal__",
    "tensorboard",
    "torch._C",
    "torch.utils._python_dispatch",
)
ENDINGS = ("endswith", "startswith", "removesuffix", "removeprefix", "strip", "rpartition", "partition", "replace")
OURS = {"_values", "_bad", "_warning", "_repr_html_"}
"""Private names of the package itself that are used on something else than `self`, and endings of names; and what
IPython asks an object for."""


def private(name):
    return re.fullmatch(r"_[A-Za-z]\w*", name) is not None


def foreign(name):
    return any(name == stem or name.startswith(f"{stem}.") for stem in FOREIGN)


def dotted(node):
    """`a.b.c` as text; None for what is more than names."""
    if isinstance(node, ast.Name):
        return node.id
    base = dotted(node.value) if isinstance(node, ast.Attribute) else None
    return None if base is None else f"{base}.{node.attr}"


def defined(tree):
    """Private names that a module gives its own objects."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and dotted(node.value) == "self":
            yield node.attr


def no_name(tree):
    """Ids of the texts that are parts of names, and not names themselves."""
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            yield from map(id, node.values)
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in ENDINGS:
            yield from (id(part) for argument in node.args for part in ast.walk(argument) if foreign_not(part))


def foreign_not(node):
    return isinstance(node, ast.Constant) and isinstance(node.value, str) and not foreign(node.value)


def names_used(source, own=frozenset()):
    """Private and undocumented names of other packages in a module's source, each as (line, name).

    Attributes and texts have no owner here: `getattr(x, "_kernel")` and `x._kernel` are `_kernel`. `own` are the names
    that the package gives its own objects: what `self` has beside them, it has from a class of another package.
    """
    tree = ast.parse(source)
    skipped, here = set(no_name(tree)), set(defined(tree))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names if foreign(alias.name))
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from ((node.lineno, name) for name in names if foreign(name))
        elif isinstance(node, ast.Attribute):
            name, of_self = dotted(node) or "", dotted(node.value) in ("self", "cls")
            if foreign(name) and name not in FOREIGN:
                yield node.lineno, name
            elif private(node.attr) and node.attr not in (own if of_self else OURS):
                yield node.lineno, node.attr
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in skipped:
            is_module = foreign(node.value) and "." in node.value and " " not in node.value
            if is_module or (private(node.value) and node.value not in here | OURS):
                yield node.lineno, node.value


MODULES = {str(path.relative_to(PACKAGE)): path.read_text() for path in sorted(PACKAGE.rglob("*.py"))}
OWN = frozenset(name for source in MODULES.values() for name in defined(ast.parse(source)) if private(name))
USED = {module: {name for _, name in names_used(source, OWN)} for module, source in MODULES.items()}
TABLED = [*(entry.name for entry in TABLE), *(name for name, *_ in OF_TORCH if not name.startswith("torch."))]
LISTED = {name for text in TABLED for name in (text, *re.findall(r"\b_[A-Za-z]\w*", text))}
LISTED |= {name for name, *_ in OF_TORCH}


@pytest.mark.parametrize("module", MODULES)
def test_the_table_has_every_private_name_that_a_module_uses(module):
    assert not [(line, name) for line, name in names_used(MODULES[module], OWN) if name not in LISTED]


def test_the_table_has_no_private_name_that_nobody_uses():
    searched = {name for name in LISTED if private(name) or foreign(name)}
    assert searched <= set().union(*USED.values())


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("from keras.src.utils import python_utils", "keras.src.utils.python_utils"),
        ("import keras.src.models", "keras.src.models"),
        ("def f():\n    from tensorflow.python.framework.ops import Graph", "tensorflow.python.framework.ops.Graph"),
        ("graph = tf.__internal__.eager_context", "tf.__internal__.eager_context"),
        ("import keras\nkeras.src.models.Model", "keras.src.models.Model"),
        ("importlib.import_module('tensorflow.python.util')", "tensorflow.python.util"),
        ("from tensorboard.backend import security_validator", "tensorboard.backend.security_validator"),
        ("model.layers[0]._parent_path", "_parent_path"),
        ("f(x)._tracker.unlock()", "_tracker"),
        ("layer._lock = False", "_lock"),
        ("getattr(layer, '_called', None)", "_called"),
        ("WATCHED = (('Dense', '_call_context'),)", "_call_context"),
        ("class C(keras.callbacks.Callback):\n    def f(self):\n        return self._params", "_params"),
    ],
)
def test_the_search_can_find(source, name):
    assert name in {found for _, found in names_used(source)}
    assert name not in LISTED


@pytest.mark.parametrize(
    "source",
    [
        "class C:\n    def __init__(self):\n        self._kept = 3\n    def f(self):\n        return self._kept",
        "x.__class__, x.__dict__, getattr(f, '__name__')",
        "name.endswith('_initializer'), f'{name}_dense', name.split('/')",
        "import keras, tensorflow as tf\nfrom keras import ops\nfrom .tensorboard.summary import Writer\ntf.data",
        "'keras.src is where Keras keeps its code'",
    ],
)
def test_the_search_leaves_alone_what_is_ours_or_documented(source):
    own = {name for name in defined(ast.parse(source)) if private(name)}
    assert not list(names_used(source, own))


def test_the_table_can_fail():
    with pytest.raises(ModuleNotFoundError, match="backend\\.comon"):
        imported("keras.src.backend.comon.global_state")
    with pytest.raises(AttributeError, match="_layrs"):
        trained()._layrs  # noqa: B018


# Where they may stand

ROOMS = ("observe/engines/", "layers/", "tensorboard/")


@pytest.mark.parametrize("module", [module for module in MODULES if not module.startswith(ROOMS)])
def test_a_private_name_stands_in_the_rooms_for_them(module):
    assert not USED[module]


@pytest.mark.parametrize("source", ["model._flatten_layers()", "getattr(callback, '_model')"])
def test_a_private_name_in_another_room_would_be_seen(source):
    assert {name for _, name in names_used(source, OWN)}
