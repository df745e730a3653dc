"""What function an activation is, however it comes: as text, a function, a layer, or any callable.

A function is what it does: a callable that has the values of a function of the table in `functions` (`keras.ops.gelu`,
`tf.nn.relu`, a lambda around either) is that function, whoever wrote it. Another one is evaluated through the backend,
outside of any trace, and its kinks are found by bisection. Imports keras and numpy only.
"""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import keras
import numpy as np

from keras_initaudit.theory.functions import (
    NAMES,
    NOT_ELEMENTWISE,
    Array,
    Elementwise,
    memory_of,
    named,
    parsed,
    refusal,
)

from . import callables


def look(activation: Any) -> Elementwise | str:
    """The function behind `activation`, as `resolve`; of one that mixes the units, its name (softmax).

    Raises:
        ValueError: When it is unknown, or no function that one name or its values identify.
    """
    if activation is None:
        return named("linear", {})
    if isinstance(activation, str):
        return activation if activation in NOT_ELEMENTWISE else parsed(activation)
    if isinstance(activation, Mapping):
        return look(keras.activations.get(dict(activation)))
    if isinstance(activation, keras.layers.Layer):
        return _layer(activation)
    if not callable(activation):
        raise ValueError(
            "`activation` must be a name, a function of `keras.activations`, an activation layer or a callable. "
            f"Received: {activation!r} (of type {type(activation).__name__})."
        )
    function, parameters = activation, {}
    if isinstance(activation, functools.partial) and not activation.args:
        function, parameters = activation.func, dict(activation.keywords)
    name = getattr(function, "__name__", "")
    if getattr(keras.activations, name, None) is function:
        if name in NOT_ELEMENTWISE:
            return str(name)  # over whichever axis
        with contextlib.suppress(ValueError, TypeError):  # newer than the table, or with a parameter that it lacks
            return named(name, parameters)
    return _callable(activation, str(own_name(activation)))


def resolve(activation: Any) -> Elementwise:
    """The function behind `activation`.

    Args:
        activation: A name (`"relu"`, `"leaky_relu(0.1)"`, `"gelu(tanh)"`), a function of `keras.activations`, an
            activation layer, any layer with an `activation`, None (linear), or a callable on tensors.

    Raises:
        ValueError: When it is unknown, or not a function of one number.
    """
    found = look(activation)
    if isinstance(found, str):
        raise refusal(found)
    return found


def activation_name(activation: Any) -> str | None:
    """Canonical text of an activation: `relu`, `leaky_relu(0.2)`, `softmax`; None where there is none (linear).

    The text of a known activation can be given back wherever an activation is taken: `gain(activation_name(a))` is
    `gain(a)`. Parameters stand in it where they are not Keras's defaults, and always for leaky_relu and prelu, whose
    function and layer have different ones. A callable with the values of a known function has that one's name; any
    other has its own, with its module in front, as `layers.my_gelu`: the dot says that no `gain=` takes it. While a
    graph is traced no callable is evaluated, and each has its own name.

    Args:
        activation: As `resolve` takes it. A layer that applies no activation has the name None.

    Raises:
        ValueError: When a text is no activation that Keras knows.

    Example:
        >>> activation_name(keras.layers.ReLU(max_value=6)), activation_name(keras.ops.silu)
        ('relu6', 'silu')
        >>> activation_name(keras.layers.LeakyReLU(negative_slope=0.1))
        'leaky_relu(0.1)'
    """
    try:
        return text_of(look(activation))
    except ValueError:
        if isinstance(activation, str) or not callable(activation):
            raise
        return own_name(activation)


def text_of(found: Elementwise | str) -> str | None:
    """The name of what `look` found; None for linear."""
    name = found if isinstance(found, str) else found.name
    return None if name == "linear" else name


def own_name(activation: Any) -> str | None:
    """What an activation is called where it is no known one: `module.name`; None for what is not callable.

    Of a layer it is the name of its `activation`: another layer applies none.
    """
    if isinstance(activation, keras.layers.Layer):
        inner = getattr(activation, "activation", None)
        return own_name(inner) if inner is not activation else None
    if isinstance(activation, str) or not callable(activation):
        return None
    while isinstance(activation, functools.partial):
        activation = activation.func
    return _dotted(activation if hasattr(activation, "__name__") else type(activation))


def _dotted(named: Any) -> str:
    module = str(getattr(named, "__module__", None) or "builtins")
    return f"{module.rpartition('.')[2]}.{named.__name__}"


