"""What is needed of a layer or a model and Keras does not document: a function for each need.

The names behind them may move in any release. `tests/observe/test_private_names.py` looks each of them up.
"""

from __future__ import annotations

from typing import Any

# It has no public name. To find it through a layer would draw a seed, and start TensorFlow, at import.
from keras.src.layers.rnn.conv_lstm import ConvLSTMCell as ConvLSTMCell


def held_layers(layer: Any) -> list[Any]:
    """The layers that a layer holds itself, without those that these hold."""
    return list(layer._layers)


def with_layers_below(layer: Any) -> list[Any]:
    """A layer or a model, and all layers below it; one that stands in several places may come several times."""
    return list(layer._flatten_layers())


def layers_below(layer: Any) -> list[Any]:
    """All layers below a layer or a model, without itself."""
    return list(layer._flatten_layers(include_self=False))


def own_weights(layer: Any) -> list[Any]:
    """The trainable weights of the layer itself, without those of layers below it; the frozen ones included."""
    return list(layer._trainable_variables)


def input_structure(model: Any) -> Any:
    """The symbolic inputs of a functional model, in the structure in which it takes them; None of any other."""
    return getattr(model, "_inputs_struct", None)


def output_maker(output: Any) -> Any:
    """The layer, or other operation, that makes a symbolic output of a functional model."""
    return output._keras_history.operation
