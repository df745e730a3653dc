"""Rules about the gradient on its way back: does it keep its scale from the loss to the first layers."""

from __future__ import annotations

import math

from ..flow import Row
from ..records import Finding, Severity
from . import proposals
from .network import Network
from .scale import fading_limit, loss_both_ways
from .thresholds import Thresholds
from .wording import finding, num, plural


def _gradient_finding(
    network: Network,
    rule: str,
    row: Row,
    end: Row,
    decades: float,
    sign: float,
    warning: float,
    bad: float,
    **evidence: float,
) -> Finding:
    between = [
        k
        for k in network.kernels
        if network.is_ancestor(row.index, k.index) and (k.index == end.index or network.is_ancestor(k.index, end.index))
    ]
    count = max(_longest(network, row.index, end.index), 1)
    factor = 10.0 ** (decades / count)
    severity: Severity = "bad" if sign * decades >= bad else "warning"
    left = num(10.0**decades)
    first = next(iter(network.through(row)), row)
    message = (
        f"each layer multiplies the gradient by {num(factor)}; after {plural(count, 'layer')} "
        f"{f'{left} of it is left' if sign < 0 else f'it is {left} times as large'} at {row.path}"
    )
    if row.stats.backward_rms == 0.0:
        message = (
            f"no gradient arrives at {row.path}: it is exactly zero there, {plural(count, 'layer')} before the end"
        )
    group = proposals.alike(network, [first, *between] if first.has_kernel else between)
    return finding(
        rule,
        severity,
        row.path,
        message,
        observed=decades,
        expected=0.0,
        threshold=sign * (bad if severity == "bad" else warning),
        unit="decades of the norm of dL/d(activation)",
        layers=[r.path for r in group],
        affected=[r.path for r in dict.fromkeys([first, *between])],
        per_layer_factor=factor,
        kernels=count,
        worst=row.path,
        exactly_zero=row.stats.backward_rms == 0.0,
        remedy=proposals.for_signal(network, group),
        **evidence,
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


def vanishing_gradient(network: Network, thresholds: Thresholds) -> list[Finding]:
    """dL/d(activation) that shrinks from the loss back to the input so far that early layers cannot learn."""
    levels = network.gradient_levels()
    worst: tuple[float, int] | None = None
    warning, bad = thresholds.gradient_loss_warning, thresholds.gradient_loss_bad
    creeping = loss_both_ways(network, thresholds)
    if creeping:
        warning = bad = min(warning, thresholds.creeping_loss / 2.0)
    junctions = {row.index for row in network.junctions}
    # A branch that a skip connection bypasses may have a small gradient as long as the rows before it have a large one.
    upstream: dict[int, float] = {}
    for i in network.order:
        known = [upstream[p] for p in network.parents[i]] + ([levels[i][0]] if i in levels else [])
        upstream[i] = max(known, default=-math.inf)
    for i, (decades, _) in levels.items():
        if i not in junctions or (network.opening and network.rows[i].stats.backward_rms == 0.0):
            continue
        # A lookup that no data feeds is itself a weight; this batch may not use it.
        if network.rows[i].info.lookup and not network.parents[i]:
            continue
        best = upstream[i]
        if -best >= warning and (worst is None or decades < worst[0]):
            worst = (decades, i)
    if worst is None:
        return []
    decades, i = worst
    if not creeping:
        still = network.partly_stands_still(network.hidden, thresholds)
        bad = fading_limit(still, network, thresholds, warning, bad)
    row, end = network.rows[i], levels[i][1]
    return [_gradient_finding(network, "vanishing-gradient", row, end, decades, -1.0, warning, bad, **creeping)]


def exploding_gradient(network: Network, thresholds: Thresholds) -> list[Finding]:
    """dL/d(activation) that grows on its way back."""
    levels = network.gradient_levels()
    normalising = [row.index for row in network.layers if row.normalises]

    def between(early: int, late: Row) -> bool:
        return any(network.is_ancestor(early, n) and network.is_ancestor(n, late.index) for n in normalising)

    points = {row.index for row in network.junctions}
    limit = thresholds.gradient_growth_warning
    over = [(d, i, end) for i, (d, end) in levels.items() if i in points and d >= limit]
    if not over:
        return []
    # A normalisation makes the weights before it indifferent to their scale, and the gradient with them.
    over = [(d, i, end) for d, i, end in over if d >= 2.0 * thresholds.gradient_growth_bad or not between(i, end)]
    if not over:
        return []
    decades, i, end = max(over, key=lambda item: item[0])
    bad = math.inf if between(i, end) else thresholds.gradient_growth_bad
    args = (end, decades, 1.0, thresholds.gradient_growth_warning, bad)
    return [_gradient_finding(network, "exploding-gradient", network.rows[i], *args)]
