"""The rules on real numpy networks: each has a case where it fires, a near miss and a healthy look-alike."""

from __future__ import annotations

import dataclasses
import functools
import math
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy_network import Array, edited, glorot, he, snapshot, weights

from keras_initaudit.diagnosis import RULES, Thresholds, diagnose, remedies
from keras_initaudit.diagnosis import network as networks
from keras_initaudit.records import NAN, Finding, LayerInfo, Snapshot, Statistics

Make = Callable[[], "Snapshot | tuple[Snapshot, ...]"]


def widths(depth: int, width: int = 64) -> list[int]:
    return [64, *[width] * depth, 10]


def plain(depth: int, scheme: Any = he, activation: str = "relu", factor: float = 1.0, **how: Any) -> Snapshot:
    shape = widths(depth)
    std = scheme(shape) if callable(scheme) else [scheme] * (depth + 1)
    return snapshot(weights(shape, [factor * s for s in std]), activation, **how)


def healthy(depth: int = 3, **how: Any) -> Snapshot:
    return plain(depth, **how)


def with_kernel(
    i: int, change: Callable[[Array], Array], depth: int = 3, activation: str = "relu", **how: Any
) -> Snapshot:
    kernels = weights(widths(depth), (he if activation == "relu" else glorot)(widths(depth)))
    kernels[i] = change(kernels[i])
    return snapshot(kernels, activation, **how)


def pixels() -> Array:
    return np.random.default_rng(0).integers(0, 256, (32, 64)).astype(float)


def later(start: Snapshot, then: Snapshot, step: int = 2) -> tuple[Snapshot, Snapshot]:
    return start, dataclasses.replace(then, step=step)


def depthwise(factor: float = 1.0, **layer: Any) -> Snapshot:
    """A healthy network whose second layer is said to be a depthwise convolution that He started with Keras's fans."""
    config: dict[str, Any] = {"input_axes": None, "output_axes": None}
    known = {
        "kind": "DepthwiseConv2D",
        "weight_shape": (3, 3, 64, 1),
        "fan_in": 9.0,
        "fan_out": 9.0,
        "initializer": "HeNormal",
        "initializer_config": config,
    }
    return edited(healthy(), "dense_1", layer=known | layer, weight_rms=factor * math.sqrt(2.0 / 576.0))


def twins(same_gradient: bool) -> Snapshot:
    shot = edited(healthy(), "dense_2", layer={"duplicate_of": "dense_1"})
    if same_gradient:
        twin = shot["dense_1"]
        shot = edited(shot, "dense_2", gradient_rms=twin.gradient_rms, gradient_max=twin.gradient_max)
    return shot


def attention(entropy: float) -> Snapshot:
    shot = healthy()
    part = LayerInfo("dense_1/attention", 1, "attention", "MultiHeadAttention", activation="softmax")
    row = Statistics(attention_entropy=entropy)
    return dataclasses.replace(shot, layers=(*shot.layers, part), statistics=(*shot.statistics, row))


