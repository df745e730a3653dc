"""What an activation does to the size of a signal: its gains, and the flat ends where it saturates.

With pre-activations z ~ N(0, 1), a layer whose weights have variance gain^2 / fan_in keeps the size of the signal.
Imports keras and numpy only.
"""

from __future__ import annotations

import contextlib
import math
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np

from keras_initaudit.theory.activations import activation_name, look, own_name, resolve, text_of
from keras_initaudit.theory.functions import NAMES, NOT_ELEMENTWISE, REACH, Elementwise, remembered
from keras_initaudit.theory.quadrature import ORDER, moments, rule

Kind = Literal["forward", "backward", "std"]

_FLAT = 0.02  # a slope under 2 % of the steepest: a unit there learns 50 times more slowly than it could


def gain(activation: Any, kind: Kind = "forward") -> float:
    """The factor on the weights that compensates what the activation does to a unit normal signal.

    forward: 1 / sqrt(E[phi(z)^2]) keeps the mean square of the activations; backward: 1 / sqrt(E[phi'(z)^2]) keeps
    that of the gradients; std: 1 / std(phi(z)) keeps the variance, the mean set aside. z ~ N(0, 1).

    Args:
        activation: A name (`"relu"`, `"leaky_relu(0.1)"`, `"gelu(tanh)"`), a function of `keras.activations`, an
            activation layer, or any callable on tensors; None is linear.
        kind: Which size is kept.

    Returns:
        The gain, exact to 1e-9; for a callable that is not Keras's own on JAX to about 1e-5.

    Raises:
        ValueError: For a function that mixes units (softmax, log_softmax, sparsemax, glu), a constant, an unknown name.

    Example:
        >>> round(gain("relu"), 12)
        1.414213562373
        >>> round(gain("tanh"), 4), round(gain("gelu", kind="backward"), 4)
        (1.5925, 1.4811)

    Reference:
        He et al. 2015, section 2.2 (ReLU); Klambauer et al. 2017 (the moments); Schoenholz et al. 2017, equation 3.
    """
    if kind not in get_args(Kind):
        raise ValueError(f"`kind` must be one of {get_args(Kind)}. Received: {kind!r}.")
    return _gain(resolve(activation), kind)


@remembered
def _gain(function: Elementwise, kind: Kind) -> float:
    mean, square, slope = moments(function)
    power = {"forward": square, "backward": slope, "std": square - mean * mean}[kind]
    if not 1e-24 < power < math.inf:
        raise ValueError(
            f"`activation` {function.name!r} has no {kind} gain: the power that it passes on is {power:.3g}."
        )
    return 1.0 / math.sqrt(power)


def flat_ends(activation: Any) -> tuple[float, float] | None:
    """Where an activation saturates: outside (low, high) its slope is under 2 % of its steepest, on both sides.

    A function that saturates does most of its change between its ends. One that changes more outside them, such as the
    root of |x|, is only steep in a narrow place, and has no ends.

    Args:
        activation: As `gain` takes it.

    Returns:
        (low, high), or None unless both ends are flat: ReLU, softplus and the like do not saturate. None as well for
        a function of several numbers (softmax): its saturation shows in its output, not in one input.

    Raises:
        ValueError: When the activation is unknown.

    Example:
        >>> flat_ends("hard_sigmoid"), flat_ends("relu")
        ((-3.0, 3.0), None)
        >>> [round(end, 2) for end in flat_ends("sigmoid")]
        [-5.29, 5.29]
    """
    found = look(activation)
    return None if isinstance(found, str) else _ends(found)


@dataclass(frozen=True, slots=True)
class ActivationFacts:
    """Name, gain and flat ends of the activation of a layer."""

    name: str | None
    """As `activation_name` gives it."""
    gain: float | None
    """The forward gain; None where there is none."""
    ends: tuple[float, float] | None
    """As `flat_ends` gives them."""

    @property
    def known(self) -> bool:
        """Whether the name can be used in `gain=`: that of a function that is not Keras's has a dot in it."""
        return self.name is not None and "." not in self.name.partition("(")[0]


def facts(activation: Any) -> ActivationFacts:
    """Name, gain and flat ends of anything that a layer has as its activation. It never fails.

    To be called outside of any trace: within one, a callable has a name and nothing else.

    Args:
        activation: Anything. None, a text or an object that is no activation, and a layer that is none, have no facts.

    Example:
        >>> facts(keras.ops.hard_tanh).name, facts(keras.ops.hard_tanh).ends
        ('hard_tanh', (-1.0, 1.0))
        >>> facts("rellu")
        ActivationFacts(name=None, gain=None, ends=None)
    """
    if activation is None:
        return ActivationFacts(None, None, None)
    name = gain = ends = None
    try:
        found = look(activation)
    except Exception:  # a function, layer or config of the user may raise anything
        with contextlib.suppress(Exception):
            name = own_name(activation)
        return ActivationFacts(name, None, None)
    if isinstance(found, Elementwise):
        with contextlib.suppress(Exception):
            gain = _gain(found, "forward")
        with contextlib.suppress(Exception):
            ends = _ends(found)
    return ActivationFacts(text_of(found), gain, ends)


@remembered
def _ends(function: Elementwise) -> tuple[float, float] | None:
    kinks = np.array([0.0, *function.kinks])
    graded = np.ravel(kinks[:, None] + np.array([-1.0, 1.0])[:, None, None] * 2.0 ** -np.arange(5, 20))
    edges = np.unique(np.concatenate([np.arange(-64.0, 64.01, 1 / 16), kinks, graded if function.known else []]))
    width = np.diff(edges)
    # In a narrow panel the difference of nearly equal numbers is noise, not a slope.
    keep = width > (1e-6 if function.narrow < 1e-6 else 1e-2)
    low, high = edges[:-1][keep], edges[1:][keep]
    nodes, weights, differentiate = rule()
    x = 0.5 * (low + high)[:, None] + 0.5 * (high - low)[:, None] * nodes
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        slope = np.abs(function.phi(x) @ differentiate.T * (2.0 / (high - low)[:, None]))
    if not np.all(np.isfinite(slope)):
        return None
    change = slope * weights * 0.5 * (high - low)[:, None]
    limit = _FLAT * float(slope.max())
    steep = np.argwhere(slope >= limit)
    if limit == 0.0 or slope[0, 0] >= limit or slope[-1, -1] >= limit:
        return None
    (first, i), (last, j) = steep[0], steep[-1]
    if 2.0 * change[first : last + 1].sum() < change.sum():
        return None
    bottom = low[first] if i == 0 else np.interp(limit, slope[first, i - 1 : i + 1], x[first, i - 1 : i + 1])
    top = high[last] if j == ORDER - 1 else np.interp(limit, slope[last, [j + 1, j]], x[last, [j + 1, j]])
    if not function.known and max(-bottom, top) > REACH:
        return None
    return round(float(bottom), 5), round(float(top), 5)


__all__ = [
    "NAMES",
    "NOT_ELEMENTWISE",
    "ActivationFacts",
    "Elementwise",
    "Kind",
    "activation_name",
    "facts",
    "flat_ends",
    "gain",
    "moments",
    "remembered",
    "resolve",
]
