"""What a step does with the weights of a layer of one's own: which are kernels, which tables, which neither."""

import keras
import numpy as np
import pytest
from keras import layers, ops

from keras_initaudit.diagnosis import diagnose
from keras_initaudit.observe.batch import first_samples
from keras_initaudit.observe.probe import Probe

ON_TORCH = keras.backend.backend() == "torch"
RNG = np.random.default_rng(0)
X = RNG.normal(size=(16, 4, 6)).astype("float32")
IDS = RNG.integers(0, 90, (16, 4))
NOISE = keras.random.SeedGenerator(1)
Y = RNG.normal(size=(16, 1)).astype("float32")


class Own(layers.Layer):
    """A layer with weights of these shapes, and a function of the data and the weights."""

    def __init__(self, shapes, function, start="normal", **options):
        super().__init__(**options)
        self.shapes, self.function, self.start = shapes, function, start

    def build(self, _):
        self.held = [
            self.add_weight(shape=shape, initializer=self.start, name=f"w{i}") for i, shape in enumerate(self.shapes)
        ]

    def call(self, x):
        return self.function(x, *self.held)


def beside(x, token):
    return ops.concatenate([ops.broadcast_to(token, (ops.shape(x)[0], 1, 6)), x], 1)


def relative(x, table):
    """A table of the distances between positions, multiplied with queries: of decomposed relative positions."""
    places = np.arange(4)[:, None] - np.arange(4)[None] + 3
    return x + ops.sum(ops.einsum("bqc,qkc->bqk", x, ops.take(table, places, axis=0)), -1, keepdims=True)


def shifted_window(x, table):
    scores = ops.matmul(x, ops.transpose(x, (0, 2, 1)))
    places = np.arange(4)[:, None] - np.arange(4)[None] + 3
    return ops.matmul(ops.softmax(scores + ops.take(table, places, axis=0)[:, :, 0]), x)


NEITHER = {
    "added": ([(1, 4, 6)], lambda x, w: x + w),
    "added, cut and reshaped": ([(24, 2)], lambda x, w: x + ops.reshape(w[:12], (1, 4, 6))),
    "taken off": ([(4, 6)], lambda x, w: x - w),
    "put beside the data": ([(1, 1, 6)], beside),
    "in the place of the data": ([(1, 1, 6)], lambda x, w: ops.where(x[..., :1] > 1.0, w, x)),
    "given out as it is": ([(4, 6)], lambda x, w: ops.broadcast_to(w, ops.shape(x))),
    "the sum of two that are added": ([(4, 6), (1, 6)], lambda x, w, v: x + (w + 0.5 * v)),
    "picked by position and multiplied": ([(7, 6)], relative),
    "picked by position and added": ([(7, 1)], shifted_window),
}

KERNELS = {
    "multiplied": ([(6, 6)], lambda x, w: ops.matmul(x, w)),
    "multiplied by einsum": ([(6, 2, 3)], lambda x, w: ops.reshape(ops.einsum("btc,chd->bthd", x, w), (-1, 4, 6))),
    "turned round": ([(6, 6)], lambda x, w: ops.matmul(x, ops.transpose(w))),
    "a convolution": ([(3, 6, 6)], lambda x, w: ops.conv(x, w, padding="same")),
    "masked": ([(6, 6)], lambda x, w: ops.matmul(x, w * np.tri(6, dtype="float32"))),
    "normalized": ([(6, 6)], lambda x, w: ops.matmul(x, w / ops.norm(w, axis=0, keepdims=True))),
    "a sum of two": ([(6, 6), (6, 6)], lambda x, w, v: ops.matmul(x, w + v)),
    "of low rank": ([(6, 2), (2, 6)], lambda x, w, v: ops.matmul(x, ops.matmul(w, v))),
    "permuted": ([(6, 6)], lambda x, w: ops.matmul(x, ops.take(w, [2, 0, 1, 5, 4, 3], axis=0))),
    "multiplied and summed by hand": ([(6, 6)], lambda x, w: ops.sum(x[..., None] * w, -2)),
    "multiplied with noise": (
        [(6, 6)],
        lambda x, w: ops.matmul(keras.random.normal((16, 4, 6), seed=NOISE), w) + 0.0 * x,
    ),
    "added and multiplied": ([(4, 6)], lambda x, w: x + w + ops.sum(ops.matmul(x, ops.transpose(w)), -1)[..., None]),
}
if ON_TORCH:
    KERNELS.pop("multiplied with noise")  # Keras builds a model with batches of another size there


