"""A function is what it does: callables that are not Keras's own, and whatever else stands as an activation."""

import functools
import random

import keras
import numpy as np
import pytest
from keras import layers, ops

from keras_initaudit.theory.gains import ActivationFacts, activation_name, facts, flat_ends, gain

TENSORFLOW = keras.backend.backend() == "tensorflow"


def my_gelu(x):
    return keras.activations.gelu(x)


def gelu(x):
    """Has the name of another function."""
    return x * ops.sigmoid(1.702 * x)


class OwnSilu(layers.Layer):
    def call(self, x):
        return x * ops.sigmoid(x)


class Failing(layers.Layer):
    def call(self, x):
        raise RuntimeError("not today")


class Unreadable(layers.Layer):
    @property
    def activation(self):
        raise RuntimeError("not set")


class Reshaping(layers.Layer):
    def call(self, x):
        return ops.reshape(x, (-1,))


KNOWN = [
    (ops.relu, "relu"),
    (ops.gelu, "gelu(tanh)"),  # keras.ops.gelu approximates by default, keras.activations.gelu does not
    (my_gelu, "gelu"),
    (functools.partial(ops.gelu, approximate=False), "gelu"),
    (ops.silu, "silu"),
    (ops.tanh, "tanh"),
    (ops.sigmoid, "sigmoid"),
    (ops.relu6, "relu6"),
    (ops.selu, "selu"),
    (ops.exp, "exponential"),
    (ops.soft_shrink, "soft_shrink"),
    (lambda x: ops.maximum(x, 0.1 * x), "leaky_relu(0.1)"),
    (lambda x: ops.elu(x, 0.5), "elu(0.5)"),
    (lambda x: ops.celu(x, 2.0), "celu(2)"),
    (lambda x: ops.minimum(ops.relu(x), 20.0), "relu(max_value=20)"),
    (lambda x: ops.exp(x) / (1.0 + ops.exp(x)), "sigmoid"),
    (lambda x: ops.cast(ops.relu(ops.cast(x, "float32")), x.dtype), "relu"),
    (layers.Activation(ops.silu), "silu"),
    (layers.Dense(2, ops.relu), "relu"),
    (OwnSilu(), "silu"),
]


@pytest.mark.parametrize(("activation", "name"), KNOWN, ids=lambda value: value if isinstance(value, str) else "")
def test_a_callable_with_the_values_of_a_known_function_is_that_function(activation, name):
    assert activation_name(activation) == name
    assert facts(activation) == ActivationFacts(name, gain(name), flat_ends(name))
    assert facts(activation).known
    assert gain(activation, "backward") == gain(name, "backward")


@pytest.mark.skipif(not TENSORFLOW, reason="functions of TensorFlow")
@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("nn.relu", "relu"),
        ("nn.gelu", "gelu"),
        ("nn.leaky_relu", "leaky_relu(0.2)"),
        ("nn.swish", "silu"),
        ("tanh", "tanh"),
        ("nn.softmax", "softmax"),
        ("nn.log_softmax", "log_softmax"),
    ],
)
def test_functions_of_tensorflow_are_those_of_keras(path, name):
    import tensorflow as tf

    function = functools.reduce(getattr, path.split("."), tf)
    assert activation_name(function) == name
    # A graph that was made for other shapes is not traced again, only the function behind it is called.
    graph = tf.function(function)
    assert activation_name(graph) == name
    assert graph.experimental_get_tracing_count() == 0


def test_the_linear_function_has_no_name_whoever_wrote_it():
    assert facts(lambda x: x) == ActivationFacts(None, 1.0, None)
    assert facts(lambda x: 0.5 * x).name == "test_activations.<lambda>"


def test_softmax_is_known_by_its_rows_and_only_over_the_last_axis():
    assert facts(lambda x: ops.softmax(x)) == ActivationFacts("softmax", None, None)
    assert facts(ops.log_softmax).name == "log_softmax"
    assert facts(lambda x: ops.softmax(x, axis=1)).name == "test_activations.<lambda>"
    assert facts(lambda x: ops.softmax(2.0 * x)).name == "test_activations.<lambda>"


