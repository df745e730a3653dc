"""Fans against the definition: count the connections of the layer itself, with a kernel of ones."""

import math
from pathlib import Path

import numpy as np
import pytest
from keras import layers, ops

from keras_initaudit.layers.catalogue import fans, find, kernels, register

REFERENCE = {
    line.split("\t")[0]: [float(figure) for figure in line.split("\t")[4:6]]
    for line in (Path(__file__).parents[1] / "reference" / "fans.tsv").read_text().splitlines()
    if line and not line.startswith(("#", "layer"))
}

OF_REFERENCE = {
    "Dense(512) on 256": (lambda: layers.Dense(512), (None, 256)),
    "Conv2D(128, 3) on 64 channels, stride 1": (lambda: layers.Conv2D(128, 3), (None, 9, 9, 64)),
    "Conv2D(128, 3, groups=8) on 64 channels": (lambda: layers.Conv2D(128, 3, groups=8), (None, 9, 9, 64)),
    "DepthwiseConv2D(3) on 64 channels": (lambda: layers.DepthwiseConv2D(3), (None, 9, 9, 64)),
    "DepthwiseConv2D(7) on 384 channels": (lambda: layers.DepthwiseConv2D(7), (None, 9, 9, 384)),
    "DepthwiseConv2D(3, depth_multiplier=4) on 64 channels": (
        lambda: layers.DepthwiseConv2D(3, depth_multiplier=4),
        (None, 9, 9, 64),
    ),
    "SeparableConv2D(128, 3) on 64 channels, pointwise kernel": (
        lambda: layers.SeparableConv2D(128, 3),
        (None, 9, 9, 64),
        "pointwise_kernel",
    ),
    "Conv2DTranspose(32, 4, strides=2) on 64 channels": (
        lambda: layers.Conv2DTranspose(32, 4, strides=2),
        (None, 9, 9, 64),
    ),
    "Conv2DTranspose(3, 4, strides=2) on 256 channels": (
        lambda: layers.Conv2DTranspose(3, 4, strides=2),
        (None, 9, 9, 256),
    ),
    'EinsumDense("abc,cde->abde") 512 -> 8 heads x 64 (attention query)': (
        lambda: layers.EinsumDense("abc,cde->abde", (None, 8, 64)),
        (None, 5, 512),
    ),
    'EinsumDense("bec,ecd->bed") 8 experts, 256 -> 256': (
        lambda: layers.EinsumDense("bec,ecd->bed", (8, 256)),
        (None, 8, 256),
    ),
    "LSTM(256) input kernel, per gate": (lambda: layers.LSTM(256), (None, 5, 256)),
    "GRU(256) input kernel, per gate": (lambda: layers.GRU(256), (None, 5, 256)),
    "Embedding(50000, 256)": (lambda: layers.Embedding(50000, 256), (None, 5)),
}


@pytest.mark.parametrize("name", REFERENCE)
def test_reference_figures_are_reproduced(name):
    make, shape, *weight = OF_REFERENCE[name]
    layer = make()
    layer.build(shape)
    assert fans(layer, *weight) == tuple(REFERENCE[name])


# Interior: far from every edge, in a region that holds a whole period of the strides.
CONVOLUTIONS = [
    (layers.Conv1D(4, 3), 1, 6),
    (layers.Conv1D(4, 5, strides=2), 1, 6),
    (layers.Conv1D(4, 3, dilation_rate=2), 1, 6),
    (layers.Conv1D(4, 3, groups=2), 1, 6),
    (layers.Conv2D(6, 3, groups=3, padding="same"), 2, 6),
    (layers.Conv2D(4, (3, 5), strides=(2, 1)), 2, 3),
    (layers.Conv2D(4, 1, strides=2), 2, 3),
    (layers.Conv2D(4, 3, dilation_rate=(2, 1)), 2, 3),
    (layers.Conv3D(2, 3, strides=2), 3, 2),
    (layers.DepthwiseConv1D(5, depth_multiplier=3), 1, 4),
    (layers.DepthwiseConv1D(4, strides=2), 1, 4),
    (layers.DepthwiseConv2D(3, strides=2, depth_multiplier=2), 2, 4),
    (layers.Conv1DTranspose(4, 4, strides=2), 1, 6),
    (layers.Conv1DTranspose(4, 5, strides=3), 1, 6),
    (layers.Conv2DTranspose(3, 3, strides=2), 2, 5),
    (layers.Conv2DTranspose(3, 3), 2, 5),
    (layers.Conv3DTranspose(2, 3, strides=2), 3, 2),
]


