"""The ends of a compiled loss, beside what a search by hand and the formulas of a textbook give."""

import math

import keras
import numpy as np
import pytest
from keras import layers, losses

from keras_initaudit.observe.engines import NoTrialError
from keras_initaudit.remedies.ends import ends

RNG = np.random.default_rng(0)
SAMPLES = 24
X = RNG.normal(size=(SAMPLES, 5)).astype("float32")
LABELS = RNG.choice(4, SAMPLES, p=(0.55, 0.2, 0.15, 0.1))
ONE_HOT = np.eye(4, dtype="float32")[LABELS]
YES = (RNG.random((SAMPLES, 3)) < (0.2, 0.5, 0.7)).astype("float32")
NUMBERS = (RNG.gamma(2.0, 1.5, (SAMPLES, 3)) * (1.0, 10.0, 0.1) + (0.5, 100.0, 3.0)).astype("float32")
WEIGHTS = RNG.uniform(0.2, 4.0, SAMPLES).astype("float32")
SOFT = RNG.dirichlet(np.ones(4), SAMPLES).astype("float32")


def model(units, loss, **options):
    made = keras.Sequential([keras.Input((5,)), layers.Dense(units, **options)])
    made.compile("sgd", loss)
    return made


def found(made, *batch):
    """The ends, of a model whose loss is built."""
    x, y, *weights = batch = keras.tree.map_structure(keras.ops.convert_to_tensor, batch)
    made.compute_loss(x, y, made(x), *weights)
    return ends(made, batch)


CASES = {
    "categorical": (4, losses.CategoricalCrossentropy(), ONE_HOT, "shares"),
    "categorical_logits": (4, losses.CategoricalCrossentropy(from_logits=True), ONE_HOT, "any"),
    "categorical_smoothed": (4, losses.CategoricalCrossentropy(label_smoothing=0.2), ONE_HOT, "shares"),
    "categorical_soft": (4, losses.CategoricalCrossentropy(), SOFT, "shares"),
    "categorical_focal": (4, losses.CategoricalFocalCrossentropy(), ONE_HOT, "shares"),
    "categorical_hinge": (4, losses.CategoricalHinge(), ONE_HOT, "any"),
    "sparse": (4, losses.SparseCategoricalCrossentropy(), LABELS, "shares"),
    "sparse_column": (4, losses.SparseCategoricalCrossentropy(), LABELS[:, None], "shares"),
    "sparse_logits": (4, losses.SparseCategoricalCrossentropy(from_logits=True), LABELS, "any"),
    "kl": (4, losses.KLDivergence(), SOFT, "shares"),
    "binary": (3, losses.BinaryCrossentropy(), YES, "chances"),
    "binary_logits": (3, losses.BinaryCrossentropy(from_logits=True), YES, "any"),
    "binary_smoothed": (3, losses.BinaryCrossentropy(label_smoothing=0.1), YES, "chances"),
    "binary_focal": (3, losses.BinaryFocalCrossentropy(gamma=3.0), YES, "chances"),
    "binary_focal_logits": (3, losses.BinaryFocalCrossentropy(from_logits=True), YES, "any"),
    "squares": (3, losses.MeanSquaredError(), NUMBERS, "numbers"),
    "squares_summed": (3, losses.MeanSquaredError(reduction="sum"), NUMBERS, "numbers"),
    "squares_by_weight": (3, losses.MeanSquaredError(reduction="mean_with_sample_weight"), NUMBERS, "numbers"),
    "absolute": (3, losses.MeanAbsoluteError(), NUMBERS, "numbers"),
    "relative": (3, losses.MeanAbsolutePercentageError(), NUMBERS, "numbers"),
    "logarithmic": (3, losses.MeanSquaredLogarithmicError(), NUMBERS, "numbers"),
    "huber": (3, losses.Huber(delta=0.5), NUMBERS, "numbers"),
    "log_cosh": (3, losses.LogCosh(), NUMBERS, "numbers"),
    "poisson": (3, losses.Poisson(), NUMBERS, "numbers"),
    "hinge": (3, losses.Hinge(), YES, "any"),
    "squared_hinge": (3, losses.SquaredHinge(), 2.0 * YES - 1.0, "any"),
}


