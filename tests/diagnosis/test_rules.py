"""What each rule says beyond whether: which layer it names, what it tells apart, and what it leaves alone."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import odd_networks as odd
import pytest
from numpy_network import edited, glorot, of_kind
from odd_networks import healthy, pixels, plain, with_kernel

from keras_initaudit.diagnosis import Thresholds, diagnose
from keras_initaudit.diagnosis.network import Network
from keras_initaudit.diagnosis.scale import drifts
from keras_initaudit.records import NAN, Finding, LayerInfo, LossKind, Snapshot, Statistics
from keras_initaudit.records.remedies import LearningRate


def first(made: odd.Made) -> Finding:
    return findings(made)[0]


def findings(made: odd.Made) -> tuple[Finding, ...]:
    return diagnose(made if isinstance(made, tuple) else (made,))


def rules(made: odd.Made) -> list[str]:
    return [f.rule for f in findings(made)]


def inserted(shot: Snapshot, after: str, path: str, kind: str, **statistics: float) -> Snapshot:
    """A layer without weights behind another one; what it gives out is that one's but for `statistics`."""
    i = [info.path for info in shot.layers].index(after)
    info = LayerInfo(path, i, shape=shot.layers[i].shape, inputs=(after,), **of_kind(kind))
    row = shot[after]
    kept = {name: getattr(row, name) for name in ("activation_rms", "activation_mean", "activation_max")}
    kept |= {"backward_rms": row.backward_rms, "activation_spread": row.activation_spread}
    layers = [dataclasses.replace(a, inputs=(path,)) if a.inputs == (after,) else a for a in shot.layers]
    layers.insert(i + 1, info)
    rows = list(shot.statistics)
    rows.insert(i + 1, Statistics(**(kept | statistics)))
    return odd.of(shot, layers=tuple(layers), statistics=tuple(rows))


def second_head(shot: Snapshot, on: str) -> Snapshot:
    """Another output, on the row `on`."""
    head = next(info for info in shot.layers if info.path == "head")
    return odd.added(shot, dataclasses.replace(head, path="aside", inputs=(on,)), shot["head"])


# --- signal and gradient


@pytest.mark.parametrize("factor", [1e-5, 1e5])
def test_one_layer_that_makes_all_of_it_is_named_and_gets_its_biases_back(factor: float) -> None:
    found = first(with_kernel(1, lambda w: factor * w, depth=6))
    assert found.layer == "dense_1"
    assert "nearly all of it in dense_1" in found.message
    assert found.evidence["layers"] == ["dense_1"]
    assert "bias_initializer" in (found.remedy or "")


@pytest.mark.parametrize("decades", [-1.0, 1.0])
def test_a_drift_that_layers_share_is_told_by_its_factor(decades: float) -> None:
    shot = healthy()
    for i in range(3):
        size = shot["input"].activation_rms * 10.0 ** (decades * (i + 1))
        shot = edited(shot, f"dense_{i}", activation_rms=size)
    found = first(shot)
    assert found.layer == "dense_2"
    assert f"each layer multiplies the signal by {10**decades:g}; after 3 layers" in found.message
    assert found.evidence["layers"] == ["dense_0", "dense_1", "dense_2"]
    assert "bias_initializer" not in (found.remedy or "")


def test_a_drift_in_a_single_layer_is_told_by_its_factor_too() -> None:
    assert "after 1 layer 1" in first(with_kernel(0, lambda w: 1e-5 * w, depth=1)).message


def test_only_layers_with_a_kernel_are_counted() -> None:
    found = first(plain(32, residual=True))
    assert (found.rule, found.evidence["worst"], found.evidence["kernels"]) == ("exploding-signal", "add_31", 32)


def test_a_layer_is_charged_with_what_its_activation_makes_of_it() -> None:
    shot = with_kernel(1, lambda w: 1e-4 * w, depth=4)
    shot = inserted(shot, "dense_1", "activation", "Activation")
    size = shot["input"].activation_rms
    shot = edited(shot, "dense_1", activation_rms=size)  # the kernel itself keeps it
    assert first(shot).layer == "dense_1"


def test_a_branch_may_fade_and_may_not_explode() -> None:
    shot = plain(8, factor=0.1, residual=True)
    assert rules(edited(shot, "dense_3", activation_rms=1e-6)) == []
    assert rules(edited(shot, "dense_3", activation_rms=1e6)) == ["exploding-signal"]


def test_gates_take_half_a_decade_off_by_nature() -> None:
    for kind, told in (("LSTM", []), ("Dense", ["vanishing-signal"])):
        shot = healthy(6)
        for i in range(6):
            size = shot["input"].activation_rms * 10 ** (-0.45 * (i + 1))
            shot = edited(shot, f"dense_{i}", layer=of_kind(kind), activation_rms=size)
        assert rules(shot) == told


