"""What a callable does, seen from its values: whether it is a function of one number, and where it is not smooth.

A callable is called eagerly, on numbers, in float64, or in float32 where it takes nothing else (a constant inside of
it), never while a backend traces: there a call would leave its operations, its variables and its random numbers in the
person's own graph. What it draws from random states stays drawn: to put those back is for who knows what else draws
from them at the time. Imports keras and numpy only.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from numpy.polynomial import chebyshev

from keras_initaudit.theory.functions import REACH, Array, Function


def _grid() -> Array:
    # Out to 64, as far as flat ends are looked for, and dense where activations bend; exact in float32; no round
    # number among them, where a function may jump; out of order, so that each has another neighbour.
    spread = 2.0 * (np.arange(128) * 0.6180339887 % 1.0) - 1.0
    wide = np.round(64.0 * spread**3 * 1024.0) / 1024.0 + 1.0 / 4096.0
    return np.stack([wide, wide / 16.0])


GRID = _grid()
"""Numbers at which two functions are compared: two rows of 128, up to 64 and up to 4."""


def precisions() -> tuple[str, ...]:
    """The dtypes that a callable is evaluated in, the first that it takes."""
    # JAX cuts float64 to float32 with a warning, unless it is configured otherwise for the whole process.
    return ("float32",) if keras.backend.backend() == "jax" else ("float64", "float32")


def narrow(dtype: str) -> float:
    """Width under which an interval around a kink is not halved again."""
    return 1e-12 if dtype == "float64" else 1e-4


def tracing() -> bool:
    """Whether TensorFlow traces a graph right now, so that nothing has a value."""
    # Whoever traces has imported it; this module need not.
    return "tensorflow" in sys.modules and not sys.modules["tensorflow"].executing_eagerly()


def values(function: Callable[..., Any], x: Array, dtype: str) -> Array:
    """The output of the callable for a tensor.

    Raises:
        ValueError: When it cannot be evaluated, whatever it raised.
    """
    if tracing():
        raise ValueError("cannot be evaluated while a graph is traced")
    # A tf.function would be traced again for every shape; behind it stands the function itself.
    function = getattr(function, "python_function", function)
    try:
        with np.errstate(all="ignore"):
            result = keras.ops.convert_to_numpy(function(keras.ops.convert_to_tensor(x, dtype=dtype)))
            return np.asarray(result, dtype=np.float64)
    except Exception as error:  # the person's own code runs here
        raise ValueError(f"could not be evaluated on a tensor: {error}") from error


def elementwise(function: Callable[..., Any], dtype: str) -> Function:
    """The callable as a function on arrays of any shape, as if it were one of each number alone."""

    def phi(x: Array) -> Array:
        flat = np.ravel(x)
        # One sample, filled up with zeros to one of few sizes: a backend that compiles does so for each new shape.
        padded = np.zeros((1, max(1024, 1 << (flat.size - 1).bit_length())))
        padded[0, : flat.size] = flat
        result = values(function, padded, dtype)
        if result.shape != padded.shape:
            raise ValueError(f"is not elementwise: it makes shape {result.shape} of shape {padded.shape}")
        return result[0, : flat.size].reshape(np.shape(x))

    return phi


def company(function: Callable[..., Any], dtype: str) -> tuple[Array, bool, bool]:
    """The values at GRID, whether the same numbers in other company give them too, and whether a second call does.

    A softmax gives other values in other company, a dropout at every call.
    """
    first = values(function, GRID, dtype)
    if first.shape == GRID.shape:
        halves = [(first[k : k + 1, k::2], values(function, GRID[k : k + 1, k::2], dtype)) for k in (0, 1)]
        if all(_same(together, alone, dtype) for together, alone in halves):
            return first, True, True
    return first, False, _same(first, values(function, GRID, dtype), dtype)


def _same(a: Array, b: Array, dtype: str) -> bool:
    tolerance = 1e-9 if dtype == "float64" else 1e-5
    return a.shape == b.shape and np.allclose(a, b, rtol=tolerance, atol=tolerance, equal_nan=True)


def kinks(phi: Function, dtype: str) -> tuple[float, ...]:
    """The edges of a mesh on which `phi` is smooth, by bisection towards whatever is not smooth.

    A Chebyshev series of degree 12 converges on an interval unless a kink is in it. Every interval where it does not is
    halved, down to `narrow`: there the kink is known to the precision of the arithmetic.

    Raises:
        ValueError: When `phi` is not finite somewhere, or not piecewise smooth.
    """
    tolerance = 1e-11 if dtype == "float64" else 3e-6
    nodes = chebyshev.chebpts1(13)
    transform = np.linalg.inv(chebyshev.chebvander(nodes, 12))
    # No edge is a round number: a kink on an edge would be in no interval.
    edges = np.linspace(-REACH - 1.0 / math.pi, REACH + 1.0 / math.e, 65)
    low, high = edges[:-1], edges[1:]
    found: list[Array] = []
    while low.size and high[0] - low[0] > narrow(dtype):
        middle = 0.5 * (low + high)
        values = phi(middle[:, None] + 0.5 * (high - low)[:, None] * nodes)
        if not np.all(np.isfinite(values)):
            raise ValueError(f"is not finite between {low[0]:.3g} and {high[-1]:.3g}")
        tail = np.abs(values @ transform.T)[:, -3:].max(axis=1)
        rough = tail > tolerance * np.maximum(1.0, np.abs(values).max(axis=1))
        low, middle, high = low[rough], middle[rough], high[rough]
        found += [low, middle, high]
        low, high = np.concatenate([low, middle]), np.concatenate([middle, high])
        if low.size > 4096:
            raise ValueError("is not piecewise smooth: no quadrature is exact for it")
    return tuple(float(edge) for edge in np.unique(np.concatenate(found))) if found else ()
