"""Every kind of `fit`, trained with and without the audit: bit-identical, audited, and nothing left on the model."""

import importlib
import os
import random
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers

from keras_initaudit import InitAudit
from keras_initaudit.observe.hooks import replaced
from keras_initaudit.observe.taps import Recording

BACKEND = keras.backend.backend()
try:
    import tensorflow as tf
except ImportError:
    tf = None

RNG = np.random.default_rng(0)
X = RNG.normal(size=(48, 6)).astype("float32")
Y = (X[:, :1] * X[:, 1:2] > 0).astype("float32")
LABELS = RNG.integers(0, 3, 48)
IMAGES = RNG.normal(size=(24, 8, 8, 3)).astype("float32")
TOKENS = RNG.integers(0, 20, (32, 7))
FILMS = RNG.normal(size=(16, 3, 6, 6, 1)).astype("float32")
WEIGHTS = RNG.uniform(0.5, 2.0, 48).astype("float32")


def dense(*extra, units=3, **compile_with):
    model = keras.Sequential([keras.Input((6,)), layers.Dense(8, "relu"), *extra, layers.Dense(units, "softmax")])
    model.compile(
        **{"optimizer": "adam", "loss": "sparse_categorical_crossentropy", "metrics": ["accuracy"]} | compile_with
    )
    return model


def regression(inputs, outputs, **compile_with):
    model = keras.Model(inputs, outputs)
    model.compile(**{"optimizer": "adam", "loss": "mse", "metrics": ["mae"]} | compile_with)
    return model


CASES = {}


def case(function):
    CASES[function.__name__] = function
    return function


def only(backend):
    """A case that is written for one backend."""
    return case if backend == BACKEND else lambda function: function


def of_datasets(function):
    """A case with a dataset of TensorFlow, which other backends take as well."""
    return function if tf is None else case(function)


# Kinds of model


@case
def sequential():
    return dense(), {"x": X, "y": LABELS}


@case
def unbuilt_sequential():
    model = keras.Sequential([layers.Dense(8, "relu"), layers.Dropout(0.5), layers.Dense(3, "softmax")])
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model, {"x": X, "y": LABELS}


@case
def functional_nested_and_shared():
    inner = keras.Sequential([keras.Input((8,)), layers.Dense(8, "tanh"), layers.BatchNormalization()], name="inner")
    a = keras.Input((6,))
    shared = layers.Dense(8, "relu")
    h = inner(shared(a))
    return regression(a, layers.Dense(1)(layers.Add()([inner(h), h]))), {"x": X, "y": Y}


class Subclassed(keras.Model):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.first = layers.Dense(8, "relu")
        self.drop = layers.Dropout(0.3)
        self.norm = layers.BatchNormalization()
        self.last = layers.Dense(1)

    def call(self, x, training=False):
        h = self.first(x)
        return self.last(self.drop(self.norm(h), training=training) + h)


@case
def subclassed_unbuilt():
    model = Subclassed()
    model.compile("sgd", "mse", metrics=["mae"])
    return model, {"x": X, "y": Y}


@case
def several_inputs_and_outputs():
    a, b = keras.Input((6,), name="a"), keras.Input((4,), name="b")
    h = layers.Concatenate()([layers.Dense(5, "relu")(a), layers.Dense(5, "relu")(b)])
    model = keras.Model({"a": a, "b": b}, {"u": layers.Dense(1, name="u")(h), "v": layers.Dense(2, name="v")(h)})
    model.compile("adam", {"u": "mse", "v": "mae"}, metrics={"u": ["mae"]})
    return model, {"x": {"a": X, "b": X[:, :4]}, "y": {"u": Y, "v": X[:, :2]}}


@case
def list_inputs():
    a, b = keras.Input((6,)), keras.Input((6,))
    return regression([a, b], layers.Dense(1)(layers.Dot(1)([layers.Dense(4)(a), layers.Dense(4)(b)]))), {
        "x": [X, X],
        "y": Y,
    }


# Kinds of layer


@case
def recurrent_with_masks():
    i = keras.Input((7,), dtype="int32")
    h = layers.Embedding(20, 8, mask_zero=True)(i)
    h = layers.Bidirectional(layers.LSTM(4, return_sequences=True))(h)
    h = layers.TimeDistributed(layers.Dense(4, "relu"))(layers.GRU(4, return_sequences=True, dropout=0.2)(h))
    return regression(i, layers.Dense(1)(layers.SimpleRNN(3)(h))), {"x": TOKENS, "y": Y[:32]}


