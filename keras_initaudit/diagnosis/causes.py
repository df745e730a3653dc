"""How findings become a diagnosis: causes first, each with its consequences, and what later audits add.

A fault has many symptoms: raw pixels saturate the units, which kills the gradient. A finding that another one explains
moves into the evidence of that one, and its severity still counts: a cause is as severe as the worst that it explains.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

from ..records import Finding, Severity, Snapshot, Trial
from . import proposals
from .judging import judge, rank
from .network import Network
from .rules import BY_SLUG, RANK, RULES, SCALE, SYMPTOMS
from .thresholds import Thresholds
from .wording import finding, num, plural

_OF_LATER = ("no-update", "not-learning")
"""Rules that only a later audit can answer: their warnings count there too."""
_CONFIRMED_BY = 20
"""Updates after which a start counts as over: what was zero on purpose has changed by then."""


def diagnose(
    snapshots: Sequence[Snapshot], thresholds: Thresholds | None = None, trials: Sequence[Trial] = ()
) -> tuple[Finding, ...]:
    """Names what is wrong, worst first, each cause once.

    Args:
        snapshots: of one audit, in the order of their steps; the first is the one at initialization, the later ones add
            what only training shows.
        thresholds: the limits; the defaults where None.
        trials: what was tried; without, the limits alone say how severe a finding is.

    Returns:
        The findings; empty where nothing is wrong. A finding of a later audit carries its step in `evidence["step"]`.

    Raises:
        TypeError: where a single snapshot is given in place of a sequence.

    Example:
        >>> from keras_initaudit.records import LayerInfo, Snapshot, Statistics
        >>> hidden = LayerInfo("hidden", 0, kind="Dense", weight="kernel", weight_shape=(4, 8))
        >>> head = LayerInfo("head", 1, kind="Dense", weight="kernel", weight_shape=(8, 3), inputs=("hidden",))
        >>> same = Statistics(weight_identical=1.0, gradient_identical=1.0, weight_rms=0.05)
        >>> different = Statistics(weight_identical=0.0, gradient_identical=0.0, weight_rms=0.3)
        >>> [(f.rule, f.layer, f.severity) for f in diagnose([Snapshot(0, (hidden, head), (same, different))])]
        [('symmetric-units', 'hidden', 'bad')]
    """
    given: object = snapshots
    if not isinstance(given, Sequence):  # a lone snapshot is the usual slip
        received = type(given).__name__
        raise TypeError(
            f"diagnose: snapshots must be a sequence of snapshots, got {received}; write diagnose([snapshot])"
        )
    limits = thresholds if thresholds is not None else Thresholds()
    if not snapshots:
        return ()
    first = snapshots[0]
    network = Network(first)
    found = judge(_explain(network, [f for rule in RULES for f in rule.find(network, limits)]), trials)
    for i in range(1, len(snapshots)):
        for new in judge(_news(snapshots[: i + 1], limits), trials):
            found = _added(found, new)
    referenced = [dataclasses.replace(f, reference=BY_SLUG[f.rule].reference) for f in found]
    return tuple(sorted(referenced, key=lambda f: (rank(f), f.evidence.get("step", 0), RANK[f.rule])))


def seen_by(rule: str, snapshot: Snapshot, thresholds: Thresholds | None = None) -> list[Finding]:
    """What one rule finds in a snapshot, also where another finding explains it in `diagnose`."""
    limits = thresholds if thresholds is not None else Thresholds()
    return BY_SLUG[rule].find(Network(snapshot), limits) if rule in BY_SLUG else []


def _explain(network: Network, findings: list[Finding]) -> list[Finding]:
    """Moves each finding that another one explains into the evidence of that one, from the first causes on."""
    causes: list[Finding] = []
    consequences: dict[int, list[Finding]] = {}
    for found in _ordered(findings):
        home = next((i for i, cause in enumerate(causes) if _explains(network, cause, found)), None)
        if home is None:
            causes.append(found)
        else:
            consequences.setdefault(home, []).append(found)
    return [_with_consequences(network, cause, consequences.get(i, [])) for i, cause in enumerate(causes)]


def _ordered(findings: list[Finding]) -> list[Finding]:
    """Causes first: the order of the table, with the exceptions that the evidence decides."""

    def place(f: Finding) -> float:
        # Steps that are far too long can cause any of the other faults.
        if f.rule == "update-ratio" and f.severity == "bad":
            return -1.0
        # NaN from an overflow is the consequence of an exploding signal, not its cause.
        if f.rule == "non-finite" and f.evidence.get("origin") in ("forward", "backward", "loss"):
            return RANK["exploding-signal"] + 0.5
        # Only a layer whose units are all dead stops the signal; many dead units are a consequence of a vanishing one.
        if f.rule == "dead-units" and f.evidence["observed"] < 1.0:
            return RANK["vanishing-signal"] + 0.5
        return float(RANK[f.rule])

    return sorted(findings, key=place)


def _explains(network: Network, cause: Finding, other: Finding) -> bool:
    explains = BY_SLUG[cause.rule].explains
    if cause.rule == "dead-units" and cause.evidence["observed"] >= 1.0:
        explains = (*SCALE, *SYMPTOMS, "no-gradient")
    if cause.rule == other.rule or other.rule not in explains or other.evidence.get("reason") == "precision":
        return False
    if cause.rule == "fan-mismatch":
        touched = set(other.evidence["affected"])
        return 2 * len(touched & set(cause.evidence["affected"])) >= len(touched)
    return _related(network, cause, other)


def _related(network: Network, cause: Finding, other: Finding) -> bool:
    """Whether two findings touch the same part: a layer of one is, or feeds, or is fed by, a layer of the other."""
    if cause.layer is None or other.layer is None:
        return True
    index = {row.path: network.place(row).index for row in network.rows}
    ours = [index[p] for p in cause.evidence["affected"] if p in index]
    theirs = [index[p] for p in other.evidence["affected"] if p in index]
    if any(network.rows[i].info.role == "target" for i in ours):
        return True  # the targets act on the whole network, from its end
    return any(a == b or network.is_ancestor(a, b) or network.is_ancestor(b, a) for a in ours for b in theirs)


def _with_consequences(network: Network, cause: Finding, consequences: list[Finding]) -> Finding:
    if not consequences:
        return cause
    # Most optimizers recover from unscaled data where the weights are good: the rule itself says whether this one does.
    counted = () if cause.rule == "input-scale" else tuple(consequences)
    if cause.rule == "exploding-signal" and network.adaptive:  # the size of the gradient is divided out again
        counted = tuple(f for f in counted if f.rule != "exploding-gradient")
    worst: Severity = "bad" if any(f.severity == "bad" for f in (cause, *counted)) else "warning"
    described = [_described(f) for f in consequences]
    return dataclasses.replace(cause, severity=worst, evidence={**cause.evidence, "consequences": described})


def _described(consequence: Finding) -> dict[str, Any]:
    """A consequence as it appears in the evidence of its cause."""
    return {"rule": consequence.rule, "layer": consequence.layer, "message": consequence.message}


def _added(findings: list[Finding], new: Finding) -> list[Finding]:
    """The findings with what a later audit adds: a new one, or a higher severity of a known one."""
    for i, known in enumerate(findings):
        consequences = [c["rule"] for c in known.evidence.get("consequences", ())]
        same = known.rule == new.rule and (known.layer == new.layer or known.severity == "bad")
        explained = new.rule in BY_SLUG[known.rule].explains and new.evidence.get("reason") != "precision"
        if not (same or new.rule in consequences or explained):
            continue
        if known.severity != "bad" and new.severity == "bad":
            worse = new if same else _worse(known, new)
            return [*findings[:i], worse, *findings[i + 1 :]]
        return findings
    return [*findings, new]


def _worse(cause: Finding, consequence: Finding) -> Finding:
    """A warning that becomes bad, because training has shown its consequence."""
    described = _described(consequence) | {"step": consequence.evidence["step"]}
    evidence = {**cause.evidence, "consequences": [*cause.evidence.get("consequences", ()), described]}
    return dataclasses.replace(cause, severity="bad", evidence=evidence)


def _news(snapshots: Sequence[Snapshot], thresholds: Thresholds) -> list[Finding]:
    """What the last of these audits adds: NaN, units that died, a loss that diverged, weights that do not change.

    And what could not be judged at the first audit because of zeros.
    """
    first, *_, snapshot = snapshots
    network = Network(snapshot, tuple(snapshots[:-1]))
    rules = [rule for rule in RULES if rule.later]
    early = snapshot.step <= _CONFIRMED_BY
    found = [f for rule in rules for f in rule.find(network, thresholds)]
    found = [f for f in found if (early if f.rule == "update-ratio" else f.severity == "bad" or f.rule in _OF_LATER)]
    if early:
        found += [f for f in _postponed(first, network, thresholds) if f.severity == "bad"]
    diverged = _diverged(first, snapshot, thresholds)
    if diverged:  # of two signs of steps that are too long, the clearer one
        found = [f for f in found if f.rule != "update-ratio"] + diverged
    explained = _explain(network, found)
    return [dataclasses.replace(f, evidence={**f.evidence, "step": snapshot.step}) for f in explained]


def _postponed(first: Snapshot, network: Network, thresholds: Thresholds) -> list[Finding]:
    """What the rules find now that could not be judged at the first audit: zeros blocked the signal or the gradient.

    A head of zeros blocks the gradient of all layers before it. Behind any other zero only what is still exactly zero
    counts: a gate that was zero until now passes little.
    """
    start = Network(first)
    zeros = [row for row in start.rows if row.info.trainable and row.stats.weight_rms == 0.0]
    if not zeros and not start.starts_at_zero:
        return []
    slugs = ("vanishing-signal", "vanishing-gradient", "exploding-gradient", "no-gradient", "symmetric-units")
    found = [f for slug in slugs for f in BY_SLUG[slug].find(network, thresholds)]
    if zeros and not start.has_gates and all(row in start.heads for row in zeros):
        return [f for f in found if f.rule != "vanishing-signal"]
    return [f for f in found if f.evidence.get("exactly_zero", not f.rule.endswith(("-signal", "ing-gradient")))]


def _diverged(first: Snapshot, snapshot: Snapshot, thresholds: Thresholds) -> list[Finding]:
    start = max(first.loss, first.baseline_loss or 0.0)
    if not (start > 0.0 and math.isfinite(snapshot.loss) and snapshot.loss >= thresholds.divergence * start):
        return []
    rate = first.learning_rate
    return [
        finding(
            "update-ratio",
            "bad",
            None,
            f"the loss on the same batch rose from {num(first.loss)} to {num(snapshot.loss)} within "
            f"{plural(snapshot.step, 'update')}: the updates are too large",
            observed=snapshot.loss / start,
            expected=1.0,
            threshold=thresholds.divergence,
            unit="loss over the first loss",
            learning_rate=rate,
            remedy=proposals.learning_rate(rate and rate / 10),
        )
    ]