def model_of(shapes, function, data=X, start="normal", **options):
    i = keras.Input(data.shape[1:], dtype=data.dtype.name)
    own = Own(shapes, function, start, name="own")(i)
    model = keras.Model(i, layers.Dense(1)(layers.GlobalAveragePooling1D()(own)))
    model.compile("sgd", "mse", **options)
    return model


def snapshot(model, data=X):
    return Probe(model, first_samples((data, Y), 16)).measure(0)


def held(shot):
    """The weights of the layer that have columns."""
    return [row for row in shot.layers if row.path.startswith("own") and row.weight is not None]


@pytest.mark.parametrize("name", NEITHER)
def test_what_is_only_added_or_put_beside_the_data_is_no_kernel(name):
    shapes, function = NEITHER[name]
    shot = snapshot(model_of(shapes, function, start="zeros"))
    assert held(shot) == []
    assert not any(row.lookup for row in shot.layers)
    assert "symmetric-units" not in [finding.rule for finding in diagnose([shot])]


@pytest.mark.parametrize("name", KERNELS)
def test_what_the_data_is_multiplied_by_is_a_kernel(name):
    shapes, function = KERNELS[name]
    shot = snapshot(model_of(shapes, function))
    assert [row.weight_shape for row in held(shot)] == shapes
    assert not any(row.lookup for row in shot.layers)


def test_a_penalty_and_an_average_of_a_weight_make_no_kernel_of_it():
    class Averaging(keras.Model):
        def train_step(self, data):
            logs = super().train_step(data)
            (weight,) = self.get_layer("own").held
            self.average.assign(0.9 * self.average + 0.1 * weight)
            return logs

    model = model_of(*NEITHER["added"])
    model = Averaging(model.inputs, model.outputs)
    model.average = keras.Variable(np.zeros((1, 4, 6), "float32"), trainable=False)
    (weight,) = model.get_layer("own").held
    weight.regularizer = keras.regularizers.L2(0.1)
    model.compile("sgd", "mse")
    assert held(snapshot(model)) == []


def test_equal_weights_of_a_kernel_of_ones_own_are_still_found():
    shot = snapshot(model_of(*KERNELS["multiplied"], start="ones"))
    assert "symmetric-units" in [finding.rule for finding in diagnose([shot])]


class Subclass(layers.Embedding):
    pass


@pytest.mark.parametrize("kind", ["embedding", "subclass", "taken", "taken twice", "one-hot"])
def test_numbers_that_are_looked_up_have_no_scale(kind):
    data = IDS.astype("int32")
    i = keras.Input((4,), dtype="int32")
    if kind in ("embedding", "subclass"):
        h = (Subclass if kind == "subclass" else layers.Embedding)(90, 6, name="own")(i)
    elif kind == "one-hot":
        h = Own([(90, 6)], lambda x, w: ops.matmul(ops.one_hot(x, 90), w), name="own")(i)
    else:
        own = Own([(90, 6)], lambda x, w: ops.take(w, x, axis=0), name="own")
        h = own(i) + own(89 - i) if kind == "taken twice" else own(i)
    h = layers.Dense(8, "relu", name="next")(layers.GlobalAveragePooling1D()(h))
    model = keras.Model(i, layers.Dense(1)(h))
    model.compile("sgd", "mse")
    shot = snapshot(model, data)
    assert shot["(input)"].activation_rms > 40.0
    own = {"one-hot": 0, "taken twice": 2}.get(kind, 1)
    assert [row.path.partition("#")[0] for row in shot.layers if row.lookup] == ["(input)", *["own"] * own]
    assert diagnose([shot]) == ()


@pytest.mark.parametrize("kind", ["multiplied", "taken and multiplied"])
def test_whole_numbers_that_are_multiplied_have_one(kind):
    data = IDS.astype("int32")
    i = keras.Input((4,), dtype="int32")
    h = Own([(4, 6)], lambda x, w: ops.matmul(ops.cast(x, "float32"), w), name="own")(i)
    if kind == "taken and multiplied":
        h = h + layers.GlobalAveragePooling1D()(layers.Embedding(90, 6)(i))
    model = keras.Model(i, layers.Dense(1)(layers.Dense(8, "relu")(h)))
    model.compile("sgd", "mse")
    shot = snapshot(model, data)
    assert not shot.layers[0].lookup
    assert [finding.rule for finding in diagnose([shot])] == ["input-scale"]


@pytest.mark.skipif(ON_TORCH, reason="its operations are known there")
def test_an_eager_step_leaves_no_trace_and_the_name_decides():
    for shapes, function in (NEITHER["added"], KERNELS["multiplied"]):
        assert len(held(snapshot(model_of(shapes, function, run_eagerly=True)))) == 1
