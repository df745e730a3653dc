"""Rules about the gradient on its way back: does it keep its scale from the loss to the first layers."""

from __future__ import annotations

import math

from ..flow import Row
from . import schemes
from .network import Network
from .rule import Case
from .scale import LEAST_DRIFT
from .wording import drawn, num, plural

_NORMALISED = 2.0
"""What the growth of a gradient behind a normalisation is divided by: it makes the weights before it indifferent to
their scale, and the gradient with them. EfficientNetB3 gains 3.6 decades, and learns."""


def vanishing_gradient(network: Network) -> list[Case]:
    """dL/d(activation) that shrinks from the loss back to the input so far that early layers cannot learn.

    A branch that a skip connection bypasses may have a small gradient as long as the rows before it have a large one.
    """
    levels = network.gradient_levels()
    junctions = {row.index for row in network.junctions}
    largest: dict[int, float] = {}  # of a row and all rows before it
    candidates: list[tuple[float, int]] = []
    for i in network.order:
        known = [largest[p] for p in network.parents[i]] + ([levels[i][0]] if i in levels else [])
        largest[i] = max(known, default=-math.inf)
        row = network.rows[i]
        if i not in levels or i not in junctions or (network.opening and row.stats.backward_rms == 0.0):
            continue
        # A lookup that no data feeds is itself a weight; this batch may not use it.
        if not (row.info.lookup and not network.parents[i]):
            candidates.append((largest[i], i))
    if not candidates:
        return []
    upstream, i = min(candidates, key=lambda pair: (pair[0], levels[pair[1]][0]))
    decades, end = levels[i]
    return [_case(network, network.rows[i], end, -decades, -1.0, amount=-upstream)] if -upstream >= LEAST_DRIFT else []


def exploding_gradient(network: Network) -> list[Case]:
    """dL/d(activation) that grows on its way back."""
    normalising = [row.index for row in network.layers if row.normalises]
    points = {row.index for row in network.junctions}
    levels = network.gradient_levels()
    growing = [
        (decades / damping, i, damping)
        for i, (decades, end) in levels.items()
        if i in points and decades >= LEAST_DRIFT
        for damping in [_NORMALISED if _between(network, i, end, normalising) else 1.0]
    ]
    if not growing:
        return []
    amount, i, damping = max(growing, key=lambda item: item[0])
    decades, end = levels[i]
    return [_case(network, network.rows[i], end, decades, 1.0, amount=amount, damping=damping)]


def _between(network: Network, early: int, late: Row, normalising: list[int]) -> bool:
    """Whether a normalisation lies on the way from one row to another."""
    return any(network.is_ancestor(early, n) and network.is_ancestor(n, late.index) for n in normalising)


def _case(
    network: Network, row: Row, end: Row, decades: float, sign: float, *, amount: float, damping: float = 1.0
) -> Case:
    between = [
        k
        for k in network.kernels
        if network.is_ancestor(row.index, k.index) and (k.index == end.index or network.is_ancestor(k.index, end.index))
    ]
    count = max(_longest(network, row.index, end.index), 1)
    first = next(iter(network.through(row)), row)
    kernels = [first, *between] if first.has_kernel else between
    change = schemes.alike(network, kernels)
    return Case(
        amount=amount,
        observed=decades,
        limit=lambda limit: limit * damping,
        layer=(row if row.has_kernel else next(iter(change), row)).path,
        affected=[r.path for r in dict.fromkeys([first, *between])],
        change=change,
        facts={
            "per_layer_factor": 10.0 ** (sign * decades / count),
            "kernels": count,
            "worst": row.path,
            "exactly_zero": row.stats.backward_rms == 0.0,
        },
    )


def _longest(network: Network, early: int, late: int) -> int:
    """The number of kernels on the longest way from one row to another, the last one included."""
    best = {early: 0}
    for i in network.order:
        if i == early or not network.is_ancestor(early, i):
            continue
        above = [best[p] for p in network.parents[i] if p in best]
        if above:
            best[i] = max(above) + network.rows[i].has_kernel
    return best.get(late, 0)


def fades(case: Case) -> str:
    """The words of `vanishing_gradient`."""
    count, worst = plural(case.facts["kernels"], "layer"), case.facts["worst"]
    if case.facts["exactly_zero"]:
        return f"no gradient arrives at {worst}: it is exactly zero there, {count} before the end"
    return _multiplies(case, f"{num(10.0**-case.observed)} of it is left")


def grows(case: Case) -> str:
    """The words of `exploding_gradient`."""
    return _multiplies(case, f"it is {num(10.0**case.observed)} times as large")


def _multiplies(case: Case, end: str) -> str:
    facts = case.facts
    return (
        f"each layer multiplies the gradient by {num(facts['per_layer_factor'])}; "
        f"after {plural(facts['kernels'], 'layer')} {end} at {facts['worst']}{drawn(case.change)}"
    )
