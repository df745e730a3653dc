"""Optuna: a trial with a bad start is pruned before its first update.

Needs `pip install optuna`.
"""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # before TensorFlow is imported: its start is chatty

import keras
import optuna
from sklearn.datasets import load_digits

from keras_initaudit import InitAudit

images, digits = load_digits(return_X_y=True)


def prune(report):
    if report.verdict == "bad":
        raise optuna.TrialPruned(report.headline)


def objective(trial):
    start = trial.suggest_categorical("initializer", ["zeros", "he_normal"])
    hidden = [keras.layers.Dense(32, "relu", kernel_initializer=start) for _ in range(4)]
    model = keras.Sequential([keras.Input((64,)), *hidden, keras.layers.Dense(10, "softmax")])
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    callbacks = [InitAudit(log_dir=False, on_finding=prune, verbose=0)]
    fitted = model.fit(images / 16.0, digits, validation_split=0.25, epochs=2, verbose=0, callbacks=callbacks)
    return fitted.history["val_accuracy"][-1]


grid = optuna.samplers.GridSampler({"initializer": ["zeros", "he_normal"]})
study = optuna.create_study(direction="maximize", sampler=grid)
study.optimize(objective, n_trials=2)
for trial in study.trials:
    print(f"{trial.params['initializer']:10s} {trial.state.name:10s} {trial.value}")
