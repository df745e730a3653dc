"""Fine-tuning: a backbone that was trained, is frozen, and gets a new head or low-rank adapters (LoRA).

One learns what the audit makes of it: frozen weights and the zeros of LoRA are as they should be, a head that starts
from zeros too; a backbone that was frozen before it was ever trained is not, and `no-gradient` says so.
Run it with `python examples/fine_tuning.py`.
"""

import math
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # before TensorFlow is imported: its start is chatty

import keras
from keras import layers
from sklearn.datasets import load_digits

from keras_initaudit import audit


def backbone():
    hidden = [layers.Dense(64, "relu", name=f"hidden_{i}") for i in range(4)]
    return keras.Sequential([keras.Input((64,)), *hidden], name="backbone")


def with_head(body, classes, **options):
    model = keras.Sequential([keras.Input((64,)), body, layers.Dense(classes, "softmax", name="head", **options)])
    model.compile(keras.optimizers.Adam(2e-3), "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def adapted(body):
    """Each layer of the backbone stays as it is, and gets a trainable update of rank 4 beside it."""
    for layer in body.layers:
        layer.enable_lora(4)
        layer.bias.trainable = False
    return body


def frozen(body):
    body.trainable = False
    return body


def main():
    images, digits = load_digits(return_X_y=True)
    images, old = images / 16.0, digits < 5
    keras.utils.set_random_seed(0)
    trained = backbone()
    with_head(trained, 5).fit(images[old], digits[old], epochs=20, batch_size=32, verbose=0)

    x, y = images[~old], digits[~old] - 5
    cases = {
        "trained, frozen, new head": lambda: with_head(frozen(copy(trained)), 5),
        "the same, head of zeros": lambda: with_head(frozen(copy(trained)), 5, kernel_initializer="zeros"),
        "trained, LoRA, new head": lambda: with_head(adapted(copy(trained)), 5),
        "frozen before its training": lambda: with_head(frozen(backbone()), 5),
    }
    print("start                       trainable  verdict  found")
    for name, build in cases.items():
        model = build()
        report = audit(model, x, y)
        trainable = sum(math.prod(weight.shape) for weight in model.trainable_weights)
        found = ", ".join(finding.rule for finding in report.findings) or "nothing"
        print(f"{name:27s} {trainable:9d}  {report.verdict:8s} {found}", flush=True)
        if report.verdict != "healthy":
            print(f"\n{report}")


def copy(body):
    made = backbone()
    made.set_weights(body.get_weights())
    return made


if __name__ == "__main__":
    main()
