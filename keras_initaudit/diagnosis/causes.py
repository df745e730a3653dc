"""How findings become a diagnosis: causes first, each with its consequences, and what later audits add.

A fault has many symptoms: raw pixels saturate the units, which kills the gradient. A finding that another one explains
moves into the evidence of that one, and its severity still counts: a cause is as severe as the worst that it explains.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any

from ..records import Finding, Snapshot, Trial
from .judging import judge, rank
from .network import Network
from .rule import FIRST, Rule, find
from .rules import BY_SLUG, RANK, RULES
from .thresholds import Thresholds

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
    found = judge(_explain(network, _seen(RULES, network, limits)), trials, first.step)
    for i in range(1, len(snapshots)):
        for new in judge(_news(snapshots[: i + 1], limits), trials):
            found = _added(found, new)
    return tuple(sorted(found, key=lambda f: (rank(f), f.evidence.get("step", 0), RANK[f.rule])))


def _seen(rules: Iterable[Rule], network: Network, thresholds: Thresholds) -> list[Finding]:
    return [finding for rule in rules for finding in find(rule, network, thresholds)]


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
    return [_with_consequences(cause, consequences.get(i, [])) for i, cause in enumerate(causes)]


def _ordered(findings: list[Finding]) -> list[Finding]:
    """Causes first: the order of the table, save where the evidence makes a finding a consequence."""

    def place(f: Finding) -> float:
        behind = BY_SLUG[f.rule].follows(f)
        return float(RANK[f.rule]) if behind is None else -1.0 if behind == FIRST else RANK[behind] + 0.5

    return sorted(findings, key=place)


def _can_explain(cause: Finding, other: Finding) -> bool:
    """Whether one rule's findings are consequences of another's, wherever they are."""
    rule, consequence = BY_SLUG[cause.rule], BY_SLUG[other.rule]
    explains = consequence.last_resort or other.rule in (*rule.explains, *rule.explains_more(cause))
    return cause.rule != other.rule and explains and not consequence.own_cause(other)


def _explains(network: Network, cause: Finding, other: Finding) -> bool:
    if not _can_explain(cause, other):
        return False
    if BY_SLUG[cause.rule].explains_half:
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


def _with_consequences(cause: Finding, consequences: list[Finding]) -> Finding:
    if not consequences:
        return cause
    worst = min((cause, *consequences), key=rank).severity
    described = [_described(f) for f in consequences]
    return dataclasses.replace(cause, severity=worst, evidence={**cause.evidence, "consequences": described})


def _described(consequence: Finding) -> dict[str, Any]:
    """A consequence as it appears in the evidence of its cause."""
    return {"rule": consequence.rule, "layer": consequence.layer, "message": consequence.message}


def _added(findings: list[Finding], new: Finding) -> list[Finding]:
    """The findings with what a later audit adds: a new one, or a higher severity of a known one."""
    for i, known in enumerate(findings):
        consequences = [c["rule"] for c in known.evidence.get("consequences", ())]
        alike = known.layer == new.layer or known.severity == "bad" or BY_SLUG[new.rule].whole
        same = known.rule == new.rule and alike
        if not (same or new.rule in consequences or _can_explain(known, new)):
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
    early = snapshot.step <= _CONFIRMED_BY
    found = _seen((rule for rule in RULES if rule.later), network, thresholds)
    found = [f for f in found if BY_SLUG[f.rule].counts_later(f, early)]
    if early:
        found += [f for f in _postponed(first, network, thresholds) if f.severity == "bad"]
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
    only_heads = zeros and not start.has_gates and all(row in start.heads for row in zeros)
    hidden = ("gradient",) if only_heads else ("gradient", "signal")
    found = _seen((rule for rule in RULES if rule.postponed in hidden), network, thresholds)
    return found if only_heads else [f for f in found if f.evidence.get("exactly_zero", True)]
