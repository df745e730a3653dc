"""Many symptoms, one cause: what is told as a consequence of what, and what a later audit adds."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import odd_networks as odd
import pytest
from numpy_network import edited

from keras_initaudit.diagnosis import RULES, diagnose
from keras_initaudit.records import NAN, Finding, LayerInfo, Snapshot, Statistics

BASE = odd.healthy(6)


def misread(shot: Snapshot, layers: int = 6) -> Snapshot:
    for i in range(layers):
        row = {"fan_in": 4 * 64.0, "initializer": "HeNormal"}
        shot = edited(shot, f"dense_{i}", layer=row, weight_rms=(2 / 64) ** 0.5)
    return shot


def gated(shot: Snapshot) -> Snapshot:
    gates = LayerInfo("dense_2/gates", 2, "gates", "LSTM", activation="sigmoid")
    return odd.added(shot, gates, Statistics(activation_saturated=0.9))


def sharp(shot: Snapshot) -> Snapshot:
    weights = LayerInfo("dense_2/attention", 2, "attention", "MultiHeadAttention", activation="softmax")
    return odd.added(shot, weights, Statistics(attention_entropy=0.01))


def unscaled_targets(shot: Snapshot) -> Snapshot:
    return odd.of(edited(shot, "target", activation_rms=1e4), loss_kind="squares")


def over_confident(shot: Snapshot) -> Snapshot:
    return odd.of(edited(shot, "head", activation_rms=500.0), loss=1e4)


PLANTS: dict[str, Callable[[Snapshot], Snapshot]] = {
    # rule, and where it has several faces, which: the symptom alone, in one chain of six layers
    "non-finite": lambda s: edited(s, "dense_1", weight_nonfinite=0.1),
    "non-finite, in between": lambda s: edited(s, "dense_4", preactivation_nonfinite=0.1),
    "input-scale": lambda s: edited(s, "input", activation_rms=1e4),
    "target-scale": unscaled_targets,
    "symmetric-units": lambda s: edited(s, "dense_1", weight_identical=1.0, gradient_identical=1.0),
    "duplicate-kernels": lambda s: edited(s, "dense_3", layer={"duplicate_of": "dense_2"}),
    "fan-mismatch": misread,
    "dead-units": lambda s: edited(s, "dense_2", activation_dead=1.0),
    "dead-units, most": lambda s: edited(s, "dense_2", activation_dead=0.96),
    "exploding-signal": lambda s: edited(s, "dense_3", activation_rms=1e4),
    "vanishing-signal": lambda s: edited(s, "dense_4", activation_rms=1e-6),
    "saturated-units": gated,
    "attention-entropy": sharp,
    "vanishing-gradient": lambda s: edited(s, "dense_0", backward_rms=1e-9 * s["dense_5"].backward_rms),
    "exploding-gradient": lambda s: edited(s, "dense_1", backward_rms=1e4 * s["dense_5"].backward_rms),
    "vanishing-through-time": lambda s: odd.through_time(s, -0.9, "dense_3"),
    "exploding-through-time": lambda s: odd.through_time(s, 0.2, "dense_4"),
    "collapsed-samples": lambda s: edited(s, "dense_5", activation_spread=1e-7),
    "initial-loss": over_confident,
    "no-gradient": lambda s: edited(s, "dense_2", layer={"reached": False}, gradient_rms=NAN),
    "no-update": lambda s: edited(s, "dense_3", update_zero=1.0),
    "update-ratio": lambda s: edited(s, "dense_3", update_log10=1.0),
    "not-learning": odd.standing,
    "output-activation": odd.cut_off,
    "update-ratio, a little": lambda s: edited(s, "dense_3", update_log10=0.0),
}

FADING = {"vanishing-gradient", "exploding-gradient", "collapsed-samples", "no-gradient", "initial-loss"}
TIME = {"vanishing-through-time", "exploding-through-time"}
SATURATION = {"saturated-units", "attention-entropy"}
SYMPTOMS = FADING | SATURATION | TIME | {"update-ratio, a little"}

CONSEQUENCES: dict[str, set[str]] = {
    "non-finite": {
        *SYMPTOMS,
        "vanishing-signal",
        "exploding-signal",
        "dead-units",
        "dead-units, most",
        "input-scale",
        "target-scale",
    },
    "non-finite, in between": {*SYMPTOMS, "vanishing-signal", "dead-units, most"},
    "input-scale": {*SYMPTOMS, "dead-units", "dead-units, most"},
    "target-scale": {*SYMPTOMS, "dead-units", "dead-units, most"},
    "symmetric-units": {
        *SYMPTOMS,
        "vanishing-signal",
        "exploding-signal",
        "dead-units",
        "dead-units, most",
        "duplicate-kernels",
        "fan-mismatch",
    },
    "fan-mismatch": {
        "vanishing-signal",
        "exploding-signal",
        "vanishing-gradient",
        "exploding-gradient",
        "collapsed-samples",
        "dead-units",
        "dead-units, most",
        "update-ratio, a little",
    },
    "dead-units": {*SYMPTOMS, "vanishing-signal", "exploding-signal"},
    "exploding-signal": {*SYMPTOMS, "non-finite, in between", "dead-units, most"},
    "vanishing-signal": {*SYMPTOMS, "dead-units, most", "no-update"},
    "output-activation": {"initial-loss", "dead-units", "dead-units, most", "saturated-units", "no-gradient"},
    "saturated-units": {*FADING, *TIME, "update-ratio, a little", "no-update"},
    "attention-entropy": {*FADING, *TIME, "update-ratio, a little", "no-update"},
    "vanishing-gradient": {*TIME, "collapsed-samples", "update-ratio, a little", "no-update"},
    "exploding-gradient": {*TIME, "update-ratio, a little"},
    "vanishing-through-time": {"update-ratio, a little"},
    "exploding-through-time": {"update-ratio, a little"},
    "collapsed-samples": {"update-ratio, a little"},
    "initial-loss": {"no-gradient", "update-ratio, a little"},
    "no-gradient": {"update-ratio, a little"},
    "no-update": {"update-ratio, a little"},
    "update-ratio": {"non-finite", "non-finite, in between", "dead-units", "dead-units, most", *SATURATION},
}
"""What is a consequence of what, where both touch one chain; every other pair is two causes."""
CONSEQUENCES = {plant: CONSEQUENCES.get(plant, set()) | {"not-learning"} for plant in PLANTS if plant != "not-learning"}


EXCLUSIVE = (
    {"update-ratio", "not-learning"},  # what is far too fast moves
    {"target-scale", "output-activation"},  # as they are planted, they need another loss
)


def rule_of(plant: str) -> str:
    return plant.partition(",")[0]


def told(found: tuple[Finding, ...]) -> dict[str, set[str]]:
    return {f.rule: {c["rule"] for c in f.evidence.get("consequences", ())} for f in found}


def test_each_symptom_alone_is_found_alone() -> None:
    assert diagnose([BASE]) == ()
    assert {rule_of(plant) for plant in PLANTS} | {"divergence"} == {rule.slug for rule in RULES}
    for plant, make in PLANTS.items():
        assert told(diagnose([make(BASE)])) == {rule_of(plant): set()}, plant


@pytest.mark.parametrize("cause", PLANTS)
def test_a_consequence_is_told_with_its_cause_and_all_else_beside_it(cause: str) -> None:
    for other in PLANTS:
        first, second = rule_of(cause), rule_of(other)
        if first == second or {first, second} in EXCLUSIVE:
            continue
        found = told(diagnose([PLANTS[other](PLANTS[cause](BASE))]))
        if other in CONSEQUENCES.get(cause, ()):
            assert found == {first: {second}}, other
        elif cause in CONSEQUENCES.get(other, ()):
            assert found == {second: {first}}, other
        else:
            assert found == {first: set(), second: set()}, other


def test_a_cause_is_as_severe_as_the_worst_that_it_explains() -> None:
    shot = edited(misread(BASE), "dense_0", backward_rms=1e-9 * BASE["dense_5"].backward_rms)
    assert diagnose([misread(BASE)])[0].severity == "warning"
    assert [(f.rule, f.severity) for f in diagnose([shot])] == [("fan-mismatch", "bad")]


def test_a_finding_keeps_its_own_words_beside_what_it_explains() -> None:
    alone = diagnose([PLANTS["symmetric-units"](BASE)])[0]
    both = diagnose([PLANTS["dead-units"](PLANTS["symmetric-units"](BASE))])[0]
    assert (both.message, both.layer, both.evidence["affected"]) == (
        alone.message,
        alone.layer,
        alone.evidence["affected"],
    )
    (consequence,) = both.evidence["consequences"]
    assert consequence == {
        "rule": "dead-units",
        "layer": "dense_2",
        "message": diagnose([PLANTS["dead-units"](BASE)])[0].message,
    }


def two_branches() -> Snapshot:
    """A stem `dense_0` that two layers go on from, each to a head of its own: `dense_1` and `dense_2`."""
    shot = edited(odd.healthy(), "dense_2", layer={"inputs": ("dense_0",)})
    shot = edited(shot, "head", layer={"inputs": ("dense_1",)})
    head = next(info for info in shot.layers if info.path == "head")
    return odd.added(shot, dataclasses.replace(head, path="end", inputs=("dense_2",)), shot["head"])


@pytest.mark.parametrize(("other", "causes"), [("dense_0", 1), ("dense_1", 1), ("dense_2", 2)])
def test_what_happens_in_another_branch_is_no_consequence(other: str, causes: int) -> None:
    shot = edited(two_branches(), "dense_1", weight_identical=1.0, gradient_identical=1.0)
    found = diagnose([edited(shot, other, activation_dead=1.0)])
    assert len(found) == causes
    assert found[0].rule == "symmetric-units"


def test_attention_weights_are_joined_to_what_follows_their_layer() -> None:
    shot = edited(BASE, "dense_1", layer={"path": "attention/query"})
    shot = edited(shot, "dense_2", layer={"inputs": ("attention/query",)})
    weights = LayerInfo("attention/attention", 1, "attention", "MultiHeadAttention", activation="softmax")
    shot = odd.added(shot, weights, Statistics(attention_entropy=0.01))
    collapsed = edited(shot, "dense_5", activation_spread=1e-7)
    assert told(diagnose([collapsed])) == {"attention-entropy": {"collapsed-samples"}}


def test_the_fans_explain_what_lies_mostly_in_their_layers() -> None:
    shot = PLANTS["vanishing-gradient"](BASE)  # touches the six hidden layers
    for layers, rules in ((3, {"fan-mismatch"}), (2, {"fan-mismatch", "vanishing-gradient"})):
        assert set(told(diagnose([misread(shot, layers)]))) == rules


# --- later audits


def zero_head(shot: Snapshot) -> Snapshot:
    return edited(shot, "head", weight_rms=0.0)


@pytest.mark.parametrize("plant", ["symmetric-units", "vanishing-gradient", "exploding-gradient", "no-gradient"])
def test_what_a_zero_head_hides_is_found_at_the_next_audit(plant: str) -> None:
    shot = odd.flat_loss() if plant == "no-gradient" else PLANTS[plant](BASE)
    assert plant in told(diagnose([zero_head(BASE), odd.of(shot, step=1)]))
    assert plant not in told(diagnose([BASE, odd.of(shot, step=1)]))
    assert plant not in told(diagnose([zero_head(BASE), odd.of(shot, step=1000)]))


def test_a_unit_may_die_at_any_time_but_most_of_a_layer_is_only_odd() -> None:
    for step in (2, 1000):
        for plant, rules in (("dead-units", {"dead-units"}), ("dead-units, some", set())):
            shot = edited(BASE, "dense_2", activation_dead=1.0 if plant == "dead-units" else 0.8)
            assert set(told(diagnose([BASE, odd.of(shot, step=step)]))) == rules


def test_a_later_audit_makes_a_warning_worse_and_tells_nothing_twice() -> None:
    some, all_dead = (edited(BASE, "dense_2", activation_dead=share) for share in (0.8, 1.0))
    (found,) = diagnose([some, odd.of(all_dead, step=2)])
    assert (found.severity, found.evidence["observed"], found.evidence.get("consequences")) == ("bad", 1.0, None)
    elsewhere = edited(BASE, "dense_1", activation_dead=1.0)
    assert [f.layer for f in diagnose([all_dead, odd.of(elsewhere, step=2)])] == ["dense_2"]


def test_a_loss_that_was_small_may_rise_to_that_of_an_uninformed_model() -> None:
    assert not diagnose([odd.of(BASE, loss=1e-3), odd.of(BASE, loss=2.0, step=5)])


def run_away(shot: Snapshot, step: int = 5) -> Snapshot:
    return odd.of(shot, loss=1e6, step=step)


def test_steps_that_are_too_long_are_the_cause_of_a_loss_that_ran_away_where_they_were_seen() -> None:
    (alone,) = diagnose([BASE, run_away(BASE)])
    assert (alone.rule, alone.severity, alone.evidence["step"]) == ("divergence", "bad", 5)
    assert "rose from" in alone.message
    (measured,) = diagnose([BASE, run_away(PLANTS["update-ratio"](BASE))])
    assert told((measured,)) == {"update-ratio": {"divergence"}}
    # A step that is only odd is what the runaway itself may have made of the weights.
    (odd_steps,) = diagnose([BASE, run_away(PLANTS["update-ratio, a little"](BASE))])
    assert told((odd_steps,)) == {"divergence": {"update-ratio"}}


@pytest.mark.parametrize(
    "cause", ["input-scale", "target-scale", "exploding-signal", "exploding-gradient", "initial-loss", "fan-mismatch"]
)
def test_a_loss_that_ran_away_is_laid_on_what_was_found_at_the_start(cause: str) -> None:
    start = PLANTS[cause](BASE)
    (found,) = diagnose([start, odd.of(BASE, loss=1e7, step=5)])
    assert (found.rule, found.severity) == (cause, "bad")
    if diagnose([start])[0].severity == "warning":
        assert [(c["rule"], c["step"]) for c in found.evidence["consequences"]] == [("divergence", 5)]


def test_the_first_update_that_was_too_long_is_the_cause_of_a_loss_that_ran_away() -> None:
    start = odd.of(BASE, learning_rate=2.0)
    (expected,) = diagnose([start])
    assert (expected.rule, expected.severity) == ("update-ratio", "warning")
    (found,) = diagnose([start, run_away(start)])
    assert (found.rule, found.severity, found.evidence.get("step", 0)) == ("update-ratio", "bad", 0)
    assert [(c["rule"], c["step"]) for c in found.evidence["consequences"]] == [("divergence", 5)]


def test_a_loss_that_ran_away_is_none_of_what_a_shared_seed_does() -> None:
    found = told(diagnose([PLANTS["duplicate-kernels"](BASE), run_away(BASE)]))
    assert found == {"divergence": set(), "duplicate-kernels": set()}


def test_steps_of_one_learning_rate_are_one_finding_whichever_kernel_is_the_fastest() -> None:
    start = odd.of(BASE, learning_rate=2.0)
    later = [edited(BASE, path, update_log10=-0.1) for path in ("dense_1", "dense_4")]
    (expected,) = diagnose([start])
    (found,) = diagnose([start, *(odd.of(shot, step=i + 1) for i, shot in enumerate(later))])
    assert found == expected
    assert found.layer == "head"
    (measured,) = diagnose([BASE, *(odd.of(shot, step=i + 1) for i, shot in enumerate(later))])
    assert (measured.layer, measured.evidence["step"]) == ("dense_1", 1)
    # Dead units of two layers are two.
    dead = [edited(BASE, path, activation_dead=0.8) for path in ("dense_1", "dense_4")]
    worse = edited(BASE, "dense_4", activation_dead=0.96)
    assert [f.layer for f in diagnose([dead[0], odd.of(worse, step=1)])] == ["dense_4", "dense_1"]
