"""A snapshot as a network: what flows where, what leads round what, what follows what."""

from __future__ import annotations

import dataclasses
import math

import odd_networks as odd
import pytest
from numpy_network import edited, glorot, of_kind

from keras_initaudit.diagnosis import Thresholds
from keras_initaudit.diagnosis.network import Network
from keras_initaudit.flow import Row
from keras_initaudit.records import NAN, LayerInfo, Snapshot, Statistics


def network(*rows: tuple[str, str, tuple[str, ...]], activations: dict[str, str] | None = None) -> dict[str, Row]:
    """Rows by path, of (path, kind, inputs); a `Dense` has a kernel."""
    net = Network(graph(*rows, activations=activations))
    return {row.path: row for row in net.rows}


def graph(*rows: tuple[str, str, tuple[str, ...]], activations: dict[str, str] | None = None) -> Snapshot:
    layers = [
        LayerInfo(
            path,
            i,
            role="input" if kind == "InputLayer" else "layer",
            inputs=inputs,
            activation=(activations or {}).get(path),
            weight="kernel" if kind == "Dense" else None,
            weight_shape=(8, 8) if kind == "Dense" else (),
            **of_kind(kind),
        )
        for i, (path, kind, inputs) in enumerate(rows)
    ]
    return Snapshot(0, tuple(layers), (Statistics(activation_rms=1.0),) * len(layers))


INPUT = ("x", "InputLayer", ())


def bypassed(merge: str, *, stem: bool, shortcut: bool) -> bool:
    """Whether `body` is, where `merge` joins it with what is in front of it, or with the kernel of a shortcut."""
    rows = [INPUT]
    start = "x"
    if stem:
        rows.append(("stem", "Dense", ("x",)))
        start = "stem"
    rows.append(("body", "Dense", (start,)))
    if shortcut:
        rows.append(("shortcut", "Dense", (start,)))
    rows += [("merge", merge, ("body", "shortcut" if shortcut else start)), ("head", "Dense", ("merge",))]
    net = Network(graph(*rows))
    return net.bypassed(net.rows[[row.path for row in net.rows].index("body")])


def test_a_sum_leads_round_what_it_takes_in_beside_it() -> None:
    assert bypassed("Add", stem=True, shortcut=False)
    assert bypassed("Add", stem=True, shortcut=True)
    assert bypassed("Add", stem=False, shortcut=False)


def test_two_branches_on_the_data_itself_are_no_bypass_of_each_other() -> None:
    assert not bypassed("Add", stem=False, shortcut=True)


def test_a_concatenation_keeps_its_parts_apart() -> None:
    assert not bypassed("Concatenate", stem=True, shortcut=False)
    assert not bypassed("Concatenate", stem=True, shortcut=True)


def test_residual_networks_heads_and_ancestors() -> None:
    net = Network(odd.plain(4, residual=True))
    by_path = {row.path: row for row in net.rows}
    assert net.bypassed(by_path["dense_1"])
    assert not net.bypassed(by_path["add_1"])
    assert [row.path for row in net.heads] == ["head"]
    assert [row.path for row in net.firsts] == ["dense_0"]
    assert net.is_ancestor(by_path["dense_0"].index, by_path["head"].index)
    assert not net.is_ancestor(by_path["head"].index, by_path["dense_0"].index)


def test_a_normalisation_behind_a_row_must_stand_on_every_way_and_before_the_next_kernel() -> None:
    chain = graph(
        INPUT,
        ("a", "Dense", ("x",)),
        ("pool", "MaxPooling2D", ("a",)),
        ("norm", "BatchNormalization", ("pool",)),
        ("b", "Dense", ("norm",)),
        ("late", "BatchNormalization", ("b",)),
        ("c", "Dense", ("late", "b")),
    )
    net = Network(chain)
    found = {row.path: net.normalised_after(row) for row in net.rows if row.has_kernel}
    assert found == {"a": True, "b": False, "c": False}


def test_a_layer_that_was_fitted_beforehand_normalises_nothing() -> None:
    rows = network(
        INPUT,
        ("fixed", "Normalization", ("x",)),
        ("norm", "LayerNormalization", ("fixed",)),
        ("rms", "RMSNorm", ("norm",)),
        ("a", "Dense", ("rms",)),
    )
    assert {path for path, row in rows.items() if row.normalises} == {"norm", "rms"}


