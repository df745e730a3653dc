"""Faulty starts of `known_faults.py` with convolutions, recurrence, attention and branches, and their repaired twins.

As in `known_faults_models.py`, they are rebuilt from their descriptions, on other data and smaller.
"""

from __future__ import annotations

from typing import Any

import keras
from keras import initializers, layers, ops
from known_faults_data import (
    AUTOTRAINER,
    CATEGORICAL,
    DEEPCHECKER,
    DEEPDIAGNOSIS,
    EXPLODES,
    FROM_LOGITS,
    UMLAUT,
    VANISHES,
    Fault,
    Start,
    asked,
    compiled,
    constant,
    convnet,
    digits,
    fault,
    fresh,
    issue,
    normal,
    recurrent,
    sentences,
    sequences,
    waves,
    with_one_hot,
)

FAULTS: list[Fault] = [
    # Convolutions
    fault(
        "thirteen convolutions drawn by Glorot",
        "convolutional",
        "towardsdatascience.com/why-default-cnn-are-broken-in-keras-and-how-to-fix-them-ce295e5e5f2: "
        "a VGG16 drawn by Glorot learns nothing on CIFAR-10",
        VANISHES,
        lambda: convnet(digits(image=True), [12] * 13, pools=(4, 9), by="momentum 5e-3"),
        lambda: convnet(digits(image=True), [12] * 13, "relu", "he_normal", pools=(4, 9), by="momentum 5e-3"),
    ),
    fault(
        "constant convolutions",
        "convolutional",
        f"{DEEPCHECKER}: wrong initialization: all kernels of the convolutional network start at one constant",
        "symmetric-units",
        lambda: convnet(digits(image=True), [16, 16], "relu", constant(0.1), dense=[32], by="adam 3e-3"),
        lambda: convnet(digits(image=True), [16, 16], "relu", "he_normal", dense=[32], by="adam 3e-3"),
    ),
    fault(
        "convolutions drawn far too wide",
        "convolutional",
        f"{DEEPCHECKER}: wrong initialization: normal values of an arbitrary standard deviation, SGD with rate 0.1",
        f"{EXPLODES} initial-loss",
        lambda: convnet(digits(image=True), [16, 16], "relu", normal(1.0), dense=[32], by="sgd 0.1"),
        lambda: convnet(digits(image=True), [16, 16], "relu", "he_normal", dense=[32], by="sgd 0.1"),
    ),
    fault(
        "sigmoid convolutions",
        "convolutional",
        f"{DEEPCHECKER}: wrong activation: sigmoids in the deep convolutional network",
        VANISHES,
        lambda: convnet(digits(image=True), [16] * 5, "sigmoid", dense=[32], by="momentum 0.02"),
        lambda: convnet(digits(image=True), [16] * 5, "relu", "he_normal", dense=[32], by="momentum 0.02"),
    ),
    fault(
        "convolutions on bytes",
        "convolutional",
        issue(6259, "images from 0 to 255: the first loss is 14 where 2.3 is expected"),
        "input-scale initial-loss",
        lambda: convnet(digits("bytes", image=True), [16, 16], dense=[32], by="momentum 0.02"),
        lambda: convnet(digits("unit", image=True), [16, 16], dense=[32], by="momentum 0.02"),
    ),
    fault(
        "convolutions on bytes with Adam",
        "convolutional",
        asked(48594888, "images as bytes into convolutions drawn by He, Adam"),
        "input-scale initial-loss",
        lambda: convnet(digits("bytes", image=True), [16, 32], "relu", "he_normal", dense=[64], by="adam 0.01"),
        lambda: convnet(digits("unit", image=True), [16, 32], "relu", "he_normal", dense=[64], by="adam 0.01"),
    ),
    fault(
        "ReLU before the class probabilities",
        "convolutional",
        asked(47352366, "ReLU as the last activation of ten classes under a categorical cross-entropy, biases of 0.1"),
        "output-activation dead-units initial-loss non-finite saturated-units no-gradient",
        lambda: convnet(
            with_one_hot(digits("unit", image=True)),
            [8, 16],
            "relu",
            bias=constant(0.1),
            dense=[64],
            head="relu",
            loss=CATEGORICAL,
        ),
        lambda: convnet(
            with_one_hot(digits("unit", image=True)), [8, 16], bias=constant(0.1), dense=[64], loss=CATEGORICAL
        ),
    ),
    fault(
        "ReLU on the logits",
        "convolutional",
        f"{DEEPCHECKER}: a program from a public question: the layer that makes the logits has a ReLU",
        "output-activation dead-units initial-loss",
        lambda: convnet(
            digits("unit", image=True),
            [16, 32],
            "relu",
            normal(0.1),
            constant(0.1),
            dense=[64],
            head="relu",
            loss=FROM_LOGITS,
        ),
        lambda: convnet(
            digits("unit", image=True),
            [16, 32],
            "relu",
            normal(0.1),
            constant(0.1),
            dense=[64],
            head=None,
            loss=FROM_LOGITS,
        ),
    ),
    fault(
        "bytes, no softmax and a rate of 0.1",
        "convolutional",
        f"{UMLAUT}: its study: unscaled images, no softmax before the loss, a learning rate far too high, at once",
        "input-scale update-ratio divergence initial-loss non-finite",
        lambda: convnet(digits("bytes", image=True), [16, 16], dense=[32], head=None, by="adam 0.1"),
        lambda: convnet(digits("unit", image=True), [16, 16], dense=[32], by="adam 3e-3"),
    ),
    fault(
        "frozen random layers",
        "architecture",
        issue(4674, "random layers that are frozen before they were trained"),
        "no-gradient",
        lambda: frozen_base(True),
        lambda: frozen_base(False),
    ),
    fault(
        "residual branches at full scale",
        "architecture",
        "Zhang, Dauphin & Ma 2019, arxiv.org/abs/1901.09321: residual networks without norms explode with depth",
        f"{EXPLODES} initial-loss",
        lambda: residual("he_normal"),
        lambda: residual("zeros"),
    ),
    fault(
        "logarithm of a ReLU",
        "architecture",
        f"{DEEPCHECKER}: a program from a public question: the loss takes a logarithm of outputs that may be zero",
        "non-finite",
        lambda: own_logarithm(lambda logits: ops.log(ops.relu(logits))),
        lambda: own_logarithm(ops.log_softmax),
    ),
    fault(
        "one initializer for two branches that are subtracted",
        "architecture",
        "github.com/deel-ai/deel-lip/issues/64: an initializer that several layers share gives identical kernels",
        "duplicate-kernels symmetric-units no-gradient collapsed-samples vanishing-signal",
        lambda: two_branches(1, 1),
        lambda: two_branches(1, 2),
    ),
    # Recurrence
    fault(
        "sigmoid recurrence over many steps",
        "recurrent",
        f"{AUTOTRAINER}: vanishing gradient of recurrent models, here of sigmoids in time without gates",
        f"{VANISHES} vanishing-through-time saturated-units",
        lambda: recurrent(sequences(40), layers.SimpleRNN(32, "sigmoid", recurrent_initializer=normal(0.05))),
        lambda: recurrent(sequences(40), layers.GRU(32), by="adam 5e-3"),
    ),
    fault(
        "a first step that is forgotten",
        "recurrent",
        "Bengio, Simard & Frasconi 1994, doi.org/10.1109/72.279181: small recurrent kernels lose what was far back",
        f"{VANISHES} vanishing-through-time",
        lambda: recurrent(
            sequences(20, early=True),
            layers.SimpleRNN(32, recurrent_initializer=normal(0.01)),
            by="adam 3e-3",
        ),
        lambda: recurrent(
            sequences(20, early=True),
            layers.SimpleRNN(32, recurrent_initializer="orthogonal"),
            by="adam 3e-3",
        ),
    ),
    fault(
        "ReLU recurrence that explodes",
        "recurrent",
        "Pascanu, Mikolov & Bengio 2013, arxiv.org/abs/1211.5063: recurrent kernels with eigenvalues above one",
        f"{EXPLODES} exploding-through-time initial-loss",
        lambda: recurrent(
            sequences(30), layers.SimpleRNN(32, "relu", recurrent_initializer=initializers.Orthogonal(2.0))
        ),
        lambda: recurrent(sequences(30), layers.SimpleRNN(32, "tanh"), by="adam 5e-3"),
    ),
    fault(
        "LSTM with ReLU on long raw sequences",
        "recurrent",
        issue(2194, "an LSTM with ReLU in place of tanh over long sequences: the loss is NaN from the first step"),
        f"{EXPLODES} non-finite initial-loss input-scale",
        lambda: recurrent((30 * sequences(60)[0], sequences(60)[1]), layers.LSTM(32, "relu"), by="rmsprop 5e-3"),
        lambda: recurrent(sequences(60), layers.LSTM(32), by="rmsprop 5e-3"),
    ),
    fault(
        "LSTM on raw prices",
        "recurrent",
        issue(1727, "an LSTM and sigmoids on unscaled series: it predicts one constant for every sample"),
        "input-scale target-scale saturated-units initial-loss",
        lambda: recurrent(waves(level=1000.0, scale=100.0), layers.LSTM(20), head=None, by="rmsprop", loss="mse"),
        lambda: recurrent(waves(), layers.LSTM(20), head=None, by="rmsprop 0.01", loss="mse"),
    ),
    fault(
        "word numbers as quantities",
        "recurrent",
        issue(1864, "sequences of word numbers up to 2000 for an LSTM, no progress at all; here without an embedding"),
        "input-scale saturated-units",
        lambda: recurrent(
            (sentences()[0].astype("float32"), sentences()[1]),
            layers.Reshape((16, 1)),
            layers.LSTM(16),
            by="adam 5e-3",
        ),
        lambda: recurrent(sentences(), layers.Embedding(400, 16), layers.LSTM(16), by="adam 5e-3"),
    ),
    fault(
        "saturated gates",
        "recurrent",
        f"{DEEPDIAGNOSIS}: saturated activation, here of the gates and the state of an LSTM with wide kernels",
        "saturated-units",
        lambda: recurrent(sequences(), layers.LSTM(24, kernel_initializer=normal(8.0)), by="sgd 0.1"),
        lambda: recurrent(sequences(), layers.LSTM(24), by="momentum 0.1"),
    ),
    # Attention
    fault(
        "attention logits far too large",
        "attention",
        "Zhai et al. 2023, arxiv.org/abs/2303.06296: attention entropy collapses where queries and keys are large",
        "saturated-units attention-entropy",
        lambda: transformer(normal(2.0)),
        lambda: transformer("glorot_uniform"),
    ),
    fault(
        "a deep transformer with its norms behind and a high rate",
        "attention",
        "Xiong et al. 2020, arxiv.org/abs/2002.04745: norms behind the residual sum, without a warm-up",
        "update-ratio divergence exploding-gradient vanishing-gradient",
        lambda: transformer("glorot_uniform", blocks=6, behind=True, by="adam 0.02"),
        lambda: transformer("glorot_uniform", blocks=6, by="adam 1e-3"),
    ),
]