@case
def convolutional_lstm():
    i = keras.Input((3, 6, 6, 1))
    h = layers.ConvLSTM2D(2, 3)(i)
    return regression(i, layers.Dense(1)(layers.Flatten()(h))), {"x": FILMS, "y": Y[:16]}


@case
def attention():
    i = keras.Input((7,), dtype="int32")
    h = layers.Embedding(20, 8, mask_zero=True)(i)
    h = layers.LayerNormalization()(h + layers.MultiHeadAttention(2, 4, dropout=0.1)(h, h, use_causal_mask=True))
    h = layers.GroupQueryAttention(4, 4, 2)(h, h)
    h = layers.Attention()([h, h])
    return regression(i, layers.Dense(1)(layers.GlobalAveragePooling1D()(h))), {"x": TOKENS, "y": Y[:32]}


@case
def normalized_convolutions():
    i = keras.Input((8, 8, 3))
    h = layers.SpectralNormalization(layers.Conv2D(4, 3))(layers.GaussianNoise(0.1)(layers.RandomFlip()(i)))
    h = layers.GroupNormalization(2)(layers.ReLU()(layers.BatchNormalization()(h)))
    h = layers.DepthwiseConv2D(3, activation="gelu")(layers.SpatialDropout2D(0.2)(h))
    h = layers.Conv2DTranspose(4, 2, strides=2)(layers.SeparableConv2D(4, 1)(h))
    return regression(i, layers.Dense(1)(layers.GlobalMaxPooling2D()(h))), {"x": IMAGES, "y": Y[:24]}


@case
def tied_and_frozen():
    class Tied(layers.Layer):
        def __init__(self, source, **kwargs):
            super().__init__(**kwargs)
            self.source = source

        def call(self, x):
            return keras.ops.matmul(x, keras.ops.transpose(self.source.kernel))

    i = keras.Input((6,))
    encode, frozen = layers.Dense(4, "tanh"), layers.Dense(6, trainable=False)
    return regression(i, frozen(Tied(encode)(encode(i)))), {"x": X, "y": X}


class Counting(layers.Layer):
    def build(self, shape):
        self.count = self.add_weight(shape=(), initializer="zeros", trainable=False, name="count")
        self.seeds = keras.random.SeedGenerator(3)

    def call(self, x):
        self.count.assign_add(1.0)
        return x + 0.1 * keras.random.normal(keras.ops.shape(x), seed=self.seeds) * self.count


@case
def layer_with_own_state():
    return dense(Counting()), {"x": X, "y": LABELS}


@case
def added_losses_and_regularizers():
    class Penalty(layers.Layer):
        def call(self, x):
            self.add_loss(keras.ops.mean(keras.ops.square(x)))
            return x

    middle = layers.Dense(8, "relu", kernel_regularizer="l2", activity_regularizer="l1")
    return dense(middle, Penalty()), {"x": X, "y": LABELS}


# Kinds of training step


class OwnStep(keras.Model):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.a, self.b = layers.Dense(8, "relu"), layers.Dense(1)
        self.tracker = keras.metrics.Mean(name="loss")
        self.slow = self.add_weight(shape=(), initializer="zeros", trainable=False, name="slow")

    def call(self, x):
        return self.b(self.a(x))

    def train_step(self, data):
        x, y = data
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.square(self(x, training=True) - y))
        variables = self.trainable_variables
        gradients = [tf.clip_by_norm(g, 1.0) for g in tape.gradient(loss, variables)]
        self.optimizer.apply_gradients(zip(gradients, variables, strict=True))
        self.slow.assign(0.9 * self.slow + 0.1 * loss)
        self.b.bias.assign_add([0.01])
        self.tracker.update_state(loss)
        return {"loss": self.tracker.result()}


@only("tensorflow")
def own_train_step():
    model = OwnStep()
    model.compile("adam")
    return model, {"x": X, "y": Y}


