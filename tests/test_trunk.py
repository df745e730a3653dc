"""The main line of a network: the residual stream of those that have one, a sensible line through all others."""

from __future__ import annotations

import math
import random
import time

import keras
import numpy as np
import pytest
from keras import layers
from looking import compiled, images, sequences, snapshots, tokens, vectors

from keras_initaudit.records import LayerInfo
from keras_initaudit.trunk import Trunk, trunk_of

LABELS = np.arange(4) % 3


def network(*rows: tuple[str, str] | tuple[str, str, str]) -> tuple[LayerInfo, ...]:
    """Rows from (path, paths that flow in) and the kind, `Dense` with a kernel by default."""
    made = []
    for i, (path, inputs, *kind) in enumerate(rows):
        (name,) = kind or ("Dense",)
        shape = (8, 8) if name == "Dense" else ()
        made.append(LayerInfo(path, i, kind=name, shape=(8,), weight_shape=shape, inputs=tuple(inputs.split())))
    return tuple(made)


def line(found: tuple[LayerInfo, ...]) -> list[str]:
    return [found[row].path for row in trunk_of(found).line]


def looked_at(model: keras.Model, x: object, y: object = LABELS, loss: str = "sparse_categorical_crossentropy"):
    (found,) = snapshots(compiled(model, loss), x, y, size=4)
    return found.layers


def blocks(found: tuple[LayerInfo, ...]) -> dict[str, list[str]]:
    trunk = trunk_of(found)
    return {
        found[row].path: [found[i].path for i in block] for row, block in zip(trunk.line, trunk.blocks, strict=True)
    }


# --- graphs written out -------------------------------------------------------------------------------------------


def test_a_chain_is_its_own_line() -> None:
    rows = network(("a", ""), ("b", "a"), ("c", "b"))
    assert trunk_of(rows) == Trunk((0, 1, 2), (0.0, 1.0, 2.0))
    # where a snapshot does not say what flows where, its rows are a chain
    assert trunk_of(network(("a", ""), ("b", ""), ("c", ""))) == trunk_of(rows)
    assert trunk_of(()) == Trunk((), ())


def residual(blocks: int) -> list[tuple[str, str] | tuple[str, str, str]]:
    rows: list[tuple[str, str] | tuple[str, str, str]] = [("x0", "")]
    for k in range(blocks):
        rows += [(f"a{k}", f"x{k}"), (f"b{k}", f"a{k}"), (f"x{k + 1}", f"x{k} b{k}", "Add")]
    return rows


def test_the_residual_stream_is_the_line_and_what_is_in_a_block_stands_in_front_of_its_end() -> None:
    rows = network(*residual(3))
    trunk = trunk_of(rows)
    assert line(rows) == ["x0", "x1", "x2", "x3"]
    assert [[rows[i].path for i in block] for block in trunk.blocks] == [[], ["a0", "b0"], ["a1", "b1"], ["a2", "b2"]]
    assert [trunk.places[rows.index(row)] for row in rows if row.path in ("a1", "b1", "x2")] == [
        pytest.approx(4 / 3),
        pytest.approx(5 / 3),
        2.0,
    ]


def test_without_the_skip_the_same_rows_are_a_chain() -> None:
    rows = network(*((path, inputs.split()[-1] if inputs else "", *kind) for path, inputs, *kind in residual(3)))
    assert line(rows) == [row.path for row in rows]


def test_what_has_no_kernel_behind_a_sum_belongs_to_the_block() -> None:
    rows = network(
        *residual(1), ("relu", "x1", "ReLU"), ("c", "relu"), ("d", "c"), ("y", "relu d", "Add"), ("head", "y")
    )
    assert line(rows) == ["x0", "relu", "y", "head"]
    assert blocks(rows)["relu"] == ["a0", "b0", "x1"]


def test_a_skip_over_most_of_the_network_is_no_stream() -> None:
    around = [*residual(4), ("last", "x4"), ("sum", "x0 last", "Add"), ("out", "sum")]
    assert line(network(*around)) == ["x0", "x1", "x2", "x3", "x4", "last", "sum", "out"]


def test_the_deep_part_of_a_wide_and_deep_model_is_its_line() -> None:
    rows = network(
        ("a", ""), ("b", "a"), ("c", "b"), ("d", "c"), ("wide", ""), ("cat", "d wide", "Concatenate"), ("o", "cat")
    )
    assert line(rows) == ["a", "b", "c", "d", "cat", "o"]