def frozen_base(frozen: bool) -> Start:
    x, y = digits()
    base = [layers.Dense(8, "relu", trainable=not frozen) for _ in range(3)]
    model = keras.Sequential([keras.Input((64,)), *base, layers.Dense(10, "softmax")])
    return compiled(model, "adam 0.01"), x, y


def residual(last: Any) -> Start:
    x, y = digits()
    inputs = keras.Input((64,))
    h = layers.Dense(32)(inputs)
    for _ in range(24):
        branch = layers.Dense(32, "relu", kernel_initializer="he_normal")(h)
        h = layers.Add()([h, layers.Dense(32, kernel_initializer=fresh(last))(branch)])
    return compiled(keras.Model(inputs, layers.Dense(10, "softmax")(h)), "momentum 0.01"), x, y


def own_logarithm(logarithm: Any) -> Start:
    x, y = digits()
    stack = [keras.Input((64,)), layers.Dense(64, "sigmoid"), layers.Dense(10), layers.Lambda(logarithm)]
    return compiled(keras.Sequential(stack), "sgd 0.5", FROM_LOGITS), x, y


def two_branches(first: int, second: int) -> Start:
    x, y = digits()
    inputs = keras.Input((64,))
    a, b = (
        layers.Dense(32, "tanh", kernel_initializer=initializers.GlorotUniform(seed))(inputs)
        for seed in (first, second)
    )
    out = layers.Dense(10, "softmax")(layers.Subtract()([a, b]))
    return compiled(keras.Model(inputs, out), "sgd 0.05"), x, y


def transformer(kernel: Any, blocks: int = 1, behind: bool = False, by: str = "adam 1e-3") -> Start:
    x, y = sequences(12)
    inputs = keras.Input(x.shape[1:])
    h = layers.Dense(32)(inputs)
    for _ in range(blocks):
        for branch in (
            lambda z: layers.MultiHeadAttention(2, 16, kernel_initializer=fresh(kernel))(z, z),
            lambda z: layers.Dense(32)(layers.Dense(64, "gelu")(z)),
        ):
            if behind:
                h = layers.LayerNormalization()(layers.Add()([h, branch(h)]))
            else:
                h = layers.Add()([h, branch(layers.LayerNormalization()(h))])
    out = layers.Dense(2, "softmax")(layers.GlobalAveragePooling1D()(h))
    return compiled(keras.Model(inputs, out), by), x, y