def test_a_bidirectional_layer_has_the_gates_of_its_two_layers_and_none_of_its_own() -> None:
    shot = healthy(6)
    for i in range(6):
        size = shot["input"].activation_rms * 10 ** (-0.45 * (i + 1))
        shot = edited(shot, f"dense_{i}", layer=of_kind("LSTM"), activation_rms=size)
        shot = inserted(shot, f"dense_{i}", f"both_{i}", "Bidirectional")
    assert rules(shot) == []
    # Nor does it hide what is wrong in them.
    for i in range(6):
        size = shot["input"].activation_rms * 10 ** (-1.2 * (i + 1))
        shot = edited(edited(shot, f"dense_{i}", activation_rms=size), f"both_{i}", activation_rms=size)
    assert "vanishing-signal" in rules(shot)


def test_a_branch_may_pass_no_gradient_as_long_as_what_feeds_it_has_one() -> None:
    shot = edited(healthy(4), "dense_3", layer={"inputs": ("dense_2", "dense_0")})
    shot = edited(shot, "dense_1", backward_rms=1e-9)
    assert rules(shot) == []
    assert "vanishing-gradient" in rules(edited(shot, "dense_0", backward_rms=1e-9))


def test_what_data_far_from_unit_scale_does_is_not_the_layers_drift() -> None:
    for size in (5e-4, 30.0):  # beyond the warning, and not yet bad
        shot = edited(healthy(), "input", activation_rms=size)
        assert [f.severity for f in findings(shot)] == ["warning"]
        assert rules(shot) == ["input-scale"]
        assert "consequences" not in first(shot).evidence


@pytest.mark.parametrize(
    ("kind", "shape", "told"),
    [("Sum", (64,), []), ("Sum", (8, 64), ["exploding-signal"]), ("Dense", (64,), ["exploding-signal"])],
)
def test_a_sum_of_many_positions_may_be_as_large_as_they_are_many(
    kind: str, shape: tuple[int, ...], told: list[str]
) -> None:
    shot = edited(healthy(), "dense_0", layer={"shape": (8, 64)})
    shot = inserted(shot, "dense_0", "sum", kind, activation_rms=1.0)
    kernel = {"weight": "kernel", "weight_shape": (64, 64)} if kind == "Dense" else {}
    shot = edited(shot, "sum", layer={"shape": shape, **kernel}, activation_rms=1e3)
    for path in ("dense_1", "dense_2"):
        shot = edited(shot, path, activation_rms=1e3)
    assert [f.rule for f in findings(shot) if f.rule == "exploding-signal"] == told


def test_where_branches_of_different_size_meet_the_larger_counts() -> None:
    shot = edited(healthy(), "dense_2", layer={"inputs": ("dense_0", "small")})
    data = LayerInfo("(small)", -1, role="input", kind="InputLayer", shape=(64,))
    small = dataclasses.replace(shot.layers[2], path="small", inputs=("(small)",))
    shot = odd.added(shot, data, dataclasses.replace(shot["input"], activation_rms=2e-3))
    shot = odd.added(shot, small, dataclasses.replace(shot["dense_0"], activation_rms=2e-3))
    assert "exploding-signal" not in rules(shot)


def test_a_normalisation_that_does_nothing_is_no_new_beginning() -> None:
    """Its epsilon is larger than what arrives, or it is frozen with averages of other data."""
    shot = with_kernel(2, lambda w: 1e-5 * w)
    behind = odd.normalised(shot, "dense_2")
    assert "vanishing-signal" not in rules(behind)
    idle = edited(behind, "batch_normalization", activation_rms=shot["dense_2"].activation_rms)
    assert "vanishing-signal" in rules(idle)


def test_a_normalisation_with_a_huge_gain_explodes() -> None:
    shot = healthy()
    for path in ("dense_1", "dense_2"):
        shot = edited(shot, path, activation_rms=1e4)
    huge = edited(odd.normalised(shot, "dense_0"), "batch_normalization", activation_rms=1e4)
    assert "exploding-signal" in rules(huge)


def test_a_second_output_does_not_hide_that_the_gradient_of_the_first_is_lost() -> None:
    shot = second_head(odd.graded(-1.0), "dense_0")
    assert rules(shot) == ["vanishing-gradient"]


def test_the_layers_of_the_longest_way_are_counted() -> None:
    shot = edited(odd.graded(1.0), "dense_5", layer={"inputs": ("dense_1", "dense_4")})
    assert first(shot).evidence["kernels"] == 9


def test_pooling_changes_the_rms_of_a_gradient_and_not_its_norm() -> None:
    shot = healthy()
    wide, level = (6400, 64), shot["dense_2"].backward_rms
    assert rules(edited(shot, "dense_0", backward_rms=1e-3 * level)) == ["vanishing-gradient"]
    assert rules(edited(shot, "dense_0", layer={"shape": wide}, backward_rms=1e-3 * level)) == []


@pytest.mark.parametrize(("size", "told"), [(1, []), (32, ["collapsed-samples"])])
def test_one_sample_cannot_collapse(size: int, told: list[str]) -> None:
    shot = edited(healthy(), "input", activation_spread=NAN)  # as of integers
    assert rules(odd.of(edited(shot, "dense_2", activation_spread=0.0), batch_size=size)) == told


