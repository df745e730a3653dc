"""Each limit on both sides: a hair below it one verdict, a hair above it the next, and it moves with the limit."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import odd_networks as odd
import pytest
from numpy_network import edited, glorot

from keras_initaudit.diagnosis import RULES, Thresholds, diagnose
from keras_initaudit.diagnosis.network import Network
from keras_initaudit.diagnosis.rule import Case, find
from keras_initaudit.records import NAN

WARNING, BAD = "warning", "bad"


def behind_normalisation(limit: float) -> odd.Snapshot:
    """A gradient that grows by twice the limit, which is what a normalisation on its way allows."""
    return odd.normalised(odd.graded(2 * limit / 9), "dense_8")


def faded(decades: float) -> odd.Snapshot:
    """A gradient that falls by so many decades over ten layers."""
    return odd.graded(-decades / 9)


def squashed(share: float) -> odd.Snapshot:
    return edited(odd.plain(4, glorot, "tanh"), "dense_1", activation_saturated=share)


def steps_in_time(decades: float) -> odd.Snapshot:
    """A recurrent layer that reads ten steps, nine of which change the gradient by so many decades each."""
    return odd.through_time(odd.healthy(), decades, steps=10)


def dead(share: float) -> odd.Snapshot:
    return edited(odd.healthy(), "dense_1", activation_dead=share)


def spread(value: float) -> odd.Snapshot:
    return edited(odd.healthy(), "dense_2", activation_spread=value)


def loss_times(factor: float) -> odd.Snapshot:
    shot = odd.healthy()
    return odd.of(shot, loss=factor * max(shot.loss, shot.baseline_loss or 0.0))


def first_loss(ratio: float) -> odd.Snapshot:
    shot = odd.with_kernel(-1, lambda w: 100.0 * w)
    return odd.of(shot, loss=ratio * (shot.baseline_loss or math.nan))


def data(sign: float) -> Callable[[float], odd.Snapshot]:
    """Data whose rms lies so many decades above 0.1, or below it."""
    return lambda decades: odd.scaled(0.1 * 10 ** (sign * decades))


def updates(sign: float) -> Callable[[float], odd.Made]:
    """Updates that lie so many decades above 10^-3.75 of the weights, or below it."""
    return lambda decades: odd.updated(-3.75 + sign * decades)


def first_step(sign: float) -> Callable[[float], odd.Snapshot]:
    """The same of a first update that is still to come."""
    return lambda decades: odd.paced(odd.healthy(), -3.75 + sign * decades)


class Limit(NamedTuple):
    """One limit of a rule, and snapshots that lie on both sides of it."""

    field: str
    rule: str
    make: Callable[[float], odd.Made]
    """A snapshot that lies as far as the argument says."""
    below: str | None
    """What the rule says where the argument is smaller than the limit."""
    above: str | None
    shown: Callable[[float], float] = lambda limit: limit
    """The limit as `evidence["threshold"]` holds it: in the unit of what was observed."""


def rms(sign: float) -> Callable[[float], float]:
    return lambda decades: 0.1 * 10 ** (sign * decades)


def log10(sign: float) -> Callable[[float], float]:
    return lambda decades: -3.75 + sign * decades


LIMITS: list[Limit] = [
    Limit("signal_loss_warning", "vanishing-signal", lambda v: odd.drifted(-v), None, WARNING),
    Limit("signal_loss_bad", "vanishing-signal", lambda v: odd.drifted(-v), WARNING, BAD),
    Limit("signal_growth_warning", "exploding-signal", odd.drifted, None, WARNING),
    Limit("signal_growth_bad", "exploding-signal", odd.drifted, WARNING, BAD),
    Limit("gradient_loss_warning", "vanishing-gradient", faded, None, WARNING),
    Limit("gradient_loss_bad", "vanishing-gradient", faded, WARNING, BAD),
    Limit("gradient_growth_warning", "exploding-gradient", lambda v: odd.graded(v / 9), None, WARNING),
    Limit("gradient_growth_bad", "exploding-gradient", lambda v: odd.graded(v / 9), WARNING, BAD),
    Limit("gradient_growth_warning", "exploding-gradient", behind_normalisation, None, WARNING, lambda v: 2 * v),
    Limit("gradient_growth_bad", "exploding-gradient", behind_normalisation, WARNING, BAD, lambda v: 2 * v),
    Limit("time_loss_warning", "vanishing-through-time", lambda v: steps_in_time(-v), None, WARNING, lambda v: -v),
    Limit("gradient_growth_warning", "exploding-through-time", lambda v: steps_in_time((v + 1) / 9), None, WARNING),
    Limit("gradient_growth_bad", "exploding-through-time", lambda v: steps_in_time((v + 1) / 9), WARNING, BAD),
    Limit("dead_warning", "dead-units", dead, None, WARNING),
    Limit("dead_bad", "dead-units", dead, WARNING, BAD),
    Limit("saturated_warning", "saturated-units", odd.gates, None, WARNING),
    Limit("saturated_bad", "saturated-units", odd.gates, WARNING, BAD),
    Limit("saturated_bad", "saturated-units", squashed, WARNING, BAD),
    Limit("entropy_warning", "attention-entropy", odd.attention, WARNING, None),
    Limit("entropy_bad", "attention-entropy", odd.attention, BAD, WARNING),
    Limit("spread_warning", "collapsed-samples", spread, WARNING, None),
    Limit("spread_bad", "collapsed-samples", spread, BAD, WARNING),
    Limit("input_warning", "input-scale", data(1), None, WARNING, rms(1)),
    Limit("input_warning", "input-scale", data(-1), None, WARNING, rms(-1)),
    Limit("input_bad", "input-scale", data(1), WARNING, BAD, rms(1)),
    Limit("input_bad", "input-scale", data(-1), WARNING, BAD, rms(-1)),
    Limit("target_warning", "target-scale", lambda v: odd.targets(v, "distances"), None, WARNING),
    Limit("target_bad", "target-scale", lambda v: odd.targets(v, "distances"), WARNING, BAD),
    Limit("loss_warning", "initial-loss", first_loss, None, WARNING),
    Limit("loss_bad", "initial-loss", first_loss, WARNING, BAD),
    Limit("moved_warning", "not-learning", lambda v: odd.standing(odd.healthy(), v), WARNING, None),
    Limit("update_warning", "update-ratio", updates(1), None, WARNING, log10(1)),
    Limit("update_warning", "update-ratio", updates(-1), None, WARNING, log10(-1)),
    Limit("update_bad", "update-ratio", updates(1), WARNING, BAD, log10(1)),
    Limit("update_bad", "update-ratio", updates(-1), WARNING, BAD, log10(-1)),
    Limit("update_warning", "update-ratio", first_step(1), None, WARNING, log10(1)),
    Limit("update_warning", "update-ratio", first_step(-1), None, WARNING, log10(-1)),
    Limit("update_bad", "update-ratio", first_step(1), WARNING, BAD, log10(1)),
    Limit("update_bad", "update-ratio", first_step(-1), WARNING, BAD, log10(-1)),
    Limit("divergence", "divergence", lambda v: odd.later(odd.healthy(), loss_times(v)), None, BAD),
    Limit("fan_ratio", "fan-mismatch", lambda v: odd.misread(v, layers=1), None, WARNING),
    Limit("fan_ratio", "fan-mismatch", lambda v: odd.misread(v**0.5, layers=2), None, WARNING),
    Limit("fan_ratio", "fan-mismatch", lambda v: odd.misread(v**-0.5, layers=2), None, WARNING),
]


def judged(made: odd.Made, rule: str, thresholds: Thresholds) -> tuple[str | None, Any]:
    """The severity of a rule's finding, and the limit that it shows."""
    found = [f for f in diagnose(made if isinstance(made, tuple) else (made,), thresholds) if f.rule == rule]
    return (found[0].severity, found[0].evidence["threshold"]) if found else (None, None)


