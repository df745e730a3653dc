"""What counts as proof of a remedy, and that a remedy speaks of arguments that the layers have."""

import dataclasses
import inspect
import re

import keras
import looking
import numpy as np
import pytest
from keras import initializers, layers, ops

import keras_initaudit as ki
from keras_initaudit.diagnosis import diagnose, proposals, seen_by
from keras_initaudit.diagnosis.network import Network
from keras_initaudit.observe import describe
from keras_initaudit.observe.probe import Probe
from keras_initaudit.records import LayerInfo, Snapshot, Statistics
from keras_initaudit.records.remedies import WholeModel
from keras_initaudit.remedies import apply, proof

# --- the loss and the rule's own measure


def chain(*rms, dead=0.0, gradient=0.1, loss=1.0, baseline=1.0):
    """Dense layers whose outputs have these sizes, behind data of unit size, and a head."""
    rows, statistics = [LayerInfo("(input)", -1, "input")], [Statistics(activation_rms=1.0)]
    for i, size in enumerate([*rms, 1.0]):
        path, weighs = f"h{i}", {"weight": "kernel", "weight_shape": (32, 32), "fan_in": 32.0, "fan_out": 32.0}
        rows.append(LayerInfo(path, i, kind="Dense", activation="relu", gain=2**0.5, inputs=(rows[-1].path,), **weighs))
        statistics.append(Statistics(activation_rms=size, activation_dead=dead, weight_rms=0.2, gradient_rms=gradient))
    shared = {"batch_size": 32, "optimizer": "SGD", "learning_rate": 0.01}
    return Snapshot(0, tuple(rows), tuple(statistics), loss=loss, baseline_loss=baseline, **shared)


def effect(before, after, rule="vanishing-signal", **kwargs):
    (finding,) = [f for f in diagnose([before]) if f.rule == rule]
    return proof.effect(finding, before, after, diagnose([after]), **kwargs)


FADES = chain(0.1, 1e-2, 1e-3, 1e-4)
SOUND = chain(1.0, 1.0, 1.0, 1.0)


def test_the_finding_is_gone_where_the_rule_sees_nothing_any_more():
    assert effect(FADES, SOUND) == (
        "the rms of the activations at h3 goes from 1e-4 to 1, the loss from 1 to 1; the finding is gone"
    )


@pytest.mark.parametrize(
    ("loss", "proven"), [(0.9, True), (1.9, True), (2.1, False), (38.0, False), (np.inf, False), (np.nan, False)]
)
def test_a_loss_above_both_the_first_and_twice_the_uninformed_one_is_no_proof(loss, proven):
    assert (effect(FADES, dataclasses.replace(SOUND, loss=loss)) is not None) == proven


def test_a_loss_that_was_higher_still_or_that_nothing_is_known_of_is_no_objection():
    high = dataclasses.replace(SOUND, loss=5.0)
    assert effect(FADES, high) is None
    assert "the loss from 6 to 5" in effect(dataclasses.replace(FADES, loss=6.0), high)
    assert "becomes 5" in effect(dataclasses.replace(FADES, loss=np.nan), high)
    assert effect(FADES, dataclasses.replace(high, baseline_loss=None)) is not None


def test_what_regularizers_add_to_the_loss_is_no_objection():
    before, after = (dataclasses.replace(s, loss=loss) for s, loss in ((FADES, 1.0), (SOUND, 20.0)))
    assert effect(before, after) is None
    assert effect(before, after, penalties=(0.0, 18.5)) is not None
    assert effect(before, after, penalties=(0.0, 17.5)) is None


def test_weaker_is_half_the_size_in_the_measure_of_the_rule():
    def fades(left, gradient):
        return chain(1, 1, 1, left, gradient=gradient)

    for left, weaker in ((2e-4, True), (5e-5, False), (1e-9, False)):  # decades where 8 were lost: 3.7, 4.3, 9
        said = effect(fades(1e-8, 1e-9), fades(left, 1e-9))
        assert (said is not None and said.endswith("weaker but still there")) == weaker, left
    # Where the weights move, 8 decades are bad and 5 a warning: less, and less severe.
    assert effect(fades(1e-8, 0.1), fades(1e-5, 0.1)).endswith("weaker but still there")


