"""The rule about the gradient through time: what one time step of a recurrent layer does to it on its way back."""

from __future__ import annotations

import math

from ..flow import Row
from ..records import Finding, Severity
from . import proposals
from .network import Network
from .thresholds import Thresholds
from .wording import finding, num, plural

_SMALLEST_SEEN = -38.0
"""Decades below which float32 holds no gradient of usual size: what is left is said to be less."""
_STEPS = 7
"""Time steps from which a loss counts: over fewer it is under 2.5 decades, as healthy layers may lose."""


def gradient_through_time(network: Network, thresholds: Thresholds) -> list[Finding]:
    """A recurrent layer that keeps nothing of the gradient from one time step to the one before, or multiplies it.

    A gradient shrinks over many steps in healthy layers too, so that a loss counts for each step; growth counts as a
    whole. Where the loss is taken at every step, the first one may have as many times the gradient as there are steps.
    """
    found: list[tuple[float, Row, int]] = []
    for row in network.layers:
        decades, steps = row.stats.backward_time_log10, _steps(network, row)
        if not row.info.trainable or math.isnan(decades) or steps < 2:
            continue
        whole = decades * (steps - 1)
        lost = -decades >= thresholds.time_loss_warning and steps >= _STEPS
        if lost or whole - math.log10(steps) >= thresholds.gradient_growth_warning:
            found.append((whole, row, steps))
    if not found:
        return []
    whole, worst, steps = max(found, key=lambda item: (item[0] > 0.0, abs(item[0])))
    grows = whole > 0.0
    rows = [row for other, row, _ in found if (other > 0.0) == grows]
    severe = grows and whole - math.log10(steps) >= thresholds.gradient_growth_bad
    severity: Severity = "bad" if severe else "warning"
    decades = worst.stats.backward_time_log10
    limit = (thresholds.gradient_growth_bad if severe else thresholds.gradient_growth_warning) if grows else None
    group = proposals.alike(network, rows)
    left = f"less than {num(10.0**_SMALLEST_SEEN)}" if whole < _SMALLEST_SEEN else num(10.0 ** min(whole, 300.0))
    message = (
        f"each time step of {worst.path} multiplies the gradient by {num(10.0**decades)}; after "
        f"{plural(steps - 1, 'step')} {f'it is {left} times as large' if grows else f'{left} of it is left'}"
    )
    if decades < _SMALLEST_SEEN:
        message = f"no gradient passes from one time step of {worst.path} to the one before"
    return [
        finding(
            "gradient-through-time",
            severity,
            worst.path,
            message if grows else message + _advice(worst),
            observed=whole if grows else decades,
            expected=0.0,
            threshold=-thresholds.time_loss_warning if limit is None else limit,
            unit="decades of dL/d(input)" if grows else "decades of dL/d(input) a time step",
            layers=[row.path for row in group],
            affected=[row.path for row in rows],
            per_step_factor=10.0**decades,
            steps=steps,
            remedy=proposals.for_kernels(network, group),
        )
    ]


def _steps(network: Network, row: Row) -> int:
    """Length of the sequences that arrive at a recurrent layer; 0 where it is not known."""
    shapes = [network.rows[p].info.shape for p in network.parents[row.index]]
    return max((shape[0] for shape in shapes if len(shape) > 1), default=0)


def _advice(row: Row) -> str:
    """What keeps more of it where an initializer alone may not."""
    if row.info.activation == "sigmoid":
        return "; a sigmoid passes a quarter of it at most, tanh up to all of it"
    return "; the state of an LSTM keeps about 0.8 of it a step" if row.info.gates == 1 else ""
