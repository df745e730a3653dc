"""The pictures of a report: the quantity of the worst finding beside the profile, drawn as it was measured."""

from __future__ import annotations

import dataclasses
import math
import re
import xml.etree.ElementTree as ElementTree
from typing import Any

import pytest
from numpy_network import edited, he, snapshot, weights

from keras_initaudit.diagnosis import RULES, Thresholds
from keras_initaudit.diagnosis.rules import BY_SLUG
from keras_initaudit.numerals import num, percent
from keras_initaudit.records import Finding, Snapshot
from keras_initaudit.report import Report, colours, parts
from keras_initaudit.report.quantities import QUANTITIES
from keras_initaudit.report.svg import profile_svg

SHAPE = [16, 32, 32, 32, 4]
PLAIN = snapshot(weights(SHAPE, he(SHAPE)), "relu")
LAYERS = ("dense_0", "dense_1", "dense_2", "head")
SHOWS_ITSELF = {
    # rule: why the profile, or no picture, shows it
    "non-finite": "a cross stands on the curves",
    "exploding-signal": "the signal is a curve",
    "vanishing-signal": "the signal is a curve",
    "exploding-gradient": "the gradient is a curve",
    "vanishing-gradient": "the gradient is a curve",
    "no-gradient": "a cross stands on the gradient, or it is missing",
    "output-activation": "it is one layer's function",
    "duplicate-kernels": "it is between two layers",
    "initial-loss": "it is one number",
}


def measured(column: str, *values: float, shot: Snapshot = PLAIN) -> Snapshot:
    for path, value in zip(LAYERS, values, strict=False):
        shot = edited(shot, path, **{column: value})
    return shot


def found(rule: str, *affected: str, severity: Any = "bad") -> Finding:
    return Finding(rule, severity, affected[0], "What was seen.", {"affected": list(affected)})


def bars(picture: str) -> dict[str, tuple[float, float, str]]:
    """Path -> top, height and fill of its bar."""
    made = {}
    for element in ElementTree.fromstring(picture).iter():
        title = next((child.text or "" for child in element if child.tag.endswith("title")), None)
        if element.tag.endswith("rect") and title is not None:
            made[title.split(":")[0]] = (
                float(element.attrib["y"]),
                float(element.attrib["height"]),
                element.attrib["fill"],
            )
    return made


def titles(picture: str) -> list[str]:
    return re.findall(r">([a-z0-9(][^<>]*?)(?: \(shaded: usual\))?</text>", picture)


def test_every_rule_has_a_quantity_that_it_reads_or_a_reason_for_none() -> None:
    assert {rule.slug for rule in RULES} == QUANTITIES.keys() | SHOWS_ITSELF.keys()
    assert not QUANTITIES.keys() & SHOWS_ITSELF.keys()
    for rule, shown in QUANTITIES.items():
        seen = set(BY_SLUG[rule].sees) | (
            {"update_log10"} if rule == "divergence" else set()
        )  # steps make a loss diverge
        assert {one.column for one in shown} <= seen, rule


def test_the_usual_ends_where_the_first_limit_of_the_rule_stands() -> None:
    limits = Thresholds()
    usual = {rule: shown[0].usual for rule, shown in QUANTITIES.items()}
    assert usual["saturated-units"] == (0.0, limits.saturated_warning)
    assert usual["dead-units"] == (0.0, limits.dead_warning)
    assert usual["attention-entropy"] == (limits.entropy_warning, 1.0)
    assert usual["collapsed-samples"] == (pytest.approx(math.log10(limits.spread_warning)), 0.0)
    assert usual["update-ratio"] == pytest.approx((-3.75 - limits.update_warning, -3.75 + limits.update_warning))
    assert usual["vanishing-through-time"] == (-limits.time_loss_warning, limits.time_loss_warning)


@pytest.mark.parametrize(
    ("rule", "column"), [("saturated-units", "activation_saturated"), ("dead-units", "activation_dead")]
)
def test_a_fraction_is_drawn_from_zero_to_one_and_what_the_finding_marks_in_its_colour(rule: str, column: str) -> None:
    values = (0.9, 0.45, 0.0, 0.1)
    shot = measured(column, *values)
    drawn = bars(profile_svg(shot, found(rule, "dense_0", "dense_1", severity="warning")))
    assert list(drawn) == list(LAYERS)
    full = drawn["dense_0"][1] / 0.9
    for path, value in zip(LAYERS, values, strict=True):
        assert drawn[path][1] == pytest.approx(max(1.5, full * value), abs=0.11)  # one decimal; a zero is seen too
    bottoms = {round(top + height) for top, height, _ in drawn.values() if height > 1.5}
    assert len(bottoms) == 1
    fills = [drawn[path][2] for path in LAYERS]
    assert fills == [colours.colour("warning")] * 2 + [colours.colour("muted")] * 2
    assert not bars(profile_svg(shot))
    assert not bars(profile_svg(shot, found("vanishing-signal", "dense_0")))


