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


def judge(suspicions: Iterable[Finding], trials: Sequence[Trial] = (), step: int = 0) -> list[Finding]:
    """The findings of one audit, each as severe as the trial of that audit says, in the order that they came in.

    Args:
        suspicions: As severe as the limits of their rules say.
        trials: Those of the whole `fit`; one that was not run, or decided nothing, leaves the severities as they are.
        step: That of the audit, where the evidence does not say it.
    """
    outcomes = {trial.step: trial for trial in trials if trial.outcome not in (None, "undecided")}
    return [_judged(finding, outcomes.get(finding.evidence.get("step", step))) for finding in suspicions]


def _judged(finding: Finding, trial: Trial | None) -> Finding:
    if trial is None:
        return finding
    outcome: Outcome | None = "note" if finding.key in trial.left_out else trial.outcome
    measured: Severity = next(grade for grade in _GRADES if grade == outcome)
    severity = min(measured, finding.severity, key=_GRADES.index) if is_structural(finding) else measured
    return dataclasses.replace(finding, severity=severity)


def is_structural(finding: Finding) -> bool:
    """Whether what was found stays, though the samples of one batch do not need what is lost."""
    return BY_SLUG[finding.rule].structural or bool(finding.evidence.get("structural", False))


def rank(finding: Finding) -> int:
    """0 for the worst grade."""
    return _GRADES.index(finding.severity)
