"""The report: golden texts beside invariants; untrusted names; JSON both ways."""

from __future__ import annotations

import dataclasses
import html.parser
import itertools
import json
import os
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy_network import edited, glorot, he, snapshot, weights

from keras_initaudit.diagnosis import Thresholds, diagnose
from keras_initaudit.records import VERDICTS, Curve, Finding, LayerInfo, Snapshot, Statistics, Trial
from keras_initaudit.remedies import clock
from keras_initaudit.report import BAND, VERSION, Report, colours
from keras_initaudit.report.svg import profile_svg
from keras_initaudit.tensorboard import metadata

GOLDEN = Path(__file__).parent / "golden"
REWRITE = bool(os.environ.get("REWRITE_GOLDEN"))
"""`REWRITE_GOLDEN=1 pytest tests/report/test_report.py` writes the golden files anew; look at what
changed before a commit."""

HOSTILE = "a<script>alert(1)</script>|`x`*_[l](javascript:0)\x1b[2J\n# h"


def network(depth: int, scheme: Any, activation: str = "relu", **how: Any) -> Snapshot:
    shape = [16, *[32] * depth, 4]
    return snapshot(weights(shape, scheme(shape) if callable(scheme) else scheme), activation, **how)


def report(shot: Snapshot) -> Report:
    return Report(shot, diagnose([shot]))


def many_faults() -> Report:
    shot = network(6, he)
    for i in range(6):
        shot = edited(shot, f"dense_{i}", layer={"duplicate_of": "dense_0"} if i else {})
    base = report(shot).findings[0]
    return Report(shot, tuple(dataclasses.replace(base, layer=f"dense_{i % 6}", rule=f"rule-{i}") for i in range(12)))


def curve(*losses: float, needed: int | None = None, constant: float = 1.39, at_targets: float = 1e-7) -> Curve:
    return Curve(losses, constant, at_targets, needed)


FALLING = curve(1.41, 1.36, 1.3, 1.22, 1.11, 0.97, 0.83, 0.68, 0.54, needed=9)
BAD = Trial("bad", curve(*[1.39] * 27), FALLING, 1000)
CUT_SHORT = Trial("undecided", curve(*[1.39] * 12), curve(*[1.39 - 0.02 * i for i in range(12)]), 12)


def tried(trial: Trial, depth: int = 40, severity: Any = None) -> Report:
    """A report of a deep network, as a trial leaves it."""
    shot = network(depth, glorot)
    (found,) = diagnose([shot], trials=[trial])
    told = dataclasses.replace(found, severity=severity or found.severity, proof=clock.sentence(trial))
    return Report(shot, (told,), trials=(trial,))


def notes_alone() -> Report:
    trial = Trial("note", curve(1.4, 1.2, 0.9, 0.7, 0.5, 0.4, needed=6), curve(1.41, 1.1, 0.8, 0.5, needed=4), 1000)
    one = tried(trial)
    (note,) = one.findings
    return dataclasses.replace(one, findings=(note, dataclasses.replace(note, rule="duplicate-kernels")))


REPORTS: dict[str, Report] = {
    "healthy": report(network(3, he)),
    "vanishing": report(network(40, glorot)),
    "exploding": report(network(8, 1.0)),
    "raw": report(network(3, he, x=np.random.default_rng(0).integers(0, 256, (32, 16)).astype(float))),
    "many": many_faults(),
    "tried": tried(BAD),
    "undecided": tried(CUT_SHORT),
    "notes": notes_alone(),
}


@pytest.mark.parametrize("name", REPORTS)
@pytest.mark.parametrize("form", ["txt", "markdown.txt", "html"])
def test_it_reads_as_it_did(name: str, form: str) -> None:
    one = REPORTS[name]
    text = {"txt": str(one) + "\n", "markdown.txt": one.to_markdown(), "html": one._repr_html_() + "\n"}[form]
    path = GOLDEN / f"{name}.{form}"
    if REWRITE:
        path.write_text(text, encoding="utf-8")
    assert text == path.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", REPORTS)