def test_the_name_of_ones_own_function_is_none_that_can_be_given_back():
    found = facts(gelu)
    assert found.name == "test_activations.gelu"
    assert not found.known
    assert found.gain != pytest.approx(gain("gelu"), abs=1e-3)
    with pytest.raises(ValueError, match="must be a name"):
        gain(found.name)


@pytest.mark.parametrize(
    "activation",
    [
        lambda x: x / ops.norm(x, axis=-1, keepdims=True),
        lambda x: ops.log(x + 5.0),
        ops.sqrt,
        lambda x: x + keras.random.normal(ops.shape(x), dtype=x.dtype),
        lambda x: x * random.random(),
        lambda x: x * np.random.default_rng().uniform(),
        lambda x: ops.sum(x),
        lambda x: ops.concatenate([x, -x], axis=-1),
        lambda x, y: x,
        ops.cumsum,
        lambda x: x - ops.mean(x),
    ],
)
def test_a_callable_without_a_gain_has_a_name_and_nothing_else(activation):
    found = facts(activation)
    assert found.name is not None
    assert "." in found.name
    assert (found.gain, found.ends) == (None, None)


@pytest.mark.parametrize(
    "nothing",
    [
        None,
        "rellu",
        "elu(much)",
        3,
        object(),
        {"class_name": "?"},
        Failing(),
        Reshaping(),
        Unreadable(),
        layers.Flatten(),
        layers.BatchNormalization(),
    ],
)
def test_what_is_no_activation_has_no_facts(nothing):
    assert facts(nothing) == ActivationFacts(None, None, None)


def test_a_constant_in_float32_costs_precision_and_nothing_else():
    two = ops.convert_to_tensor(np.float32(2.0))

    def strict(x):
        if keras.backend.standardize_dtype(x.dtype) != "float32":
            raise TypeError("float32 alone")
        return ops.sin(two * x)

    z = np.linspace(-13.0, 13.0, 2_000_001)
    power = np.trapezoid(np.exp(-0.5 * z * z) / np.sqrt(2 * np.pi) * np.sin(2 * z) ** 2, z)
    assert facts(strict).gain == pytest.approx(power**-0.5, rel=1e-6)
    assert gain(lambda x: ops.relu(strict(x))) > 0.0


def test_a_function_that_is_only_steep_in_a_narrow_place_has_no_flat_ends():
    assert flat_ends(lambda x: ops.sqrt(ops.abs(x))) is None
    assert flat_ends(lambda x: ops.sqrt(ops.abs(x) + 1e-7)) is None
    assert flat_ends(lambda x: ops.log(ops.abs(x) + 1e-6)) is None
    # Steep in a narrow place, and still beyond it: that is what saturation is.
    low, high = flat_ends(lambda x: ops.tanh(100.0 * x))
    assert -low == pytest.approx(high, abs=1e-3)
    if keras.backend.backend() != "jax":  # which has no float64: its panels are as wide as that place
        assert high == pytest.approx(flat_ends("tanh")[1] / 100.0, rel=0.05)


def test_a_thousand_layers_with_a_function_each_are_evaluated_in_seconds():
    called = 0

    def counted(x):
        nonlocal called
        called += 1
        return ops.sin(x)

    first = facts(counted)
    once, called = called, 0
    assert all(facts(lambda x: counted(x)).gain == first.gain for _ in range(10))
    assert called <= 3 * 10 < 10 * once


@pytest.mark.skipif(not TENSORFLOW, reason="traces are TensorFlow's")
def test_nothing_is_evaluated_while_a_graph_is_traced():
    import tensorflow as tf

    called = []

    def own(x):
        called.append(x)
        return ops.relu(x)

    @tf.function
    def traced(x):
        found.extend([activation_name(own), facts(own), facts(OwnSilu()), facts("relu"), facts(layers.PReLU())])
        with pytest.raises(ValueError, match="while a graph is traced"):
            gain(own)
        return x

    found = []
    graph = traced.get_concrete_function(tf.ones(3)).graph
    assert found[:2] == ["test_activations.own", ActivationFacts("test_activations.own", None, None)]
    assert found[2:] == [
        ActivationFacts(None, None, None),
        ActivationFacts("relu", gain("relu"), None),
        ActivationFacts(None, None, None),
    ]
    assert not called
    assert len(graph.get_operations()) <= 2  # the argument and the result
    assert activation_name(own) == "relu"
