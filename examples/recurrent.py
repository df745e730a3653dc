"""A recurrent network that must remember the first of many steps: what its recurrent kernel does to the gradient.

One learns to read `vanishing-through-time` (each time step multiplies the gradient by the same factor, so that the
loss no longer reaches the first step), and what an orthogonal recurrent kernel changes.
Run it with `python examples/recurrent.py`.
"""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # before TensorFlow is imported: its start is chatty

import keras
import numpy as np
from keras import layers

from keras_initaudit import InitAudit, Orthogonal

STEPS, WIDTH = 60, 64


def build(recurrent):
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((STEPS, 2)),
            layers.SimpleRNN(WIDTH, recurrent_initializer=recurrent),
            layers.Dense(2, "softmax"),
        ]
    )
    model.compile(keras.optimizers.Adam(1e-3), "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def main():
    # A class that only the first step shows; noise follows.
    random = np.random.default_rng(0)
    x = random.normal(size=(2048, STEPS, 2)).astype("float32") * 0.3
    y = random.integers(0, 2, 2048)
    x[:, 0, 0] = 2.0 * y - 1.0
    starts = {"stddev 0.01": keras.initializers.RandomNormal(stddev=0.01), "orthogonal": Orthogonal()}
    accuracies = {}
    for name, recurrent in starts.items():
        print(f"=== recurrent kernel: {name} ===\n", flush=True)
        model = build(recurrent)
        model.fit(
            x, y, epochs=6, batch_size=64, verbose=0, callbacks=[InitAudit(f"logs/recurrent/{name.replace(' ', '_')}")]
        )
        accuracies[name] = model.evaluate(x, y, verbose=0)[1]
    print("=== accuracy after 6 epochs; guessing gives 0.5 ===\n")
    for name, accuracy in accuracies.items():
        print(f"{name:12s} {accuracy:.3f}")


if __name__ == "__main__":
    main()
