"""Rules about the updates: how large the first ones are, whether they change the weights, and whether they diverge."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from ..flow import Row, log10
from ..records import Snapshot
from ..records.remedies import Policy, Remedy
from . import proposals
from .network import Network
from .rule import Case
from .wording import num, plural, several

_USUAL = (-7.0, -0.5)
"""Log10 of rms(update) / rms(weight): about -3 is usual (Karpathy 2015), and Adam's first steps reach -1.3 on wide
layers. Below -7 no usual training is long enough: 1e5 updates change the weights by 1 %."""
_MIDDLE = sum(_USUAL) / 2.0
_AGREEING = 3
"""Audits that have to agree before weights that stay as they are count as a start that cannot learn."""
USUAL_STEP = 1e-3
"""One update of a kernel over its size, as it usually is (Karpathy 2015)."""
_NARROW = {"bfloat16": "mixed_bfloat16", "float16": "mixed_float16"}
"""Types of few digits -> the policy under which layers compute in them, and keep weights in float32."""
_FIRST_STEPS: Mapping[str, Callable[[float], float]] = {
    "SGD": lambda gradient: gradient,
    **dict.fromkeys(("Adam", "AdamW", "Adamax", "Nadam", "Lion"), lambda _: 1.0),
    "RMSprop": lambda _: 1.0 / math.sqrt(0.1),
    "Adagrad": lambda gradient: gradient / math.sqrt(0.1 + gradient * gradient),
}
"""Optimizer -> the first step over the learning rate, by the rms of the gradient, as Keras's default settings make it;
the epsilon of an adaptive one is left out."""


def update_ratio(network: Network) -> list[Case]:
    """The update of a kernel is far from a thousandth of it; the amount is in decades from the middle of `_USUAL`.

    Before the first update, its size follows from the learning rate and the optimizer.
    """
    steps = [(step, row) for row in network.rows if math.isfinite(step := _relative_step(network, row))]
    if not steps:
        return []
    value, fastest = max(steps, key=lambda pair: pair[0])
    rate = network.snapshot.learning_rate
    rising = max((network.snapshot.peak_rate or 0.0) / rate, 1.0) if rate else 1.0
    slowest = value + math.log10(rising)  # warm-up starts from next to nothing
    high = value > _MIDDLE
    if not high and slowest > _MIDDLE:
        return []
    shown = value if high else slowest
    sign = 1.0 if high else -1.0
    return [
        Case(
            amount=abs(shown - _MIDDLE),
            layer=network.owner(fastest).path if high else None,
            observed=shown,
            limit=lambda decades: _MIDDLE + sign * decades,
            affected=[fastest.path] if high else [row.path for _, row in steps],
            facts={"learning_rate": rate, "expected_before": math.isnan(fastest.stats.update_log10)},
        )
    ]


def _relative_step(network: Network, row: Row) -> float:
    """Log10 of rms(update) / rms(weight) of a kernel; NaN where it is not known, or its size says nothing.

    A weight that starts near zero moves by any multiple of its size: that counts only where a normalisation hides the
    size.
    """
    info, stats = row.info, row.stats
    if info.role not in ("layer", "weight") or len(info.weight_shape) < 2 or info.lookup or not info.trainable:
        return math.nan
    least = 0.03 / math.sqrt(row.fan_in)  # of a small random start
    if not stats.weight_rms > 0.0 or not (stats.weight_rms > least or network.normalised_after(network.owner(row))):
        return math.nan
    if math.isfinite(stats.update_log10):
        return stats.update_log10
    first = _FIRST_STEPS.get(network.snapshot.optimizer)
    rate = network.snapshot.learning_rate
    if network.before or first is None or not rate or not stats.gradient_rms > 0.0:
        return math.nan
    return log10(rate * first(stats.gradient_rms) / stats.weight_rms)


def unusual_steps(case: Case) -> str:
    """The words of `update_ratio`."""
    will = "the first update changes" if case.facts["expected_before"] else "one update changes"
    size = num(10.0**case.observed)
    if case.observed > _MIDDLE:
        return f"{will} the weights of {case.layer} by {size} times their size; about 0.001 is usual"
    return f"{will} no weight by more than {size} times its size; about 0.001 is usual"


def other_rate(network: Network, case: Case) -> Remedy | None:
    """The rate with which the update is about what is usual."""
    del network
    rate, value = case.facts["learning_rate"], case.observed
    usual = -2.5 if value > _MIDDLE else -3.0
    return proposals.learning_rate(rate and rate * 10.0 ** (usual - value))


def divergence(network: Network) -> list[Case]:
    """The loss of the batch is far above the first one; the amount is their ratio."""
    if not network.before:
        return []
    first, now = network.before[0], network.snapshot
    start = max(first.loss, first.baseline_loss or 0.0)
    if not start > 0.0 or not math.isfinite(now.loss):
        return []
    return [
        Case(
            amount=now.loss / start,
            layer=None,
            severity="bad",
            facts={
                "first_loss": first.loss,
                "loss": now.loss,
                "updates": now.step,
                "learning_rate": first.learning_rate,
            },
        )
    ]


def diverged(case: Case) -> str:
    """The words of `divergence`."""
    first, now = num(case.facts["first_loss"]), num(case.facts["loss"])
    return (
        f"the loss on the same batch rose from {first} to {now} within {plural(case.facts['updates'], 'update')}: "
        "the updates are too large"
    )


def lower_rate(network: Network, case: Case) -> Remedy | None:
    """A tenth of the learning rate."""
    del network
    rate = case.facts["learning_rate"]
    return proposals.learning_rate(rate and rate / 10)


def no_update(network: Network) -> list[Case]:
    """Kernels that have a gradient and do not change: the steps are smaller than the rounding of the weights.

    In float32 a step is lost where it is under half a unit in the last place. Few digits lose most of them, and Adam's
    beta_2 of 0.999 is 1 in bfloat16, so that its steps are exactly zero. The amount is the number of audits
    that have seen it: exactly the same is exactly the same.
    """
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
    dtype = next((str(row.info.weight_dtype) for row in stuck if row.info.weight_dtype in _NARROW), None)
    return [
        Case(
            amount=times,
            layer=None if every else stuck[0].path,
            affected=[row.path for row in stuck],
            severity="bad" if times >= _AGREEING else "warning",
            facts={
                "reason": "small steps" if dtype is None else "precision",
                "dtype": dtype,
                "every": every,
                "optimizer": network.snapshot.optimizer,
                "learning_rate": network.snapshot.learning_rate,
                "least_rate": 1e-3 * min(_rate_of_unit_step(network, row) for row in stuck),
            },
        )
    ]


def rounded_away(case: Case) -> str:
    """The words of `no_update`."""
    stuck, dtype = case.affected, case.facts["dtype"]
    what = f"all {len(stuck)} kernels" if case.facts["every"] and len(stuck) > 1 else several(stuck)
    why = "the steps are smaller than the rounding of the weights"
    if dtype is not None:
        why = (
            f"the steps are smaller than the rounding of {dtype}; the dtype policy {_NARROW[dtype]} keeps the weights "
            "in float32"
        )
    if dtype == "bfloat16" and case.facts["optimizer"].startswith("Adam"):
        why += "; with Adam, beta_2=0.99 helps too, because 0.999 is 1 in bfloat16"
    return f"the last update did not change {what}, although there is a gradient: {why}"


def longer_steps(network: Network, case: Case) -> Remedy | None:
    """A dtype policy with more digits, or the rate with which a step is a thousandth of the weights."""
    del network
    dtype, rate = case.facts["dtype"], case.facts["least_rate"]
    if dtype is not None:
        return Policy(_NARROW[dtype])
    return proposals.learning_rate(rate) if rate > (case.facts["learning_rate"] or math.inf) else None


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
    first = _FIRST_STEPS.get(network.snapshot.optimizer)
    step = 1.0 if first is None else first(row.stats.gradient_rms)
    return row.stats.weight_rms / (step * network.persistence)
