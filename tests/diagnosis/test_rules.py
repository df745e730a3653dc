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

from keras_initaudit.diagnosis import diagnose
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


def severity(made: odd.Made, rule: str) -> list[str]:
    return [f.severity for f in findings(made) if f.rule == rule]


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


def test_where_residual_blocks_repeat_it_is_the_block_that_multiplies() -> None:
    def grown(residual: bool) -> Finding:
        shot = plain(6, factor=2.0, residual=residual)
        end = "add" if residual else "dense"
        for i in range(6):
            size = shot["input"].activation_rms * 10.0 ** (0.4 * (i + 1))
            shot = edited(shot, f"{end}_{i}", activation_rms=size)
        return first(shot)

    blocks, layers = grown(True), grown(False)
    assert "each block multiplies the signal by 2.5; after 6 blocks it is 251 times as large at add_5" in blocks.message
    assert "each layer multiplies the signal by 2.5; after 6 layers it is 251 times as large" in layers.message
    assert blocks.evidence["layers"] == layers.evidence["layers"] == [f"dense_{i}" for i in range(6)]
    assert (blocks.layer, blocks.evidence["worst"], layers.layer) == ("dense_0", "add_5", "dense_5")


def test_a_kernel_is_named_and_not_the_pooling_at_which_it_was_seen() -> None:
    """Its own where the row has one, the last where the samples are lost, else the first of those that make it."""
    shot = healthy()
    for i in range(3):
        shot = edited(shot, f"dense_{i}", activation_rms=shot["input"].activation_rms * 10.0 ** (i + 1))
    assert [first(shot).layer, first(shot).evidence["worst"]] == ["dense_2", "dense_2"]
    pooled = inserted(
        shot, "dense_2", "pool", "GlobalMaxPooling2D", activation_rms=4.0 * shot["dense_2"].activation_rms
    )
    assert [first(pooled).layer, first(pooled).evidence["worst"]] == ["dense_0", "pool"]
    faded = inserted(odd.graded(-1.0), "dense_1", "pool", "AveragePooling2D")
    lowest = edited(faded, "pool", backward_rms=0.1 * faded["dense_0"].backward_rms)
    lowest = edited(lowest, "dense_0", backward_rms=lowest["pool"].backward_rms)
    assert [first(lowest).layer, first(lowest).rule] == ["dense_0", "vanishing-gradient"]
    alike = inserted(healthy(), "dense_2", "pool", "AveragePooling2D", activation_spread=1e-8)
    assert [first(alike).layer, first(alike).evidence["worst"]] == ["dense_2", "pool"]
    for made in (shot, pooled, lowest, alike):
        found, kernels = first(made), {info.path for info in made.layers if info.weight is not None}
        assert found.layer in kernels
        assert set(found.evidence["layers"]) <= kernels


def test_it_says_what_the_kernels_were_drawn_by_where_it_was_the_same_for_all_of_three_or_more() -> None:
    def message(shot: Snapshot, paths: tuple[str, ...] = (), **layer: Any) -> str:
        for path in paths:
            shot = edited(shot, path, layer=layer)
        return first(shot).message

    drift, gradient = odd.each(plain(12, 1.0), initializer="RandomNormal"), odd.graded(-1.0)
    assert message(gradient).endswith("at dense_0; all 10 kernels are drawn by RandomNormal")
    assert message(drift).endswith("; all 12 kernels are drawn by RandomNormal")
    sized = odd.each(drift, initializer_config={"mean": 0.0, "stddev": 1.0, "seed": 3})
    assert message(sized).endswith("; all 12 kernels are drawn by RandomNormal(stddev=1)")
    scaled = odd.each(drift, initializer="VarianceScaling", initializer_config={"scale": 9.0, "mode": "fan_in"})
    assert message(scaled).endswith("; all 12 kernels are drawn by VarianceScaling(scale=9)")
    # Another one among them, another size, an initializer that is not known: nothing is said.
    assert "drawn by" not in message(sized, ("dense_4",), initializer="GlorotUniform")
    assert "drawn by" not in message(sized, ("dense_4",), initializer_config={"stddev": 2.0})
    assert "drawn by" not in message(odd.each(drift, initializer=None))
    # Nor of two.
    two = plain(2, 1.0)
    for i in range(2):
        two = edited(two, f"dense_{i}", activation_rms=two["input"].activation_rms * 10.0 ** (i + 1))
    assert "after 2 layers" in message(two)
    assert "drawn by" not in message(two)


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