class Gan(keras.Model):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.generator = keras.Sequential(
            [keras.Input((3,)), layers.Dense(8, "relu"), layers.Dense(6)], name="generator"
        )
        self.critic = keras.Sequential([keras.Input((6,)), layers.Dense(8, "relu"), layers.Dense(1)], name="critic")
        self.seeds = keras.random.SeedGenerator(1)

    def compile(self, generator_optimizer, critic_optimizer):
        super().compile()
        self.generator_optimizer, self.critic_optimizer = generator_optimizer, critic_optimizer

    def train_step(self, x):
        noise = keras.random.normal((tf.shape(x)[0], 3), seed=self.seeds)
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(self.critic(self.generator(noise))) - tf.reduce_mean(self.critic(x))
        self.critic_optimizer.apply_gradients(
            zip(tape.gradient(loss, self.critic.trainable_variables), self.critic.trainable_variables, strict=True)
        )
        with tf.GradientTape() as tape:
            loss_g = -tf.reduce_mean(self.critic(self.generator(noise)))
        variables = self.generator.trainable_variables
        self.generator_optimizer.apply_gradients(zip(tape.gradient(loss_g, variables), variables, strict=True))
        return {"critic": loss, "generator": loss_g}


@only("tensorflow")
def two_optimizers():
    model = Gan()
    model.compile(keras.optimizers.Adam(0.01), keras.optimizers.SGD(0.01))
    return model, {"x": X}


@case
def accumulated_clipped_averaged():
    optimizer = keras.optimizers.Adam(
        0.01, gradient_accumulation_steps=2, clipnorm=0.5, use_ema=True, ema_overwrite_frequency=3, weight_decay=0.01
    )
    return dense(optimizer=optimizer), {"x": X, "y": LABELS}


@case
def steps_far_too_long():
    """A finding whose remedy is tried by real updates in the midst of the training."""
    optimizer = keras.optimizers.Adam(20.0, use_ema=True)
    return dense(layers.Dropout(0.3), layers.BatchNormalization(), optimizer=optimizer), {"x": X, "y": LABELS}


compiled = tf.function if BACKEND == "tensorflow" else lambda function: function


class Inner(keras.Model):
    """Applies its optimizer within a `tf.function` of its own, whose first call is the only one to make variables."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.dense = layers.Dense(1)

    def call(self, x):
        return self.dense(x)

    @compiled
    def update(self, x, y):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.square(self(x) - y))
        self.optimizer.apply(tape.gradient(loss, self.trainable_variables), self.trainable_variables)
        return loss

    def train_step(self, data):
        return {"own": self.update(*data)}


@only("tensorflow")
def nested_function_applies_the_optimizer():
    model = Inner()
    model.compile("adam")
    return model, {"x": X, "y": Y}


class Stateless(keras.Model):
    """A training step as JAX wants it: all that it changes is given back."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.a, self.drop, self.b = layers.Dense(8, "relu"), layers.Dropout(0.2), layers.Dense(1)

    def call(self, x, training=False):
        return self.b(self.drop(self.a(x), training=training))

    def train_step(self, state, data):
        import jax

        trainable, fixed, optimizer, metrics = state
        x, y = data

        def loss_of(trainable, fixed):
            predicted, fixed = self.stateless_call(trainable, fixed, x, training=True)
            return keras.ops.mean(keras.ops.square(predicted - y)), fixed

        (loss, fixed), gradients = jax.value_and_grad(loss_of, has_aux=True)(trainable, fixed)
        gradients = [keras.ops.clip(g, -1.0, 1.0) for g in gradients]
        trainable, optimizer = self.optimizer.stateless_apply(optimizer, gradients, trainable)
        return {"loss": loss}, (trainable, fixed, optimizer, metrics)


@only("jax")
def stateless_train_step():
    model = Stateless()
    model.compile("adam")
    return model, {"x": X, "y": Y}


@only("jax")
def eager_stateless_train_step():
    model = Stateless()
    model.compile("adam", run_eagerly=True)
    return model, {"x": X, "y": Y}


# Models that `fit` builds


@case
def unbuilt_with_functions_of_ones_own():
    relu = tf.nn.relu if BACKEND == "tensorflow" else keras.ops.relu
    model = keras.Sequential(
        [
            layers.Dense(8, relu),
            layers.Dense(8, lambda v: v * keras.ops.sigmoid(v)),
            layers.Dense(3, "softmax"),
        ]
    )
    model.compile("adam", "sparse_categorical_crossentropy")
    return model, {"x": X, "y": LABELS}


@case
def unbuilt_with_sublayers_that_are_made_in_build():
    class Own(keras.Model):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.mix, self.last = layers.MultiHeadAttention(2, 4), layers.Dense(1)

        def call(self, x):
            return self.last(keras.ops.mean(self.mix(x, x), 1))

    model = Own()
    model.compile("adam", "mse")
    return model, {"x": X.reshape(16, 3, 6), "y": Y[:16]}