def test_a_terminal_of_eighty_columns_shows_it_on_one_screen(name: str) -> None:
    lines = str(REPORTS[name]).splitlines()
    assert max(map(len, lines)) <= 80
    assert len(lines) <= 50
    assert lines[0].startswith("Init Audit: ")
    assert REPORTS[name].verdict in lines[0]


def test_many_findings_and_all_that_is_said_of_a_trial_are_one_screen() -> None:
    many = REPORTS["many"]
    proof = clock.sentence(CUT_SHORT)
    crowded = tuple(
        dataclasses.replace(f, proof=proof, severity="bad" if i < 9 else "note") for i, f in enumerate(many.findings)
    )
    lines = str(Report(many.snapshot, crowded, trials=(CUT_SHORT,))).splitlines()
    assert sum("budget allowed" in line or "Judged by" in line or "  loss " in line for line in lines) == 5
    assert max(map(len, lines)) <= 80
    assert len(lines) <= 50


@pytest.mark.parametrize("name", REPORTS)
def test_the_columns_of_the_table_line_up(name: str) -> None:
    lines = str(REPORTS[name]).splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("layer "))
    ends = [m.end() for m in re.finditer(r"output|spread|gradient|weights", lines[start])]
    rows = [line for line in lines[start + 1 :] if not line.startswith(("(", "  "))]
    assert rows
    for row in rows:
        for before, end in itertools.pairwise([0, *ends]):
            cell = row[before:end]
            assert not cell.strip() or cell[-1] != " ", (row, end)
            assert row[end : end + 1] in (" ", ""), (row, end)
    assert any(row[ends[0] - 1] != " " for row in rows)


def test_the_worst_comes_first_and_the_table_last() -> None:
    text = str(REPORTS["vanishing"])
    assert text.index("bad: vanishing-signal") < text.index("from keras_initaudit import") < text.index("\nlayer ")


def test_the_remedy_can_be_pasted() -> None:
    """The indented lines of the text, without their indent, are the remedy."""
    one = REPORTS["vanishing"]
    code = "\n".join(line[6:] for line in str(one).splitlines() if line.startswith("      "))
    assert code == one.findings[0].remedy
    compile(code, "remedy", "exec")


def test_colour_only_where_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    one = REPORTS["vanishing"]
    assert "\x1b" not in str(one)
    assert "\x1b[31m" in one.text(color=True)
    assert re.sub(r"\x1b\[\d+m", "", one.text(color=True)) == str(one)

    class Terminal:
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr("sys.stdout", Terminal())
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert "\x1b" in one.text()
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b" not in one.text()


@pytest.mark.parametrize("name", REPORTS)
def test_json_goes_both_ways(name: str) -> None:
    one = REPORTS[name]
    text = one.to_json()
    json.loads(text, parse_constant=lambda word: pytest.fail(f"{word} is not JSON"))
    again = Report.from_json(text)
    assert again.to_json() == text
    assert str(again) == str(one)
    assert (again.verdict, again.step, again.findings) == (one.verdict, one.step, one.findings)
    assert Report.from_json(json.loads(text)).to_json() == text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not JSON"),
        ("[]", "expected an object"),
        ('{"schema": "other", "version": 1}', "expected an object"),
        (f'{{"schema": "keras_initaudit.report", "version": {VERSION + 1}}}', "newer one"),
    ],
)
def test_a_text_that_is_no_report_is_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Report.from_json(text)


def test_json_of_a_later_release_loses_only_what_is_new() -> None:
    data = json.loads(REPORTS["vanishing"].to_json())
    data["snapshot"]["new"] = data["findings"][0]["new"] = data["snapshot"]["layers"][0]["new"] = 1
    assert str(Report.from_json(data)) == str(REPORTS["vanishing"])