def test_the_line_of_an_encoder_and_decoder_runs_through_both() -> None:
    rows: list[tuple[str, str] | tuple[str, str, str]] = [("source", ""), ("target", "")]
    x = "source"
    for k in range(3):
        rows += [(f"e{k}", x), (f"e{k}+", f"{x} e{k}", "Add"), (f"f{k}", f"e{k}+"), (f"f{k}+", f"e{k}+ f{k}", "Add")]
        x = f"f{k}+"
    encoded, x = x, "target"
    for k in range(3):
        rows += [(f"d{k}", x), (f"d{k}+", f"{x} d{k}", "Add"), (f"c{k}", f"d{k}+ {encoded}")]
        rows += [(f"c{k}+", f"d{k}+ c{k}", "Add")]
        x = f"c{k}+"
    found = line(network(*rows, ("head", x)))
    streams = ["source", *(f"{name}{k}+" for k in range(3) for name in "ef"), "c0+", "c1+", "c2+", "head"]
    assert [path for path in found if path in streams] == streams
    assert not set(found) & {"e0", "f0", "e1", "f1", "e2", "f2", "d1", "d2"}


def test_sums_that_no_layer_makes_are_seen_where_they_are_taken_in() -> None:
    """As `x = x + branch(norm(x))` in functional code: each norm takes in all that was added so far."""
    rows: list[tuple[str, str] | tuple[str, str, str]] = [("x", "")]
    stream = "x"
    for k in range(5):
        rows += [(f"n{k}", stream, "LayerNormalization"), (f"a{k}", f"n{k}"), (f"b{k}", f"a{k}")]
        stream += f" b{k}"
    rows += [("pool", stream, "GlobalAveragePooling1D"), ("head", "pool")]
    assert line(network(*rows)) == ["x", "n1", "n2", "n3", "n4", "pool", "head"]


def test_the_batch_has_no_place_and_a_part_that_of_its_layer() -> None:
    layer = LayerInfo("lstm", 0, kind="LSTM", inputs=("(input)",), weight_shape=(8, 32))
    rows = (
        LayerInfo("(input)", -1, role="input"),
        layer,
        LayerInfo("lstm/gates", 0, role="gates"),
        LayerInfo("head", 1, inputs=("lstm",), weight_shape=(8, 2)),
        LayerInfo("(target)", 2, role="target"),
    )
    trunk = trunk_of(rows)
    assert trunk.line == (1, 3)
    assert trunk.places[1:4] == (0.0, 0.0, 1.0)
    assert math.isnan(trunk.places[0])
    assert trunk.slots == (-1, 0, 0, 1, -1)


def test_any_graph_has_a_line_and_each_row_one_place_on_it() -> None:
    draw = random.Random(0)
    for _ in range(200):
        count = draw.choice([1, 3, 5, 10, 40, 120])
        rows = network(
            *(
                (
                    f"n{i}",
                    " ".join({f"n{draw.randrange(i)}" for _ in range(draw.choice([0, 1, 1, 2, 3]))}) if i else "",
                    draw.choice(["Dense", "Add"]),
                )
                for i in range(count)
            )
        )
        trunk = trunk_of(rows)
        assert trunk.line
        assert sorted([*trunk.line, *(row for block in trunk.blocks for row in block)]) == list(range(count))
        assert [trunk.places[row] for row in trunk.line] == list(range(len(trunk.line)))


def test_a_thousand_layers_cost_a_fraction_of_a_second() -> None:
    draw = random.Random(0)
    tangled = [
        (f"n{i}", " ".join({f"n{draw.randrange(max(0, i - 30), i)}" for _ in "ab"}) if i else "") for i in range(2000)
    ]
    for rows in (network(*residual(700)), network(*tangled)):
        start = time.process_time()
        trunk_of(rows)
        assert time.process_time() - start < 5.0  # 0.1 and 0.6 s; quadratic search would be minutes


# --- networks of Keras --------------------------------------------------------------------------------------------


def transformer(pre_norm: bool, depth: int = 3) -> keras.Model:
    width = 16
    given = keras.Input((12,), dtype="int32")
    x = layers.Embedding(50, width, name="tokens")(given)
    for k in range(depth):
        for branch in ("attention", "mlp"):
            h = layers.LayerNormalization(name=f"{k}_{branch}_norm")(x) if pre_norm else x
            if branch == "attention":
                h = layers.MultiHeadAttention(2, 8, name=f"{k}_attention")(h, h)
            else:
                h = layers.Dense(width, name=f"{k}_down")(layers.Dense(32, "gelu", name=f"{k}_up")(h))
            x = layers.Add(name=f"{k}_{branch}_sum")([x, h])
            if not pre_norm:
                x = layers.LayerNormalization(name=f"{k}_{branch}_norm")(x)
    if pre_norm:
        x = layers.LayerNormalization(name="norm")(x)
    x = layers.GlobalAveragePooling1D(name="pool")(x)
    return keras.Model(given, layers.Dense(3, "softmax", name="head")(x))