def test_what_another_finding_explains_is_still_there():
    """Dead layers explain why the signal fades, so that the diagnosis names them alone."""
    after = chain(0.1, 1e-2, 1e-3, 1e-4, dead=1.0)
    assert [f.rule for f in diagnose([after])] == ["dead-units"]
    assert [f.rule for f in seen_by("vanishing-signal", after)] == ["vanishing-signal"]
    assert effect(FADES, after) is None


def test_the_same_rule_elsewhere_is_another_finding():
    def spread(*values):
        rows = (LayerInfo("a", 0, kind="Dense"), LayerInfo("b", 1, kind="Dense", inputs=("a",)))
        rows = tuple(dataclasses.replace(row, weight="kernel", weight_shape=(8, 8)) for row in rows)
        same = [Statistics(weight_identical=v, gradient_identical=v, weight_rms=0.1) for v in values]
        return Snapshot(0, rows, tuple(same), loss=1.0, baseline_loss=1.0)

    said = effect(spread(1.0, 0.0), spread(0.0, 1.0), "symmetric-units")
    assert said.endswith("the loss from 1 to 1; the finding is gone")
    assert effect(spread(1.0, 0.0), spread(1.0, 0.0), "symmetric-units") is None


# --- the names


ALIKE = initializers.Constant(0.01)
IMAGES, SEQUENCES, IDS = looking.images(8), looking.sequences(), looking.tokens()
KERNEL, SEPARABLE, RECURRENT = ["kernel"], ["depthwise", "pointwise"], ["kernel", "recurrent"]


class Attending(layers.Layer):
    def __init__(self, **kwargs):
        super().__init__()
        self.attention = layers.MultiHeadAttention(2, 4, **kwargs)

    def call(self, x):
        return self.attention(x, x)


LAYERS = {
    # name: how it is made, its data, the arguments that its remedy is to name
    "Dense": (lambda **kwargs: layers.Dense(8, **kwargs), SEQUENCES, KERNEL),
    "EinsumDense": (lambda **kwargs: layers.EinsumDense("abc,cd->abd", (10, 8), **kwargs), SEQUENCES, KERNEL),
    "Conv2D": (lambda **kwargs: layers.Conv2D(8, 3, **kwargs), IMAGES, KERNEL),
    "Conv2DTranspose": (lambda **kwargs: layers.Conv2DTranspose(8, 3, **kwargs), IMAGES, KERNEL),
    "MultiHeadAttention": (Attending, SEQUENCES, KERNEL),
    "LSTM": (lambda **kwargs: layers.LSTM(8, **kwargs), SEQUENCES, RECURRENT),
    "GRU": (lambda **kwargs: layers.GRU(8, **kwargs), SEQUENCES, RECURRENT),
    "SimpleRNN": (lambda **kwargs: layers.SimpleRNN(8, **kwargs), SEQUENCES, RECURRENT),
    "Bidirectional": (lambda **kwargs: layers.Bidirectional(layers.LSTM(8, **kwargs)), SEQUENCES, RECURRENT),
    "Embedding": (lambda **kwargs: layers.Embedding(50, 8, **kwargs), IDS, ["embeddings"]),
    "ReversibleEmbedding": (lambda **kwargs: layers.ReversibleEmbedding(50, 8, **kwargs), IDS, ["embeddings"]),
    "DepthwiseConv1D": (lambda **kwargs: layers.DepthwiseConv1D(3, **kwargs), SEQUENCES, ["depthwise"]),
    "DepthwiseConv2D": (lambda **kwargs: layers.DepthwiseConv2D(3, **kwargs), IMAGES, ["depthwise"]),
    "SeparableConv1D": (lambda **kwargs: layers.SeparableConv1D(8, 3, **kwargs), SEQUENCES, SEPARABLE),
    "SeparableConv2D": (lambda **kwargs: layers.SeparableConv2D(8, 3, **kwargs), IMAGES, SEPARABLE),
}


