"""Remedies: what `apply` does with a model and its data."""

import keras
import numpy as np
import pytest
from keras import layers, ops

from keras_initaudit.diagnosis import Thresholds, diagnose
from keras_initaudit.observe.batch import first_batch, first_samples
from keras_initaudit.observe.probe import Probe
from keras_initaudit.records.remedies import (
    Policy,
    Preprocess,
    Reinitialize,
    ScaleTargets,
    Scheme,
)
from keras_initaudit.remedies import apply

RNG = np.random.default_rng(0)
X = RNG.normal(size=(64, 20)).astype("float32")
Y = RNG.integers(0, 4, 64)


def network(start, activation="relu", depth=8, **options):
    hidden = [
        layers.Dense(48, activation=activation, kernel_initializer=start, name=f"hidden_{index}", **options)
        for index in range(depth)
    ]
    model = keras.Sequential(
        [keras.Input((20,)), *hidden, layers.Dense(4, activation="softmax", name="head")], name="net"
    )
    model.compile("adam", "sparse_categorical_crossentropy")
    return model


def probe_of(model, x=X, y=Y):
    return Probe(model, first_samples(first_batch(x, y, None, size=32), 32), histograms=False)


def found_in(probe):
    return diagnose([probe.measure(0)], Thresholds())


def state(model):
    return [np.array(ops.convert_to_numpy(variable)) for variable in model.variables]


def same(one, other):
    return all(a.tobytes() == b.tobytes() for a, b in zip(one, other, strict=True))


def test_figures_are_those_of_all_the_data_and_not_of_the_batch_that_was_seen():
    """Data in an order: the first batch lies around 20, or is as large as that, and all of it is not."""
    keras.utils.set_random_seed(1)
    generator = np.random.default_rng(2)
    x = generator.normal(size=(256, 8)).astype("float32")
    slow = np.linspace(20.0, -12.0, 256, dtype="float32")[:, None]
    y = slow + 0.1 * generator.normal(size=(256, 1)).astype("float32")
    hidden, out = keras.layers.Dense(32, "relu", name="hidden"), keras.layers.Dense(1, name="out")
    model = keras.Sequential([keras.Input((8,), name="x"), hidden, out], name="regression")
    model.compile("adam", "mse")
    (finding,) = found_in(probe_of(model, x, y))
    assert finding.rule == "initial-loss"
    apply(finding.action, model, (x, y))
    assert float(model.get_layer("out").bias.value[0]) == pytest.approx(float(y.mean()), rel=1e-5)
    assert abs(y.mean() - y[:32].mean()) > 10.0

    (finding,) = [f for f in found_in(probe_of(model, 30.0 * slow * x, y)) if f.rule == "input-scale"]
    data, _ = apply(finding.action, model, (30.0 * slow * x, y))
    assert float(np.std(ops.convert_to_numpy(data))) == pytest.approx(1.0, rel=1e-3)

    (finding,) = [f for f in found_in(probe_of(model, x, 30.0 * y)) if f.rule == "target-scale"]
    _, targets = apply(finding.action, model, (x, 30.0 * y))
    assert float(np.std(ops.convert_to_numpy(targets))) == pytest.approx(1.0, rel=1e-3)
    assert float(np.mean(ops.convert_to_numpy(targets))) == pytest.approx(0.0, abs=1e-3)


def test_only_the_named_layers_are_drawn_again_and_always_alike():
    schemes = {"kernel_initializer": Scheme("HeNormal"), "bias_initializer": Scheme("Zeros")}
    remedy = Reinitialize(schemes, layers=("hidden_1", "hidden_2#2"))
    drawn = []
    for _ in range(2):
        model = network("ones", bias_initializer="ones", depth=3)
        apply(remedy, model)
        drawn.append(state(model)[:6])  # less the head, which follows no seed here
    assert same(*drawn)
    first, second, third = (model.get_layer(f"hidden_{index}") for index in range(3))
    assert np.all(np.array(first.kernel) == 1.0)
    assert np.all(np.array(first.bias) == 1.0)
    for layer in (second, third):
        assert np.array(layer.kernel).var() * 48 == pytest.approx(2.0, rel=5 * np.sqrt(2 / 48**2))
        assert np.all(np.array(layer.bias) == 0.0)
    assert not np.array_equal(np.array(second.kernel), np.array(third.kernel))


def test_recurrent_kernels_take_their_own_scheme_and_forget_gates_stay_open():
    model = keras.Sequential([keras.Input((5, 6)), layers.LSTM(8, name="lstm"), layers.Dense(1)])
    schemes = {
        "kernel_initializer": Scheme("GlorotNormal"),
        "recurrent_initializer": Scheme("Orthogonal", {"blocks": 4}),
        "bias_initializer": Scheme("Zeros"),
    }
    apply(Reinitialize(schemes, layers=("lstm",)), model)
    cell = model.get_layer("lstm").cell
    for gate in np.split(np.array(cell.recurrent_kernel), 4, axis=1):
        np.testing.assert_allclose(gate.T @ gate, np.eye(8), atol=1e-5)
    np.testing.assert_array_equal(np.array(cell.bias), np.repeat([0.0, 1.0, 0.0], [8, 8, 16]))


def test_parts_of_attention_are_drawn_with_their_axes():
    inputs = keras.Input((5, 64))
    attention = layers.MultiHeadAttention(4, 16, name="attention")
    model = keras.Model(inputs, attention(inputs, inputs))
    apply(Reinitialize({"kernel_initializer": Scheme("HeNormal")}, layers=("attention/query",)), model)
    kernel = np.array(attention.query_dense.kernel)
    assert kernel.var() * 64 == pytest.approx(2.0, rel=5 * np.sqrt(2 / kernel.size))


def test_what_cannot_be_applied_is_an_error_that_says_why():
    model = network("he_normal", depth=1)
    with pytest.raises(TypeError, match=r"one of keras_initaudit\.records\.remedies, got NoneType"):
        apply(None, model)
    with pytest.raises(ValueError, match="'hidden_9', which is no layer of 'net'"):
        apply(Reinitialize({"kernel_initializer": Scheme("Zeros")}, layers=("hidden_9",)), model)
    with pytest.raises(ValueError, match="no initializer '__import__'"):
        apply(Reinitialize({"kernel_initializer": Scheme("__import__")}, layers=("hidden_0",)), model)
    with pytest.raises(ValueError, match=r"is built.*set_dtype_policy"):
        apply(Policy("mixed_bfloat16"), model)
    with pytest.raises(ValueError, match="needs y as one array, got NoneType"):
        apply(ScaleTargets(), model, (X,))
    with pytest.raises(ValueError, match="needs y as one array, got dict"):
        apply(ScaleTargets(), model, (X, {"a": Y}))
    with pytest.raises(ValueError, match="no input at"):
        apply(Preprocess("bytes", ("c",)), model, ({"a": X, "b": X}, Y))
