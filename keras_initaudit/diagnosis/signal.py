"""Rules about the signal on its way forward: does it keep its scale, do different samples stay different.

A loss of signal that a skip connection bypasses, or that a normalisation corrects, is no fault.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from ..flow import Row
from ..records import Finding, Severity
from . import proposals
from .network import Network
from .scale import Drift, drifts, fading_limit, loss_both_ways
from .thresholds import Thresholds
from .wording import finding, num, plural


def _segment(network: Network, end: Row, reference: int) -> list[Row]:
    """The kernels between a point of reference and `end`."""
    after = [row for row in network.through(end) if row.index == end.index or network.is_ancestor(reference, row.index)]
    return [row for row in after if row.index != reference] or list(network.through(end))


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


_CREEPING = "; the gradient shrinks too, so that the updates are too small to correct it"


def _signal(
    network: Network, thresholds: Thresholds, rule: str, sign: float, warning: float, bad: float
) -> list[Finding]:
    found = drifts(network, thresholds)
    points = {row.index: row for row in (*network.junctions, *network.kernels)}
    candidates = [
        (sign * found[i].decades, row)
        for i, row in points.items()
        if i in found and (row in network.junctions or not network.normalised_after(row))
    ]
    head_indices = {row.index for row in network.heads}
    creeping = loss_both_ways(network, thresholds) if sign < 0 else {}
    if creeping:
        warning = bad = min(warning, thresholds.creeping_loss / 2.0)
    # The rule about the first loss judges the scale of a head.
    candidates = [(d, row) for d, row in candidates if row.index not in head_indices]
    over = [(d, row) for d, row in candidates if d >= warning]
    if sign < 0:
        over = [(d, row) for d, row in over if not network.bypassed(row)]
        over = [(d, row) for d, row in over if not (network.opening and row.stats.activation_rms == 0.0)]
    if not over:
        return []
    decades, worst = max(over, key=lambda pair: pair[0])
    drift = found[worst.index]
    kernels = _segment(network, worst, drift.reference)
    single = _main_step(network, kernels, found, sign)
    count = max(drift.kernels, 1)
    factor = 10.0 ** (sign * decades / count)
    total = 10.0 ** (sign * decades)
    verb = "shrinks" if sign < 0 else "grows"
    if single is not None and worst.stats.activation_rms == 0.0:
        message = f"the signal is exactly zero at {worst.path}, and {single.path} makes it so"
        kernels = [single]
    elif single is not None:
        message = (
            f"the signal {verb} by a factor of {num(10.0**decades)} on its way to {worst.path}, "
            f"nearly all of it in {single.path}"
        )
        kernels = [single]
    elif worst.stats.activation_rms == 0.0:
        message = f"the signal is exactly zero at {worst.path}"
    else:
        message = (
            f"each layer multiplies the signal by {num(factor)}; after {plural(count, 'layer')} "
            f"{f'{num(total)} of it is left' if sign < 0 else f'it is {num(total)} times as large'} at {worst.path}"
        )
    group = proposals.alike(network, kernels)
    if creeping:
        message += _CREEPING
    elif sign < 0:
        moved = [row for row in network.through(worst) if row not in network.heads]
        bad = fading_limit(network.stands_still(moved, thresholds), network, thresholds, warning, bad)
    elif network.adaptive:
        if any(network.bypassed(row) for row in kernels):
            bad += thresholds.residual_growth_relief
        else:
            bad = max(bad, network.no_way_back(thresholds))
    severity: Severity = "bad" if decades >= bad else "warning"
    return [
        finding(
            rule,
            severity,
            single.path if single is not None else worst.path,
            message,
            observed=sign * decades,
            expected=0.0,
            threshold=sign * (bad if severity == "bad" else warning),
            unit="decades of activation rms",
            layers=[row.path for row in group],
            affected=[row.path for row in kernels],
            per_layer_factor=factor,
            kernels=count,
            worst=worst.path,
            exactly_zero=worst.stats.activation_rms == 0.0,
            remedy=proposals.for_signal(network, group, bias=single is not None),
            **creeping,
        )
    ]


def vanishing_signal(network: Network, thresholds: Thresholds) -> list[Finding]:
    """Activations that shrink layer by layer."""
    return _signal(
        network, thresholds, "vanishing-signal", -1.0, thresholds.signal_loss_warning, thresholds.signal_loss_bad
    )


def exploding_signal(network: Network, thresholds: Thresholds) -> list[Finding]:
    """Activations that grow layer by layer."""
    return _signal(
        network, thresholds, "exploding-signal", 1.0, thresholds.signal_growth_warning, thresholds.signal_growth_bad
    )


def collapsed_samples(network: Network, thresholds: Thresholds) -> list[Finding]:
    """The network maps every input to the same hidden representation: nothing is left to learn from."""
    if network.snapshot.batch_size < 2:
        return []
    known = [
        row.stats.activation_spread
        for row in network.rows
        if row.info.role == "input" and math.isfinite(row.stats.activation_spread)
    ]
    if known and max(known) < thresholds.spread_warning:
        return []  # the batch itself is one and the same sample
    spreads = [
        (row.stats.activation_spread, row)
        for row in network.last_hidden
        if math.isfinite(row.stats.activation_spread) and row.stats.activation_rms > 0.0
    ]
    if not spreads or max(spread for spread, _ in spreads) >= thresholds.spread_warning:
        return []
    spread, row = max(spreads, key=lambda pair: pair[0])
    severity: Severity = "bad" if spread < thresholds.spread_bad else "warning"
    kernels = list(network.through(row))
    group = proposals.alike(network, kernels)
    return [
        finding(
            "collapsed-samples",
            severity,
            row.path,
            f"all inputs give almost the same features at {row.path}: they vary by only {num(spread)} of their rms",
            observed=spread,
            expected=1.0,
            threshold=thresholds.spread_bad if severity == "bad" else thresholds.spread_warning,
            unit="standard deviation across samples over rms",
            layers=[r.path for r in group],
            affected=[r.path for r in kernels],
            worst=row.path,
            remedy=proposals.for_signal(network, group, bias=True),
        )
    ]