def test_one_output_that_still_tells_the_samples_apart_is_enough() -> None:
    shot = second_head(edited(healthy(), "dense_2", activation_spread=1e-7), "dense_1")
    assert rules(shot) == []


# --- units


@pytest.mark.parametrize(
    ("residual", "changed", "told"),
    [
        (False, {"weight_rms": 0.0, "gradient_rms": 0.0}, "bad"),  # zeros in a chain stay zeros
        (True, {"weight_rms": 0.0, "gradient_rms": 0.0}, None),  # the end of a branch waits for its gradient
        (True, {"weight_rms": 0.0, "gradient_rms": 1e-3}, "bad"),  # it has one, the same for every unit
        (True, {"weight_rms": 0.1, "gradient_rms": 0.0}, "bad"),
        (False, {"weight_rms": 0.0, "gradient_identical": 0.0}, None),  # one of its own for every unit
        (False, {"weight_rms": 0.1, "gradient_identical": 0.0}, "warning"),
        (True, {"weight_rms": 0.0, "gradient_identical": 0.0}, None),
        (True, {"weight_rms": 0.1, "gradient_identical": 0.0}, "warning"),
    ],
)
def test_equal_units_are_judged_by_their_gradient_and_their_place(
    residual: bool, changed: dict[str, float], told: str | None
) -> None:
    same = {"weight_identical": 1.0, "gradient_identical": 1.0} | changed
    shot = edited(plain(4, factor=0.3, residual=residual), "dense_1", **same)
    assert [f.severity for f in findings(shot) if f.rule == "symmetric-units"] == ([told] if told else [])


def test_a_head_that_only_sees_copies_is_not_at_fault_itself() -> None:
    shot = edited(healthy(), "head", weight_identical=1.0, gradient_identical=1.0, weight_rms=0.0)
    assert [(f.rule, f.severity) for f in findings(shot)] == [("symmetric-units", "warning")]


def test_behind_a_dead_layer_the_others_are_not_named() -> None:
    found = first(healthy(biases=[0, -20, 0, 0]))
    assert found.evidence["affected"] == ["dense_1"]


def test_of_dead_layers_the_first_is_named() -> None:
    shot = edited(edited(healthy(), "dense_2", activation_dead=1.0), "dense_0", activation_dead=1.0)
    assert (first(shot).layer, first(shot).evidence["affected"]) == ("dense_0", ["dense_0", "dense_2"])


def test_a_dead_branch_is_only_odd() -> None:
    for residual, severity in ((True, "warning"), (False, "bad")):
        shot = edited(plain(4, factor=0.3, residual=residual), "dense_1", activation_dead=1.0)
        assert [(f.rule, f.severity) for f in findings(shot)] == [("dead-units", severity)]


def test_it_says_that_units_were_pushed_below_zero_where_they_were() -> None:
    assert "the mean of their pre-activations is -20" in first(healthy(biases=[0, -20, 0, 0])).message
    assert "pre-activations" not in first(edited(healthy(), "dense_1", activation_dead=0.8)).message


def test_an_output_that_is_sure_of_itself_is_for_the_loss_to_judge() -> None:
    shot = edited(healthy(), "head", layer={"activation": "sigmoid"}, activation_saturated=0.99)
    assert [(f.rule, f.severity) for f in findings(shot)] == [("saturated-units", "warning")]
    assert rules(edited(healthy(), "head", layer={"activation": "softmax"}, attention_entropy=0.01)) == []


def test_the_worst_of_the_saturated_is_named() -> None:
    other = LayerInfo("dense_2/attention", 1, "attention", "MultiHeadAttention", activation="softmax")
    for here, there, worst in ((0.01, 0.04, "dense_1"), (0.04, 0.01, "dense_2")):
        shot = odd.added(odd.attention(here), other, Statistics(attention_entropy=there))
        assert (first(shot).layer, first(shot).evidence["observed"]) == (worst, 0.01)
    # Bad gates before attention that is only odd, whose figure is the larger one.
    shot = odd.added(odd.gates(0.7), other, Statistics(attention_entropy=0.2))
    assert (first(shot).layer, first(shot).severity) == ("dense_1", "bad")


def test_twins_are_held_by_size_and_largest_entry_of_their_gradients() -> None:
    shot = odd.twins(1.0)
    assert first(shot).severity == "bad"
    largest = shot["dense_2"].gradient_max
    assert first(edited(shot, "dense_2", gradient_max=1.01 * largest)).severity == "warning"
    assert first(edited(shot, "dense_2", gradient_max=largest * (1 + 1e-6))).severity == "bad"


def test_twins_that_stay_copies_are_named_before_those_that_do_not() -> None:
    for other in ("dense_0", "head"):  # before them and behind them
        shot = edited(odd.twins(1.0), other, layer={"duplicate_of": "dense_1"})
        assert (first(shot).severity, first(shot).layer) == ("bad", "dense_2")
        assert first(shot).evidence["observed"] == 2


