"""What a report shows of a trial: the curves as text and as a picture, the budget, and what the limits judged."""

from __future__ import annotations

import dataclasses
import html
import math
import random
import re
import xml.etree.ElementTree as ElementTree
from typing import Any

import pytest
from numpy_network import he, snapshot, weights

from keras_initaudit.records import Curve, Finding, Trial
from keras_initaudit.report import Report, colours, trials

SHOT = snapshot(weights([16, 32, 32, 4], he([16, 32, 32, 4])), "relu")
WORDS = "with the remedy, 8 updates do; as it is, 24 do not"


def curve(*losses: float, needed: int | None = None, constant: float = 2.0, at_targets: float = 0.0) -> Curve:
    return Curve(losses, constant, at_targets, needed)


FALLING = curve(*[2.0 - i / 7 for i in range(8)], needed=8)
BAD = Trial("bad", curve(*[2.0] * 24), FALLING, 1000)


def found(rule: str, severity: Any = "bad", **more: Any) -> Finding:
    return Finding(rule, severity, "dense_0", f"What {rule} saw.", **more)


def forms(report: Report) -> dict[str, str]:
    """Every form as plain text, with single spaces."""
    page = html.unescape(re.sub(r"<[^>]*>", " ", report._repr_html_()))
    texts = {"text": str(report), "markdown": report.to_markdown().replace("\\", ""), "html": page}
    return {form: " ".join(text.split()) for form, text in texts.items()}


def drawings(report: Report) -> tuple[int, int, int]:
    """How many curves each form has."""
    page = report._repr_html_()
    return (
        len(re.findall(r"^  loss (?:with|as|of) ", str(report), re.M)),
        len(re.findall(r"^- loss (?:with|as|of) ", report.to_markdown(), re.M)),
        2 * page.count('aria-label="Loss as it is'),
    )


# --- notes --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("severities", "headline"),
    [
        ((), "healthy before the first update: nothing found in 3 layers"),
        (("note",), "healthy before the first update: nothing harmful found in 3 layers, 1 note"),
        (("note", "note"), "healthy before the first update: nothing harmful found in 3 layers, 2 notes"),
        (("bad", "note", "note"), "bad initialization before the first update: rule-0 at dense_0"),
        (("note", "warning"), "warning before the first update: rule-1 at dense_0"),
        (("bad", "warning", "note"), "bad initialization before the first update: rule-0 at dense_0 and 1 more"),
    ],
)
def test_the_headline_counts_notes_apart_from_faults(severities: Any, headline: str) -> None:
    report = Report(SHOT, tuple(found(f"rule-{i}", severity) for i, severity in enumerate(severities)))
    assert report.headline == headline


def test_the_headline_counts_what_is_ignored_too() -> None:
    report = Report(SHOT, (found("a", "note"),), (found("b"),))
    assert report.headline.endswith("nothing harmful found in 3 layers, 1 note, 1 ignored")


def test_notes_come_last_in_every_form() -> None:
    for text in forms(Report(SHOT, (found("noted", "note"), found("seen", "warning")))).values():
        text = text[text.index("seen at", text.index("Init Audit:") + 60) :]  # behind the headline
        assert text.index("What seen saw.") < text.index("What noted saw.")


def test_a_note_is_short_in_a_terminal_and_has_its_remedy_elsewhere() -> None:
    told = forms(Report(SHOT, (found("noted", "note", remedy="kernel_initializer = None", proof=WORDS),)))
    assert "note: noted at dense_0 What noted saw." in told["text"]
    for form, text in told.items():
        assert ("kernel_initializer" in text) == ("With the remedy" in text) == (form != "text")


# --- what stands where --------------------------------------------------------------------------------------------


def test_the_sentence_and_the_curves_of_a_trial_stand_once_beside_the_worst_finding() -> None:
    findings = tuple(found(f"rule-{i}", severity, proof=WORDS) for i, severity in enumerate(("note", "bad", "warning")))
    report = Report(SHOT, findings, trials=(BAD,))
    for form, text in forms(report).items():
        assert text.count("Measured: With the remedy, 8 updates do; as it is, 24 do not.") == 1, form
        assert text.index("What rule-1 saw.") < text.index("Measured:") < text.index("What rule-2 saw."), form
        assert "Judged by the limits" not in text
    assert drawings(report) == (2, 2, 2)
    others = [dataclasses.replace(f, proof=f"{WORDS}, {i}") for i, f in enumerate(findings)]
    assert str(Report(SHOT, tuple(others))).count("Measured:") == 2  # those of other trials stay


