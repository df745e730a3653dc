"""Rules about the signal on its way forward: does it keep its scale, do different samples stay different.

A loss of signal that a skip connection bypasses, or that a normalisation corrects, is no fault.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from ..flow import Row
from ..records.remedies import Remedy, WholeModel
from . import proposals, schemes
from .network import Network
from .rule import Case
from .scale import LEAST_DRIFT, Drift, drifts
from .wording import drawn, num, plural

_NO_SPREAD = 1e-3
"""Standard deviation across samples over the rms, below which the samples of the batch are one and the same."""
_SPREAD = 0.1
"""What a deep healthy network keeps of it: from there on nothing else is measured."""


def vanishing_signal(network: Network) -> list[Case]:
    """Activations that shrink layer by layer."""
    return _signal(network, -1.0)


def exploding_signal(network: Network) -> list[Case]:
    """Activations that grow layer by layer."""
    return _signal(network, 1.0)


def _signal(network: Network, sign: float) -> list[Case]:
    """The largest drift in one direction; its amount is in decades."""
    found = drifts(network)
    points = {row.index: row for row in (*network.junctions, *network.kernels)}
    heads = {row.index for row in network.heads}  # the rule about the first loss judges their scale
    candidates = [
        (sign * found[i].decades, row)
        for i, row in points.items()
        if i in found
        and sign * found[i].decades >= LEAST_DRIFT
        and i not in heads
        and (row in network.junctions or not network.normalised_after(row))
    ]
    if sign < 0:
        # The largest first: whether a skip connection bypasses a row takes long to say.
        falling = sorted(candidates, key=lambda pair: -pair[0])
        fades = (pair for pair in falling if not _may_fade(network, pair[1]))
        candidates = [pair for pair in [next(fades, None)] if pair is not None]
    if not candidates:
        return []
    decades, worst = max(candidates, key=lambda pair: pair[0])
    drift = found[worst.index]
    kernels = _segment(network, worst, drift.reference)
    single = _main_step(network, kernels, found, sign)
    affected = [single] if single is not None else kernels
    change = schemes.alike(network, affected)
    blocks = _blocks(network, worst, kernels)
    count = blocks or max(drift.kernels, 1)
    return [
        Case(
            amount=decades,
            layer=(single or (worst if worst.has_kernel else next(iter(change), worst))).path,
            affected=[row.path for row in affected],
            change=change,
            facts={
                "per_layer_factor": 10.0 ** (sign * decades / count),
                "kernels": count,
                "repeated": "block" if blocks else "layer",
                "worst": worst.path,
                "single": None if single is None else single.path,
                "exactly_zero": worst.stats.activation_rms == 0.0,
            },
        )
    ]


def _may_fade(network: Network, row: Row) -> bool:
    return network.bypassed(row) or (network.opening and row.stats.activation_rms == 0.0)


def _segment(network: Network, end: Row, reference: int) -> list[Row]:
    """The kernels between a point of reference and `end`."""
    after = [row for row in network.through(end) if row.index == end.index or network.is_ancestor(reference, row.index)]
    return [row for row in after if row.index != reference] or list(network.through(end))


def _blocks(network: Network, end: Row, kernels: Sequence[Row]) -> int:
    """The number of residual blocks on the way to `end`, where it is blocks that repeat; else 0."""
    sums = [row for row in network.sums if row.index == end.index or network.is_ancestor(row.index, end.index)]
    sums = [row for row in sums if any(network.is_ancestor(kernel.index, row.index) for kernel in kernels)]
    return len(sums) if len(sums) > 1 and any(network.bypassed(row) for row in kernels) else 0


def _main_step(network: Network, kernels: Sequence[Row], found: dict[int, Drift], sign: float) -> Row | None:
    """The one kernel that makes most of a drift, if one does."""
    steps: list[tuple[float, Row]] = []
    for row in kernels:
        before = [found[p].decades + found[p].source for p in network.parents[row.index] if p in found]
        after = [row.index, *(c for c in network.children[row.index] if not network.rows[c].has_kernel)]
        ends = [found[a].decades + found[a].source for a in after if a in found]
        if before and ends:
            steps.append((sign * ((min(ends) if sign < 0 else max(ends)) - max(before)), row))
    total = sum(step for step, _ in steps)
    if not steps or total <= 0:
        return None
    step, row = max(steps, key=lambda pair: pair[0])
    return row if step > 0.7 * total and len(steps) > 1 else None


def shrinks(case: Case) -> str:
    """The words of `vanishing_signal`."""
    facts, worst = case.facts, case.facts["worst"]
    if facts["exactly_zero"]:
        by = f", and {facts['single']} makes it so" if facts["single"] else ""
        return f"the signal is exactly zero at {worst}{by}"
    return _drifts(case, "shrinks", f"{num(10.0**-case.amount)} of it is left")


def grows(case: Case) -> str:
    """The words of `exploding_signal`."""
    return _drifts(case, "grows", f"it is {num(10.0**case.amount)} times as large")


def _drifts(case: Case, verb: str, end: str) -> str:
    facts, worst = case.facts, case.facts["worst"]
    if facts["single"]:
        return (
            f"the signal {verb} by a factor of {num(10.0**case.amount)} on its way to {worst}, "
            f"nearly all of it in {facts['single']}"
        )
    return (
        f"each {facts['repeated']} multiplies the signal by {num(facts['per_layer_factor'])}; "
        f"after {plural(facts['kernels'], facts['repeated'])} {end} at {worst}{drawn(case.change)}"
    )


def remedy(network: Network, case: Case) -> Remedy | None:
    """What makes the signal get through; where one kernel makes the drift alone, new biases too."""
    return proposals.for_signal(network, case.change, bias=bool(case.facts["single"]))


def through(network: Network, case: Case) -> Remedy | None:
    """What makes signal and gradient get through the kernels at fault."""
    return proposals.for_signal(network, case.change)


def through_with_biases(network: Network, case: Case) -> Remedy | None:
    """The same, and biases of zero; a new start of the whole model where there are no kernels to name."""
    return proposals.for_signal(network, case.change, bias=True) or WholeModel()


def collapsed_samples(network: Network) -> list[Case]:
    """The network maps every input to the same hidden representation: nothing is left to learn from."""
    if network.snapshot.batch_size < 2:
        return []
    given = [row.stats.activation_spread for row in network.rows if row.info.role == "input"]
    known = [spread for spread in given if math.isfinite(spread)]
    if known and max(known) < _NO_SPREAD:
        return []  # the batch itself is one and the same sample
    spreads = [
        (row.stats.activation_spread, row)
        for row in network.last_hidden
        if math.isfinite(row.stats.activation_spread) and row.stats.activation_rms > 0.0
    ]
    spread, row = max(spreads, key=lambda pair: pair[0], default=(math.inf, None))
    if row is None or spread > _SPREAD:
        return []
    kernels = list(network.through(row))
    return [
        Case(
            amount=spread,
            layer=(row if row.has_kernel else next(reversed(kernels), row)).path,
            affected=[kernel.path for kernel in kernels],
            change=schemes.alike(network, kernels),
            facts={"worst": row.path},
        )
    ]


def alike(case: Case) -> str:
    """The words of `collapsed_samples`."""
    return (
        f"all inputs give almost the same features at {case.facts['worst']}: "
        f"they vary by only {num(case.amount)} of their rms"
    )