def copies(*pairs: tuple[str, str], names: dict[str, str] | None = None) -> Snapshot:
    """A healthy network of ten layers in which some repeat others, under other names."""
    shot = healthy(10)
    for copy, first_one in pairs:
        shot = edited(shot, copy, layer={"duplicate_of": first_one})
    new = names or {}
    layers = [
        dataclasses.replace(
            info,
            path=new.get(info.path, info.path),
            inputs=tuple(new.get(path, path) for path in info.inputs),
            duplicate_of=new.get(info.duplicate_of or "", info.duplicate_of),
        )
        for info in shot.layers
    ]
    return odd.of(shot, layers=tuple(layers))


def test_copies_of_different_kernels_are_findings_of_their_own() -> None:
    found = findings(copies(("dense_2", "dense_1"), ("dense_3", "dense_1"), ("dense_6", "dense_5")))
    assert [(f.rule, f.layer, f.evidence["original"]) for f in found] == [
        ("duplicate-kernels", "dense_2", "dense_1"),
        ("duplicate-kernels", "dense_6", "dense_5"),
    ]
    assert [f.evidence["affected"] for f in found] == [
        ["dense_2", "dense_1", "dense_3", "dense_1"],
        ["dense_6", "dense_5"],
    ]
    # A copy of a copy is one of the first.
    (one,) = findings(copies(("dense_2", "dense_1"), ("dense_3", "dense_2")))
    assert one.evidence["observed"] == 2


def test_copies_that_stand_alike_in_block_after_block_are_one_finding_that_names_both_sides() -> None:
    blocks = {f"dense_{2 * i + j}": f"block_{i}/{name}" for i in range(5) for j, name in enumerate(("key", "value"))}
    pairs = [(f"dense_{2 * i + 1}", f"dense_{2 * i}") for i in range(5)]
    (found,) = findings(copies(*pairs, names=blocks))
    assert found.evidence["observed"] == 5
    assert found.evidence["layers"] == [f"block_{i}/value" for i in range(5)]
    assert "block_0/value and 4 more start with the same numbers as those of block_0/key and 4 more" in found.message


# --- weights


def test_the_fastest_kernel_is_named_and_the_rate_that_would_do_is_told() -> None:
    shot = odd.of(healthy(), learning_rate=0.1)
    for path, log10 in (("dense_0", -3.0), ("dense_1", 0.5), ("dense_2", -9.0)):
        shot = edited(shot, path, update_log10=log10)
    found = first(shot)
    assert (found.rule, found.layer, found.evidence["observed"]) == ("update-ratio", "dense_1", 0.5)
    assert isinstance(found.action, LearningRate)
    rate = found.action.value
    assert math.log10(rate / 0.1) + 0.5 == pytest.approx(-2.5, abs=0.1)


def test_one_kernel_that_moves_is_enough_and_tables_do_not_count() -> None:
    still = odd.updated(-9.0)[1]
    assert rules(odd.of(still, step=0)) == ["update-ratio"]
    assert rules(odd.of(edited(still, "dense_1", update_log10=-3.0), step=0)) == []
    assert rules(edited(healthy(), "dense_0", layer={"lookup": True}, update_log10=2.0)) == []


def scheme(name: str | None, rms: float, **layer: Any) -> Snapshot:
    """A healthy network whose second layer was started by a scheme, with weights of this rms."""
    return edited(healthy(), "dense_1", layer={"initializer": name} | layer, weight_rms=rms)


def test_misread_fans_that_make_up_for_each_other_are_left_alone() -> None:
    shot = odd.misread(1.6, layers=2)
    assert rules(shot) == ["fan-mismatch"]
    assert rules(edited(shot, "dense_0", layer={"fan_in": 64.0 / 1.6**2})) == []


def test_a_fan_out_counts_where_the_scheme_reads_it_and_it_is_no_stride() -> None:
    shape = {"weight_shape": (64, 64 * 12), "fan_in": 64.0, "fan_out": 64.0}
    found = first(scheme("GlorotNormal", math.sqrt(2 / (64 + 768)), **shape))
    assert (found.rule, found.layer) == ("fan-mismatch", "dense_1")
    assert found.evidence["ratio"] == pytest.approx(math.sqrt(128 / 832))
    assert rules(scheme(None, math.sqrt(2 / (64 + 768)), **shape)) == []  # too little to go by
    shape["weight_shape"] = (64, 64 * 9)
    assert rules(scheme("GlorotNormal", math.sqrt(2 / (64 + 576)), **shape)) == []