def test_the_activation_of_a_kernel_is_its_own_or_the_next_before_another_kernel() -> None:
    rows = (
        INPUT,
        ("a", "Dense", ("x",)),
        ("norm", "BatchNormalization", ("a",)),
        ("act", "Activation", ("norm",)),
        ("b", "Dense", ("act",)),
        ("c", "Dense", ("b",)),
    )
    net = Network(graph(*rows, activations={"a": "linear", "act": "gelu", "b": "linear", "c": "tanh"}))
    assert {row.path: net.activation(row) for row in net.kernels} == {"a": "gelu", "b": "linear", "c": "tanh"}


def test_the_first_kernels_are_those_that_meet_data() -> None:
    net = Network(
        graph(
            INPUT,
            ("ids", "InputLayer", ()),
            ("table", "Embedding", ("ids",)),
            ("flat", "Flatten", ("table",)),
            ("words", "Dense", ("flat",)),
            ("numbers", "Dense", ("x",)),
            ("both", "Concatenate", ("words", "numbers")),
            ("head", "Dense", ("both",)),
        )
    )
    assert [row.path for row in net.firsts] == ["numbers"]
    assert [row.path for row in net.heads] == ["head"]
    assert [row.path for row in net.junctions] == ["flat", "both"]
    assert [row.path for row in net.last_hidden] == ["both"]


def test_a_cycle_is_cut_where_it_is_met() -> None:
    shot = edited(odd.healthy(), "dense_0", layer={"inputs": ("input", "dense_0", "dense_2")})
    net = Network(shot)
    assert sorted(net.order) == list(range(len(net.rows)))
    assert net.rows[1].index not in net.parents[1]


def test_only_plain_descent_is_not_adaptive() -> None:
    told = {name: Network(odd.of(odd.healthy(), optimizer=name)).adaptive for name in ("SGD", "Adam", "Lion", "")}
    assert told == {"SGD": False, "Adam": True, "Lion": True, "": True}


# --- how fast the weights move


def moving(*gradients: float, optimizer: str = "SGD", momentum: float = 0.0, rate: float = 0.01) -> Network:
    """A chain with weights of rms 1 and these gradients, the head's last."""
    shot = odd.healthy(len(gradients) - 1)
    paths = [info.path for info in shot.layers if info.weight is not None]
    for path, gradient in zip(paths, gradients, strict=True):
        shot = edited(shot, path, weight_rms=1.0, gradient_rms=gradient)
    return Network(odd.of(shot, optimizer=optimizer, momentum=momentum, learning_rate=rate))


def test_the_pace_of_descent_counts_momentum_and_that_of_other_optimizers_is_the_gradient() -> None:
    net = moving(3.0, 1.0, 2.0, momentum=0.9)
    assert net.paces(net.kernels) == pytest.approx([0.1, 0.2, 0.3])
    # The median kernel; one step of a gradient that goes on for a while with momentum.
    assert 10 ** net.first_step() == pytest.approx(0.02 / math.sqrt(0.1))
    adam = moving(3.0, 1.0, 2.0, optimizer="Adam", momentum=0.9)
    assert adam.paces(adam.kernels) == [1.0, 2.0, 3.0]
    assert math.isnan(adam.first_step())
    assert moving(1.0, 1.0, rate=0.0).paces([]) == []


def test_frozen_kernels_have_no_pace_and_small_ones_may_grow() -> None:
    net = moving(3.0, 1.0, 2.0)
    frozen = Network(edited(edited(net.snapshot, "dense_0", layer={"trainable": False}), "dense_1", weight_rms=1e-6))
    assert frozen.paces(frozen.kernels) == pytest.approx([0.02, 1e4])
    # 1e-6 counts as half of 1 / sqrt(64).
    assert 10 ** frozen.first_step() == pytest.approx((0.02 + 0.01 / 0.0625) / 2)


def test_below_heads_of_zeros_the_pace_is_not_known() -> None:
    shot = edited(moving(1.0, 1.0, 1.0).snapshot, "head", weight_rms=0.0)
    net = Network(shot)
    assert net.paces(net.kernels) == []
    assert net.stands_still(net.kernels, Thresholds()) is None
    assert net.partly_stands_still(net.kernels, Thresholds()) is None
    head = next(info for info in shot.layers if info.path == "head")
    both = Network(odd.added(shot, dataclasses.replace(head, path="end"), net.rows[1].stats))
    assert len(both.paces(both.kernels)) == 3


@pytest.mark.parametrize(("factor", "still"), [(0.99, True), (1.01, False)])
def test_a_chain_stands_still_by_all_but_its_fastest_kernel_or_by_the_median_gradient(
    factor: float, still: bool
) -> None:
    limits = Thresholds()
    third = factor * 10**limits.pace_low / 3
    net = moving(9.0 * third, third, 2 * third, rate=1.0)
    assert net.stands_still(net.kernels, limits) is still
    floor = factor * 10**limits.gradient_floor
    adam = moving(1.0, 1e-3 * floor, floor, optimizer="Adam")
    assert adam.stands_still(adam.kernels, limits) is still


