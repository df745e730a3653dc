"""How severe a finding is: what a trial says where one was run, and what the limits say where none was.

A trial measures the start as a whole. So every finding of its audit gets its outcome, save those whose remedies the
other start did without: these are notes. It raises any finding; what is structural it does not lower.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence

from ..records import Finding, Outcome, Severity, Trial
from .rules import BY_SLUG

_GRADES: tuple[Severity, ...] = ("bad", "warning", "note")
"""Worst first."""


def judge(suspicions: Iterable[Finding], trials: Sequence[Trial] = ()) -> list[Finding]:
    """The findings of one audit, each as severe as the trial of that audit says, in the order that they came in.

    Args:
        suspicions: As severe as the limits of their rules say.
        trials: Those of the whole `fit`; one that was not run, or decided nothing, leaves the severities as they are.
    """
    outcomes = {trial.step: trial for trial in trials if trial.outcome not in (None, "undecided")}
    return [_judged(finding, outcomes.get(finding.evidence.get("step", 0))) for finding in suspicions]


def _judged(finding: Finding, trial: Trial | None) -> Finding:
    if trial is None:
        return finding
    outcome: Outcome | None = "note" if finding.key in trial.left_out else trial.outcome
    measured: Severity = next(grade for grade in _GRADES if grade == outcome)
    keeps = BY_SLUG[finding.rule].structural or finding.evidence.get("structural", False)
    severity = min(measured, finding.severity, key=_GRADES.index) if keeps else measured
    return dataclasses.replace(finding, severity=severity)


def rank(finding: Finding) -> int:
    """0 for the worst grade."""
    return _GRADES.index(finding.severity)