def snapshot_of(layer, x):
    model = keras.Sequential([keras.Input(x.shape[1:], dtype=x.dtype.name), layer, layers.Flatten(), layers.Dense(5)])
    looking.compiled(model, looking.logits_loss())
    return model, Probe(model, looking.batch(x, looking.classes()), histograms=False).measure(0)


def remedy_for(snapshot, paths):
    net = Network(snapshot)
    remedy = proposals.for_kernels(net, [row for row in net.layers if row.path in paths])
    return remedy if isinstance(remedy, WholeModel) else dataclasses.replace(remedy, layers=tuple(paths))


def arguments(remedy):
    return [argument.removesuffix("_initializer") for argument in remedy.schemes]


@pytest.mark.parametrize("name", LAYERS)
def test_a_remedy_names_the_arguments_of_the_layer_and_starts_all_its_kernels(name):
    make, x, expected = LAYERS[name]
    layer = make(**{f"{argument}_initializer": ALIKE for argument in expected})
    model, snapshot = snapshot_of(layer, x)
    kernels = [w for w in layer.trainable_weights if len(w.shape) > 1 and "bias" not in w.path]
    assert all(len(np.unique(np.array(weight))) == 1 for weight in kernels)
    rows = [row.path for row in snapshot.layers if row.role == "layer" and row.weight]
    rows = [row for row in rows if row != model.layers[-1].name]
    remedy = remedy_for(snapshot, rows)
    assert arguments(remedy) == expected
    names = describe.layer_paths(model)
    named = [inner for inner in model._flatten_layers() if names.get(id(inner)) in rows]
    for inner in named:
        assert {f"{argument}_initializer" for argument in expected} <= inspect.signature(type(inner)).parameters.keys()
    apply(remedy, model)
    assert all(len(np.unique(np.array(weight))) > 0.9 * weight.shape[0] for weight in kernels)


def test_the_kernels_of_a_separable_convolution_get_their_own_schemes():
    """Of 3 x 3 weights that one output sums, and of 8 channels in front of a ReLU."""
    layer = layers.SeparableConv2D(256, 3, activation="relu", depth_multiplier=20)
    model, snapshot = snapshot_of(layer, looking.images(8, channels=13))
    apply(remedy_for(snapshot, [layer.name]), model)
    depthwise, pointwise = np.array(layer.depthwise_kernel), np.array(layer.pointwise_kernel)
    assert depthwise.var() * 9 == pytest.approx(1.0, rel=5 * np.sqrt(2 / depthwise.size))
    assert pointwise.var() * 260 == pytest.approx(2.0, rel=5 * np.sqrt(2 / pointwise.size))


def test_layers_of_several_kinds_get_one_text_that_says_which_takes_what():
    keras.utils.set_random_seed(1)
    stack = [
        layers.Conv2D(6, 3, kernel_initializer=ALIKE, name="conv"),
        layers.DepthwiseConv2D(3, depthwise_initializer=ALIKE, name="depthwise"),
        layers.Conv2D(6, 1, kernel_initializer=ALIKE, name="mix"),
    ]
    model = keras.Sequential([keras.Input(IMAGES.shape[1:]), *stack, layers.Flatten(), layers.Dense(5)])
    looking.compiled(model, looking.logits_loss())
    snapshot = Probe(model, looking.batch(IMAGES, looking.classes()), histograms=False).measure(0)
    remedy = remedy_for(snapshot, ["conv", "depthwise", "mix"])
    assert remedy.code.splitlines()[1:] == [
        "kernel_initializer = GlorotNormal()  # Conv2D",
        "depthwise_initializer = VarianceScaling(scale=1, input_axes=(0, 1), output_axes=(0, 1, 3))  # DepthwiseConv2D",
    ]
    apply(remedy, model)
    assert np.array(stack[0].kernel).std() == pytest.approx((2 / (27 + 54)) ** 0.5, rel=0.3)
    assert np.array(stack[1].kernel).std() == pytest.approx(1 / 3, rel=0.5)