CASES: dict[str, tuple[dict[str, Make], dict[str, Make]]] = {
    # rule: ({name: it fires}, {name: near misses and healthy look-alikes, where it must not})
    "symmetric-units": (
        {
            "zeros": lambda: with_kernel(0, np.zeros_like),
            "constants": lambda: with_kernel(1, lambda w: 0 * w + 0.1),
            "equal columns": lambda: with_kernel(1, lambda w: np.repeat(w[:, :1], w.shape[1], axis=1)),
        },
        {
            "half of the columns copied": lambda: with_kernel(1, lambda w: np.concatenate([w[:, :16], w[:, :48]], 1)),
            "zero head": lambda: with_kernel(-1, np.zeros_like),
            "softmax regression from zeros": lambda: snapshot([np.zeros((64, 10))]),
            "equal rows": lambda: with_kernel(1, lambda w: np.repeat(w[:1], len(w), axis=0) + 1e-3 * w),
        },
    ),
    "vanishing-signal": (
        {
            "0.01 in eight layers": lambda: plain(8, 0.01),
            "Glorot in thirty ReLU layers": lambda: plain(30, glorot),
            "one layer": lambda: with_kernel(1, lambda w: 1e-5 * w),
        },
        {
            "Glorot in six ReLU layers": lambda: plain(6, glorot),
            "He in sixty-four layers": lambda: plain(64),
            "small head": lambda: with_kernel(-1, lambda w: 1e-5 * w),
            "small branches": lambda: plain(8, factor=1e-4, residual=True),
        },
    ),
    "exploding-signal": (
        {
            "1 in eight layers": lambda: plain(8, 1.0),
            "residual without normalisation": lambda: plain(32, residual=True),
            "one layer": lambda: with_kernel(1, lambda w: 1e5 * w),
        },
        {
            "a little too large": lambda: plain(8, factor=1.2),
            "residual, a tenth of the branch": lambda: plain(32, factor=0.1, residual=True),
            "raw pixels": lambda: healthy(x=pixels()),
        },
    ),
    "vanishing-gradient": (
        {"ten sigmoid layers": lambda: plain(10, glorot, "sigmoid")},
        {
            "two sigmoid layers": lambda: plain(2, glorot, "sigmoid"),
            "Glorot in thirty tanh layers": lambda: plain(30, glorot, "tanh"),
            "zero head": lambda: with_kernel(-1, np.zeros_like),
            "branches that pass none": lambda: plain(8, factor=1e-6, residual=True),
        },
    ),
    "exploding-gradient": (
        {"backward rms grows": lambda: _graded(1.0)},
        {"backward rms grows a little": lambda: _graded(0.25), "flat": lambda: _graded(0.0)},
    ),
    "dead-units": (
        {
            "bias": lambda: healthy(biases=[0, -20, 0, 0]),
            "negative kernel": lambda: with_kernel(1, lambda w: -np.abs(w)),
            "died in training": lambda: later(healthy(), healthy(biases=[0, -20, 0, 0])),
        },
        {
            "small bias": lambda: healthy(biases=[-0.3] * 3 + [0]),
            "depth sixty-four": lambda: plain(64),
            "zeros from a linear layer": lambda: edited(healthy(), "head", activation_dead=1.0),
        },
    ),
    "saturated-units": (
        {
            "tanh at 1": lambda: plain(4, 1.0, "tanh"),
            "sigmoid at 4": lambda: plain(3, 4.0, "sigmoid"),
            "gates": lambda: _gates(0.8),
            "attention": lambda: attention(0.02),
        },
        {
            "a ReLU cut at six has one half at its flat end": lambda: edited(
                healthy(), "dense_1", layer={"activation": "relu6"}, activation_saturated=0.7
            ),
            "He on tanh": lambda: plain(4, he, "tanh"),
            "gates": lambda: _gates(0.2),
            "attention": lambda: attention(0.9),
        },
    ),
    "collapsed-samples": (
        {"nothing is left of the samples": lambda: edited(healthy(), "dense_2", activation_spread=1e-6)},
        {
            "one sample": lambda: plain(3, 1e-4, biases=[3.0, 3.0, 3.0, 0.0], x=np.ones((1, 64))),
            "the same sample many times": lambda: healthy(x=np.ones((32, 64))),
            "output bias": lambda: healthy(biases=[0, 0, 0, 50.0]),
        },
    ),
    "non-finite": (
        {
            "NaN in the data": lambda: healthy(x=np.where(pixels() > 250, np.nan, 0.5)),
            "weight": lambda: with_kernel(1, lambda w: np.where(w == w.max(), np.inf, w)),
            "preactivation that a fused ReLU hides": lambda: edited(healthy(), "dense_1", preactivation_nonfinite=0.1),
            "gradient": lambda: edited(healthy(), "dense_0", gradient_nonfinite=0.5),
            "later": lambda: later(healthy(), edited(healthy(), "dense_1", activation_nonfinite=1.0)),
        },
        {"large": lambda: healthy(x=1e30 * np.ones((32, 64)))},
    ),
    "input-scale": (
        {
            "raw pixels": lambda: healthy(x=pixels()),
            "far too small": lambda: healthy(x=1e-8 * pixels()),
            "regression targets": lambda: _targets(1e4, 1e8),
        },
        {
            "pixels in [0, 1]": lambda: healthy(x=pixels() / 255),
            "digits in [0, 16]": lambda: healthy(x=pixels() / 16),
            "a thousand classes": lambda: _targets(577.0, math.log(1000)),
            "one-hot": lambda: healthy(x=np.eye(64)[:32]),
            "integer tokens": lambda: _tokens(),
            "normalised at once": lambda: _normalised(pixels()),
        },
    ),
    "initial-loss": (
        {"over-confident head": lambda: with_kernel(-1, lambda w: 100.0 * w)},
        {
            "healthy": healthy,
            "regularizers": lambda: dataclasses.replace(healthy(), loss=500.0),
            "no baseline": lambda: dataclasses.replace(with_kernel(-1, lambda w: 100.0 * w), baseline_loss=None),
        },
    ),
    "update-ratio": (
        {
            "diverged": lambda: later(healthy(), dataclasses.replace(healthy(), loss=1e4)),
            "far too large": lambda: later(healthy(), healthy(rate=1e4)),
            "far too small, in training": lambda: _slow(),
        },
        {
            "usual": lambda: later(healthy(), healthy(rate=1e-2)),
            "a zero head moves by any multiple": lambda: later(
                healthy(), edited(healthy(), "head", weight_rms=1e-3, update_log10=1.5)
            ),
            "loss that doubles": lambda: later(healthy(), dataclasses.replace(healthy(), loss=6.0)),
        },
    ),
    "fan-mismatch": (
        {"depthwise": depthwise, "depthwise that hides its scheme": lambda: depthwise(initializer=None)},
        {
            "the right axes": lambda: depthwise(8.0),
            "loaded weights": lambda: depthwise(3.0),
            "another scheme": lambda: depthwise(initializer="RandomNormal"),
            "no scheme is known, and none fits": lambda: depthwise(3.0, initializer=None),
            "a stride alone": lambda: depthwise(weight_shape=(3, 3, 64, 64), fan_in=576.0, fan_out=144.0),
        },
    ),
    "duplicate-kernels": (
        {"same numbers": lambda: twins(False), "same gradient": lambda: twins(True)},
        {"none": healthy, "frozen": lambda: edited(twins(False), "dense_2", layer={"trainable": False})},
    ),
    "no-gradient": (
        {
            "frozen": lambda: _each(healthy(), trainable=False),
            "not reached": lambda: edited(healthy(), "dense_1", layer={"reached": False}, gradient_rms=NAN),
            "flat loss": lambda: _flat_loss(),
        },
        {
            "frozen backbone": lambda: edited(healthy(), "dense_0", layer={"trainable": False, "reached": False}),
            "zero head": lambda: with_kernel(-1, np.zeros_like),
        },
    ),
}


