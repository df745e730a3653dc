"""KerasTuner: a trial with a bad start fails before its first update, and the search goes on without it.

Needs `pip install keras-tuner`.
"""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # before TensorFlow is imported: its start is chatty

import keras
import keras_tuner
from sklearn.datasets import load_digits

from keras_initaudit import InitAudit

images, digits = load_digits(return_X_y=True)


def build(hp):
    start = hp.Choice("initializer", ["zeros", "he_normal"])
    hidden = [keras.layers.Dense(32, "relu", kernel_initializer=start) for _ in range(4)]
    model = keras.Sequential([keras.Input((64,)), *hidden, keras.layers.Dense(10, "softmax")])
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def refuse(report):
    if report.verdict == "bad":
        raise keras_tuner.errors.FailedTrialError(report.headline)


tuner = keras_tuner.GridSearch(build, objective="val_accuracy", directory="tuner", project_name="digits")
callbacks = [InitAudit(log_dir=False, on_finding=refuse, verbose=0)]
tuner.search(images / 16.0, digits, validation_split=0.25, epochs=2, verbose=0, callbacks=callbacks)
for trial in tuner.oracle.trials.values():
    print(f"{trial.hyperparameters.get('initializer'):10s} {trial.status:10s} {trial.score}")
