"""Trains with and without the audit on logical CPUs under `MirroredStrategy`; exits with an error where they differ.

A process of its own, because TensorFlow's devices are fixed at its first operation:

    python tests/distributed_training.py CASE REPLICAS
"""

import os
import sys
import tempfile
import warnings
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
import tensorflow as tf
from keras import layers

from keras_initaudit import InitAudit
from keras_initaudit.tensorboard.summary import read

RNG = np.random.default_rng(0)
X = RNG.normal(size=(52, 6)).astype("float32")
Y = RNG.integers(0, 3, 52)


def dense(**compile_with):
    model = keras.Sequential(
        [keras.Input((6,)), layers.Dense(8, "relu"), layers.BatchNormalization(), layers.Dropout(0.3), layers.Dense(3)]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("adam", loss, metrics=["accuracy"], **compile_with)
    return model


def dictionaries(**compile_with):
    a, b = keras.Input((6,), name="a"), keras.Input((6,), name="b")
    model = keras.Model({"a": a, "b": b}, layers.Dense(1)(layers.Concatenate()([layers.Dense(4, "tanh")(a), b])))
    model.compile("sgd", "mse", **compile_with)
    return model


CASES = {
    "even": (dense, {}, X[:48], Y[:48]),
    "uneven_last_batch": (dense, {}, X, Y),
    "no_jit": (dense, {"jit_compile": False}, X[:48], Y[:48]),
    # With several CPUs, jit_compile=True and steps_per_execution > 1 fail in Keras itself, without any callback.
    "dictionaries": (dictionaries, {}, {"a": X[:48], "b": X[:48]}, X[:48, :1]),
}


def trained(case, replicas, *callbacks):
    build, options, x, y = CASES[case]
    keras.utils.set_random_seed(3)
    strategy = tf.distribute.MirroredStrategy([f"CPU:{i}" for i in range(replicas)])
    with strategy.scope():
        model = build(**options)
    history = model.fit(x, y, batch_size=16, epochs=2, verbose=0, callbacks=list(callbacks)).history
    held = [*model.variables, *model.optimizer.variables, *model.metrics_variables]
    return [copy.numpy() for v in held for copy in getattr(v.value, "values", [v.value])], history


def main(case, replicas):
    tf.config.set_logical_device_configuration(
        tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 4
    )
    folder = Path(tempfile.mkdtemp())
    audit = InitAudit(folder, schedule=[0, 1, 2, 5], verbose=0, on_finding="silent")
    plain = trained(case, replicas)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="InitAudit")
        watched = trained(case, replicas, audit)
    for a, b in zip(plain[0], watched[0], strict=True):
        np.testing.assert_array_equal(a, b)
    assert plain[1] == watched[1], (plain[1], watched[1])
    assert audit.reports[0].step == 0
    assert len(audit.reports) >= 3, [report.step for report in audit.reports]
    assert [path.name for path in folder.iterdir()] == ["initaudit"], "one set of logs"
    assert len(list((folder / "initaudit").iterdir())) == 1
    assert [s.step for s in read(folder / "initaudit")] == [report.step for report in audit.reports]
    first = audit.snapshots[0]
    kernels = [row for layer, row in zip(first.layers, first.statistics, strict=True) if layer.weight]
    assert all(row.gradient_rms > 0 and row.weight_rms > 0 and row.activation_rms > 0 for row in kernels)
    print("identical")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
