"""True fans of a layer's weights: how many inputs are summed into one output, and how many outputs one input feeds.

A weight's shape does not tell them: a depthwise, grouped, transposed or expert kernel, the gates that share one matrix
in a recurrent layer, an embedding table are all read wrongly from the shape alone. Here the layer is asked. fan_in is
what an interior output is with a kernel of ones on inputs of ones; fan_out is the gradient of the sum of all outputs at
an interior input, as the mean over inputs where a stride makes it differ from one to the next. Imports keras only.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import keras
from keras.src.layers.rnn.conv_lstm import ConvLSTMCell

Fans = tuple[float, float]
Rule = Callable[[Any, tuple[int, ...]], Fans]
"""(layer, shape of the weight) -> (fan_in, fan_out)."""


def fans(layer: Any, weight: Any = None) -> Fans:
    """The true (fan_in, fan_out) of a kernel of a built layer.

    Args:
        layer: A built layer that owns a kernel, or holds layers that do (attention, RNN, Bidirectional, wrappers).
        weight: Name of the kernel as `kernels` lists it, or the variable itself; the first of them by default.

    Returns:
        Connections into one output and out of one input. Recurrent kernels count a gate at a time. Strides can make
        the means fractional.

    Raises:
        ValueError: When the layer is not built, has no such kernel, or is of a class that is not known; `register`
            makes it known.

    Example:
        >>> layer = keras.layers.DepthwiseConv2D(3)
        >>> layer.build((None, 32, 32, 64))
        >>> fans(layer)
        (9.0, 9.0)
    """
    owner, attribute = find(layer, weight)
    name = attribute.lstrip("_")
    rule = _rule(owner, name)
    if rule is None:
        kind = type(owner).__name__
        raise ValueError(
            f"The fans of {kind} are not known (layer {owner.name!r}, weight {name!r}). Say them once, as (inputs "
            "summed into one output, outputs that one input feeds):\n"
            "    from keras_initaudit.layers.catalogue import register\n"
            f"    register({kind}, {name!r}, lambda layer, shape: (fan_in, fan_out))"
        )
    fan_in, fan_out = rule(owner, tuple(int(size) for size in getattr(owner, attribute).shape))
    return float(fan_in), float(fan_out)


def kernels(layer: Any) -> list[str]:
    """Names of the kernels of a layer: the weights of rank two and more that inputs are multiplied by.

    A layer that holds others lists theirs behind the name of the part, as `query/kernel` of an attention layer or
    `forward/recurrent_kernel` of a Bidirectional; an RNN layer lists its cell's as its own. Models are not entered.
    Of a class that is not known, every trainable weight of rank two and more counts, unless it has the name of
    something else (bias, gamma, beta, alpha, scale).

    Args:
        layer: A layer; one that is not built has none.

    Example:
        >>> layer = keras.layers.LSTM(4)
        >>> layer.build((None, 5, 3))
        >>> kernels(layer)
        ['kernel', 'recurrent_kernel']
    """
    return [name for name, _, _ in _walk(layer)]


def find(layer: Any, weight: Any = None) -> tuple[Any, str]:
    """The layer that owns a kernel and the attribute it has there: `getattr(*find(layer, name))` is the variable.

    Args:
        layer: As `fans` takes it.
        weight: As `fans` takes it.

    Raises:
        ValueError: When there is no such kernel.
    """
    found = list(_walk(layer))
    for name, owner, attribute in found:
        if weight is None or weight is getattr(owner, attribute) or (isinstance(weight, str) and name == weight):
            return owner, attribute
    names = [name for name, _, _ in found]
    wanted = "kernel" if weight is None else f"kernel {getattr(weight, 'path', weight)!r}"
    why = "" if getattr(layer, "built", True) else " It is not built: call it, or its `build`, first."
    raise ValueError(
        f"Layer {layer.name!r} ({type(layer).__name__}) has no {wanted}; it has {names or 'no kernel at all'}.{why}"
    )


def register(layer_class: type, weight: str, rule: Rule) -> None:
    """Makes the fans of a layer of one's own known, to everything in this package.

    Args:
        layer_class: The class; subclasses inherit the rule.
        weight: Name of the attribute that holds the kernel.
        rule: Function of (layer, shape of the weight) to (fan_in, fan_out).

    Raises:
        TypeError: When `layer_class` is no layer class, or `rule` no function.

    Example:
        >>> class Shared(keras.layers.Layer):
        ...     def build(self, shape):
        ...         self.matrix = self.add_weight(shape=(8, 3), name="matrix")
        >>> register(Shared, "matrix", lambda layer, shape: (shape[0], 4 * shape[1]))  # used at four places
        >>> layer = Shared()
        >>> layer.build((None, 8))
        >>> fans(layer)
        (8.0, 12.0)
    """
    if not (isinstance(layer_class, type) and issubclass(layer_class, keras.layers.Layer)):
        raise TypeError(f"`layer_class` must be a subclass of keras.layers.Layer. Received: {layer_class!r}.")
    if not callable(rule):
        raise TypeError(f"`rule` must be a function of (layer, shape). Received: {rule!r}.")
    if not isinstance(weight, str) or not weight:
        raise TypeError(f"`weight` must be the name of an attribute. Received: {weight!r}.")
    _RULES.setdefault(layer_class, {})[weight] = rule


# --- which kernels a layer has


def _walk(layer: Any) -> Iterator[tuple[str, Any, str]]:
    """(name below `layer`, the layer that owns it, its attribute there) of every kernel, in a fixed order."""
    yield from own_kernels(layer)
    for part, inner in parts(layer):
        for name, owner, attribute in _walk(inner):
            yield f"{part}/{name}" if part else name, owner, attribute


def own_kernels(layer: Any) -> list[tuple[str, Any, str]]:
    """(name, layer, attribute) of the kernels that the layer itself owns, those of its parts left out."""
    return [(attribute.lstrip("_"), layer, attribute) for attribute in _own(layer)]


_PARTS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("Bidirectional", ("forward_layer", "backward_layer")),
    ("MultiHeadAttention", ("_query_dense", "_key_dense", "_value_dense", "_gate_dense", "_output_dense")),
    ("GroupQueryAttention", ("_query_dense", "_key_dense", "_value_dense", "_gate_dense", "_output_dense")),
)


def parts(layer: Any) -> list[tuple[str, Any]]:
    """The layers inside a composite layer of Keras, as (name, layer): "" for a cell, which stands for its RNN."""
    for name, attributes in _PARTS:
        if isinstance(layer, getattr(keras.layers, name)):
            names = [attribute.strip("_").rpartition("_")[0] for attribute in attributes]
            held = [getattr(layer, attribute, None) for attribute in attributes]
            return [(part, inner) for part, inner in zip(names, held, strict=True) if inner is not None]
    if isinstance(layer, keras.layers.RNN):
        return [("", layer.cell)] if isinstance(layer.cell, keras.layers.Layer) else []
    if isinstance(layer, keras.layers.StackedRNNCells):
        return [(f"cell_{index}", cell) for index, cell in enumerate(layer.cells)]
    if isinstance(layer, keras.layers.Wrapper) and not isinstance(layer.layer, keras.Model):
        return [("", layer.layer)]
    return []


def known_kernels(layer: Any) -> list[Any]:
    """The layer's own kernels, as variables, by what is known of its class; empty where nothing is."""
    known = _known(layer)
    return [getattr(layer, attribute) for attribute in _attributes(layer) if attribute.lstrip("_") in known]


