"""The rule about the last activation: where it cannot give the targets, and where it can."""

import keras
import numpy as np
import pytest
from keras import layers, ops

from keras_initaudit.diagnosis import Thresholds
from keras_initaudit.diagnosis.network import Network
from keras_initaudit.diagnosis.rule import find
from keras_initaudit.diagnosis.rules import BY_SLUG
from keras_initaudit.observe.batch import first_batch
from keras_initaudit.observe.probe import Probe
from keras_initaudit.records.remedies import Activate

RNG = np.random.default_rng(0)
X = RNG.normal(size=(32, 6)).astype("float32")
NUMBERS = RNG.normal(size=(32, 1)).astype("float32")
LARGE = 5.0 + np.abs(NUMBERS)
FRACTIONS = RNG.uniform(size=(32, 1)).astype("float32")
ANSWERS = RNG.integers(0, 2, (32, 1)).astype("float32")
CLASSES = RNG.integers(0, 3, 32)
ONE_HOT = np.eye(3, dtype="float32")[CLASSES]
LABELS = np.maximum(ONE_HOT, RNG.integers(0, 2, (32, 3))).astype("float32")
SPARSE = "sparse_categorical_crossentropy"
FROM_LOGITS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def finding(stack, loss, y):
    inputs = keras.Input((6,), name="x")
    h = layers.Dense(8, "tanh", name="hidden")(inputs)
    for layer in stack:
        h = layer(h)
    model = keras.Model(inputs, h, name="model")
    model.compile("adam", loss)
    snapshot = Probe(model, first_batch(X, y, None, size=32), histograms=False).measure(0)
    found = find(BY_SLUG["output-activation"], Network(snapshot), Thresholds())
    assert len(found) < 2
    return found[0] if found else None


def head(units, activation=None):
    return layers.Dense(units, activation, name="head")


FAULTS = {
    "softmax of one answer": ([head(1, "softmax")], "binary_crossentropy", ANSWERS, "sigmoid", "is 1, whatever"),
    "softmax of one number": ([head(1, "softmax")], "mse", NUMBERS, "linear", "is 1, whatever"),
    "sigmoid for negative": ([head(1, "sigmoid")], "mae", NUMBERS, "linear", "the targets go down to -2"),
    "sigmoid for large": ([head(1, "sigmoid")], "mse", LARGE, "linear", "the targets go up to 8.1"),
    "tanh for large": ([head(1, "tanh")], "mse", LARGE, "linear", "has a size of 8.1"),
    "ReLU for negative": (
        [head(1), layers.Activation("relu", name="last")],
        "mse",
        NUMBERS,
        "linear",
        "never negative",
    ),
    "softmax for labels": ([head(3, "softmax")], "mse", LABELS, "sigmoid", "but the targets of a sample to 2."),
    "no softmax": ([head(3)], SPARSE, CLASSES, "softmax", "takes them for probabilities"),
    "sigmoid for classes": ([head(3, "sigmoid")], SPARSE, CLASSES, "softmax", "takes them for probabilities"),
    "no sigmoid": ([head(1)], "binary_crossentropy", ANSWERS, "sigmoid", "takes them for probabilities"),
    "ReLU logits": ([head(3, "relu")], FROM_LOGITS, CLASSES, "linear", "logits of either sign"),
    "softmax twice": ([head(3, "softmax"), layers.Softmax(name="again")], SPARSE, CLASSES, "linear", "once more"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_an_activation_that_cannot_give_the_targets_is_named_with_the_one_to_write(name):
    stack, loss, y, wanted, why = FAULTS[name]
    found = finding(stack, loss, y)
    layer = "last" if name == "ReLU for negative" else "head"
    assert (found.layer, found.action) == (layer, Activate(wanted, (layer,)))
    assert why in found.message
    assert found.severity == ("bad" if "of one" in name else "warning")  # a constant gets no gradient


HEALTHY = {
    "softmax": ([head(3, "softmax")], SPARSE, CLASSES),
    "logits": ([head(3)], FROM_LOGITS, CLASSES),
    "softmax of its own": ([head(3), layers.Activation("softmax")], SPARSE, CLASSES),
    "probabilities by an operation": ([head(3), ops.softmax], SPARSE, CLASSES),
    "probabilities by a Lambda": ([head(3), layers.Lambda(ops.softmax)], SPARSE, CLASSES),
    "labels": ([head(3, "sigmoid")], "binary_crossentropy", LABELS),
    "softmax and one-hot, squares": ([head(3, "softmax")], "mse", ONE_HOT),
    "softmax and one-hot, yes or no": ([head(3, "softmax")], "binary_crossentropy", ONE_HOT),
    "sigmoid for fractions": ([head(1, "sigmoid")], "mse", FRACTIONS),
    "ReLU for fractions": ([head(1, "relu")], "mse", FRACTIONS),
    "tanh for signs": ([head(1, "tanh")], "mse", 2.0 * ANSWERS - 1.0),
    "numbers": ([head(1)], "mse", NUMBERS),
    "a loss of one's own": ([head(1, "sigmoid")], lambda y, p: ops.mean(ops.square(y - p), -1), NUMBERS),
}


@pytest.mark.parametrize("name", HEALTHY)
def test_an_activation_that_can_is_not_named(name):
    assert finding(*HEALTHY[name]) is None


def test_of_several_outputs_nothing_is_said():
    inputs = keras.Input((6,))
    model = keras.Model(inputs, [layers.Dense(1, "sigmoid")(inputs), layers.Dense(1, "sigmoid")(inputs)])
    model.compile("adam", ["mse", "mse"])
    snapshot = Probe(model, first_batch(X, [NUMBERS, NUMBERS], None, size=32), histograms=False).measure(0)
    assert find(BY_SLUG["output-activation"], Network(snapshot), Thresholds()) == []
