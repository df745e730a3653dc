"""Plain networks of 64 layers, without normalisation or shortcuts, before and after `initialize`.

From weights of a fixed small scale, none of them learns to read digits; started by `initialize`, with the exact gain
of each activation and tuned on a batch, all do. Run it with `python examples/deep_plain_networks.py`.
"""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # before TensorFlow is imported: its start is chatty

import keras
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from keras_initaudit import audit, initialize

DEPTH, WIDTH = 64, 64
RATES = {"relu": 5e-4, "tanh": 2e-4, "gelu": 5e-4, "silu": 5e-4}  # tanh at this depth is on the edge of chaos


def build(activation):
    keras.utils.set_random_seed(1)
    hidden = [keras.layers.Dense(WIDTH, activation, kernel_initializer="random_normal") for _ in range(DEPTH)]
    model = keras.Sequential([keras.Input((64,)), *hidden, keras.layers.Dense(10, activation="softmax")])
    optimizer = keras.optimizers.Adam(RATES[activation])
    # XLA would take longer to compile 64 layers than they take to train.
    model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"], jit_compile=False)
    return model


def main():
    images, digits = load_digits(return_X_y=True)
    x, x_test, y, y_test = train_test_split(images / 16.0, digits, test_size=0.25, random_state=0, stratify=digits)
    print(f"{DEPTH} plain layers   start          verdict   test accuracy")
    for activation in RATES:
        for start in ("random_normal", "initialize"):
            model = build(activation)
            if start == "initialize":
                initialize(model, x=x[:256], seed=0)
            verdict = audit(model, x, y).verdict
            model.fit(x, y, epochs=20, batch_size=32, verbose=0)
            accuracy = model.evaluate(x_test, y_test, verbose=0)[1]
            print(f"{activation:15s}   {start:13s}  {verdict:8s}  {accuracy:.3f}", flush=True)


if __name__ == "__main__":
    main()