@pytest.mark.parametrize("pre_norm", [True, False])
def test_the_line_of_a_transformer_is_its_residual_stream(pre_norm: bool) -> None:
    found = looked_at(transformer(pre_norm), tokens()[:4])
    end = "sum" if pre_norm else "norm"
    ends = [f"{k}_{branch}_{end}" for k in range(3) for branch in ("attention", "mlp")]
    assert line(found) == ["tokens", *ends, *(["norm"] if pre_norm else []), "pool", "head"]
    inside = blocks(found)
    attention = {f"1_attention/{part}" for part in ("query", "key", "value", "attention_output", "attention")}
    assert set(inside[ends[2]]) == attention | {f"1_attention_{'norm' if pre_norm else 'sum'}"}
    assert {"2_up", "2_down"} <= set(inside[ends[5]])


def test_the_line_of_a_u_net_runs_through_its_bottom() -> None:
    given = keras.Input((16, 16, 3))
    x, skips, names = given, [], []

    def convolution(filters: int, name: str, x: object) -> object:
        names.append(name)
        return layers.Conv2D(filters, 3, padding="same", activation="relu", name=name)(x)

    for k, filters in enumerate((4, 8)):
        x = convolution(filters, f"down{k}", x)
        skips.append(x)
        x = layers.MaxPooling2D(name=f"pool{k}")(x)
        names.append(f"pool{k}")
    x = convolution(16, "bottom", x)
    for k, filters in ((1, 8), (0, 4)):
        x = layers.Conv2DTranspose(filters, 2, strides=2, name=f"up{k}")(x)
        x = layers.Concatenate(name=f"cat{k}")([x, skips[k]])
        names += [f"up{k}", f"cat{k}"]
        x = convolution(filters, f"merge{k}", x)
    model = keras.Model(given, layers.Conv2D(1, 1, activation="sigmoid", name="out")(x))
    found = looked_at(model, images(16)[:4], np.ones((4, 16, 16, 1)), "binary_crossentropy")
    assert line(found) == [*names, "out"]


def test_the_line_of_two_towers_runs_through_one_and_the_other_stands_beside_it() -> None:
    left, right = keras.Input((32,)), keras.Input((32,))

    def tower(name: str, x: object) -> object:
        for k in range(3):
            x = layers.Dense(8, "relu", name=f"{name}{k}")(x)
        return x

    both = layers.Concatenate(name="both")([tower("left", left), tower("right", right)])
    model = keras.Model([left, right], layers.Dense(3, "softmax", name="head")(both))
    found = looked_at(model, [vectors()[:4], vectors(seed=1)[:4]])
    (one,) = {path.rstrip("012") for path in line(found)[:3]}
    other = {"left": "right", "right": "left"}[one]
    assert line(found) == [*(f"{one}{k}" for k in range(3)), "both", "head"]
    trunk = trunk_of(found)
    places = {row.path: place for row, place in zip(found, trunk.places, strict=True)}
    assert [places[f"{other}{k}"] for k in range(3)] == pytest.approx([0.0, 1.0, 2.0])  # beside its twin


def test_the_line_of_recurrent_layers_holds_the_layers_and_not_their_parts() -> None:
    given = keras.Input((10, 8))
    x = layers.LSTM(6, return_sequences=True, name="first")(given)
    model = keras.Model(given, layers.Dense(3, "softmax", name="head")(layers.LSTM(6, name="second")(x)))
    found = looked_at(model, sequences()[:4])
    assert line(found) == ["first", "second", "head"]
    assert blocks(found)["first"] == ["first/recurrent_kernel", "first/gates"]


@pytest.mark.slow
def test_the_line_of_a_resnet_has_one_point_a_block() -> None:
    model = keras.applications.ResNet50(weights=None, input_shape=(32, 32, 3), classes=3)
    found = looked_at(model, images(32)[:4])
    stem = ["conv1_pad", "conv1_conv", "conv1_bn", "conv1_relu", "pool1_pad", "pool1_pool"]
    ends = [f"conv{s}_block{b}_out" for s, many in ((2, 3), (3, 4), (4, 6), (5, 3)) for b in range(1, many + 1)]
    assert line(found) == [*stem, *ends, "avg_pool", "predictions"]
    assert "conv4_block3_2_conv" in blocks(found)["conv4_block3_out"]


@pytest.mark.slow
def test_the_line_of_an_efficientnet_opens_what_has_no_skip() -> None:
    model = keras.applications.EfficientNetV2B0(weights=None, input_shape=(32, 32, 3), classes=3)
    found = looked_at(model, images(32)[:4])
    on_line = line(found)
    sums = [row.path for row in found if row.kind == "Add"]
    assert len(sums) == 15
    assert [path for path in on_line if path in sums] == sums
    # the blocks that change the resolution have no skip; their gates (squeeze and excite) stand beside the line
    assert {"block4a_dwconv2", "block4a_se_excite", "block6a_project_conv"} <= set(on_line)
    assert not {"block4a_se_reduce", "block6b_dwconv2", "block6b_se_excite"} & set(on_line)