_NO_KERNEL = {"bias", "gamma", "beta", "alpha", "scale", "vector_u"}


def _own(layer: Any) -> list[str]:
    known = _known(layer)
    return [attribute for attribute in _attributes(layer) if _is_kernel(layer, attribute, known)]


def _known(layer: Any) -> set[str]:
    return {name for kind in type(layer).__mro__ for name in _RULES.get(kind, ())}


def _is_kernel(layer: Any, attribute: str, known: set[str]) -> bool:
    name, variable = attribute.lstrip("_"), getattr(layer, attribute)
    if known:
        return name in known
    return len(variable.shape) > 1 and not {name, variable.name} & _NO_KERNEL


def _attributes(layer: Any) -> list[str]:
    """Attributes of the layer that hold a floating variable each, in the order of creation."""
    names: dict[int, str] = {}
    inner = {
        id(weight) for _, part in parts(layer) for weight in part.weights
    }  # SpectralNormalization shows its layer's
    for attribute, value in vars(layer).items():
        if isinstance(value, keras.Variable) and _floating(value) and id(value) not in inner:
            # `Dense` keeps its kernel as `_kernel`, and shows it as `kernel` with what LoRA adds.
            names.setdefault(id(value), attribute)
    return list(names.values())


def _floating(variable: Any) -> bool:
    return "float" in str(keras.backend.standardize_dtype(variable.dtype))


# --- the fans of Keras's layers


def _dense(_: Any, shape: tuple[int, ...]) -> Fans:
    return shape[0], shape[1]


def _einsum(layer: Any, shape: tuple[int, ...]) -> Fans:
    """Of `EinsumDense`: kernel axes that the output lacks are summed; those that the input lacks are made."""
    inputs, kernel, output = einsum_axes(layer)
    sizes = dict(zip(kernel, shape, strict=True))
    summed = {axis: layer.equation.index(axis) for axis in inputs if axis not in kernel + output}
    if summed:  # axes of the data that are summed without a weight, as b in "abc,cd->ad"
        data = layer.get_build_config()["input_shape"]
        sizes.update({axis: data[at] for axis, at in summed.items()})
        if None in sizes.values():
            raise ValueError(f"The fans of {layer.name!r} depend on an unknown input size: {layer.equation} of {data}.")
    fan_in = math.prod(size for axis, size in sizes.items() if axis not in output)
    fan_out = math.prod(size for axis, size in sizes.items() if axis not in inputs)
    return fan_in, fan_out


