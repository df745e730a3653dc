"""The rules on real numpy networks: each has a case where it fires, a near miss and a healthy look-alike."""

from __future__ import annotations

import dataclasses
import math
import subprocess
import sys
from typing import NamedTuple

import numpy as np
import odd_networks as odd
import pytest
from numpy_network import edited, glorot, he, of_kind, snapshot, weights
from odd_networks import Make, healthy, later, pixels, plain, widths, with_kernel

from keras_initaudit.diagnosis import RULES, Thresholds, diagnose, schemes
from keras_initaudit.records import NAN, Finding, LayerInfo, Snapshot, Statistics


class Cases(NamedTuple):
    """What a rule must say something about, and what not."""

    fires: dict[str, Make]
    near: dict[str, Make]
    """Near misses: a little more of it, and the rule fires."""
    healthy: dict[str, Make]
    """What looks like the fault and is none."""


CASES: dict[str, Cases] = {
    "symmetric-units": Cases(
        fires={
            "zeros": lambda: with_kernel(0, np.zeros_like),
            "constants": lambda: with_kernel(1, lambda w: 0 * w + 0.1),
            "equal columns": lambda: with_kernel(1, lambda w: np.repeat(w[:, :1], w.shape[1], axis=1)),
        },
        near={
            "six columns in seven copied": lambda: with_kernel(1, lambda w: np.hstack([w[:, :55], *[w[:, :1]] * 9])),
            "half of the columns copied": lambda: with_kernel(1, lambda w: np.hstack([w[:, :16], w[:, :48]])),
        },
        healthy={
            "zero head": lambda: with_kernel(-1, np.zeros_like),
            "softmax regression from zeros": lambda: snapshot([np.zeros((64, 10))]),
            "branches that end in zeros": lambda: with_kernel(1, np.zeros_like, residual=True),
            "branches that end in zeros, in front of a zero head": lambda: _zero_ends(),
            "equal rows": lambda: with_kernel(1, lambda w: np.repeat(w[:1], len(w), axis=0) + 1e-3 * w),
            "equal filters of a depthwise convolution": lambda: edited(
                odd.identical(1.0, 1.0), "dense_1", layer=of_kind("DepthwiseConv2D")
            ),
            "frozen": lambda: edited(odd.identical(1.0, 1.0), "dense_1", layer={"trainable": False}),
        },
    ),
    "vanishing-signal": Cases(
        fires={
            "0.01 in eight layers": lambda: plain(8, 0.01),
            "Glorot in thirty ReLU layers": lambda: plain(30, glorot),
            "one layer": lambda: with_kernel(1, lambda w: 1e-5 * w),
        },
        near={"Glorot in eleven ReLU layers": lambda: plain(11, glorot)},
        healthy={
            "He in sixty-four layers": lambda: plain(64),
            "small head": lambda: with_kernel(-1, lambda w: 1e-5 * w),
            "small branches": lambda: plain(8, factor=1e-4, residual=True),
            "a normalisation behind it": lambda: odd.normalised(with_kernel(2, lambda w: 1e-5 * w), "dense_2"),
        },
    ),
    "exploding-signal": Cases(
        fires={
            "1 in eight layers": lambda: plain(8, 1.0),
            "residual without normalisation": lambda: plain(32, residual=True),
            "one layer": lambda: with_kernel(1, lambda w: 1e5 * w),
        },
        near={"one half too large in eight layers": lambda: plain(8, factor=1.5)},
        healthy={
            "residual, a tenth of the branch": lambda: plain(32, factor=0.1, residual=True),
            "raw pixels": lambda: healthy(x=pixels()),
            "a normalisation behind it": lambda: odd.normalised(with_kernel(2, lambda w: 1e5 * w), "dense_2"),
        },
    ),
    "vanishing-gradient": Cases(
        fires={"ten sigmoid layers": lambda: plain(10, glorot, "sigmoid")},
        near={"four sigmoid layers": lambda: plain(4, glorot, "sigmoid")},
        healthy={
            "Glorot in thirty tanh layers": lambda: plain(30, glorot, "tanh"),
            "zero head": lambda: with_kernel(-1, np.zeros_like),
            "branches that pass none": lambda: plain(8, factor=1e-6, residual=True),
        },
    ),
    "exploding-gradient": Cases(
        fires={"backward rms grows": lambda: odd.graded(1.0)},
        near={"backward rms grows a little": lambda: odd.graded(0.25)},
        healthy={
            "flat": lambda: odd.graded(0.0),
            "a normalisation on its way": lambda: odd.normalised(odd.graded(0.5), "dense_8"),
        },
    ),
    "dead-units": Cases(
        fires={
            "bias": lambda: healthy(biases=[0, -20, 0, 0]),
            "negative kernel": lambda: with_kernel(1, lambda w: -np.abs(w)),
            "died in training": lambda: later(healthy(), healthy(biases=[0, -20, 0, 0])),
        },
        near={"two units in three": lambda: healthy(biases=[0, -3, 0, 0])},
        healthy={
            "small bias": lambda: healthy(biases=[-0.3] * 3 + [0]),
            "depth sixty-four": lambda: plain(64),
            "zeros from a linear layer": lambda: edited(healthy(), "head", activation_dead=1.0),
        },
    ),
    "saturated-units": Cases(
        fires={
            "tanh at 1": lambda: plain(4, 1.0, "tanh"),
            "sigmoid at 4": lambda: plain(3, 4.0, "sigmoid"),
            "gates": lambda: odd.gates(0.8),
        },
        near={
            "tanh at 0.3": lambda: plain(4, 0.3, "tanh"),
            "gates": lambda: odd.gates(0.33),
        },
        healthy={
            "a ReLU cut at six has one half at its flat end": lambda: edited(
                healthy(), "dense_1", layer={"activation": "relu6"}, activation_saturated=0.7
            ),
            "He on tanh": lambda: plain(4, he, "tanh"),
        },
    ),
    "attention-entropy": Cases(
        fires={"little more than one key": lambda: odd.attention(0.02)},
        near={"a third of the keys": lambda: odd.attention(0.37)},
        healthy={
            "all keys": lambda: odd.attention(0.99),
            "a softmax that answers": lambda: edited(
                healthy(), "head", layer={"activation": "softmax"}, attention_entropy=0.01
            ),
        },
    ),
    "collapsed-samples": Cases(
        fires={"nothing is left of the samples": lambda: edited(healthy(), "dense_2", activation_spread=1e-6)},
        near={"little is left of the samples": lambda: edited(healthy(), "dense_2", activation_spread=2e-3)},
        healthy={
            "one sample": lambda: plain(3, 1e-4, biases=[3.0, 3.0, 3.0, 0.0], x=np.ones((1, 64))),
            "the same sample many times": lambda: healthy(x=np.ones((32, 64))),
            "output bias": lambda: healthy(biases=[0, 0, 0, 50.0]),
            "in the middle alone": lambda: edited(healthy(), "dense_1", activation_spread=1e-6),
        },
    ),
    "non-finite": Cases(
        fires={
            "NaN in the data": lambda: healthy(x=np.where(pixels() > 250, np.nan, 0.5)),
            "weight": lambda: with_kernel(1, lambda w: np.where(w == w.max(), np.inf, w)),
            "preactivation that a fused ReLU hides": lambda: edited(healthy(), "dense_1", preactivation_nonfinite=0.1),
            "gradient": lambda: edited(healthy(), "dense_0", gradient_nonfinite=0.5),
            "backward": lambda: edited(healthy(), "dense_0", backward_nonfinite=0.5),
            "target": lambda: edited(healthy(), "target", activation_nonfinite=0.5),
            "loss": lambda: odd.of(healthy(), loss=math.inf),
            "later": lambda: later(healthy(), edited(healthy(), "dense_1", activation_nonfinite=1.0)),
        },
        near={"large": lambda: healthy(x=1e30 * np.ones((32, 64)))},
        healthy={"no loss is known": lambda: odd.of(healthy(), loss=math.nan)},
    ),
    "input-scale": Cases(
        fires={
            "raw pixels": lambda: healthy(x=pixels()),
            "far too small": lambda: healthy(x=1e-8 * pixels()),
        },
        near={
            "digits in [0, 16]": lambda: healthy(x=pixels() / 16),
            "a one-hot code of 50 000": lambda: odd.scaled(0.0045),
        },
        healthy={
            "pixels in [0, 1]": lambda: healthy(x=pixels() / 255),
            "one-hot": lambda: healthy(x=np.eye(64)[:32]),
            "integer tokens": odd.tokens,
            "normalised at once": lambda: odd.normalised(healthy(x=pixels())),
            "zeros": lambda: healthy(x=np.zeros((32, 64))),
        },
    ),
    "target-scale": Cases(
        fires={
            "prices": lambda: odd.targets(1e4, "squares"),
            "by their distance": lambda: odd.targets(1e4, "distances"),
        },
        near={"rms 25": lambda: odd.targets(25.0, "squares")},
        healthy={
            "a thousand classes": lambda: odd.targets(577.0, "classes"),
            "a loss that is not known": lambda: odd.targets(1e4, ""),
            "small ones": lambda: odd.targets(1e-4, "squares"),
        },
    ),
    "initial-loss": Cases(
        fires={
            "over-confident head": lambda: with_kernel(-1, lambda w: 100.0 * w),
            "targets around 20": lambda: _offset(20.0),
        },
        near={
            "a head twice too large": lambda: with_kernel(-1, lambda w: 2.0 * w),
            "targets around 2.5": lambda: _offset(2.5),
        },
        healthy={
            "regularizers": lambda: odd.of(healthy(), loss=500.0),
            "no baseline": lambda: odd.of(with_kernel(-1, lambda w: 100.0 * w), baseline_loss=None),
        },
    ),
    "exploding-through-time": Cases(
        fires={"it grows": lambda: odd.through_time(healthy(), 0.2)},
        near={"as much more as there are steps": lambda: odd.through_time(healthy(), 0.005, steps=600)},
        healthy={"an LSTM over 200 steps": lambda: odd.through_time(healthy(), -0.09, steps=200)},
    ),
    "vanishing-through-time": Cases(
        fires={
            "nothing is left after a step": lambda: odd.through_time(healthy(), -0.5),
            "the recurrent kernel is zero": lambda: odd.through_time(healthy(), -44.8, steps=200),
        },
        near={
            "half of it is left": lambda: odd.through_time(healthy(), -0.3),
            "a short sequence": lambda: odd.through_time(healthy(), -0.5, steps=5),
        },
        healthy={
            "an LSTM over 200 steps": lambda: odd.through_time(healthy(), -0.09, steps=200),
            "a GRU over 200 steps": lambda: odd.through_time(healthy(), -0.21, steps=200),
            "no length is known": lambda: odd.through_time(healthy(), -0.5, steps=0),
            "frozen": lambda: odd.through_time(healthy(), -0.5, trainable=False),
        },
    ),
    "update-ratio": Cases(
        fires={
            "far too large before the first update": lambda: odd.of(healthy(), learning_rate=10.0),
            "far too small before the first update": lambda: odd.of(healthy(), learning_rate=1e-8, optimizer="Adam"),
            "far too large": lambda: later(healthy(), healthy(rate=1e4)),
            "far too small, in training": lambda: later(healthy(), healthy(rate=1e-7)),
        },
        near={
            "one quarter of a kernel": lambda: odd.updated(-0.6),
            "one quarter of a kernel before the first update": lambda: odd.paced(healthy(), -0.6),
        },
        healthy={
            "usual": lambda: later(healthy(), healthy(rate=1e-2)),
            "usual before the first update": lambda: odd.of(healthy(), learning_rate=1e-3, optimizer="Adam"),
            "an optimizer of a person's own": lambda: odd.of(healthy(), learning_rate=1e3, optimizer="Mine"),
            "a zero head moves by any multiple": lambda: later(
                healthy(), edited(healthy(), "head", weight_rms=1e-3, update_log10=1.5)
            ),
            "a learnt model moves little": lambda: later(healthy(), odd.updated(-9.0)[1], step=1000),
        },
    ),
    "output-activation": Cases(
        fires={"ReLU makes logits": lambda: odd.cut_off(healthy())},
        near={
            "ReLU makes numbers": lambda: odd.of(odd.cut_off(healthy()), loss_kind="squares", outputs_mean="numbers")
        },
        healthy={"what the outputs mean is not known": lambda: odd.of(odd.cut_off(healthy()), outputs_mean="")},
    ),
    "divergence": Cases(
        fires={"ten thousand": lambda: later(healthy(), odd.of(healthy(), loss=1e4))},
        near={"loss that doubles": lambda: later(healthy(), odd.of(healthy(), loss=6.0))},
        healthy={
            "a large first loss": lambda: odd.of(healthy(), loss=1e4),
            "a loss that was small": lambda: later(odd.of(healthy(), loss=1e-3), healthy()),
            "a loss that is not known": lambda: later(healthy(), odd.of(healthy(), loss=math.nan)),
        },
    ),
    "not-learning": Cases(
        fires={
            "it moves too little": lambda: odd.standing(healthy()),
            "later": lambda: (healthy(), odd.standing(healthy(), step=100)),
        },
        near={
            "too early": lambda: odd.standing(healthy(), step=10),
            "too late": lambda: odd.standing(healthy(), step=200),
            "one kernel has moved": lambda: edited(odd.standing(healthy()), "dense_1", update_log10=-3.0),
        },
        healthy={
            "it has learnt": lambda: odd.standing(healthy(), constant_loss=2.0 * healthy().loss),
            "no constant answer is known": lambda: odd.standing(healthy(), constant_loss=None),
            "a rate of zero": lambda: odd.standing(healthy(), learning_rate=0.0),
            "a rate that warms up": lambda: (
                odd.of(healthy(), learning_rate=1e-6, peak_rate=1e-2),
                odd.standing(healthy(), learning_rate=1e-4, peak_rate=1e-2),
            ),
            "it has moved before": lambda: (
                healthy(),
                odd.of(odd.updated(-1.0)[1], step=10),
                odd.standing(healthy()),
            ),
        },
    ),
    "no-update": Cases(
        fires={
            "one kernel": lambda: edited(healthy(), "dense_1", update_zero=1.0),
            "all kernels, later": lambda: odd.unmoved(1),
        },
        near={"one number moved": lambda: edited(healthy(), "dense_1", update_zero=0.999)},
        healthy={
            "frozen": lambda: edited(healthy(), "dense_1", layer={"trainable": False}, update_zero=1.0),
            "no gradient": lambda: edited(healthy(), "dense_1", gradient_rms=0.0, update_zero=1.0),
            "no gradient before the update": lambda: later(
                edited(with_kernel(-1, np.zeros_like), "dense_1", gradient_rms=0.0),
                edited(healthy(), "dense_1", update_zero=1.0),
            ),
            "it has moved before": lambda: (*later(healthy(), odd.moved(0.5)), odd.of(odd.moved(1.0), step=5)),
        },
    ),
    "fan-mismatch": Cases(
        fires={
            "depthwise": odd.depthwise,
            "depthwise that hides its scheme": lambda: odd.depthwise(initializer=None),
            "three layers misread by 1.4": lambda: odd.misread(1.4, layers=3),
        },
        near={
            "three layers misread by 1.25": lambda: odd.misread(1.25, layers=3),
            "one layer misread by 1.7": lambda: odd.misread(1.7, layers=1),
        },
        healthy={
            "the right axes": lambda: odd.depthwise(8.0),
            "loaded weights": lambda: odd.depthwise(3.0),
            "another scheme": lambda: odd.depthwise(initializer="RandomNormal"),
            "no scheme is known, and none fits": lambda: odd.depthwise(3.0, initializer=None),
            "a stride alone": lambda: odd.depthwise(weight_shape=(3, 3, 64, 64), fan_in=576.0, fan_out=144.0),
            "a normalisation behind it": lambda: odd.normalised(odd.depthwise(), "dense_1"),
        },
    ),
    "duplicate-kernels": Cases(
        fires={"same numbers": lambda: odd.twins(0.5), "same gradient": lambda: odd.twins(1.0)},
        near={
            "frozen": lambda: edited(odd.twins(0.5), "dense_2", layer={"trainable": False}),
            "of a layer that is not there": lambda: edited(healthy(), "dense_2", layer={"duplicate_of": "dense_9"}),
        },
        healthy={
            "none": healthy,
            "constants": lambda: edited(odd.twins(0.5), "dense_2", weight_identical=1.0),
            "zeros": lambda: edited(odd.twins(0.5), "dense_2", weight_rms=0.0),
        },
    ),
    "no-gradient": Cases(
        fires={
            "frozen": lambda: odd.each(healthy(), trainable=False),
            "not reached": lambda: edited(healthy(), "dense_1", layer={"reached": False}, gradient_rms=NAN),
            "flat loss": odd.flat_loss,
        },
        near={
            "flat loss but for the head": lambda: odd.flat_loss(but="head"),
            "not reached and frozen": lambda: edited(
                healthy(), "dense_1", layer={"reached": False, "trainable": False}, gradient_rms=NAN
            ),
        },
        healthy={
            "frozen backbone": lambda: edited(healthy(), "dense_0", layer={"trainable": False, "reached": False}),
            "zero head": lambda: with_kernel(-1, np.zeros_like),
        },
    ),
}


