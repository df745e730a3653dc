"""Every elementwise function of Keras in float64, under one canonical name such as `relu` or `leaky_relu(0.2)`.

NumPy and not the backend, because the gains are wanted to 1e-9 and JAX computes in float32. Imports numpy only.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Concatenate, ParamSpec, TypeVar

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Function = Callable[[Array], Array]

NOT_ELEMENTWISE = ("softmax", "log_softmax", "sparsemax", "glu")
"""Each output depends on several inputs: no gain can be said of one unit."""

_ALIASES = {"swish": "silu", "hard_swish": "hard_silu", "none": "linear", "identity": "linear"}


REACH = 16.0
"""Kinks of an unknown callable are looked for in [-16, 16]: nothing beyond weighs 1e-50 of N(0, 1)."""


@dataclass(frozen=True)
class Elementwise:
    """A function of one number."""

    name: str
    """Canonical, as `leaky_relu(0.2)`; of an unknown callable, with its module, as `layers.my_gelu`."""
    phi: Function
    kinks: tuple[float, ...]
    """Where phi or one of its derivatives jumps, ascending; 0 may be missing."""
    known: bool = True
    """Whether the name alone says what the function is."""
    narrow: float = 0.0
    """Of an unknown callable, the width of the intervals in which the kinks lie; else they are exact."""
    memory: dict[Any, Any] = field(default_factory=dict, compare=False, repr=False)
    """What `remembered` has computed, shared by all that are the same function."""


P = ParamSpec("P")
T = TypeVar("T")


def remembered(compute: Callable[Concatenate[Elementwise, P], T]) -> Callable[Concatenate[Elementwise, P], T]:
    """Computes a figure of a function once, for as many layers as have it.

    It must be numbers, nothing that holds phi: a person's function may hold a whole model.
    """

    @functools.wraps(compute)
    def looked_up(function: Elementwise, /, *args: P.args, **kwargs: P.kwargs) -> T:
        key = (compute.__name__, args, tuple(kwargs.items()))
        if key not in function.memory:
            function.memory[key] = compute(function, *args, **kwargs)
        found: T = function.memory[key]
        return found

    return looked_up


@functools.lru_cache(maxsize=1024)
def memory_of(_kind: str, _values: bytes = b"") -> dict[Any, Any]:
    """One dictionary for each function: keyed by its name, or by its dtype and values where it has none."""
    return {}


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


def refusal(name: str) -> ValueError:
    """The error for a function that mixes the units."""
    return ValueError(
        f"`activation` {name!r} is not a function of one number: each output depends on several inputs, so that it has "
        'no gain. Give the gain as a number where one is wanted (`gain=1.0`), or "linear" for the logits that enter it.'
    )


def named(name: str, given: Mapping[str, Any]) -> Elementwise:
    """The function of that name, with Keras's defaults for the parameters that are not given."""
    if name in NOT_ELEMENTWISE:
        raise refusal(name)
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
    if name == "relu":  # the special cases have other names
        slope, top, start = parameters["negative_slope"], parameters["max_value"], parameters["threshold"]
        if slope and top is None and not start:
            return named("leaky_relu", {"negative_slope": slope})
        if top == 6 and not slope and not start:
            return named("relu6", {})
    text = _text(name, parameters, definition)
    phi = functools.partial(definition.phi, **parameters)
    return Elementwise(text, phi, definition.kinks(**parameters), memory=memory_of(text))


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


def parsed(text: str) -> Elementwise:
    """The function that a text means: a name, or one with parameters as `elu(1.5)` and `gelu(tanh)`."""
    match = re.fullmatch(r"\s*([A-Za-z_]\w*)\s*(?:\((.*)\))?\s*", text)
    if match is None:
        raise ValueError(f"`activation` must be a name, or a name with parameters as 'elu(1.5)'. Received: {text!r}.")
    name = _ALIASES.get(match[1], match[1])
    if name in NOT_ELEMENTWISE:
        raise refusal(name)
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
    return named(name, given)
