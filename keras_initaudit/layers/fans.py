"""How many inputs one output sums and how many outputs one input feeds: a rule for each kind of kernel.

A rule is a function of the layer and the shape of its kernel. fan_in is what an interior output is with a kernel of
ones on inputs of ones; fan_out is the gradient of the sum of all outputs at an interior input, as the mean over inputs
where a stride makes it differ from one to the next. Standard library only.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from .axes import letters

Fans = tuple[float, float]
Rule = Callable[[Any, tuple[int, ...]], Fans]
"""(layer, shape of the weight) -> (fan_in, fan_out)."""


def dense(_: Any, shape: tuple[int, ...]) -> Fans:
    """Of (inputs, outputs)."""
    return shape[0], shape[1]


def einsum(layer: Any, shape: tuple[int, ...]) -> Fans:
    """Of `EinsumDense`: kernel axes that the output lacks are summed; those that the input lacks are made."""
    inputs, kernel, output = letters(layer)
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


def _strides(layer: Any, rank: int) -> int:
    strides = layer.strides
    return int(strides**rank) if isinstance(strides, int) else math.prod(strides)


def convolution(layer: Any, shape: tuple[int, ...]) -> Fans:
    """Of (..., channels of one group, filters): an input feeds the filters of its own group alone."""
    field = math.prod(shape[:-2])
    return field * shape[-2], field * shape[-1] / layer.groups / _strides(layer, len(shape) - 2)


def transposed(layer: Any, shape: tuple[int, ...]) -> Fans:
    """Of (..., filters, channels): a stride spreads the inputs, so that an output sees one in prod(strides) of them."""
    field = math.prod(shape[:-2])
    return field * shape[-1] / _strides(layer, len(shape) - 2), field * shape[-2]


def depthwise(layer: Any, shape: tuple[int, ...]) -> Fans:
    """Of (..., channels, multiplier): each output sees one channel."""
    field = math.prod(shape[:-2])
    return field, field * shape[-1] / _strides(layer, len(shape) - 2)


def pointwise(_: Any, shape: tuple[int, ...]) -> Fans:
    """Of (1, ..., channels, filters)."""
    return shape[-2], shape[-1]


def gates(count: int) -> Rule:
    """Of (inputs, gates x units), one gate at a time."""
    return lambda _, shape: (shape[0], shape[1] / count)


def convolved_gates(layer: Any, shape: tuple[int, ...]) -> Fans:
    """Of (..., channels, 4 x filters), one gate at a time."""
    field = math.prod(shape[:-2])
    return field * shape[-2], field * shape[-1] / 4 / _strides(layer, len(shape) - 2)


def convolved_state(_: Any, shape: tuple[int, ...]) -> Fans:
    """Of (..., filters, 4 x filters): the state is convolved with stride 1, whatever the stride of the input."""
    field = math.prod(shape[:-2])
    return field * shape[-2], field * shape[-1] / 4


def lookup(_: Any, shape: tuple[int, ...]) -> Fans:
    """Of (ids, width): one row is picked, none are summed."""
    return 1, shape[1]
