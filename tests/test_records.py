"""The records: verdict and marked rows of findings, and the JSON form: what a field holds survives a round trip.

The values are drawn by the annotation of each field, so that a field that is added later is tested without a change.
"""

from __future__ import annotations

import dataclasses
import json
import math
import random
from collections.abc import Mapping
from types import UnionType
from typing import Any, Literal, get_args, get_origin, get_type_hints

import numpy as np
import pytest

from keras_initaudit.records import (
    COLUMNS,
    SCALARS,
    VERDICTS,
    Finding,
    LayerInfo,
    Snapshot,
    Statistics,
    Trial,
    Verdict,
    as_bad_as,
    dumps,
    finding_from_json,
    layer_from_json,
    marked_paths,
    scalars,
    snapshot_from_json,
    snapshot_without_rows,
    to_jsonable,
    trial_from_json,
    verdict_of,
)
from keras_initaudit.records.remedies import REMEDIES, Remedy
from keras_initaudit.report import Report
from keras_initaudit.tensorboard.summary import Writer, read_runs

FLOATS = (math.nan, math.inf, -math.inf, 0.0, -0.0, 5e-324, 1.7976931348623157e308, 0.1, -3.0)
TEXTS = ("", "dense", "\u2713 \N{SNOWMAN}\U0001f600", "a/b#2", "\x00\n\u2028", "\ud800", "\\", '"', "None", "\u202eabc")
NUMBERS_AS_TEXT = ("NaN", "Infinity", "-Infinity")


def drawn(hint: Any, rng: random.Random, texts: tuple[str, ...]) -> Any:
    """A random value of the annotated type."""
    parts = get_args(hint)
    if type(None) in parts:
        others = [part for part in parts if part is not type(None)]
        return None if rng.random() < 0.3 else drawn(rng.choice(others), rng, texts)
    if hint is Remedy:
        return record(rng.choice(list(REMEDIES.values())), rng, texts)
    if get_origin(hint) is UnionType:
        return drawn(rng.choice(parts), rng, texts)
    if dataclasses.is_dataclass(hint):
        return record(hint, rng, texts)
    if get_origin(hint) is tuple:
        return tuple(drawn(parts[0], rng, texts) for _ in range(rng.randrange(4)))
    if get_origin(hint) is Mapping:
        return {rng.choice(texts): drawn(parts[1], rng, texts) for _ in range(rng.randrange(4))}
    if get_origin(hint) is Literal:
        return rng.choice(parts)
    if hint is Any:
        texts = tuple(text for text in texts if text not in NUMBERS_AS_TEXT)  # there, they are the numbers
        kind = rng.choice((float, int, bool, str, type(None), list, dict))
        if kind is list:
            return [drawn(Any, rng, texts) for _ in range(rng.randrange(3))]
        return drawn(Mapping[str, Any], rng, texts) if kind is dict else drawn(kind, rng, texts)
    if hint is type(None):
        return None
    if hint is float:
        return rng.choice((*FLOATS, rng.gauss(0, 1)))
    return {int: rng.randrange(-(2**60), 2**60), bool: rng.random() < 0.5, str: rng.choice(texts)}[hint]


def record(kind: Any, rng: random.Random, texts: tuple[str, ...] = TEXTS + NUMBERS_AS_TEXT) -> Any:
    """A record with a random value in every field."""
    hints = get_type_hints(kind)
    return kind(**{field.name: drawn(hints[field.name], rng, texts) for field in dataclasses.fields(kind)})


def assert_same(left: Any, right: Any) -> None:
    assert repr(left) == repr(right)  # NaN is not equal to itself; the types must agree too


@pytest.mark.parametrize(
    ("kind", "back"),
    [
        (Snapshot, snapshot_from_json),
        (LayerInfo, layer_from_json),
        (Finding, finding_from_json),
        (Trial, trial_from_json),
    ],
)
def test_every_field_survives_whatever_it_holds(kind: Any, back: Any) -> None:
    for seed in range(300):
        made = record(kind, random.Random(seed))
        text = dumps(made)
        data = json.loads(text, parse_constant=lambda word: pytest.fail(f"{word} is not JSON"))
        assert_same(back(data), made)
        assert dumps(back(data)) == text


def test_a_report_survives_whatever_its_snapshot_and_findings_hold() -> None:
    for seed in range(100):
        rng = random.Random(seed)
        made = record(Report, rng)
        rows = tuple(record(Statistics, rng) for _ in made.snapshot.layers)
        made = dataclasses.replace(made, snapshot=dataclasses.replace(made.snapshot, statistics=rows))
        assert_same(dataclasses.astuple(Report.from_json(made.to_json())), dataclasses.astuple(made))


