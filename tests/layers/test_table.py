"""The table of layer classes: every class of Keras is in it or has no weights, and its line is true of the layer."""

import inspect
import re

import keras
import pytest
from keras import layers

from keras_initaudit.layers import catalogue, table

WITHOUT_WEIGHTS = set(
    re.findall(
        r"\w+",
        """
    ActivityRegularization AdaptiveAveragePooling1D AdaptiveAveragePooling2D AdaptiveAveragePooling3D
    AdaptiveMaxPooling1D AdaptiveMaxPooling2D AdaptiveMaxPooling3D Add AlphaDropout AugMix AutoContrast Average
    AveragePooling1D AveragePooling2D AveragePooling3D CategoryEncoding CenterCrop
    ContrastLimitedAdaptiveHistogramEqualization Cropping1D Cropping2D Cropping3D CutMix Discretization Dot Dropout
    Equalization Flatten GaussianDropout GaussianNoise GlobalAveragePooling1D GlobalAveragePooling2D
    GlobalAveragePooling3D GlobalMaxPooling1D GlobalMaxPooling2D GlobalMaxPooling3D HashedCrossing Hashing Identity
    InputLayer IntegerLookup Lambda Layer Masking MaxNumBoundingBoxes MaxPooling1D MaxPooling2D MaxPooling3D Maximum
    MelSpectrogram Minimum MixUp Multiply Permute Pipeline RandAugment RandomBrightness RandomColorDegeneration
    RandomColorJitter RandomContrast RandomCrop RandomElasticTransform RandomErasing RandomFlip RandomGaussianBlur
    RandomGrayscale RandomHue RandomInvert RandomPerspective RandomPosterization RandomRotation RandomSaturation
    RandomSharpness RandomShear RandomTranslation RandomZoom RepeatVector Rescaling Reshape Resizing Solarization
    SpatialDropout1D SpatialDropout2D SpatialDropout3D StringLookup Subtract TextVectorization UpSampling1D UpSampling2D
    UpSampling3D ZeroPadding1D ZeroPadding2D ZeroPadding3D
    """,
    )
)
FIXED_WEIGHTS = {"STFTSpectrogram"}
"""Their weights are given by a formula and never trained."""
FOREIGN = {"FlaxLayer", "JaxLayer", "TFSMLayer", "TorchModuleWrapper"}
"""They hold a model of another library, of which nothing is known."""


def unknown(classes):
    """Names of the layer classes that neither the table nor one of the lists above has."""
    listed = WITHOUT_WEIGHTS | FIXED_WEIGHTS | FOREIGN
    kinds = [kind for kind in classes if isinstance(kind, type) and issubclass(kind, layers.Layer)]
    return {kind.__name__ for kind in kinds if not set(kind.__mro__) & set(table.TABLE)} - listed


def test_every_layer_class_of_keras_is_in_the_table_or_has_no_weights():
    assert unknown(vars(layers).values()) == set()


def test_a_class_that_is_in_neither_is_found():
    class Fresh(layers.Layer):
        pass

    class Further(layers.Dense):
        pass

    assert unknown([Fresh, Further, layers.Dense, layers.Dropout]) == {"Fresh"}


def adds_weights(kind):
    own = [
        base for base in kind.__mro__ if base is not layers.Layer and base.__module__.startswith("keras.src.layers.")
    ]
    return any("add_weight(" in inspect.getsource(base) for base in own if base.__name__ != "Layer")


def test_what_is_listed_as_without_weights_makes_none():
    kinds = [getattr(layers, name) for name in WITHOUT_WEIGHTS if hasattr(layers, name)]
    assert len(kinds) > 80
    assert [kind.__name__ for kind in kinds if adds_weights(kind)] == []
    assert adds_weights(layers.Dense)
    assert adds_weights(layers.SeparableConv2D)  # its base does


def built(layer, *shape):
    layer.build(shape)
    return layer


WITH_KERNELS = [
    lambda: built(layers.Dense(3), None, 4),
    lambda: built(layers.EinsumDense("abc,cd->abd", (None, 7)), None, 5, 3),
    *(lambda rank=rank: built(getattr(layers, f"Conv{rank}D")(2, 3), None, *(9,) * rank, 4) for rank in (1, 2, 3)),
    *(
        lambda rank=rank: built(getattr(layers, f"Conv{rank}DTranspose")(2, 3), None, *(9,) * rank, 4)
        for rank in (1, 2, 3)
    ),
    *(lambda rank=rank: built(getattr(layers, f"DepthwiseConv{rank}D")(3), None, *(9,) * rank, 4) for rank in (1, 2)),
    *(
        lambda rank=rank: built(getattr(layers, f"SeparableConv{rank}D")(2, 3), None, *(9,) * rank, 4)
        for rank in (1, 2)
    ),
    lambda: built(layers.Embedding(9, 4), None, 5),
    lambda: built(layers.SimpleRNNCell(3), None, 4),
    lambda: built(layers.LSTMCell(3), None, 4),
    lambda: built(layers.GRUCell(3), None, 4),
    lambda: built(layers.ConvLSTM2D(2, 3), None, 5, 9, 9, 4).cell,
]
if hasattr(layers, "ReversibleEmbedding"):
    WITH_KERNELS.append(lambda: built(layers.ReversibleEmbedding(9, 4, tie_weights=False), None, 5))


@pytest.mark.parametrize("make", WITH_KERNELS)
def test_a_line_names_the_kernels_and_the_arguments_of_their_initializers(make):
    layer = make()
    known = table.facts(layer).kernels
    assert sorted(catalogue.kernels(layer)) == sorted(known)
    rest = [
        w.name for w in layer.trainable_weights if not any(w is kernel for kernel in catalogue.known_kernels(layer))
    ]
    assert set(rest) <= {"bias"}
    for kernel in known.values():
        assert kernel.initializer in inspect.signature(type(layer).__init__).parameters
        assert isinstance(getattr(layer, kernel.initializer), keras.initializers.Initializer)


