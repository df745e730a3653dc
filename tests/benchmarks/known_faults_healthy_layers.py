"""Healthy models of `known_faults.py` with convolutions, attention or recurrence."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import layers, ops
from known_faults_data import (
    Healthy,
    Start,
    column,
    digits,
    functional,
    healthy,
    sentences,
    sequences,
    sequential,
    softmax,
    waves,
)


def image_input() -> Any:
    return keras.Input((8, 8, 1))


def pictures() -> Any:
    return digits("unit", image=True)


# Convolutions and attention


def unet() -> Start:
    x = pictures()[0]
    inputs = image_input()
    wide = layers.Conv2D(8, 3, padding="same", activation="relu")(inputs)
    low = layers.Conv2D(16, 3, padding="same", activation="relu")(layers.MaxPooling2D()(wide))
    up = layers.Concatenate()([layers.UpSampling2D()(low), wide])
    out = layers.Conv2D(1, 1, activation="sigmoid")(layers.Conv2D(8, 3, padding="same", activation="relu")(up))
    mask = (x > 0.5).astype("float32")
    noisy = x + 0.2 * np.random.default_rng(1).normal(size=x.shape).astype("float32")
    return functional(inputs, out, (noisy, mask), loss="binary_crossentropy")


def convolutional_autoencoder() -> Start:
    x = pictures()[0]
    return sequential(
        (x, x),
        layers.Conv2D(16, 3, 2, "same", activation="relu"),
        layers.Conv2D(16, 3, 2, "same", activation="relu"),
        layers.Conv2DTranspose(16, 3, 2, "same", activation="relu"),
        layers.Conv2DTranspose(1, 3, 2, "same", activation="sigmoid"),
        by="adam 0.01",
        loss="mse",
    )


def separable() -> Start:
    def block(width: int) -> list[Any]:
        return [layers.SeparableConv2D(width, 3, padding="same", use_bias=False), layers.BatchNormalization(), relu()]

    stack = [layers.Conv2D(16, 3, padding="same"), *block(24), layers.MaxPooling2D(), *block(32)]
    return sequential(pictures(), *stack, layers.GlobalAveragePooling2D(), layers.Dense(10, "softmax"), by="adam 0.01")


def relu() -> Any:
    return layers.Activation("relu")


def squeeze_and_excite() -> Start:
    inputs = image_input()
    h = layers.Conv2D(16, 3, padding="same", activation="relu", kernel_initializer="he_normal")(inputs)
    gate = layers.Dense(16, "sigmoid")(layers.Dense(4, "relu")(layers.GlobalAveragePooling2D()(h)))
    h = layers.Multiply()([h, layers.Reshape((1, 1, 16))(gate)])
    return functional(inputs, softmax(layers.Flatten()(h)), pictures())


def dense_blocks() -> Start:
    inputs = h = image_input()
    for _ in range(4):
        h = layers.Concatenate()([h, layers.Conv2D(6, 3, padding="same")(relu()(layers.BatchNormalization()(h)))])
    return functional(inputs, softmax(layers.Flatten()(h)), pictures())


def inception() -> Start:
    inputs = h = image_input()
    for _ in range(2):
        parts = [layers.Conv2D(6, size, padding="same", activation="relu")(h) for size in (1, 3, 5)]
        h = layers.Concatenate()([*parts, layers.MaxPooling2D(3, 1, "same")(h)])
    return functional(inputs, softmax(layers.Flatten()(h)), pictures())


def zero_gamma_resnet() -> Start:
    inputs = image_input()
    h = layers.Conv2D(16, 3, padding="same", kernel_initializer="he_normal")(inputs)
    for _ in range(3):
        branch = relu()(layers.BatchNormalization()(layers.Conv2D(16, 3, padding="same")(h)))
        branch = layers.BatchNormalization(gamma_initializer="zeros")(layers.Conv2D(16, 3, padding="same")(branch))
        h = relu()(layers.Add()([h, branch]))
    return functional(inputs, softmax(layers.GlobalAveragePooling2D()(h)), pictures(), "adam 0.01")


def group_norm() -> Start:
    stack = [layers.Conv2D(16, 3, padding="same"), layers.GroupNormalization(4), relu(), layers.MaxPooling2D()]
    return sequential(pictures(), *stack, layers.Flatten(), layers.Dense(10, "softmax"))


def strided_leaky() -> Start:
    x, y = pictures()
    stack = [layers.Conv2D(n, 3, 2, "same") for n in (16, 32)]
    between_them = [stack[0], layers.LeakyReLU(0.2), stack[1], layers.LeakyReLU(0.2), layers.Dropout(0.2)]
    even = column(y % 2)
    return sequential(
        (x, even), *between_them, layers.Flatten(), layers.Dense(1, "sigmoid"), loss="binary_crossentropy"
    )


def one_dimensional() -> Start:
    x, y = sequences(32)
    stack = [layers.Conv1D(16, 5, activation="relu"), layers.MaxPooling1D(2), layers.Conv1D(16, 3, activation="relu")]
    return sequential((x, y), *stack, layers.GlobalAveragePooling1D(), layers.Dense(2, "softmax"), by="adam 0.01")


def dilated_causal() -> Start:
    stack = [layers.Conv1D(16, 2, padding="causal", dilation_rate=2**i, activation="relu") for i in range(4)]
    return sequential(waves(), *stack, layers.Lambda(lambda h: h[:, -1]), layers.Dense(1), loss="mse")


def vision_transformer() -> Start:
    inputs = image_input()
    h = layers.Reshape((16, 24))(layers.Conv2D(24, 2, 2)(inputs))
    h = layers.Add()([h, layers.Embedding(16, 24)(ops.expand_dims(ops.arange(16), 0))])
    for _ in range(2):
        z = layers.LayerNormalization()(h)
        h = layers.Add()([h, layers.MultiHeadAttention(2, 12)(z, z)])
        z = layers.Dense(48, "gelu")(layers.LayerNormalization()(h))
        h = layers.Add()([h, layers.Dense(24)(z)])
    return functional(inputs, softmax(layers.GlobalAveragePooling1D()(layers.LayerNormalization()(h))), pictures())


def mixer() -> Start:
    inputs = image_input()
    h = layers.Reshape((16, 24))(layers.Conv2D(24, 2, 2)(inputs))
    for _ in range(2):
        z = layers.Permute((2, 1))(layers.LayerNormalization()(h))
        z = layers.Permute((2, 1))(layers.Dense(16)(layers.Dense(32, "gelu")(z)))
        h = layers.Add()([h, z])
        h = layers.Add()([h, layers.Dense(24)(layers.Dense(48, "gelu")(layers.LayerNormalization()(h)))])
    return functional(inputs, softmax(layers.GlobalAveragePooling1D()(h)), pictures())


# Words and sequences


def bag_of_words() -> Start:
    return sequential(
        sentences(),
        layers.Embedding(400, 16),
        layers.GlobalAveragePooling1D(),
        layers.Dense(2, "softmax"),
        by="adam 0.03",
    )


def masked_gru() -> Start:
    x, y = sentences()
    x = np.where(np.arange(16) < np.random.default_rng(2).integers(8, 17, (len(x), 1)), x, 0).astype("int32")
    cell = layers.Bidirectional(layers.GRU(12))
    return sequential(
        (x, y), layers.Embedding(400, 16, mask_zero=True), cell, layers.Dense(2, "softmax"), by="adam 0.01"
    )


def tagger() -> Start:
    x = sequences(12)[0]
    y = (np.cumsum(x[..., 0], 1) > 0).astype("int32")
    return sequential(
        (x, y),
        layers.Bidirectional(layers.LSTM(16, return_sequences=True)),
        layers.Dense(2, "softmax"),
        by="adam 0.01",
    )


def forecast() -> Start:
    return sequential(waves(), layers.GRU(16), layers.Dense(1), by="adam 0.01", loss="mse")


def additive_attention() -> Start:
    x, y = sequences(16)
    inputs = keras.Input(x.shape[1:])
    h = layers.GRU(16, return_sequences=True)(inputs)
    query = layers.Lambda(lambda z: z[:, -1:])(h)
    context = layers.Flatten()(layers.AdditiveAttention()([query, h]))
    return functional(inputs, softmax(context, 2), (x, y), "adam 0.01")


def next_word() -> Start:
    x = np.random.default_rng(3).integers(0, 12, (512, 1)) + np.arange(10)
    x = (x % 12).astype("int32")  # each word is followed by the next one
    inputs = keras.Input((9,), dtype="int32")
    h = layers.Embedding(12, 24)(inputs)
    h = layers.Add()([h, layers.MultiHeadAttention(2, 12)(h, h, use_causal_mask=True)])
    h = layers.Add()([h, layers.Dense(24)(layers.Dense(48, "relu")(layers.LayerNormalization()(h)))])
    return functional(inputs, layers.Dense(12, "softmax")(h), (x[:, :-1], x[:, 1:]), "adam 5e-3")


def convolutional_lstm() -> Start:
    rng = np.random.default_rng(4)
    way = rng.integers(0, 2, 256)
    x = 0.1 * rng.normal(size=(256, 5, 6, 6, 1))
    for i, right in enumerate(way):  # a bar moves to the right or to the left
        for t in range(5):
            x[i, t, :, t if right else 5 - t] += 1
    stack = [layers.ConvLSTM2D(6, 3, padding="same"), layers.GlobalAveragePooling2D(), layers.Dense(2, "softmax")]
    return sequential((x.astype("float32"), way.astype("int32")), *stack, by="adam 0.02")


HEALTHY: list[Healthy] = [
    *healthy("convolutional", unet, convolutional_autoencoder, separable, squeeze_and_excite, dense_blocks, inception),
    *healthy("convolutional", zero_gamma_resnet, group_norm, strided_leaky, one_dimensional, dilated_causal),
    *healthy("attention", vision_transformer, mixer, additive_attention, next_word),
    *healthy("recurrent", masked_gru, tagger, forecast, convolutional_lstm),
    *healthy("dense", bag_of_words),
]