@pytest.mark.parametrize(
    ("name", "config", "square"),
    [
        ("HeNormal", {}, 2.0),
        ("LecunNormal", {}, 1.0),
        ("VarianceScaling", {"scale": 3.0}, 3.0),
        ("VarianceScaling", {"scale": 1.0, "gain": 3.0}, 9.0),
        ("VarianceScaling", {"scale": 1.0, "gain": "relu"}, 2.0),
        ("LeCunNormal", {"gain": "relu"}, 2.0),
        ("HeNormal", {"gain": "relu"}, 2.0),
    ],
)
def test_the_law_of_a_scheme_is_read_off_its_settings(name: str, config: dict[str, Any], square: float) -> None:
    """1024 weights, of which the scheme believed that each unit has 64 inputs; it has 4."""
    shape = {"weight_shape": (64, 16), "fan_in": 4.0, "fan_out": 16.0, "initializer_config": config}
    (found,) = findings(scheme(name, math.sqrt(square / 64.0), **shape))
    assert found.rule == "fan-mismatch"
    assert found.evidence["expected"] == pytest.approx(math.sqrt(square / 4.0))
    for wrong in (0.8, 1.25):  # a weight of another size was not started so
        assert rules(scheme(name, wrong * math.sqrt(square / 64.0), **shape)) == []


def test_recurrent_kernels_hold_their_gates_side_by_side() -> None:
    shape = {"weight_shape": (64, 256), "fan_in": 16.0, "fan_out": 64.0}
    rms = math.sqrt(2 / 64)
    assert rules(scheme("HeNormal", rms, **shape)) == ["fan-mismatch"]
    assert rules(scheme("HeNormal", rms, **of_kind("LSTM"), **shape)) == []


def test_a_weight_that_the_loss_does_not_reach_is_odd_and_none_at_all_is_bad() -> None:
    for paths, severity in ((("dense_1",), "warning"), (("dense_0", "dense_1", "dense_2", "head"), "bad")):
        shot = healthy()
        for path in paths:
            shot = edited(shot, path, layer={"reached": False}, gradient_rms=NAN)
        assert [(f.rule, f.severity, f.layer) for f in findings(shot)] == [("no-gradient", severity, paths[0])]


def test_a_loss_is_flat_where_every_gradient_that_is_known_is_zero() -> None:
    assert rules(edited(odd.flat_loss(), "dense_1", gradient_rms=NAN)) == ["no-gradient"]
    broken = edited(odd.flat_loss(), "dense_1", gradient_nonfinite=0.5)
    assert rules(broken) == ["non-finite"]
    assert "consequences" not in first(broken).evidence


# --- data and loss


def test_of_gradients_that_are_not_finite_the_last_layer_is_named() -> None:
    shot = edited(edited(healthy(), "dense_0", gradient_nonfinite=0.5), "dense_1", backward_nonfinite=0.25)
    assert (first(shot).layer, first(shot).evidence["observed"]) == ("dense_1", 0.25)


def test_it_says_where_an_activation_hides_what_is_not_finite() -> None:
    hidden = edited(healthy(), "dense_1", preactivation_nonfinite=0.1)
    assert first(hidden).evidence["hidden_by_activation"] is True
    assert first(edited(hidden, "dense_1", activation_nonfinite=0.1)).evidence["hidden_by_activation"] is False


def test_the_data_of_every_input_counts_and_behind_the_models_own_scaling() -> None:
    raw = edited(healthy(), "input", activation_rms=140.0)
    assert rules(inserted(raw, "input", "rescaling", "Rescaling", activation_rms=0.5)) == []
    assert rules(inserted(raw, "input", "batch_normalization", "BatchNormalization", activation_rms=20.0)) == []
    # One that was fitted to other data does nothing about it.
    assert rules(inserted(raw, "input", "normalization", "Normalization", activation_rms=140.0)) == ["input-scale"]
    second = LayerInfo("(input b)", -1, role="input", kind="InputLayer", shape=(64,))
    layer = dataclasses.replace(healthy().layers[1], path="b", inputs=("(input b)",))
    shot = odd.added(healthy(), second, raw["input"])
    found = first(odd.added(shot, layer, shot["dense_0"]))
    assert (found.rule, found.layer, found.evidence["source"]) == ("input-scale", "b", "(input b)")


def test_what_a_persons_own_code_makes_of_the_data_is_what_arrives() -> None:
    def entering(size: float, data: float = 577.0) -> Snapshot:
        shot = edited(healthy(), "input", activation_rms=data, activation_std=data, activation_max=3.0 * data)
        shot = edited(shot, "dense_0", entering_mean=0.0, entering_std=size, entering_rms=size)
        return edited(shot, "dense_0", entering_max=2.0 * size)

    assert rules(entering(0.7)) == []
    assert rules(entering(1.0, data=1.0)) == []
    found = first(entering(570.0, data=1.0))
    assert (found.rule, found.layer, found.evidence["observed"]) == ("input-scale", "dense_0", 570.0)
    assert "an rms of 570 (largest 1140)" in found.message
    assert found.remedy is None  # what to put in front of the data, for its own code to give another scale
    cast = first(entering(577.3))
    assert (cast.evidence["observed"], cast.evidence["source"]) == (577.0, "input")
    assert "preprocessing.adapt(x)" in (cast.remedy or "")
    # And what a layer does to the signal counts from there on.
    faded = edited(entering(1.0, data=1.0), "dense_0", activation_rms=1.0)
    drifted = [edited(faded, "dense_0", entering_rms=size) for size in (1.0, 1e-2, 5.0)]
    found_in = [drifts(Network(shot), Thresholds())[1].decades for shot in drifted]
    assert found_in == pytest.approx([0.0, 2.0, -math.log10(5.0)])