def test_attention_shows_entropy_and_largest_logit_of_attention_alone() -> None:
    row = next(info for info in PLAIN.layers if info.path == "dense_1")
    attention = dataclasses.replace(row, path="mha/attention", role="attention", weight=None, inputs=("dense_1",))
    at = PLAIN.layers.index(row) + 1
    shot = dataclasses.replace(
        PLAIN,
        layers=(*PLAIN.layers[:at], attention, *PLAIN.layers[at:]),
        statistics=(*PLAIN.statistics[:at], PLAIN.statistics[at], *PLAIN.statistics[at:]),
    )
    shot = edited(
        edited(shot, "mha/attention", attention_entropy=0.02, attention_logit_max=1e3), "head", attention_entropy=0.9
    )
    finding = found("attention-entropy", "mha/attention")
    picture = profile_svg(shot, finding)
    assert [t for t in titles(picture) if "attention" in t] == [
        "attention entropy over log(keys)",
        "largest attention logit",
    ]
    assert list(bars(picture)) == ["mha/attention"]
    rects = re.findall(r'<rect [^>]*height="([\d.]+)"[^>]*?(?:/>|><title>([^<]*)<)', picture)
    _, (usual, _), (entropy, said), _ = rects  # the band of the profile, that of the entropy, and the two bars
    assert said == "mha/attention: 2 %"
    assert float(entropy) / float(usual) == pytest.approx((1.0 - 0.02) / (1.0 - 0.35), rel=0.01)  # from 100 % down
    assert "attention entropy over log(keys): 2 % at mha/attention" in picture  # in words, too
    report = Report(shot, (finding,))
    table = parts.table(report, 12)
    line = dict(zip(table.headers[1:], table.numbers[table.names.index("mha/attention")], strict=False))
    assert (line["entropy"], line["logit"]) == (percent(0.02), num(1e3, 3))
    assert [line[-2:] for line in table.numbers if line[-2:] != ["", ""]] == [[percent(0.02), num(1e3, 3)]]


def test_decades_stand_on_zero_and_zero_on_a_scale_is_a_cross() -> None:
    shot = measured("backward_time_log10", -2.0, 0.5)
    drawn = bars(profile_svg(shot, found("vanishing-through-time", "dense_0")))
    (down, fall, _), (up, rise, _) = drawn["dense_0"], drawn["dense_1"]
    assert down == pytest.approx(up + rise, abs=0.11)  # one ends where the other begins
    assert fall / rise == pytest.approx(4.0, rel=0.05)
    dead = profile_svg(measured("activation_spread", 0.1, 0.0), found("collapsed-samples", "dense_1"))
    assert "<title>dense_1: 0</title></path>" in dead
    assert "dense_1" not in bars(dead)


def test_of_many_rows_the_farthest_from_the_usual_are_drawn() -> None:
    shape = [8] * 700
    deep = snapshot(weights(shape, he(shape)), "relu")
    deep = edited(deep, "dense_600", activation_saturated=0.8)
    for path in (f"dense_{i}" for i in range(0, 600, 2)):
        deep = edited(deep, path, activation_saturated=0.01)
    drawn = bars(profile_svg(deep, found("saturated-units", "dense_600")))
    assert len(drawn) <= 200
    assert drawn["dense_600"][2] == colours.colour("bad")


def test_the_table_lists_the_data_where_it_is_at_fault_and_leaves_out_what_was_not_measured() -> None:
    raw = next(info.path for info in PLAIN.layers if info.role == "input")
    table = parts.table(Report(PLAIN, (found("input-scale", raw, "dense_0"),)), 12)
    assert table.names == [raw, *LAYERS]
    assert table.headers == ["layer", "output", "spread", "gradient", "weights", "finding"]
    assert "update" not in table.legend
    later = measured("update_log10", -3.0, -3.1)
    assert parts.table(Report(later), 12).headers[-2:] == ["update", "finding"]
    assert parts.table(Report(later), 12).names == list(LAYERS)