def _graded(decades: float, depth: int = 10) -> Snapshot:
    """A healthy network with a gradient that grows by so many decades a layer on its way back."""
    shot = healthy(depth)
    for i in range(depth):
        shot = edited(shot, f"dense_{i}", backward_rms=1e-2 * 10 ** (decades * (depth - 1 - i)))
    return shot


def _gates(saturated: float) -> Snapshot:
    shot = healthy()
    part = LayerInfo("dense_1/gates", 1, "gates", "LSTM", activation="sigmoid")
    row = Statistics(activation_saturated=saturated)
    return dataclasses.replace(shot, layers=(*shot.layers, part), statistics=(*shot.statistics, row))


def _targets(scale: float, baseline: float) -> Snapshot:
    shot = edited(healthy(), "target", activation_rms=scale, activation_std=scale, activation_mean=0.0)
    return dataclasses.replace(shot, baseline_loss=baseline)


def _tokens() -> Snapshot:
    shot = edited(healthy(), "input", activation_rms=5000.0, activation_mean=4000.0, activation_max=9999.0)
    return edited(shot, "dense_0", layer={"kind": "Embedding"})


def _normalised(x: Array) -> Snapshot:
    shot = healthy(x=x)
    info = LayerInfo("batch_normalization", 1, kind="BatchNormalization", shape=(64,), inputs=("dense_0",))
    row = dataclasses.replace(shot["dense_0"], activation_rms=1.0, weight_rms=NAN)
    layers = [dataclasses.replace(a, inputs=(info.path,)) if a.path == "dense_1" else a for a in shot.layers]
    layers.insert(2, info)
    rows = list(shot.statistics)
    rows.insert(2, row)
    return dataclasses.replace(shot, layers=tuple(layers), statistics=tuple(rows))


def _each(shot: Snapshot, **layer: Any) -> Snapshot:
    return dataclasses.replace(shot, layers=tuple(dataclasses.replace(info, **layer) for info in shot.layers))