def test_numbers_that_are_only_looked_up_have_no_scale() -> None:
    shot = edited(healthy(), "input", activation_rms=577.0, activation_max=999.0)
    assert rules(shot) == ["input-scale"]
    shot = edited(shot, "input", layer={"lookup": True})
    assert rules(shot) == []
    small = edited(shot, "input", activation_rms=9.0)  # nor does the signal fade from there
    assert drifts(Network(small), Thresholds())[1].decades == 0.0
    assert drifts(Network(small), Thresholds())[2].decades != 0.0


def test_what_is_looked_up_in_a_table_is_no_data() -> None:
    assert rules(inserted(odd.tokens(), "dense_0", "flatten", "Flatten", activation_rms=20.0)) == []


@pytest.mark.parametrize(
    ("x", "call"),
    [
        (pixels(), "Rescaling(1.0 / 255)"),
        (pixels() - 128.0, "Normalization(axis=-1"),
        (100.0 * pixels(), "Normalization(axis=-1"),
    ],
)
def test_bytes_are_rescaled_and_anything_else_is_standardised(x: Any, call: str) -> None:
    assert call in (first(healthy(x=x)).remedy or "")


def test_unscaled_data_and_unscaled_targets_are_two_findings() -> None:
    shot = edited(odd.targets(1e4, "squares"), "input", activation_rms=1e4)
    assert [(f.rule, f.layer) for f in findings(shot)] == [("input-scale", "dense_0"), ("input-scale", "target")]


def offset(
    mean: float, std: float, loss: float, baseline: float, outputs: float, kind: LossKind = "squares"
) -> Snapshot:
    shot = edited(healthy(), "target", activation_mean=mean, activation_std=std, activation_rms=math.hypot(mean, std))
    return odd.of(edited(shot, "head", activation_rms=outputs), loss=loss, baseline_loss=baseline, loss_kind=kind)


def test_a_large_first_loss_is_laid_on_the_targets_or_on_the_head_as_the_case_is() -> None:
    targets = first(offset(20.0, 1.0, loss=401.0, baseline=1.0, outputs=1.0))
    assert "Constant(float(np.mean(y)))" in (targets.remedy or "")
    assert "the targets of this batch lie around 20" in targets.message
    head = first(offset(20.0, 1.0, loss=2901.0, baseline=1.0, outputs=50.0))
    assert "GlorotNormal" in (head.remedy or "")
    assert "an rms of 50" in head.message
    # The numbers of classes have no scale, and lie around nothing, whatever classes the batch holds.
    assert rules(offset(905.0, 3.0, loss=30.0, baseline=math.log(1000), outputs=1.0, kind="classes")) == []
    assert rules(offset(905.0, 3.0, loss=30.0, baseline=math.log(1000), outputs=1.0, kind="")) == []


def test_a_head_is_as_sure_as_what_it_hands_to_its_softmax() -> None:
    shot = odd.of(edited(healthy(), "head", activation_rms=0.4), loss=100.0)
    assert rules(shot) == []
    assert rules(edited(shot, "head", preactivation_rms=500.0)) == ["initial-loss"]


def test_targets_have_a_scale_where_the_loss_takes_them_for_numbers() -> None:
    kinds = ("squares", "distances", "classes", "yes-no", "")
    assert [rules(odd.targets(35.0, kind)) for kind in kinds] == [["input-scale"], ["input-scale"], [], [], []]


def test_a_remedy_takes_the_figures_of_all_the_data_and_there_is_none_where_it_is_no_array() -> None:
    another = LayerInfo("aside", 9, role="target")
    for shot, code in (
        (odd.targets(577.0, "squares"), "y = (y - y.mean()) / y.std()"),
        (offset(20.0, 1.0, loss=401.0, baseline=1.0, outputs=1.0), "Constant(float(np.mean(y)))"),
    ):
        assert code in (first(shot).remedy or "")
        two = first(odd.added(shot, another, Statistics(activation_mean=0.0, activation_std=0.1)))
        assert (two.rule, two.remedy) == (first(shot).rule, None)
        assert "of this batch" in two.message
    shot = edited(healthy(), "input", activation_rms=1e4, activation_std=1e4, activation_max=4e4)
    assert "preprocessing.adapt(x)" in (first(shot).remedy or "")
    for keys, one_of_several in (
        ("(input 2)", "x[2]"),
        ("(input prices)", 'x["prices"]'),
        ("(input shop/prices)", 'x["shop"]["prices"]'),
    ):
        layers = [
            dataclasses.replace(info, path=keys)
            if info.path == "input"
            else dataclasses.replace(info, inputs=tuple(keys if path == "input" else path for path in info.inputs))
            for info in shot.layers
        ]
        assert f"preprocessing.adapt({one_of_several})" in (first(odd.of(shot, layers=tuple(layers))).remedy or "")


