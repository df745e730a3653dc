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


def over_confident(shot: Snapshot) -> Snapshot:
    return odd.of(edited(shot, "head", activation_rms=500.0), loss=1e4)


PLANTS: dict[str, Callable[[Snapshot], Snapshot]] = {
    # rule, and where it has several faces, which: the symptom alone, in one chain of six layers
    "non-finite": lambda s: edited(s, "dense_1", weight_nonfinite=0.1),
    "non-finite, in between": lambda s: edited(s, "dense_4", preactivation_nonfinite=0.1),
    "input-scale": lambda s: edited(s, "input", activation_rms=1e4),
    "symmetric-units": lambda s: edited(s, "dense_1", weight_identical=1.0, gradient_identical=1.0),
    "duplicate-kernels": lambda s: edited(s, "dense_3", layer={"duplicate_of": "dense_2"}),
    "fan-mismatch": misread,
    "dead-units": lambda s: edited(s, "dense_2", activation_dead=1.0),
    "dead-units, most": lambda s: edited(s, "dense_2", activation_dead=0.96),
    "exploding-signal": lambda s: edited(s, "dense_3", activation_rms=1e4),
    "vanishing-signal": lambda s: edited(s, "dense_4", activation_rms=1e-6),
    "saturated-units": gated,
    "vanishing-gradient": lambda s: edited(s, "dense_0", backward_rms=1e-9 * s["dense_5"].backward_rms),
    "exploding-gradient": lambda s: edited(s, "dense_1", backward_rms=1e4 * s["dense_5"].backward_rms),
    "gradient-through-time": lambda s: odd.through_time(s, -0.9, "dense_3"),
    "collapsed-samples": lambda s: edited(s, "dense_5", activation_spread=1e-7),
    "initial-loss": over_confident,
    "no-gradient": lambda s: edited(s, "dense_2", layer={"reached": False}, gradient_rms=NAN),
    "no-update": lambda s: edited(s, "dense_3", update_zero=1.0),
    "update-ratio": lambda s: edited(s, "dense_3", update_log10=1.0),
    "not-learning": odd.standing,
    "update-ratio, a little": lambda s: edited(s, "dense_3", update_log10=0.0),
}

FADING = {"vanishing-gradient", "exploding-gradient", "collapsed-samples", "no-gradient", "initial-loss"}
SYMPTOMS = FADING | {"saturated-units", "gradient-through-time", "update-ratio, a little", "not-learning"}

CONSEQUENCES: dict[str, set[str]] = {
    "non-finite": {*SYMPTOMS, "vanishing-signal", "exploding-signal", "dead-units", "dead-units, most", "input-scale"},
    "non-finite, in between": {*SYMPTOMS, "vanishing-signal", "dead-units, most"},
    "input-scale": {*SYMPTOMS, "dead-units", "dead-units, most"},
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
        "not-learning",
    },
    "dead-units, most": {"not-learning"},
    "dead-units": {*SYMPTOMS, "vanishing-signal", "exploding-signal"},
    "exploding-signal": {*SYMPTOMS, "non-finite, in between", "dead-units, most"},
    "vanishing-signal": {*SYMPTOMS, "dead-units, most", "no-update"},
    "saturated-units": {*FADING, "gradient-through-time", "update-ratio, a little", "no-update", "not-learning"},
    "vanishing-gradient": {
        "gradient-through-time",
        "collapsed-samples",
        "update-ratio, a little",
        "no-update",
        "not-learning",
    },
    "exploding-gradient": {"gradient-through-time", "update-ratio, a little", "not-learning"},
    "gradient-through-time": {"update-ratio, a little", "not-learning"},
    "collapsed-samples": {"update-ratio, a little", "not-learning"},
    "initial-loss": {"no-gradient", "update-ratio, a little", "not-learning"},
    "no-gradient": {"update-ratio, a little", "not-learning"},
    "no-update": {"update-ratio, a little", "not-learning"},
    "update-ratio": {"non-finite", "non-finite, in between", "dead-units", "dead-units, most", "saturated-units"},
}
"""What is a consequence of what, where both touch one chain; every other pair is two causes."""


def rule_of(plant: str) -> str:
    return plant.partition(",")[0]


def told(found: tuple[Finding, ...]) -> dict[str, set[str]]:
    return {f.rule: {c["rule"] for c in f.evidence.get("consequences", ())} for f in found}


def test_each_symptom_alone_is_found_alone() -> None:
    assert diagnose([BASE]) == ()
    assert {rule_of(plant) for plant in PLANTS} == {rule.slug for rule in RULES}
    for plant, make in PLANTS.items():
        assert told(diagnose([make(BASE)])) == {rule_of(plant): set()}, plant


@pytest.mark.parametrize("cause", PLANTS)
def test_a_consequence_is_told_with_its_cause_and_all_else_beside_it(cause: str) -> None:
    for other in PLANTS:
        first, second = rule_of(cause), rule_of(other)
        if first == second or {first, second} == {"update-ratio", "not-learning"}:  # what is far too fast moves
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
    assert told(diagnose([collapsed])) == {"saturated-units": {"collapsed-samples"}}


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


def test_a_loss_that_ran_away_is_the_plainer_sign_of_steps_that_are_too_long() -> None:
    later = odd.of(PLANTS["update-ratio"](BASE), loss=1e6, step=3)
    (found,) = diagnose([BASE, later])
    assert found.rule == "update-ratio"
    assert "rose from" in found.message
