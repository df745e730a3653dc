"""What a rule is made of: what it measures, the limits of that, its words, its remedy, and how a finding comes of them.

Measuring, judging and wording are apart: a rule measures without knowing a limit, and its words know what was measured.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from ..flow import Row
from ..records import Finding, Severity
from ..records.remedies import Reinitialize, Remedy, SetBias
from .network import Network
from .thresholds import Thresholds

FIRST = ""
"""What `Rule.follows` gives for a finding that comes before all others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """What a rule measured at one place."""

    amount: float
    """How much of the fault there is: what the limits of the rule bound."""
    harmful: float | None = None
    """How much of it is bad by itself, which the second limit bounds; `amount` where None, and nothing where NaN."""
    layer: str | None
    """Path of the layer to name; None for the whole model."""
    observed: Any = None
    """The amount in the unit that a person reads; `amount` itself where None."""
    expected: Any = None
    """What a healthy start has; that of the rule where None."""
    limit: Callable[[float], float] | None = None
    """From a limit of `amount` to one of `observed`."""
    affected: Sequence[str] = ()
    """Paths of the rows that have the fault; those of `change`, or the layer, where empty."""
    change: Sequence[Row] = ()
    """The layers whose weights the remedy changes."""
    severity: Severity | None = None
    """How severe it is where that is not a matter of degree."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """What else was measured: the words are made of it, and it is evidence."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One line of the table."""

    slug: str
    sees: tuple[str, ...]
    """Columns of the snapshot that it reads."""
    measure: Callable[[Network], Sequence[Case]]
    thresholds: tuple[str, ...]
    """Fields of `Thresholds`: the amount from which it is worth a look, and that from which it is bad where nothing
    could be tried. One alone is the first; with none, every case counts."""
    unit: str
    words: Callable[[Case], str]
    remedy: Callable[[Network, Case], Remedy | None]
    explains: tuple[str, ...]
    """Rules whose findings are its consequences where they touch the same part of the network."""
    reference: str
    expected: Any = 0.0
    less_is_worse: bool = False
    """Whether it is small amounts that are a fault."""
    follows: Callable[[Finding], str | None] = lambda _: None
    """The rule behind whose findings a finding of this one comes, where the evidence says that it is a consequence."""
    explains_more: Callable[[Finding], tuple[str, ...]] = lambda _: ()
    """What a finding of this rule explains beside `explains`, by its evidence."""
    last_resort: bool = False
    """Whether every other finding explains it: it is for what no other rule sees."""
    own_cause: Callable[[Finding], bool] = lambda _: False
    """Whether no other finding explains this one, by its evidence."""
    explains_half: bool = False
    """Whether it explains a finding only where it touches at least half of what that touches: a cause in one layer
    is none of what the others do."""
    whole: bool = False
    """Whether its findings are about the whole model, whichever layer they name: one of all audits is enough."""
    structural: bool = False
    """Whether a trial may not lower it: what is lost stays lost, though the samples of one batch do not need it."""
    later: bool = False
    """Whether a later audit can add it: most of what is a fault at the start is normal once a model has learnt."""
    counts_later: Callable[[Finding, bool], bool] = lambda finding, _: finding.severity == "bad"
    """Which findings of a later audit count; the second argument says whether the start is not over yet."""
    postponed: Literal["", "signal", "gradient"] = ""
    """What it sees, where zeros at the start may hide that until the audits after it."""


def find(rule: Rule, network: Network, thresholds: Thresholds) -> list[Finding]:
    """What one rule finds, as severe as its limits say."""
    found = []
    for case in rule.measure(network):
        look, bad = (*(getattr(thresholds, name) for name in rule.thresholds), None, None)[:2]
        if look is not None and not _reaches(rule, case.amount, look):
            continue
        is_bad = bad is not None and _reaches(rule, case.amount if case.harmful is None else case.harmful, bad)
        severity: Severity = case.severity or ("bad" if is_bad else "warning")
        found.append(_finding(rule, network, case, severity, bad if severity == "bad" and bad is not None else look))
    return found


def _reaches(rule: Rule, amount: float, limit: float) -> bool:
    return amount <= limit if rule.less_is_worse else amount >= limit


def _finding(rule: Rule, network: Network, case: Case, severity: Severity, limit: float | None) -> Finding:
    layers = [row.path for row in case.change]
    remedy = rule.remedy(network, case)
    if isinstance(remedy, Reinitialize | SetBias):
        remedy = dataclasses.replace(remedy, layers=tuple(layers))
    evidence = {
        "observed": case.amount if case.observed is None else case.observed,
        "expected": rule.expected if case.expected is None else case.expected,
        "threshold": limit if limit is None or case.limit is None else case.limit(limit),
        "unit": rule.unit,
        "layers": layers,
        "affected": list(case.affected or layers or ([case.layer] if case.layer else [])),
        **case.facts,
    }
    made = Finding(rule.slug, severity, case.layer, rule.words(case), evidence, reference=rule.reference)
    return made.with_remedy(remedy)
