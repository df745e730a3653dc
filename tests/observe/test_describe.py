"""What a row says of its layer: a subclass is what its base is, whatever its name, and a name alone makes nothing."""

import dataclasses

import keras
import looking
import numpy as np
import pytest
from keras import layers
from numpy_network import KINDS

from keras_initaudit.diagnosis import diagnose
from keras_initaudit.observe import describe
from keras_initaudit.observe.probe import Probe
from keras_initaudit.theory import gains

RNG = np.random.default_rng(0)
SEQUENCES = RNG.normal(size=(32, 12, 6)).astype("float32")
IMAGES = RNG.normal(size=(32, 12, 12, 4)).astype("float32")
IDS = RNG.integers(0, 40, size=(32, 12))
YES = np.arange(32) % 2


class Keras:
    """The classes of Keras, by their names."""

    def __getattr__(self, name):
        return getattr(layers, name)


class Derived:
    """A subclass of each, called otherwise."""

    def __getattr__(self, name):
        return type(f"Own{len(name)}", (getattr(layers, name),), {})


class Namesakes:
    """Layers that share nothing but the name, and pass on what they get."""

    def __getattr__(self, name):
        return type(name, (layers.Layer,), {"__init__": lambda self, *_, **kw: layers.Layer.__init__(self, **kw)})


def compiled(inputs, h):
    model = keras.Model(inputs, layers.Dense(1, name="head")(h))
    model.compile("adam", keras.losses.BinaryCrossentropy(from_logits=True))
    return model


def recurrent(kinds, name):
    inputs, h = keras.Input(SEQUENCES.shape[1:]), None
    for i in range(2):
        layer = getattr(kinds, name)(8, return_sequences=i == 0, kernel_initializer="he_normal", name=f"layer_{i}")
        h = layer(inputs if h is None else h)
    return compiled(inputs, h), SEQUENCES


def of_cells(kinds, name):
    inputs = keras.Input(SEQUENCES.shape[1:])
    return compiled(inputs, layers.RNN(getattr(kinds, name)(8, name="cell"), name="layer")(inputs)), SEQUENCES


def normalised(kinds, name):
    """Far too small, behind normalisations."""
    inputs = h = keras.Input((6,))
    for i in range(5):
        start = keras.initializers.RandomNormal(stddev=1e-4)
        h = layers.Dense(16, kernel_initializer=start, activation=None, name=f"dense_{i}")(h)
        h = layers.Activation("relu", name=f"relu_{i}")(getattr(kinds, name)(name=f"norm_{i}", epsilon=1e-12)(h))
    return compiled(inputs, h), SEQUENCES[:, 0]


def embedded(kinds, name):
    inputs = keras.Input(IDS.shape[1:], dtype="int32")
    h = getattr(kinds, name)(40, 8, embeddings_initializer="zeros", name="table")(inputs)
    return compiled(inputs, layers.Flatten(name="flat")(layers.Dense(8, "relu", name="dense")(h))), IDS


def convolved(kinds, name):
    inputs = h = keras.Input(IMAGES.shape[1:])
    for i in range(3):
        sizes = (3,) if name.startswith("Depthwise") else (4, 3)
        started = {"depthwise_initializer": "he_normal"} if name.startswith(("Dep", "Sep")) else {}
        h = getattr(kinds, name)(*sizes, padding="same", activation="relu", name=f"conv_{i}", **started)(h)
    return compiled(inputs, layers.Flatten(name="flat")(h)), IMAGES


def attending(kinds, name):
    inputs = keras.Input(SEQUENCES.shape[1:])
    layer = getattr(kinds, name)
    h = layer(2, 4, name="attention")(inputs, inputs) if name == "MultiHeadAttention" else layer(name="attention")
    h = h if name == "MultiHeadAttention" else h([inputs, inputs])
    return compiled(inputs, layers.Flatten(name="flat")(h)), SEQUENCES


def concatenating(kinds, name):
    inputs = keras.Input((6,))
    a, b = (layers.Dense(4, "relu", name=f"dense_{i}")(inputs) for i in range(2))
    return compiled(inputs, getattr(kinds, name)(name="both")([a, inputs, b])), SEQUENCES[:, 0]