def test_each_trial_is_drawn_beside_what_was_found_at_its_audit() -> None:
    later = dataclasses.replace(BAD, step=20)
    findings = (found("first"), found("second"), found("third", evidence={"step": 20}))
    assert drawings(Report(SHOT, findings, trials=(BAD, later))) == (4, 4, 4)
    assert drawings(Report(SHOT, findings[:2], trials=(BAD, later))) == (2, 2, 2)
    report = Report(SHOT, findings, trials=(later,))
    text = str(report)
    assert drawings(report) == (2, 2, 2)
    assert text.index("third at") < text.index("  loss of another start")
    report = Report(dataclasses.replace(SHOT, step=100), findings[:2], trials=(dataclasses.replace(BAD, step=100),))
    assert drawings(report) == (2, 2, 2)  # the first audit of a model that was trained before
    assert drawings(Report(SHOT, (), trials=(BAD, later))) == (0, 0, 0)
    assert drawings(Report(SHOT, findings)) == (0, 0, 0)


def test_a_start_that_proves_nothing_is_another_start() -> None:
    for proof, name in ((WORDS, "with the remedy"), (None, "of another start")):
        report = Report(SHOT, (found("seen", proof=proof),), trials=(BAD,))
        assert f"  loss {name}  2 " in str(report)
        assert f"- loss {name}: 2 `" in report.to_markdown()
        assert f">{name.removeprefix('of ')} (solid)<" in report._repr_html_()
        for text in forms(report).values():
            told = (
                "With another start of the model, 8 updates on this batch bring the loss half of the way to the targets"
            )
            assert (f"Measured: {told}; as it is, 24 do not." in text) == (proof is None)


@pytest.mark.parametrize(
    ("trial", "said"),
    [
        (Trial(reason="it is switched off", allowed=0), "Judged by the limits, not tried: it is switched off."),
        (Trial(), "Judged by the limits, not tried: the reason is not known."),
        (Trial("undecided", FALLING, FALLING, 40), "Judged by the limits: the trial decided nothing."),
        (BAD, None),
    ],
)
def test_where_no_trial_decided_the_report_says_that_the_limits_did(trial: Trial, said: str | None) -> None:
    for form, text in forms(Report(SHOT, (found("seen"),), trials=(trial,))).items():
        assert said in text if said else "Judged by" not in text, form
    for text in forms(Report(SHOT, (), trials=(trial,))).values():
        assert "Judged by" not in text
    for text in forms(Report(SHOT, (found("seen"),))).values():
        assert "Judged by" not in text


def test_a_trial_of_an_audit_that_found_nothing_is_not_told() -> None:
    report = Report(SHOT, (found("seen"),), trials=(BAD, Trial(reason="an update takes 9 s", step=20)))
    for text in forms(report).values():
        assert "Judged by" not in text


def test_what_the_limits_judged_earlier_is_said_to_be_of_that_step() -> None:
    trial = Trial(reason="the model is new")
    report = Report(dataclasses.replace(SHOT, step=20), (found("seen"),), trials=(trial,), first_step=0)
    for text in forms(report).values():
        assert "Judged by the limits at step 0, not tried: the model is new." in text


def test_a_reason_is_text_and_no_more_than_three_lines_of_a_terminal() -> None:
    trial = Trial(reason="it failed (ValueError: <script>alert(1)</script>\x1b[2J " + "tensor " * 200 + ")")
    report = Report(SHOT, (found("seen"),), trials=(trial,))
    assert "<script" not in report._repr_html_() + report.to_markdown()
    assert "\x1b" not in str(report)
    lines = str(report).splitlines()
    start = next(i for i, line in enumerate(lines) if "Judged" in line)
    assert lines[start + 3] == ""
    assert max(map(len, lines)) <= 80


@pytest.mark.parametrize(
    ("as_is", "remedied", "allowed", "said"),
    [
        (curve(*[2.0] * 12), FALLING, 12, "The budget allowed at most 12 updates to each start."),
        (FALLING, curve(2.0), 1, "The budget allowed at most 1 update to each start."),
        (
            curve(*[2.0] * 17),
            FALLING,
            20,
            "The budget allowed at most 20 updates to each start.",
        ),  # late, by what was left
        (curve(*[2.0] * 16, needed=16), FALLING, 1000, None),
        (curve(*[2.0] * 24), FALLING, None, None),
        (FALLING, FALLING, 8, None),  # both arrived within it
    ],
)
def test_what_was_allowed_is_said_where_it_cut_a_run_short(
    as_is: Curve, remedied: Curve, allowed: int | None, said: str | None
) -> None:
    trial = Trial("warning", as_is, remedied, allowed)
    for form, text in forms(Report(SHOT, (found("seen"),), trials=(trial,))).items():
        assert said in text if said else "budget" not in text, form