def _zero_ends() -> Snapshot:
    """Each branch ends in zeros, and so does the network: no branch has a gradient at the first step."""
    shape = widths(3)
    kernels = weights(shape, he(shape))
    return snapshot([kernels[0], np.zeros_like(kernels[1]), kernels[2], np.zeros_like(kernels[3])], residual=True)


def _offset(mean: float) -> Snapshot:
    """Regression on targets of unit variance around a mean, by the mean squared error."""
    shot = edited(healthy(), "target", activation_mean=mean, activation_std=1.0, activation_rms=math.hypot(mean, 1.0))
    return odd.of(shot, loss=1.0 + mean**2, baseline_loss=1.0, loss_kind="squares")


def findings(made: Snapshot | tuple[Snapshot, ...], thresholds: Thresholds | None = None) -> tuple[Finding, ...]:
    return diagnose(made if isinstance(made, tuple) else (made,), thresholds)


FIRING = [(rule, name) for rule, cases in CASES.items() for name in cases.fires]
SILENT = [
    (rule, kind, name) for rule, cases in CASES.items() for kind in ("near", "healthy") for name in getattr(cases, kind)
]


def test_every_rule_has_cases_that_fire_near_misses_and_healthy_ones() -> None:
    assert {rule.slug for rule in RULES} == set(CASES)
    assert [rule for rule, cases in CASES.items() if not all(cases)] == []


