"""Rules about the gradient through time: what the time steps of a recurrent layer do to it on its way back."""

from __future__ import annotations

import math

from ..flow import Row
from . import schemes
from .network import Network
from .rule import Case
from .wording import num, plural

_SMALLEST_SEEN = -38.0
"""Decades below which float32 holds no gradient of usual size: what is left is said to be less."""
_STEPS = 7
"""Time steps from which a loss counts: over fewer it is under 2.5 decades, as healthy layers may lose."""


def vanishing_through_time(network: Network) -> list[Case]:
    """A recurrent layer that keeps nothing of the gradient from one time step to the one before.

    A gradient shrinks over many steps in healthy layers too, so that the amount is the decades that one step takes off.
    """
    return _cases(network, [(-decades, row, n) for decades, row, n in _measured(network) if n >= _STEPS], -1.0)


def exploding_through_time(network: Network) -> list[Case]:
    """A recurrent layer whose time steps multiply the gradient; the amount is in decades over all of them.

    Where the loss is taken at every step, the first one may have as many times the gradient as there are steps.
    """
    grown = [(decades * (n - 1) - math.log10(n), row, n) for decades, row, n in _measured(network)]
    return _cases(network, grown, 1.0)


def _measured(network: Network) -> list[tuple[float, Row, int]]:
    """Decades that one time step adds to the gradient, the layer, and the number of time steps that arrive at it."""
    known = [row for row in network.layers if row.info.trainable and not math.isnan(row.stats.backward_time_log10)]
    return [(row.stats.backward_time_log10, row, n) for row in known if (n := _steps(network, row)) > 1]


def _steps(network: Network, row: Row) -> int:
    """Length of the sequences that arrive at a recurrent layer; 0 where it is not known."""
    shapes = [network.rows[p].info.shape for p in network.parents[row.index]]
    return max((shape[0] for shape in shapes if len(shape) > 1), default=0)


def _cases(network: Network, measured: list[tuple[float, Row, int]], sign: float) -> list[Case]:
    """One case for all layers that have at least half as much of it as the worst one."""
    amount, worst, steps = max(measured, key=lambda item: item[0], default=(0.0, None, 0))
    if worst is None or amount <= 0.0:
        return []
    decades = worst.stats.backward_time_log10
    rows = [worst, *(row for other, row, _ in measured if row is not worst and other >= 0.5 * amount)]
    return [
        Case(
            amount=amount,
            layer=worst.path,
            observed=sign * amount,
            limit=lambda limit: sign * limit,
            affected=[row.path for row in rows],
            change=schemes.alike(network, rows),
            facts={
                "per_step_factor": 10.0**decades,
                "decades": decades * (steps - 1),
                "steps": steps,
                "activation": worst.info.activation,
                "gates": worst.info.gates,
            },
        )
    ]


def erases(case: Case) -> str:
    """The words of `vanishing_through_time`, with what keeps more of it where an initializer alone may not."""
    facts = case.facts
    advice = "; the state of an LSTM keeps about 0.8 of it a step" if facts["gates"] == 1 else ""
    if facts["activation"] == "sigmoid":
        advice = "; a sigmoid passes a quarter of it at most, tanh up to all of it"
    if -case.amount < _SMALLEST_SEEN:
        return f"no gradient passes from one time step of {case.layer} to the one before{advice}"
    least = num(10.0 ** max(facts["decades"], _SMALLEST_SEEN))
    left = f"less than {least}" if facts["decades"] < _SMALLEST_SEEN else least
    return f"{_each_step(case)} {left} of it is left{advice}"


def multiplies(case: Case) -> str:
    """The words of `exploding_through_time`."""
    return f"{_each_step(case)} it is {num(10.0 ** min(case.facts['decades'], 300.0))} times as large"


def _each_step(case: Case) -> str:
    facts = case.facts
    factor, steps = num(facts["per_step_factor"]), plural(facts["steps"] - 1, "step")
    return f"each time step of {case.layer} multiplies the gradient by {factor}; after {steps}"
