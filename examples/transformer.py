"""A small GPT on text that Python ships: a bad start of its attention, the verdict, the repair and both loss curves.

One learns what too large weights do to attention (each token looks at one other token only, whatever the text says),
that the verdict comes before the first update, and how `apply` repairs a model that is already built.
Run it with `python examples/transformer.py`.
"""

import os
from pydoc_data.topics import topics

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # before TensorFlow is imported: its start is chatty

import keras
import numpy as np
from keras import layers

from keras_initaudit import audit
from keras_initaudit.remedies import apply

LENGTH, WIDTH, BLOCKS, STEPS, EPOCHS = 32, 48, 2, 30, 8


class Positions(layers.Layer):
    """Adds a learned vector to each position."""

    def build(self, shape):
        self.table = self.add_weight(shape=shape[1:], initializer=keras.initializers.RandomNormal(stddev=0.02))

    def call(self, x):
        return x + self.table


def gpt(characters, stddev):
    """A decoder with pre-normalisation, as GPT-2; `stddev` is that of its attention's weights."""
    keras.utils.set_random_seed(0)
    tokens = keras.Input((LENGTH,), dtype="int32")
    x = Positions()(layers.Embedding(characters, WIDTH, name="embedding")(tokens))
    for block in range(BLOCKS):
        normal = layers.LayerNormalization()(x)
        start = keras.initializers.RandomNormal(stddev=stddev)
        attention = layers.MultiHeadAttention(4, WIDTH // 4, kernel_initializer=start, name=f"attention_{block}")
        x = x + attention(normal, normal, use_causal_mask=True)
        hidden = layers.Dense(4 * WIDTH, "gelu")(layers.LayerNormalization()(x))
        x = x + layers.Dense(WIDTH)(hidden)
    model = keras.Model(tokens, layers.Dense(characters)(layers.LayerNormalization()(x)))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(1e-3), loss, jit_compile=False)
    return model


def train(model, x, y):
    return model.fit(x, y, epochs=EPOCHS, batch_size=32, verbose=0).history["loss"]


def main():
    text = "".join(topics[name] for name in sorted(topics))[:200_000]
    alphabet = sorted(set(text))
    codes = np.array([alphabet.index(c) for c in text])
    starts = np.random.default_rng(0).integers(0, len(codes) - LENGTH - 1, 32 * STEPS)
    windows = codes[starts[:, None] + np.arange(LENGTH + 1)]
    x, y = windows[:, :-1], windows[:, 1:]

    model = gpt(len(alphabet), stddev=1.0)
    report = audit(model, x, y)
    print(report)
    curves = {"as it is": train(model, x, y)}
    model = gpt(len(alphabet), stddev=1.0)
    for finding in report.findings:
        if finding.action is not None:
            apply(finding.action, model, (x, y))
    print(f"\nAfter the repair: {audit(model, x, y).headline}\n")
    curves["repaired"] = train(model, x, y)
    print(f"mean loss of each {STEPS} updates")
    for name, losses in curves.items():
        print(f"{name:10s}" + "".join(f"{loss:7.2f}" for loss in losses))


if __name__ == "__main__":
    main()