class UnbuiltGan(Gan):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.generator = keras.Sequential([layers.Dense(8, "relu"), layers.Dense(6)], name="generator")
        self.critic = keras.Sequential([layers.Dense(8, "relu"), layers.Dense(1)], name="critic")


@only("tensorflow")
def unbuilt_two_optimizers():
    model = UnbuiltGan()
    model.compile(keras.optimizers.Adam(0.01), keras.optimizers.SGD(0.01))
    return model, {"x": X}


# Draws without a seed of their own


class Unseeded(layers.Layer):
    def call(self, x, training=False):
        return x + 0.1 * keras.random.normal(keras.ops.shape(x)) if training else x


class FromTensorFlow(layers.Layer):
    def call(self, x, training=False):
        return x * tf.random.uniform(tf.shape(x)) + tf.random.normal(tf.shape(x), seed=5) if training else x


for name, kind, options in (
    ("unseeded", Unseeded, {}),
    ("unseeded_eager", Unseeded, {"run_eagerly": True}),
    ("drawn_by_tensorflow", FromTensorFlow, {}),
    ("drawn_by_tensorflow_eager", FromTensorFlow, {"run_eagerly": True}),
):
    if BACKEND == "jax" and (kind is FromTensorFlow or not options):  # Keras refuses to trace a draw without a seed
        continue
    CASES[name] = lambda kind=kind, options=options: (dense(kind(), **options), {"x": X, "y": LABELS})


@only("tensorflow")
def unbuilt_unseeded():
    model = keras.Sequential([layers.Dense(8, "relu"), Unseeded(), layers.Dense(3, "softmax")])
    model.compile("adam", "sparse_categorical_crossentropy")
    return model, {"x": X, "y": LABELS}


@of_datasets
def data_that_draws_from_python():
    def augmented(x):
        time.sleep(0.002)  # so that some of it is drawn while the audit runs
        return x * np.float32(random.choice([0.5, 1.0, 2.0]))

    data = tf.data.Dataset.from_tensor_slices((X, LABELS))
    data = data.map(lambda a, b: (tf.ensure_shape(tf.numpy_function(augmented, [a], tf.float32), (6,)), b))
    return dense(optimizer=keras.optimizers.SGD(50.0)), {"x": data.batch(8).prefetch(2)}


# Models that fix the size of their batches


@case
def fixed_batch():
    i = keras.Input(batch_shape=(48, 6))
    return regression(i, layers.Dense(1)(layers.Dense(8, "relu")(i))), {"x": X, "y": Y, "batch_size": 48}


@case
def stateful():
    known = [keras.Input(batch_shape=(48, 3, 2))] if BACKEND == "jax" else []  # where fit cannot build it
    model = keras.Sequential([*known, layers.LSTM(4, stateful=True), layers.Dense(1)])
    model.compile("adam", "mse")
    return model, {"x": X.reshape(48, 3, 2), "y": Y, "batch_size": 48, "shuffle": False}


@case
def size_in_the_code():
    class Pairs(layers.Layer):
        def call(self, x):
            return keras.ops.reshape(keras.ops.reshape(x, (24, 2, 8)), (48, 8))

    return dense(Pairs()), {"x": X, "y": LABELS, "batch_size": 48}


# Kinds of precision and of execution


def with_policy(policy):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        return dense(layers.BatchNormalization()), {"x": X, "y": LABELS}
    finally:
        keras.config.set_dtype_policy(before)


for policy in ("mixed_float16", "mixed_bfloat16", "float64"):
    CASES[policy] = lambda policy=policy: with_policy(policy)

for name, options in {
    "eager": {"run_eagerly": True},
    "jit": {"jit_compile": True},
    "no_jit": {"jit_compile": False},
    "four_steps_per_execution": {"steps_per_execution": 4},
}.items():
    CASES[name] = lambda options=options: (
        dense(layers.Dropout(0.5), layers.BatchNormalization(), **options),
        {"x": X, "y": LABELS},
    )


@only("tensorflow")
def eager_own_train_step():
    model = OwnStep()
    model.build((None, 6))
    model.compile("adam", run_eagerly=True)
    return model, {"x": X, "y": Y}


# Kinds of data


@of_datasets
def dataset_uneven_with_weights():
    return dense(), {"x": tf.data.Dataset.from_tensor_slices((X, LABELS, WEIGHTS)).shuffle(48, seed=1).batch(7)}


@of_datasets
def dataset_repeated():
    data = tf.data.Dataset.from_tensor_slices((X, LABELS)).batch(8).repeat()
    return dense(), {"x": data, "steps_per_epoch": 5}