def einsum_axes(layer: Any) -> tuple[str, str, str]:
    """The letters of input, kernel and output of an `EinsumDense`, the ellipsis left out."""
    left, output = layer.equation.replace("...", "").replace(" ", "").split("->")
    inputs, kernel = left.split(",")
    return inputs, kernel, output


def kernel_axes(layer: Any) -> tuple[list[int], list[int]]:
    """Input and output axes of the kernel of an `EinsumDense`, as an initializer takes them."""
    inputs, kernel, output = einsum_axes(layer)
    summed = [axis for axis, letter in enumerate(kernel) if letter not in output]
    return summed, [axis for axis, letter in enumerate(kernel) if letter not in inputs]


def _strides(layer: Any, rank: int) -> int:
    strides = layer.strides
    return int(strides**rank) if isinstance(strides, int) else math.prod(strides)


def _conv(layer: Any, shape: tuple[int, ...]) -> Fans:
    # shape: (..., channels of one group, filters); an input feeds the filters of its own group alone.
    field = math.prod(shape[:-2])
    return field * shape[-2], field * shape[-1] / layer.groups / _strides(layer, len(shape) - 2)


def _conv_transpose(layer: Any, shape: tuple[int, ...]) -> Fans:
    # shape: (..., filters, channels); a stride spreads the inputs, so that an output sees one in prod(strides) of them.
    field = math.prod(shape[:-2])
    return field * shape[-1] / _strides(layer, len(shape) - 2), field * shape[-2]


def _depthwise(layer: Any, shape: tuple[int, ...]) -> Fans:
    # shape: (..., channels, multiplier); each output sees one channel.
    field = math.prod(shape[:-2])
    return field, field * shape[-1] / _strides(layer, len(shape) - 2)


def _pointwise(_: Any, shape: tuple[int, ...]) -> Fans:
    return shape[-2], shape[-1]


def _gates(count: int) -> Rule:
    return lambda _, shape: (shape[0], shape[1] / count)


def _conv_gates(layer: Any, shape: tuple[int, ...]) -> Fans:
    field = math.prod(shape[:-2])
    return field * shape[-2], field * shape[-1] / 4 / _strides(layer, len(shape) - 2)


def _conv_recurrent(_: Any, shape: tuple[int, ...]) -> Fans:
    # The state is convolved with stride 1, whatever the stride of the input.
    field = math.prod(shape[:-2])
    return field * shape[-2], field * shape[-1] / 4


def _lookup(_: Any, shape: tuple[int, ...]) -> Fans:
    return 1, shape[1]  # one row is picked, none are summed


def _table() -> dict[type, dict[str, Rule]]:
    kinds = keras.layers
    table: dict[type, dict[str, Rule]] = {
        kinds.Dense: {"kernel": _dense},
        kinds.EinsumDense: {"kernel": _einsum},
        kinds.Embedding: {"embeddings": _lookup},
        kinds.SimpleRNNCell: {"kernel": _gates(1), "recurrent_kernel": _gates(1)},
        kinds.LSTMCell: {"kernel": _gates(4), "recurrent_kernel": _gates(4)},
        kinds.GRUCell: {"kernel": _gates(3), "recurrent_kernel": _gates(3)},
        # It has no public name. To find it through a layer would draw a seed, and start TensorFlow, at import.
        ConvLSTMCell: {"kernel": _conv_gates, "recurrent_kernel": _conv_recurrent},
    }
    for rank in (1, 2, 3):
        table[getattr(kinds, f"Conv{rank}D")] = {"kernel": _conv}
        table[getattr(kinds, f"Conv{rank}DTranspose")] = {"kernel": _conv_transpose}
    for rank in (1, 2):
        table[getattr(kinds, f"DepthwiseConv{rank}D")] = {"kernel": _depthwise}
        table[getattr(kinds, f"SeparableConv{rank}D")] = {
            "depthwise_kernel": _depthwise,
            "pointwise_kernel": _pointwise,
        }
    if hasattr(kinds, "ReversibleEmbedding"):  # its second table is a dense kernel back to the ids
        table[kinds.ReversibleEmbedding] = {"reverse_embeddings": _dense}
    return table


_RULES = _table()


def _rule(layer: Any, weight: str) -> Rule | None:
    for kind in type(layer).__mro__:
        if weight in _RULES.get(kind, ()):
            return _RULES[kind][weight]
    return None
