"""muP: how each weight has grown, its start, its rate; the optimizer in a `fit`, saved and loaded, on every backend."""

import math
import re

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_initaudit as ki
from keras_initaudit.optimizers import ClippedMultiOptimizer, ScaledSchedule
from keras_initaudit.remedies.width import Growth, growths

needs_several = pytest.mark.skipif(
    not hasattr(keras.optimizers, "MultiOptimizer"), reason="needs the MultiOptimizer of Keras 3.15"
)
SMALL, LARGE = 16, 128
M = LARGE / SMALL


def build(width, activation="relu"):
    inputs = keras.Input((6,), dtype="int32")
    x = layers.Embedding(11, width, name="table")(inputs)
    x = layers.Add()([x, layers.MultiHeadAttention(2, width // 2, name="attention")(x, x)])
    x = layers.LayerNormalization(name="norm")(x)
    x = layers.Conv1D(2 * width, 3, activation=activation, name="hidden")(x)
    x = layers.GlobalAveragePooling1D()(x)
    return keras.Model(inputs, layers.Dense(5, name="head")(x))


def values(variable):
    return np.asarray(ops.convert_to_numpy(variable), np.float64)


def batch(samples=32):
    rng = np.random.default_rng(0)
    return rng.integers(0, 11, (samples, 6)).astype("int32"), rng.integers(0, 5, samples).astype("int32")


def compiled(model, optimizer):
    model.compile(optimizer, keras.losses.SparseCategoricalCrossentropy(from_logits=True), jit_compile=False)
    return model


def shorter():
    inputs = keras.Input((6,), dtype="int32")
    return keras.Model(inputs, layers.Embedding(11, SMALL)(inputs))


# path, kind, m_in, m_out, start, rate under Adam, rate under SGD
TABLE = [
    ("table/embeddings", "input", 1, M, 1, 1, M),
    ("attention/query/kernel", "hidden", M, M, 1 / M, M**-1.5, 1 / M),
    ("attention/query/bias", "vector", 1, M, M**-0.5, M**-0.5, 1),
    ("attention/key/kernel", "hidden", M, M, M**-0.5, 1 / M, 1),
    ("attention/key/bias", "vector", 1, M, 1, 1, M),
    ("attention/attention_output/kernel", "hidden", M, M, M**-0.5, 1 / M, 1),
    ("norm/gamma", "vector", 1, M, 1, 1, M),
    ("hidden/kernel", "hidden", M, M, M**-0.5, 1 / M, 1),
    ("head/kernel", "output", M, 1, 1 / M, 1 / M, 1 / M),
    ("head/bias", "fixed", 1, 1, 1, 1, 1),
]


@pytest.mark.parametrize(("path", "kind", "inputs", "outputs", "start", "adam", "sgd"), TABLE)
def test_each_weight_has_the_class_and_the_rule_of_the_table(path, kind, inputs, outputs, start, adam, sgd):
    growth = next(found for found in growths(build(LARGE), build(SMALL)) if found.path == path)
    assert growth.kind == kind
    assert (growth.inputs, growth.outputs) == (inputs, outputs)
    assert growth.start == pytest.approx(start)
    assert growth.rate(normalised=True) == pytest.approx(adam)
    assert growth.rate(normalised=False) == pytest.approx(sgd)


def test_channelwise_and_recurrent_kernels_grow_as_they_sum():
    def other(width):
        inputs = keras.Input((9, width))
        x = layers.SeparableConv1D(width, 3, name="separable")(inputs)
        x = layers.Bidirectional(layers.GRU(width, name="gru"), name="both")(x)
        return keras.Model(inputs, layers.Dense(2 * width, name="dense")(x))

    found = {growth.path: (growth.inputs, growth.outputs) for growth in growths(other(32), other(8))}
    assert found["separable/depthwise_kernel"] == (1, 4)
    assert found["separable/pointwise_kernel"] == (4, 4)
    assert found["both/forward_gru/gru_cell/recurrent_kernel"] == (4, 4)
    assert found["dense/kernel"] == (4, 4)


def test_two_sides_that_grow_differently():
    # Spectral norm: sqrt(n_out / n_in), of a matrix with independent entries s (sqrt(n_in) + sqrt(n_out)).
    wide, tall = Growth(None, None, "w", inputs=4.0, outputs=16.0), Growth(None, None, "w", inputs=16.0, outputs=4.0)
    assert wide.start == 0.5
    assert tall.start == 0.5 / 4
    assert (wide.rate(normalised=False), tall.rate(normalised=False)) == (4.0, 0.25)


@pytest.mark.parametrize(
    ("other", "difference"),
    [
        (lambda: build(SMALL, "tanh"), "Conv1D 'hidden': activation is 'relu', and 'tanh' in the other"),
        (lambda: keras.Sequential([keras.Input((6,)), layers.Dense(5)]), "layer 0, Functional"),
        (shorter, "the other 3. The first layer that only one of them has is"),
    ],
)
def test_the_first_difference_that_is_not_of_size_is_named(other, difference):
    with pytest.raises(ValueError, match=f"differ in more than size.*({difference})"):
        growths(build(LARGE), other())


# --- the start


def test_the_start_is_that_of_the_base_times_the_rule():
    model = ki.initialize(build(LARGE), "mup", base=lambda: build(SMALL), seed=3)
    auto = ki.initialize(build(LARGE), seed=3)
    he = math.sqrt(2 / (3 * SMALL))
    glorot_head = 0.5 * math.sqrt(2 / (2 * SMALL + 5))
    starts = {"table/embeddings": 1.0, "hidden/kernel": he * M**-0.5, "head/kernel": glorot_head / M}
    for path, deviation in starts.items():
        sample = values(next(weight for weight in model.weights if weight.path == path))
        assert abs(sample.std() / deviation - 1) <= 5 / np.sqrt(2 * sample.size), path
    # Without muP the last layer starts sqrt(m) times as large, more or less: Glorot's fans have the 5 classes too.
    head = values(auto.get_layer("head").kernel)
    assert head.std() > 2 * glorot_head / M
    query, key = (
        values(w).std() for w in model.get_layer("attention").weights if w.path.endswith(("query/kernel", "key/kernel"))
    )
    assert query / key == pytest.approx(M**-0.5, rel=5 / math.sqrt(LARGE**2))


def test_a_model_that_has_not_grown_starts_as_auto_does():
    model, other = build(SMALL), build(SMALL)
    ki.initialize(model, "mup", base=build(SMALL), seed=5)
    ki.initialize(other, seed=5)
    for ours, theirs in zip(model.weights, other.weights, strict=True):
        np.testing.assert_allclose(values(ours), values(theirs), rtol=1e-6)
    ki.initialize(other, seed=6)
    assert not np.allclose(values(model.get_layer("head").kernel), values(other.get_layer("head").kernel))


def test_a_head_of_zeros_on_request():
    model = ki.initialize(build(LARGE), "mup", base=build(SMALL), seed=1, zero_head=True)
    assert not values(model.get_layer("head").kernel).any()
    assert values(model.get_layer("hidden").kernel).all()
    assert not values(ki.initialize(build(SMALL), seed=1, zero_head=True).get_layer("head").kernel).any()


@pytest.mark.parametrize(
    "options", [{"scheme": "mup"}, {"base": 1}, {"scheme": "mup", "base": 1, "x": np.zeros((1, 6))}]
)
def test_mup_goes_with_a_base_and_without_data(options):
    with pytest.raises(ValueError, match="base"):
        ki.initialize(build(SMALL), **options)


def test_a_base_is_a_model_that_is_built():
    with pytest.raises(TypeError, match="base"):
        ki.initialize(build(SMALL), "mup", base=64)
    with pytest.raises(ValueError, match="not built"):
        ki.initialize(build(SMALL), "mup", base=keras.Sequential([layers.Dense(2)]))


def test_a_table_that_makes_the_outputs_too_wants_a_multiplier():
    if not hasattr(layers, "ReversibleEmbedding"):
        pytest.skip("needs ReversibleEmbedding")

    def tied(width):
        table = layers.ReversibleEmbedding(11, width)
        inputs = keras.Input((6,), dtype="int32")
        return keras.Model(inputs, table(layers.Dense(width)(table(inputs)), reverse=True))

    with pytest.warns(UserWarning, match="Rescaling"):
        ki.initialize(tied(32), "mup", base=tied(8), seed=1)


# --- the optimizer


def network(width):
    return keras.Sequential(
        [
            keras.Input((6,)),
            layers.Dense(width, "relu", name="input"),
            keras.Sequential([layers.Dense(width, "relu", name="hidden")], name="inner"),
            layers.Dense(5, name="head"),
        ],
        name="network",
    )


@pytest.mark.parametrize("power", [1, 2])
def test_a_multiplier_can_stand_in_the_weight(power):
    # c W with the rate r is W' = c W with the rate c^2 r under SGD, and with no other power of c.
    c, rng = 0.25, np.random.default_rng(0)
    x, y, kernel = rng.normal(size=(64, 8)), rng.normal(size=(64, 3)), rng.normal(size=(8, 3))
    outputs = []
    for factor in (c, 1.0):
        dense = layers.Dense(3, use_bias=False)
        model = keras.Sequential([keras.Input((8,)), dense, layers.Rescaling(factor)])
        rate = 0.1 if factor == c else 0.1 * c**power
        dense.set_weights([kernel if factor == c else c * kernel])
        model.compile(keras.optimizers.SGD(rate), "mse")
        for _ in range(3):
            model.train_on_batch(x, y)
        outputs.append(values(model(x)))
    assert np.allclose(*outputs, atol=1e-5) == (power == 2)


def test_the_oldest_keras_gets_an_error_that_names_the_version():
    if hasattr(keras.optimizers, "MultiOptimizer"):
        pytest.skip("this Keras has it")
    with pytest.raises(ImportError, match=r"3\.15.*" + keras.__version__.replace(".", r"\.")):
        ki.mup_optimizer("adam", build(LARGE), build(SMALL))


def by_path(optimizer, model):
    """Path of each weight -> the optimizer that updates it."""
    from_map = optimizer.get_config()["optimizer_map"]["config"]["optimizer_map"]
    patterns = list(from_map)
    return {
        weight.path: optimizer.optimizers[next(i for i, p in enumerate(patterns) if re.fullmatch(p, weight.path))]
        for weight in model.trainable_variables
    }


@needs_several
@pytest.mark.parametrize(
    ("make", "column"),
    [
        (lambda: keras.optimizers.Adam(0.01), 5),
        (lambda: keras.optimizers.AdamW(0.01, weight_decay=0.1), 5),
        (lambda: keras.optimizers.Nadam(0.01), 5),
        (lambda: keras.optimizers.Adamax(0.01), 5),
        (lambda: keras.optimizers.RMSprop(0.01), 5),
        (lambda: keras.optimizers.Lion(0.01), 5),
        (lambda: keras.optimizers.SGD(0.01, momentum=0.9, weight_decay=0.1), 6),
    ],
)
def test_each_class_of_weights_has_its_rate(make, column):
    model, given = build(LARGE), make()
    found = by_path(ki.mup_optimizer(given, model, build(SMALL)), model)
    for row in TABLE:
        part = found[row[0]]
        assert type(part) is type(given)
        assert float(values(part.learning_rate)) == pytest.approx(0.01 * row[column], rel=1e-5)
        if given.weight_decay:  # the share of a weight that a step takes off
            share = float(values(part.learning_rate)) * part.weight_decay
            assert share == pytest.approx(0.01 * given.weight_decay, rel=1e-5)
    if isinstance(given, keras.optimizers.Adam | keras.optimizers.Nadam | keras.optimizers.Adamax):
        assert found["hidden/kernel"].epsilon == pytest.approx(given.epsilon / M)
        assert found["head/kernel"].epsilon == given.epsilon
    if isinstance(given, keras.optimizers.RMSprop):  # it adds epsilon to the square of the gradient
        assert found["hidden/kernel"].epsilon == pytest.approx(given.epsilon / M**2)


@needs_several
@pytest.mark.parametrize(
    "make",
    [
        lambda: keras.optimizers.SGD(0.02, momentum=0.9, clipvalue=0.1),
        lambda: keras.optimizers.Adam(0.02, clipnorm=0.5),
        lambda: keras.optimizers.AdamW(
            keras.optimizers.schedules.CosineDecay(0.02, 50), weight_decay=0.1, global_clipnorm=1.0
        ),
    ],
    ids=["sgd", "adam", "adamw"],
)
def test_it_trains_and_goes_on_after_a_file(make, tmp_path):
    x, y = batch()
    model = ki.initialize(network(LARGE), "mup", base=network(SMALL), seed=1)
    compiled(model, ki.mup_optimizer(make(), model, network(SMALL)))
    losses = model.fit(x, y, batch_size=16, epochs=5, shuffle=False, verbose=0).history["loss"]
    assert losses[-1] < losses[0]
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert type(again.optimizer) is type(model.optimizer)
    counts = [[len(part.variables) for part in one.optimizer.optimizers] for one in (model, again)]
    assert counts[0] == counts[1]
    for one in (model, again):
        one.fit(x, y, batch_size=16, epochs=2, shuffle=False, verbose=0)
    for ours, theirs in zip(model.weights, again.weights, strict=True):
        np.testing.assert_allclose(values(ours), values(theirs), rtol=1e-5, atol=1e-6)


@needs_several
def test_a_schedule_is_scaled_as_a_whole():
    decay = keras.optimizers.schedules.PolynomialDecay(1.0, 10, end_learning_rate=0.5)
    scaled = ScaledSchedule.from_config(ScaledSchedule(decay, 0.25).get_config())
    assert [float(values(scaled(step))) for step in (0, 5, 10)] == [0.25, 0.1875, 0.125]


@needs_several
@pytest.mark.parametrize("together", [True, False])
def test_one_norm_clips_all_weights(together):
    x, y = batch()
    ends = []
    for several in (True, False):
        model = ki.initialize(network(SMALL), seed=1)
        optimizer = keras.optimizers.SGD(1.0, global_clipnorm=0.1)
        if several:
            of_part = {} if together else {"global_clipnorm": 0.1}
            heads = keras.optimizers.SGD(1.0, **of_part)
            rest = keras.optimizers.OptimizerMap(keras.optimizers.SGD(1.0, **of_part), {".*head/.*": heads})
            plain = keras.optimizers.MultiOptimizer(rest)
            optimizer = ClippedMultiOptimizer(rest, 0.1) if together else plain
        compiled(model, optimizer).train_on_batch(x, y)
        ends.append(np.concatenate([values(weight).ravel() for weight in model.trainable_variables]))
    assert np.allclose(*ends, rtol=1e-5, atol=1e-7) == together


@needs_several
@pytest.mark.parametrize(
    ("optimizer", "match"),
    [
        (lambda: keras.optimizers.Lamb(0.1), "no muP rule here for the optimizer Lamb"),
        (lambda: keras.optimizers.Adagrad(0.1), "Adagrad"),
        (lambda: keras.optimizers.SGD(0.1, global_clipnorm=1.0, gradient_accumulation_steps=2), "clipnorm"),
    ],
)
def test_what_has_no_rule_is_refused(optimizer, match):
    with pytest.raises(ValueError, match=match):
        ki.mup_optimizer(optimizer(), build(LARGE), build(SMALL))


class Twins(keras.Model):
    def __init__(self, width):
        super().__init__(name="twins")
        self.first, self.last = layers.Dense(width, name="twin"), layers.Dense(2, name="twin")
        self(np.zeros((1, 4), "float32"))

    def call(self, x):
        return self.last(self.first(x))


@needs_several
def test_weights_that_keras_cannot_tell_apart_are_refused():
    assert len({weight.path for weight in Twins(4).weights}) == 2
    with pytest.raises(ValueError, match="names of their own"):
        ki.mup_optimizer("adam", Twins(16), Twins(4))
