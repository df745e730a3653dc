"""The coordinate check: slopes that theory gives, with muP and without, and what is left of the models afterwards."""

import json
import math
import random

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_initaudit as ki
from keras_initaudit.coordinates import slope
from keras_initaudit.report.width import CoordinateCheck, CoordinateRow

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(32, 16)).astype("float32"), RNG.integers(0, 5, 32).astype("int32")
BASE = 64
WIDTHS = (64, 256, 1024)
needs_several = pytest.mark.skipif(
    not hasattr(keras.optimizers, "MultiOptimizer"), reason="needs the MultiOptimizer of Keras 3.15"
)


def network(width, activation="relu"):
    hidden = [layers.Dense(width, activation, name=f"hidden_{number}") for number in range(2)]
    return keras.Sequential([keras.Input((16,)), *hidden, layers.Dense(5, name="head")])


def compiled(model, optimizer):
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer, loss, metrics=["accuracy"], run_eagerly=True)
    return model


def standard(width):
    return compiled(ki.initialize(network(width)), keras.optimizers.Adam(0.003))


def mup(width):
    model = ki.initialize(network(width), "mup", base=network(BASE), zero_head=True)
    return compiled(model, ki.mup_optimizer(keras.optimizers.Adam(0.003), model, network(BASE)))


def values(variable):
    return np.array(ops.convert_to_numpy(variable))


def by_layer(check):
    return {row.layer: row for row in check.rows}


@needs_several
def test_the_slopes_are_those_of_the_theory():
    good = ki.coordinate_check(mup, WIDTHS, X, Y, steps=3, seeds=2)
    assert good.verdict == "healthy"
    assert list(by_layer(good)) == ["hidden_0", "hidden_1", "head"]
    # A head of zeros at all widths is the same function at the start: only the size of the sample is left.
    assert all(abs(row.change) <= 0.1 for row in good.rows), str(good)
    assert math.isnan(by_layer(good)["head"].start)
    bad = ki.coordinate_check(standard, WIDTHS, X, Y, steps=3, seeds=2)
    assert bad.verdict == "bad"
    assert by_layer(bad)["head"].meaning == "explodes with width"
    assert by_layer(bad)["head"].change > 0.4


def test_sgd_stops_learning():
    check = ki.coordinate_check(
        lambda width: compiled(ki.initialize(network(width)), keras.optimizers.SGD(0.003)), (64, 512), X, Y, seeds=2
    )
    assert by_layer(check)["hidden_0"].meaning == "stops learning with width"
    # Of a gradient that falls as width^(-1/2), with a head of Glorot's size.
    assert by_layer(check)["hidden_0"].change == pytest.approx(-0.5, abs=0.15)


def test_a_start_that_grows_explodes():
    def build(width):
        model = network(width)
        for layer in model.layers:
            layer.kernel.assign(np.full(layer.kernel.shape, 0.1))
        return compiled(model, keras.optimizers.SGD(1e-9))

    rows = by_layer(ki.coordinate_check(build, (32, 128), np.abs(X), Y, steps=1, seeds=1))
    assert rows["hidden_0"].start == pytest.approx(0.0, abs=1e-3)
    assert rows["hidden_1"].start == pytest.approx(1.0, abs=1e-3)
    assert rows["head"].start == pytest.approx(2.0, abs=1e-3)
    assert rows["head"].meaning == "explodes with width"


def test_the_models_and_the_random_states_are_left_as_they_were():
    kept = {}

    def build(width):
        if width not in kept:
            kept[width] = standard(width)
            kept[width].train_on_batch(X, Y)
            kept["before", width] = state(kept[width])
        return kept[width]

    def state(model):
        return [values(variable) for variable in (*model.variables, *model.optimizer.variables)]

    random.seed(7)
    np.random.seed(7)
    before = random.getstate(), np.random.get_state()[1].tolist()
    ki.coordinate_check(build, (16, 32), X, Y, steps=2, seeds=1)
    assert (random.getstate(), np.random.get_state()[1].tolist()) == before
    for width in (16, 32):
        for ours, theirs in zip(state(kept[width]), kept["before", width], strict=True):
            np.testing.assert_array_equal(ours, theirs)
    kept[16].train_on_batch(X, Y)
    assert not np.array_equal(state(kept[16])[0], kept["before", 16][0])


def test_the_same_call_gives_the_same_numbers():
    first, second = (ki.coordinate_check(standard, (16, 32), X, Y, steps=1, seeds=2) for _ in range(2))
    assert first.to_json() == second.to_json()


