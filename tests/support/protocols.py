"""What the tests of the engines share: who fulfils a protocol, and a model with something of everything."""

import inspect

import keras
from keras import layers


def differences(protocol, found):
    """The functions of a protocol that an object lacks, or has with other arguments."""
    for name, function in vars(protocol).items():
        if name.startswith("_"):
            continue
        wanted = list(inspect.signature(function).parameters)
        own = getattr(found, name, None)
        # A module's functions have no `self`.
        if own is None or list(inspect.signature(own).parameters) != wanted[1 if inspect.ismodule(found) else 0 :]:
            yield name


def everything():
    """Attention, recurrence, normalization, a sum outside of layers, activations and a softmax, compiled."""
    x = inputs = keras.Input((5, 4))
    x = layers.Dense(6, "relu", name="first")(2.0 * x)
    x = x + layers.MultiHeadAttention(2, 3, name="attention")(x, x)
    x = layers.LayerNormalization(name="norm")(x)
    x = layers.LSTM(5, name="lstm")(x)
    x = layers.Activation("tanh", name="tanh")(layers.Dense(4, name="plain")(x))
    model = keras.Model(inputs, layers.Dense(3, "softmax", name="last")(x))
    model.compile("adam", "sparse_categorical_crossentropy")
    return model
