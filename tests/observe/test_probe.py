"""What a snapshot says of real models, against ordinary Keras and numpy: numbers, names, order, neighbours."""

import gc
import math
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, ops

from keras_initaudit.observe.batch import first_samples
from keras_initaudit.observe.probe import Probe
from keras_initaudit.observe.recurrence import GATE_STEPS

RNG = np.random.default_rng(0)
X = RNG.normal(size=(16, 6)).astype("float32")
Y = RNG.normal(size=(16, 1)).astype("float32")
LABELS = RNG.integers(0, 5, 16)
IMAGES = RNG.normal(size=(8, 8, 8, 4)).astype("float32")
TOKENS = RNG.integers(1, 20, (16, 7))
TOKENS[3:9, 4:] = 0


def snapshot(model, x, y, sample_weight=None):
    return Probe(model, first_samples((x, y) if sample_weight is None else (x, y, sample_weight), 64)).measure(0)


@pytest.fixture(autouse=True)
def _quiet():
    """Keras says of each layer that drops a mask that it does."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*does not support masking.*")
        yield


def functional(inputs, outputs, loss="mse", optimizer="sgd", **options):
    model = keras.Model(inputs, outputs)
    model.compile(optimizer, loss, **options)
    return model


# The second implementation


def numbers(x):
    """Every number that an array can have, in float64."""
    x = np.asarray(x, np.float64)
    x = x.reshape(len(x), -1, x.shape[-1])
    rms = math.sqrt((x**2).mean())
    return {
        "mean": x.mean(),
        "std": x.std(),
        "rms": rms,
        "max": np.abs(x).max(),
        "zero": (x == 0).mean(),
        "dead": (x == 0).all((0, 1)).mean(),
        "nonfinite": 0.0,
        "spread": math.sqrt(x.var(0).mean()) / rms if rms else math.nan,
    }


def copies(matrix):
    columns = [tuple(column) for column in np.asarray(matrix).T.tolist()]
    return sum(columns.count(column) > 1 for column in columns) / len(columns)


def as_matrix(layer, kernel):
    """`[fan_in, units]`, by what the layers' documentation says of the axes of their kernels."""
    if isinstance(layer, layers.Conv2DTranspose):
        kernel = np.swapaxes(kernel, -1, -2)
    units = kernel.shape[-1] * (kernel.shape[-2] if isinstance(layer, layers.DepthwiseConv2D) else 1)
    return kernel.reshape(-1, units)


def truth(model, x, y, sample_weight=None):
    """Layer -> output and its gradient, variable -> gradient, and the loss: a multi-output model and a tape."""
    observed = [layer for layer in model.layers if not isinstance(layer, layers.InputLayer)]
    several = keras.Model(model.inputs, {layer.name: layer.output for layer in observed})
    with tf.GradientTape(persistent=True) as tape:
        outputs = several(x, training=True)
        finals = [outputs[output._keras_history.operation.name] for output in model.outputs]
        loss = model.compute_loss(x, y, finals[0] if len(finals) == 1 else finals, sample_weight)
    back = {}
    for name, value in outputs.items():
        # Cross-entropy takes the logits of a softmax, past its output: then theirs is the gradient.
        values = [value, getattr(value, "_keras_logits", None)]
        found = [tape.gradient(loss, v) for v in values if v is not None]
        back[name] = next((g for g in found if g is not None), None)
    gradients = {v.path: tape.gradient(loss, v.value) for v in model.trainable_variables}
    return outputs, back, gradients, float(loss)


def entering(model, layer, x):
    """What enters the activation of a layer: its output without it."""
    inputs = keras.Model(model.inputs, layer.input)(x, training=True)
    kept, layer.activation = layer.activation, keras.activations.linear
    try:
        return layer(inputs)
    finally:
        layer.activation = kept


def dense(gradient):
    """Of a looked-up embedding, the rows that were looked up, in any order."""
    if isinstance(gradient, tf.IndexedSlices):
        rows = np.unique(gradient.indices)
        return np.asarray(tf.convert_to_tensor(gradient))[rows]
    return np.asarray(gradient)


def agree(found, kind, expected, names, path, rel=2e-5, **options):
    for name in names:
        observed = getattr(found, f"{kind}_{name}")
        # A sum of float32 is right to 1e-6 of its terms, a fraction and a spread to 1e-6.
        slack = 1e-6 if name in ("zero", "dead", "nonfinite", "spread") else 1e-6 * expected["max"]
        assert observed == pytest.approx(expected[name], rel=rel, abs=slack, nan_ok=True), (
            path,
            kind,
            name,
        )


def check(model, x, y, sample_weight=None, rel=2e-4):
    """Every number of every row of a functional model whose layers are called once."""
    shot = snapshot(model, x, y, sample_weight)
    outputs, back, gradients, loss = truth(model, x, y, sample_weight)
    assert shot.loss == pytest.approx(loss, rel=1e-5)
    rows = {info.path: (info, row) for info, row in zip(shot.layers, shot.statistics, strict=True)}
    called = [layer for layer in model.layers if not isinstance(layer, layers.InputLayer)]
    called = [layer for layer in called if layer.name != "not_equal"]  # the operation that makes a mask
    assert {info.path for info in shot.layers if info.role == "layer"} == {layer.name for layer in called}
    called.sort(key=lambda layer: rows[layer.name][0].depth)
    for depth, layer in enumerate(called):
        info, row = rows[layer.name]
        assert (info.depth, info.kind) == (depth, type(layer).__name__)
        assert info.shape == outputs[layer.name].shape[1:]
        agree(row, "activation", numbers(outputs[layer.name]), numbers(outputs[layer.name]), layer.name, rel)
        if back[layer.name] is None:
            assert math.isnan(row.backward_rms)
        else:
            agree(row, "backward", numbers(back[layer.name]), ("rms", "max", "zero", "nonfinite"), layer.name, rel)
        if getattr(layer, "activation", None) not in (None, keras.activations.linear) and not isinstance(
            layer, layers.RNN
        ):
            before = entering(model, layer, x)
            agree(row, "preactivation", numbers(before), ("mean", "std", "rms", "max", "nonfinite"), layer.name, rel)
            if layer.activation in (keras.activations.tanh, keras.activations.sigmoid):
                z = tf.Variable(before)
                with tf.GradientTape() as tape:
                    out = layer.activation(z)
                slope = np.asarray(tape.gradient(out, z)) / float(tf.reduce_max(_steepest(layer.activation)))
                assert row.activation_saturated == pytest.approx((slope < 0.02).mean(), abs=1e-6)
    for info, row in rows.values():
        if info.weight is None:
            assert math.isnan(row.weight_rms)
            continue
        layer = model.get_layer(info.path.partition("/")[0])
        variable = next(v for v in layer.weights if v.name == info.weight)
        matrix = as_matrix(layer, np.asarray(variable.value))
        assert info.weight_shape == variable.shape
        assert info.trainable == variable.trainable
        agree(row, "weight", numbers(matrix), ("mean", "std", "rms", "max", "zero", "nonfinite"), info.path, rel)
        assert row.weight_identical == copies(matrix)
        gradient = gradients.get(variable.path)
        assert info.reached == (gradient is not None or not info.trainable)
        if gradient is None:
            assert math.isnan(row.gradient_rms)
            continue
        gradient = dense(gradient)
        agree(row, "gradient", numbers(gradient), ("rms", "max", "zero", "nonfinite"), info.path, rel)
        histogram = shot.histograms["gradients"][info.path]
        assert sum(histogram.counts) == gradient.size
        assert histogram.low == pytest.approx(gradient.min(), rel=1e-3, abs=1e-9)
        assert shot.histograms["weights"][info.path].low == matrix.min()
    for layer in called:
        assert sum(shot.histograms["activations"][layer.name].counts) == np.size(outputs[layer.name])
    return shot