def _flat_loss() -> Snapshot:
    shot = healthy()
    rows = [dataclasses.replace(row, gradient_rms=0.0) if row.weight_rms > 0 else row for row in shot.statistics]
    return dataclasses.replace(shot, statistics=tuple(rows))


def findings(made: Snapshot | tuple[Snapshot, ...], thresholds: Thresholds | None = None) -> tuple[Finding, ...]:
    return diagnose(made if isinstance(made, tuple) else (made,), thresholds)


FIRING = [(rule, name) for rule, (firing, _) in CASES.items() for name in firing]
SILENT = [(rule, name) for rule, (_, silent) in CASES.items() for name in silent]


def test_every_rule_has_cases() -> None:
    assert {rule.slug for rule in RULES} == set(CASES)
    assert all(firing and silent for firing, silent in CASES.values())


@pytest.mark.parametrize(("rule", "name"), FIRING)
def test_it_fires_as_the_first_cause(rule: str, name: str) -> None:
    found = findings(CASES[rule][0][name]())
    assert found, "nothing found"
    assert found[0].rule == rule, [(f.rule, f.message) for f in found]
    assert found[0].message
    assert found[0].reference
    assert {"observed", "expected", "threshold", "unit", "layers", "affected"} <= set(found[0].evidence)


@pytest.mark.parametrize(("rule", "name"), SILENT)
def test_it_keeps_silent(rule: str, name: str) -> None:
    found = findings(CASES[rule][1][name]())
    assert rule not in [f.rule for f in found], [f.message for f in found if f.rule == rule]


@pytest.mark.parametrize(
    ("make", "severity"),
    [
        (lambda: plain(14, glorot), "warning"),
        (lambda: plain(30, glorot), "bad"),
        (lambda: twins(False), "warning"),
        (lambda: twins(True), "bad"),
        (lambda: attention(0.2), "warning"),
        (lambda: attention(0.02), "bad"),
        (lambda: with_kernel(1, lambda w: 0 * w + 0.1, activation="tanh"), "warning"),
        (lambda: with_kernel(1, np.zeros_like), "bad"),
        (lambda: healthy(x=1e-3 * pixels() / 255), "warning"),
        (lambda: healthy(x=1e5 * pixels()), "bad"),
    ],
)
def test_severity_follows_the_limits(make: Make, severity: str) -> None:
    assert findings(make())[0].severity == severity


def test_plain_descent_needs_a_stronger_signal_than_an_adaptive_optimizer() -> None:
    """Nineteen Glorot layers keep 1e-3: Adam learns from it, SGD does not."""
    shot = plain(20, glorot)
    assert findings(dataclasses.replace(shot, optimizer="SGD"))[0].severity == "bad"
    assert findings(dataclasses.replace(shot, optimizer="AdamW"))[0].severity == "warning"


def test_plain_descent_diverges_from_a_large_loss_that_an_adaptive_optimizer_survives() -> None:
    shot = with_kernel(-1, lambda w: 10.0 * w)
    assert shot.loss > 3 * (shot.baseline_loss or math.inf)
    told = [findings(dataclasses.replace(shot, optimizer=o, learning_rate=0.1)) for o in ("SGD", "Adam")]
    assert [(f[0].rule, f[0].severity) for f in told] == [("initial-loss", "bad"), ("initial-loss", "warning")]
    gentle = findings(dataclasses.replace(shot, optimizer="SGD", learning_rate=1e-6))
    assert [f.severity for f in gentle] == ["warning"]


def test_what_unscaled_data_does_is_no_worse_than_the_data_where_the_optimizer_is_adaptive() -> None:
    shot = plain(4, glorot, "tanh", x=pixels())
    assert findings(dataclasses.replace(shot, optimizer="SGD"))[0].severity == "bad"
    assert findings(dataclasses.replace(shot, optimizer="Adam"))[0].severity == "warning"


def test_the_message_says_the_factor_of_each_layer() -> None:
    found = findings(plain(30, glorot))[0]
    factor, count = found.evidence["per_layer_factor"], found.evidence["kernels"]
    assert count == 30
    assert factor == pytest.approx(math.sqrt(0.5), rel=0.05)  # Glorot on ReLU halves the variance
    assert factor**count == pytest.approx(10 ** found.evidence["observed"], rel=1e-6)
    assert "multiplies the signal by 0.7;" in found.message
    assert "after 30 layers" in found.message