@pytest.mark.parametrize("limit", LIMITS, ids=[f"{limit.field}-{limit.rule}" for limit in LIMITS])
def test_a_limit_parts_two_verdicts(limit: Limit) -> None:
    default = Thresholds()
    value = getattr(default, limit.field)
    hair = 0.01 * value
    moved = Thresholds(**{limit.field: value + 2 * hair})
    verdicts = [
        judged(limit.make(value - hair), limit.rule, default),
        judged(limit.make(value + hair), limit.rule, default),
        judged(limit.make(value + hair), limit.rule, moved),
    ]
    assert [severity for severity, _ in verdicts] == [limit.below, limit.above, limit.below]
    worse = 0 if limit.above is None or limit.below == BAD else 1
    assert verdicts[worse][1] == pytest.approx(limit.shown(value))


@pytest.mark.parametrize("limit", LIMITS, ids=[f"{limit.field}-{limit.rule}" for limit in LIMITS])
def test_no_limit_depends_on_the_optimizer(limit: Limit) -> None:
    """Save that the first update, which is still to come, is as long as the optimizer makes it."""
    value = getattr(Thresholds(), limit.field)
    made = limit.make(1.01 * value)
    shots = made if isinstance(made, tuple) else (made,)
    told = {
        (optimizer, momentum): judged(
            tuple(odd.of(s, optimizer=optimizer, momentum=momentum) for s in shots), limit.rule, Thresholds()
        )
        for optimizer, momentum in (
            ("SGD", 0.0),
            ("SGD", 0.9),
            ("Adam", 0.0),
            ("RMSprop", 0.0),
            ("Lion", 0.0),
            ("", 0.0),
        )
        if shots[0].learning_rate is None or optimizer == "SGD"
    }
    assert {severity for severity, _ in told.values()} == {limit.above}, told


def test_every_limit_of_every_rule_is_among_them() -> None:
    pairs = {(limit.field, limit.rule) for limit in LIMITS}
    assert pairs == {(field, rule.slug) for rule in RULES for field in rule.thresholds}
    assert {field for field, _ in pairs} == {f.name for f in dataclasses.fields(Thresholds)}


def test_a_figure_that_is_not_known_reaches_no_limit() -> None:
    rule = next(rule for rule in RULES if rule.slug == "dead-units")
    for less_is_worse in (True, False):
        nothing = dataclasses.replace(rule, measure=lambda _: [Case(amount=NAN, layer="dense_0")])
        nothing = dataclasses.replace(nothing, less_is_worse=less_is_worse)
        assert find(nothing, Network(odd.healthy()), Thresholds()) == []


@pytest.mark.parametrize("bad", [math.nan, math.inf, "0.5", None, True])
def test_a_threshold_must_be_a_finite_number(bad: Any) -> None:
    with pytest.raises(ValueError, match=r"dead_bad must be a finite number, got"):
        Thresholds(dead_bad=bad)


def test_a_warning_cannot_come_after_bad() -> None:
    with pytest.raises(ValueError, match=r"dead_bad must be not below dead_warning, got 0.1 and 0.7"):
        Thresholds(dead_bad=0.1)
    with pytest.raises(ValueError, match=r"spread_bad must be not above spread_warning"):
        Thresholds(spread_bad=0.5)