@pytest.mark.parametrize(("rule", "name"), FIRING)
def test_it_fires_as_the_first_cause(rule: str, name: str) -> None:
    found = findings(CASES[rule].fires[name]())
    assert found, "nothing found"
    assert found[0].rule == rule, [(f.rule, f.message) for f in found]
    assert found[0].message
    assert found[0].reference
    assert {"observed", "expected", "threshold", "unit", "layers", "affected"} <= set(found[0].evidence)


@pytest.mark.parametrize(("rule", "kind", "name"), SILENT)
def test_it_keeps_silent(rule: str, kind: str, name: str) -> None:
    found = findings(getattr(CASES[rule], kind)[name]())
    assert rule not in [f.rule for f in found], [f.message for f in found if f.rule == rule]
    told = {c["rule"] for f in found for c in f.evidence.get("consequences", ())}
    assert kind == "near" or rule not in told  # nor behind another rule's back


@pytest.mark.parametrize(
    ("make", "severity"),
    [
        (lambda: plain(14, glorot), "warning"),
        (lambda: plain(30, glorot), "bad"),
        (lambda: odd.twins(0.5), "warning"),
        (lambda: odd.twins(1.0), "bad"),
        (lambda: odd.attention(0.2), "warning"),
        (lambda: odd.attention(0.02), "bad"),
        (lambda: with_kernel(1, lambda w: 0 * w + 0.1, activation="tanh"), "warning"),
        (lambda: with_kernel(1, np.zeros_like), "bad"),
        (lambda: healthy(x=1e-3 * pixels() / 255), "warning"),
        (lambda: healthy(x=1e5 * pixels()), "bad"),
    ],
)
def test_severity_follows_the_limits(make: Make, severity: str) -> None:
    assert findings(make())[0].severity == severity


