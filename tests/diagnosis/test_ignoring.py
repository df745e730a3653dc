"""Findings that are meant: by rule, by layer, over several layers; and what the report and the command line do then."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from numpy_network import glorot, snapshot, weights

from keras_initaudit import cli
from keras_initaudit.diagnosis import RULES, diagnose
from keras_initaudit.diagnosis.ignoring import checked_ignore, split
from keras_initaudit.records import Finding, LayerInfo, Snapshot, Statistics
from keras_initaudit.report import BadInitializationError, Report
from keras_initaudit.tensorboard.summary import Writer


def found(rule: str, *affected: str, severity: Any = "bad", layer: str | None = None) -> Finding:
    first = layer or (affected[0] if affected else None)
    return Finding(rule, severity, first, "a sentence", {"affected": list(affected)} if affected else {})


EMA = found("no-gradient", "ema/dense", "ema/block/dense")


@pytest.mark.parametrize(
    ("finding", "ignore", "ignored"),
    [
        (EMA, ["no-gradient"], True),
        (EMA, ["no-gradient:ema/*"], True),
        (EMA, ["no-gradient:*"], True),
        (EMA, ["no-gradient:ema/dense"], False),  # one of two layers
        (EMA, ["no-gradient:ema/dense", "no-gradient:ema/block/*"], True),
        (EMA, ["no-gradient:EMA/*"], False),
        (EMA, ["dead-units", "dead-units:ema/*"], False),
        (EMA, [], False),
        (found("dead-units", "a:b", "a:c"), ["dead-units:a:?"], True),
        (found("dead-units", layer="dense_1"), ["dead-units:dense_[12]"], True),
        (found("dead-units", layer="dense_3"), ["dead-units:dense_[12]"], False),
        (found("initial-loss"), ["initial-loss"], True),
        (found("initial-loss"), ["initial-loss:*"], True),
        (found("initial-loss"), ["initial-loss:dense"], False),
    ],
)
def test_a_finding_is_ignored_where_every_layer_of_it_matches(
    finding: Finding, ignore: list[str], ignored: bool
) -> None:
    other = found("non-finite", "dense")
    assert split([finding, other], ignore) == (((other,), (finding,)) if ignored else ((finding, other), ()))


@pytest.mark.parametrize(
    ("ignore", "error", "message"),
    [
        ("duplicate-kernels", TypeError, "ignore must be a list"),
        (3, TypeError, "ignore must be a list"),
        ([3], TypeError, "got 3 in it"),
        (["duplicate-kernel"], ValueError, "no rule is named 'duplicate-kernel'; there are attention-entropy, collap"),
        (["ema/*"], ValueError, "no rule is named 'ema/\\*'"),
        (["no-gradient:"], ValueError, "no pattern behind its colon"),
    ],
)
def test_a_wrong_entry_is_named(ignore: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        checked_ignore(ignore)


def test_every_rule_can_be_ignored() -> None:
    slugs = [rule.slug for rule in RULES]
    assert checked_ignore(slugs) == tuple(slugs)
    assert checked_ignore(f"{slug}:a/*" for slug in slugs) == tuple(f"{slug}:a/*" for slug in slugs)


SHOT = Snapshot(0, (LayerInfo("ema/dense", 0, kind="Dense", weight="kernel"),), (Statistics(activation_rms=1.0),))


def test_an_ignored_finding_costs_no_verdict_and_is_a_line_in_every_form() -> None:
    report = Report(SHOT, (), (EMA, found("dead-units", "a<b>")))
    assert report.verdict == "healthy"
    assert report.raise_for_verdict("warning") is report
    assert "nothing found in 1 layer, 2 ignored" in report.headline
    for text, name in (
        (str(report), "a<b>"),
        (report.to_markdown(), "<code>a&lt;b&gt;</code>"),
        (report._repr_html_(), "a&lt;b&gt;"),
    ):
        assert text.count("ignored bad: ") == 2
        assert f"ignored bad: dead-units at {name}" in text
    data = json.loads(report.to_json())
    assert [finding["rule"] for finding in data["ignored"]] == ["no-gradient", "dead-units"]
    assert Report.from_json(report.to_json()).ignored == report.ignored
    del data["ignored"]  # as an earlier release wrote it
    assert Report.from_json(data).ignored == ()


def test_many_ignored_findings_stay_within_a_screen() -> None:
    report = Report(SHOT, (), tuple(found("dead-units", f"dense_{i}/{'x' * 90}") for i in range(200)))
    lines = str(report).splitlines()
    assert len(lines) < 20
    assert max(map(len, lines)) <= 80
    assert "and 196 more ignored" in lines


@pytest.mark.parametrize(
    ("severity", "verdict", "raises"),
    [
        ("bad", "bad", True),
        ("bad", "warning", True),
        ("warning", "bad", False),
        ("warning", "warning", True),
        (None, "bad", False),
        (None, "warning", False),
    ],
)
def test_a_verdict_raises_where_it_is_that_bad(severity: Any, verdict: Any, raises: bool) -> None:
    report = Report(SHOT, (found("dead-units", "ema/dense", severity=severity),) if severity else ())
    if raises:
        with pytest.raises(BadInitializationError) as raised:
            report.raise_for_verdict(verdict)
        assert raised.value.report is report
        assert str(report) in str(raised.value)
    else:
        assert report.raise_for_verdict(verdict) is report


def test_another_verdict_is_an_error() -> None:
    with pytest.raises(ValueError, match='verdict must be "warning" or "bad", got \'healthy\''):
        Report(SHOT).raise_for_verdict("healthy")  # type: ignore[arg-type]


def test_the_command_line_ignores_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    widths = [16, *[32] * 40, 4]
    shot = snapshot(weights(widths, glorot(widths)))
    rules = [finding.rule for finding in diagnose([shot])]
    assert rules
    Writer(tmp_path / "run").write(shot, ())
    call = ["report", str(tmp_path), "--fail-on", "warning"]
    assert cli.main(call) == 1
    capsys.readouterr()
    assert cli.main([*call, *(part for rule in rules for part in ("--ignore", rule))]) == 0
    assert f"ignored bad: {rules[0]}" in capsys.readouterr().out
    assert cli.main([*call, "--ignore", f"{rules[0]}:nowhere/*"]) == 1
    assert cli.main([*call, "--ignore", "nonsense"]) == 2
    assert "--ignore: no rule is named 'nonsense'; there are " in capsys.readouterr().err