def test_what_is_left_of_a_gradient_is_told_of_the_row_that_is_named() -> None:
    """Of the branch, which has less than the row that feeds it; how severe it is goes by that row."""
    shot = edited(odd.graded(0.0, depth=4), "dense_3", layer={"inputs": ("dense_2", "dense_0")})
    last = shot["dense_3"].backward_rms
    shot = edited(edited(shot, "dense_0", backward_rms=1e-3 * last), "dense_1", backward_rms=1e-5 * last)
    found = first(shot)
    assert (found.rule, found.severity, found.evidence["worst"]) == ("vanishing-gradient", "warning", "dense_1")
    assert "1e-5 of it is left at dense_1" in found.message
    assert found.evidence["observed"] == pytest.approx(5.0, abs=0.01)


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


def test_an_activation_layer_behind_unscaled_data_is_no_layer_that_shrinks_it() -> None:
    shot = edited(edited(healthy(), "input", activation_rms=1e4), "dense_0", activation_rms=1e4)
    shot = inserted(shot, "dense_0", "activation", "Activation", activation_rms=1.0)
    assert rules(inserted(shot, "activation", "dropout", "Dropout")) == ["input-scale"]


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
    # Gates and attention are two findings, the worse of them first.
    shot = odd.added(odd.gates(0.7), other, Statistics(attention_entropy=0.2))
    assert [(f.rule, f.layer, f.severity) for f in findings(shot)] == [
        ("saturated-units", "dense_1", "bad"),
        ("attention-entropy", "dense_2", "warning"),
    ]


def test_of_layers_that_are_saturated_those_that_nothing_leads_round_count_as_bad() -> None:
    """`dense_0` meets the data, so that nothing leads round it; a skip connection does round `dense_2`."""
    base = plain(4, glorot, "tanh", residual=True)
    base = edited(base, "add_0", layer={"inputs": ("dense_0",)})
    for stem, branch, told in (
        (0.6, 0.1, "bad"),
        (0.6, 0.9, "bad"),
        (0.5, 0.9, "warning"),
        (0.31, 0.6, "warning"),  # too little of it in the one is no reason to keep silent of the other
        (0.0, 0.99, "warning"),
        (0.34, 0.3, None),
    ):
        shot = edited(edited(base, "dense_0", activation_saturated=stem), "dense_2", activation_saturated=branch)
        assert severity(shot, "saturated-units") == ([] if told is None else [told]), (stem, branch)
        if told is not None:
            assert first(shot).evidence["observed"] == max(stem, branch)
            assert first(shot).layer == ("dense_0" if stem > branch else "dense_2")


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


@pytest.mark.parametrize(
    ("optimizer", "step"),
    [
        ("SGD", lambda gradient: gradient),
        ("Adam", lambda _: 1.0),
        ("AdamW", lambda _: 1.0),
        ("Lion", lambda _: 1.0),
        ("RMSprop", lambda _: 1.0 / math.sqrt(0.1)),
        ("Adagrad", lambda gradient: gradient / math.sqrt(0.1 + gradient**2)),
    ],
)
def test_the_first_update_is_as_long_as_rate_and_optimizer_make_it(optimizer: str, step: Any) -> None:
    shot = odd.of(healthy(), optimizer=optimizer)
    rows = {info.path: row for info, row in zip(shot.layers, shot.statistics, strict=True) if row.weight_rms > 0}
    steps = {path: step(row.gradient_rms) / row.weight_rms for path, row in rows.items()}
    fastest = max(steps, key=lambda path: steps[path])
    for size, told in ((10.0**-0.6, []), (10.0**-0.4, ["warning"]), (10.0**0.6, ["bad"]), (10.0**-7.1, ["warning"])):
        found = odd.of(shot, learning_rate=size / steps[fastest])
        assert severity(found, "update-ratio") == told
        if told:
            assert first(found).evidence["observed"] == pytest.approx(math.log10(size))
            assert first(found).layer == (fastest if size > 1e-3 else None)
            assert first(found).message.startswith("the first update changes ")
            assert isinstance(first(found).action, LearningRate)
    # The next audit knows how long it was.
    long = odd.of(shot, learning_rate=4.0 / steps[fastest])
    assert severity((shot, odd.of(long, step=1)), "update-ratio") == []


