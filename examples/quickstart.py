"""The same deep network on handwritten digits, twice: badly initialized, and with the scheme that its ReLUs need.

Run it with `python examples/quickstart.py`; it takes less than a minute and downloads nothing. Each `fit` prints its
verdict before the first update. The last line opens both runs in TensorBoard.
"""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # before TensorFlow is imported: its start is chatty

import keras
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from keras_initaudit import HeNormal, InitAudit

DEPTH = 20


def build(initializer_of_layer):
    """A plain ReLU network of DEPTH hidden layers, each with an initializer of its own."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((64,))])
    for _ in range(DEPTH):
        model.add(keras.layers.Dense(64, activation="relu", kernel_initializer=initializer_of_layer()))
    model.add(keras.layers.Dense(10, activation="softmax"))
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def main():
    images, digits = load_digits(return_X_y=True)
    x, x_test, y, y_test = train_test_split(images / 16.0, digits, test_size=0.25, random_state=0, stratify=digits)
    starts = {
        "stddev_0.05": lambda: keras.initializers.RandomNormal(stddev=0.05),
        "he_normal": HeNormal,
    }
    accuracies = {}
    for name, initializer_of_layer in starts.items():
        print(f"\n=== {DEPTH} ReLU layers, {name} ===\n", flush=True)
        model = build(initializer_of_layer)
        model.fit(x, y, epochs=15, batch_size=32, verbose=0, callbacks=[InitAudit(f"logs/quickstart/{name}")])
        accuracies[name] = model.evaluate(x_test, y_test, verbose=0)[1]

    print("\n=== After 15 epochs each ===\n")
    for name, accuracy in accuracies.items():
        print(f"{name:12s}  test accuracy {accuracy:.3f}")
    print("\nBoth runs, side by side: tensorboard --logdir logs/quickstart")


if __name__ == "__main__":
    main()
