"""Starts for whole models: what each kernel feeds, its true fans, residual branches, deep chains, tuning on data."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_initaudit as ki
from keras_initaudit.observe.graph import places
from keras_initaudit.remedies.initialization import operating_variance
from keras_initaudit.theory.gains import activation_name, gain

RNG = np.random.default_rng(0)


def values(variable):
    return np.asarray(ops.convert_to_numpy(variable), np.float64)


def assert_variance(variable, expected):
    sample = values(variable)
    assert abs(sample.var() / expected - 1) <= 5 * np.sqrt(2 / sample.size)


@pytest.mark.parametrize(
    ("activation", "kind", "variance"),
    [
        ("relu", ki.HeNormal, 2 / 30),
        ("relu6", ki.HeNormal, gain("relu6") ** 2 / 30),
        ("leaky_relu(0.1)", ki.HeNormal, gain("leaky_relu(0.1)") ** 2 / 30),
        (layers.LeakyReLU(negative_slope=0.1), ki.HeNormal, gain("leaky_relu(0.1)") ** 2 / 30),
        ("gelu", ki.HeNormal, gain("gelu") ** 2 / 30),
        (keras.activations.silu, ki.HeNormal, gain("silu") ** 2 / 30),
        ("elu", ki.HeNormal, gain("elu") ** 2 / 30),
        ("selu", ki.LeCunNormal, 1 / 30),
        ("tanh", ki.GlorotNormal, 2 / 50),
        ("sigmoid", ki.GlorotNormal, 2 / 50),
        ("hard_sigmoid", ki.GlorotNormal, 2 / 50),
        ("softmax", ki.GlorotNormal, 2 / 50),
        ("linear", ki.GlorotNormal, 2 / 50),
        (None, ki.GlorotNormal, 2 / 50),
    ],
)
def test_the_rule_of_thumb(activation, kind, variance):
    scheme = ki.recommend(activation)
    assert type(scheme) is kind
    assert scheme.variance((30, 20)) == pytest.approx(variance)


def test_an_unknown_activation_has_no_recommendation():
    with pytest.raises(ValueError, match="Unknown activation"):
        ki.recommend("rellu")


NO_GAIN = {
    "unit length": lambda x: x / ops.norm(x, axis=-1, keepdims=True),
    "log": lambda x: ops.log(x + 5.0),
    "root": ops.sqrt,
    "random": lambda x: x + keras.random.normal(ops.shape(x), dtype=x.dtype),
    "another softmax": lambda x: ops.softmax(2.0 * x),
}


class Labelled(layers.Dense):
    """Has an attribute `activation` that is none."""

    def __init__(self, units, label):
        super().__init__(units)
        self.label = label

    def build(self, shape):
        super().build(shape)
        self.activation = self.label

    def call(self, x):
        return ops.matmul(x, self.kernel) + self.bias


@pytest.mark.parametrize("activation", NO_GAIN.values(), ids=NO_GAIN)
def test_an_activation_without_a_gain_is_treated_as_linear(activation):
    assert type(ki.recommend(activation)) is ki.GlorotNormal
    for eager in (False, True):
        model = keras.Sequential([keras.Input((300,)), layers.Dense(200, activation), layers.Dense(3)])
        model.compile("sgd", "mse", run_eagerly=eager)
        assert_variance(ki.initialize(model, seed=1).layers[0].kernel, 2 / 500)
        ki.initialize(model, x=np.ones((4, 300), "float32") / 300, seed=1)


@pytest.mark.parametrize("label", ["rellu", 3, "half"])
def test_an_attribute_that_is_no_activation_is_none(label):
    assert type(ki.recommend(Labelled(3, label))) is ki.GlorotNormal
    model = keras.Sequential([keras.Input((300,)), Labelled(200, label), layers.ReLU(), Labelled(3, label)])
    ki.initialize(model, seed=1)
    assert_variance(model.layers[0].kernel, 2 / 300)  # what follows is its activation
    ki.initialize(model, x=np.ones((4, 300), "float32"), seed=1)


@pytest.mark.parametrize(
    ("activation", "name"),
    [(lambda x: ops.silu(x), "silu"), (lambda x: ops.sigmoid(x), "sigmoid"), (ops.relu, "relu")],
    ids=["silu", "sigmoid", "relu"],
)
def test_a_function_that_keras_knows_by_another_name_is_started_in_the_same_way(activation, name):
    x = RNG.normal(size=(32, 16)).astype("float32")
    assert repr(ki.recommend(activation)) == repr(ki.recommend(name))

    def started(function):
        found = []
        for data in (None, x):
            hidden = [layers.Dense(16, function, name=f"hidden_{index}") for index in range(8)]
            model = keras.Sequential([keras.Input((16,)), *hidden, layers.Dense(3, name="head")], name="same")
            found += [values(variable) for variable in ki.initialize(model, x=data, seed=1).weights]
        return found

    for one, other in zip(started(activation), started(name), strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_function_of_ones_own_is_started_with_its_gain():
    def quick(x):
        return x * ops.sigmoid(1.702 * x)

    class Quick(layers.Layer):
        def call(self, x):
            return quick(x)

    assert ki.recommend(quick).variance((30, 20)) == pytest.approx(gain(quick) ** 2 / 30)
    for hidden in ([layers.Dense(200, quick)], [layers.Dense(200), Quick()], [layers.Dense(200, Quick())]):
        model = keras.Sequential([keras.Input((300,)), *hidden, layers.Dense(3)])
        assert_variance(ki.initialize(model, seed=1).layers[0].kernel, gain(quick) ** 2 / 300)


def feeds(model, x=None):
    return {
        place.path: activation_name(place.activation) if place.activation is not None else None
        for place in places(model, x)
    }


def test_an_activation_is_found_behind_its_kernel_whatever_stands_between():
    model = keras.Sequential(
        [
            keras.Input((12, 12, 3)),
            layers.Conv2D(8, 3, name="behind_norm"),
            layers.BatchNormalization(),
            layers.LeakyReLU(negative_slope=0.1),
            layers.SeparableConv2D(8, 3, activation="relu", name="separable"),
            layers.DepthwiseConv2D(3, name="behind_pooling"),
            layers.MaxPooling2D(),
            layers.Activation("silu"),
            layers.Flatten(),
            layers.Dense(16, name="behind_dropout"),
            layers.Dropout(0.1),
            layers.ReLU(),
            layers.Dense(16, name="linear"),
            layers.Dense(4, activation="softmax", name="head"),
        ],
        name="m",
    )
    assert feeds(model) == {
        "m/behind_norm/kernel": "leaky_relu(0.1)",
        "m/separable/depthwise_kernel": None,
        "m/separable/pointwise_kernel": "relu",
        "m/behind_pooling/kernel": "silu",
        "m/behind_dropout/kernel": "relu",
        "m/linear/kernel": None,
        "m/head/kernel": "softmax",
    }
    assert [place.head for place in places(model)] == [False] * 6 + [True]


class OwnCall(keras.Model):
    """Activations and additions that no layer makes."""

    def __init__(self):
        super().__init__(name="own")
        self.first = layers.Dense(32, name="first")
        self.inner = [layers.Dense(32, name=f"inner_{index}") for index in range(3)]
        self.last = [layers.Dense(32, name=f"last_{index}") for index in range(3)]
        self.head = layers.Dense(2, name="head")

    def call(self, x):
        x = ops.relu(self.first(x))
        for inner, last in zip(self.inner, self.last, strict=True):
            x = x + last(ops.tanh(inner(x)))
        return self.head(x)


def test_a_models_own_call_is_seen_through():
    model = OwnCall()
    model(np.zeros((2, 8), "float32"))
    found = feeds(model)
    assert found["own/first/kernel"] == "relu"
    assert found["own/inner_1/kernel"] == "tanh"
    branches = {place.path: place.branches for place in places(model)}
    assert branches["own/last_0/kernel"] == branches["own/last_2/kernel"] == 3
    assert branches["own/inner_0/kernel"] == branches["own/first/kernel"] == branches["own/head/kernel"] == 1


def residual(normalise):
    inputs = keras.Input((64,))
    x = layers.Dense(64, activation="relu", name="stem")(inputs)
    for index in range(4):
        z = layers.LayerNormalization()(x) if normalise == "before" else x
        z = layers.Dense(64, activation="relu", name=f"inner_{index}")(z)
        z = layers.Dense(64, name=f"last_{index}")(z)
        x = layers.Add()([x, z])
        x = layers.LayerNormalization()(x) if normalise == "after" else x
    return keras.Model(inputs, layers.Dense(3)(x))


def test_residual_branches_are_scaled_where_nothing_normalises_them():
    assert_variance(ki.initialize(residual(None), seed=1).get_layer("last_2").kernel, 2 / 128 / 4)
    for where in ("before", "after"):
        assert_variance(ki.initialize(residual(where), seed=1).get_layer("last_2").kernel, 2 / 128)


def test_kernels_have_the_variance_of_their_true_fans():
    model = keras.Sequential(
        [
            keras.Input((16, 16, 32)),
            layers.DepthwiseConv2D(5, depth_multiplier=8, activation="relu"),
            layers.Conv2D(64, 3, groups=8, activation="gelu"),
            layers.Conv2DTranspose(32, 4, strides=2, activation="relu"),
            layers.Reshape((-1, 32)),
            layers.LSTM(24),
            layers.Dense(3),
        ]
    )
    ki.initialize(model, seed=3)
    depthwise, grouped, transposed, _, recurrent, _ = model.layers
    assert_variance(depthwise.kernel, 2 / 25)
    assert_variance(grouped.kernel, gain("gelu") ** 2 / (9 * 32))
    assert_variance(transposed.kernel, 2 / (4 * 64))
    assert_variance(recurrent.cell.kernel, 2 / (32 + 24))
    for gate in np.split(values(recurrent.cell.recurrent_kernel), 4, axis=1):
        np.testing.assert_allclose(gate.T @ gate, np.eye(24), atol=1e-5)
    np.testing.assert_array_equal(values(recurrent.cell.bias), np.repeat([0.0, 1.0, 0.0], [24, 24, 48]))
    # The shape alone says 25 * 32 for the depthwise kernel: the tolerance tells.
    with pytest.raises(AssertionError):
        assert_variance(depthwise.kernel, 2 / (25 * 32))


def test_hidden_biases_start_at_zero_and_those_of_the_head_and_frozen_weights_stay():
    model = keras.Sequential(
        [
            keras.Input((8,)),
            layers.Dense(16, activation="relu", bias_initializer="ones"),
            layers.Dense(16, activation="relu", kernel_initializer="ones", name="frozen"),
            layers.Dense(2, bias_initializer=keras.initializers.Constant(-4.6)),
        ]
    )
    model.get_layer("frozen").trainable = False
    ki.initialize(model, seed=1)
    first, frozen, head = model.layers
    assert np.all(values(first.bias) == 0.0)
    assert np.all(values(frozen.kernel) == 1.0)
    np.testing.assert_allclose(values(head.bias), -4.6, rtol=1e-6)
    assert values(head.kernel).std() > 0.05


def twin():
    return keras.Sequential(
        [keras.Input((16,)), layers.Dense(16, name="a"), layers.Dense(16, name="b"), layers.Dense(16, name="c")],
        name="twin",
    )


def test_each_weight_has_a_seed_of_its_own_that_follows_from_one():
    one, again, other = (ki.initialize(twin(), seed=seed) for seed in (5, 5, 6))
    kernels = [values(layer.kernel).ravel() for layer in one.layers]
    for index, kernel in enumerate(kernels):
        np.testing.assert_array_equal(kernel, values(again.layers[index].kernel).ravel())
        assert not np.array_equal(kernel, values(other.layers[index].kernel).ravel())
    # 256 pairs: a standard error of 1/16.
    assert np.abs(np.corrcoef(kernels) - np.eye(3)).max() < 5 / 16
    keras.utils.set_random_seed(1)
    first = values(ki.initialize(twin()).layers[0].kernel)
    assert not np.array_equal(first, values(ki.initialize(twin()).layers[0].kernel))
    keras.utils.set_random_seed(1)
    np.testing.assert_array_equal(first, values(ki.initialize(twin()).layers[0].kernel))


@pytest.mark.parametrize("scheme", ["he_normal", ki.HeNormal(), keras.initializers.HeUniform()])
def test_a_scheme_of_ones_own_gets_the_true_fans(scheme):
    model = keras.Sequential([keras.Input((9, 9, 64)), layers.DepthwiseConv2D(5, depth_multiplier=4)])
    ki.initialize(model, scheme, seed=1)
    assert_variance(model.layers[0].kernel, 2 / 25)


def test_orthogonal_as_the_scheme_gets_axes_and_groups():
    inputs = keras.Input((5, 16))
    x = layers.MultiHeadAttention(4, 4, name="attention")(inputs, inputs)
    model = keras.Model(inputs, layers.Conv1D(16, 1, groups=2, name="conv")(x))
    ki.initialize(model, "orthogonal", seed=1)
    ki.initialize(model, ki.Orthogonal(), seed=1)
    query = values(model.get_layer("attention").query_dense.kernel).reshape(16, 16)
    np.testing.assert_allclose(query @ query.T, np.eye(16), atol=1e-5)
    for group in np.split(values(model.get_layer("conv").kernel)[0], 2, axis=1):
        np.testing.assert_allclose(group.T @ group, np.eye(8), atol=1e-5)


def test_arguments_are_checked():
    with pytest.raises(TypeError, match="`model` must be"):
        ki.initialize(layers.Dense(3))
    with pytest.raises(TypeError, match="`seed` must be"):
        ki.initialize(twin(), seed="3")
    with pytest.raises(ValueError, match="not built"):
        ki.initialize(keras.Sequential([layers.Dense(3)]))
    with pytest.raises((TypeError, ValueError)):
        ki.initialize(twin(), scheme="best")
    built = ki.initialize(keras.Sequential([layers.Dense(3)]), x=np.zeros((2, 4), "float32"))
    assert built.built


def test_a_layer_with_unknown_fans_is_named_and_read_off_its_shape():
    class Odd(layers.Layer):
        def build(self, shape):
            self.matrix = self.add_weight(shape=(shape[-1], 200), name="matrix")

        def call(self, x):
            return ops.matmul(x, self.matrix)

    model = keras.Sequential([keras.Input((100,)), Odd(), layers.Dense(1)])
    with pytest.warns(UserWarning, match="register"):
        ki.initialize(model, seed=1)
    assert_variance(model.layers[0].matrix, 2 / 300)


# --- deep chains


def test_the_operating_variance_is_one_where_the_activation_allows_it():
    assert operating_variance("relu", 64) == 1.0
    assert operating_variance("selu", 64) == 1.0
    assert operating_variance("gelu", 2) == 1.0
    assert operating_variance("softmax", 64) == 1.0
    shallow, deep = operating_variance("gelu", 16), operating_variance("gelu", 64)
    assert 1.0 > shallow > deep > 0.0


def sizes(model, x):
    """Rms of the output of every layer."""
    found = []
    for layer in model.layers:
        x = layer(x)
        found.append(float(ops.sqrt(ops.mean(ops.square(x)))))
    return found


@pytest.mark.parametrize("activation", ["relu", "silu", "tanh", "sigmoid"])
@pytest.mark.parametrize("tuned", [False, True], ids=["analytic", "tuned"])
def test_a_deep_chain_keeps_the_size_of_its_signal(activation, tuned):
    model = keras.Sequential([keras.Input((64,)), *(layers.Dense(64, activation=activation) for _ in range(24))])
    x = RNG.normal(size=(128, 64)).astype("float32")
    ki.initialize(model, x=x if tuned else None, seed=1)
    found = sizes(model, x)
    # relu's and tanh's analytic starts wander or decay by their own nature: Glorot is critical for tanh at size 0.
    assert 1 / 20 < found[-2] / found[1] < 20
    spread = values(model(x)).std(axis=0).mean()
    if activation == "sigmoid":
        assert spread > 0.01  # the samples are still told apart
        keras_default = keras.Sequential([keras.Input((64,)), *(layers.Dense(64, "sigmoid") for _ in range(24))])
        assert values(keras_default(x)).std(axis=0).mean() < 1e-5


# --- tuning


def preactivation_rms(layer, x):
    inputs = ops.convert_to_tensor(x)
    before, layer.activation = layer.activation, keras.activations.linear
    value = float(ops.sqrt(ops.mean(ops.square(layer(inputs)))))
    layer.activation = before
    return value


def test_every_kind_of_layer_is_tuned_to_unit_size():
    inputs = keras.Input((7, 7, 3))
    x = layers.Conv2D(8, 3, activation="relu", name="conv")(inputs)
    x = layers.SeparableConv2D(8, 3, name="separable")(x)
    x = layers.Conv2DTranspose(6, 3, strides=2, name="transposed")(x)
    x = layers.Reshape((-1, 6))(x)
    x = layers.MultiHeadAttention(2, 4, name="attention")(x, x)
    x = layers.TimeDistributed(layers.Dense(5, name="inner"), name="each")(x)
    x = layers.Bidirectional(layers.LSTM(4, return_sequences=True), name="both")(x)
    x = layers.GRU(4, name="gru")(x)
    shared = layers.Dense(4, name="shared")
    model = keras.Model(inputs, shared(shared(x)))
    data = (5.0 + 3.0 * RNG.normal(size=(16, 7, 7, 3))).astype("float32")
    ki.initialize(model, x=data, seed=1)

    def rms(of, into=None):
        part = keras.Model(inputs, of)
        return float(np.sqrt(np.mean(values(part(data)) ** 2)))

    assert preactivation_rms(model.get_layer("conv"), data) == pytest.approx(1.0, rel=0.03)
    for name in ("separable", "transposed", "each"):
        assert rms(model.get_layer(name).output) == pytest.approx(1.0, rel=0.03)
    attention = model.get_layer("attention")
    sequence = keras.Model(inputs, attention.input[0] if isinstance(attention.input, list) else attention.input)(data)
    for part in (attention.query_dense, attention.key_dense, attention.value_dense):
        assert np.sqrt(np.mean(values(part(sequence)) ** 2)) == pytest.approx(1.0, rel=0.03)
    assert rms(attention.output) == pytest.approx(1.0, rel=0.03)
    for name, cell in (("both", model.get_layer("both").backward_layer.cell), ("gru", model.get_layer("gru").cell)):
        entering = values(keras.Model(inputs, model.get_layer(name).input)(data))
        assert np.sqrt(np.mean((entering @ values(cell.kernel)) ** 2)) == pytest.approx(1.0, rel=0.03)
    first_call = shared(keras.Model(inputs, model.get_layer("gru").output)(data))
    assert np.sqrt(np.mean(values(first_call) ** 2)) == pytest.approx(1.0, rel=0.03)


def test_squashing_units_are_centred_on_the_data():
    hidden = [layers.Dense(16, "sigmoid") for _ in range(2)]
    model = keras.Sequential([keras.Input((8,)), *hidden, layers.Dense(1)])
    data = (3.0 + RNG.normal(size=(256, 8))).astype("float32")
    ki.initialize(model, x=data, seed=1)
    hidden = values(model.layers[0](data))
    np.testing.assert_allclose(hidden.mean(axis=0), 0.5, atol=0.05)
    layer = model.layers[1]
    z = values(ops.matmul(model.layers[0](data), layer.kernel) + layer.bias)
    np.testing.assert_allclose(z.mean(axis=0), 0.0, atol=1e-2)
    assert np.sqrt(np.mean(z**2)) == pytest.approx(1.0, rel=0.03)


def test_tuning_leaves_nothing_behind():
    model = keras.Sequential([keras.Input((8,)), layers.Dense(16), layers.BatchNormalization(), layers.Dropout(0.5)])
    before = [set(vars(layer)) for layer in model.layers]
    frozen = [values(variable) for variable in model.layers[1].weights]
    ki.initialize(model, x=np.ones((4, 8), "float32"), seed=1)
    assert [set(vars(layer)) for layer in model.layers] == before
    for variable, value in zip(model.layers[1].weights, frozen, strict=True):
        np.testing.assert_array_equal(values(variable), value)

    class Broken(layers.Layer):
        def call(self, x, **kwargs):
            raise RuntimeError("no")

    dense = layers.Dense(4)
    model = keras.Sequential([dense, layers.Dense(4)])
    model.build((None, 8))
    broken = Broken()
    model.layers[1].call = broken.call
    with pytest.raises(RuntimeError, match="no"), pytest.warns(UserWarning, match="could not be followed"):
        ki.initialize(model, x=np.ones((4, 8), "float32"), seed=1)
    assert "call" not in vars(dense)