def test_figures_of_a_snapshot_are_taken_as_they_are() -> None:
    """A network in half precision, a batch of one, a loss of zero: nothing to say, and nothing raised."""
    assert rules(odd.of(healthy(), loss=0.0)) == []
    assert rules(odd.of(healthy(), baseline_loss=0.0)) == []
    assert rules(plain(4, glorot, "tanh", x=np.ones((1, 64)))) == []


# --- what the pace of training decides


def severity(made: odd.Made, rule: str) -> list[str]:
    return [f.severity for f in findings(made) if f.rule == rule]


def test_the_head_moves_whatever_fades_below_it() -> None:
    shot = edited(odd.with_gradients(odd.graded(-1.0, depth=4), 1e-3), "dense_0", gradient_rms=1e-9)
    assert severity(shot, "vanishing-gradient") == ["bad"]
    assert severity(edited(shot, "dense_0", gradient_rms=1e-3), "vanishing-gradient") == ["warning"]


def test_an_activation_layer_behind_unscaled_data_is_no_layer_that_shrinks_it() -> None:
    shot = edited(edited(healthy(), "input", activation_rms=1e4), "dense_0", activation_rms=1e4)
    shot = inserted(shot, "dense_0", "activation", "Activation", activation_rms=1.0)
    assert rules(inserted(shot, "activation", "dropout", "Dropout")) == ["input-scale"]


def test_growth_is_of_many_branches_where_a_skip_connection_leads_round_any_of_them() -> None:
    shot = edited(plain(6, factor=0.3, residual=True), "add_0", layer={"inputs": ("dense_0",)})
    for i in range(6):
        size = shot["input"].activation_rms * 10.0 ** (5.0 * (i + 1) / 6)
        shot = edited(edited(shot, f"add_{i}", activation_rms=size), f"dense_{i}", activation_rms=size)
    assert severity(odd.of(shot, optimizer="Adam"), "exploding-signal") == ["warning"]


def test_small_data_is_only_odd_where_a_normalisation_brings_it_some_of_the_way() -> None:
    shot = odd.scaled(1e-5)
    assert severity(shot, "input-scale") == ["bad"]
    weak = inserted(shot, "dense_0", "norm", "BatchNormalization", activation_rms=1e-3)
    assert severity(weak, "input-scale") == ["warning"]


def test_unscaled_data_is_bad_where_the_step_is_too_long_and_where_nothing_moves() -> None:
    for log10, told in ((-6.0, "bad"), (-2.0, "warning"), (0.5, "bad")):
        assert severity(odd.paced(odd.scaled(60.0), log10), "input-scale") == [told]


def test_unscaled_data_and_long_first_steps_are_borne_by_what_keeps_within_limits() -> None:
    for shot, rule in ((odd.paced(odd.scaled(60.0), 0.5), "input-scale"), (odd.descended(0.5), "initial-loss")):
        assert severity(shot, rule) == ["bad"]
        for i in range(3):
            shot = edited(shot, f"dense_{i}", layer={"activation": "tanh"})
        assert severity(shot, rule) == ["warning"]
        # One layer that can run away is enough.
        assert severity(edited(shot, "dense_1", layer={"activation": "relu"}), rule) == ["bad"]


def test_a_last_layer_that_descent_can_move_brings_a_large_loss_down() -> None:
    shot = odd.of(odd.with_kernel(-1, lambda w: 100.0 * w, activation="tanh"), loss=1e4)
    for log10, told in ((-3.0, "warning"), (-4.0, "bad")):
        assert severity(odd.paced(shot, log10), "initial-loss") == [told]
    # With momentum the steps add up.
    assert severity(odd.of(odd.paced(shot, -4.0), momentum=0.9), "initial-loss") == ["warning"]
    assert severity(odd.of(odd.paced(shot, -3.0), learning_rate=None), "initial-loss") == ["bad"]


def test_momentum_counts_where_layer_normalisations_hide_long_steps() -> None:
    shot = odd.paced(layer_normalised(("LayerNormalization", "LayerNormalization")), math.log10(8.0 / 4))
    assert "update-ratio" not in rules(shot)
    assert "update-ratio" in rules(odd.of(shot, momentum=0.9))


def test_what_gates_take_off_by_nature_does_not_make_a_network_creep() -> None:
    shot = odd.graded(-1.9 / 9)
    last = shot["input"].activation_rms * 10**-1.5  # half a decade of it is what one layer of gates takes off
    shot = odd.paced(edited(shot, "dense_9", activation_rms=last), -4.0)
    one = edited(shot, "dense_0", layer=of_kind("LSTM"))
    assert severity(one, "vanishing-gradient") == ["bad"]
    evidence = findings(one)[0].evidence
    assert evidence["pace_log10"] == pytest.approx(-4.0 + math.log10(9))
    assert evidence["lost_decades"] == pytest.approx(2.9, abs=0.1)
    # Two more take off one decade of each.
    three = edited(edited(one, "dense_1", layer=of_kind("LSTM")), "dense_2", layer=of_kind("LSTM"))
    assert severity(three, "vanishing-gradient") == []
    # Without gates what is left comes back: Glorot on six ReLU layers learns with SGD, if slowly.
    assert severity(shot, "vanishing-gradient") == []


