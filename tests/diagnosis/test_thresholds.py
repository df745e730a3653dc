"""Each limit on both sides: a hair below it one verdict, a hair above it the next, and it moves with the limit."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import odd_networks as odd
import pytest
from numpy_network import edited, glorot, of_kind

from keras_initaudit.diagnosis import RULES, Thresholds, diagnose
from keras_initaudit.records import NAN

WARNING, BAD = "warning", "bad"


def behind_normalisation(limit: float) -> odd.Snapshot:
    """A gradient that grows by twice the limit, which is what a normalisation on its way allows; never bad."""
    return odd.normalised(odd.graded(2 * limit / 9), "dense_8")


def faded(decades: float) -> odd.Snapshot:
    """A gradient that falls by so many decades over ten layers."""
    return odd.graded(-decades / 9)


def steps_in_time(decades: float) -> odd.Snapshot:
    """A recurrent layer that reads ten steps, nine of which change the gradient by so many decades each."""
    return odd.through_time(odd.healthy(), decades, steps=10)


def gated(forward: float, backward: float) -> odd.Snapshot:
    """Gates in the first layer, and so many decades that signal and gradient lose beyond what gates take off."""
    shot = edited(faded(backward), "dense_0", layer=of_kind("LSTM"))
    return edited(shot, "dense_9", activation_rms=shot["input"].activation_rms * 10 ** (-0.5 - forward))


def some_fast(shot: odd.Snapshot) -> odd.Snapshot:
    """The same with two of the kernels moving by a tenth at the first step."""
    for path in ("dense_7", "dense_8"):
        shot = edited(shot, path, gradient_rms=0.1 * shot[path].weight_rms / (shot.learning_rate or math.nan))
    return shot


def torn(value: float, *, residual: bool) -> odd.Snapshot:
    """A network that moves, and one half saturated units with a gradient that rises by twice the value in decades."""
    shot = odd.paced(squashed(0.5, residual=residual), -1.0)
    for info in shot.layers:
        if info.role == "layer" and info.path != "head":
            shot = edited(shot, info.path, backward_rms=1e-2)
    return edited(shot, "dense_0", backward_rms=1e-2 * 10 ** (2 * value))


def narrow(shot: odd.Snapshot, total: float) -> odd.Snapshot:
    """Adam, and kernels behind the first of which 1 / fan_in adds up to so much."""
    paths = [info.path for info in shot.layers if info.weight is not None][1:]
    for path in paths:
        shot = edited(shot, path, layer={"fan_in": len(paths) / total})
    return odd.of(shot, optimizer="Adam", learning_rate=1e-3)


def layer_normalised() -> odd.Snapshot:
    """Two kernels in front of a layer normalisation each."""
    shot = odd.normalised(odd.healthy(), "dense_0", "norm_0", "LayerNormalization")
    return odd.normalised(shot, "dense_1", "norm_1", "LayerNormalization")


def behind_layer_normalisation(steps: float) -> odd.Snapshot:
    """The steps of an adaptive optimizer, as a share of two such kernels, added, and twice that."""
    shot = layer_normalised()
    shares = [1 / shot[path].weight_rms for path in ("dense_0", "dense_1")]
    return odd.of(shot, optimizer="Adam", learning_rate=steps / (2 * sum(shares)))


def squashed(share: float, *, residual: bool) -> odd.Snapshot:
    return edited(odd.plain(4, glorot, "tanh", residual=residual), "dense_1", activation_saturated=share)


def spread(value: float) -> odd.Snapshot:
    return edited(odd.healthy(), "dense_2", activation_spread=value)


def loss_times(factor: float) -> odd.Snapshot:
    shot = odd.healthy()
    return odd.of(shot, loss=factor * max(shot.loss, shot.baseline_loss or 0.0))


def first_loss(ratio: float) -> odd.Snapshot:
    shot = odd.with_kernel(-1, lambda w: 100.0 * w)
    return odd.of(shot, loss=ratio * (shot.baseline_loss or math.nan))


def grown_by_branches(decades: float) -> odd.Snapshot:
    """Adam, and a sum of branches that has grown by so many decades."""
    shot = odd.plain(3, factor=0.3, residual=True)
    return odd.of(edited(shot, "add_2", activation_rms=shot["input"].activation_rms * 10**decades), optimizer="Adam")


def short_steps(log10: float) -> odd.Snapshot:
    """A first loss that Adam may come back from, unless its steps are so many decades of the last layer's weights."""
    shot = first_loss(1e4)
    return odd.of(shot, optimizer="Adam", learning_rate=10**log10 * shot["head"].weight_rms)


