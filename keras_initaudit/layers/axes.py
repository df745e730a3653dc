"""Which axes of a kernel are inputs and which are outputs, of layers whose kernels are not (..., inputs, outputs).

Each rule gives the two as an initializer takes them, `input_axes` and `output_axes`: the product of the sizes is the
fan, strides left out. Standard library only.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Axes = tuple[list[int], list[int]]
Rule = Callable[[Any, int], Axes]
"""(layer, rank of the kernel) -> (input axes, output axes)."""


def letters(layer: Any) -> tuple[str, str, str]:
    """The letters of input, kernel and output of an `EinsumDense`, the ellipsis left out."""
    left, output = layer.equation.replace("...", "").replace(" ", "").split("->")
    inputs, kernel = left.split(",")
    return inputs, kernel, output


def einsum(layer: Any, _: int) -> Axes:
    """Of `EinsumDense`: inputs are the axes that the output lacks, outputs those that the input lacks."""
    inputs, kernel, output = letters(layer)
    summed = [axis for axis, letter in enumerate(kernel) if letter not in output]
    return summed, [axis for axis, letter in enumerate(kernel) if letter not in inputs]


def transposed(_: Any, rank: int) -> Axes:
    """Of (..., filters, channels)."""
    field = list(range(rank - 2))
    return [*field, rank - 1], [*field, rank - 2]


def depthwise(_: Any, rank: int) -> Axes:
    """Of (..., channels, multiplier): each output sees one channel."""
    field = list(range(rank - 2))
    return field, [*field, rank - 1]