def _steepest(activation):
    z = tf.Variable(np.linspace(-4, 4, 8001, dtype="float32"))
    with tf.GradientTape() as tape:
        out = activation(z)
    return tape.gradient(out, z)


# The models


def mlp():
    i = keras.Input((6,))
    h = layers.Dense(9, "relu")(i)
    h = layers.Dense(8, "tanh", kernel_initializer=keras.initializers.RandomNormal(stddev=2.0))(h)
    h = layers.Dense(7, "sigmoid", kernel_initializer=keras.initializers.RandomNormal(stddev=4.0))(h)
    h = layers.Activation("tanh")(layers.LeakyReLU(0.1)(layers.Dense(7, "gelu")(h)))
    out = layers.Dense(5, "softmax", name="out")(h)
    return functional(i, out, "sparse_categorical_crossentropy"), X, LABELS


def constant_kernels():
    i = keras.Input((6,))
    h = layers.Dense(8, "tanh", kernel_initializer=keras.initializers.Constant(0.1))(i)
    return functional(i, layers.Dense(1, kernel_initializer="zeros")(h)), X, Y


def residual_convolutions():
    i = keras.Input((8, 8, 4))
    h = layers.BatchNormalization()(layers.Conv2D(6, 3, padding="same", activation="relu")(i))
    h = layers.Add()([h, layers.Conv2D(6, 3, padding="same", groups=2)(h)])
    h = layers.GlobalAveragePooling2D()(layers.ReLU()(h))
    return functional(i, layers.Dense(1)(h)), IMAGES, Y[:8]


def kinds_of_kernel():
    i = keras.Input((8, 8, 4))
    h = layers.DepthwiseConv2D(3, depth_multiplier=2, activation="tanh")(i)
    h = layers.Conv2DTranspose(5, 3, strides=2)(h)
    h = layers.Flatten()(layers.LayerNormalization()(h))
    return functional(i, layers.Dense(1)(h)), IMAGES, Y[:8]


def embedding():
    i = keras.Input((7,), dtype="int32")
    h = layers.GlobalAveragePooling1D()(layers.Embedding(20, 5)(i))
    return functional(i, layers.Dense(1)(h)), TOKENS, Y


def masked_recurrence():
    i = keras.Input((7,), dtype="int32")
    h = layers.Embedding(20, 5, mask_zero=True)(i)
    h = layers.LSTM(4, return_sequences=True)(h)
    h = layers.GRU(4, return_sequences=True)(h)
    return functional(i, layers.Dense(1)(layers.SimpleRNN(3)(h))), TOKENS, Y


def frozen_and_disconnected():
    i = keras.Input((6,))
    frozen = layers.Dense(8, "relu", name="frozen")
    h = frozen(i)
    frozen.trainable = False
    unused = layers.Dense(3, name="unused")(h)
    model = keras.Model(i, [layers.Dense(1, name="out")(h), unused])
    model.compile("sgd", ["mse", None])
    return model, X, [Y, Y]


MODELS = [
    mlp,
    constant_kernels,
    residual_convolutions,
    kinds_of_kernel,
    embedding,
    masked_recurrence,
    frozen_and_disconnected,
]


@pytest.mark.parametrize("build", MODELS, ids=lambda build: build.__name__)
def test_every_number_is_that_of_ordinary_keras_and_numpy(build):
    keras.utils.set_random_seed(1)
    check(*build())


def test_the_comparison_sees_another_batch_and_another_gradient():
    keras.utils.set_random_seed(1)
    model, x, y = mlp()
    shot = snapshot(model, x, y)
    agree(shot["out"], "activation", numbers(model(x)), ("rms",), "out")
    with pytest.raises(AssertionError):
        agree(shot["out"], "activation", numbers(model(x[:15])), ("rms",), "out")
    gradients = truth(model, x, y)[2]
    kernel = numbers(gradients[model.get_layer("out").kernel.path])
    agree(shot["out"], "gradient", kernel, ("rms", "max"), "out")
    with pytest.raises(AssertionError):
        agree(shot["out"], "gradient", {k: 1.001 * v for k, v in kernel.items()}, ("rms",), "out")


def test_sample_weights_are_in_the_loss_and_the_gradients():
    keras.utils.set_random_seed(1)
    model, x, y = mlp()
    check(model, x, y, RNG.uniform(0.2, 3.0, 16).astype("float32"))


def test_unfilled_and_filled_facts_of_special_layers():
    model, x, y = frozen_and_disconnected()
    shot = snapshot(model, x, y)
    rows = {info.path: info for info in shot.layers}
    assert not rows["frozen"].trainable
    assert rows["frozen"].reached
    assert rows["unused"].trainable
    assert not rows["unused"].reached
    assert rows["out"].reached
    model, x, y = constant_kernels()
    shot = snapshot(model, x, y)
    first, last = shot.statistics[1:3]
    assert (first.weight_identical, first.gradient_identical) == (1.0, 1.0)
    assert (last.weight_zero, last.weight_rms, last.activation_zero) == (1.0, 0.0, 1.0)


def test_mixed_float16_gradients_are_unscaled():
    keras.utils.set_random_seed(1)
    kept = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_float16")
    try:
        i = keras.Input((6,))
        model = functional(i, layers.Dense(1, dtype="float32")(layers.Dense(8, "relu", name="half")(i)), "mse", "adam")
    finally:
        keras.config.set_dtype_policy(kept)
    shot = snapshot(model, X, Y)
    _, _, gradients, loss = truth(model, X, Y)
    assert shot.loss == pytest.approx(loss, rel=1e-3)
    expected = numbers(gradients[model.get_layer("half").kernel.path])
    # Half precision has 11 bits: 5e-4 a number, and the sums of 16 samples round more than once.
    assert shot["half"].gradient_rms == pytest.approx(expected["rms"], rel=5e-3)
    assert shot["half"].backward_rms == pytest.approx(numbers(truth(model, X, Y)[1]["half"])["rms"], rel=5e-3)
    assert type(model.optimizer).__name__ == "LossScaleOptimizer"