def test_nothing_is_said_of_a_first_update_whose_length_is_not_known() -> None:
    assert rules(odd.of(healthy(), optimizer="SGD", learning_rate=1e3)) == ["update-ratio"]
    for unknown in (
        {"optimizer": "Ftrl", "learning_rate": 1e3},
        {"optimizer": "", "learning_rate": 1e3},
        {"optimizer": "SGD", "learning_rate": None},
        {"optimizer": "SGD", "learning_rate": 0.0},  # as of a schedule that begins there
    ):
        assert rules(odd.of(healthy(), **unknown)) == []
    without = healthy()
    for path in ("dense_0", "dense_1", "dense_2", "head"):
        without = edited(without, path, gradient_rms=NAN)
    assert rules(odd.of(without, optimizer="Adam", learning_rate=1e3)) == []


def test_a_small_weight_may_move_by_any_multiple_of_its_size_unless_a_normalisation_hides_that() -> None:
    """From 0.03 / sqrt(64) on its size counts; a gate of zero has none."""
    least = 0.03 / 8
    for size, kind, told in (
        (0.9 * least, "", []),
        (1.1 * least, "", ["bad"]),
        (0.9 * least, "BatchNormalization", ["bad"]),
        (0.9 * least, "LayerNormalization", ["bad"]),
        (0.9 * least, "Dropout", []),
        (0.0, "BatchNormalization", []),
    ):
        shot = edited(odd.paced(healthy(), -3.0), "dense_1", weight_rms=size, gradient_rms=1e4 * size or 1.0)
        shot = inserted(shot, "dense_1", "behind", kind) if kind == "Dropout" else shot
        shot = odd.normalised(shot, "dense_1", kind=kind) if "Norm" in kind else shot
        assert severity(shot, "update-ratio") == told, (size, kind)
        # The same of an update that was made.
        made = edited(healthy(), "dense_1", weight_rms=size, update_log10=1.0)
        made = odd.normalised(made, "dense_1", kind=kind) if "Norm" in kind else made
        assert severity(made, "update-ratio") == told, (size, kind)


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
    assert found.evidence["ratio"] == pytest.approx(math.sqrt(4.0 / 64.0))
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


def test_a_normalisation_behind_the_first_kernel_brings_small_data_nearer_to_unit_scale() -> None:
    """Even one whose epsilon is larger than what arrives, save that it works on one sample at a time."""
    small, large = odd.scaled(1e-5), odd.scaled(1e4)
    assert severity(small, "input-scale") == severity(large, "input-scale") == ["bad"]

    def behind(shot: Snapshot, kind: str) -> Snapshot:
        return inserted(shot, "dense_0", "norm", kind, activation_rms=1e-3)

    assert severity(behind(small, "BatchNormalization"), "input-scale") == []
    assert severity(behind(small, "LayerNormalization"), "input-scale") == ["bad"]
    assert severity(behind(large, "BatchNormalization"), "input-scale") == ["bad"]


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
    found_in = [drifts(Network(shot))[1].decades for shot in drifted]
    assert found_in == pytest.approx([0.0, 2.0, -math.log10(5.0)])


def test_numbers_that_are_only_looked_up_have_no_scale() -> None:
    shot = edited(healthy(), "input", activation_rms=577.0, activation_max=999.0)
    assert rules(shot) == ["input-scale"]
    shot = edited(shot, "input", layer={"lookup": True})
    assert rules(shot) == []
    small = edited(shot, "input", activation_rms=9.0)  # nor does the signal fade from there
    assert drifts(Network(small))[1].decades == 0.0
    assert drifts(Network(small))[2].decades != 0.0


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
    assert [(f.rule, f.layer) for f in findings(shot)] == [("input-scale", "dense_0"), ("target-scale", "target")]


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
    assert [rules(odd.targets(35.0, kind)) for kind in kinds] == [["target-scale"], ["target-scale"], [], [], []]


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


def test_a_rate_that_warms_up_is_judged_by_where_it_goes() -> None:
    before, after = odd.updated(-7.5)
    warming = {"learning_rate": 1e-9, "peak_rate": 1e-3}
    assert severity((before, odd.of(after, **warming)), "update-ratio") == []
    assert severity((before, odd.of(after, learning_rate=1e-9)), "update-ratio") == ["warning"]
    # So is the first update before it is made.
    still = odd.paced(healthy(), -7.5)
    assert severity(still, "update-ratio") == ["warning"]
    assert severity(odd.of(still, peak_rate=1e5 * (still.learning_rate or 0.0)), "update-ratio") == []


def test_the_rate_that_would_move_a_model_that_stands_still_is_told() -> None:
    found = first(odd.of(odd.updated(-9.0)[1], step=0, learning_rate=1e-9))
    assert found.remedy == "model.optimizer.learning_rate = 0.001"