@pytest.mark.parametrize(
    ("make", "cause", "consequences"),
    [
        (lambda: healthy(x=pixels()), "input-scale", {"initial-loss"}),
        (lambda: plain(4, glorot, "tanh", x=pixels()), "input-scale", {"saturated-units"}),
        (lambda: plain(8, 0.01), "vanishing-signal", {"vanishing-gradient"}),
        (lambda: plain(8, 1.0), "exploding-signal", {"exploding-gradient", "initial-loss"}),
        (lambda: healthy(biases=[0, -20, 0, 0]), "dead-units", {"vanishing-signal", "no-gradient"}),
        (lambda: with_kernel(1, np.zeros_like), "symmetric-units", {"dead-units", "vanishing-signal"}),
    ],
)
def test_one_cause_is_one_finding(make: Make, cause: str, consequences: set[str]) -> None:
    found = findings(make())
    assert [f.rule for f in found] == [cause]
    assert consequences <= {c["rule"] for c in found[0].evidence["consequences"]}


def test_two_causes_in_two_places_are_two_findings() -> None:
    """A saturated gate beside the point is not swallowed by a duplicate seed elsewhere."""
    found = findings(edited(_gates(0.8), "dense_2", layer={"duplicate_of": "dense_0"}))
    assert {f.rule for f in found} == {"saturated-units", "duplicate-kernels"}


def test_the_worst_comes_first() -> None:
    shot = edited(depthwise(), "dense_2", layer={"duplicate_of": "dense_0"})
    found = findings(edited(shot, "dense_0", weight_nonfinite=0.5))
    assert found[0].rule == "non-finite"
    assert [f.severity for f in found] == sorted((f.severity for f in found), key=["bad", "warning"].index)


def test_a_warning_turns_bad_when_training_shows_what_it_leads_to() -> None:
    long = dataclasses.replace(edited(healthy(), "dense_1", update_log10=0.0), step=1)
    dead = dataclasses.replace(healthy(biases=[0, -20, 0, 0]), step=5)
    (before,) = diagnose([healthy(), long])
    assert (before.rule, before.severity) == ("update-ratio", "warning")
    (after,) = diagnose([healthy(), long, dead])
    assert (after.rule, after.severity, after.evidence["step"]) == ("update-ratio", "bad", 1)
    assert [(c["rule"], c["step"]) for c in after.evidence["consequences"]] == [("dead-units", 5)]
    (alone,) = diagnose([healthy(), dead])
    assert alone.rule == "dead-units"


def test_steps_that_are_far_too_long_explain_what_they_leave_behind() -> None:
    wreck = dataclasses.replace(healthy(biases=[0, -20, 0, 0]), step=1, loss=1e6)
    found = diagnose([healthy(), wreck])
    assert [f.rule for f in found] == ["update-ratio"]
    assert [c["rule"] for c in found[0].evidence["consequences"]] == ["dead-units"]


def test_a_later_audit_adds_what_only_training_shows_and_repeats_nothing() -> None:
    dead = healthy(biases=[0, -20, 0, 0])
    found = findings((healthy(), healthy(), dataclasses.replace(dead, step=2), dataclasses.replace(dead, step=5)))
    assert [(f.rule, f.evidence["step"]) for f in found] == [("dead-units", 2)]
    assert len(findings((dead, dataclasses.replace(dead, step=1)))) == 1


def test_a_trained_network_may_look_like_a_bad_start() -> None:
    """Saturation, a small gradient and a sure answer are what learning ends with."""
    trained = dataclasses.replace(plain(4, 1.0, "tanh"), step=1000, loss=1e-4)
    assert not findings((healthy(), trained))
    assert findings(trained)


def test_a_zero_head_puts_the_judgement_off_to_the_next_audit() -> None:
    shape = widths(10)
    kernels = weights(shape, glorot(shape))
    moved = snapshot(kernels, "sigmoid", step=1)
    started = snapshot([*kernels[:-1], np.zeros_like(kernels[-1])], "sigmoid")
    assert "vanishing-gradient" not in [f.rule for f in findings(started)]
    assert "vanishing-gradient" in [f.rule for f in findings((started, moved))]


