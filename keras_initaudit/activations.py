"""What function an activation is: every elementwise function of Keras in float64, under one canonical name.

An activation comes as text, a function, a layer or any callable. Here it becomes an `Elementwise`: a NumPy function,
the points where it is not smooth, and a name such as `relu` or `leaky_relu(0.2)`. NumPy and not the backend, because
the gains are wanted to 1e-9 and JAX computes in float32; a callable that Keras does not know is evaluated through
the backend, and its kinks are found by bisection. Imports keras and numpy only.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from numpy.polynomial import chebyshev
from numpy.typing import NDArray

Array = NDArray[np.float64]
Function = Callable[[Array], Array]

NOT_ELEMENTWISE = ("softmax", "log_softmax", "sparsemax", "glu")
"""Each output depends on several inputs: no gain can be said of one unit."""

_ALIASES = {"swish": "silu", "hard_swish": "hard_silu", "none": "linear", "identity": "linear"}

_REACH = 16.0  # kinks of an unknown callable are looked for in [-16, 16]: nothing beyond weighs 1e-50 of N(0, 1)


@dataclass(frozen=True)
class Elementwise:
    """A function of one number."""

    name: str
    """Canonical, as `leaky_relu(0.2)`; of an unknown callable, its `__name__`."""
    phi: Function
    kinks: tuple[float, ...]
    """Where phi or one of its derivatives jumps, ascending; 0 may be missing."""
    known: bool = True
    """Whether the name alone says what the function is."""


@dataclass(frozen=True)
class _Definition:
    phi: Callable[..., Any]
    parameters: Mapping[str, float | None]
    """Names and Keras's defaults, in the order of Keras's arguments."""
    kinks: Callable[..., tuple[float, ...]] = lambda **_: ()


def _relu(x: Array, negative_slope: float, max_value: float | None, threshold: float) -> Array:
    above = np.where(x > threshold, x, 0.0)
    if max_value is not None:
        above = np.clip(above, 0.0, max_value)
    # Keras's own formula: below the threshold it is the distance to the threshold that is damped.
    return above - negative_slope * np.maximum(threshold - x, 0.0)


def _sigmoid(x: Array) -> Array:
    return 0.5 * (1.0 + np.tanh(0.5 * x))  # does not overflow


def _elu(x: Array, alpha: float, width: float = 1.0) -> Array:
    return np.where(x > 0, x, alpha * np.expm1(np.minimum(x, 0.0) / width))


_erf = np.vectorize(math.erf, otypes=[float])
_SELU_ALPHA, _SELU_SCALE = 1.6732632423543772, 1.0507009873554805  # Klambauer et al. 2017, equation 14


def _gelu_tanh(x: Array) -> Array:
    return 0.5 * x * (1.0 + np.tanh(math.sqrt(2.0 / math.pi) * (x + 0.044715 * x**3)))


def _either(value: float) -> tuple[float, ...]:
    return (-abs(value), abs(value))


_DEFINITIONS: dict[str, _Definition] = {
    "linear": _Definition(lambda x: x, {}),
    "relu": _Definition(
        _relu,
        {"negative_slope": 0.0, "max_value": None, "threshold": 0.0},
        lambda max_value, threshold, **_: tuple(
            sorted({0.0, threshold} | (set() if max_value is None else {max_value}))
        ),
    ),
    "relu6": _Definition(lambda x: np.clip(x, 0.0, 6.0), {}, lambda: (0.0, 6.0)),
    "leaky_relu": _Definition(
        lambda x, negative_slope: np.where(x > 0, x, negative_slope * x), {"negative_slope": 0.2}, lambda **_: (0.0,)
    ),
    "prelu": _Definition(lambda x, alpha: np.where(x > 0, x, alpha * x), {"alpha": 0.0}, lambda **_: (0.0,)),
    "elu": _Definition(_elu, {"alpha": 1.0}, lambda **_: (0.0,)),
    "celu": _Definition(lambda x, alpha: _elu(x, alpha, alpha), {"alpha": 1.0}, lambda **_: (0.0,)),
    "selu": _Definition(lambda x: _SELU_SCALE * _elu(x, _SELU_ALPHA), {}, lambda: (0.0,)),
    "gelu": _Definition(
        lambda x, approximate: _gelu_tanh(x) if approximate else 0.5 * x * (1.0 + _erf(x / math.sqrt(2.0))),
        {"approximate": 0.0},
    ),
    "silu": _Definition(lambda x: x * _sigmoid(x), {}),
    "hard_silu": _Definition(lambda x: x * np.clip(x / 6.0 + 0.5, 0.0, 1.0), {}, lambda: (-3.0, 3.0)),
    "mish": _Definition(lambda x: x * np.tanh(np.logaddexp(0.0, x)), {}),
    "softplus": _Definition(lambda x: np.logaddexp(0.0, x), {}),
    "squareplus": _Definition(lambda x, b: 0.5 * (x + np.sqrt(x * x + b)), {"b": 4.0}),
    "sparse_plus": _Definition(
        lambda x: np.where(x >= 1, x, 0.25 * np.maximum(x + 1.0, 0.0) ** 2), {}, lambda: (-1.0, 1.0)
    ),
    "softsign": _Definition(lambda x: x / (1.0 + np.abs(x)), {}, lambda: (0.0,)),
    "tanh": _Definition(np.tanh, {}),
    "hard_tanh": _Definition(lambda x: np.clip(x, -1.0, 1.0), {}, lambda: (-1.0, 1.0)),
    "tanh_shrink": _Definition(lambda x: x - np.tanh(x), {}),
    "soft_shrink": _Definition(
        lambda x, threshold: np.sign(x) * np.maximum(np.abs(x) - threshold, 0.0),
        {"threshold": 0.5},
        lambda threshold: _either(threshold),
    ),
    "hard_shrink": _Definition(
        lambda x, threshold: np.where(np.abs(x) > threshold, x, 0.0),
        {"threshold": 0.5},
        lambda threshold: _either(threshold),
    ),
    "threshold": _Definition(
        lambda x, threshold, default_value: np.where(x > threshold, x, default_value),
        {"threshold": 0.0, "default_value": 0.0},
        lambda threshold, **_: (threshold,),
    ),
    "sigmoid": _Definition(_sigmoid, {}),
    "hard_sigmoid": _Definition(lambda x: np.clip(x / 6.0 + 0.5, 0.0, 1.0), {}, lambda: (-3.0, 3.0)),
    "sparse_sigmoid": _Definition(lambda x: np.clip(0.5 * (x + 1.0), 0.0, 1.0), {}, lambda: (-1.0, 1.0)),
    "log_sigmoid": _Definition(lambda x: -np.logaddexp(0.0, -x), {}),
    "exponential": _Definition(np.exp, {}),
}

NAMES: tuple[str, ...] = tuple(_DEFINITIONS)
"""Every elementwise activation that is known by name."""

_ALWAYS_SHOWN = ("leaky_relu", "prelu")  # Keras's function and layer have different defaults (0.2 and 0.3)


def resolve(activation: Any) -> Elementwise:
    """The function behind `activation`.

    Args:
        activation: A name (`"relu"`, `"leaky_relu(0.1)"`, `"gelu(tanh)"`), a function of `keras.activations`, an
            activation layer, any layer with an `activation`, None (linear), or a callable on tensors.

    Raises:
        ValueError: When it is unknown, or not a function of one number.
    """
    if activation is None:
        return _named("linear", {})
    if isinstance(activation, str):
        return _parsed(activation)
    if isinstance(activation, Mapping):
        return resolve(keras.activations.get(dict(activation)))
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
        return _named(name, parameters)
    return _callable(activation)


def activation_name(activation: Any) -> str | None:
    """Canonical text of an activation: `relu`, `leaky_relu(0.2)`, `softmax`; None where there is none (linear).

    The text of a known activation can be given back wherever an activation is taken: `gain(activation_name(a))` is
    `gain(a)`. Parameters stand in it where they are not Keras's defaults, and always for leaky_relu and prelu, whose
    function and layer have different ones.

    Args:
        activation: As `resolve` takes it. A layer that applies no activation has the name None.

    Raises:
        ValueError: When a text is no activation that Keras knows.

    Example:
        >>> activation_name(keras.layers.ReLU(max_value=6))
        'relu6'
        >>> activation_name(keras.layers.LeakyReLU(negative_slope=0.1))
        'leaky_relu(0.1)'
    """
    whole = _not_elementwise(activation)
    if whole is not None:
        return whole
    if isinstance(activation, keras.layers.Layer) and not _is_activation_layer(activation):
        inner = getattr(activation, "activation", None)
        return None if inner is None or not callable(inner) else activation_name(inner)
    if isinstance(activation, keras.layers.Activation):
        return activation_name(activation.activation)
    if callable(activation) and not isinstance(activation, str | keras.layers.Layer | functools.partial):
        name = getattr(activation, "__name__", type(activation).__name__)
        if getattr(keras.activations, name, None) is not activation:
            return str(name)  # a callable of the user's own: there is no need to evaluate it for its name
    name = resolve(activation).name
    return None if name == "linear" else name


def _not_elementwise(activation: Any) -> str | None:
    if isinstance(activation, keras.layers.Softmax):
        return "softmax"
    if isinstance(activation, keras.layers.Activation):
        return _not_elementwise(activation.activation)
    if isinstance(activation, functools.partial):
        return _not_elementwise(activation.func)
    name = activation if isinstance(activation, str) else getattr(activation, "__name__", None)
    if name not in NOT_ELEMENTWISE:
        return None
    if isinstance(activation, str) or getattr(keras.activations, name, None) is activation:
        return str(name)
    return None


def _refuse(name: str) -> ValueError:
    return ValueError(
        f"`activation` {name!r} is not a function of one number: each output depends on several inputs, so that it has "
        'no gain. Give the gain as a number where one is wanted (`gain=1.0`), or "linear" for the logits that enter it.'
    )


def _named(name: str, given: Mapping[str, Any]) -> Elementwise:
    if name in NOT_ELEMENTWISE:
        raise _refuse(name)
    name = _ALIASES.get(name, name)
    definition = _DEFINITIONS.get(name)
    if definition is None:
        raise ValueError(
            f"Unknown activation {name!r}. Known are {', '.join(sorted(_DEFINITIONS))}; and, each "
            f"output of which depends on several inputs, {', '.join(NOT_ELEMENTWISE)}."
        )
    unknown = sorted(set(given) - set(definition.parameters))
    if unknown:
        raise ValueError(f"Activation {name!r} has no parameter {unknown[0]!r}; it has {[*definition.parameters]}.")
    parameters = {
        key: default if given.get(key, default) is None else float(given.get(key, default))
        for key, default in definition.parameters.items()
    }
    if name == "relu":  # the special cases have names of their own
        slope, top, start = parameters["negative_slope"], parameters["max_value"], parameters["threshold"]
        if slope and top is None and not start:
            return _named("leaky_relu", {"negative_slope": slope})
        if top == 6 and not slope and not start:
            return _named("relu6", {})
    return Elementwise(
        name=_text(name, parameters, definition),
        phi=functools.partial(definition.phi, **parameters),
        kinks=definition.kinks(**parameters),
    )


def _text(name: str, parameters: Mapping[str, float | None], definition: _Definition) -> str:
    if name == "gelu":
        return "gelu(tanh)" if parameters["approximate"] else "gelu"
    if name in _ALWAYS_SHOWN:
        return f"{name}({', '.join(f'{value:.12g}' for value in parameters.values())})"
    changed = {key: value for key, value in parameters.items() if value != definition.parameters[key]}
    if not changed:
        return name
    if len(parameters) == 1:
        return f"{name}({next(iter(changed.values())):.12g})"
    return f"{name}({', '.join(f'{key}={value:.12g}' for key, value in changed.items())})"


_WORDS = {"tanh": 1.0, "exact": 0.0, "True": 1.0, "False": 0.0}  # gelu(tanh), gelu(approximate=True)


def _parsed(text: str) -> Elementwise:
    match = re.fullmatch(r"\s*([A-Za-z_]\w*)\s*(?:\((.*)\))?\s*", text)
    if match is None:
        raise ValueError(f"`activation` must be a name, or a name with parameters as 'elu(1.5)'. Received: {text!r}.")
    name = _ALIASES.get(match[1], match[1])
    if name in NOT_ELEMENTWISE:
        raise _refuse(name)
    names = [*_DEFINITIONS[name].parameters] if name in _DEFINITIONS else []
    given: dict[str, Any] = {}
    for index, part in enumerate((match[2] or "").split(",") if (match[2] or "").strip() else ()):
        key, _, value = part.rpartition("=")
        key = key.strip() or (names[index] if index < len(names) else f"number {index + 1}")
        value = value.strip()
        try:
            given[key] = None if value == "None" else _WORDS[value] if value in _WORDS else float(value)
        except ValueError:
            raise ValueError(f"Parameter {key!r} of `activation` must be a number. Received: {text!r}.") from None
    return _named(name, given)


def _is_activation_layer(layer: Any) -> bool:
    kinds = keras.layers
    return isinstance(layer, kinds.Activation | kinds.ReLU | kinds.LeakyReLU | kinds.PReLU | kinds.ELU | kinds.Softmax)


def _layer(layer: Any) -> Elementwise:
    kinds = keras.layers
    if isinstance(layer, kinds.Softmax):
        raise _refuse("softmax")
    if isinstance(layer, kinds.LeakyReLU):
        return _named("leaky_relu", {"negative_slope": layer.negative_slope})
    if isinstance(layer, kinds.ELU):
        return _named("elu", {"alpha": layer.alpha})
    if isinstance(layer, kinds.ReLU):
        return _named("relu", {name: getattr(layer, name) for name in ("negative_slope", "max_value", "threshold")})
    if isinstance(layer, kinds.PReLU):
        # E[phi^2] is linear in alpha^2, so that one slope, the rms over the units, stands for all of them exactly.
        alpha = layer.alpha if layer.built else layer.alpha_initializer((64,), dtype="float32")
        return _named("prelu", {"alpha": math.sqrt(float(np.mean(keras.ops.convert_to_numpy(alpha) ** 2)))})
    inner = getattr(layer, "activation", None)
    if callable(inner):
        return resolve(inner)
    if layer.weights or type(layer).__module__.partition(".")[0] == "keras":
        raise ValueError(
            f"Layer {layer.name!r} ({type(layer).__name__}) is no elementwise activation. Give an activation layer, a "
            "layer with an `activation`, or the function itself."
        )
    # An activation layer of the user's own. A copy is called, in float64, so that this one is not built.
    copy = type(layer).from_config({**layer.get_config(), "dtype": _float()})
    found = _callable(copy)
    return Elementwise(type(layer).__name__, found.phi, found.kinks, known=False)


def _float() -> str:
    # JAX cuts float64 to float32 with a warning, unless it is told otherwise for the whole process.
    return "float32" if keras.backend.backend() == "jax" else "float64"


def _callable(function: Callable[[Any], Any]) -> Elementwise:
    name = str(getattr(function, "__name__", type(function).__name__))

    def phi(x: Array) -> Array:
        flat = np.ravel(x)[None, :]  # a batch of one sample: a softmax over the last axis shows as a mix of units
        try:
            value = function(keras.ops.convert_to_tensor(flat, dtype=_float()))
            result = np.asarray(keras.ops.convert_to_numpy(value), dtype=np.float64)
        except Exception as error:
            raise ValueError(f"`activation` {name!r} could not be evaluated on a tensor: {error}") from error
        if result.shape != flat.shape:
            raise ValueError(
                f"`activation` {name!r} is not elementwise: it makes shape {result.shape} of shape {flat.shape}."
            )
        return result.reshape(np.shape(x))

    grid = np.linspace(-4.0, 4.0, 41)
    tolerance = 1e-9 if _float() == "float64" else 1e-5
    whole, apart = phi(grid), np.concatenate([phi(grid[30:]), phi(grid[:30])])[[*range(11, 41), *range(11)]]
    if not np.allclose(whole, apart, rtol=tolerance, atol=tolerance):
        raise ValueError(
            f"`activation` {name!r} is not a fixed function of one number: the same input gave another output in "
            "other company (it mixes the units, as softmax does, or is random)."
        )
    return Elementwise(name, phi, _kinks(phi, name), known=False)


def _kinks(phi: Function, name: str) -> tuple[float, ...]:
    """The edges of a mesh on which `phi` is smooth, by bisection towards whatever is not smooth.

    A Chebyshev series of degree 12 converges on an interval unless a kink is in it. Every interval where it does not is
    halved, down to `NARROW`: there the kink is known as exactly as the arithmetic can tell it.
    """
    tolerance = 1e-11 if _float() == "float64" else 3e-6
    nodes = chebyshev.chebpts1(13)
    transform = np.linalg.inv(chebyshev.chebvander(nodes, 12))
    # No edge is a round number: a kink on an edge would be in no interval.
    edges = np.linspace(-_REACH - 1.0 / math.pi, _REACH + 1.0 / math.e, 65)
    low, high = edges[:-1], edges[1:]
    found: list[Array] = []
    while low.size and high[0] - low[0] > narrow():
        middle = 0.5 * (low + high)
        values = phi(middle[:, None] + 0.5 * (high - low)[:, None] * nodes)
        if not np.all(np.isfinite(values)):
            raise ValueError(f"`activation` {name!r} is not finite between {low[0]:.3g} and {high[-1]:.3g}.")
        tail = np.abs(values @ transform.T)[:, -3:].max(axis=1)
        rough = tail > tolerance * np.maximum(1.0, np.abs(values).max(axis=1))
        low, middle, high = low[rough], middle[rough], high[rough]
        found += [low, middle, high]
        low, high = np.concatenate([low, middle]), np.concatenate([middle, high])
        if low.size > 4096:
            raise ValueError(f"`activation` {name!r} is not piecewise smooth: no quadrature is exact for it.")
    return tuple(float(edge) for edge in np.unique(np.concatenate(found))) if found else ()


def narrow() -> float:
    """Width under which an interval around a kink of an unknown callable is not halved again."""
    return 1e-12 if _float() == "float64" else 1e-4