def test_long_paths_stay_apart_in_the_text_and_are_whole_in_the_title() -> None:
    long = {
        path: f"encoder/transformer_layer_{i}/self_attention_layer/query_projection" for i, path in enumerate(LAYERS)
    }
    layers = tuple(
        dataclasses.replace(
            info, path=long.get(info.path, info.path), inputs=tuple(long.get(p, p) for p in info.inputs)
        )
        for info in PLAIN.layers
    )
    rules = ("exploding-through-time", "a", "b", "c", "d")
    findings = tuple(dataclasses.replace(found(rule, long["dense_0"])) for rule in rules)
    text = str(Report(dataclasses.replace(PLAIN, layers=layers), findings))
    lines = text.splitlines()
    assert max(map(len, lines)) <= 80
    assert long["dense_0"] in " ".join(text.split())
    start = next(i for i, line in enumerate(lines) if line.startswith("layer "))
    names = [line.split()[0] for line in lines[start + 1 : start + 5]]
    assert len(set(names)) == 4
    assert [re.findall(r"\d+", name) for name in names] == [["0"], ["1"], ["2"], ["3"]]
    assert sum(line.startswith("also bad: ") and line.endswith("query_projection") for line in lines) == 2


def test_the_spread_goes_where_names_need_the_room_and_nothing_is_about_it() -> None:
    def headers(rule: str, prefix: str) -> list[str]:
        names = {path: f"{prefix}{path}" for path in LAYERS}
        shot = dataclasses.replace(
            PLAIN,
            layers=tuple(dataclasses.replace(info, path=names.get(info.path, info.path)) for info in PLAIN.layers),
        )
        text = str(Report(shot, (found(rule, names["dense_1"]),)))
        return next(line for line in text.splitlines() if line.startswith("layer ")).split()

    assert "spread" in headers("vanishing-signal", "")
    assert "spread" not in headers("vanishing-signal", "a_block_of_a_long_name/")
    assert "spread" in headers("collapsed-samples", "a_block_of_a_long_name/")


def with_skip() -> Snapshot:
    """A chain of ten layers in which the input of `dense_3` is that of `dense_2` added to its output."""
    shape = [16] * 10 + [4]
    shot = snapshot(weights(shape, he(shape)), "relu")
    skip = {"dense_3": ("dense_1", "dense_2")}
    layers = tuple(dataclasses.replace(info, inputs=skip.get(info.path, info.inputs)) for info in shot.layers)
    return dataclasses.replace(shot, layers=layers)


def test_the_curves_follow_the_main_line_and_what_is_inside_of_a_block_is_a_small_mark() -> None:
    shot = edited(with_skip(), "dense_2", activation_rms=1e-1, activation_saturated=0.9)
    for path in ("dense_1", "dense_3"):
        shot = edited(shot, path, activation_rms=1.0, activation_saturated=0.5)
    picture = profile_svg(shot)
    assert "inside the blocks" in picture
    assert "inside the blocks" not in profile_svg(PLAIN)
    lines = re.findall(r'<polyline points="([^"]*)"', picture)
    signal, gradient = ([tuple(map(float, point.split(","))) for point in line.split()] for line in lines)
    assert (len(signal), len(gradient)) == (9, 8)  # without dense_2, and the gradient without the head
    dots = [re.findall(r"M([\d.]+) ([\d.]+)h0", path) for path in re.findall(r'<path d="([^"]*h0)"', picture)]
    assert [len(each) for each in dots] == [1, 1]
    x, y = map(float, dots[0][0])
    (before, one), (behind, same) = signal[1:3]
    assert x == pytest.approx((before + behind) / 2.0, abs=0.11)
    assert same == one
    decade = re.findall(r'y="([\d.]+)" text-anchor="end">1e[01]<', picture)
    assert y - one == pytest.approx(float(decade[0]) - float(decade[1]), abs=0.21)
    # one bar a place: the worst of what stands there, of which the title says what it is
    drawn = bars(profile_svg(shot, found("saturated-units", "dense_2")))
    assert drawn["dense_2"][2] == colours.colour("bad")
    assert drawn["dense_1"][2] == colours.colour("muted")
    assert "dense_3" not in drawn


def test_data_at_fault_stand_at_both_ends_of_the_main_line() -> None:
    shot = with_skip()
    raw = next(info.path for info in shot.layers if info.role == "input")
    picture = profile_svg(shot, found("input-scale", raw))
    shown = re.findall(r'<rect x="([\d.]+)"[^>]*><title>([^:<]*):', picture)
    assert shown[0][1] == raw
    assert sorted(float(x) for x, _ in shown) == [float(x) for x, _ in shown]
    first = float(re.findall(r'<polyline points="([\d.]+),', picture)[0])
    assert float(shown[0][0]) < float(shown[1][0]) < first


def test_what_is_not_finite_inside_of_a_block_is_a_cross() -> None:
    shot = edited(with_skip(), "dense_2", activation_nonfinite=1.0)
    assert profile_svg(shot).count("signal: not finite") == 1
    assert "not finite" not in profile_svg(with_skip())