def drawn(kind, units, targets, rng):
    """A random answer of one row, near those that could be good."""
    if kind == "shares":
        return rng.dirichlet(np.ones(units) * rng.choice((0.5, 2.0, 20.0)))
    if kind == "chances":
        return rng.uniform(0.01, 0.99, units)
    if kind == "numbers":
        return targets[rng.integers(SAMPLES, size=units), np.arange(units)]
    return rng.normal(size=units) * rng.choice((0.5, 1.5, 5.0))


@pytest.mark.parametrize("weighted", [False, True], ids=["", "weighted"])
@pytest.mark.parametrize("case", CASES)
def test_no_constant_answer_is_better_and_none_worse_is_taken(case, weighted):
    units, loss, targets, kind = CASES[case]
    weights = (WEIGHTS,) if weighted else ()
    at = found(model(units, loss), X, targets, *weights)

    def cost(answer):
        return float(loss(targets, np.broadcast_to(answer, (SAMPLES, units)).astype("float32"), *weights))

    rng = np.random.default_rng(1)
    tried = [cost(drawn(kind, units, targets, rng)) for _ in range(60)]
    slack = 1e-3 * abs(at.constant)
    assert at.constant <= min(tried) + slack
    assert at.at_targets < at.constant
    # Near: a step away from the best of those tried costs as much, or more.
    assert min(tried) - at.constant < 0.6 * (np.median(tried) - at.constant)


def shares(weights=None):
    return np.bincount(LABELS, weights, minlength=4) / (SAMPLES if weights is None else weights.sum())


def entropy(p):
    return float(-np.sum(p * np.log(np.maximum(p, 1e-12)), -1).mean())


@pytest.mark.parametrize(
    ("case", "weights", "constant", "at_targets"),
    [
        ("categorical", None, entropy(shares()), 0.0),
        ("sparse", None, entropy(shares()), 0.0),
        ("sparse_logits", None, entropy(shares()), 0.0),
        ("categorical_smoothed", None, entropy(0.8 * shares() + 0.05), entropy(np.array([0.85, 0.05, 0.05, 0.05]))),
        ("categorical_soft", None, entropy(SOFT.mean(0)), entropy(SOFT)),
        ("binary", None, float(np.mean([entropy(np.array([p, 1 - p])) for p in YES.mean(0)])), 0.0),
        ("squares", None, float(NUMBERS.var(0).mean()), 0.0),
        ("squares_summed", None, float(NUMBERS.var(0).mean() * SAMPLES), 0.0),
        ("absolute", None, float(np.abs(NUMBERS - np.median(NUMBERS, 0)).mean()), 0.0),
        ("hinge", None, float(np.minimum(2 * YES.mean(0), 2 - 2 * YES.mean(0)).mean()), 0.0),
        ("squared_hinge", None, float((2.0 * YES - 1.0).var(0).mean()), 0.0),
        ("sparse", WEIGHTS, entropy(shares(WEIGHTS)) * float(WEIGHTS.mean()), 0.0),
        (
            "squares_by_weight",
            WEIGHTS,
            float(np.average((NUMBERS - np.average(NUMBERS, 0, WEIGHTS)) ** 2, 0, WEIGHTS).mean()),
            0.0,
        ),
    ],
)
def test_textbook_values(case, weights, constant, at_targets):
    units, loss, targets, _ = CASES[case]
    at = found(model(units, loss), X, targets, *(() if weights is None else (weights,)))
    assert at.constant == pytest.approx(constant, rel=2e-4)
    assert at.at_targets == pytest.approx(at_targets, abs=1e-5 * max(1.0, abs(constant)))


