"""Rules about the updates: how large the first ones are, and whether they change the weights at all."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ..flow import Row
from ..records import Finding, Severity, Snapshot
from ..records.remedies import Policy, Remedy
from . import proposals
from .network import Network
from .thresholds import Thresholds
from .wording import finding, num, several

_AGREEING = 3
"""Audits that have to agree before weights that stay as they are count as a start that cannot learn."""
USUAL_STEP = 1e-3
"""One update of a kernel over its size, as it usually is (Karpathy 2015)."""
_NARROW = {"bfloat16": "mixed_bfloat16", "float16": "mixed_float16"}
"""Types of few digits -> the policy under which layers compute in them, and keep weights in float32."""


def update_ratio(network: Network, thresholds: Thresholds) -> list[Finding]:
    """The first update changes the weights by far too much, or by nothing."""
    rows = [
        row
        for row in network.rows
        if row.info.role in ("layer", "weight")
        and len(row.info.weight_shape) >= 2
        and not row.info.lookup
        and math.isfinite(row.stats.update_log10)
        and row.stats.weight_rms > 0.3 * _least_rms(row)
    ]
    if not rows:
        return _steps_behind_normalisation(network, thresholds)
    fastest = max(rows, key=lambda row: row.stats.update_log10)
    rate = network.snapshot.learning_rate
    rising = max((network.snapshot.peak_rate or 0.0) / rate, 1.0) if rate else 1.0
    slowest = max(row.stats.update_log10 for row in rows) + math.log10(rising)  # warm-up starts from next to nothing
    if fastest.stats.update_log10 >= thresholds.update_high_warning:
        value = fastest.stats.update_log10
        severity: Severity = "bad" if value >= thresholds.update_high_bad else "warning"
        lower = proposals.learning_rate(rate and rate * 10.0 ** (-2.5 - value))
        return [
            finding(
                "update-ratio",
                severity,
                fastest.path,
                f"one update changes the weights of {fastest.path} by {num(10.0**value)} times their size; "
                "about 0.001 is usual",
                observed=value,
                expected=-3.0,
                threshold=thresholds.update_high_bad if severity == "bad" else thresholds.update_high_warning,
                unit="log10 of rms(update) / rms(weight)",
                layers=[network.owner(fastest).path],
                learning_rate=rate,
                remedy=lower,
            )
        ]
    if slowest <= thresholds.update_low_warning:
        return [
            finding(
                "update-ratio",
                "warning",
                None,
                f"one update changes no weight by more than {num(10.0**slowest)} times its size; about 0.001 is usual",
                observed=slowest,
                expected=-3.0,
                threshold=thresholds.update_low_warning,
                unit="log10 of rms(update) / rms(weight)",
                affected=[row.path for row in rows],
                learning_rate=rate,
                remedy=proposals.learning_rate(rate and rate * 10.0 ** (-3.0 - slowest)),
            )
        ]
    return []


def _steps_behind_normalisation(network: Network, thresholds: Thresholds) -> list[Finding]:
    """Before the first update: weights that are small in front of a layer normalisation, which hides it.

    What such weights make does not depend on their size, so that a step counts by its share of it, and small steps are
    long ones. In a chain the shares add up.
    """
    kernels = [
        row
        for row in network.hidden
        if row.stats.weight_rms > 0.0
        and network.feeds(row, "layer")
        and network.normalised_after(row)
        and not network.bypassed(row)
    ]
    rate = network.snapshot.learning_rate
    if not rate or len(kernels) < 2:
        return []
    kept = math.sqrt(network.persistence)
    steps = [
        rate / row.stats.weight_rms * (1.0 if network.adaptive else row.stats.gradient_rms * kept) for row in kernels
    ]
    together = len(steps) * sum(steps)
    if not together >= thresholds.normalised_steps_bad:
        return []
    group = proposals.alike(network, kernels)
    return [
        finding(
            "update-ratio",
            "bad",
            kernels[0].path,
            f"the weights of {several([row.path for row in kernels])} are small, which a layer normalisation hides: "
            f"the first update changes all {len(steps)} kernels at once, each by about "
            f"{num(sum(steps) / len(steps))} times its size",
            observed=together,
            expected=1.0,
            threshold=thresholds.normalised_steps_bad,
            unit="kernels x sum of rms(update) / rms(weight)",
            layers=[row.path for row in group],
            affected=[row.path for row in kernels],
            learning_rate=rate,
            remedy=proposals.for_kernels(network, group),
        )
    ]


def _least_rms(row: Row) -> float:
    """Rms of a small random start: a weight below it starts from zero, and moves by any multiple of its size."""
    return 0.1 / math.sqrt(row.fan_in)


def no_update(network: Network, thresholds: Thresholds) -> list[Finding]:
    """Kernels that have a gradient and do not change: the steps are smaller than the rounding of the weights.

    In float32 a step is lost where it is under half a unit in the last place. Few digits lose most of them, and Adam's
    beta_2 of 0.999 is 1 in bfloat16, so that its steps are exactly zero.
    """
    del thresholds  # exactly the same is exactly the same
    audits = (*network.before, network.snapshot)
    counts = {
        row.index: _times_unmoved(audits, row.index)
        for row in network.rows
        if row.info.trainable and not math.isnan(row.stats.update_zero)
    }
    stuck = [row for row in network.rows if counts.get(row.index)]
    if not stuck:
        return []
    times = max(counts[row.index] for row in stuck)
    every = len(stuck) == len(counts)
    what = f"all {len(stuck)} kernels" if every and len(stuck) > 1 else several([row.path for row in stuck])
    dtypes = [row.info.weight_dtype for row in stuck if row.info.weight_dtype in _NARROW]
    if dtypes:
        why = (
            f"the steps are smaller than the rounding of {dtypes[0]}; the dtype policy {_NARROW[str(dtypes[0])]} keeps "
            "the weights in float32"
        )
        remedy: Remedy | None = Policy(_NARROW[str(dtypes[0])])
        if dtypes[0] == "bfloat16" and network.adaptive:
            why += "; with Adam, beta_2=0.99 helps too, because 0.999 is 1 in bfloat16"
    else:
        why = "the steps are smaller than the rounding of the weights"
        rate = 1e-3 * min(_rate_of_unit_step(network, row) for row in stuck)
        larger = rate > (network.snapshot.learning_rate or math.inf)
        remedy = proposals.learning_rate(rate) if larger else None
    return [
        finding(
            "no-update",
            "bad" if times >= _AGREEING else "warning",
            None if every else stuck[0].path,
            f"the last update did not change {what}, although there is a gradient: {why}",
            observed=1.0,
            expected=0.0,
            threshold=1.0,
            unit="fraction of weights that did not change",
            affected=[row.path for row in stuck],
            audits=times,
            reason="precision" if dtypes else "small steps",
            learning_rate=network.snapshot.learning_rate,
            remedy=remedy,
        )
    ]


def _times_unmoved(audits: Sequence[Snapshot], index: int) -> int:
    """At how many audits a kernel is found as it was before the last update, the last audit included; else 0.

    Aside are gradients that were zero before or after the update (behind a zero that is meant), and a warm-up that has
    not come to its rate. What has ever moved can move: later, steps may become as small as they like.
    """
    count, last = 0, False
    for before, now in zip((None, *audits), audits, strict=False):
        stats = now.statistics[index]
        if math.isnan(stats.update_zero):
            continue
        if stats.update_zero < 1.0:
            return 0
        had = before is None or before.statistics[index].gradient_rms > 0.0
        last = had and stats.gradient_rms > 0.0 and not warming_up(before, now)
        count += last
    return count if last else 0


def warming_up(before: Snapshot | None, now: Snapshot) -> bool:
    """Whether the learning rate still rises to the peak of its schedule."""
    if before is None or None in (before.learning_rate, now.learning_rate, now.peak_rate):
        return False
    return bool(before.learning_rate < now.learning_rate < now.peak_rate)  # type: ignore[operator]  # none is None


def _rate_of_unit_step(network: Network, row: Row) -> float:
    """The learning rate whose first step is as large as the weights."""
    return row.stats.weight_rms / (1.0 if network.adaptive else row.stats.gradient_rms * network.persistence)