def test_models_that_differ_in_more_than_size_are_refused():
    def build(width):
        return compiled(network(width, "relu" if width < 32 else "tanh"), "adam")

    with pytest.raises(ValueError, match="layer 2, Dense 'hidden_0': activation is 'tanh', and 'relu' in the other"):
        ki.coordinate_check(build, (16, 32), X, Y)


@pytest.mark.parametrize(
    ("build", "widths", "match"),
    [(standard, (16, 16), "two different widths"), (network, (16, 32), "compiled model")],
)
def test_what_cannot_be_checked_is_refused(build, widths, match):
    with pytest.raises(ValueError, match=match):
        ki.coordinate_check(build, widths, X, Y)


def test_layers_in_loops_and_in_models_have_rows():
    def build(width):
        inputs = keras.Input((4, 3))
        x = layers.MultiHeadAttention(2, width // 2, name="attention")(inputs, inputs)
        x = keras.Sequential([layers.Dense(width, name="within")], name="inner")(x)
        x = layers.Bidirectional(layers.GRU(width), name="both")(x)
        model = keras.Model(inputs, layers.Dense(1, name="head")(x))
        model.compile("sgd", "mse", run_eagerly=True)
        return model

    check = ki.coordinate_check(build, (4, 8), np.ones((2, 4, 3)), np.ones((2, 1)), steps=1, seeds=1)
    names = set(by_layer(check))
    assert {"attention/query", "attention/attention_output", "inner/within", "both", "head"} <= names
    assert not any(name.startswith("both/") for name in names)


def test_the_log_has_the_check(tmp_path):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    check = ki.coordinate_check(standard, (16, 32), X, Y, steps=1, seeds=1, log_dir=tmp_path / "run")
    log = accumulator.EventAccumulator(str(tmp_path / "run"))
    log.Reload()
    for name, found in by_layer(check).items():
        scalars = [(event.step, event.value) for event in log.Scalars(f"coordinates/change/{name}")]
        assert scalars == [(width, pytest.approx(math.log2(change), rel=1e-6)) for width, _, change in found.points]


# --- the numbers and the forms


def test_the_slope_and_its_standard_error_are_those_of_least_squares():
    # log2 y = 0, 1, 1 at log2 x = 0, 1, 2: slope 1/2, residuals -1/6, 1/3, -1/6, error sqrt((1/6) / 1 / 2).
    assert slope([(1, 1.0), (2, 2.0), (4, 2.0)]) == pytest.approx((0.5, math.sqrt(1 / 12)))
    assert all(map(math.isnan, slope([(1, 1.0), (2, 0.0)])))


def check_of(*rows):
    return CoordinateCheck((64, 128), 5, 1, rows)


def row(name="dense", start=0.0, change=0.0, error=0.01, finite=True):
    return CoordinateRow(name, start, error, change, error, finite, ((64, 1.0, 0.1), (128, 1.0, 0.1)))


@pytest.mark.parametrize(
    ("found", "meaning", "verdict"),
    [
        (row(), "stable", "healthy"),
        (row(start=-0.5), "stable", "healthy"),
        (row(change=0.27), "explodes with width", "bad"),
        (row(change=0.255), "stable", "healthy"),
        (row(change=0.4, error=0.2), "stable", "healthy"),
        (row(start=0.3), "explodes with width", "bad"),
        (row(change=-0.5), "stops learning with width", "warning"),
        (row(finite=False), "explodes with width", "bad"),
        (row(change=math.nan, error=math.nan), "stable", "healthy"),
        (row(change=1.0, error=math.nan), "explodes with width", "bad"),
    ],
)
def test_what_a_slope_means(found, meaning, verdict):
    assert found.meaning == meaning
    assert check_of(found, row("other")).verdict == verdict


def test_every_form_has_the_rows_and_escapes_their_names():
    check = check_of(row("<b>|x\n", change=0.5), row("head", start=math.nan))
    assert "bad: <b>|x  explodes with width" in str(check)
    assert "+0.50 ± 0.01" in str(check)
    assert "none" in str(check)
    assert "<b>" not in check.html() + check.markdown()
    assert check.html().count("<polyline") == 4
    assert check.markdown().count("\n|") == 4
    data = json.loads(check.to_json())
    assert data["verdict"] == "bad"
    assert [one["meaning"] for one in data["rows"]] == ["explodes with width", "stable"]
    assert data["rows"][1]["start"] == "NaN"
