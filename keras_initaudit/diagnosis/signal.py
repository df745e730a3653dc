"""Rules about scale and depth: does the signal reach the end, does its gradient reach the beginning.

Scales multiply from layer to layer, so everything here counts in decades (powers of ten) from a point of reference: the
input, or the last normalisation, forward; the last hidden layer backward. What a skip connection leads round, or a
normalisation puts right, is no fault.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ..records import Finding, Severity
from . import proposals
from .network import Network, Row, log10
from .thresholds import Thresholds
from .wording import finding, num, plural

_GATED_LOSS = 0.5
"""Decades that a gated recurrent layer takes off by nature: two gates at one half and a tanh. An LSTM as Keras ships it
passes on 0.3 of a unit signal, a GRU 0.4."""


@dataclass(frozen=True, slots=True)
class _Drift:
    """How far the rms of a row lies from its reference, in decades, and how many kernels lie between."""

    decades: float
    kernels: int
    reference: int
    source: float
    """Log10 of the rms at the reference."""


def drifts(network: Network, thresholds: Thresholds) -> dict[int, _Drift]:
    """Of each layer row, the decades that its rms has moved since the input or the last normalisation.

    What stands between the data and the first kernel (rescaling, flattening, concatenation) prepares the input: it is
    the point of reference, and not part of the way.
    """
    found: dict[int, _Drift] = {}
    data: set[int] = set()
    fresh: set[int] = set()
    heads = {row.index for row in network.heads}
    for i in network.order:
        row = network.rows[i]
        rms = row.output_rms if i in heads else row.stats.activation_rms
        if row.info.role not in ("input", "layer") or not math.isfinite(rms):
            continue
        above = [found[p] for p in network.parents[i] if p in found]
        prepared = not above or all(network.rows[p].info.role == "input" or p in data for p in network.parents[i])
        if prepared and not row.has_kernel and (row.info.role == "input" or not row.info.lookup):
            data.add(i)
        if row.normalises and rms > 0.0:
            found[i] = _Drift(0.0, 0, i, min(0.0, log10(rms)))
        elif i in data or row.info.lookup or not above or _meets_numbers(network, row):
            found[i] = _Drift(0.0, 0, i, log10(rms))
        elif (
            all(p in data and _unscaled(row, network.rows[p], thresholds) for p in network.parents[i])
            if row.has_kernel
            else fresh.issuperset(network.parents[i])
        ):
            # Data far from unit scale is a cause of its own, with the activation that it saturates; here only what the
            # layers after that do counts.
            found[i] = _Drift(0.0, 1, i, log10(rms))
            fresh.add(i)
        else:
            before = max(above, key=lambda d: d.decades + d.source)
            passed = max(d.kernels for d in above) + row.has_kernel
            entering = row.stats.entering_rms
            source = (log10(entering) if entering > 0.0 else before.source) - _GATED_LOSS * row.gated
            if _sums_positions(network, row):
                source += max(0.0, log10(rms) - before.source - before.decades)
            found[i] = _Drift(log10(rms) - source, passed, before.reference, source)
    return found


def _sums_positions(network: Network, row: Row) -> bool:
    """Whether a row without a kernel makes one of many positions: a sum over a set is meant to grow with the set."""
    above = [network.rows[p].info.shape for p in network.parents[row.index]]
    return not row.has_kernel and len(above) == 1 and len(row.info.shape) < len(above[0])


def _meets_numbers(network: Network, row: Row) -> bool:
    """Whether what arrives are numbers that the layer only looks something up by."""
    arriving = [network.rows[p].info for p in network.parents[row.index]]
    return all(info.role == "input" and info.lookup for info in arriving)


def _unscaled(row: Row, source: Row, thresholds: Thresholds) -> bool:
    """Whether what arrives at a first kernel is far from unit scale: data, or what a person's own code made of it."""
    entering = row.stats.entering_rms
    rms = entering if math.isfinite(entering) else source.stats.activation_rms
    return not thresholds.input_low_warning < rms < thresholds.input_high_warning


def _segment(network: Network, end: Row, reference: int) -> list[Row]:
    """The kernels between a point of reference and `end`."""
    after = [row for row in network.through(end) if row.index == end.index or network.is_ancestor(reference, row.index)]
    return [row for row in after if row.index != reference] or list(network.through(end))


def _main_step(network: Network, kernels: Sequence[Row], found: dict[int, _Drift], sign: float) -> Row | None:
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


def _creeping(network: Network, thresholds: Thresholds) -> dict[str, float]:
    """What a recurrent network loses on both ways where its gated layers stand still; empty where they do not.

    What the signal loses on its way up and the gradient on its way back multiplies in the gradient of a weight, so that
    neither needs to be far off by itself; behind gates that are half shut there is nothing left to bring it back. A
    branch may stand still behind a zero that lets nothing through at first (ReZero): what it is added to must move.
    """
    if not any(row.gated for row in network.hidden):  # before the dearer question of what leads round what
        return {}
    gated = sum(row.gated for row in network.trunk)
    if not gated or not network.stands_still(network.trunk, thresholds):
        return {}
    found = drifts(network, thresholds)
    forward = max((-found[row.index].decades for row in network.last_hidden if row.index in found), default=0.0)
    backward = max((-decades for decades, _ in attenuations(network).values()), default=0.0) - _GATED_LOSS * (gated - 1)
    lost = max(forward, 0.0) + max(backward, 0.0)
    if lost < thresholds.creeping_loss:
        return {}
    return {"lost_decades": lost, "pace_log10": network.pace(network.trunk)}