class Batches(keras.utils.PyDataset):
    def __len__(self):
        return 6

    def __getitem__(self, index):
        return X[index * 8 : index * 8 + 8], LABELS[index * 8 : index * 8 + 8]


@case
def pydataset():
    return dense(), {"x": Batches(workers=2), "shuffle": False}


@case
def generator():
    def batches():
        while True:
            for i in range(0, 48, 12):
                yield X[i : i + 12], LABELS[i : i + 12]

    return dense(), {"x": batches(), "steps_per_epoch": 4}


@case
def finite_generator_four_steps_per_execution():
    return dense(steps_per_execution=4), {
        "x": ((X[i : i + 8], LABELS[i : i + 8]) for i in range(0, 48, 8)),
        "epochs": 1,
    }


@case
def class_weight_and_validation_split():
    return dense(), {"x": X, "y": LABELS, "class_weight": {0: 1.0, 1: 2.0, 2: 0.5}, "validation_split": 0.25}


@case
def validation_data_and_initial_epoch():
    return dense(layers.Dropout(0.2)), {"x": X, "y": LABELS, "validation_data": (X, LABELS), "initial_epoch": 1}


@case
def no_targets():
    i = keras.Input((6,))
    o = layers.Dense(6)(layers.Dense(3, "relu")(i))
    model = keras.Model(i, o)
    model.add_loss = None

    class SelfSupervised(keras.Model):
        def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
            return keras.ops.mean(keras.ops.square(x - y_pred))

    model = SelfSupervised(i, o)
    model.compile("adam")
    return model, {"x": X}


# The comparison


def state_after(build, make_callbacks):
    keras.backend.clear_session()  # Keras's own generator of seeds is made anew, within the training
    keras.utils.set_random_seed(11)
    model, fit = build()
    callbacks = make_callbacks()
    defaults = {"epochs": 2, "verbose": 0, "callbacks": callbacks}
    if isinstance(fit["x"], np.ndarray | dict | list):
        defaults["batch_size"] = 8
    history = model.fit(**defaults | fit)
    held = list(model.variables) + list(model.metrics_variables)
    for value in vars(model).values():
        if isinstance(value, keras.optimizers.Optimizer):
            held += value.variables
    values = [np.asarray(v.value) for v in held]
    following = layers.Dense(2)
    following.build((None, 3))
    draws = (random.random(), np.random.rand(), *np.ravel(following.kernel), float(keras.random.normal(())))
    if BACKEND == "tensorflow":
        draws = (*draws, float(tf.random.normal(())))
    return model, values, history.history, draws, callbacks


def assert_same(left, right):
    _, values, history, draws, _ = left
    _, values_with, history_with, draws_with, _ = right
    assert len(values) == len(values_with)
    for a, b in zip(values, values_with, strict=True):
        np.testing.assert_array_equal(a, b)
    assert history.keys() == history_with.keys()
    for name in history:
        np.testing.assert_array_equal(history[name], history_with[name], err_msg=name)
    assert draws == draws_with


def from_the_package(value):
    """Whether a function or an object was made by the package, a layer's activation for one."""
    return "keras_initaudit" in (getattr(value, "__module__", None) or "")


def assert_clean(model):
    for layer in model._flatten_layers():
        hooks = {"call", "_compute_attention", "_apply_scores", "compute_loss", "train_step"} & vars(layer).keys()
        assert not hooks, (layer.name, hooks)
        assert not from_the_package(getattr(layer, "activation", None)), f"activation of {layer.name}"
    for name, value in vars(model).items():
        assert not from_the_package(value), name
        if isinstance(value, keras.optimizers.Optimizer):
            assert not {"apply", "stateless_apply"} & vars(value).keys()


def test_the_check_for_what_is_left_behind_can_fail():
    model = keras.Sequential([keras.Input((3,)), layers.Dense(2, "relu")])
    model.compile("sgd", "mse")
    assert_clean(model)
    frame = importlib.import_module(f"keras_initaudit.observe.engines.{BACKEND}.frame")
    made = {"tensorflow": "GraphFrame", "jax": "JaxFrame"}[BACKEND]
    with Recording(model, getattr(frame, made)()).installed():
        watched = model.layers[0].activation
        with pytest.raises(AssertionError):
            assert_clean(model)
    assert_clean(model)
    for owner, name in ((model.layers[0], "activation"), (model, "make_train_function")):
        with replaced(owner, name, watched), pytest.raises(AssertionError, match=name):
            assert_clean(model)
    assert_clean(model)