def count(layer, shape, interior_in, interior_out):
    """(fan_in, fan_out) by the definition: outputs of ones on ones, and the response to one input at a time."""
    for weight in layer.weights:
        weight.assign(ops.zeros(weight.shape) if weight.name.startswith("bias") else ops.ones(weight.shape))
    ones = np.ones((1, *shape), "float32")
    outputs = ops.convert_to_numpy(layer(ones))[(0, *interior_out)]
    places = np.argwhere(np.ones(shape, bool)[interior_in])
    places = places + [part.start for part in interior_in]
    impulses = np.zeros((len(places), *shape), "float32")
    for index, place in enumerate(places):
        impulses[(index, *place)] = 1.0
    fed = ops.convert_to_numpy(layer(impulses)).reshape(len(places), -1).sum(axis=1)
    return outputs.mean(), fed.mean()


@pytest.mark.parametrize(
    ("layer", "rank", "channels"), CONVOLUTIONS, ids=lambda value: getattr(value, "name", str(value))
)
def test_convolutions_have_as_many_connections_as_are_counted(layer, rank, channels):
    side = 18 if rank < 3 else 12
    shape = (*(side,) * rank, channels)
    layer.build((None, *shape))
    strides = [int(stride) for stride in np.broadcast_to(layer.strides, rank)]
    middle = side // 2 - side // 2 % 6
    if "Transpose" in type(layer).__name__:  # one input, and the period of outputs that it stands for
        inner = [slice(middle, middle + 1)] * rank
        outer = [slice(middle * stride, (middle + 1) * stride) for stride in strides]
    else:  # one output, and a period of inputs
        inner = [slice(middle, middle + stride) for stride in strides]
        outer = [slice(2, 3)] * rank
    counted = count(layer, shape, (*inner, slice(0, channels)), outer)
    assert fans(layer) == pytest.approx(counted, rel=1e-6)


@pytest.mark.parametrize(
    ("equation", "output_shape", "shape"),
    [
        ("ab,bc->ac", (7,), (3,)),
        ("abc,cd->abd", (None, 7), (5, 3)),
        ("abc,cde->abde", (None, 4, 2), (5, 3)),
        ("abcd,cde->abe", (None, 7), (5, 3, 4)),
        ("bec,ecd->bed", (4, 7), (4, 3)),
        ("abc,cd->ad", (7,), (5, 3)),
        ("abc,bd->adc", (7, 3), (5, 3)),
        ("...x,xy->...y", (7,), (5, 3)),
    ],
)
def test_einsum_layers_have_as_many_connections_as_are_counted(equation, output_shape, shape):
    layer = layers.EinsumDense(equation, output_shape)
    layer.build((None, *shape))
    everything_in = tuple(slice(0, size) for size in shape)
    everything_out = (slice(None),)
    assert fans(layer) == pytest.approx(count(layer, shape, everything_in, everything_out), rel=1e-6)


@pytest.mark.parametrize(("kind", "gates"), [(layers.SimpleRNN, 1), (layers.GRU, 3), (layers.LSTM, 4)])
def test_recurrent_kernels_count_one_gate(kind, gates):
    layer = kind(6)
    layer.build((None, 5, 4))
    assert tuple(layer.cell.kernel.shape) == (4, 6 * gates)
    assert kernels(layer) == ["kernel", "recurrent_kernel"]
    assert fans(layer) == (4, 6)
    assert fans(layer, "recurrent_kernel") == (6, 6)


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_convolutional_lstms_count_one_gate_of_each_convolution(rank):
    layer = getattr(layers, f"ConvLSTM{rank}D")(4, 3, strides=2)
    layer.build((None, 2, *(9,) * rank, 5))
    assert fans(layer, "kernel") == (3**rank * 5, 3**rank * 4 / 2**rank)
    assert fans(layer, "recurrent_kernel") == (3**rank * 4, 3**rank * 4)


@pytest.mark.parametrize("rank", [1, 2])
def test_separable_convolutions_have_two_kernels(rank):
    layer = getattr(layers, f"SeparableConv{rank}D")(7, 3, strides=2, depth_multiplier=2)
    layer.build((None, *(9,) * rank, 5))
    assert kernels(layer) == ["depthwise_kernel", "pointwise_kernel"]
    assert fans(layer) == (3**rank, 3**rank * 2 / 2**rank)
    assert fans(layer, "pointwise_kernel") == (10, 7)


def test_attention_has_the_kernels_of_its_parts():
    layer = layers.MultiHeadAttention(num_heads=4, key_dim=3, value_dim=5)
    layer.build((None, 6, 16), (None, 6, 8))
    found = {name: fans(layer, name) for name in kernels(layer)}
    assert found == {
        "query/kernel": (16, 12),
        "key/kernel": (8, 12),
        "value/kernel": (8, 20),
        "output/kernel": (20, 16),
    }