def test_several_outputs_are_a_weighted_sum():
    i = keras.Input((5,))
    made = keras.Model(i, {"a": layers.Dense(3, name="a")(i), "b": layers.Dense(4, "softmax", name="b")(i)})
    made.compile("sgd", {"a": "mse", "b": "sparse_categorical_crossentropy"}, loss_weights={"a": 0.25, "b": 3.0})
    at = found(made, X, {"a": NUMBERS, "b": LABELS})
    assert at.constant == pytest.approx(0.25 * NUMBERS.var(0).mean() + 3.0 * entropy(shares()), rel=1e-4)
    listed = keras.Model(i, [layers.Dense(3, name="c")(i), layers.Dense(4, "softmax", name="d")(i)])
    listed.compile("sgd", ["mse", "sparse_categorical_crossentropy"])
    at = found(listed, X, [NUMBERS, LABELS])
    assert at.constant == pytest.approx(NUMBERS.var(0).mean() + entropy(shares()), rel=1e-4)
    named = keras.Model(i, [layers.Dense(3, name="e")(i), layers.Dense(4, "softmax", name="f")(i)])
    named.compile("sgd", {"f": "sparse_categorical_crossentropy", "e": "mse"})
    at = found(named, X, {"e": NUMBERS, "f": LABELS})
    assert at.constant == pytest.approx(NUMBERS.var(0).mean() + entropy(shares()), rel=1e-4)


def test_a_mask_takes_its_steps_out_of_the_loss():
    """Half of the steps are padding, whose targets are far away: they count for neither end."""
    tokens = np.where(np.arange(6) < 3, RNG.integers(1, 9, (SAMPLES, 6)), 0)
    y = RNG.normal(size=(SAMPLES, 6, 1)).astype("float32")
    y[:, 3:] = 1000.0
    i = keras.Input((6,), dtype="int32")
    made = keras.Model(i, layers.Dense(1)(layers.Embedding(9, 4, mask_zero=True)(i)))
    made.compile("sgd", "mse")
    assert found(made, tokens, y).constant == pytest.approx(y[:, :3].var(), rel=1e-4)
    plain = keras.Model(i, layers.Dense(1)(layers.Embedding(9, 4)(i)))
    plain.compile("sgd", "mse")
    assert found(plain, tokens, y).constant == pytest.approx(y.var(), rel=1e-4)


def test_classes_that_are_ignored_do_not_count():
    y = np.where(np.arange(SAMPLES) % 3 == 0, -1, LABELS)
    made = model(4, losses.SparseCategoricalCrossentropy(ignore_class=-1))
    counts = np.bincount(y[y >= 0], minlength=4)
    assert found(made, X, y).constant == pytest.approx(entropy(counts / counts.sum()), rel=1e-3)


@pytest.mark.parametrize("shape", [(SAMPLES,), (SAMPLES, 1)])
def test_targets_may_lack_the_last_axis(shape):
    y = NUMBERS[:, 0].reshape(shape)
    for loss in ("mse", keras.losses.mean_squared_error):
        assert found(model(1, loss), X, y).constant == pytest.approx(y.var(), rel=1e-4)


def test_the_answer_of_pictures_is_one_for_each_channel():
    pictures = RNG.normal(size=(SAMPLES, 6, 6, 2)).astype("float32") + np.array([0.0, 5.0], "float32")
    made = keras.Sequential([keras.Input((6, 6, 2)), layers.Conv2D(2, 1)])
    made.compile("sgd", "mse")
    assert found(made, pictures, pictures).constant == pytest.approx(pictures.var((0, 1, 2)).mean(), rel=1e-3)


def test_raw_targets_far_from_zero_have_ends():
    years = (1998.0 + 10.0 * RNG.normal(size=(SAMPLES, 1))).astype("float32")
    assert found(model(1, "mse"), X, years).constant == pytest.approx(years.var(), rel=1e-3)


class OwnStep(keras.Sequential):
    def train_step(self, data):
        return super().train_step(data)


class OwnLoss(keras.Sequential):
    def compute_loss(self, *args, **kwargs):
        return 2.0 * super().compute_loss(*args, **kwargs)