LIMITS: list[tuple[str, str, Callable[[float], odd.Made], str | None, str | None]] = [
    # field, rule, snapshots whose figure lies at the argument, what the rule says below the limit, and above it
    ("signal_loss_warning", "vanishing-signal", lambda v: odd.drifted(-v), None, WARNING),
    ("signal_loss_bad", "vanishing-signal", lambda v: odd.drifted(-v), WARNING, BAD),
    ("adaptive_relief", "vanishing-signal", lambda v: odd.with_gradients(odd.drifted(-2.5 - v), NAN), WARNING, BAD),
    ("moving_relief", "vanishing-signal", lambda v: odd.with_gradients(odd.drifted(-2.5 - v), 1e-3), WARNING, BAD),
    ("moving_relief", "vanishing-signal", lambda v: odd.paced(odd.drifted(-2.5 - v), -1.0), WARNING, BAD),
    # Of three kernels the two slowest.
    ("pace_low", "vanishing-signal", lambda v: odd.paced(odd.drifted(-2.2), v - math.log10(2)), BAD, WARNING),
    ("creeping_loss", "vanishing-signal", lambda v: odd.paced(gated(1.5, v - 1.5), -4.0), None, BAD),
    ("gradient_floor", "vanishing-signal", lambda v: odd.with_gradients(odd.drifted(-2.2), 10**v), BAD, WARNING),
    ("signal_growth_warning", "exploding-signal", odd.drifted, None, WARNING),
    ("signal_growth_bad", "exploding-signal", odd.drifted, WARNING, BAD),
    ("narrow_bad", "exploding-signal", lambda v: narrow(odd.drifted(3.0), v / 3.0), WARNING, BAD),
    ("residual_growth_relief", "exploding-signal", lambda v: grown_by_branches(2.5 + v), WARNING, BAD),
    ("gradient_loss_warning", "vanishing-gradient", faded, None, WARNING),
    ("gradient_loss_bad", "vanishing-gradient", faded, WARNING, BAD),
    ("adaptive_relief", "vanishing-gradient", lambda v: odd.with_gradients(faded(3.6 + v), NAN), WARNING, BAD),
    ("moving_relief", "vanishing-gradient", lambda v: odd.with_gradients(faded(3.6 + v), 1e-3), WARNING, BAD),
    ("moving_relief", "vanishing-gradient", lambda v: odd.paced(faded(3.6 + v), -1.0), WARNING, BAD),
    ("kernel_pace_low", "vanishing-gradient", lambda v: some_fast(odd.paced(faded(3.0), v)), BAD, WARNING),
    ("creeping_loss", "vanishing-gradient", lambda v: odd.paced(gated(1.0, v - 1.0), -4.0), None, BAD),
    # Of ten hidden kernels the nine slowest.
    ("pace_low", "vanishing-gradient", lambda v: odd.paced(gated(1.0, 2.0), v - math.log10(9)), BAD, None),
    ("gradient_floor", "vanishing-gradient", lambda v: odd.with_gradients(faded(3.0), 10**v), BAD, WARNING),
    ("gradient_growth_warning", "exploding-gradient", lambda v: odd.graded(v / 9), None, WARNING),
    ("gradient_growth_bad", "exploding-gradient", lambda v: odd.graded(v / 9), WARNING, BAD),
    ("gradient_growth_bad", "exploding-gradient", behind_normalisation, None, WARNING),
    ("time_loss_warning", "gradient-through-time", lambda v: odd.through_time(odd.healthy(), -v), None, WARNING),
    ("gradient_growth_warning", "gradient-through-time", lambda v: steps_in_time((v + 1) / 9), None, WARNING),
    ("gradient_growth_bad", "gradient-through-time", lambda v: steps_in_time((v + 1) / 9), WARNING, BAD),
    ("dead_warning", "dead-units", lambda v: edited(odd.healthy(), "dense_1", activation_dead=v), None, WARNING),
    ("dead_bad", "dead-units", lambda v: edited(odd.healthy(), "dense_1", activation_dead=v), WARNING, BAD),
    ("saturated_warning", "saturated-units", odd.gates, None, WARNING),
    ("saturated_bad", "saturated-units", odd.gates, WARNING, BAD),
    ("saturated_bad", "saturated-units", lambda v: squashed(v, residual=False), WARNING, BAD),
    ("saturated_branch_bad", "saturated-units", lambda v: squashed(v, residual=True), WARNING, BAD),
    ("torn_bad", "saturated-units", lambda v: torn(v, residual=False), WARNING, BAD),
    ("torn_branch_bad", "saturated-units", lambda v: torn(v, residual=True), WARNING, BAD),
    ("entropy_warning", "saturated-units", odd.attention, WARNING, None),
    ("entropy_bad", "saturated-units", odd.attention, BAD, WARNING),
    ("spread_warning", "collapsed-samples", spread, WARNING, None),
    ("spread_bad", "collapsed-samples", spread, BAD, WARNING),
    ("identical", "symmetric-units", lambda v: odd.identical(v, 1.0), None, BAD),
    ("identical", "symmetric-units", lambda v: odd.identical(1.0, v), WARNING, BAD),
    ("input_high_warning", "input-scale", odd.scaled, None, WARNING),
    ("input_high_bad", "input-scale", odd.scaled, WARNING, BAD),
    ("input_high_bad_adaptive", "input-scale", lambda v: odd.scaled(v, optimizer="Adam"), WARNING, BAD),
    ("input_step_bad", "input-scale", lambda v: odd.paced(odd.scaled(60.0), v), WARNING, BAD),
    ("narrow_bad", "input-scale", lambda v: narrow(odd.scaled(1e3), v / 3.0), WARNING, BAD),
    ("input_low_warning", "input-scale", odd.scaled, WARNING, None),
    ("input_low_bad", "input-scale", odd.scaled, BAD, WARNING),
    ("input_low_bad", "input-scale", lambda v: odd.scaled(v, optimizer="Adam"), BAD, WARNING),
    ("target_high_warning", "input-scale", lambda v: odd.targets(v, "distances"), None, WARNING),
    ("target_high_bad", "input-scale", lambda v: odd.targets(v, "distances"), WARNING, BAD),
    ("loss_warning", "initial-loss", first_loss, None, WARNING),
    ("loss_bad", "initial-loss", first_loss, WARNING, BAD),
    ("narrow_bad", "initial-loss", lambda v: narrow(first_loss(1e3), v / 3.0), WARNING, BAD),
    ("head_step_bad", "initial-loss", short_steps, BAD, WARNING),
    ("first_step_bad", "initial-loss", odd.descended, WARNING, BAD),
    ("update_high_warning", "update-ratio", odd.updated, None, WARNING),
    ("update_high_bad", "update-ratio", odd.updated, WARNING, BAD),
    ("update_low_warning", "update-ratio", odd.updated, WARNING, None),
    ("moved_warning", "not-learning", lambda v: odd.standing(odd.healthy(), v), WARNING, None),
    ("normalised_steps_bad", "update-ratio", behind_layer_normalisation, None, BAD),
    ("normalised_steps_bad", "update-ratio", lambda v: odd.paced(layer_normalised(), math.log10(v / 4)), None, BAD),
    ("divergence", "update-ratio", lambda v: odd.later(odd.healthy(), loss_times(v)), None, BAD),
    ("fan_ratio", "fan-mismatch", lambda v: odd.misread(v, layers=3), None, WARNING),
    ("fan_ratio_together", "fan-mismatch", lambda v: odd.misread(v**0.5, layers=2), None, WARNING),
]