class Weighted(layers.Layer):
    """A layer without any argument for its initializer."""

    def build(self, shape):
        self.w = self.add_weight(shape=(shape[-1], 8), initializer=ALIKE, name="w")

    def call(self, x):
        return ops.matmul(x, self.w)


class Settled(layers.Dense):
    """It has the attribute, and no argument."""

    def __init__(self):
        super().__init__(8, kernel_initializer=ALIKE)


class Passed(layers.Dense):
    def __init__(self, **kwargs):
        super().__init__(8, **kwargs)


class Named(Weighted):
    def __init__(self, initializer):
        super().__init__()
        self.initializer = initializer


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (Weighted, None),
        (Settled, None),
        (lambda: Passed(kernel_initializer=ALIKE), "kernel_initializer"),
        (lambda: Named(ALIKE), "initializer"),
    ],
)
def test_a_layer_that_takes_no_initializer_is_started_with_the_model(make, expected):
    layer = make()
    model, snapshot = snapshot_of(layer, looking.vectors())
    remedy = remedy_for(snapshot, [layer.name])
    assert remedy == WholeModel() if expected is None else list(remedy.schemes) == [expected]
    apply(remedy, model)
    (kernel,) = [w for w in layer.weights if len(w.shape) == 2]
    assert len(np.unique(np.array(kernel))) > 100


def test_tables_that_share_a_seed_are_not_mended_by_a_loss_of_six_times_the_first():
    """Tokens and positions of a language model whose outputs are made by the table of its tokens."""
    seeded = initializers.RandomNormal(stddev=0.02, seed=1)
    ids = keras.Input((40,), dtype="int32")
    places = layers.Embedding(40, 32, embeddings_initializer=seeded, name="positions")(ops.zeros_like(ids) + 1)
    table = layers.ReversibleEmbedding(40, 32, embeddings_initializer=seeded, name="tokens")
    h = layers.LayerNormalization()(layers.Add()([places, table(ids)]))
    model = looking.compiled(keras.Model(ids, table(h, reverse=True)), looking.logits_loss())
    x = np.random.default_rng(0).integers(0, 40, (32, 40))
    (finding,) = ki.audit(model, x, np.roll(x, -1, 1)).findings
    assert finding.rule == "duplicate-kernels"
    assert arguments(finding.action) == ["embeddings"]
    before, after = map(float, re.search(r"the loss from (\S+) to (\S+);", finding.proof).groups())
    assert before == pytest.approx(np.log(40), rel=0.02)
    assert after < 2 * np.log(40)


@pytest.mark.xfail(
    strict=True,
    reason="twice the uninformed loss is no limit for a mean square, in which the variance of sound outputs counts too",
)
def test_a_regression_whose_signal_vanishes_has_its_remedy():
    """From each of several starts: a new start of the model cures every one of them, and chance shows it for some."""

    def small():
        return initializers.RandomNormal(stddev=1e-4)

    x = np.random.default_rng(0).normal(size=(32, 16, 16, 8)).astype("float32")
    y = np.random.default_rng(1).normal(size=(32, 1)) / 2
    for seed in (1, 3, 4):
        keras.backend.clear_session()  # the draws of a remedy follow from the names of the layers
        keras.utils.set_random_seed(seed)
        stack = []
        for _ in range(3):
            stack += [layers.DepthwiseConv2D(3, depthwise_initializer=small())]
            stack += [layers.Conv2D(8, 1, activation="relu", kernel_initializer=small())]
        model = keras.Sequential([keras.Input(x.shape[1:]), *stack, layers.Flatten(), layers.Dense(1)])
        model.compile("sgd", "mse")
        (finding,) = ki.audit(model, x, y).findings
        assert finding.rule == "vanishing-signal"
        assert finding.remedy is not None
