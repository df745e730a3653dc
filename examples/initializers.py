"""Every usual scheme on one deep network: what each does to the signal, to the gradient and to the training.

One learns why the schemes exist: the rms of the activations at the last hidden layer over that at the first one should
be near 1, and so should that of the gradient, back at the first one; and what happens where they are not.
Run it with `python examples/initializers.py`, and again with another ACTIVATION: which scheme fits depends on it.
"""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # before TensorFlow is imported: its start is chatty

import keras
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import keras_initaudit as ki

DEPTH, WIDTH, ACTIVATION = 12, 64, "relu"
SCHEMES = {
    "Zeros()": ki.Zeros,
    "RandomNormal(stddev=0.01)": lambda: ki.RandomNormal(stddev=0.01),
    "RandomUniform(-0.05, 0.05)": lambda: ki.RandomUniform(-0.05, 0.05),
    "RandomNormal(stddev=1.0)": lambda: ki.RandomNormal(stddev=1.0),
    "XavierNormal()": ki.XavierNormal,
    "LeCunNormal()": ki.LeCunNormal,
    "HeNormal()": ki.HeNormal,
    "Orthogonal(gain='relu')": lambda: ki.Orthogonal(gain="relu"),
}


def build(scheme):
    keras.utils.set_random_seed(0)
    hidden = [keras.layers.Dense(WIDTH, ACTIVATION, kernel_initializer=scheme()) for _ in range(DEPTH)]
    model = keras.Sequential([keras.Input((64,)), *hidden, keras.layers.Dense(10, "softmax")])
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"], jit_compile=False)
    return model


def ratio(above, below):
    return f"{above / below:10.1e}" if below else f"{'-':>10s}"


def main():
    images, digits = load_digits(return_X_y=True)
    x, x_test, y, y_test = train_test_split(images / 16.0, digits, test_size=0.25, random_state=0, stratify=digits)
    print(f"{DEPTH} layers of {ACTIVATION}                 signal  gradient  verdict  test accuracy", flush=True)
    for name, scheme in SCHEMES.items():
        model = build(scheme)
        report = ki.audit(model, x, y, trial=0)  # judged by the limits, to be quick
        hidden = [row for row in report.layers if row["kind"] == "Dense"][:-1]
        signal = ratio(hidden[-1]["activation_rms"], hidden[0]["activation_rms"])
        gradient = ratio(hidden[0]["backward_rms"], hidden[-1]["backward_rms"])
        model.fit(x, y, epochs=5, batch_size=32, verbose=0)
        accuracy = model.evaluate(x_test, y_test, verbose=0)[1]
        print(f"{name:26s} {signal}{gradient}  {report.verdict:8s} {accuracy:.3f}", flush=True)


if __name__ == "__main__":
    main()
