"""How deep a plain network passes a signal on: the edge of chaos, and the depth scale of correlations.

Imports keras and numpy only.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from keras_initaudit.theory.activations import resolve
from keras_initaudit.theory.functions import Elementwise
from keras_initaudit.theory.quadrature import moments, panels


@dataclass(frozen=True, slots=True)
class CriticalPoint:
    """A point on the edge of chaos: there, neither the distance of two inputs nor the gradient grows or decays."""

    sigma_w: float
    """Weights are drawn with variance sigma_w^2 / fan_in."""
    sigma_b: float
    """Biases are drawn with variance sigma_b^2."""
    q: float
    """Variance at which the pre-activations settle; NaN where every variance is kept (ReLU)."""


_HIGHEST = 1e6  # the largest variance at which a fixed point is searched


def _lowest(function: Elementwise) -> float:
    # In place of 0. The kinks of a callable are known to 1e-12 only; a standard deviation must be much larger.
    return 1e-18 if function.narrow == 0.0 else 1e-6


def critical_point(activation: Any, sigma_b: float = 0.0) -> CriticalPoint:
    """The edge of chaos of a deep plain network: sigma_w and q* with q* = V(q*) and chi_1 = 1.

    V(q) = sigma_w^2 E[phi(sqrt(q) z)^2] + sigma_b^2 and chi_1 = sigma_w^2 E[phi'(sqrt(q) z)^2], z ~ N(0, 1). Of several
    such points the one with the smallest q* to which the variance converges (V' <= 1 there) is returned.

    Args:
        activation: As `gain` takes it.
        sigma_b: Standard deviation of the biases, at least 0.

    Raises:
        ValueError: When there is none: ReLU with biases, for example, has no such point.

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
    # Above 1 it is so near to the edge that c* equals 1 in float64.
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
        "bound, and there is no fixed point at which to measure a depth."
    )


def _correlation(function: Elementwise, sigma_w: float, sigma_b: float, q: float, c: float) -> tuple[float, float]:
    """The correlation one layer on, and chi, for two pre-activations of variance q and correlation c in [0, 1].

    u_i = sqrt(q) (sqrt(c) x + sqrt(1 - c) y_i): given what they share they are independent, so that
    E[phi(u_1) phi(u_2)] = E_x[E_y[phi]^2], and the mean over y makes even a kinked phi smooth in x.
    """
    width = math.sqrt(1.0 - c)
    nodes = panels(function, math.sqrt(q), step=min(0.5, max(4.0 * width, 0.08)))
    node, weight, phi, slope = (part.ravel() for part in nodes)
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
