"""A snapshot as a network: what flows where, what leads round what, what follows what."""

from __future__ import annotations

import odd_networks as odd
import pytest
from numpy_network import edited, of_kind

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


def test_momentum_repeats_a_constant_gradient() -> None:
    repeats = [Network(odd.of(odd.healthy(), momentum=m)).persistence for m in (0.0, 0.9, 0.99, 1.0)]
    assert repeats == pytest.approx([1.0, 10.0, 100.0, 1000.0])


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
