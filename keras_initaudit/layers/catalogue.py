"""What a layer is, asked of the table: its kernels with their true fans and axes, its gates, what it normalises.

A weight's shape does not tell its fans: a depthwise, grouped, transposed or expert kernel, the gates that share one
matrix in a recurrent layer, an embedding table are all read wrongly from the shape alone. Here the layer is asked.
Imports keras only.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Container, Iterator
from typing import Any

import keras

from .axes import Axes
from .fans import Fans, Rule
from .table import TABLE, Kernel, LayerFacts, Normalises, facts


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
    kernel = facts(owner).kernels.get(name)
    if kernel is None:
        kind = type(owner).__name__
        raise ValueError(
            f"The fans of {kind} are not known (layer {owner.name!r}, weight {name!r}). Say them once, as (inputs "
            "summed into one output, outputs that one input feeds):\n"
            "    from keras_initaudit.layers.catalogue import register\n"
            f"    register({kind}, {name!r}, lambda layer, shape: (fan_in, fan_out))"
        )
    fan_in, fan_out = kernel.fans(owner, tuple(int(size) for size in getattr(owner, attribute).shape))
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
    """Adds the fans of a layer class that this package does not know.

    It adds the kernel to the line of the class in `layers.table.TABLE`, where all else that is known of a layer stands.

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
    line = next((TABLE[kind] for kind in layer_class.__mro__ if kind in TABLE), LayerFacts())
    TABLE[layer_class] = dataclasses.replace(line, kernels={**line.kernels, weight: Kernel(rule)})


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


def parts(layer: Any) -> list[tuple[str, Any]]:
    """The layers inside a composite layer of Keras, as (name, layer): "" for a cell, which stands for its RNN."""
    inside = facts(layer).parts
    return inside(layer) if inside is not None else []


def known_kernels(layer: Any) -> list[Any]:
    """The layer's own kernels, as variables, by what is known of its class; empty where nothing is."""
    known = facts(layer).kernels
    return [getattr(layer, attribute) for attribute in _attributes(layer) if attribute.lstrip("_") in known]


def kernel_of(layer: Any, weight: Any) -> Kernel | None:
    """What is known of one of the layer's own weights as a kernel; None where its class is not known to have it."""
    known = facts(layer).kernels
    names = (attribute.lstrip("_") for attribute in _attributes(layer) if getattr(layer, attribute) is weight)
    return known.get(next(names, "")) if known else None


_NO_KERNEL = {"bias", "gamma", "beta", "alpha", "scale", "vector_u"}


def _own(layer: Any) -> list[str]:
    known = facts(layer).kernels
    return [attribute for attribute in _attributes(layer) if _is_kernel(layer, attribute, known)]


def _is_kernel(layer: Any, attribute: str, known: Container[str]) -> bool:
    name, variable = attribute.lstrip("_"), getattr(layer, attribute)
    if known:
        return name in known
    return len(variable.shape) > 1 and not {name, variable.name} & _NO_KERNEL


def _attributes(layer: Any) -> list[str]:
    """Attributes of the layer that hold a floating variable each, in the order of creation."""
    names: dict[int, str] = {}
    # SpectralNormalization shows its layer's.
    inner = {id(weight) for _, part in parts(layer) for weight in part.weights}
    for attribute, value in vars(layer).items():
        if isinstance(value, keras.Variable) and _floating(value) and id(value) not in inner:
            # `Dense` keeps its kernel as `_kernel`, and shows it as `kernel` with what LoRA adds.
            names.setdefault(id(value), attribute)
    return list(names.values())


def _floating(variable: Any) -> bool:
    return "float" in str(keras.backend.standardize_dtype(variable.dtype))


# --- the axes of a kernel


def kernel_axes(layer: Any, weight: Any = None) -> Axes | tuple[None, None]:
    """Input and output axes of a kernel, as an initializer takes them; (None, None) where its shape says them.

    Args:
        layer: The layer that owns it.
        weight: The variable; the first kernel by default.
    """
    for variable in known_kernels(layer)[:1] if weight is None else [weight]:
        kernel = kernel_of(layer, variable)
        if kernel is not None and kernel.axes is not None:
            return kernel.axes(layer, len(variable.shape))
    return None, None


def unit_axes(layer: Any, weight: Any) -> tuple[int, ...]:
    """The axes of a weight that index units: those that no input is summed over; the last one where none is known."""
    rank = len(weight.shape)
    summed, _ = kernel_axes(layer, weight)
    return tuple(axis for axis in range(rank) if axis not in summed) if summed else (rank - 1,)


# --- everything else


def gates(layer: Any) -> tuple[str, ...]:
    """What stands side by side in the kernels of a recurrent layer or cell, as ("z", "r", "h"); empty of all others.

    Of stacked cells, that of the first.
    """
    found = facts(layer).gates
    if not found and isinstance(layer, keras.layers.RNN | keras.layers.StackedRNNCells):
        return next((gates(cell) for _, cell in parts(layer)), ())
    return found


def is_cell(layer: Any) -> bool:
    """Whether a layer is the cell of a recurrent layer."""
    return bool(facts(layer).gates) or (hasattr(layer, "state_size") and not isinstance(layer, keras.layers.RNN))


def unchanged(layer: Any, method: str) -> bool:
    """Whether a layer has this method from the class in the table that it is a kind of, and none of its own.

    A method of the same name in a subclass may take and mean something else.
    """
    kinds = [kind for kind in type(layer).__mro__ if kind in TABLE]
    return bool(kinds) and getattr(type(layer), method) is getattr(kinds[-1], method)


def normalises(layer: Any) -> Normalises:
    """Over what a layer takes the scale that it divides by; "other" of a class that only its name says it of."""
    found = facts(layer).normalises
    if found is None:
        return "other" if type(layer).__name__.endswith(("Normalization", "Norm")) else ""
    return found


def makes_outputs(layer: Any) -> bool:
    """Whether the table that a layer looks up is also the kernel that makes the outputs of its model."""
    return facts(layer).lookup and bool(getattr(layer, "tie_weights", False))


def channels_first(layer: Any) -> bool:
    """Whether the axis of the units comes before those of the positions."""
    return getattr(layer, "data_format", None) == "channels_first"