# --- the curves as text -------------------------------------------------------------------------------------------


def test_a_line_has_the_losses_at_its_ends_and_a_level_for_each() -> None:
    remedied, as_is = trials.lines(BAD)
    assert remedied == ("loss with the remedy", "2", "\u2588\u2587\u2586\u2585\u2584\u2583\u2582\u2581", "1")
    assert as_is == ("loss as it is", "2", "\u2588" * 24, "2")
    plain = trials.lines(BAD, "with the remedy", trials.BLOCKS_ASCII, trials.CROSS_ASCII)
    assert [one.levels for one in plain] == ["#*+=-:._", "#" * 24]


def test_curves_that_hardly_move_are_flat() -> None:
    still = Trial("undecided", curve(2.0, 1.99, 2.0, 1.99), curve(2.0, 1.98, 1.99, 1.97))
    assert {level for one in trials.lines(still) for level in one.levels} == {trials.BLOCKS[-1]}


def test_long_curves_are_shortened_by_the_same_factor() -> None:
    trial = Trial("bad", curve(*[2.0] * 300), curve(*[2.0 - 0.005 * i for i in range(100)]))
    remedied, as_is = (one.levels for one in trials.lines(trial))
    assert (len(remedied), len(as_is)) == (10, 30)
    assert len(str(Report(SHOT, (found("seen"),), trials=(trial,)))) > 0
    assert list(remedied) == sorted(remedied, reverse=True)


def test_what_is_not_finite_is_crossed_and_what_is_huge_does_not_flatten_the_rest() -> None:
    as_is = curve(2.0, 1e30, math.inf, math.nan, 2.0)
    remedied, broken = trials.lines(Trial("bad", as_is, FALLING))
    high, low = trials.BLOCKS[-1], trials.BLOCKS[0]
    assert broken.levels[1:4] == f"{high}{trials.CROSS}{trials.CROSS}"
    assert broken.levels[0] == broken.levels[4] not in (high, low)
    assert remedied.levels[-1] == low
    lost = trials.lines(Trial("bad", curve(math.nan, math.nan), FALLING))[1]
    assert lost == ("loss as it is", "not finite", trials.CROSS * 2, "not finite")


