"""Keras's own TensorBoard callback beside ours, in one folder: the tab Init Audit, and beside it what Keras logs.

Ours writes the run `initaudit`, that of Keras `train` and `validation`; neither changes what the other one does.
"""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # before TensorFlow is imported: its start is chatty

import keras
from sklearn.datasets import load_digits

from keras_initaudit import InitAudit

images, digits = load_digits(return_X_y=True)
hidden = [keras.layers.Dense(32, "relu", kernel_initializer="he_normal") for _ in range(4)]
model = keras.Sequential([keras.Input((64,)), *hidden, keras.layers.Dense(10, "softmax")])
model.compile("adam", "sparse_categorical_crossentropy")
callbacks = [keras.callbacks.TensorBoard("logs/both", histogram_freq=1), InitAudit("logs/both")]
model.fit(images / 16.0, digits, validation_split=0.25, epochs=2, verbose=0, callbacks=callbacks)
print(f"runs: {', '.join(sorted(os.listdir('logs/both')))}")