@pytest.mark.parametrize(("factor", "still"), [(0.99, True), (1.01, False)])
def test_it_stands_still_in_part_by_the_kernel_at_the_quarter(factor: float, still: bool) -> None:
    limits = Thresholds()
    for optimizer, limit in (("SGD", limits.kernel_pace_low), ("Adam", limits.gradient_floor)):
        level = factor * 10**limit
        net = moving(1.0, level, 1.0, 1e-3 * level, 1.0, optimizer=optimizer, rate=1.0)
        assert net.partly_stands_still(net.kernels, limits) is still


def test_a_normalisation_that_gives_out_next_to_nothing_does_nothing_unless_it_gives_out_zero() -> None:
    shot = odd.normalised(odd.healthy())
    for size, normalises in ((1.0, True), (2e-2, True), (1e-3, False), (0.0, True), (NAN, True)):
        net = Network(edited(shot, "batch_normalization", activation_rms=size))
        assert [row.normalises for row in net.rows if row.path == "batch_normalization"] == [normalises], size


def test_attention_weights_stand_at_the_last_part_of_their_layer() -> None:
    shot = odd.healthy()
    for path, name in (("dense_1", "attention/query"), ("dense_2", "attention/output")):
        shot = edited(shot, path, layer={"path": name})
    weights = LayerInfo("attention/attention", 1, "attention", "MultiHeadAttention", activation="softmax")
    net = Network(odd.added(shot, weights, Statistics(attention_entropy=0.5)))
    assert net.place(net.rows[-1]).path == "attention/output"
    assert net.place(net.rows[1]).path == "dense_0"


def test_a_network_is_as_narrow_as_the_chain_in_which_errors_of_scale_multiply() -> None:
    relu = Network(odd.healthy(5))
    assert [row.path for row in relu.loose] == [f"dense_{i}" for i in range(5)]
    assert relu.narrowness == pytest.approx(5 / 64)  # four hidden kernels behind the first, and the head
    one_tanh = Network(edited(odd.healthy(5), "dense_2", layer={"activation": "tanh"}))
    assert one_tanh.narrowness == pytest.approx(4 / 64)
    assert not one_tanh.bounded
    normalised = Network(odd.normalised(odd.healthy(5), "dense_2"))
    assert normalised.narrowness == pytest.approx(4 / 64)
    # Skip connections lead round all but the first, which meets the data: the head alone is left.
    assert Network(odd.plain(5, residual=True)).narrowness == pytest.approx(1 / 64)


def test_depthwise_kernels_see_one_channel_each_and_do_not_make_a_network_narrow() -> None:
    shot = odd.healthy(5)
    for i in (1, 3):
        shot = edited(shot, f"dense_{i}", layer=of_kind("DepthwiseConv2D") | {"fan_in": 9.0})
    assert Network(shot).narrowness == pytest.approx(3 / 64)


def test_where_nothing_can_run_away_nothing_is_narrow() -> None:
    net = Network(odd.plain(5, glorot, "tanh"))
    assert (net.loose, net.bounded, net.narrowness) == ((), True, 0.0)
    alone = Network(odd.plain(0))
    assert (alone.loose, alone.bounded, alone.narrowness) == ((), False, 0.0)


def test_what_a_softmax_takes_in_cannot_run_away() -> None:
    net = Network(odd.attention(0.9))
    assert not {"mha/query", "mha/key"} & {row.path for row in net.loose}


def test_a_recurrent_kernel_counts_once_for_each_step() -> None:
    shot = edited(odd.healthy(3), "dense_0", layer=of_kind("SimpleRNN"))
    shot = edited(shot, "input", layer={"shape": (20, 64)})
    part = LayerInfo("dense_0/recurrent_kernel", 1, "weight", "SimpleRNNCell", weight="recurrent_kernel", fan_in=64.0)
    shot = odd.added(shot, part, Statistics())
    assert Network(shot).narrowness == pytest.approx(3 / 64 + 20 / 64)
    unknown = edited(shot, "input", layer={"shape": (-1, 64)})
    assert Network(unknown).narrowness == pytest.approx(3 / 64 + 1 / 64)
    assert Network(edited(shot, "dense_0", layer={"activation": "tanh"})).narrowness == pytest.approx(3 / 64)