def _layer(layer: Any) -> Elementwise | str:
    kinds = keras.layers
    if isinstance(layer, kinds.Softmax):
        return "softmax"
    if isinstance(layer, kinds.LeakyReLU):
        return named("leaky_relu", {"negative_slope": layer.negative_slope})
    if isinstance(layer, kinds.ELU):
        return named("elu", {"alpha": layer.alpha})
    if isinstance(layer, kinds.ReLU):
        return named("relu", {name: getattr(layer, name) for name in ("negative_slope", "max_value", "threshold")})
    if isinstance(layer, kinds.PReLU):
        if callables.tracing():
            raise ValueError(f"The slopes of layer {layer.name!r} have no value while a graph is traced.")
        # E[phi^2] is linear in alpha^2, so that one slope, the rms over the units, stands for all of them exactly.
        alpha = layer.alpha if layer.built else layer.alpha_initializer((64,), dtype="float32")
        return named("prelu", {"alpha": math.sqrt(float(np.mean(keras.ops.convert_to_numpy(alpha) ** 2)))})
    inner = getattr(layer, "activation", None)
    if callable(inner):
        return look(inner)
    own = type(layer).__module__.partition(".")[0] != "keras"
    # An object with weights, random numbers or layers is more than an activation.
    holds = any(isinstance(held, kinds.Layer) for held in keras.tree.flatten(list(vars(layer).values())))
    if not own or layer.variables or holds:
        raise ValueError(
            f"Layer {layer.name!r} ({type(layer).__name__}) is no elementwise activation. Give an activation layer, a "
            "layer with an `activation`, or the function itself."
        )

    def call(x: Any) -> Any:
        # A copy is called, in the dtype of the numbers, so that this layer is not built.
        return type(layer).from_config({**layer.get_config(), "dtype": keras.backend.standardize_dtype(x.dtype)})(x)

    return _callable(call, _dotted(type(layer)))


def _callable(function: Callable[..., Any], name: str) -> Elementwise | str:
    for dtype in callables.precisions():
        try:
            return _evaluated(function, name, dtype)
        except ValueError as error:
            failed = error
    raise ValueError(f"`activation` {name!r} {failed}.") from failed


def _evaluated(function: Callable[..., Any], name: str, dtype: str) -> Elementwise | str:
    values, fixed, repeated = callables.company(function, dtype)
    if not fixed:
        mixing = _mixing(function, dtype) if repeated else None
        if mixing is not None:
            return mixing
        if values.size != callables.GRID.size:
            raise ValueError(f"is not elementwise: of {callables.GRID.size} numbers it makes {values.size}")
        raise ValueError(
            "is not a fixed function of one number: the same input gave another output in other company (it mixes the "
            "units, as softmax does, or is random)"
        )
    memory = memory_of(dtype, values.tobytes())
    if "known" not in memory:
        memory["known"] = _recognised(values)
    if memory["known"] is not None:
        return named(*memory["known"])
    phi = callables.elementwise(function, dtype)
    if "kinks" not in memory:
        try:
            memory["kinks"] = callables.kinks(phi, dtype)
        except ValueError as error:
            memory["kinks"] = str(error)
    if isinstance(memory["kinks"], str):
        raise ValueError(memory["kinks"])
    return Elementwise(name, phi, memory["kinks"], False, callables.narrow(dtype), memory)


_PRECISION = 1e-5  # of float32, in which backends hold constants such as a slope even where they compute in float64


def _recognised(values: Array) -> tuple[str, dict[str, float]] | None:
    """The known function that has these values at GRID, as a name and its parameters."""
    size = min(1.0, float(np.max(np.abs(values))))
    for name, parameters in _candidates(values):
        with np.errstate(all="ignore"):
            expected = named(name, parameters).phi(callables.GRID)
        if size > 0 and np.allclose(expected, values, rtol=_PRECISION, atol=_PRECISION * size):
            return name, parameters
    return None


def _candidates(values: Array) -> Iterator[tuple[str, dict[str, float]]]:
    """Every definition as Keras ships it, and the one of each family whose parameter can be read off the values."""
    yield from ((name, {}) for name in NAMES)
    yield "gelu", {"approximate": 1.0}
    grid, values = callables.GRID.ravel(), values.ravel()
    lowest, highest, middle = np.argmin(grid), np.argmax(grid), np.argmin(np.abs(grid))
    read = {
        ("leaky_relu", "negative_slope"): values[lowest] / grid[lowest],
        ("elu", "alpha"): -values[lowest],
        ("celu", "alpha"): -values[lowest],
        ("relu", "max_value"): values[highest],
        ("soft_shrink", "threshold"): grid[highest] - values[highest],
        ("squareplus", "b"): (2.0 * values[middle] - grid[middle]) ** 2 - grid[middle] ** 2,
    }
    for (name, parameter), value in read.items():
        rounded = float(f"{value:.6g}")  # a slope of 0.1 is 0.100000001 where it was held in float32
        if math.isfinite(rounded) and (rounded > 0 or name == "leaky_relu"):
            yield name, {parameter: rounded}


_SHAPES = (2, 64), (2, 4, 16)
"""Of the tensors that show over which axis a function mixes: on two axes, the last one is also the one after the
samples."""


def _mixing(function: Callable[..., Any], dtype: str) -> str | None:
    """The function of NOT_ELEMENTWISE that a callable is, over the last axis of whatever it gets."""
    found = []
    for shape in _SHAPES:
        with contextlib.suppress(ValueError):  # it may take two axes only
            found.append((shape, callables.values(function, callables.GRID[1].reshape(shape), dtype)))
    for name in NOT_ELEMENTWISE:
        expected = [(value, _mixed(name, shape, dtype)) for shape, value in found]
        if found and all(
            a.shape == b.shape and np.allclose(a, b, rtol=_PRECISION, atol=_PRECISION) for a, b in expected
        ):
            return name
    return None


@functools.lru_cache(maxsize=32)
def _mixed(name: str, shape: tuple[int, ...], dtype: str) -> Array:
    return callables.values(getattr(keras.activations, name), callables.GRID[1].reshape(shape), dtype)
