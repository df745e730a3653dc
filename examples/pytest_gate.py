"""A test that refuses a bad start, and the same gate as a command in a CI job.

One learns the two lines that keep a bad start out of a project: `audit(...).raise_for_verdict()` in a test, which
fails with the report as its text, and `keras-initaudit audit ... --fail-on bad --format github` in a job, which marks
the pull request. Run it with `pytest examples/pytest_gate.py`; in a GitHub workflow, the job is

    - run: python examples/pytest_gate.py        # writes model.keras and batch.npz
    - run: keras-initaudit audit model.keras --data batch.npz --fail-on bad --format github
"""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # before TensorFlow is imported: its start is chatty

import keras
import numpy as np
import pytest
from sklearn.datasets import load_digits

from keras_initaudit import BadInitializationError, audit


def model_of_the_project(kernel_initializer="he_normal"):
    """What a project would import from its own package."""
    keras.utils.set_random_seed(0)
    hidden = [keras.layers.Dense(32, "relu", kernel_initializer=kernel_initializer) for _ in range(4)]
    model = keras.Sequential([keras.Input((64,)), *hidden, keras.layers.Dense(10, "softmax")])
    model.compile("adam", "sparse_categorical_crossentropy")
    return model


def batch():
    images, digits = load_digits(return_X_y=True)
    return images[:64] / 16.0, digits[:64]


def test_the_model_starts_well():
    audit(model_of_the_project(), *batch()).raise_for_verdict("warning")


def test_the_gate_can_refuse():
    """A gate that lets everything pass is none: from zeros, all units of a layer stay the same for ever."""
    with pytest.raises(BadInitializationError, match="symmetric-units"):
        audit(model_of_the_project("zeros"), *batch()).raise_for_verdict()


if __name__ == "__main__":
    x, y = batch()
    model_of_the_project().save("model.keras")
    np.savez("batch.npz", x=x, y=y)
