"""How severe a finding is: what a trial measured; where none was run, or it decided nothing, what the limits say."""

from __future__ import annotations

import dataclasses
from typing import Any

import odd_networks as odd
import pytest
from numpy_network import edited, glorot

from keras_initaudit.diagnosis import RULES, diagnose
from keras_initaudit.diagnosis.judging import judge, rank
from keras_initaudit.records import Finding, Outcome, Severity, Snapshot, Trial, verdict_of

STRUCTURAL = {"symmetric-units", "output-activation", "no-gradient", "no-update", "non-finite"}
"""A batch of 32 samples may be learnt without what is lost: a trial does not lower these."""


def found(rule: str, severity: Severity = "bad", layer: str | None = "dense", **evidence: Any) -> Finding:
    return Finding(rule, severity, layer, "a sentence", {"affected": ["dense"], **evidence})


def judged(finding: Finding, *trials: Trial) -> Severity:
    (after,) = judge([finding], trials)
    assert dataclasses.replace(after, severity=finding.severity) == finding
    return after.severity


GRADES: tuple[Severity, ...] = ("bad", "warning", "note")


@pytest.mark.parametrize("limits", GRADES)
@pytest.mark.parametrize("outcome", GRADES)
def test_a_finding_is_as_severe_as_the_trial_of_its_audit_says(limits: Severity, outcome: Outcome) -> None:
    for rule in RULES:
        worst = min(limits, outcome, key=GRADES.index)
        expected = worst if rule.slug in STRUCTURAL else outcome
        assert judged(found(rule.slug, limits), Trial(outcome)) == expected, rule.slug
    assert {rule.slug for rule in RULES if rule.structural} == STRUCTURAL


@pytest.mark.parametrize("limits", ["bad", "warning"])
def test_what_was_not_tried_or_not_decided_is_left_to_the_limits(limits: Severity) -> None:
    for trials in ((), (Trial(reason="the model has a train_step of its own"),), (Trial("undecided"),)):
        assert judged(found("vanishing-signal", limits), *trials) == limits
    assert judged(found("vanishing-signal", limits), Trial("note")) == "note"
    assert judged(found("vanishing-signal", limits), Trial("undecided", step=0), Trial("note", step=0)) == "note"


def test_what_the_other_start_did_without_is_a_note() -> None:
    trial = Trial("bad", left_out=("fan-mismatch:dense", "input-scale", "symmetric-units:dense"))
    assert judged(found("vanishing-signal", "warning"), trial) == "bad"
    assert judged(found("fan-mismatch"), trial) == "note"
    assert judged(found("fan-mismatch", layer="other"), trial) == "bad"
    assert judged(found("input-scale", "warning", None), trial) == "note"
    assert judged(found("symmetric-units"), trial) == "bad"  # and is lost all the same
    assert judged(found("symmetric-units", "warning"), trial) == "warning"


def test_kernels_that_stay_copies_are_not_lowered_and_those_that_only_start_so_are() -> None:
    assert judged(found("duplicate-kernels", structural=True), Trial("note")) == "bad"
    assert judged(found("duplicate-kernels", "warning", structural=False), Trial("note")) == "note"
    assert judged(found("duplicate-kernels", "warning", structural=False), Trial("bad")) == "bad"


def test_a_trial_decides_on_what_was_found_at_its_own_audit() -> None:
    first, second = found("input-scale", "warning"), found("update-ratio", "warning", step=2)
    assert [f.severity for f in judge([first, second], [Trial("bad")])] == ["bad", "warning"]
    assert [f.severity for f in judge([first, second], [Trial("note", step=2)])] == ["warning", "note"]
    assert [f.severity for f in judge([first, second], [Trial("bad"), Trial("note", step=2)])] == ["bad", "note"]