@pytest.mark.parametrize("field", [f.name for f in dataclasses.fields(Thresholds)])
def test_every_threshold_is_read_by_some_rule(field: str) -> None:
    """Moving it alone changes what is found in some case: no limit is there for show."""
    default, cases = Thresholds(), _all_cases()
    before = _all_told()
    stem, falling = field.rsplit("_", 1)[0], False
    for factor in (0.01, 0.5, 2.0, 100.0):
        changed = {field: getattr(default, field) * factor if getattr(default, field) else factor}
        level = field.rsplit("_", 1)[-1]
        partner = f"{stem}_{'bad' if level == 'warning' else 'warning'}"
        if level in ("warning", "bad") and hasattr(default, partner):
            values = getattr(default, partner), changed[field]
            falling = stem in ("entropy", "spread", "input_low")
            ordered = (values[0] <= values[1]) if (level == "warning") == falling else (values[0] >= values[1])
            if not ordered:
                changed[partner] = changed[field]
        if [_told(findings(case, Thresholds(**changed))) for case in cases] != before:
            return
    pytest.fail(f"no case depends on {field}")


@functools.cache
def _all_cases() -> list[Any]:
    cases: list[Any] = [make() for firing, silent in CASES.values() for make in (*firing.values(), *silent.values())]
    cases += [plain(16, glorot), attention(0.2), healthy(x=1e-3 * pixels() / 255)]
    cases += [_slow(), _targets(100.0, 1e4), _branch(), _graded(0.3), plain(20, glorot)]
    cases += [plain(3, glorot, "sigmoid"), edited(healthy(), "dense_2", activation_spread=5e-4)]
    cases += [dataclasses.replace(healthy(x=1e3 * pixels()), optimizer="Adam")]
    cases += [dataclasses.replace(with_kernel(-1, lambda w: 10.0 * w), learning_rate=rate) for rate in (1e-6, 1e-2)]
    return [
        *cases,
        edited(healthy(), "input", activation_rms=5e3),
        dataclasses.replace(plain(20, glorot), optimizer="Adam"),
    ]


@functools.cache
def _all_told() -> list[list[tuple[str, str]]]:
    return [_told(findings(case)) for case in _all_cases()]


def _told(found: tuple[Finding, ...]) -> list[tuple[str, str]]:
    return [(f.rule, f.severity) for f in found]


def _slow() -> tuple[Snapshot, ...]:
    return later(healthy(), healthy(rate=1e-7))


def _branch() -> Snapshot:
    return plain(4, 0.5, "tanh", residual=True)


@pytest.mark.parametrize("bad", [math.nan, math.inf, "0.5", None, True])
def test_a_threshold_must_be_a_finite_number(bad: Any) -> None:
    with pytest.raises(ValueError, match=r"dead_bad must be a finite number, got"):
        Thresholds(dead_bad=bad)


def test_a_warning_cannot_come_after_bad() -> None:
    with pytest.raises(ValueError, match=r"dead_bad must be not below dead_warning, got 0.1 and 0.7"):
        Thresholds(dead_bad=0.1)
    with pytest.raises(ValueError, match=r"spread_bad must be not above spread_warning"):
        Thresholds(spread_bad=0.5)


def test_a_lone_snapshot_is_refused() -> None:
    with pytest.raises(
        TypeError, match=r"must be a sequence of snapshots, got Snapshot; write diagnose\(\[snapshot\]\)"
    ):
        diagnose(healthy())  # type: ignore[arg-type]


def test_nothing_to_look_at_is_nothing_found() -> None:
    assert diagnose([]) == ()
    assert diagnose([Snapshot(0, (), ())]) == ()
    empty = Snapshot(0, (LayerInfo("a", 0), LayerInfo("b", 1, inputs=("a", "nowhere"))), (Statistics(), Statistics()))
    assert diagnose([empty]) == ()


def test_without_connections_the_rows_are_taken_as_a_chain() -> None:
    """A subclassed model may hide what flows where."""
    for make in (lambda: plain(8, 0.01), lambda: plain(8, 1.0), lambda: plain(10, glorot, "sigmoid"), healthy):
        joined = make()
        apart = _each(joined, inputs=())
        assert _told(findings(apart)) == _told(findings(joined))