def test_every_line_with_kernels_is_looked_at():
    assert {kind for kind, line in table.TABLE.items() if line.kernels and kind.__module__.startswith("keras.")} == {
        type(make()) for make in WITH_KERNELS
    }


@pytest.mark.parametrize(
    ("kind", "names"), [("SimpleRNN", "h"), ("GRU", "zrh"), ("LSTM", "ifco"), ("ConvLSTM1D", "ifco")]
)
def test_a_recurrent_layer_has_the_gates_of_its_cell(kind, names):
    layer = getattr(layers, kind)(5, 3) if "Conv" in kind else getattr(layers, kind)(5)
    layer.build((None, 6, 9, 2) if "Conv" in kind else (None, 6, 2))
    assert catalogue.gates(layer) == catalogue.gates(layer.cell) == tuple(names)
    assert layer.cell.kernel.shape[-1] == 5 * len(names)


def test_a_layer_without_a_state_has_no_gates():
    assert catalogue.gates(layers.Dense(3)) == ()
    assert catalogue.gates(layers.Bidirectional(layers.LSTM(3))) == ()
    assert catalogue.gates(layers.RNN([layers.GRUCell(3), layers.LSTMCell(4)])) == ("z", "r", "h")


def test_what_normalises_is_known_by_its_class_and_of_an_unknown_class_by_its_name():
    class Scaled(layers.LayerNormalization):
        pass

    class OwnNorm(layers.Layer):
        pass

    class Normaliser(layers.Layer):
        pass

    found = {
        layer: catalogue.normalises(layer)
        for layer in (
            layers.BatchNormalization(), layers.GroupNormalization(2), layers.RMSNormalization(),
            layers.UnitNormalization(), Scaled(), OwnNorm(), Normaliser(), layers.Normalization(),
            layers.SpectralNormalization(layers.Dense(3)), layers.Dense(3),
        )
    }  # fmt: skip
    assert list(found.values()) == ["batch", "group", "rms", "unit", "layer", "other", "", "", "", ""]


AXES = [
    (lambda: built(layers.Dense(3), None, 4), (None, None), (1,)),
    (lambda: built(layers.Conv2D(2, 3), None, 9, 9, 4), (None, None), (3,)),
    (lambda: built(layers.Conv2DTranspose(2, 3), None, 9, 9, 4), ([0, 1, 3], [0, 1, 2]), (2,)),
    (lambda: built(layers.DepthwiseConv2D(3), None, 9, 9, 4), ([0, 1], [0, 1, 3]), (2, 3)),
    (lambda: built(layers.EinsumDense("abc,cde->abde", (None, 4, 2)), None, 5, 3), ([0], [1, 2]), (1, 2)),
    (lambda: built(layers.EinsumDense("bec,ecd->bed", (4, 7)), None, 4, 3), ([1], [2]), (0, 2)),
    (lambda: built(layers.EinsumDense("abd,cd->abc", (None, 7)), None, 5, 3), ([1], [0]), (0,)),
]


@pytest.mark.parametrize(("make", "axes", "units"), AXES)
def test_the_axes_of_a_kernel(make, axes, units):
    layer = make()
    (kernel,) = catalogue.known_kernels(layer)
    assert catalogue.kernel_axes(layer) == catalogue.kernel_axes(layer, kernel) == axes
    assert catalogue.unit_axes(layer, kernel) == units


def test_each_kernel_of_a_separable_convolution_has_axes_of_its_own():
    layer = built(layers.SeparableConv2D(7, 3), None, 9, 9, 4)
    assert catalogue.unit_axes(layer, layer.depthwise_kernel) == (2, 3)
    assert catalogue.unit_axes(layer, layer.pointwise_kernel) == (3,)
    assert catalogue.kernel_of(layer, layer.depthwise_kernel).channelwise
    assert not catalogue.kernel_of(layer, layer.pointwise_kernel).channelwise


def test_a_registered_kernel_is_added_to_what_is_known_of_the_base():
    class Adapted(layers.Dense):
        def build(self, shape):
            super().build(shape)
            self.low = self.add_weight(shape=(shape[-1], 2), name="low")

    layer = built(Adapted(3), None, 4)
    assert catalogue.kernels(layer) == ["kernel"]
    catalogue.register(Adapted, "low", lambda layer, shape: shape)
    assert catalogue.kernels(layer) == ["kernel", "low"]
    assert catalogue.fans(layer, "low") == (4, 2)
    assert catalogue.fans(layer, "kernel") == (4, 3)
    assert catalogue.kernels(built(layers.Dense(3), None, 4)) == ["kernel"]


def test_a_line_of_ones_own_is_a_line_of_the_table(monkeypatch):
    class Tamed(layers.Layer):
        pass

    assert catalogue.normalises(Tamed()) == ""
    monkeypatch.setitem(table.TABLE, Tamed, table.LayerFacts(normalises="layer"))
    assert catalogue.normalises(Tamed()) == "layer"
    assert catalogue.normalises(type("Further", (Tamed,), {})()) == "layer"


def test_a_method_of_its_own_is_not_that_of_keras():
    class Same(layers.LSTMCell):
        pass

    class Other(layers.LSTMCell):
        def call(self, inputs, states, training=False):
            return super().call(inputs, states, training)

    assert catalogue.unchanged(layers.LSTMCell(3), "call")
    assert catalogue.unchanged(Same(3), "call")
    assert not catalogue.unchanged(Other(3), "call")
