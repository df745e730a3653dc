"""A remedy speaks of arguments that the layers have."""

import dataclasses
import inspect

import keras
import looking
import numpy as np
import pytest
from keras import initializers, layers, ops

from keras_initaudit.diagnosis import schemes
from keras_initaudit.diagnosis.network import Network
from keras_initaudit.observe import describe
from keras_initaudit.observe.probe import Probe
from keras_initaudit.records.remedies import WholeModel
from keras_initaudit.remedies import apply

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
    remedy = schemes.for_kernels(net, [row for row in net.layers if row.path in paths])
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