def test_grouped_query_attention_has_fewer_keys():
    layer = layers.GroupQueryAttention(head_dim=4, num_query_heads=6, num_key_value_heads=2)
    layer.build((None, 6, 16), (None, 6, 16))
    assert [fans(layer, name) for name in kernels(layer)] == [(16, 24), (16, 8), (16, 8), (24, 16)]


def test_wrappers_and_cells_are_looked_through():
    both = layers.Bidirectional(layers.GRU(3))
    both.build((None, 5, 2))
    assert kernels(both) == [
        "forward/kernel",
        "forward/recurrent_kernel",
        "backward/kernel",
        "backward/recurrent_kernel",
    ]
    assert fans(both, "backward/recurrent_kernel") == (3, 3)
    each = layers.TimeDistributed(layers.Dense(4))
    each.build((None, 5, 3))
    assert fans(each) == (3, 4)
    stacked = layers.RNN([layers.LSTMCell(3), layers.SimpleRNNCell(4)])
    stacked.build((None, 5, 2))
    assert fans(stacked, "cell_0/kernel") == (2, 3)
    assert fans(stacked, "cell_1/kernel") == (3, 4)
    spectral = layers.SpectralNormalization(layers.Dense(4))
    spectral.build((None, 3))
    assert kernels(spectral) == ["kernel"]
    assert fans(spectral) == (3, 4)


def test_a_variable_is_as_good_as_its_name():
    layer = layers.LSTM(6)
    layer.build((None, 5, 4))
    assert fans(layer, layer.cell.recurrent_kernel) == (6, 6)
    owner, attribute = find(layer, "recurrent_kernel")
    assert getattr(owner, attribute) is layer.cell.recurrent_kernel
    assert fans(layer.cell, layer.cell.kernel) == (4, 6)


@pytest.mark.parametrize(
    "layer",
    [layers.BatchNormalization(), layers.LayerNormalization(axis=(1, 2)), layers.PReLU(), layers.GroupNormalization(2)],
    ids=lambda layer: layer.name,
)
def test_scales_and_slopes_are_no_kernels(layer):
    layer.build((None, 5, 4))
    assert kernels(layer) == []
    with pytest.raises(ValueError, match="no kernel"):
        fans(layer)


def test_einsum_biases_of_rank_two_are_no_kernels():
    layer = layers.EinsumDense("abc,cde->abde", (None, 4, 2), bias_axes="de")
    layer.build((None, 5, 3))
    assert len(layer.bias.shape) == 2
    assert kernels(layer) == ["kernel"]


def test_a_layer_that_is_not_built_says_so():
    with pytest.raises(ValueError, match="not built"):
        fans(layers.Dense(3))


def test_an_unknown_name_is_answered_with_the_known_ones():
    layer = layers.LSTM(3)
    layer.build((None, 5, 2))
    with pytest.raises(ValueError, match=r"recurrent_kernel"):
        fans(layer, "kernels")


class LocallyConnected(layers.Layer):
    """One matrix for each position."""

    def build(self, shape):
        self.kernel = self.add_weight(shape=(shape[1], shape[2], 7), name="kernel")

    def call(self, x):
        return ops.einsum("bpc,pcd->bpd", x, self.kernel)


def test_a_layer_of_ones_own_is_refused_until_it_is_registered():
    layer = LocallyConnected()
    layer.build((None, 5, 3))
    assert kernels(layer) == ["kernel"]
    with pytest.raises(ValueError, match=r"register\(LocallyConnected, 'kernel'"):
        fans(layer)
    register(LocallyConnected, "kernel", lambda layer, shape: shape[1:])
    assert fans(layer) == (3, 7)
    counted = count(layer, (5, 3), (slice(0, 5), slice(0, 3)), (slice(None),))
    assert fans(layer) == pytest.approx(counted)

    class Further(LocallyConnected):
        pass

    further = Further()
    further.build((None, 5, 4))
    assert fans(further) == (4, 7)


@pytest.mark.parametrize(
    "arguments", [(3, "kernel", len), (dict, "kernel", len), (layers.Dense, "", len), (layers.Dense, "kernel", 3)]
)
def test_registration_checks_what_it_is_given(arguments):
    with pytest.raises(TypeError, match=r"`layer_class`|`weight`|`rule`"):
        register(*arguments)


def test_a_subclass_of_a_keras_layer_is_known():
    class Mine(layers.Dense):
        pass

    layer = Mine(4)
    layer.build((None, 3))
    assert fans(layer) == (3, 4)
    assert math.prod(layer.kernel.shape) == 12