def test_a_remedy_that_scales_the_targets_has_the_same_scale() -> None:
    raw = curve(*[4e6] * 24, constant=4e6)
    remedied, as_is = trials.lines(Trial("bad", raw, FALLING))
    assert as_is == ("loss as it is", "4e6", trials.BLOCKS[-1] * 24, "4e6")
    assert remedied.levels == trials.lines(BAD)[0].levels


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "cp437", "nothing-known"])
def test_an_output_without_these_characters_gets_plain_ones(encoding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    report = Report(SHOT, (found("seen", proof=WORDS),), trials=(BAD,))
    assert trials.BLOCKS in str(report).replace(trials.BLOCKS[::-1], trials.BLOCKS)

    class Output:
        pass

    Output.encoding = encoding  # type: ignore[attr-defined]
    monkeypatch.setattr("sys.stdout", Output())
    assert str(report).isascii()
    assert "  loss with the remedy  2 #*+=-:._ 1\n" in str(report)
    assert "\n  loss as it is         2 ########################" in str(report)


# --- the curves as a picture --------------------------------------------------------------------------------------


def picture(trial: Trial) -> tuple[dict[str, list[tuple[float, float]]], dict[str, float], list[str]]:
    """The points of each curve by colour, the heights of the lines by their label, and all texts."""
    tree = ElementTree.fromstring(trials.svg(trial))
    points = {
        element.attrib["stroke"]: [tuple(map(float, p.split(","))) for p in element.attrib["points"].split()]
        for element in tree.iter()
        if element.tag.endswith("polyline")
    }
    texts = [element for element in tree.iter() if element.tag.endswith("text")]
    on_axis = [text for text in texts if text.attrib.get("text-anchor") == "end"]
    heights = {text.text or "": float(text.attrib["y"]) - 4 for text in on_axis}
    return points, heights, [text.text or "" for text in texts]  # type: ignore[return-value]


def test_the_picture_has_both_curves_and_the_best_constant_answer() -> None:
    points, heights, texts = picture(BAD)
    remedied, as_is = points[colours.REMEDIED], points[colours.AS_IS]
    assert (len(remedied), len(as_is)) == (8, 24)
    assert remedied[0] == as_is[0]
    assert [y for _, y in as_is] == pytest.approx([heights["2"]] * 24, abs=0.11)
    middle = (heights["2"] + heights["0"]) / 2.0
    assert remedied[-1][1] == pytest.approx(middle, abs=0.11)  # from 2 to 1, half of the way to 0
    assert as_is[7][0] == remedied[7][0]  # after as many updates
    assert {"loss", "best constant answer", "updates on this batch", "0", "23"} <= set(texts)


def test_the_axis_of_a_remedy_that_scales_the_targets_is_the_way() -> None:
    points, heights, texts = picture(Trial("bad", curve(*[4e6] * 24, constant=4e6), FALLING))
    assert [y for _, y in points[colours.AS_IS]] == pytest.approx([heights["100 %"]] * 24, abs=0.11)
    assert "part of the way left" in texts
    assert "loss" not in texts


def test_the_loss_at_the_targets_is_written_as_zero_where_it_is_next_to_nothing() -> None:
    ends = {"constant": 2.3, "at_targets": 1.2e-7}
    _, _, texts = picture(Trial("bad", curve(2.3, 2.3, **ends), curve(2.3, 1.0, **ends)))
    assert {"2.3", "0"} <= set(texts)
    ends = {"constant": 2.3, "at_targets": 0.4}
    _, heights, _ = picture(Trial("bad", curve(2.3, 2.3, **ends), curve(2.3, 1.0, **ends)))
    assert heights["0.4"] > heights["2.3"]


def test_the_picture_crosses_what_is_not_finite() -> None:
    drawn = trials.svg(Trial("bad", curve(2.0, math.nan, math.inf, 2.0), FALLING))
    assert drawn.count("<title>as it is: not finite</title>") == 2
    assert "nan" not in drawn
    assert "inf" not in drawn.replace("finite", "")
    assert "<path" not in trials.svg(BAD)


# --- whatever a trial holds ---------------------------------------------------------------------------------------


def test_no_trial_breaks_a_report() -> None:
    rng = random.Random(0)
    numbers = (math.nan, math.inf, -math.inf, 0.0, 5e-324, 3.4e38, -1.8, 2.0)

    def any_curve() -> Curve | None:
        if rng.random() < 0.1:
            return None
        losses = tuple(rng.choice(numbers) for _ in range(rng.choice((0, 1, 2, 40, 301))))
        return Curve(losses, rng.choice(numbers), rng.choice(numbers), rng.choice((None, 3)))

    drawn = 0
    for _ in range(500):
        trial = Trial(
            rng.choice((None, "bad", "note", "undecided")), any_curve(), any_curve(), rng.choice((None, 0, 40))
        )
        report = Report(SHOT, (found("seen", proof=WORDS),), trials=(trial,))
        assert max(map(len, str(report).splitlines())) <= 80
        assert report.to_markdown()
        if picture := trials.svg(trial):
            ElementTree.fromstring(picture)
            drawn += 1
            assert "nan" not in picture
        assert str(Report.from_json(report.to_json())) == str(report)
    assert drawn > 20


def test_the_first_note_says_why_it_is_one() -> None:
    learns = "Tried: the model learns this batch without a remedy, too, and about as fast."
    without = "Tried: the start above learns without this remedy, too."
    note, other = found("noted", "note"), found("noted-too", "note")
    slow = Trial("note", curve(*[2.0 - i / 12 for i in range(12)], needed=12), FALLING, 1000)
    left_out = dataclasses.replace(BAD, left_out=(note.key,))
    for findings, trial, said in (
        ((note, other), slow, learns),
        ((found("seen"), note), left_out, without),
        ((found("seen"), other), left_out, None),
        ((note,), Trial(reason="it is switched off"), None),
        ((found("seen"),), slow, None),
    ):
        for form, text in forms(Report(SHOT, findings, trials=(trial,))).items():
            assert [line for line in (learns, without) if line in text] == ([said] if said else []), form
            assert text.count("Tried:") == bool(said)