def test_the_order_of_findings_is_kept_and_the_worst_grade_ranks_first() -> None:
    findings = [found("input-scale", "warning"), found("dead-units"), found("initial-loss", "note")]
    assert judge(findings) == findings
    assert [f.rule for f in judge(findings, [Trial("note")])] == [f.rule for f in findings]
    assert [rank(f) for f in findings] == [1, 0, 2]


# --- whole diagnoses


def told(findings: tuple[Finding, ...]) -> list[tuple[str, Severity]]:
    return [(f.rule, f.severity) for f in findings]


DEEP = odd.plain(30, glorot)
"""A vanishing signal, bad by the limits."""


@pytest.mark.parametrize("outcome", GRADES)
def test_the_trial_decides_on_a_network(outcome: Severity) -> None:
    assert told(diagnose([DEEP])) == [("vanishing-signal", "bad")]
    findings = diagnose([DEEP], trials=[Trial(outcome)])
    assert told(findings) == [("vanishing-signal", outcome)]
    assert verdict_of(findings) == ("healthy" if outcome == "note" else outcome)
    # With another optimizer the limits say the same: it is the trial that tells them apart.
    assert told(diagnose([odd.of(DEEP, optimizer="Adam")])) == [("vanishing-signal", "bad")]
    assert told(diagnose([odd.of(DEEP, optimizer="Adam")], trials=[Trial(outcome)])) == [("vanishing-signal", outcome)]


def test_a_healthy_network_is_healthy_whatever_is_tried() -> None:
    assert diagnose([odd.healthy()], trials=[Trial("bad")]) == ()


def test_notes_are_listed_last() -> None:
    shot = edited(odd.gates(0.4), "dense_2", layer={"duplicate_of": "dense_0"})
    assert told(diagnose([shot])) == [("duplicate-kernels", "warning"), ("saturated-units", "warning")]
    trial = Trial("warning", left_out=("duplicate-kernels:dense_2",))
    assert told(diagnose([shot], trials=[trial])) == [("saturated-units", "warning"), ("duplicate-kernels", "note")]


def dead(shot: Snapshot, step: int) -> Snapshot:
    return odd.of(edited(shot, "dense_2", activation_dead=1.0), step=step)


def test_a_note_becomes_bad_where_training_shows_that_it_is() -> None:
    some = edited(odd.healthy(), "dense_2", activation_saturated=0.4, layer={"activation": "hard_tanh"})
    assert told(diagnose([some], trials=[Trial("note")])) == [("saturated-units", "note")]
    (same,) = diagnose([DEEP, dead(DEEP, 5)], trials=[Trial("note")])
    assert (same.rule, same.severity, same.evidence.get("step")) == ("vanishing-signal", "bad", None)
    assert [(c["rule"], c.get("step")) for c in same.evidence["consequences"]][-1] == ("dead-units", 5)
    # What later audits find that is no consequence of it stands beside it.
    beside = diagnose([some, dead(some, 5)], trials=[Trial("note")])
    assert told(beside) == [("dead-units", "bad"), ("saturated-units", "note")]


def test_what_a_later_audit_only_warns_of_makes_no_note_worse() -> None:
    start = odd.paced(odd.healthy(), -0.3)
    later = odd.of(odd.updated(-0.3)[1], step=1)
    assert told(diagnose([start, later])) == [("update-ratio", "warning")]
    assert told(diagnose([start, later], trials=[Trial("note")])) == [("update-ratio", "note")]
    worse = odd.of(odd.updated(0.7)[1], step=1)
    assert told(diagnose([start, worse], trials=[Trial("note")])) == [("update-ratio", "bad")]


def test_a_bad_trial_says_nothing_of_what_is_found_later() -> None:
    later = odd.of(odd.updated(-0.3)[1], step=1)
    assert told(diagnose([odd.healthy(), later], trials=[Trial("bad")])) == [("update-ratio", "warning")]
    assert told(diagnose([odd.healthy(), later], trials=[Trial("bad", step=1)])) == [("update-ratio", "bad")]