def test_a_loss_that_its_own_step_does_not_scale_is_not_unscaled():
    class Own(keras.Model):
        def train_step(self, data):
            x, y = data
            with tf.GradientTape() as tape:
                loss = tf.reduce_mean((self(x, training=True) - y) ** 2)
            variables = self.trainable_variables
            self.optimizer.apply(tape.gradient(loss, [v.value for v in variables]), variables)
            return {"loss": loss}

    keras.utils.set_random_seed(1)
    i = keras.Input((6,))
    model = Own(i, layers.Dense(1, name="out")(layers.Dense(4, "tanh")(i)))
    model.compile(keras.optimizers.SGD(loss_scale_factor=64.0), "mse")
    gradients = truth(model, X, Y)[2]
    expected = numbers(gradients[model.get_layer("out").kernel.path])
    assert snapshot(model, X, Y)["out"].gradient_rms == pytest.approx(expected["rms"], rel=1e-4)


# Names, order, neighbours


def rows_of(shot, role="layer"):
    return {info.path: (info.depth, info.inputs) for info in shot.layers if info.role == role}


def test_nested_and_shared_layers_have_a_row_for_each_call():
    inner = keras.Sequential(
        [keras.Input((8,)), layers.Dense(8, "tanh", name="d"), layers.ReLU(name="r")], name="inner"
    )
    i = keras.Input((6,))
    h = inner(layers.Dense(8, name="first")(i))
    shared = layers.Dense(8, name="shared")
    h = layers.Add(name="add")([shared(inner(h)), shared(h)])
    model = functional(i, layers.Dense(1, name="out")(h))
    shot = snapshot(model, X, Y)
    assert rows_of(shot) == {
        "first": (0, ("(input)",)),
        "inner/d": (1, ("first",)),
        "inner/r": (2, ("inner/d",)),
        "inner/d#2": (3, ("inner/r",)),
        "inner/r#2": (4, ("inner/d#2",)),
        "shared": (5, ("inner/r#2",)),
        "shared#2": (6, ("inner/r",)),
        "add": (7, ("shared", "shared#2")),
        "out": (8, ("add",)),
    }
    infos = {info.path: info for info in shot.layers}
    assert infos["inner/d"].shared
    assert infos["shared#2"].shared
    assert not infos["first"].shared
    assert infos["inner/d"].weight == "kernel"
    assert infos["inner/d#2"].weight is None
    # The gradient of a shared kernel is that of all its calls together.
    first = model.get_layer("first")
    with tf.GradientTape() as tape:
        loss = model.compute_loss(X, Y, model(X, training=True))
    expected = numbers(tape.gradient(loss, shared.kernel.value))
    assert shot["shared"].gradient_rms == pytest.approx(expected["rms"], rel=1e-4)
    a = first(X)
    one = inner(a)
    both = {"inner/d": inner.get_layer("d")(a), "inner/d#2": inner.get_layer("d")(one)}
    for path, value in both.items():
        agree(shot[path], "activation", numbers(value), ("rms", "max", "mean", "spread"), path)
        agree(shot[path], "preactivation", numbers(np.arctanh(np.asarray(value, "float64"))), ("rms",), path, rel=1e-3)


class Subclassed(keras.Model):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.stem = layers.Dense(6, "relu", name="stem")
        self.blocks = [layers.Dense(6, "gelu", name=f"block_{i}") for i in range(2)]
        self.head = layers.Dense(1, name="head")

    def call(self, x):
        h = self.stem(x) + x
        for block in self.blocks:
            h = 0.5 * h + block(h)
        return self.head(h)


@pytest.mark.parametrize("built", [False, True])
def test_subclassed_models_are_seen_through_the_sums_in_their_call(built):
    keras.utils.set_random_seed(3)
    model = Subclassed()
    model.compile("sgd", "mse")
    if built:
        model(X)
    shot = snapshot(model, X, Y)
    found = {path: (depth, set(inputs)) for path, (depth, inputs) in rows_of(shot).items()}
    assert found == {
        "stem": (0, {"(input)"}),
        "block_0": (1, {"stem", "(input)"}),
        "block_1": (2, {"stem", "(input)", "block_0"}),
        "head": (3, {"stem", "(input)", "block_0", "block_1"}),
    }
    with tf.GradientTape(persistent=True) as tape:
        h = model.stem(X) + X
        block = model.blocks[0](h)
        g = 0.5 * h + block
        g = 0.5 * g + model.blocks[1](g)
        loss = ops.mean((model.head(g) - Y) ** 2)
    agree(shot["block_0"], "activation", numbers(block), ("rms", "std", "max"), "block_0")
    agree(shot["block_0"], "backward", numbers(tape.gradient(loss, block)), ("rms", "max"), "block_0", rel=1e-4)
    kernel = numbers(tape.gradient(loss, model.blocks[0].kernel.value))
    agree(shot["block_0"], "gradient", kernel, ("rms", "max"), "block_0", rel=1e-4)


def test_names_depths_and_order_are_the_same_at_each_audit_and_in_a_second_probe():
    model, x, y = masked_recurrence()
    probe = Probe(model, first_samples((x, y), 16))
    first, second = probe.measure(0), probe.measure(1)
    assert first.layers == second.layers
    assert repr(first.statistics) == repr(second.statistics)  # NaN equals itself here
    assert Probe(model, first_samples((x, y), 16)).measure(0).layers == first.layers
    assert len({info.path for info in first.layers}) == len(first.layers)


def test_recurrent_wrappers_have_readable_names():
    i = keras.Input((5, 3))
    h = layers.Bidirectional(layers.LSTM(4, return_sequences=True, name="lstm"), name="both")(i)
    h = layers.TimeDistributed(layers.Dense(4, "relu", name="dense"), name="each")(h)
    model = functional(i, layers.Dense(1, name="out")(layers.GRU(3, name="gru")(h)))
    shot = snapshot(model, RNG.normal(size=(8, 5, 3)).astype("float32"), Y[:8])
    paths = [(info.depth, info.path) for info in shot.layers if info.role in ("layer", "weight", "gates")]
    assert paths == [
        (0, "both/forward_lstm"),
        (0, "both/forward_lstm/recurrent_kernel"),
        (0, "both/forward_lstm/gates"),
        (1, "both/backward_lstm"),
        (1, "both/backward_lstm/recurrent_kernel"),
        (1, "both/backward_lstm/gates"),
        (2, "both"),
        (3, "each/dense"),
        (4, "each"),
        (5, "gru"),
        (5, "gru/recurrent_kernel"),
        (5, "gru/gates"),
        (6, "out"),
    ]


