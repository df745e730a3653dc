"""A plain convolutional network on digits: a start that fades, its repair, and why normalisation hides the scale.

One learns to read the report of a convolution (`kernel_initializer` of each layer, as the remedy says), and that the
same small weights are no fault behind BatchNormalization, which brings each output back to one scale: the audit calls
only the plain network bad. Run it with `python examples/convolutional.py`.
"""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # before TensorFlow is imported: its start is chatty

import keras
from keras import layers
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from keras_initaudit import HeNormal, audit

DEPTH = 8


def build(initializer_of_layer, normalised):
    """DEPTH convolutions of 16 channels, each with an initializer of its own."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((8, 8, 1))])
    for _ in range(DEPTH):
        model.add(layers.Conv2D(16, 3, padding="same", kernel_initializer=initializer_of_layer()))
        if normalised:
            model.add(layers.BatchNormalization(momentum=0.9))
        model.add(layers.ReLU())
    model.add(layers.GlobalAveragePooling2D())
    model.add(layers.Dense(10, "softmax"))
    model.compile(keras.optimizers.Adam(2e-3), "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def main():
    images, digits = load_digits(return_X_y=True)
    images = images.reshape(-1, 8, 8, 1) / 16.0
    x, x_test, y, y_test = train_test_split(images, digits, test_size=0.25, random_state=0, stratify=digits)
    networks = {
        "plain, stddev 0.02": (lambda: keras.initializers.RandomNormal(stddev=0.02), False),
        "plain, HeNormal": (HeNormal, False),
        "normalised, stddev 0.02": (lambda: keras.initializers.RandomNormal(stddev=0.02), True),
    }
    rows = []
    for name, (initializer_of_layer, normalised) in networks.items():
        model = build(initializer_of_layer, normalised)
        report = audit(model, x, y)
        if not rows:
            print(f"{report}\n")
        model.fit(x, y, epochs=8, batch_size=32, verbose=0)
        rows.append((name, report.verdict, model.evaluate(x_test, y_test, verbose=0)[1]))
    print("network                  verdict  test accuracy after 8 epochs")
    for name, verdict, accuracy in rows:
        print(f"{name:24s} {verdict:8s} {accuracy:.3f}")


if __name__ == "__main__":
    main()