class Adding(layers.Layer):
    def call(self, x, training=False):
        if training:
            self.add_loss(keras.ops.mean(x**2))
        return x


class Mine(losses.Loss):
    def call(self, y_true, y_pred):
        return keras.ops.mean((y_true - y_pred) ** 2, -1)


def built(kind, *extra, loss="mse", **options):
    made = kind([keras.Input((5,)), *extra, layers.Dense(3, **options)])
    made.compile("sgd", loss)
    return made


NONE = {
    "train_step": (lambda: built(OwnStep), NUMBERS, "has a train_step of its own"),
    "compute_loss": (lambda: built(OwnLoss), NUMBERS, "has a compute_loss of its own"),
    "own_function": (lambda: built(keras.Sequential, loss=lambda y, p: keras.ops.mean(abs(y - p))), NUMBERS, "nothing"),
    "own_class": (lambda: built(keras.Sequential, loss=Mine()), NUMBERS, "nothing is known of the loss"),
    "cosine": (lambda: built(keras.Sequential, loss="cosine_similarity"), NUMBERS, "nothing is known of the loss"),
    "added": (lambda: built(keras.Sequential, Adding()), NUMBERS, "adds losses of its own"),
    "activity": (lambda: built(keras.Sequential, activity_regularizer="l2"), NUMBERS, "activity regularizer"),
    "constant_targets": (lambda: built(keras.Sequential), np.full((SAMPLES, 3), 5.1, "float32"), "a constant answer"),
    "infinite_targets": (lambda: built(keras.Sequential), np.full((SAMPLES, 3), np.inf, "float32"), "the loss is"),
    "one_class": (lambda: built(keras.Sequential, loss="binary_crossentropy"), np.ones((SAMPLES, 3)), "constant"),
    "other_shape": (lambda: built(keras.Sequential), NUMBERS[:, :1], "of the shape"),
}


@pytest.mark.parametrize("case", NONE)
def test_where_there_are_no_ends_the_reason_is_said(case):
    make, y, reason = NONE[case]
    with pytest.raises(NoTrialError, match=reason):
        found(make(), X, y)


def test_seven_samples_are_too_few_and_eight_are_enough():
    made = built(keras.Sequential)
    with pytest.raises(NoTrialError, match="7 samples"):
        found(made, X[:7], NUMBERS[:7])
    assert found(made, X[:8], NUMBERS[:8]).constant > 0.0


@pytest.mark.parametrize(("ones", "refused"), [(0, True), (1, False), (2, False)])
def test_nearly_one_class_leaves_too_little_of_a_way(ones, refused):
    y = np.zeros((200, 1), "float32")
    y[: ones * 2] = 1.0
    made = model(1, losses.BinaryCrossentropy())
    x = RNG.normal(size=(200, 5)).astype("float32")
    share = ones / 100.0
    way = 0.0 if not ones else -share * math.log(share) - (1 - share) * math.log(1 - share)
    assert (way < 0.05 * math.log(2.0)) == refused
    if refused:
        with pytest.raises(NoTrialError):
            found(made, x, y)
    else:
        assert found(made, x, y).constant == pytest.approx(way, rel=1e-3)


def test_regularizers_of_weights_are_no_part_of_the_ends():
    plain, penalized = built(keras.Sequential), built(keras.Sequential, kernel_regularizer=keras.regularizers.L2(10.0))
    assert found(penalized, X, NUMBERS) == pytest.approx(found(plain, X, NUMBERS))


def test_what_the_ends_cost_does_not_follow_from_the_weights():
    """The negative control of them all: a model that answers otherwise has the same ends."""
    first, second = model(3, "mse"), model(3, "mse", kernel_initializer="zeros", bias_initializer="ones")
    assert found(first, X, NUMBERS) == found(second, X, NUMBERS)
    assert found(first, X, NUMBERS) != found(first, X, NUMBERS + RNG.normal(size=NUMBERS.shape).astype("float32"))