def test_the_message_says_the_factor_of_each_layer() -> None:
    found = findings(plain(30, glorot))[0]
    factor, count = found.evidence["per_layer_factor"], found.evidence["kernels"]
    assert count == 30
    assert factor == pytest.approx(math.sqrt(0.5), rel=0.05)  # Glorot on ReLU halves the variance
    assert factor**count == pytest.approx(10 ** -found.evidence["observed"], rel=1e-6)
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
    found = findings(edited(odd.gates(0.8), "dense_2", layer={"duplicate_of": "dense_0"}))
    assert {f.rule for f in found} == {"saturated-units", "duplicate-kernels"}


def test_the_worst_comes_first() -> None:
    shot = edited(odd.depthwise(), "dense_2", layer={"duplicate_of": "dense_0"})
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
    assert [f.rule for f in found] == ["divergence"]
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


def _told(found: tuple[Finding, ...]) -> list[tuple[str, str]]:
    return [(f.rule, f.severity) for f in found]


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
        apart = odd.each(joined, inputs=())
        assert _told(findings(apart)) == _told(findings(joined))


def test_the_table_is_whole() -> None:
    columns = {f.name for f in dataclasses.fields(Statistics)} | {f.name for f in dataclasses.fields(LayerInfo)}
    columns |= {f.name for f in dataclasses.fields(Snapshot)}
    limits = {f.name for f in dataclasses.fields(Thresholds)}
    slugs = [rule.slug for rule in RULES]
    assert len(slugs) == len(set(slugs)) == 23
    for rule in RULES:
        assert set(rule.sees) <= columns - {"optimizer"}, rule.slug
        assert set(rule.thresholds) <= limits, rule.slug
        assert len(rule.thresholds) <= 2, rule.slug
        assert rule.explains == tuple(dict.fromkeys(rule.explains)), rule.slug
        assert set(rule.explains) <= set(slugs) - {rule.slug}, rule.slug
        assert all((rule.reference, rule.unit, rule.measure.__doc__, rule.words.__doc__, rule.remedy.__doc__))
        assert "optimizer" not in rule.unit
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
        ("layers.my_gelu", 1.53, "HeNormal(gain=1.53)"),
        ("__main__.<lambda>", 1.53, "HeNormal(gain=1.53)"),
        ("layers.relu", None, "GlorotNormal()"),
        ("softmax", None, "GlorotNormal()"),
    ],
)
def test_the_recommended_scheme_follows_the_activation(activation: str, gain: float | None, call: str) -> None:
    assert schemes.kernel_scheme(activation, gain).code == call


def test_a_misread_shape_gets_axes_or_a_scale() -> None:
    depth = LayerInfo("d", 0, weight_shape=(3, 3, 64, 1), fan_in=9.0, fan_out=9.0, **of_kind("DepthwiseConv2D"))
    call = schemes.kernel_scheme("relu", 1.414, depth).code
    assert call == "VarianceScaling(scale=2, input_axes=(0, 1), output_axes=(0, 1, 3))"
    # Conv2DTranspose(32, 4, strides=2) on 64 channels: 256 inputs a pixel where the shape says 512.
    up = LayerInfo("u", 0, weight_shape=(4, 4, 32, 64), fan_in=256.0, fan_out=512.0, **of_kind("Conv2DTranspose"))
    assert schemes.kernel_scheme("relu", 1.414, up).code == "VarianceScaling(scale=4)"


def test_diagnosis_needs_neither_keras_nor_numpy() -> None:
    code = (
        "import sys; import keras_initaudit.diagnosis, keras_initaudit.report; "
        "print([m for m in ('keras', 'tensorflow', 'numpy') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