def test_dict_inputs_and_targets_have_rows_of_their_own():
    a, b = keras.Input((6,), name="a"), keras.Input((2,), name="b")
    h = layers.Concatenate(name="join")([layers.Dense(3, name="left")(a), b])
    model = keras.Model({"a": a, "b": b}, {"u": layers.Dense(1, name="u")(h), "v": layers.Dense(2, name="v")(h)})
    model.compile("sgd", {"u": "mse", "v": "mae"})
    data = {"a": X, "b": X[:, :2]}
    shot = snapshot(model, data, {"u": Y, "v": X[:, :2]})
    assert set(rows_of(shot, "input")) == {"(input a)", "(input b)"}
    assert set(rows_of(shot, "target")) == {"(target u)", "(target v)"}
    assert rows_of(shot)["join"][1] in (("left", "(input b)"), ("(input b)", "left"))
    agree(shot["(input a)"], "activation", numbers(X), ("mean", "std", "rms", "max", "spread"), "a")
    agree(shot["(target v)"], "activation", numbers(X[:, :2]), ("mean", "std", "rms", "max"), "v")


# Gates and attention


def sigmoid(z):
    return 1.0 / (1.0 + np.exp(-z))


def lstm_gates(layer, x):
    """Pre-activations of the gates i, f, o and of the candidate over the first steps, by the textbook."""
    kernel, recurrent, bias = (np.asarray(w, np.float64) for w in layer.get_weights())
    h = c = np.zeros((len(x), layer.units))
    gates, candidates = [], []
    for t in range(GATE_STEPS):
        i, f, g, o = np.split(x[:, t] @ kernel + h @ recurrent + bias, 4, -1)
        gates.append(np.concatenate([i, f, o], -1))
        candidates.append(g)
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(c)
    return np.stack(gates, 1), np.stack(candidates, 1)


def gru_gates(layer, x):
    """The same for z and r of a GRU with `reset_after`."""
    kernel, recurrent, bias = (np.asarray(w, np.float64) for w in layer.get_weights())
    h = np.zeros((len(x), layer.units))
    gates = []
    for t in range(GATE_STEPS):
        xz, xr, xh = np.split(x[:, t] @ kernel + bias[0], 3, -1)
        hz, hr, hh = np.split(h @ recurrent + bias[1], 3, -1)
        gates.append(np.concatenate([xz + hz, xr + hr], -1))
        z, r = sigmoid(xz + hz), sigmoid(xr + hr)
        h = z * h + (1 - z) * np.tanh(xh + r * hh)
    return np.stack(gates, 1)


@pytest.mark.parametrize("scale", [0.3, 6.0])
def test_gates_are_those_of_the_textbook(scale):
    keras.utils.set_random_seed(2)
    start = keras.initializers.RandomNormal(stddev=scale)
    i = keras.Input((6, 5))
    lstm = layers.LSTM(4, kernel_initializer=start, return_sequences=True, name="lstm")
    gru = layers.GRU(4, kernel_initializer=start, recurrent_initializer=start, name="gru")
    model = functional(i, layers.Dense(1)(gru(lstm(i))))
    x = RNG.normal(size=(16, 6, 5)).astype("float32")
    shot = snapshot(model, x, Y)
    gates, candidate = lstm_gates(lstm, x)
    names = ("mean", "std", "rms", "max")
    agree(shot["lstm/gates"], "preactivation", numbers(gates), names, "lstm", rel=1e-4)
    agree(shot["lstm/gates"], "activation", numbers(sigmoid(gates)), names, "lstm", rel=1e-4)
    agree(shot["lstm"], "preactivation", numbers(candidate), names, "lstm", rel=1e-4)
    flat = (sigmoid(gates) * (1 - sigmoid(gates)) < 0.02 * 0.25).mean()
    assert shot["lstm/gates"].activation_saturated == pytest.approx(flat, abs=1e-3)
    assert (flat > 0.2) == (scale > 1)
    found = gru_gates(gru, np.asarray(lstm(x)))
    agree(shot["gru/gates"], "preactivation", numbers(found), names, "gru", rel=1e-4)
    with pytest.raises(AssertionError):
        agree(shot["lstm/gates"], "preactivation", numbers(gates[:, :1]), ("rms",), "lstm", rel=1e-4)


def test_gates_of_a_layer_that_reads_backwards():
    keras.utils.set_random_seed(2)
    i = keras.Input((6, 5))
    lstm = layers.LSTM(4, go_backwards=True, name="lstm")
    model = functional(i, layers.Dense(1)(lstm(i)))
    x = RNG.normal(size=(16, 6, 5)).astype("float32")
    found = snapshot(model, x, Y)["lstm/gates"]
    agree(found, "preactivation", numbers(lstm_gates(lstm, x[:, ::-1])[0]), ("rms", "max"), "lstm", rel=1e-4)


def gradient_at_the_sequence(model, layer, x, y):
    """dL/d(what enters a layer), `[samples, steps, ...]`, by a model of what follows it."""
    before = keras.Model(model.inputs, layer.input)(x)
    with tf.GradientTape() as tape:
        tape.watch(before)
        h = before
        for one in model.layers[model.layers.index(layer) :]:
            h = one(h)
        loss = model.compute_loss(x, y, h)
    return np.asarray(tape.gradient(loss, before), np.float64)


def per_step(first, last, steps):
    return math.log10(np.abs(first).mean() / np.abs(last).mean()) / (steps - 1)


RECURRENT = {
    "plain": lambda **how: layers.SimpleRNN(4, name="loop", **how),
    "lstm": lambda **how: layers.LSTM(4, name="loop", **how),
    "gru": lambda **how: layers.GRU(4, unroll=True, name="loop", **how),
    "cells": lambda **how: layers.RNN([layers.GRUCell(4), layers.LSTMCell(3)], name="loop", **how),
}


@pytest.mark.parametrize("how", [{}, {"go_backwards": True}, {"return_sequences": True}], ids=str)
@pytest.mark.parametrize("kind", RECURRENT)
def test_the_gradient_through_time_is_that_at_the_ends_of_the_sequence(kind, how):
    keras.utils.set_random_seed(3)
    i = keras.Input((9, 5))
    h = layers.Dense(5, name="before")(i) if kind == "gru" else i  # data is not differentiated by anything else
    model = functional(i, layers.Dense(1, name="out")(layers.Flatten()(RECURRENT[kind](**how)(h))))
    x = RNG.normal(size=(16, 9, 5)).astype("float32")
    found = snapshot(model, x, Y)
    gradient = gradient_at_the_sequence(model, model.get_layer("loop"), x, Y)
    first, last = (gradient[:, t] for t in ((-1, 0) if how.get("go_backwards") else (0, -1)))
    assert found["loop"].backward_time_log10 == pytest.approx(per_step(first, last, 9), abs=1e-4)
    assert abs(per_step(first, last, 9)) > 1e-3
    assert math.isnan(found["out"].backward_time_log10)