CASES = [
    *((recurrent, name) for name in ("LSTM", "GRU", "SimpleRNN")),
    *((of_cells, name) for name in ("LSTMCell", "GRUCell", "SimpleRNNCell")),
    *((normalised, name) for name in ("LayerNormalization", "BatchNormalization", "RMSNormalization")),
    (embedded, "Embedding"),
    *((convolved, name) for name in ("DepthwiseConv2D", "SeparableConv2D", "Conv2DTranspose", "Conv2D")),
    *((attending, name) for name in ("MultiHeadAttention", "Attention")),
    (concatenating, "Concatenate"),
]


def seen(make, kinds, name):
    """The rows without their kinds, their statistics, and what is found."""
    keras.utils.set_random_seed(3)
    model, x = make(kinds, name)
    shot = Probe(model, looking.batch(x, YES), histograms=False).measure(0)
    rows = [dataclasses.replace(info, kind="") for info in shot.layers]
    found = [(f.rule, f.severity, f.layer, f.message, f.evidence) for f in diagnose([shot])]
    return rows, repr(shot.statistics), found, [info.kind for info in shot.layers]


@pytest.mark.parametrize(("make", "name"), CASES, ids=[name for _, name in CASES])
def test_a_subclass_is_audited_as_its_base(make, name):
    rows, statistics, found, kinds = seen(make, Keras(), name)
    again, same_statistics, same_found, other_kinds = seen(make, Derived(), name)
    assert again == rows
    assert same_statistics == statistics
    assert same_found == found
    assert any(kind.startswith("Own") for kind in other_kinds)
    assert name in kinds or make is of_cells


def test_what_is_compared_is_worth_it():
    found = {rule for make, name in CASES for rule, *_ in seen(make, Keras(), name)[2]}
    assert {"fan-mismatch", "update-ratio", "symmetric-units"} <= found


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "RMSNorm"])
def test_a_name_alone_makes_nothing(kind):
    row = describe.row("a", 0, getattr(Namesakes(), kind)(), gains.facts(None))
    assert row.gates == 0
    assert not row.concatenates
    assert row.normalises == ("other" if kind.endswith("Normalization") else "")
    assert not describe.looks_up(getattr(Namesakes(), kind)(), {})


MADE = {
    "LSTM": lambda: layers.LSTM(3),
    "SimpleRNN": lambda: layers.SimpleRNN(3),
    "RMSNorm": lambda: Namesakes().RMSNorm(),
    "DepthwiseConv2D": lambda: layers.DepthwiseConv2D(3),
    "Conv2DTranspose": lambda: layers.Conv2DTranspose(2, 3),
    "Embedding": lambda: layers.Embedding(9, 4),
}


@pytest.mark.parametrize("kind", KINDS)
def test_the_rows_that_the_tests_make_up_say_what_an_audit_says(kind):
    layer = MADE.get(kind, lambda: getattr(layers, kind)())()
    row = describe.row("a", 0, layer, gains.facts(None), lookup=describe.looks_up(layer, {}))
    if "Conv" in kind:
        layer.build((None, 9, 9, 4))
        row = describe.with_weight(row, layer, layer.kernel)
    facts = (
        "gates",
        "normalises",
        "concatenates",
        "makes_outputs",
        "channelwise",
        "lookup",
        "input_axes",
        "output_axes",
    )
    assert {name: getattr(row, name) for name in facts if getattr(row, name)} == KINDS[kind]


@pytest.mark.skipif(not hasattr(layers, "ReversibleEmbedding"), reason="of a newer Keras")
def test_a_tied_table_makes_the_outputs_too():
    def row(tied):
        return describe.row("a", 0, layers.ReversibleEmbedding(9, 4, tie_weights=tied), gains.facts(None))

    assert [row(tied).makes_outputs for tied in (True, False)] == [True, False]
    assert not describe.row("a", 0, layers.Embedding(9, 4), gains.facts(None)).makes_outputs


def test_a_cell_with_a_call_of_its_own_has_no_gates_to_look_at():
    class Own(layers.LSTMCell):
        def call(self, inputs, states, training=False):
            return super().call(2.0 * inputs, states, training)

    class Kinds:
        LSTMCell = Own

    paths = [info.path for info in seen(of_cells, Kinds(), "LSTMCell")[0]]
    assert "layer" in paths
    assert "layer/gates" not in paths
    assert "layer/gates" in [info.path for info in seen(of_cells, Keras(), "LSTMCell")[0]]