def audited(tmp_path, **options):
    return [InitAudit(tmp_path, schedule=[0, 1, 2, 5], verbose=0, on_finding="silent", **options)]


QUICK_ON_JAX = {"accumulated_clipped_averaged", "attention", "four_steps_per_execution", "layer_with_own_state"}
QUICK_ON_JAX |= {"mixed_bfloat16", "pydataset", "recurrent_with_masks", "several_inputs_and_outputs"}
QUICK_ON_JAX |= {
    "eager_stateless_train_step",
    "stateless_train_step",
    "unbuilt_sequential",
    "validation_data_and_initial_epoch",
}
"""The cases of the default run on JAX, which compiles each of them four times."""


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.slow) if BACKEND == "jax" and name not in QUICK_ON_JAX else name
        for name in CASES
    ],
)
def test_bit_identical_with_and_without(name, tmp_path):
    plain = state_after(CASES[name], list)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="InitAudit")
        watched = state_after(CASES[name], lambda: audited(tmp_path))
    assert_same(plain, watched)
    model, callback = watched[0], watched[4][0]
    assert callback.reports[0].step == 0
    assert len(callback.reports) >= 2
    assert any(np.isfinite(row.gradient_rms) and row.gradient_rms > 0 for row in callback.snapshots[-1].statistics)
    assert_clean(model)
    assert threading.active_count() < 50


class Conditional(Inner):
    """Updates within a condition, where the gradients cannot be seen from outside."""

    @compiled
    def update(self, x, y):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.square(self(x) - y))
        gradients = tape.gradient(loss, self.trainable_variables)
        self.optimizer.build(self.trainable_variables)
        if loss > 0.0:  # of a tensor: TensorFlow makes a branch of it
            self.optimizer.apply(gradients, self.trainable_variables)
        return loss


class Looking(Inner):
    """Asks for what the audit's stand-in of an optimizer does not have."""

    def train_step(self, data):
        x, y = data
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.square(self(x) - y))
        self.optimizer.apply(tape.gradient(loss, self.trainable_variables), self.trainable_variables)
        if not self.optimizer.built:
            raise RuntimeError("not built")
        return {"own": loss}


of_tensorflow = pytest.mark.skipif(BACKEND != "tensorflow", reason="steps and settings of TensorFlow's own")


@of_tensorflow
@pytest.mark.parametrize("kind", [Conditional, Looking])
def test_a_model_that_cannot_be_audited_trains_as_without(kind, tmp_path):
    def build():
        model = kind()
        model.compile("adam")
        return model, {"x": X, "y": Y}

    plain = state_after(build, list)
    with pytest.warns(UserWarning, match="InitAudit stops auditing this fit at step 0") as caught:
        watched = state_after(build, lambda: audited(tmp_path))
    assert sum("InitAudit" in str(warning.message) for warning in caught) == 1
    assert_same(plain, watched)
    assert watched[4][0].reports == []
    assert_clean(watched[0])


DETERMINISM = """
import pathlib, sys
import tensorflow as tf
tf.config.experimental.enable_op_determinism()
import test_conformance as conformance
for name in ("normalized_convolutions", "attention", "recurrent_with_masks", "two_optimizers"):
    folder = pathlib.Path(sys.argv[1]) / name
    plain = conformance.state_after(conformance.CASES[name], list)
    watched = conformance.state_after(conformance.CASES[name], lambda: conformance.audited(folder))
    conformance.assert_same(plain, watched)
    assert len(watched[4][0].reports) >= 2
    conformance.assert_clean(watched[0])
print("identical")
"""


@of_tensorflow
def test_bit_identical_where_operations_are_made_deterministic(tmp_path):
    """A process of its own: TensorFlow does not let go of the setting."""
    done = subprocess.run(
        [sys.executable, "-W", "error:InitAudit", "-c", DETERMINISM, tmp_path],
        cwd=Path(__file__).parent,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    assert done.stdout.splitlines()[-1] == "identical"


def test_the_comparison_sees_a_difference_of_one_bit():
    plain = state_after(CASES["sequential"], list)

    class Nudge(keras.callbacks.Callback):
        def on_train_end(self, logs=None):
            bias = self.model.layers[-1].bias
            bias.assign(np.nextafter(np.asarray(bias.value), np.float32(np.inf)))

    with pytest.raises(AssertionError):
        assert_same(plain, state_after(CASES["sequential"], lambda: [Nudge()]))
