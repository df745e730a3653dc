"""SciKeras in a GridSearchCV: one callback is cloned for each fit, and each fit has a run of its own in the log.

A function given as `on_finding` may raise; `error_score` is what such a fit is worth. Needs `pip install scikeras`.
"""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # before TensorFlow is imported: its start is chatty

import keras
from scikeras.wrappers import KerasClassifier
from sklearn.datasets import load_digits
from sklearn.model_selection import GridSearchCV

from keras_initaudit import InitAudit

images, digits = load_digits(return_X_y=True)


def build(start):
    hidden = [keras.layers.Dense(32, "relu", kernel_initializer=start) for _ in range(4)]
    model = keras.Sequential([keras.Input((64,)), *hidden, keras.layers.Dense(10, "softmax")])
    model.compile("adam", "sparse_categorical_crossentropy")
    return model


classifier = KerasClassifier(
    build,
    start="he_normal",
    epochs=2,
    verbose=0,
    callbacks=[InitAudit("logs/scikeras", on_finding="raise", verbose=0)],
)
search = GridSearchCV(classifier, {"start": ["zeros", "he_normal"]}, cv=2, error_score=0.0, refit=False)
search.fit(images / 16.0, digits)
for row, score in zip(search.cv_results_["params"], search.cv_results_["mean_test_score"], strict=True):
    print(f"{row['start']:10s} {score:.3f}")
print(f"runs in the log: {', '.join(sorted(os.listdir('logs/scikeras')))}")