def hostile() -> Report:
    shot = network(8, 1.0)
    old, i = "dense_3", [info.path for info in shot.layers].index("dense_3")
    layers = list(shot.layers)
    layers[i] = dataclasses.replace(layers[i], path=HOSTILE)
    renamed = tuple(
        dataclasses.replace(info, inputs=tuple(HOSTILE if p == old else p for p in info.inputs)) for info in layers
    )
    shot = edited(dataclasses.replace(shot, layers=renamed), HOSTILE, weight_nonfinite=0.5)
    found = report(shot)
    assert any(f.layer == HOSTILE for f in found.findings)
    return found


class Tags(html.parser.HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.open: list[str] = []
        self.attributes: list[str] = []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.append(tag)
        self.open.append(tag)
        self.attributes += [name for name, _ in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_startendtag(self, tag: str, attrs: Any) -> None:
        self.tags.append(tag)


@pytest.mark.parametrize("one", [*REPORTS.values(), hostile()], ids=[*REPORTS, "hostile"])
def test_html_is_well_formed_and_runs_nothing(one: Report) -> None:
    parser = Tags()
    parser.feed(one._repr_html_())
    assert not parser.open
    assert "svg" in parser.tags
    assert not {"script", "iframe", "img", "a", "link"} & set(parser.tags)
    assert not [name for name in parser.attributes if name.startswith("on") or name in ("href", "src")]


def test_a_layer_name_cannot_leave_its_place() -> None:
    one = hostile()
    assert "\x1b" not in str(one)
    assert "\n# h" not in str(one)
    assert "<script" not in one._repr_html_()
    markdown = one.to_markdown()
    outside = re.sub(r"```.*?```", "", markdown, flags=re.S)
    assert "<script" not in outside
    assert not re.search(r"(?<!\\)\]\(", outside)  # no link
    header = next(line for line in markdown.splitlines() if line.startswith("| layer"))
    rows = [line for line in markdown.splitlines() if line.startswith("| <code>")]
    assert rows
    assert all(len(re.findall(r"(?<!\\)\|", row)) == header.count("|") for row in rows)


def test_the_profile_draws_what_was_measured() -> None:
    shot = network(8, 0.05)
    tree = ElementTree.fromstring(profile_svg(shot))
    lines = [element for element in tree.iter() if element.tag.endswith("polyline")]
    assert len(lines) == 2
    points = [tuple(map(float, p.split(","))) for p in lines[0].attrib["points"].split()]
    assert len(points) == 9
    heights = [y for _, y in points]
    decades = [np.log10(shot[path].activation_rms) for path in [*(f"dense_{i}" for i in range(8)), "head"]]
    slope, start = np.polyfit(decades, heights, 1)
    assert slope < 0  # more is up
    assert np.allclose(heights, slope * np.array(decades) + start, atol=0.11)  # one decimal is written


def test_the_profile_marks_what_is_not_finite_or_zero() -> None:
    shot = edited(network(4, he), "dense_2", activation_nonfinite=1.0, backward_rms=0.0)
    picture = profile_svg(shot)
    assert "signal: not finite" in picture
    assert "gradient: zero" in picture
    assert "<path" not in profile_svg(network(4, he))
    assert "nan" not in picture.lower().replace("finance", "")


def test_the_band_of_the_profile_ends_where_the_first_finding_about_a_fading_signal_comes() -> None:
    assert (-Thresholds().signal_loss_warning, 2.0) == BAND
    tree = ElementTree.fromstring(profile_svg(network(8, 0.05)))
    (band,) = [element for element in tree.iter() if element.tag.endswith("rect")]
    ticks = {
        int(text.text[2:]): float(text.attrib["y"]) - 4
        for text in tree.iter()
        if text.tag.endswith("text") and (text.text or "").startswith("1e")
    }
    (low, bottom), (high, top) = min(ticks.items()), max(ticks.items())
    pixels = (bottom - top) / (high - low)  # of a decade
    assert float(band.attrib["y"]) == pytest.approx(bottom - (BAND[1] - low) * pixels, abs=0.2)
    assert float(band.attrib["height"]) == pytest.approx((BAND[1] - BAND[0]) * pixels, abs=0.2)


def test_the_colours_are_those_of_the_page() -> None:
    text = (Path(metadata.__file__).parent / "static" / "style.css").read_text(encoding="utf-8")
    light, dark = text[text.index(":root {") :].split(":root.dark {")
    for theme, own in ((light, colours.LIGHT), (dark[: dark.index("}")], colours.DARK)):
        page = dict(re.findall(r"--([a-z]+): (#[0-9a-f]{6});", theme))
        assert {name: page[name] for name in own} == own
    assert colours.LIGHT.keys() == colours.DARK.keys() > {*VERDICTS, "note"}


def luminance(colour: str) -> float:
    """Relative luminance of an sRGB colour, as WCAG 2 defines it."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


@pytest.mark.parametrize("theme", [colours.LIGHT, colours.DARK], ids=["light", "dark"])
def test_every_text_of_a_report_has_a_contrast_of_four_and_a_half(theme: Any) -> None:
    def contrast(name: str) -> float:
        low, high = sorted((luminance(theme[name]), luminance(theme["surface"])))
        return (high + 0.05) / (low + 0.05)

    texts = theme.keys() - {"surface", "line"}
    assert min(map(contrast, texts)) >= 4.5, {name: round(contrast(name), 2) for name in texts}
    assert contrast("line") < 2.0  # the measure can fail
    assert luminance("#ffffff") == pytest.approx(1.0)


def test_little_to_show_is_no_fault() -> None:
    for shot in (Snapshot(0, (), ()), Snapshot(3, (LayerInfo("a", 0),), (Statistics(),))):
        one = Report(shot)
        assert one.verdict == "healthy"
        assert "Init Audit: healthy" in str(one)
        assert one.to_markdown()
        assert one._repr_html_()
        assert str(Report.from_json(one.to_json())) == str(one)


def test_the_layers_are_rows_with_all_statistics() -> None:
    one = REPORTS["vanishing"]
    assert [row["path"] for row in one.layers] == [*(f"dense_{i}" for i in range(40)), "head"]
    assert one.layers[0]["findings"] == ["vanishing-signal"]
    assert {f.name for f in dataclasses.fields(Statistics)} <= set(one.layers[0])


def test_the_proof_of_a_remedy_is_shown() -> None:
    one = REPORTS["vanishing"]
    proven = dataclasses.replace(one.findings[0], proof="the gradient at dense_0 goes from 3e-7 to 0.4")
    shown = Report(one.snapshot, (proven,))
    for text in (str(shown), shown.to_markdown().replace("\\", ""), shown._repr_html_()):
        assert "Measured: The gradient at dense_0 goes from 3e-7 to 0.4." in " ".join(text.split())


@pytest.mark.parametrize(
    ("step", "first_step", "evidence", "said"),
    [
        (0, 0, {}, "bad: seen"),
        (1000, 1000, {}, "bad: seen"),  # trained before its first audit
        (1000, None, {}, "bad: seen"),
        (1020, 1000, {}, "bad at step 1000: seen"),
        (1020, 1000, {"step": 1010}, "bad at step 1010: seen"),
        (1010, 1000, {"step": 1010}, "bad: seen"),
        (20, 0, {}, "bad at step 0: seen"),
    ],
)
def test_a_finding_says_its_step_where_the_report_is_of_a_later_one(
    step: int, first_step: int | None, evidence: dict[str, Any], said: str
) -> None:
    shot = dataclasses.replace(network(3, he), step=step)
    one = Report(shot, (Finding("seen", "bad", "dense_0", "What was seen.", evidence),), first_step=first_step)
    assert f"{said} at dense_0" in str(one)
    assert f"{said} at " in one.to_markdown()
    for again in (one, Report.from_json(one.to_json())):
        assert str(again) == str(one)


def test_a_sentence_begins_with_a_capital_but_the_name_of_a_layer_keeps_its_case() -> None:
    for layer, said in (
        ("head", "head makes the outputs."),
        ("other", "Head makes the outputs."),
        (None, "Head makes"),
    ):
        one = Report(network(3, he), (Finding("seen", "bad", layer, "head makes the outputs"),))
        for text in (str(one), one.to_markdown(), one._repr_html_()):
            assert said in text
