"""Weights that stay exactly as they were: counted in a real training, and judged over the audits that agree."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from typing import Any

import keras
import looking
import numpy as np
import odd_networks as odd
import pytest
from keras import layers, ops
from numpy_network import edited

from keras_initaudit import InitAudit
from keras_initaudit.diagnosis import diagnose
from keras_initaudit.diagnosis.network import Network
from keras_initaudit.diagnosis.updates import update_ratio
from keras_initaudit.observe.movement import unchanged, update_log10, was_updated
from keras_initaudit.observe.probe import Probe
from keras_initaudit.records import Finding, Snapshot
from keras_initaudit.records.remedies import LearningRate, Policy


@pytest.fixture
def policy() -> Iterator[Any]:
    """Sets the dtype policy of a test."""
    kept = keras.config.dtype_policy()
    yield keras.config.set_dtype_policy
    keras.config.set_dtype_policy(kept)


def network(optimizer: Any, *, scale: float = 1.0, frozen: bool = False) -> Any:
    keras.utils.set_random_seed(4)
    wide = keras.initializers.RandomNormal(stddev=scale * 0.2, seed=1)
    model = keras.Sequential(
        [
            keras.Input((32,)),
            layers.Dense(16, "tanh", name="first", trainable=not frozen),
            layers.Dense(16, "tanh", kernel_initializer=wide, name="wide"),
            layers.Dense(5, "softmax", name="head"),
        ]
    )
    return looking.compiled(model, optimizer=optimizer)


def fitted(model: Any, updates: int = 5) -> InitAudit:
    callback = InitAudit(log_dir=False, verbose=0, on_finding="silent")
    x, y = np.tile(looking.vectors(), (4, 1)), np.tile(looking.classes(), 4)
    model.fit(x, y, batch_size=32, steps_per_epoch=updates, verbose=0, callbacks=[callback])
    return callback


def stuck(callback: InitAudit) -> list[tuple[int, list[str]]]:
    """Step and severities of `no-update`, of each report."""
    return [(r.step, [f.severity for f in r.findings if f.rule == "no-update"]) for r in callback.reports]


def shares(shot: Snapshot) -> dict[str, float]:
    rows = zip(shot.layers, shot.statistics, strict=True)
    return {info.path: row.update_zero for info, row in rows if not math.isnan(row.update_zero)}


# --- the numbers


def test_a_sample_says_how_far_a_kernel_moved_and_how_much_of_it_stayed() -> None:
    old, new = np.float32([1.0, -1.0, 2.0, 0.0]), np.float32([1.0, -1.5, 2.0, 0.0])
    assert unchanged(old, new) == 0.75
    assert update_log10(old, new, updates=2) == pytest.approx(math.log10(0.5 / math.sqrt(6.0) / 2.0))
    assert unchanged(old, old) == 1.0
    assert math.isnan(update_log10(old, old))
    assert unchanged(old, np.full(4, np.nan, np.float32)) == 0.0


def test_an_update_counts_where_it_was_made_by_a_rate_that_is_not_zero() -> None:
    assert was_updated((3, 0.1), (4, 0.1))
    assert was_updated((3, None), (4, None))
    assert not was_updated((3, 0.1), (3, 0.1))
    assert not was_updated((3, 0.0), (4, 0.1))
    assert not was_updated((3, 0.1), (4, 0.0))


# --- a training


@pytest.mark.parametrize("optimizer", ["adam", "adamw"])
def test_adam_makes_no_step_in_bfloat16_and_three_audits_call_it_bad(policy: Any, optimizer: str) -> None:
    policy("bfloat16")
    model = network(optimizer)
    start = [np.array(w) for w in model.get_weights()]
    callback = fitted(model)
    assert all(np.array_equal(a, b) for a, b in zip(start, model.get_weights(), strict=True))
    assert stuck(callback) == [(0, []), (1, ["warning"]), (2, ["warning"]), (5, ["bad"])]
    (found,) = callback.reports[-1].findings
    assert "all 3 kernels" in found.message
    assert 'set_dtype_policy("mixed_bfloat16")' in found.remedy
    assert "beta_2=0.99" in found.message
    assert (found.layer, found.action, found.evidence["observed"]) == (None, Policy("mixed_bfloat16"), 3)
    assert shares(callback.reports[-1].snapshot) == {"first": 1.0, "wide": 1.0, "head": 1.0}


@pytest.mark.parametrize(
    "optimizer", [lambda: keras.optimizers.SGD(0.5), lambda: keras.optimizers.Adam(1e-3, beta_2=0.99)]
)
def test_other_steps_in_bfloat16_are_taken(policy: Any, optimizer: Any) -> None:
    policy("bfloat16")
    callback = fitted(network(optimizer()))
    assert not any(found for _, found in stuck(callback))
    assert all(0.0 < share < 0.95 for share in shares(callback.reports[-1].snapshot).values())


def test_the_policy_that_is_proposed_learns(policy: Any) -> None:
    policy("mixed_bfloat16")
    callback = fitted(network("adam"))
    assert callback.findings == []
    assert max(shares(callback.reports[-1].snapshot).values()) < 0.02


def test_steps_below_half_a_unit_in_the_last_place_are_lost_in_float32() -> None:
    callback = fitted(network(keras.optimizers.Adam(1e-3), scale=1e8))
    assert shares(callback.reports[1].snapshot)["wide"] == 1.0  # numbers of 2e7 are 2 apart
    assert shares(callback.reports[1].snapshot)["head"] < 0.1
    # Saturated by weights of that size: one cause, told as such.
    assert {f.rule for f in callback.reports[-1].findings} >= {"saturated-units"}
    tiny = fitted(network(keras.optimizers.SGD(1e-12)))
    # Another learning rate is tried as soon as one is proposed: that is worth more than three audits that agree.
    assert stuck(tiny) == [(0, []), (1, ["bad"]), (2, ["bad"]), (5, ["bad"])]
    found = next(f for f in tiny.reports[-1].findings if f.rule == "no-update")
    assert isinstance(found.action, LearningRate)
    assert 1e-4 < found.action.value < 10.0
    assert "mixed" not in found.message
    assert not any(told for _, told in stuck(fitted(network(keras.optimizers.SGD(1e-6)))))


def test_what_is_frozen_does_not_count() -> None:
    callback = fitted(network("adam", frozen=True))
    assert set(shares(callback.reports[-1].snapshot)) == {"wide", "head"}
    assert not any(found for _, found in stuck(callback))


class FromZero(keras.optimizers.schedules.LearningRateSchedule):
    def __call__(self, step: Any) -> Any:
        return 0.1 * ops.cast(step, "float32")


def test_an_update_by_a_rate_of_zero_is_none_by_a_schedule_as_by_a_callback() -> None:
    by_schedule = fitted(network(keras.optimizers.SGD(FromZero())))
    assert shares(by_schedule.reports[1].snapshot) == {}
    assert max(shares(by_schedule.reports[2].snapshot).values()) < 0.5
    assert not any(found for _, found in stuck(by_schedule))
    assert shares(fitted(network(keras.optimizers.SGD(0.0)), 2).reports[-1].snapshot) == {}


def test_a_warm_up_that_has_not_come_to_its_rate_is_waited_for() -> None:
    rates = (0.0, 1e-9, 2e-9, 5e-9)
    rising = [odd.of(shot, learning_rate=r) for shot, r in zip(odd.unmoved(3, peak_rate=1e-3), rates, strict=True)]
    assert diagnose(rising) == ()
    constant = [odd.of(shot, learning_rate=1e-9) for shot in rising]
    assert [f.rule for f in diagnose(constant)] == ["no-update"]
    falling = [odd.of(shot, learning_rate=1e-3 - r) for shot, r in zip(rising, rates, strict=True)]
    assert [f.rule for f in diagnose(falling)] == ["no-update"]


def test_gathered_gradients_move_nothing_until_they_are_applied() -> None:
    callback = fitted(network(keras.optimizers.SGD(0.1, gradient_accumulation_steps=4)))
    assert [shares(report.snapshot) for report in callback.reports] == [{}, {}, {}, {}]
    assert not any(found for _, found in stuck(callback))


def test_an_update_that_the_loss_scale_throws_away_is_none(policy: Any) -> None:
    policy("mixed_float16")
    model = network("adam")
    model.optimizer.initial_scale = 2.0**60
    model.optimizer.build(model.trainable_variables)
    model.optimizer.dynamic_scale.assign(2.0**60)
    probe = Probe(model, looking.batch(looking.vectors(), looking.classes()), histograms=False)
    probe.measure(0)
    probe.mark()
    model.train_on_batch(looking.vectors(), looking.classes())
    assert int(model.optimizer.iterations) == 0
    assert shares(probe.measure(1)) == {}


def test_tables_whose_rows_are_looked_up_and_float64_are_not_compared() -> None:
    model = keras.Sequential([layers.Embedding(50, 8), layers.Flatten(), layers.Dense(5, "softmax", name="head")])
    shot = looking.snapshots(looking.compiled(model), looking.tokens(), looking.classes(), then=1)[1]
    assert set(shares(shot)) == {"head"}
    double = keras.Sequential([keras.Input((32,)), layers.Dense(5, "softmax", dtype="float64")])
    assert shares(looking.snapshots(looking.compiled(double), looking.vectors(), looking.classes(), then=1)[1]) == {}


def steps(optimizer: Any) -> tuple[float, float]:
    """What is expected of the first update before it is made, and what it is: decades of the fastest kernel."""
    callback = fitted(network(optimizer), 1)
    before, after = (report.snapshot for report in callback.reports)
    (expected,) = update_ratio(Network(before))
    (made,) = update_ratio(Network(after, (before,)))
    assert (expected.facts["expected_before"], made.facts["expected_before"]) == (True, False)
    return float(expected.observed), float(made.observed)


@pytest.mark.parametrize(
    ("optimizer", "off"),
    [
        (lambda: keras.optimizers.SGD(0.1), 0.01),
        (lambda: keras.optimizers.SGD(0.1, momentum=0.9), 0.01),
        (lambda: keras.optimizers.Adam(0.01), 0.02),
        (lambda: keras.optimizers.AdamW(0.01), 0.02),
        (lambda: keras.optimizers.Adamax(0.01), 0.02),
        (lambda: keras.optimizers.Nadam(0.01), 0.05),
        (lambda: keras.optimizers.Lion(0.01), 0.02),
        (lambda: keras.optimizers.RMSprop(0.01), 0.02),
        (lambda: keras.optimizers.Adagrad(0.1), 0.02),
    ],
)
def test_the_first_update_is_as_long_as_was_expected_before_it_was_made(optimizer: Any, off: float) -> None:
    expected, made = steps(optimizer())
    assert expected == pytest.approx(made, abs=off)


# --- the judgement


def test_three_audits_that_agree_are_bad_and_what_has_moved_can_move() -> None:
    def told(shots: tuple[Snapshot, ...]) -> list[tuple[str, int]]:
        return [(f.severity, f.evidence["step"]) for f in diagnose(shots)]

    assert told(odd.unmoved(1)) == [("warning", 1)]
    assert told(odd.unmoved(2)) == [("warning", 1)]
    assert told(odd.unmoved(3)) == [("bad", 5)]
    start, *rest = odd.unmoved(3)
    assert told((start, odd.of(odd.moved(0.9999), step=1), *rest[1:])) == []


def test_a_part_that_stays_is_named_and_few_digits_have_no_other_cause() -> None:
    shots = odd.unmoved(1)
    one = tuple(edited(shot, "head", update_zero=0.0) for shot in shots)
    (found,) = diagnose(one)
    assert (found.layer, found.evidence["affected"]) == ("dense_0", ["dense_0", "dense_1", "dense_2"])
    faded = tuple(edited(shot, "dense_2", activation_rms=1e-6) for shot in shots)
    assert [f.rule for f in diagnose(faded)] == ["vanishing-signal"]
    narrow = tuple(odd.each(shot, weight_dtype="bfloat16") for shot in faded)
    assert [f.rule for f in diagnose(narrow)] == ["vanishing-signal", "no-update"]


def test_the_rate_that_would_do_is_told_for_plain_descent_and_for_others() -> None:
    def rate(optimizer: str) -> float:
        shots = tuple(dataclasses.replace(s, optimizer=optimizer, learning_rate=1e-12) for s in odd.unmoved(1))
        found: Finding = diagnose(shots)[0]
        assert isinstance(found.action, LearningRate)
        return found.action.value

    rows = [row for row in odd.healthy().statistics if row.weight_rms > 0]
    assert rate("Adam") == pytest.approx(1e-3 * min(row.weight_rms for row in rows), rel=0.5)
    assert rate("SGD") == pytest.approx(1e-3 * min(row.weight_rms / row.gradient_rms for row in rows), rel=0.5)
