"""The same model with the same weights has the same snapshot on every backend: that of `reference/snapshots.json`.

It was made on TensorFlow: `REWRITE_SNAPSHOTS=1 pytest tests/observe/test_backends.py`.
"""

import dataclasses
import json
import math
import os
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers
from protocols import everything

from keras_initaudit import audit
from keras_initaudit.observe.batch import first_samples
from keras_initaudit.observe.probe import Probe

REFERENCE = Path(__file__).parents[1] / "reference" / "snapshots.json"
CLOSE = 1e-4
"""Of the largest value of a column: what two orders of summation in float32 may differ by, with room."""


def of_everything():
    return everything(), lambda rng: (rng.normal(size=(16, 5, 4)).astype("float32"), rng.integers(0, 3, 16))


def recurrent():
    inputs = keras.Input((7,), dtype="int32")
    x = layers.Embedding(20, 8, mask_zero=True, name="table")(inputs)
    x = layers.Bidirectional(layers.LSTM(4, return_sequences=True, name="inner"), name="both")(x)
    x = layers.GRU(4, return_sequences=True, go_backwards=True, name="gru")(x)
    x = layers.SimpleRNN(3, name="simple")(
        layers.TimeDistributed(layers.Dense(4, "relu", name="in_time"), name="time")(x)
    )
    model = keras.Model(inputs, layers.Dense(1, "sigmoid", name="last")(x))
    model.compile("sgd", "binary_crossentropy")
    return model, lambda rng: (rng.integers(0, 20, (16, 7)), rng.integers(0, 2, (16, 1)).astype("float32"))


def convolutional():
    inputs = keras.Input((12, 12, 3))
    x = layers.Conv2D(20, 3, activation="gelu", name="wide")(inputs)
    x = layers.ReLU(name="relu")(layers.BatchNormalization(name="norm")(x))
    x = layers.SeparableConv2D(8, 3, name="separable")(x)
    x = layers.Conv2DTranspose(4, 2, strides=2, name="up", kernel_regularizer="l2")(x)
    x = layers.Softmax(name="probabilities")(layers.Dense(4, name="last")(layers.Flatten(name="flat")(x)))
    model = keras.Model(inputs, x)
    model.compile("sgd", keras.losses.CategoricalCrossentropy(label_smoothing=0.1))
    return model, lambda rng: (
        rng.normal(size=(8, 12, 12, 3)).astype("float32"),
        np.eye(4, dtype="float32")[rng.integers(0, 4, 8)],
    )


def unreached_and_dead():
    inputs = keras.Input((6,))
    dead = layers.Dense(8, "relu", name="dead", bias_initializer=keras.initializers.Constant(-50.0))(inputs)
    used = layers.Dense(8, "sigmoid", name="used")(
        layers.Add(name="sum")([layers.Dense(8, name="plain")(inputs), dead])
    )
    model = keras.Model(inputs, {"a": layers.Dense(1, name="a")(used), "b": layers.Dense(1, name="unreached")(used)})
    model.compile("adam", {"a": "mse"})
    return model, lambda rng: (
        rng.normal(size=(16, 6)).astype("float32"),
        {"a": rng.normal(size=(16, 1)).astype("float32")},
    )


MODELS = {make.__name__: make for make in (of_everything, recurrent, convolutional, unreached_and_dead)}


def made(name):
    """The model, with weights that every backend has, and a batch."""
    model, batch = MODELS[name]()
    rng = np.random.default_rng(5)
    for weight in model.weights:
        if "seed" not in weight.path and weight.path != "dead/bias":
            weight.assign(rng.normal(size=weight.shape) * 0.15 + (1.0 if "variance" in weight.path else 0.0))
    return model, batch(rng)


def described(name):
    model, batch = made(name)
    shot = Probe(model, first_samples(batch, None), histograms=False).measure(0)
    rows = {}
    for info, stats in zip(shot.layers, shot.statistics, strict=True):
        numbers = {k: float(f"{v:.9g}") for k, v in dataclasses.asdict(stats).items() if not math.isnan(v)}
        facts = dataclasses.asdict(info) | {"kind": info.kind if info.role not in ("input", "target") else ""}
        rows[info.path] = {"numbers": numbers, "facts": json.loads(json.dumps(facts, default=str))}
    found = audit(model, *batch, trial=0).findings
    return {
        "rows": rows,
        "loss": shot.loss,
        "constant_loss": shot.constant_loss,
        "findings": [[finding.rule, finding.layer, finding.severity] for finding in found],
    }


def differences(found, expected):
    """What two snapshots differ in: rows, facts, or numbers by more than `CLOSE`."""
    if list(found["rows"]) != list(expected["rows"]):
        yield f"rows {list(found['rows'])}"
        return
    columns = {name for row in expected["rows"].values() for name in row["numbers"]}
    for path, row in expected["rows"].items():
        facts = found["rows"][path]["facts"]
        yield from (
            f"{path}: {k} {facts[k]} and not {v}"
            for k, v in row["facts"].items()
            if unordered(facts[k]) != unordered(v)
        )
    for column in sorted(columns):
        values = {path: row["numbers"].get(column) for path, row in expected["rows"].items()}
        room = CLOSE * max(abs(value) for value in values.values() if value is not None and math.isfinite(value))
        for path, value in values.items():
            other = found["rows"][path]["numbers"].get(column)
            if (value is None) != (other is None) or (value is not None and abs(value - other) > room):
                yield f"{path}: {column} {other} and not {value}"
    if abs(found["loss"] - expected["loss"]) > CLOSE * abs(expected["loss"]):
        yield f"loss {found['loss']}"
    if found["findings"] != expected["findings"]:
        yield f"findings {found['findings']}"


def unordered(value):
    return sorted(value) if isinstance(value, list) and all(isinstance(one, str) for one in value) else value


def reference():
    if os.environ.get("REWRITE_SNAPSHOTS") and keras.backend.backend() == "tensorflow":
        REFERENCE.write_text(json.dumps({name: described(name) for name in MODELS}, indent=0) + "\n")
    return json.loads(REFERENCE.read_text())


@pytest.mark.parametrize("name", MODELS)
def test_a_snapshot_is_the_same_on_every_backend(name):
    assert not list(differences(described(name), reference()[name]))


def test_a_difference_of_more_than_a_ten_thousandth_is_seen():
    expected = reference()["recurrent"]
    found = json.loads(json.dumps(expected))
    largest = max(found["rows"].values(), key=lambda row: row["numbers"].get("gradient_rms", 0.0))
    largest["numbers"]["gradient_rms"] *= 1.00005
    assert not list(differences(found, expected))
    largest["numbers"]["gradient_rms"] *= 1.0001
    (seen,) = differences(found, expected)
    assert "gradient_rms" in seen