NOT_THE_ONE_SHOWN = {
    # field: what `evidence["threshold"]` holds in its place
    "adaptive_relief": "the sum of it and of the limit for plain descent",
    "narrow_bad": "what it allows: so many decades in a network that is so narrow, or the usual loss",
    "residual_growth_relief": "the same",
    "moving_relief": "the same",
    "pace_low": "the limit of the drift, which is what was observed",
    "kernel_pace_low": "the same",
    "gradient_floor": "the same",
    "head_step_bad": "the limit of the loss",
    "torn_bad": "the share that is saturated, or the limit of it",
    "torn_branch_bad": "the same",
    "creeping_loss": "half of it, which each of the two must have lost",
    "input_step_bad": "the limit of the data, which is what was observed",
    "first_step_bad": "the limit of the loss, which is what was observed",
    "fan_ratio_together": "the limit of the layer that is named",
    "saturated_branch_bad": "the limit where nothing leads round the layer",
    "entropy_bad": "the limit of a warning",
}


def judged(made: odd.Made, rule: str, thresholds: Thresholds) -> tuple[str | None, Any]:
    """The severity of a rule's finding, and the limit that it shows."""
    found = [f for f in diagnose(made if isinstance(made, tuple) else (made,), thresholds) if f.rule == rule]
    return (found[0].severity, found[0].evidence["threshold"]) if found else (None, None)