def test_padding_is_no_time_step():
    keras.utils.set_random_seed(3)
    tokens = np.concatenate([TOKENS[3:9]] * 3)[:16]
    assert (tokens != 0).sum(1).tolist() == [4] * 16
    i = keras.Input((7,), dtype="int32")
    h = layers.Embedding(20, 6, mask_zero=True, name="embed")(i)
    h = layers.Bidirectional(layers.LSTM(4, name="lstm"), name="both")(h)
    model = functional(i, layers.Dense(1, name="out")(h))
    found = snapshot(model, tokens, Y)
    both, out = model.get_layer("both"), model.get_layer("out")
    e = tf.convert_to_tensor(model.get_layer("embed")(tokens))
    for layer in (both.forward_layer, both.backward_layer):
        with tf.GradientTape() as tape:
            tape.watch(e)
            parts = [one(e, mask=tf.constant(tokens != 0)) for one in (both.forward_layer, both.backward_layer)]
            own = [layer is both.forward_layer, layer is both.backward_layer]
            held = [part if mine else tf.stop_gradient(part) for part, mine in zip(parts, own, strict=True)]
            loss = model.compute_loss(tokens, Y, out(tf.concat(held, -1)))
        gradient = np.asarray(tape.gradient(loss, e), np.float64)
        first, last = (0, 3) if layer is both.forward_layer else (3, 0)
        expected = per_step(gradient[:, first], gradient[:, last], 4)
        assert found[f"both/{layer.name}"].backward_time_log10 == pytest.approx(expected, abs=1e-4)
        assert not gradient[:, 4:].any()


def test_the_gradient_of_images_in_time_and_of_a_single_step():
    keras.utils.set_random_seed(3)
    i = keras.Input((5, 6, 6, 2))
    model = functional(i, layers.Dense(1)(layers.Flatten()(layers.ConvLSTM2D(3, 3, name="loop")(i))))
    x = RNG.normal(size=(8, 5, 6, 6, 2)).astype("float32")
    gradient = gradient_at_the_sequence(model, model.get_layer("loop"), x, Y[:8])
    found = snapshot(model, x, Y[:8])["loop"].backward_time_log10
    assert found == pytest.approx(per_step(gradient[:, 0], gradient[:, -1], 5), abs=1e-4)
    i = keras.Input((1, 3))
    model = functional(i, layers.Dense(1)(layers.LSTM(3, name="loop")(i)))
    assert math.isnan(snapshot(model, RNG.normal(size=(8, 1, 3)).astype("float32"), Y[:8])["loop"].backward_time_log10)


def relative_entropy(p):
    p = np.asarray(p, np.float64).reshape(-1, np.shape(p)[-1])
    p = p[p.any(-1)]  # a padded query has no weights
    return float(np.mean(-np.sum(p * np.log(np.maximum(p, 1e-30)), -1)) / math.log(p.shape[-1]))


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize(
    ("kind", "causal"),
    [(kind, causal) for kind in ("multi_head", "grouped", "dot") for causal in (False, True)] + [("additive", False)],
)
def test_attention_entropy_is_that_of_the_scores_which_keras_returns(kind, masked, causal):
    keras.utils.set_random_seed(4)
    i = keras.Input((7,), dtype="int32")
    wide = keras.initializers.RandomNormal(stddev=2.0)
    h = layers.Embedding(20, 8, mask_zero=masked, embeddings_initializer=wide, name="embed")(i)
    layer = {
        "multi_head": lambda: layers.MultiHeadAttention(2, 4, name="attend"),
        "grouped": lambda: layers.GroupQueryAttention(4, 4, 2, name="attend"),
        "dot": lambda: layers.Attention(name="attend"),
        "additive": lambda: layers.AdditiveAttention(name="attend"),
    }[kind]()
    takes_list = kind in ("dot", "additive")
    options = {"use_causal_mask": causal} if causal else {}
    out = layer([h, h], **options) if takes_list else layer(h, h, **options)
    model = functional(i, layers.Dense(1)(layers.Flatten()(out)))
    data = TOKENS[:8]  # as many as are looked at
    shot = snapshot(model, data, Y[:8])
    e = model.get_layer("embed")(data)
    if takes_list:
        _, scores = layer([e, e], return_attention_scores=True, **options)
    else:
        _, scores = layer(e, e, return_attention_scores=True, **options)
    row = shot["attend/attention"]
    assert row.attention_entropy == pytest.approx(relative_entropy(scores), rel=1e-3)
    agree(row, "activation", numbers(np.reshape(scores, (-1, 7, 7))), ("mean", "std", "rms"), "attend", rel=1e-3)
    info = next(info for info in shot.layers if info.path == "attend/attention")
    assert (info.role, info.kind) == ("attention", type(layer).__name__)
    if kind != "additive":
        free, allowed = dot_logits(layer, np.asarray(e, np.float64)), np.ones((8, 1, 7, 7), bool)
        if masked:  # its queries too, but for `Attention`, which looks on from them
            real = data != 0
            allowed = allowed & real[:, None, None, :]
            allowed = allowed if kind == "dot" else allowed & real[:, None, :, None]
        allowed = np.broadcast_to(allowed & np.tri(7, dtype=bool) if causal else allowed, free.shape)
        assert row.attention_logit_max == pytest.approx(np.abs(free[allowed]).max(), rel=1e-4)
        if kind == "dot" and masked:
            assert np.abs(free).max() == pytest.approx(np.abs(free[allowed]).max(), rel=0.5)
    if masked or causal:
        free = np.asarray(e) @ np.swapaxes(np.asarray(e), 1, 2)
        assert row.attention_entropy != pytest.approx(relative_entropy(ops.softmax(free)), rel=1e-3)