def test_the_log_keeps_every_field_of_a_snapshot_and_its_findings(tmp_path: Any) -> None:
    texts = tuple(text for text in TEXTS if text.isprintable() and text)
    for seed in range(20):
        rng = random.Random(seed)
        layers = tuple(dataclasses.replace(record(LayerInfo, rng, texts), path=f"dense_{i}", depth=i) for i in range(3))
        table = [[float(np.float32(rng.choice((0.1, math.nan, math.inf, -2.0)))) for _ in COLUMNS] for _ in layers]
        rows = tuple(Statistics(*row) for row in table)
        drawn_once = record(Snapshot, rng, texts)
        made = dataclasses.replace(drawn_once, step=seed, layers=layers, statistics=rows, histograms={})
        findings = tuple(record(Finding, rng, texts) for _ in range(rng.randrange(3)))
        writer = Writer(tmp_path / f"run{seed}")
        trials = tuple(dataclasses.replace(record(Trial, rng, texts), step=i) for i in range(rng.randrange(3)))
        writer.write(made, findings, trials=trials)
        writer.close()
        (run,) = read_runs(writer.log_dir)
        assert run.problems == ()
        assert_same(run.snapshots[0], made)
        assert_same(run.findings[0], findings)
        assert_same(run.trials, trials)


def test_the_verdict_is_the_worst_severity() -> None:
    def found(*severities: Any) -> list[Finding]:
        return [Finding("rule", severity, None, "") for severity in severities]

    assert verdict_of(found()) == "healthy"
    assert verdict_of(found("warning")) == "warning"
    assert verdict_of(found("warning", "bad", "warning")) == "bad"
    assert set(VERDICTS) == set(get_args(Verdict))
    worse = {(one, other) for one in VERDICTS for other in VERDICTS if as_bad_as(one, other)}
    assert worse == {(v, v) for v in VERDICTS} | {("bad", "warning"), ("bad", "healthy"), ("warning", "healthy")}


def test_a_finding_marks_its_layer_and_the_rows_with_its_fault_and_no_others() -> None:
    evidence = {"layers": ["lstm"], "affected": ["lstm/gates", "lstm"]}
    assert marked_paths(Finding("saturated-units", "bad", "lstm", "", evidence)) == ("lstm", "lstm/gates")
    assert marked_paths(Finding("a", "bad", "key", "", {"layers": ["query"], "affected": ["key"]})) == ("key",)
    assert marked_paths(Finding("a", "bad", None, "")) == ()
    assert marked_paths(Finding("a", "bad", "dense", "", {"affected": 3})) == ("dense",)  # a damaged log


def test_the_scalars_of_a_snapshot_are_its_fields_beside_step_and_rows() -> None:
    made = record(Snapshot, random.Random(5))
    again = snapshot_without_rows(json.loads(dumps(scalars(made))))
    assert_same(again, dataclasses.replace(made, step=0, layers=(), statistics=(), histograms={}))
    assert set(SCALARS) == {f.name for f in dataclasses.fields(Snapshot)} - {
        "step",
        "layers",
        "statistics",
        "histograms",
    }
    assert_same(snapshot_without_rows({"tide": 3}), Snapshot(0, (), ()))


def test_a_layer_may_be_called_like_a_number() -> None:
    made = Finding("a", "bad", "NaN", "b", {"layers": ["NaN"], "affected": ["Infinity"], "observed": math.inf})
    assert finding_from_json(json.loads(dumps(made))) == made


def test_numbers_of_numpy_are_numbers() -> None:
    evidence = {"a": np.float32(0.5), "b": np.int64(3), "c": [np.float64("nan")], "d": np.float32("inf")}
    assert to_jsonable(evidence) == {"a": 0.5, "b": 3, "c": ["NaN"], "d": "Infinity"}


def test_what_a_later_version_adds_is_left_out_and_what_an_earlier_one_lacks_has_its_default() -> None:
    assert layer_from_json({"path": "dense", "depth": 2, "colour": "red"}) == LayerInfo("dense", 2)
    assert snapshot_from_json({"step": 1, "layers": [], "statistics": [], "tide": 3}).learning_rate is None


@pytest.mark.parametrize("layers", [3, [3], [{"path": "dense", "depth": 0, "gain": "x"}], [{"depth": 0}]])
def test_a_damaged_form_is_an_error(layers: Any) -> None:
    with pytest.raises((TypeError, ValueError)):
        snapshot_from_json({"step": 0, "layers": layers, "statistics": []})
