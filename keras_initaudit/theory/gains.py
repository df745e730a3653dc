"""What an activation does to the size of a signal: gains, flat ends, and the edge of chaos.

With pre-activations z ~ N(0, 1), a layer whose weights have variance gain^2 / fan_in keeps the size of the signal. All
expectations are Gauss-Legendre quadrature on panels that end where the activation is not smooth, so that a kink costs
no accuracy: the error is below 1e-12 (about 1e-5 for a callable of one's own on JAX, which computes in float32).
Imports keras and numpy only.
"""

from __future__ import annotations

import contextlib
import functools
import math
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np

from keras_initaudit.theory.activations import activation_name, look, own_name, resolve, text_of
from keras_initaudit.theory.functions import NAMES, NOT_ELEMENTWISE, REACH, Array, Elementwise, remembered

Kind = Literal["forward", "backward", "std"]

_ORDER = 20  # nodes of a panel
_TAIL = 13.0  # N(0, 1) beyond 13 has 1e-38 of its mass; e^(2z) still has 1e-27 of its own there
_FLAT = 0.02  # a slope under 2 % of the steepest: a unit there learns 50 times more slowly than it could


def gain(activation: Any, kind: Kind = "forward") -> float:
    """The factor on the weights that makes up for what the activation does to a unit normal signal.

    forward: 1 / sqrt(E[phi(z)^2]) keeps the mean square of the activations; backward: 1 / sqrt(E[phi'(z)^2]) keeps
    that of the gradients; std: 1 / std(phi(z)) keeps the variance, the mean set aside. z ~ N(0, 1).

    Args:
        activation: A name (`"relu"`, `"leaky_relu(0.1)"`, `"gelu(tanh)"`), a function of `keras.activations`, an
            activation layer, or any callable on tensors; None is linear.
        kind: Which size is kept.

    Returns:
        The gain, exact to 1e-9; for a callable of one's own on JAX to about 1e-5.

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


def moments(activation: Any, q: float = 1.0) -> tuple[float, float, float]:
    """E[phi(z)], E[phi(z)^2] and E[phi'(z)^2] for z ~ N(0, q); a jump of phi counts for nothing in phi'.

    Args:
        activation: As `gain` takes it.
        q: Variance of the pre-activations, above 0.

    Example:
        >>> [round(moment, 6) for moment in moments("relu", q=4.0)]
        [0.797885, 2.0, 0.5]
    """
    function = activation if isinstance(activation, Elementwise) else resolve(activation)
    _, weight, phi, slope = _panels(function, math.sqrt(q))
    with np.errstate(over="ignore", under="ignore"):
        return float(np.sum(weight * phi)), float(np.sum(weight * phi**2)), float(np.sum(weight * slope**2))


def _panels(function: Elementwise, sigma: float, step: float = 0.5) -> tuple[Array, Array, Array, Array]:
    """Nodes x, their weights under N(0, sigma^2), phi(x) and phi'(x), each of shape [panels, order]."""
    # Panels of at most half a unit where activations bend (|x| < 16), and of at most `step` standard deviations.
    reach = _TAIL * sigma
    bends = np.concatenate([np.arange(0.0, 16.0, 0.5), 2.0 ** np.arange(4, 60)])
    steps = sigma * np.arange(0.0, _TAIL + 0.5 * step, step)
    edges = np.unique(np.concatenate([bends, -bends, steps, -steps, np.asarray(function.kinks, dtype=np.float64)]))
    edges = edges[(edges >= -reach) & (edges <= reach)]
    width = np.diff(edges)
    # What is narrower holds the kink itself: a jump there has no slope that counts.
    keep = width > 1.5 * function.narrow
    width, middle = width[keep], 0.5 * (edges[:-1] + edges[1:])[keep]
    nodes, weights, differentiate = _rule()
    x = middle[:, None] + 0.5 * width[:, None] * nodes
    density = np.exp(-0.5 * (x / sigma) ** 2) / (sigma * math.sqrt(2.0 * math.pi))
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        phi = function.phi(x)
        slope = phi @ differentiate.T * (2.0 / width[:, None])
    return x, 0.5 * width[:, None] * weights * density, phi, slope


@functools.lru_cache(maxsize=1)
def _rule() -> tuple[Array, Array, Array]:
    """Gauss-Legendre nodes and weights on [-1, 1], and the matrix that differentiates the interpolant at the nodes."""
    nodes, weights = np.polynomial.legendre.leggauss(_ORDER)
    gaps = nodes[:, None] - nodes[None, :] + np.eye(_ORDER)
    barycentric = 1.0 / np.prod(gaps, axis=1)
    matrix = barycentric[None, :] / barycentric[:, None] / gaps
    np.fill_diagonal(matrix, 0.0)
    np.fill_diagonal(matrix, -matrix.sum(axis=1))
    return nodes, weights, matrix


def flat_ends(activation: Any) -> tuple[float, float] | None:
    """Where an activation saturates: beyond (low, high) its slope is under 2 % of its steepest, on both sides.

    Between its ends a function that saturates does most of what it does. One that does less there than beyond them,
    such as the root of |x|, is only steep in a narrow place, and has no ends.

    Args:
        activation: As `gain` takes it.

    Returns:
        (low, high), or None unless both ends are flat: ReLU, softplus and the like do not saturate. None as well for
        what is not a function of one number (softmax): its saturation shows in its output, not in one input.

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
    """All that is asked about the activation of a layer."""

    name: str | None
    """As `activation_name` gives it."""
    gain: float | None
    """The forward gain; None where there is none."""
    ends: tuple[float, float] | None
    """As `flat_ends` gives them."""

    @property
    def known(self) -> bool:
        """Whether the name can be given back, for one as `gain=`: a function of the person's own has a dot in it."""
        return self.name is not None and "." not in self.name.partition("(")[0]


def facts(activation: Any) -> ActivationFacts:
    """Name, gain and flat ends of whatever stands as an activation in a layer. It never fails.

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
    except Exception:  # a person's own function, layer or config raises what it likes
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
    nodes, weights, differentiate = _rule()
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
    top = high[last] if j == _ORDER - 1 else np.interp(limit, slope[last, [j + 1, j]], x[last, [j + 1, j]])
    if not function.known and max(-bottom, top) > REACH:
        return None
    return round(float(bottom), 5), round(float(top), 5)


@dataclass(frozen=True, slots=True)
class CriticalPoint:
    """A point on the edge of chaos: there, neither the distance of two inputs nor the gradient grows or decays."""

    sigma_w: float
    """Weights are drawn with variance sigma_w^2 / fan_in."""
    sigma_b: float
    """Biases are drawn with variance sigma_b^2."""
    q: float
    """Variance at which the pre-activations settle; NaN where every variance is kept (ReLU)."""


_HIGHEST = 1e6  # variances up to which a fixed point is looked for


def _lowest(function: Elementwise) -> float:
    # Stands for 0. A callable's kinks are known to 1e-12 only, which a standard deviation must exceed by far.
    return 1e-18 if function.narrow == 0.0 else 1e-6


def critical_point(activation: Any, sigma_b: float = 0.0) -> CriticalPoint:
    """The edge of chaos of a deep plain network: sigma_w and q* with q* = V(q*) and chi_1 = 1.

    V(q) = sigma_w^2 E[phi(sqrt(q) z)^2] + sigma_b^2 and chi_1 = sigma_w^2 E[phi'(sqrt(q) z)^2], z ~ N(0, 1). Of several
    such points the one with the smallest q* to which the variance does converge (V' <= 1 there) is given.

    Args:
        activation: As `gain` takes it.
        sigma_b: Standard deviation of the biases, at least 0.

    Raises:
        ValueError: When there is none: ReLU with biases, for one, has no such point.

    Example:
        >>> point = critical_point("tanh", sigma_b=0.2)
        >>> round(point.sigma_w, 3), round(point.q, 3)
        (1.304, 0.512)

    Reference:
        Poole et al. 2016; Schoenholz et al. 2017, section 3; Hayou et al. 2019, section 2.
    """
    function = resolve(activation)
    _check_sigma(sigma_b, "sigma_b", least=0.0)
    bias = sigma_b * sigma_b

    def miss(q: float) -> float:
        _, square, slope = moments(function, q)
        return 1.0 - (square / slope + bias) / q if slope > 0 else math.nan

    lowest = _lowest(function)
    logs = np.linspace(math.log(lowest), math.log(_HIGHEST), 400)
    misses = np.array([miss(math.exp(log)) for log in logs])
    if np.all(np.abs(misses) < 1e-9):  # phi is homogeneous: at this sigma_w every variance is kept
        return CriticalPoint(1.0 / math.sqrt(moments(function)[2]), float(sigma_b), math.nan)
    # tanh without biases: q* = 0, as a limit.
    candidates = [lowest] if abs(misses[0]) < 1e-5 else []
    candidates += [
        math.exp(_bisect(lambda log: miss(math.exp(log)), float(a), float(b)))
        for a, b, left, right in zip(logs, logs[1:], misses, misses[1:], strict=False)
        if left * right < 0 and abs(left - right) > 1e-9  # not the rounding of a zero
    ]
    for q in candidates:
        sigma_w = 1.0 / math.sqrt(moments(function, q)[2])
        low, high = (0.0, 1e-3) if q == lowest else (0.999 * q, 1.001 * q)
        near = [sigma_w**2 * moments(function, at)[1] + bias if at else 0.0 for at in (low, high)]
        if (near[1] - near[0]) / (high - low) <= 1.0 + 1e-6:
            return CriticalPoint(sigma_w, float(sigma_b), low if q == lowest else q)
    part = bias / np.exp(logs)
    homogeneous = bool(np.all(np.abs(misses + part) < 1e-9 * (1.0 + part)))
    raise ValueError(
        f"`activation` {function.name!r} has no critical point at sigma_b={sigma_b:g}: no variance q to which the "
        "pre-activations converge has chi_1 = 1. "
        + ("Its edge of chaos is without biases: take sigma_b=0." if homogeneous else "Try a larger sigma_b.")
    )


def depth_scale(activation: Any, sigma_w: float, sigma_b: float = 0.0) -> float:
    """How many layers a correlation between two inputs survives: xi = -1 / log(chi at the fixed point).

    chi = sigma_w^2 E[phi'(u_1) phi'(u_2)], u of variance q* and correlation c*: c* = 1 in the ordered phase
    (chi_1 <= 1), below 1 in the chaotic one. A plain network trains up to a depth of a few xi.

    Args:
        activation: As `gain` takes it.
        sigma_w: Weights have variance sigma_w^2 / fan_in.
        sigma_b: Biases have variance sigma_b^2.

    Returns:
        xi in layers, to 0.1 % for c* up to 0.998; infinity on the edge of chaos, 0 where nothing passes.

    Raises:
        ValueError: When the variance grows without bound, so that there is no fixed point.

    Example:
        >>> round(depth_scale("tanh", 1.0, 0.2), 2)
        4.01

    Reference:
        Schoenholz et al. 2017, equations 5 to 9.
    """
    function = resolve(activation)
    _check_sigma(sigma_w, "sigma_w", least=1e-12)
    _check_sigma(sigma_b, "sigma_b", least=0.0)
    q = _fixed_variance(function, sigma_w, sigma_b)
    chi = sigma_w**2 * moments(function, q)[2]
    if chi > 1.0 + 1e-9:  # chaotic: c* < 1 is the other zero of C(c) - c, a convex function that is 0 at c = 1
        c = _bisect(lambda c: _correlation(function, sigma_w, sigma_b, q, c)[0] - c, 0.0, 1.0 - 1e-9)
        chi = _correlation(function, sigma_w, sigma_b, q, c)[1]
    if chi <= 0.0:
        return 0.0
    # Above 1 it is so near to the edge that c* and 1 are one number.
    return math.inf if math.log(chi) > -1e-9 else -1.0 / math.log(chi)


def _fixed_variance(function: Elementwise, sigma_w: float, sigma_b: float) -> float:
    def growth(log: float) -> float:
        q = math.exp(log)
        return (sigma_w**2 * moments(function, q)[1] + sigma_b**2) / q - 1.0

    start = growth(0.0)
    if abs(start) < 1e-12:
        return 1.0
    step = math.copysign(0.5, start)  # V(q) > q: the variance rises from 1 to the next fixed point
    log = 0.0
    while math.log(_lowest(function)) <= log <= math.log(_HIGHEST):
        if growth(log + step) * start <= 0:
            return math.exp(_bisect(growth, log, log + step))
        log += step
    if start < 0:
        return _lowest(function)
    raise ValueError(
        f"`sigma_w` {sigma_w:g} is too large for {function.name!r}: the variance of the pre-activations grows without "
        "bound, and there is no fixed point to measure a depth at."
    )


def _correlation(function: Elementwise, sigma_w: float, sigma_b: float, q: float, c: float) -> tuple[float, float]:
    """The correlation one layer on, and chi, for two pre-activations of variance q and correlation c in [0, 1].

    u_i = sqrt(q) (sqrt(c) x + sqrt(1 - c) y_i): given what they share they are independent, so that
    E[phi(u_1) phi(u_2)] = E_x[E_y[phi]^2], and the mean over y makes even a kinked phi smooth in x.
    """
    width = math.sqrt(1.0 - c)
    panels = _panels(function, math.sqrt(q), step=min(0.5, max(4.0 * width, 0.08)))
    node, weight, phi, slope = (part.ravel() for part in panels)
    shared = np.arange(-8.0, 8.01, 0.05)  # the trapezoidal rule is exact for what is smooth at its step
    share = 0.05 * np.exp(-0.5 * shared**2) / math.sqrt(2.0 * math.pi)
    # Density of u given x over the density of u: quadrature nodes are those of u, where phi is known exactly.
    z = node / math.sqrt(q)
    ratio = np.exp(0.5 * z**2 - 0.5 * ((z - math.sqrt(c) * shared[:, None]) / width) ** 2) / width
    mean, tilt = ratio @ (weight * phi), ratio @ (weight * slope)
    product = float(np.sum(share * mean**2)), float(np.sum(share * tilt**2))
    return (sigma_w**2 * product[0] + sigma_b**2) / q, sigma_w**2 * product[1]


def _bisect(function: Any, low: float, high: float) -> float:
    sign = function(low)
    if sign == 0:
        return low
    for _ in range(60):
        middle = 0.5 * (low + high)
        if function(middle) * sign > 0:
            low = middle
        else:
            high = middle
    return 0.5 * (low + high)


def _check_sigma(value: Any, name: str, least: float) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value < math.inf:
        raise ValueError(f"`{name}` must be a finite number of at least {least:g}. Received: {value!r}.")


__all__ = [
    "NAMES",
    "NOT_ELEMENTWISE",
    "ActivationFacts",
    "CriticalPoint",
    "Elementwise",
    "Kind",
    "activation_name",
    "critical_point",
    "depth_scale",
    "facts",
    "flat_ends",
    "gain",
    "moments",
    "remembered",
    "resolve",
]
