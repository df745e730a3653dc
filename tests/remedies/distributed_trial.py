"""Trains under `MirroredStrategy` with and without both runs of a trial, and prints the losses of the runs.

It exits with an error where the trainings differ. A process of its own, because TensorFlow's devices are fixed at its
first operation, and a second model confuses its collective ones:

    python tests/remedies/distributed_trial.py CASE REPLICAS
"""

import json
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "observe"))

import distributed_training as training
import keras
import numpy as np
import tensorflow as tf
from keras import layers

from keras_initaudit.observe.engines import engine
from keras_initaudit.observe.probe import Probe
from keras_initaudit.remedies import trial


def deterministic():
    """Without dropout and batch normalization, which know of the replicas."""
    model = keras.Sequential([keras.Input((6,)), layers.Dense(8, "relu"), layers.Dense(3, "softmax")])
    model.compile(keras.optimizers.Adam(0.05), "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


training.CASES["deterministic"] = (deterministic, {}, training.X[:48], training.Y[:48])


class Tried(keras.callbacks.Callback):
    """Tries the start before the first update."""

    def __init__(self):
        super().__init__()
        self.found = None

    def on_epoch_begin(self, epoch, logs=None):
        if epoch == 0:
            engine().stand_in(self.model, self.begin)

    def begin(self, call):
        model = self.model
        probe = Probe(model, call.batch, data_runs_python=call.runs_python)
        probe.measure(0)

        def grown():
            for variable in model.trainable_variables:
                variable.assign(1.5 * variable + 0.01)

        self.found = trial.run(probe, call.batch, grown, train=call.train, iterator=call.iterator, most=8)


def main(case, replicas):
    tf.config.set_logical_device_configuration(
        tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * replicas
    )
    tried = Tried()
    plain, with_trial = training.trained(case, replicas), training.trained(case, replicas, tried)
    for a, b in zip(plain[0], with_trial[0], strict=True):
        np.testing.assert_array_equal(a, b)
    assert plain[1] == with_trial[1], (plain[1], with_trial[1])
    assert tried.found.reason is None, tried.found.reason
    print(json.dumps([tried.found.remedied.losses, tried.found.as_is.losses]))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
