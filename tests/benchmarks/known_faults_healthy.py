"""Healthy models of `known_faults.py` for tables, sets, graphs and pairs, and dense ones of uncommon kinds."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import initializers, layers, ops
from known_faults_data import (
    BINARY,
    LINEAR,
    SPARSE,
    Array,
    Healthy,
    Start,
    binary,
    column,
    compiled,
    constant,
    digits,
    functional,
    healthy,
    labels,
    net,
    normal,
    numbers,
    ordered,
    sequential,
    shipped,
    softmax,
    standard,
    table,
    uniform,
)

# Tables, sets, graphs and pairs


def wide_and_deep() -> Start:
    x, y = table()
    wide, deep = keras.Input((8,), name="wide"), keras.Input((8,), name="deep")
    h = layers.Dense(32, "relu")(layers.Dense(32, "relu")(deep))
    out = softmax(layers.Concatenate()([wide, h]), 2)
    return functional({"wide": wide, "deep": deep}, out, ({"wide": x, "deep": x}, y), "adam 0.01")


def two_outputs() -> Start:
    x, y = table()
    inputs = keras.Input((8,))
    h = layers.Dense(32, "relu")(inputs)
    number = standard(np.sin(x[:, :1]) + x[:, 1:2])
    outs = [layers.Dense(2, "softmax", name="kind")(h), layers.Dense(1, name="number")(h)]
    return functional(inputs, outs, (x, (y, number)), "adam 0.01", [SPARSE, "mse"])


def siamese() -> Start:
    x, y = digits("unit")
    pairs = np.random.default_rng(5).permutation(len(x))
    pairs = np.where(np.arange(len(x)) % 2, pairs, np.array([np.flatnonzero(y == c)[0] for c in y]))
    one, other = keras.Input((64,)), keras.Input((64,))
    tower = keras.Sequential([layers.Dense(64, "relu"), layers.Dense(32)])
    apart = ops.abs(layers.Subtract()([tower(one), tower(other)]))
    out = layers.Dense(1, "sigmoid")(apart)
    return functional([one, other], out, ([x, x[pairs]], column(y == y[pairs])), "adam 5e-3", "binary_crossentropy")


def deep_set() -> Start:
    x = np.random.default_rng(6).normal(size=(512, 10, 3)).astype("float32")
    y = standard(np.square(x).mean((1, 2))[:, None])
    inputs = keras.Input((10, 3))
    pooled = layers.GlobalAveragePooling1D()(layers.Dense(32, "relu")(layers.Dense(32, "relu")(inputs)))
    return functional(inputs, layers.Dense(1)(layers.Dense(32, "relu")(pooled)), (x, y), "adam 0.01", "mse")


def graph_convolution() -> Start:
    rng = np.random.default_rng(7)
    x = rng.normal(size=(256, 12, 5)).astype("float32")
    links = (rng.random((256, 12, 12)) < 0.3) | np.eye(12, dtype=bool)
    links = (links / links.sum(-1, keepdims=True)).astype("float32")
    y = ((links @ x)[:, :, 0] > 0).astype("int32")
    nodes, edges = keras.Input((12, 5)), keras.Input((12, 12))
    h = layers.Dense(24, "relu")(ops.matmul(edges, layers.Dense(24)(nodes)))
    return functional([nodes, edges], softmax(h, 2), ([x, links], y), "adam 0.01")


def matrix_factorization() -> Start:
    rng = np.random.default_rng(8)
    left, right = rng.normal(size=(40, 3)), rng.normal(size=(30, 3))
    user, item = rng.integers(0, 40, (2048, 1)), rng.integers(0, 30, (2048, 1))
    y = np.sum(left[user[:, 0]] * right[item[:, 0]], 1, keepdims=True).astype("float32")
    inputs = [keras.Input((1,), dtype="int32"), keras.Input((1,), dtype="int32")]
    tables = [layers.Embedding(n, 8, embeddings_initializer=normal(0.3)) for n in (40, 30)]
    out = layers.Flatten()(layers.Dot(2)([t(i) for t, i in zip(tables, inputs, strict=True)]))
    return functional(inputs, out, ([user.astype("int32"), item.astype("int32")], y), "adam 0.05", "mse")


def mixture_of_experts() -> Start:
    inputs = keras.Input((8,))
    experts = ops.stack([layers.Dense(16, "relu")(inputs) for _ in range(4)], 1)
    gate = layers.Dense(4, "softmax")(inputs)
    return functional(inputs, softmax(ops.sum(ops.expand_dims(gate, -1) * experts, 1), 2), table(), "adam 0.02")


def sirens() -> Start:
    x = np.linspace(-1, 1, 512)[:, None]
    y = standard(np.sin(9 * x) + 0.5 * np.cos(14 * x))
    stack = [
        layers.Dense(48, lambda h: ops.sin(12 * h), kernel_initializer=uniform(1.0)),
        layers.Dense(48, ops.sin, kernel_initializer=initializers.VarianceScaling(2.0, "fan_in", "uniform")),
    ]
    return sequential(ordered(x, y), *stack, layers.Dense(1), loss="mse")


def event_counts() -> Start:
    rng = np.random.default_rng(9)
    x = rng.normal(size=(512, 4)).astype("float32")
    y = np.rint(np.exp(2 * np.tanh(x[:, :1]) + x[:, 1:2] / 2))
    rate = layers.Dense(1, "exponential")
    return sequential((x, y), layers.Dense(32, "relu"), rate, by="adam 0.01", loss="poisson")


# Dense kinds


def rezero() -> Start:
    class Gate(layers.Layer):
        def build(self, shape: Any) -> None:
            self.scale = self.add_weight(shape=(), initializer="zeros", name="scale")

        def call(self, h: Any) -> Any:
            return self.scale * h

    inputs = keras.Input((64,))
    h = layers.Dense(32)(inputs)
    for _ in range(6):
        h = layers.Add()([h, Gate()(layers.Dense(32, "relu", kernel_initializer="he_normal")(h))])
    return functional(inputs, softmax(h), digits())


def highway() -> Start:
    inputs = keras.Input((64,))
    h = layers.Dense(32)(inputs)
    for _ in range(4):
        gate = layers.Dense(32, "sigmoid", bias_initializer=constant(-2.0))(h)
        h = gate * layers.Dense(32, "tanh")(h) + (1 - gate) * h
    return functional(inputs, softmax(h), digits(), "adam 3e-3")


def gated_linear_units() -> Start:
    inputs = keras.Input((64,))
    h = layers.Dense(32)(inputs)
    for _ in range(3):
        z = layers.LayerNormalization()(h)
        z = layers.Dense(32)(layers.Dense(64, "silu")(z) * layers.Dense(64)(z))
        h = layers.Add()([h, z])
    return functional(inputs, softmax(h), digits(), "adamw 3e-3")


def self_normalizing() -> Start:
    stack = [layers.Dense(32, "selu", kernel_initializer="lecun_normal") for _ in range(6)]
    return sequential(digits(), *stack, layers.AlphaDropout(0.05), layers.Dense(10, "softmax"), by="momentum 0.02")


def from_bytes_inside() -> Start:
    stack = [layers.Rescaling(1 / 127.5, -1), layers.Dense(64, "relu"), layers.Dense(10, "softmax")]
    return sequential(digits("bytes"), *stack)


def from_columns_inside() -> Start:
    x, y = shipped("wine", scaled=False)
    scale = layers.Normalization()
    scale.adapt(x)
    return sequential((x, y), scale, layers.Dense(32, "elu"), layers.Dense(3, "softmax"), by="nadam 0.01")


def trained_base() -> Start:
    x, y = digits()
    base = keras.Sequential([keras.Input((64,)), layers.Dense(48, "relu"), layers.Dense(48, "relu")])
    before = compiled(keras.Sequential([base, layers.Dense(10, "softmax")]), "adam 5e-3")
    before.fit(x, y, epochs=3, verbose=0)
    base.trainable = False
    return sequential((x, column(y % 2)), base, layers.Dense(1, "sigmoid"), by="adam 0.02", loss="binary_crossentropy")


def warm_up() -> Start:
    rate = keras.optimizers.schedules.CosineDecay(0.0, 300, warmup_target=0.01, warmup_steps=20)
    model = keras.Sequential([keras.Input((64,)), layers.Dense(64, "gelu"), layers.Dense(10, "softmax")])
    model.compile(keras.optimizers.Adam(rate), SPARSE, jit_compile=False)
    return model, *digits()


def own_step() -> Start:
    import tensorflow as tf

    class Clipped(keras.Model):
        def train_step(self, data: Any) -> dict[str, Any]:
            x, y = data[:2]
            with tf.GradientTape() as tape:
                loss = self.compute_loss(x, y, self(x, training=True))
            gradients = tape.gradient(loss, self.trainable_variables)
            self.optimizer.apply(tf.clip_by_global_norm(gradients, 1.0)[0], self.trainable_variables)
            return {"loss": loss}

    inputs = keras.Input((64,))
    model = Clipped(inputs, softmax(layers.Dense(64, "relu")(inputs)))
    return compiled(model, "adam 3e-3"), *digits()


def subclassed() -> Start:
    class Two(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.head = layers.Dense(48, "relu"), layers.Dense(10, "softmax")
            self.norm = layers.LayerNormalization()

        def call(self, x: Any) -> Any:
            return self.head(self.norm(self.first(x)))

    return compiled(Two(), "rmsprop 3e-3"), *digits()


HEALTHY: list[Healthy] = [
    *healthy("dense", wide_and_deep, two_outputs, siamese, deep_set, graph_convolution),
    *healthy("dense", matrix_factorization, mixture_of_experts, sirens, event_counts),
    *healthy("dense", rezero, highway, gated_linear_units, self_normalizing, from_bytes_inside, from_columns_inside),
    *healthy("dense", trained_base, warm_up, own_step, subclassed),
    Healthy("linear regression", "dense", lambda: net(numbers("plane"), [], by="sgd 0.1", **LINEAR)),
    Healthy("logistic from zeros", "dense", lambda: net(shipped("iris"), [], None, "zeros", by="sgd 0.3")),
    Healthy("huber", "dense", lambda: net(numbers("smooth"), [32], "tanh", head=None, loss="huber", by="adam 0.01")),
    Healthy("hinge", "dense", lambda: net(margins(), [32], "relu", head=None, loss="hinge", by="adam 0.01")),
    Healthy("several labels", "dense", lambda: net(labels(), [64], "relu", by="adam 0.01", **BINARY)),
    Healthy("lion", "dense", lambda: net(digits(), [64], "relu", by="lion 1e-3")),
    Healthy("dropout", "dense", lambda: net(digits(), [128], "relu", dropout=0.4, by="adam 3e-3")),
]


def margins() -> tuple[Array, Array]:
    x, y = binary("moons")
    return x, 2 * y - 1
