"""What Keras's layer classes are: a line a class, from which everything else is read.

A subclass is what its nearest base in the table is. A class that is not in it is judged by what it does with its
weights, and by its name where that names a normalisation. Imports keras only.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import keras

from . import axes, fans
from .attention import Attention, dot_product, given_scores
from .inside import ConvLSTMCell

Normalises = Literal["", "batch", "layer", "group", "rms", "unit", "other"]
"""Over what a layer takes the scale that it divides by; empty where it does not."""
Parts = list[tuple[str, Any]]


class Kernel(NamedTuple):
    """One kernel of a layer class: a weight that inputs are multiplied by, or looked up in."""

    fans: fans.Rule
    initializer: str = "kernel_initializer"
    """The argument of the constructor that takes its initializer, and the attribute that holds it."""
    axes: axes.Rule | None = None
    """Its input and output axes; None where the shape is (..., inputs, outputs)."""
    channelwise: bool = False
    """Whether each unit sees one channel of its own."""


@dataclass(frozen=True)
class LayerFacts:
    """What is known of a layer class."""

    kernels: Mapping[str, Kernel] = field(default_factory=dict)
    """Name of the attribute, without underscores in front -> kernel. Subclasses add theirs."""
    parts: Callable[[Any], Parts] | None = None
    """Layer -> (name, layer) of each layer inside it that holds kernels; "" where the names of the part's kernels need
    no prefix."""
    gates: tuple[str, ...] = ()
    """Of a recurrent cell, what stands side by side in each of its kernels, in this order; of a plain one, itself."""
    candidate: str = ""
    """The one of them that is no gate, but the new state."""
    normalises: Normalises | None = None
    """None where the name decides."""
    lookup: bool = False
    """Whether it looks up the rows of a table."""
    concatenates: bool = False
    """Whether it puts its inputs side by side, and adds nothing up."""
    activation: bool = False
    """Whether it is an activation itself."""
    attention: Attention | None = None


def _held(**attributes: str) -> Callable[[Any], Parts]:
    """Parts that a layer holds as attributes, by the names that they get; some layers lack some."""

    def parts(layer: Any) -> Parts:
        found = [(name, getattr(layer, attribute, None)) for name, attribute in attributes.items()]
        return [(name, part) for name, part in found if part is not None]

    return parts


def _cell(layer: Any) -> Parts:
    return [("", layer.cell)] if isinstance(layer.cell, keras.layers.Layer) else []


def _cells(layer: Any) -> Parts:
    return [(f"cell_{index}", cell) for index, cell in enumerate(layer.cells)]


def _wrapped(layer: Any) -> Parts:
    return [] if isinstance(layer.layer, keras.Model) else [("", layer.layer)]


_PROJECTIONS = _held(
    query="_query_dense", key="_key_dense", value="_value_dense", gate="_gate_dense", output="_output_dense"
)
_CONVOLUTION = LayerFacts({"kernel": Kernel(fans.convolution)})
_TRANSPOSED = LayerFacts({"kernel": Kernel(fans.transposed, axes=axes.transposed)})
_DEPTHWISE = Kernel(fans.depthwise, "depthwise_initializer", axes.depthwise, channelwise=True)
_SEPARABLE = LayerFacts(
    {"depthwise_kernel": _DEPTHWISE, "pointwise_kernel": Kernel(fans.pointwise, "pointwise_initializer")}
)


def _recurrent(gates: str, candidate: str, kernel: fans.Rule, state: fans.Rule) -> LayerFacts:
    kernels = {"kernel": Kernel(kernel), "recurrent_kernel": Kernel(state, "recurrent_initializer")}
    return LayerFacts(kernels, gates=tuple(gates), candidate=candidate)


_OF_KERAS: dict[str, LayerFacts] = {
    "Dense": LayerFacts({"kernel": Kernel(fans.dense)}),
    "EinsumDense": LayerFacts({"kernel": Kernel(fans.einsum, axes=axes.einsum)}),
    "Conv1D": _CONVOLUTION,
    "Conv2D": _CONVOLUTION,
    "Conv3D": _CONVOLUTION,
    "Conv1DTranspose": _TRANSPOSED,
    "Conv2DTranspose": _TRANSPOSED,
    "Conv3DTranspose": _TRANSPOSED,
    "DepthwiseConv1D": LayerFacts({"kernel": _DEPTHWISE}),
    "DepthwiseConv2D": LayerFacts({"kernel": _DEPTHWISE}),
    "SeparableConv1D": _SEPARABLE,
    "SeparableConv2D": _SEPARABLE,
    "Embedding": LayerFacts({"embeddings": Kernel(fans.lookup, "embeddings_initializer")}, lookup=True),
    "ReversibleEmbedding": LayerFacts(  # its second table is a dense kernel back to the ids
        {"reverse_embeddings": Kernel(fans.dense, "embeddings_initializer")}, lookup=True
    ),
    "SimpleRNNCell": _recurrent("h", "h", fans.gates(1), fans.gates(1)),
    "LSTMCell": _recurrent("ifco", "c", fans.gates(4), fans.gates(4)),
    "GRUCell": _recurrent("zrh", "h", fans.gates(3), fans.gates(3)),
    "RNN": LayerFacts(parts=_cell),
    "StackedRNNCells": LayerFacts(parts=_cells),
    "Bidirectional": LayerFacts(parts=_held(forward="forward_layer", backward="backward_layer")),
    "Wrapper": LayerFacts(parts=_wrapped),
    "SpectralNormalization": LayerFacts(parts=_wrapped, normalises=""),  # it scales the weights of another layer
    "MultiHeadAttention": LayerFacts(parts=_PROJECTIONS, attention=Attention("_compute_attention", dot_product)),
    "GroupQueryAttention": LayerFacts(parts=_PROJECTIONS, attention=Attention("_compute_attention", dot_product)),
    "Attention": LayerFacts(attention=Attention("_apply_scores", given_scores)),
    "BatchNormalization": LayerFacts(normalises="batch"),
    "LayerNormalization": LayerFacts(normalises="layer"),
    "GroupNormalization": LayerFacts(normalises="group"),
    "RMSNormalization": LayerFacts(normalises="rms"),
    "UnitNormalization": LayerFacts(normalises="unit"),
    "Normalization": LayerFacts(normalises=""),  # by figures that are given, not by what it sees
    "Activation": LayerFacts(activation=True),
    "ReLU": LayerFacts(activation=True),
    "LeakyReLU": LayerFacts(activation=True),
    "PReLU": LayerFacts(activation=True),
    "ELU": LayerFacts(activation=True),
    "Softmax": LayerFacts(activation=True),
    "Concatenate": LayerFacts(concatenates=True),
}
"""Name in `keras.layers` -> facts; older releases lack some of the classes."""

TABLE: dict[type, LayerFacts] = {
    **{getattr(keras.layers, name): line for name, line in _OF_KERAS.items() if hasattr(keras.layers, name)},
    ConvLSTMCell: _recurrent("ifco", "c", fans.convolved_gates, fans.convolved_state),
}
"""Layer class -> facts. A class of another package is added by its line, or by `catalogue.register`."""

_NOTHING = LayerFacts()


def facts(layer: Any) -> LayerFacts:
    """What is known of a layer: the line of its class, with the kernels of the classes above."""
    lines = [TABLE[kind] for kind in type(layer).__mro__ if kind in TABLE]
    if len(lines) < 2:
        return lines[0] if lines else _NOTHING
    kernels = {name: kernel for line in reversed(lines) for name, kernel in line.kernels.items()}
    return dataclasses.replace(lines[0], kernels=kernels)
