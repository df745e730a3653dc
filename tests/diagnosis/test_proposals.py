"""Which remedy a signal that is lost gets: not always other kernels."""

from dataclasses import replace

import keras
import numpy as np
import pytest
from keras import layers

from keras_initaudit.diagnosis import diagnose
from keras_initaudit.diagnosis.attempts import new_starts
from keras_initaudit.diagnosis.proposals import rescaled
from keras_initaudit.observe.batch import first_batch
from keras_initaudit.observe.probe import Probe
from keras_initaudit.records.remedies import (
    Activate,
    LearningRate,
    PlainNormalization,
    Preprocess,
    Reinitialize,
    Scheme,
    Together,
    WholeModel,
    Widen,
)

RNG = np.random.default_rng(0)
X = RNG.normal(size=(32, 20)).astype("float32")
Y = RNG.integers(0, 4, 32)


def dense(width, activation, **options):
    return lambda h: layers.Dense(width, activation, **options)(h)


def gated(h):
    """The softmax of a mixture of experts: it scales another row."""
    gate = layers.Dense(32, "softmax")(h)
    return layers.Dense(32, "sigmoid")(layers.Multiply()([gate, layers.Dense(32, "sigmoid")(h)]))


def normalized(**options):
    return lambda h: layers.ReLU()(layers.BatchNormalization(**options)(layers.Dense(32)(h)))


def residual(h):
    return layers.Add()([h, layers.Dense(20, kernel_initializer="he_normal")(layers.Dense(32, "relu")(h))])


def measured(*stack, x=X):
    keras.utils.set_random_seed(1)
    keras.backend.clear_session()
    inputs = h = keras.Input(x.shape[1:], name="x")
    for layer in stack:
        h = layer(h)
    model = keras.Model(inputs, layers.Dense(4, "softmax", name="head")(h), name="model")
    model.compile("adam", "sparse_categorical_crossentropy")
    return Probe(model, first_batch(x, Y, None, size=32), histograms=False).measure(0)


def remedies(*stack):
    return [type(finding.action) for finding in diagnose([measured(*stack)])]


LOST = {
    "softmax, hidden": ([dense(64, "softmax")] * 3, Activate),
    "sigmoids": ([dense(32, "sigmoid")] * 8, Activate),
    "sigmoids drawn too wide": ([dense(32, "sigmoid", kernel_initializer="random_normal")] * 8, Activate),
    "beta": ([normalized(beta_initializer=keras.initializers.Constant(-6.0))] * 2, PlainNormalization),
    "gamma": ([normalized(gamma_initializer="zeros")] * 2, PlainNormalization),
    "two units": ([dense(2, "relu")] * 10, Widen),
    "kernels": ([dense(32, "relu", kernel_initializer=keras.initializers.RandomNormal(stddev=0.01))] * 8, Reinitialize),
    "branches": ([residual] * 40, WholeModel),
    "gates": ([gated] * 6, WholeModel),
}


@pytest.mark.parametrize("name", LOST)
def test_a_lost_signal_gets_the_remedy_of_what_loses_it(name):
    stack, kind = LOST[name]
    found = remedies(*stack)
    assert found, name
    assert set(found) == {kind}


def test_kernels_that_saturate_sigmoids_are_the_fault_and_not_the_sigmoids():
    wide = keras.initializers.RandomNormal(stddev=3.0)
    assert Activate not in remedies(*[dense(32, "sigmoid", kernel_initializer=wide)] * 4)


def test_an_activation_is_replaced_in_all_its_layers_with_the_kernels_that_suit_it():
    stack = [
        dense(32, None, name=f"d{i}") if i % 2 == 0 else layers.Activation("sigmoid", name=f"a{i}") for i in range(16)
    ]
    (finding,) = diagnose([measured(*stack)])
    kernels = tuple(f"d{i}" for i in range(0, 16, 2))
    start = Reinitialize({"kernel_initializer": Scheme("HeNormal")}, layers=kernels)
    assert finding.action == Activate("relu", tuple(f"a{i}" for i in range(1, 16, 2)), start)


@pytest.mark.parametrize(
    ("shape", "low", "high", "how"),
    [
        ((28, 28, 1), 0.0, 254.0, "bytes"),
        ((784,), 0.0, 255.0, "bytes"),
        ((784,), 0.0, 254.0, "columns"),  # a table of numbers up to 254
        ((6,), -3.0, 1000.0, "columns"),
        ((60, 4), -3.0, 1000.0, "columns"),
        ((28, 28, 3), -3.0, 1000.0, "standardize"),
        ((1,), -3.0, 1000.0, "standardize"),
        ((), -3.0, 1000.0, "standardize"),
    ],
)
def test_columns_of_a_table_are_scaled_one_by_one(shape, low, high, how):
    assert rescaled("(input)", 50.0, low, high, shape) == Preprocess(how)


def test_a_new_start_is_of_all_kernels_and_flat_activations_and_then_with_another_rate():
    snapshot = measured(*[dense(32, "sigmoid", name=f"d{i}") for i in range(2)])
    start = Reinitialize({"kernel_initializer": Scheme("HeNormal")}, layers=("d0", "d1"))
    whole = (Activate("relu", ("d0", "d1"), start), WholeModel())
    assert new_starts(snapshot) == (Together(whole), Together((*whole, LearningRate(0.01))))  # 0.001 is what it has
    assert new_starts(measured(dense(32, "relu")))[0] == WholeModel()


def test_rates_are_those_of_the_optimizer():
    snapshot = measured(dense(32, "relu"))
    rates = {
        (name, own): [
            start.remedies[-1].value for start in new_starts(replace(snapshot, optimizer=name, learning_rate=own))[1:]
        ]
        for name, own in (("SGD", 1e-5), ("SGD", 5.0), ("SGD", 0.02), ("Adam", 1.0), ("Adam", 0.02), ("Adam", None))
    }
    assert list(rates.values()) == [[0.01, 0.1], [0.01, 0.1], [0.1], [0.001, 0.01], [0.001], []]