def dot_logits(layer, e):
    """`[samples, heads, queries, keys]`, masks aside, by the textbook."""
    if isinstance(layer, layers.Attention):
        return (e @ e.transpose(0, 2, 1))[:, None]
    projections = (layer._query_dense, layer._key_dense)
    query, key = (
        np.einsum("btd,dhk->bhtk", e, np.asarray(p.kernel)) + np.asarray(p.bias)[:, None] for p in projections
    )
    key = np.repeat(key, query.shape[1] // key.shape[1], 1)
    return query @ key.transpose(0, 1, 3, 2) / math.sqrt(query.shape[-1])


def test_uniform_and_one_hot_attention():
    i = keras.Input((7, 4))
    model = functional(i, layers.Dense(1)(layers.Flatten()(layers.Attention(name="attend")([i, i]))))
    same = np.ones((8, 7, 4), "float32")
    assert snapshot(model, same, Y[:8])["attend/attention"].attention_entropy == pytest.approx(1.0, abs=1e-5)
    assert snapshot(model, same, Y[:8])["attend/attention"].attention_logit_max == pytest.approx(4.0)
    far = 100 * RNG.normal(size=(8, 7, 4)).astype("float32")
    row = snapshot(model, far, Y[:8])["attend/attention"]
    assert row.attention_entropy < 0.05
    assert row.attention_logit_max == pytest.approx(np.abs(far @ far.transpose(0, 2, 1)).max(), rel=1e-5)


@pytest.mark.parametrize("scale", [1.0, 100.0])
@pytest.mark.parametrize("kind", ["sparse_categorical_crossentropy", "binary_crossentropy"])
def test_an_overconfident_softmax_has_the_loss_of_its_logits(kind, scale):
    """Keras takes the cross-entropy of the logits, which has no ceiling; of probabilities it ends at log 1e7."""
    keras.utils.set_random_seed(7)
    start = keras.initializers.RandomNormal(stddev=scale)
    units, activation = (5, "softmax") if kind.startswith("sparse") else (1, "sigmoid")
    i = keras.Input((6,))
    model = functional(i, layers.Dense(units, activation, kernel_initializer=start, name="out")(i), kind)
    y = LABELS if units == 5 else (Y > 0).astype("float32")
    shot = check(model, X, y)
    assert shot.loss == pytest.approx(model.train_on_batch(X, y), rel=1e-5)
    assert (shot.loss > math.log(1e7)) == (scale == 100.0)
    assert shot["out"].backward_rms > 0.0


def test_entropy_of_a_softmax_output():
    model, x, y = mlp()
    assert snapshot(model, x, y)["out"].attention_entropy == pytest.approx(relative_entropy(model(x)), rel=1e-4)


# Update, baseline, duplicates


@pytest.mark.parametrize("updates", [1, 3])
def test_update_ratio_is_that_of_the_actual_change(updates):
    keras.utils.set_random_seed(5)
    model, x, y = mlp()
    model.optimizer.learning_rate = 0.05
    probe = Probe(model, first_samples((x, y), 16))
    first = probe.measure(0)
    assert all(math.isnan(row.update_log10) for row in first.statistics)
    before = {layer.name: np.asarray(layer.kernel.value) for layer in model.layers if hasattr(layer, "kernel")}
    probe.mark()
    for _ in range(updates):
        model.train_on_batch(x, y)
    after = probe.measure(updates, updates=updates)
    for name, old in before.items():
        new = np.asarray(model.get_layer(name).kernel.value, np.float64)
        ratio = math.sqrt(((new - old) ** 2).mean()) / updates / math.sqrt((old.astype(np.float64) ** 2).mean())
        assert after[name].update_log10 == pytest.approx(math.log10(ratio), abs=1e-3)
        assert after[name].update_log10 != pytest.approx(math.log10(2 * ratio), abs=1e-3)
    # Without a mark there is nothing to compare with, and a frozen weight has no update.
    assert all(math.isnan(row.update_log10) for row in probe.measure(9).statistics)


def test_no_update_ratio_of_a_frozen_weight():
    model, x, y = frozen_and_disconnected()
    probe = Probe(model, first_samples((x, y), 16))
    probe.measure(0)
    probe.mark()
    model.get_layer("frozen").kernel.assign(2 * model.get_layer("frozen").kernel)
    model.get_layer("out").kernel.assign(2 * model.get_layer("out").kernel)
    shot = probe.measure(1)
    assert math.isnan(shot["frozen"].update_log10)
    assert shot["out"].update_log10 == pytest.approx(0.0, abs=1e-4)


@pytest.mark.parametrize(
    ("loss", "targets", "expected"),
    [
        ("mse", Y, float(Y.var())),
        (keras.losses.MeanSquaredError(), Y, float(Y.var())),
        ("mae", Y, float(np.abs(Y - np.median(Y)).mean())),
        ("binary_crossentropy", (Y > 0).astype("float32"), math.log(2)),
        (keras.losses.BinaryCrossentropy(from_logits=True), (Y > 0).astype("float32"), math.log(2)),
        ("huber", Y, None),
        ("sparse_categorical_crossentropy", LABELS, math.log(5)),
        (keras.losses.CategoricalCrossentropy(), np.eye(5, dtype="float32")[LABELS], math.log(5)),
    ],
)
def test_baseline_loss(loss, targets, expected):
    """Of the constant answer that is best without looking at the inputs, trained to it where that takes no time."""
    units = 5 if expected == math.log(5) else 1
    i = keras.Input((6,))
    out = layers.Dense(units, "softmax" if units == 5 else None, kernel_initializer="zeros")(i)
    shot = snapshot(functional(i, out, loss), X, targets)
    assert shot.baseline_loss == (None if expected is None else pytest.approx(expected, rel=1e-5))
    if units == 5:  # zeros give all classes the same: the loss itself is the baseline
        assert shot.loss == pytest.approx(shot.baseline_loss, rel=1e-5)


OBJECTS = keras.losses


@pytest.mark.parametrize(
    ("loss", "kind", "baseline"),
    [
        ("mse", "squares", True),
        (OBJECTS.MeanSquaredError(name="my_loss"), "squares", True),
        (OBJECTS.mean_squared_error, "squares", True),
        (["mse"], "squares", True),
        ({"out": "mse"}, "squares", True),
        ("mean_absolute_error", "distances", True),
        (OBJECTS.Huber(), "distances", False),
        (OBJECTS.BinaryFocalCrossentropy(), "yes-no", False),
        ("sparse_categorical_crossentropy", "classes", True),
        (OBJECTS.SparseCategoricalCrossentropy(ignore_class=7), "classes", True),
        (lambda y, p: ops.mean((y - p) ** 4, -1), "", False),
        ("poisson", "", False),
    ],
)
def test_the_loss_says_what_the_targets_are(loss, kind, baseline):
    i = keras.Input((6,))
    out = layers.Dense(5 if kind == "classes" else 1, "softmax" if kind == "classes" else "sigmoid", name="out")(i)
    shot = snapshot(functional(i, out, loss), X, LABELS if kind == "classes" else (Y > 0).astype("float32"))
    assert shot.loss_kind == kind
    assert (shot.baseline_loss is not None) == baseline


def test_several_losses_say_nothing_of_the_targets():
    i = keras.Input((6,))
    model = keras.Model(i, [layers.Dense(1)(i), layers.Dense(1)(i)])
    model.compile("sgd", ["mse", "mae"])
    shot = snapshot(model, X, [Y, Y])
    assert (shot.loss_kind, shot.baseline_loss) == ("", None)


WEIGHTS = RNG.uniform(0.1, 3.0, 16).astype("float32")


@pytest.mark.parametrize("reduction", ["sum_over_batch_size", "sum", "mean_with_sample_weight"])
@pytest.mark.parametrize("kind", ["squares", "distances", "classes", "yes-no", "classes in time"])
def test_the_uninformed_loss_counts_sample_weights_as_the_loss_does(kind, reduction):
    """A model without a kernel, whose bias gives the best of all constant answers, has exactly that loss."""
    order = np.argsort(Y[:, 0])
    median = Y[order][np.searchsorted(np.cumsum(WEIGHTS[order]), 0.5 * WEIGHTS.sum())]
    time = np.stack([LABELS, LABELS[::-1]], 1)
    loss, y, bias, weights = {
        "squares": (OBJECTS.MeanSquaredError, Y, np.average(Y, 0, WEIGHTS), WEIGHTS),
        "distances": (OBJECTS.MeanAbsoluteError, Y, median, WEIGHTS),
        "classes": (OBJECTS.SparseCategoricalCrossentropy, LABELS, np.zeros(5), WEIGHTS),
        "yes-no": (OBJECTS.BinaryCrossentropy, (Y > 0).astype("float32"), np.zeros(1), WEIGHTS[:, None]),
        "classes in time": (
            OBJECTS.SparseCategoricalCrossentropy, time, np.zeros(5), np.stack([WEIGHTS, 2 * WEIGHTS], 1)
        ),
    }[kind]  # fmt: skip
    i = keras.Input((6,))
    h = layers.RepeatVector(2)(i) if y is time else i
    end = "softmax" if "classes" in kind else "sigmoid" if kind == "yes-no" else None
    out = layers.Dense(len(bias), end, kernel_initializer="zeros", name="out")(h)
    model = functional(i, out, loss(reduction=reduction))
    model.get_layer("out").bias.assign(bias)
    shot = snapshot(model, X, y, weights)
    assert shot.baseline_loss == pytest.approx(shot.loss, rel=1e-5)
    unweighted = snapshot(model, X, y)
    if reduction != "mean_with_sample_weight" or kind in ("squares", "distances"):  # a mean of equal losses is one
        assert shot.baseline_loss != pytest.approx(unweighted.baseline_loss, rel=1e-2)


def test_kernels_of_one_seed_are_duplicates_and_others_are_not():
    seeded = keras.initializers.HeNormal(seed=3)
    i = keras.Input((16,))
    h = layers.Dense(16, "relu", kernel_initializer=seeded, name="a")(i)
    h = layers.Dense(16, "relu", kernel_initializer="he_normal", name="b")(h)
    h = layers.Dense(16, "relu", kernel_initializer=keras.initializers.GlorotNormal(seed=3), name="c")(h)
    h = layers.Dense(16, "relu", kernel_initializer="ones", name="d")(h)
    h = layers.Dense(16, "relu", kernel_initializer="ones", name="e")(h)
    model = functional(i, layers.Dense(1, name="out")(h))
    shot = snapshot(model, RNG.normal(size=(16, 16)).astype("float32"), Y)
    repeated = {info.path: info.duplicate_of for info in shot.layers if info.duplicate_of}
    assert repeated == {"c": "a"}


# What enters the first kernels


class Sines(layers.Layer):
    """The time embedding of a diffusion model."""

    def __init__(self):
        super().__init__(name="sines")
        self.first, self.second = layers.Dense(8, "silu", name="first"), layers.Dense(4, name="second")

    def call(self, time):
        angles = time * ops.exp(-ops.arange(4, dtype="float32"))
        return self.second(self.first(ops.concatenate([ops.cos(angles), ops.sin(angles)], -1)))


def test_what_enters_a_first_kernel_is_measured_behind_a_persons_own_code():
    times = np.linspace(0, 1000, 16, dtype="float32")[:, None]
    noisy, time = keras.Input((6,)), keras.Input((1,))
    h = layers.Add()([layers.Dense(4, name="stem")(noisy), Sines()(time)])
    model = functional([noisy, time], layers.Dense(1, name="out")(h))
    shot = snapshot(model, [X, times], Y)
    angles = times * np.exp(-np.arange(4))
    expected = numbers(np.concatenate([np.cos(angles), np.sin(angles)], -1))
    row = shot["sines/first"]
    for name in ("mean", "std", "rms", "max", "nonfinite"):
        assert getattr(row, f"entering_{name}") == pytest.approx(expected[name], rel=1e-3, abs=1e-4), name
    assert row.entering_rms == pytest.approx(math.sqrt(0.5), rel=1e-3)
    assert shot["(input 1)"].activation_rms > 500.0
    # Elsewhere the row in front tells it.
    assert all(math.isnan(shot[path].entering_rms) for path in ("stem", "sines/second", "out"))
    # An eager step does not tell that it comes from the data: there is nothing to say of its scale.
    model.compile("sgd", "mse", run_eagerly=True)
    eager = snapshot(model, [X, times], Y)
    assert next(row.inputs for row in eager.layers if row.path == "sines/first") == ()


@pytest.mark.parametrize("eager", [False, True])
def test_what_a_model_of_ones_own_does_to_its_pixels_is_seen(eager):
    class Scaling(keras.Model):
        def __init__(self):
            super().__init__()
            self.head = layers.Dense(1, name="head")

        def call(self, x):
            return self.head(x / 255.0)

    pixels = RNG.uniform(0, 255, (16, 6)).astype("float32")
    model = Scaling()
    model.build((None, 6))
    model.compile("sgd", "mse", run_eagerly=eager)
    shot = snapshot(model, pixels, Y)
    assert shot["head"].entering_rms == pytest.approx(shot["(input)"].activation_rms / 255.0, rel=1e-4)
    assert shot["head"].entering_max <= 1.0


# Large tensors


def test_a_wide_model_is_sampled_and_agrees_within_the_error_of_the_sample():
    keras.utils.set_random_seed(6)
    i = keras.Input((24, 24, 8))
    model = functional(i, layers.Dense(1)(layers.Flatten()(layers.Conv2D(64, 3, activation="relu", name="conv")(i))))
    x = RNG.normal(size=(32, 24, 24, 8)).astype("float32")
    shot = snapshot(model, x, RNG.normal(size=(32, 1)).astype("float32"))
    whole = numbers(model.get_layer("conv")(x))
    kept = sum(shot.histograms["activations"]["conv"].counts)
    assert kept < 32 * 22 * 22 * 64 / 8
    # Values of one unit are alike within a sample: the effective number is that of positions, not of elements.
    error = 5 / math.sqrt(2 * kept / 64)
    assert shot["conv"].activation_rms == pytest.approx(whole["rms"], rel=error)
    assert error < 0.12
    assert shot["conv"].activation_dead == whole["dead"]


def test_eager_models_give_the_same_numbers():
    keras.utils.set_random_seed(1)
    model, x, y = residual_convolutions()
    graph = snapshot(model, x, y)
    model.compile("sgd", "mse", run_eagerly=True)
    eager = snapshot(model, x, y)
    assert [info.path for info in eager.layers] == [info.path for info in graph.layers]
    for a, b in zip(graph.statistics, eager.statistics, strict=True):
        for name in ("activation_rms", "backward_rms", "gradient_rms", "weight_rms", "preactivation_rms"):
            assert getattr(a, name) == pytest.approx(getattr(b, name), rel=1e-4, nan_ok=True)


@pytest.mark.parametrize("eager", [False, True])
def test_a_nan_is_seen_where_it_arises(eager):
    """TensorFlow's fused Dense and ReLU turns NaN into 0 on the CPU: what enters the activation tells."""
    i = keras.Input((6,))
    h = layers.Dense(8, "relu", name="first")(i)
    h = layers.Dense(8, "relu", name="broken")(h)
    model = functional(i, layers.Dense(1, name="out")(h), run_eagerly=eager)
    kernel = np.array(model.get_layer("broken").kernel.value)
    kernel[2, 3] = math.nan
    model.get_layer("broken").kernel.assign(kernel)
    shot = snapshot(model, X, Y)
    assert shot["first"].activation_nonfinite == 0.0
    assert shot["broken"].preactivation_nonfinite == pytest.approx(1 / 8)
    assert shot["broken"].weight_nonfinite == pytest.approx(1 / 64)
    assert math.isfinite(shot["broken"].activation_rms)
    assert shot["first"].weight_nonfinite == 0.0


# What other people's code may hold


def test_functions_of_ones_own_are_looked_at_outside_of_the_trace():
    """Whatever it takes to know an activation: it is called with numbers before the step is traced, and never in it."""

    def own(x):
        seen.append(isinstance(x, tf.Tensor) and not hasattr(x, "graph"))
        return ops.tanh(x) + 0.5 * x

    seen = []
    i = keras.Input((6,))
    model = functional(i, layers.Dense(1)(layers.Dense(5, own)(i)))
    seen.clear()
    row = next(row for row in snapshot(model, X, Y).layers if row.kind == "Dense")
    assert row.gain == pytest.approx(1 / math.sqrt(expected_square(lambda z: np.tanh(z) + 0.5 * z)), rel=1e-6)
    # In the trace the model itself calls it once, and nobody else does.
    assert seen.count(False) == 1
    assert seen[-1] is False


def expected_square(phi):
    """E[phi(z)^2] of a standard normal z."""
    z = np.linspace(-10, 10, 20001)
    return float(np.sum(phi(z) ** 2 * np.exp(-(z**2) / 2)) * (z[1] - z[0]) / math.sqrt(2 * math.pi))


@pytest.mark.parametrize("activation", ["no_such_function", 3])
def test_an_attribute_named_activation_may_be_anything(activation):
    class Named(layers.Layer):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.activation = activation

        def build(self, shape):
            self.kernel = self.add_weight(shape=(shape[-1], 5), name="kernel")

        def call(self, x):
            return ops.matmul(x, self.kernel)

    i = keras.Input((6,))
    model = functional(i, layers.Dense(1)(Named(name="named")(i)))
    found = snapshot(model, X, Y)
    row = next(row for row in found.layers if row.path == "named")
    assert row.activation is None
    assert row.gain is None
    assert found["named"].weight_rms > 0


class OwnAttention(layers.Layer):
    """As in many a tutorial: dense layers, and a softmax in the layer's own code."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.query, self.key = layers.Dense(4, name="query"), layers.Dense(4, name="key")

    def call(self, x):
        return self._apply_scores(self.query(x), self.key(x), x, bias=None)

    def _apply_scores(self, query, key, value, bias):
        weights = ops.softmax(3.0 * query @ ops.transpose(key, (0, 2, 1)))
        return weights @ value

    def _compute_attention(self):
        raise AssertionError("of this name, and of another signature than Keras's")


def test_attention_of_ones_own_is_seen_where_its_weights_meet_the_values():
    x = RNG.normal(size=(16, 7, 6)).astype("float32")
    i = keras.Input((7, 6))
    attention = OwnAttention(name="own")
    model = functional(i, layers.Dense(1)(layers.Flatten()(attention(i))))
    found = snapshot(model, x, Y)
    query, key = (np.asarray(layer(x), np.float64)[:8] for layer in (attention.query, attention.key))
    scores = 3.0 * query @ key.transpose(0, 2, 1)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    entropy = -(weights * np.log(weights)).sum(-1).mean() / math.log(7)
    assert found["own/attention"].attention_entropy == pytest.approx(entropy, rel=1e-4)


def test_a_softmax_that_weighs_nothing_is_no_attention():
    class Gate(layers.Layer):
        def call(self, x):
            return x * ops.softmax(x)

    i = keras.Input((7, 6))
    model = functional(i, layers.Dense(1)(layers.Flatten()(Gate(name="gate")(layers.Dense(6)(i)))))
    found = snapshot(model, RNG.normal(size=(16, 7, 6)).astype("float32"), Y)
    assert not any(row.role == "attention" for row in found.layers)


def test_a_subclass_of_keras_attention_that_scores_otherwise_costs_no_more_than_its_row():
    class Biased(layers.MultiHeadAttention):
        def call(self, query, value, key=None):
            return self._compute_attention(query, 2.0)

        def _compute_attention(self, x, factor):
            return factor * x

    i = keras.Input((7, 6))
    h = layers.Dense(6)(i)
    model = functional(i, layers.Dense(1)(layers.Flatten()(Biased(2, 3)(h, h))))
    found = snapshot(model, RNG.normal(size=(16, 7, 6)).astype("float32"), Y)
    assert not any(row.role == "attention" for row in found.layers)
    assert math.isfinite(found.loss)


def test_a_model_of_one_batch_size_is_looked_at_with_the_whole_batch():
    i = keras.Input(batch_shape=(16, 6))
    model = functional(i, layers.Dense(1)(layers.Dense(5, "relu")(i)))
    assert Probe(model, (X, Y), size=8).measure(0).batch_size == 16
    i = keras.Input((6,))
    free = functional(i, layers.Dense(1)(layers.Dense(5, "relu")(i)))
    assert Probe(free, (X, Y), size=8).measure(0).batch_size == 8


def test_a_size_that_only_the_code_of_the_model_knows_is_found_by_trying():
    class Pairs(layers.Layer):
        def call(self, x):
            return ops.reshape(ops.reshape(x, (8, 2, 6)), (16, 6))

    i = keras.Input((6,))
    model = functional(i, layers.Dense(1)(Pairs()(layers.Dense(6, "relu")(i))))
    assert Probe(model, (X, Y), size=8).measure(0).batch_size == 16


def test_many_probes_do_not_make_tensorflow_warn_of_retracing(caplog):
    for _ in range(7):
        i = keras.Input((6,))
        probe = Probe(functional(i, layers.Dense(1)(i)), first_samples((X, Y), 16))
        probe.measure(0)
        for step in (1, 2):
            probe.mark()
            probe.measure(step)
    assert not [record for record in caplog.records if "retracing" in record.getMessage()]


def test_draws_without_a_seed_are_the_same_at_each_audit_and_make_no_generator_for_keras():
    class Noise(layers.Layer):
        def call(self, x, training=False):
            return x + keras.random.normal(ops.shape(x)) if training else x

    keras.backend.clear_session()
    i = keras.Input((6,))
    model = functional(i, layers.Dense(1)(Noise(name="noise")(i)))
    gc.disable()  # what nothing holds goes at once; what a cycle holds may stay for a while
    try:
        probe = Probe(model, first_samples((X, Y), 16))
        first = probe.measure(0)
    finally:
        gc.enable()
    gc.collect()
    second = probe.measure(1)
    assert first["noise"].activation_rms == second["noise"].activation_rms > 0
    keras.utils.set_random_seed(3)
    before = float(keras.random.normal(()))
    probe.measure(2)
    keras.utils.set_random_seed(3)
    assert float(keras.random.normal(())) == before