def test_a_mean_square_has_to_come_down_to_the_size_of_the_targets() -> None:
    def regression(optimizer: str, ratio: float, activation: str = "relu") -> Snapshot:
        shot = odd.with_kernel(-1, lambda w: 100.0 * w, activation=activation)
        shot = edited(shot, "target", layer={"kind": "float32"}, activation_std=2.0, activation_rms=2.0)
        known: dict[str, Any] = {"optimizer": optimizer, "learning_rate": 0.1, "loss_kind": "squares"}
        return odd.of(shot, loss=4.0 * ratio, baseline_loss=4.0, **known)

    for optimizer, ratio, told in (
        ("Adam", 0.9e6, "warning"),
        ("Adam", 1.1e6, "bad"),
        ("SGD", 0.9e3, "warning"),
        ("SGD", 1.1e3, "bad"),
    ):
        shot = odd.with_gradients(regression(optimizer, ratio), 1e-3)
        assert severity(odd.of(shot, optimizer=optimizer), "initial-loss") == [told]
    # A tanh in front does not bound the gradient of a square.
    assert severity(odd.paced(regression("SGD", 10.0, "tanh"), 0.5), "initial-loss") == ["bad"]
    for kind in ("classes", "distances", ""):
        shot = odd.of(odd.paced(regression("SGD", 10.0, "tanh"), 0.5), loss_kind=kind)
        assert severity(shot, "initial-loss") == ["warning"]


def test_a_rate_that_warms_up_is_judged_by_where_it_goes() -> None:
    still = odd.paced(odd.drifted(-2.2), -4.0)
    assert severity(still, "vanishing-signal") == ["bad"]
    assert severity(odd.of(still, peak_rate=1e3 * (still.learning_rate or 0.0)), "vanishing-signal") == ["warning"]
    before, after = odd.updated(-9.0)
    warming = {"learning_rate": 1e-9, "peak_rate": 1e-3}
    assert severity((before, odd.of(after, **warming)), "update-ratio") == []
    assert severity((before, odd.of(after, learning_rate=1e-9)), "update-ratio") == ["warning"]


def test_what_unscaled_data_does_makes_it_no_worse() -> None:
    shot = edited(odd.paced(odd.scaled(60.0), -2.0), "dense_2", activation_dead=1.0)
    (found,) = findings(shot)
    assert (found.rule, found.severity) == ("input-scale", "warning")
    assert "dead-units" in [c["rule"] for c in found.evidence["consequences"]]


def test_a_gradient_that_grows_makes_growth_bad_for_plain_descent_alone() -> None:
    shot = edited(odd.drifted(2.0), "dense_0", backward_rms=1e4 * healthy()["dense_2"].backward_rms)
    for optimizer, told in (("SGD", "bad"), ("Adam", "warning")):
        (found,) = findings(odd.of(shot, optimizer=optimizer))
        assert (found.rule, found.severity) == ("exploding-signal", told)


def test_saturation_in_time_counts_though_the_weights_move() -> None:
    shot = odd.paced(edited(plain(4, glorot, "tanh"), "dense_1", activation_saturated=0.9), -1.0)
    assert severity(shot, "saturated-units") == ["warning"]
    assert severity(edited(shot, "dense_1", layer=of_kind("SimpleRNN")), "saturated-units") == ["bad"]
    assert severity(odd.paced(odd.gates(0.9), -1.0), "saturated-units") == ["bad"]


def layer_normalised(kinds: tuple[str, str], **fields: Any) -> Snapshot:
    shot = odd.normalised(healthy(), "dense_0", "norm_0", kinds[0])
    shot = odd.normalised(shot, "dense_1", "norm_1", kinds[1])
    return odd.of(shot, optimizer="Adam", learning_rate=1.0, **fields)


def test_long_steps_behind_layer_normalisations_are_told_of_a_chain_of_them() -> None:
    layer, batch = "LayerNormalization", "BatchNormalization"
    assert rules(layer_normalised((layer, layer))) == ["update-ratio"]
    assert rules(layer_normalised((layer, batch))) == []  # one of them
    assert rules(layer_normalised((batch, batch))) == []
    # Round the second leads a skip connection.
    assert rules(edited(layer_normalised((layer, layer)), "dense_2", layer={"inputs": ("norm_1", "norm_0")})) == []
    # What the head gives out is not hidden from the loss.
    headed = odd.normalised(odd.normalised(healthy(), "dense_0", "norm_0", layer), "head", "norm_1", layer)
    assert rules(odd.of(headed, optimizer="Adam", learning_rate=1.0)) == []
    # One that starts from zero has no size to compare with.
    assert rules(edited(layer_normalised((layer, layer)), "dense_1", weight_rms=0.0)) == []


def test_the_rate_that_would_move_a_model_that_stands_still_is_told() -> None:
    found = first(odd.of(odd.updated(-9.0)[1], step=0, learning_rate=1e-9))
    assert found.remedy == "model.optimizer.learning_rate = 0.001"