@pytest.mark.parametrize(
    ("field", "rule", "make", "below", "above"), LIMITS, ids=[f"{field}-{rule}" for field, rule, *_ in LIMITS]
)
def test_a_limit_parts_two_verdicts(
    field: str, rule: str, make: Callable[[float], odd.Made], below: str | None, above: str | None
) -> None:
    default = Thresholds()
    limit = getattr(default, field)
    hair = 0.01 * abs(limit)
    moved = Thresholds(**{field: limit + 2 * hair})
    verdicts = [
        judged(make(limit - hair), rule, default),
        judged(make(limit + hair), rule, default),
        judged(make(limit + hair), rule, moved),
    ]
    assert [severity for severity, _ in verdicts] == [below, above, below]
    if field not in NOT_THE_ONE_SHOWN and make is not behind_normalisation:
        worse = 0 if above is None or below == BAD else 1
        assert abs(verdicts[worse][1]) == pytest.approx(abs(limit))


def test_every_limit_of_every_rule_is_among_them() -> None:
    pairs = {(field, rule) for field, rule, *_ in LIMITS}
    assert pairs == {(field, rule.slug) for rule in RULES for field in rule.thresholds}
    assert {field for field, _ in pairs} == {f.name for f in dataclasses.fields(Thresholds)}


@pytest.mark.parametrize("bad", [math.nan, math.inf, "0.5", None, True])
def test_a_threshold_must_be_a_finite_number(bad: Any) -> None:
    with pytest.raises(ValueError, match=r"dead_bad must be a finite number, got"):
        Thresholds(dead_bad=bad)


def test_a_warning_cannot_come_after_bad() -> None:
    with pytest.raises(ValueError, match=r"dead_bad must be not below dead_warning, got 0.1 and 0.7"):
        Thresholds(dead_bad=0.1)
    with pytest.raises(ValueError, match=r"spread_bad must be not above spread_warning"):
        Thresholds(spread_bad=0.5)