def test_the_table_is_whole() -> None:
    columns = {f.name for f in dataclasses.fields(Statistics)} | {f.name for f in dataclasses.fields(LayerInfo)}
    columns |= {f.name for f in dataclasses.fields(Snapshot)}
    limits = {f.name for f in dataclasses.fields(Thresholds)}
    slugs = [rule.slug for rule in RULES]
    assert len(slugs) == len(set(slugs)) == 15
    for rule in RULES:
        assert set(rule.sees) <= columns, rule.slug
        assert set(rule.thresholds) <= limits, rule.slug
        assert set(rule.explains) <= set(slugs), rule.slug
        assert rule.reference
    assert limits == {name for rule in RULES for name in rule.thresholds}


def test_diagnosis_is_pure() -> None:
    shot = plain(8, 1.0)
    before = dataclasses.asdict(shot)
    first, second = findings(shot), findings(shot)
    assert repr(first) == repr(second)
    assert repr(dataclasses.asdict(shot)) == repr(before)


def test_a_thousand_layers_are_judged_in_a_second() -> None:
    """Linear enough: a thousand rows, all of them odd, within ten times what one core needs for it."""
    import time

    rows, shape = 1000, (64, 64)
    layers = [LayerInfo("d0", 0, kind="Dense", weight="kernel", weight_shape=shape, shape=(64,))]
    for i in range(1, rows):
        layers.append(dataclasses.replace(layers[0], path=f"d{i}", depth=i, inputs=(f"d{i - 1}",)))
    statistics = [
        Statistics(activation_rms=10.0 ** (-0.03 * i), backward_rms=1e-3, weight_rms=0.1, activation_spread=0.5)
        for i in range(rows)
    ]
    begin = time.perf_counter()
    found = diagnose([Snapshot(0, tuple(layers), tuple(statistics), batch_size=32)])
    assert time.perf_counter() - begin < 20.0
    assert found[0].rule == "vanishing-signal"


@pytest.mark.parametrize(
    ("activation", "gain", "call"),
    [
        ("relu", 1.414, "HeNormal()"),
        ("tanh", 1.59, "GlorotNormal()"),
        ("linear", 1.0, "GlorotNormal()"),
        ("selu", 1.0, "LeCunNormal()"),
        ("gelu", 1.53, 'HeNormal(gain="gelu")'),
        ("leaky_relu(0.2)", math.sqrt(2 / 1.04), "HeNormal(gain=1.387)"),
        ("softmax", None, "GlorotNormal()"),
    ],
)
def test_the_recommended_scheme_follows_the_activation(activation: str, gain: float | None, call: str) -> None:
    assert remedies.kernel_scheme(activation, gain)[1] == call


def test_a_misread_shape_gets_axes_or_a_scale() -> None:
    depth = LayerInfo("d", 0, kind="DepthwiseConv2D", weight_shape=(3, 3, 64, 1), fan_in=9.0, fan_out=9.0)
    call = remedies.kernel_scheme("relu", 1.414, depth)[1]
    assert call == "VarianceScaling(scale=2, input_axes=(0, 1), output_axes=(0, 1, 3))"
    # Conv2DTranspose(32, 4, strides=2) on 64 channels: 256 inputs a pixel where the shape says 512.
    up = LayerInfo("u", 0, kind="Conv2DTranspose", weight_shape=(4, 4, 32, 64), fan_in=256.0, fan_out=512.0)
    assert remedies.kernel_scheme("relu", 1.414, up)[1] == "VarianceScaling(scale=4)"


def test_the_network_knows_skips_heads_and_ancestors() -> None:
    net = networks.Network(plain(4, residual=True))
    by_path = {row.path: row for row in net.rows}
    assert net.bypassed(by_path["dense_1"])
    assert not net.bypassed(by_path["add_1"])
    assert [row.path for row in net.heads] == ["head"]
    assert [row.path for row in net.firsts] == ["dense_0"]
    assert net.is_ancestor(by_path["dense_0"].index, by_path["head"].index)
    assert not net.is_ancestor(by_path["head"].index, by_path["dense_0"].index)


def test_diagnosis_needs_neither_keras_nor_numpy() -> None:
    code = (
        "import sys; import keras_initaudit.diagnosis, keras_initaudit.report; "
        "print([m for m in ('keras', 'tensorflow', 'numpy') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