_CREEPING = "; with what the gradient loses on its way back, updates are too small to make up for it"


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
    creeping = _creeping(network, thresholds) if sign < 0 else {}
    if creeping:
        warning = bad = min(warning, thresholds.creeping_loss / 2.0)
    # What a head does to the scale is for the first loss to say.
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
        message = f"nothing of the signal is left at {worst.path}: it is exactly zero behind {single.path}"
        kernels = [single]
    elif single is not None:
        message = (
            f"the signal {verb} by a factor of {num(10.0**decades)} up to {worst.path}, "
            f"nearly all of it in {single.path}"
        )
        kernels = [single]
    elif worst.stats.activation_rms == 0.0:
        message = f"nothing of the signal is left at {worst.path}: it is exactly zero there"
    else:
        message = (
            f"each layer multiplies the signal by {num(factor)}; after {plural(count, 'layer')} "
            f"{num(total)} {'of it is left' if sign < 0 else 'times the input stands'} at {worst.path}"
        )
    group = proposals.alike(network, kernels)
    if creeping:
        message += _CREEPING
    elif sign < 0:
        moved = [row for row in network.through(worst) if row not in network.heads]
        bad = _fading(network.stands_still(moved, thresholds), network, thresholds, warning, bad)
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
            remedy=proposals.for_kernels(network, group, bias=single is not None),
            **creeping,
        )
    ]


def vanishing_signal(network: Network, thresholds: Thresholds) -> list[Finding]:
    """Activations that shrink layer by layer towards nothing."""
    return _signal(
        network, thresholds, "vanishing-signal", -1.0, thresholds.signal_loss_warning, thresholds.signal_loss_bad
    )


def _fading(still: bool | None, network: Network, thresholds: Thresholds, warning: float, bad: float) -> float:
    """The decades from which a signal or gradient that fades is bad.

    A loss that is worth a warning is bad where the weights stand still, and one that is bad is worth a warning where
    they move all the same.
    """
    if still is None:
        return bad + thresholds.adaptive_relief * network.adaptive
    return warning if still else bad + thresholds.moving_relief


def exploding_signal(network: Network, thresholds: Thresholds) -> list[Finding]:
    """Activations that grow layer by layer."""
    return _signal(
        network, thresholds, "exploding-signal", 1.0, thresholds.signal_growth_warning, thresholds.signal_growth_bad
    )


def attenuations(network: Network) -> dict[int, tuple[float, Row]]:
    """Of each hidden row: decades of its backward norm over that of the last hidden layer."""
    ends: list[tuple[Row, float]] = []
    for row in network.last_hidden:
        fed = [network.rows[c] for c in network.children[row.index] if network.rows[c] in network.heads]
        if any(head.stats.weight_rms > 0.0 for head in fed) and row.backward_norm > 0.0:
            ends.append((row, log10(row.backward_norm)))
    found: dict[int, tuple[float, Row]] = {}
    if not ends:
        return found
    for row in network.layers:
        if not math.isfinite(row.backward_norm):
            continue
        reached = [
            (level, end) for end, level in ends if end.index == row.index or network.is_ancestor(row.index, end.index)
        ]
        if reached:
            level, end = max(reached, key=lambda pair: pair[0])
            found[row.index] = (log10(row.backward_norm) - level, end)
    return found


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
    verb = "of it is left" if sign < 0 else "times as much arrives"
    first = next(iter(network.through(row)), row)
    message = (
        f"each layer multiplies the gradient by {num(factor)}; after {plural(count, 'layer')} "
        f"{num(10.0**decades)} {verb} at {row.path}"
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
        remedy=proposals.for_kernels(network, group),
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
    levels = attenuations(network)
    worst: tuple[float, int] | None = None
    warning, bad = thresholds.gradient_loss_warning, thresholds.gradient_loss_bad
    creeping = _creeping(network, thresholds)
    if creeping:
        warning = bad = min(warning, thresholds.creeping_loss / 2.0)
    junctions = {row.index for row in network.junctions}
    # A branch that a skip connection leads round may have a small gradient as long as what feeds it has not.
    upstream: dict[int, float] = {}
    for i in network.order:
        known = [upstream[p] for p in network.parents[i]] + ([levels[i][0]] if i in levels else [])
        upstream[i] = max(known, default=-math.inf)
    for i, (decades, _) in levels.items():
        if i not in junctions or (network.opening and network.rows[i].stats.backward_rms == 0.0):
            continue
        # What no data reaches, and only gives out a row of its own table, is a weight; this batch may do without it.
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
        bad = _fading(still, network, thresholds, warning, bad)
    row, end = network.rows[i], levels[i][1]
    return [_gradient_finding(network, "vanishing-gradient", row, end, decades, -1.0, warning, bad, **creeping)]


def exploding_gradient(network: Network, thresholds: Thresholds) -> list[Finding]:
    """dL/d(activation) that grows on its way back."""
    levels = attenuations(network)
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


def collapsed_samples(network: Network, thresholds: Thresholds) -> list[Finding]:
    """The network maps every input to the same hidden representation: nothing is left to learn from."""
    if network.snapshot.batch_size < 2:
        return []
    told = [
        row.stats.activation_spread
        for row in network.rows
        if row.info.role == "input" and math.isfinite(row.stats.activation_spread)
    ]
    if told and max(told) < thresholds.spread_warning:
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
            f"all inputs give the same features at {row.path}: they differ by {num(spread)} of their size",
            observed=spread,
            expected=1.0,
            threshold=thresholds.spread_bad if severity == "bad" else thresholds.spread_warning,
            unit="standard deviation across samples over rms",
            layers=[r.path for r in group],
            affected=[r.path for r in kernels],
            worst=row.path,
            remedy=proposals.for_kernels(network, group, bias=True),
        )
    ]


__all__ = [
    "attenuations",
    "collapsed_samples",
    "drifts",
    "exploding_gradient",
    "exploding_signal",
    "vanishing_gradient",
    "vanishing_signal",
]
