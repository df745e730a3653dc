"""Faults of the wild, planted in real Keras models: each named by its rule, at its layer, as one cause; then mended.

Each fault is built and probed once, and asked three things: is it named, does the remedy that is shown mend it, does
`initialize` cure it. What cannot be mended stands in a list with the reason, and the lists are held in both directions:
a fault that loses its remedy or its cure turns a test red, and so does one that gains it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import keras
import looking
import numpy as np
import pytest
from keras import initializers, layers

from keras_initaudit import initialize
from keras_initaudit.auditing import judge
from keras_initaudit.diagnosis import Thresholds, diagnose
from keras_initaudit.observe.engines import FirstCall
from keras_initaudit.observe.probe import Probe
from keras_initaudit.records import Finding, Snapshot
from keras_initaudit.records.remedies import Activate
from keras_initaudit.remedies import apply

Model = tuple[Any, Any, Any]


def mlp(
    depth: int,
    activation: str = "relu",
    kernel: Any = "he_normal",
    *,
    bias: Any = "zeros",
    width: int = 32,
    x: Any = None,
    only: int | None = None,
    otherwise: Any = "he_normal",
) -> Model:
    """A dense stack `h0`, `h1`, ... with a softmax `head`; with `only`, the fault sits in that layer alone."""
    x = looking.vectors() if x is None else x
    stack: list[Any] = [keras.Input(x.shape[1:])]
    for i in range(depth):
        faulty = only is None or only == i
        stack.append(
            layers.Dense(
                width,
                activation,
                kernel_initializer=clone(kernel if faulty else otherwise, i),
                bias_initializer=clone(bias, i) if faulty else "zeros",
                name=f"h{i}",
            )
        )
    stack.append(layers.Dense(5, "softmax", name="head", kernel_initializer=clone("glorot_uniform", 99)))
    return looking.compiled(keras.Sequential(stack)), x, looking.classes()


def clone(initializer: Any, seed: int) -> Any:
    """The same initializer with a seed of its own."""
    one = initializers.get(initializer)
    config = one.get_config()
    if "seed" in config:
        config["seed"] = seed
    return type(one).from_config(config)


def convolutions(kernel: Any = "he_normal", *, depth: int = 6, layer: Any = None, x: Any = None) -> Model:
    x = looking.images() if x is None else x
    stack: list[Any] = [keras.Input(x.shape[1:])]
    for i in range(depth):
        make = layer or (lambda **k: layers.Conv2D(16, 3, padding="same", **k))
        stack.append(make(activation="relu", kernel_initializer=clone(kernel, i), name=f"c{i}"))
    stack += [layers.GlobalAveragePooling2D(), layers.Dense(5, "softmax", name="head")]
    return looking.compiled(keras.Sequential(stack)), x, looking.classes()


def two_branches(kernel: Any, seeds: tuple[int, int] = (1, 2)) -> Model:
    x = looking.vectors()
    inputs = keras.Input((32,))
    a = layers.Dense(16, "relu", kernel_initializer=clone(kernel, seeds[0]), name="a")(inputs)
    b = layers.Dense(16, "relu", kernel_initializer=clone("he_normal", seeds[1]), name="b")(inputs)
    out = layers.Dense(5, "softmax", name="head")(layers.Add()([a, b]))
    return looking.compiled(keras.Model(inputs, out)), x, looking.classes()


def zero_branch() -> Model:
    x = looking.vectors()
    inputs = keras.Input((32,))
    a = layers.Dense(16, "relu", kernel_initializer="zeros", name="a0")(inputs)
    a = layers.Dense(16, "relu", kernel_initializer="zeros", name="a1")(a)
    b = layers.Dense(16, "relu", kernel_initializer="he_normal", name="b")(inputs)
    out = layers.Dense(5, "softmax", name="head")(layers.Concatenate()([a, b]))
    return looking.compiled(keras.Model(inputs, out)), x, looking.classes()


def recurrent(kind: Any, **arguments: Any) -> Model:
    x = looking.sequences()
    stack = [keras.Input(x.shape[1:]), kind(32, name="rnn", **arguments), layers.Dense(5, "softmax", name="head")]
    return looking.compiled(keras.Sequential(stack)), x, looking.classes()


def attention(std: float) -> Model:
    x = looking.sequences(12, 32)
    inputs = keras.Input(x.shape[1:])
    kernel = initializers.RandomNormal(stddev=std, seed=1)
    h = layers.MultiHeadAttention(2, 16, kernel_initializer=kernel, name="attention")(inputs, inputs)
    h = layers.GlobalAveragePooling1D()(layers.LayerNormalization()(layers.Add()([inputs, h])))
    return looking.compiled(keras.Model(inputs, layers.Dense(5, "softmax", name="head")(h))), x, looking.classes()


def regression(scale: float, offset: float = 0.0) -> Model:
    x = looking.vectors()
    y = (scale * np.random.default_rng(3).normal(size=(len(x), 1)) + offset).astype("float32")
    stack = [keras.Input((32,)), layers.Dense(32, "relu", name="h0"), layers.Dense(1, name="head")]
    return looking.compiled(keras.Sequential(stack), "mse"), x, y


def nan_in_targets() -> Model:
    model, x, y = regression(1.0)
    y = y.copy()
    y[3] = np.nan
    return model, x, y


def one_raw_input() -> Model:
    x = {"numbers": looking.vectors(), "prices": raw(low=0, high=1_000_000)}
    inputs = {name: keras.Input((32,), name=name) for name in x}
    parts = [layers.Dense(16, "relu", name=f"from_{name}")(part) for name, part in inputs.items()]
    out = layers.Dense(5, "softmax", name="head")(layers.Concatenate()(parts))
    return looking.compiled(keras.Model(inputs, out)), x, looking.classes()


def softmax_of_one() -> Model:
    x = looking.vectors()  # with a cross-entropy Keras goes back to the logits, and there is a gradient
    stack = [keras.Input((32,)), layers.Dense(32, "relu", name="h0"), layers.Dense(1, "softmax", name="head")]
    y = (looking.classes(2)[:, None]).astype("float32")
    return looking.compiled(keras.Sequential(stack), "mse"), x, y


def dead_head() -> Model:
    x = looking.vectors()
    head = layers.Dense(1, "relu", bias_initializer=initializers.Constant(-30.0), name="head")
    stack = [keras.Input((32,)), layers.Dense(32, "relu", name="h0"), head]
    return looking.compiled(keras.Sequential(stack), "mse"), x, np.ones((len(x), 1), "float32")


def frozen() -> Model:
    model, x, y = mlp(3)
    model.trainable = False
    return looking.compiled(model), x, y


def disconnected() -> Model:
    class Forgetful(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.unused = layers.Dense(16, "relu", name="used"), layers.Dense(16, name="unused")
            self.head = layers.Dense(5, "softmax", name="head")

        def call(self, x: Any) -> Any:
            self.unused(x)
            return self.head(self.used(x))

    return looking.compiled(Forgetful()), looking.vectors(), looking.classes()


def with_nan(where: str) -> Model:
    if where == "data":
        model, x, y = mlp(3)
        x = x.copy()
        x[3, 5] = np.nan
        return model, x, y
    if where == "layer":
        x = looking.vectors()
        stack = [
            keras.Input((32,)),
            layers.Dense(32, "relu", name="h0"),
            layers.Lambda(lambda t: keras.ops.log(t - 1e3), name="log"),
            layers.Dense(5, "softmax", name="head"),
        ]
        return looking.compiled(keras.Sequential(stack)), x, looking.classes()
    model, x, y = mlp(3)
    kernel = model.get_layer("h1").kernel
    value = np.array(kernel)
    value[0, 0] = np.inf
    kernel.assign(value)
    return model, x, y


def raw(shape: tuple[int, ...] = (32,), low: float = 0.0, high: float = 256.0) -> Any:
    return np.random.default_rng(0).integers(low, high, (looking.SAMPLES, *shape)).astype("float32")


def transposed() -> Model:
    x = looking.images(8, 16)
    stack = [keras.Input(x.shape[1:])]
    stack += [
        layers.Conv2DTranspose(n, 4, 2, "same", activation="relu", kernel_initializer="he_normal", name=f"t{i}")
        for i, n in enumerate((16, 8))
    ]
    stack += [layers.Conv2DTranspose(3, 4, 2, "same", kernel_initializer="he_normal", name="t2")]
    y = np.zeros((len(x), 64, 64, 3), "float32")
    return looking.compiled(keras.Sequential(stack), "mse"), x, y


def depthwise() -> Model:
    def make(**arguments: Any) -> Any:
        arguments["depthwise_initializer"] = arguments.pop("kernel_initializer")
        return layers.DepthwiseConv2D(3, padding="same", **arguments)

    return convolutions("he_normal", depth=6, layer=make, x=looking.images(12, 32))


def normal(std: float) -> Any:
    return initializers.RandomNormal(stddev=std)


FAULTS: dict[str, tuple[Callable[[], Model], str, str, str]] = {
    # name: (model, rule, prefix of the layer, severity: "bad", "warning", or "" where both will do)
    "zeros everywhere": (lambda: mlp(3, kernel="zeros"), "symmetric-units", "h0", "bad"),
    "zeros everywhere, tanh": (lambda: mlp(3, "tanh", "zeros"), "symmetric-units", "h0", "bad"),
    "constant everywhere": (lambda: mlp(3, "tanh", initializers.Constant(0.05)), "symmetric-units", "h0", "bad"),
    "ones everywhere": (lambda: mlp(3, kernel="ones"), "symmetric-units", "h0", "bad"),
    "one layer zero": (lambda: mlp(4, kernel="zeros", only=1), "symmetric-units", "h1", "bad"),
    "one layer constant": (lambda: mlp(4, kernel=initializers.Constant(0.1), only=1), "symmetric-units", "h1", ""),
    "one branch constant": (lambda: two_branches(initializers.Constant(0.1)), "symmetric-units", "a", ""),
    "one branch zero": (zero_branch, "symmetric-units", "a0", "bad"),
    "zero convolutions": (lambda: convolutions("zeros"), "symmetric-units", "c0", "bad"),
    "constant convolutions": (
        lambda: convolutions(initializers.Constant(0.02)),
        "symmetric-units",
        "c0",
        "bad",
    ),
    "stddev 1 in a deep net": (lambda: mlp(10, kernel=normal(1.0)), "exploding-signal", "", "bad"),
    "stddev 0.01 in a deep net": (lambda: mlp(10, kernel=normal(0.01)), "vanishing-signal", "", "bad"),
    "stddev 0.01, tanh": (lambda: mlp(10, "tanh", normal(0.01)), "vanishing-signal", "", "bad"),
    "stddev 1, tanh": (lambda: mlp(10, "tanh", normal(1.0)), "saturated-units", "h", "bad"),
    "stddev 4, sigmoid": (lambda: mlp(6, "sigmoid", normal(4.0)), "saturated-units", "h", "bad"),
    "stddev 0.01, convolutions": (lambda: convolutions(normal(0.01), depth=8), "vanishing-signal", "", "bad"),
    "stddev 1, convolutions": (lambda: convolutions(normal(1.0), depth=6), "exploding-signal", "", "bad"),
    "one layer far too large": (lambda: mlp(6, kernel=normal(1e4), only=2), "exploding-signal", "h2", "bad"),
    "sigmoid stack": (lambda: mlp(10, "sigmoid", "glorot_uniform"), "vanishing-gradient", "h0", "bad"),
    "Glorot on a deep ReLU net": (lambda: mlp(32, kernel="glorot_uniform"), "vanishing-signal", "", "bad"),
    "LeCun on a deep GELU net": (lambda: mlp(32, "gelu", "lecun_normal"), "vanishing-signal", "", "bad"),
    "LeCun on a deep SiLU net": (lambda: mlp(24, "silu", "lecun_normal"), "vanishing-signal", "", "bad"),
    "twice the gain on a deep ReLU net": (
        lambda: mlp(24, kernel=initializers.VarianceScaling(8.0, "fan_in", "untruncated_normal")),
        "exploding-signal",
        "",
        "bad",
    ),
    "one layer far too small": (lambda: mlp(6, kernel=normal(1e-7), only=2), "vanishing-signal", "h2", "bad"),
    "dead by bias": (lambda: mlp(4, bias=initializers.Constant(-20.0), only=1), "dead-units", "h1", "bad"),
    "dead by bias everywhere": (lambda: mlp(4, bias=initializers.Constant(-20.0)), "dead-units", "h", "bad"),
    "dead by scale": (
        lambda: mlp(4, kernel=initializers.RandomUniform(-0.3, -0.1), only=1),
        "dead-units",
        "h1",
        "bad",
    ),
    "dead head": (dead_head, "dead-units", "head", "bad"),
    "saturated gates, LSTM": (
        lambda: recurrent(layers.LSTM, kernel_initializer=normal(8.0)),
        "saturated-units",
        "rnn",
        "bad",
    ),
    "saturated gates, GRU": (
        lambda: recurrent(layers.GRU, kernel_initializer=normal(8.0)),
        "saturated-units",
        "rnn",
        "bad",
    ),
    "saturated attention": (lambda: attention(2.0), "attention-entropy", "attention", "bad"),
    "exploding recurrent kernel": (
        lambda: recurrent(layers.SimpleRNN, activation="relu", recurrent_initializer=normal(1.0)),
        "exploding-signal",
        "rnn",
        "bad",
    ),
    "raw pixels": (lambda: mlp(4, x=raw()), "input-scale", "h0", "bad"),
    "raw pixels, SGD": (lambda: by_descent(mlp(4, x=raw())), "input-scale", "h0", "bad"),
    "raw pixels, tanh": (
        lambda: by_descent(mlp(4, "tanh", "glorot_uniform", x=raw())),
        "input-scale",
        "h0",
        "bad",
    ),
    "raw pixels, convolutions": (
        lambda: by_descent(convolutions(x=raw((12, 12, 3)))),
        "input-scale",
        "c0",
        "bad",
    ),
    "raw bytes": (lambda: mlp(4, x=raw().astype("uint8")), "input-scale", "h0", ""),
    "one raw input of two": (one_raw_input, "input-scale", "from_prices", "bad"),
    "raw prices": (lambda: mlp(4, x=raw(low=0, high=1_000_000)), "input-scale", "h0", "bad"),
    "data far too small": (lambda: mlp(3, x=1e-8 * looking.vectors()), "input-scale", "h0", "bad"),
    "raw targets": (lambda: regression(1e4), "target-scale", "(target)", "bad"),
    "targets far from zero": (lambda: regression(1.0, 20.0), "initial-loss", "head", "warning"),
    "over-confident head": (lambda: over_confident(), "initial-loss", "head", "warning"),
    "over-confident logits": (lambda: over_confident(logits=True), "initial-loss", "head", "bad"),
    "NaN in the data": (lambda: with_nan("data"), "non-finite", "(input)", "bad"),
    "NaN in the targets": (nan_in_targets, "non-finite", "(target)", "bad"),
    "NaN born in a layer": (lambda: with_nan("layer"), "non-finite", "log", "bad"),
    "infinite weight": (lambda: with_nan("weight"), "non-finite", "h1", "bad"),
    "softmax of one": (softmax_of_one, "output-activation", "head", "bad"),
    "frozen by mistake": (frozen, "no-gradient", "", "bad"),
    "disconnected layer": (disconnected, "no-gradient", "", ""),
    "one seed in two added branches": (lambda: two_branches("he_normal", (7, 7)), "duplicate-kernels", "b", "bad"),
    "one seed in every layer": (lambda: one_seed(), "duplicate-kernels", "h", "warning"),
    "depthwise fans": (depthwise, "fan-mismatch", "c", "bad"),
    "transposed fans": (transposed, "fan-mismatch", "t", ""),
}


def over_confident(logits: bool = False) -> Model:
    """The loss of probabilities is cut off at 16, that of logits is not."""
    model, x, y = mlp(3)
    model.get_layer("head").kernel.assign((1000.0 if logits else 10.0) * np.random.default_rng(0).normal(size=(32, 5)))
    if logits:
        model.get_layer("head").activation = keras.activations.linear
        model.compile("adam", looking.logits_loss())
    return model, x, y


def by_descent(made: Model) -> Model:
    model, x, y = made
    return looking.compiled(model, optimizer="sgd"), x, y


def one_seed() -> Model:
    x = looking.vectors()
    stack = [keras.Input((32,))]
    stack += [
        layers.Dense(32, "relu", kernel_initializer=initializers.HeNormal(seed=1), name=f"h{i}") for i in range(3)
    ]
    stack += [layers.Dense(5, "softmax", name="head")]
    return looking.compiled(keras.Sequential(stack)), x, looking.classes()


# --- what is done about them


NO_REMEDY = {
    # name: why no code is shown
    "NaN born in a layer": "the layer has no weight: its formula is wrong for what arrives there",
    "frozen by mistake": "whether to train a layer is not for an audit to decide",
    "disconnected layer": "whether to use a layer is not for an audit to decide",
}

WHOLE_MODEL = {
    # name: why the remedy of the named layers does not do, so that a trial puts a new start of the model in its place
    "dead by bias everywhere": "behind the first dead layer nothing is seen of the others",
}

NO_CURE = {
    # name: why `initialize` leaves it as it is
    "dead head": "the biases of a head are kept, for they may be log-odds",
    "raw pixels": "the data is at fault",
    "raw pixels, SGD": "the data is at fault",
    "raw pixels, tanh": "the data is at fault",
    "raw pixels, convolutions": "the data is at fault",
    "raw bytes": "the data is at fault",
    "one raw input of two": "the data is at fault",
    "raw prices": "the data is at fault",
    "data far too small": "the data is at fault",
    "raw targets": "the targets are at fault",
    "targets far from zero": "the targets are at fault, and the biases of a head are kept",
    "NaN in the data": "the data is at fault",
    "NaN in the targets": "the targets are at fault",
    "NaN born in a layer": "a formula is at fault",
    "softmax of one": "the architecture is at fault",
    "frozen by mistake": "frozen weights are kept",
    "disconnected layer": "the architecture is at fault",
}


LEARNS = {
    # name: why the batch is learnt all the same, about as fast as with the remedy
    "stddev 1, tanh": "Adam takes units out of saturation",
    "stddev 4, sigmoid": "Adam takes units out of saturation, late",
    "stddev 1, convolutions": "Adam comes back from outputs that are too large, late",
    "one layer far too large": "Adam comes back from outputs that are too large",
    "one layer far too small": "Adam's steps are far larger than weights of 1e-7",
    "saturated gates, LSTM": "Adam takes gates out of saturation, late",
    "saturated gates, GRU": "Adam takes gates out of saturation",
    "raw pixels": "Adam's steps do not grow with the data",
    "raw pixels, tanh": "tanh keeps the steps short",
    "raw bytes": "Adam's steps do not grow with the data",
    "raw prices": "Adam's steps do not grow with the data",
    "over-confident head": "the loss of probabilities is cut off",
    "one seed in two added branches": "one of the branches does",
    "one seed in every layer": "the layers differ by what they are given",
}


class Case:
    """One fault: the model with its data, probed once and kept as it was built."""

    def __init__(self, name: str) -> None:
        keras.backend.clear_session()  # the draws of a new start follow from the names of the layers
        keras.utils.set_random_seed(11)
        make, self.rule, self.layer, self.severity = FAULTS[name]
        self.name = name
        self.model, x, y = make()
        self.batch = looking.batch(x, y)
        self.probe = Probe(self.model, self.batch, histograms=False)
        self.before = self.probe.measure(0)
        self.findings = diagnose([self.before])

    def again(self, batch: Any) -> tuple[Snapshot, tuple[Finding, ...]]:
        """What another probe sees now; eagerly, which spares a trace, and is a second way to the same numbers."""
        self.model.run_eagerly = self.name != "raw bytes"
        try:
            after = Probe(self.model, batch, histograms=False).measure(0)
        finally:
            self.model.run_eagerly = False
        return after, diagnose([after])


@pytest.fixture(scope="module", params=FAULTS)
def case(request: pytest.FixtureRequest) -> Case:
    return Case(request.param)


def test_fault_is_named(case: Case) -> None:
    told = looking.told(case.findings)
    assert case.findings, told
    first, *others = case.findings
    assert first.rule == case.rule, told
    assert (first.layer or "").startswith(case.layer), told
    assert not case.severity or first.severity == case.severity, told
    assert not [f for f in others if f.severity == "bad"], told


@pytest.mark.slow
def test_a_trial_says_how_bad_it_is(case: Case) -> None:
    call = FirstCall(case.batch, False, None, None)
    report = judge(case.probe, [case.before], Thresholds(), call=call)
    told = looking.told(report.findings), report.trials
    if case.name in LEARNS:
        assert report.trials[0].outcome in ("note", "warning"), told
        assert report.verdict != "bad", told
    elif case.severity == "bad":
        assert report.verdict == "bad", told


def test_its_remedy_mends_the_model(case: Case) -> None:
    remedy = case.findings[0].action
    assert (remedy is None) == (case.name in NO_REMEDY), remedy
    if remedy is None or isinstance(remedy, Activate):  # what that does shows in training alone
        return
    keras.utils.set_random_seed(12)  # a new start of the whole model draws its seed
    with looking.kept(case.model):
        after, left = case.again(apply(remedy, case.model, case.batch))
    mended = not [f for f in left if f.severity == "bad" or f.rule == case.rule]
    assert mended == (case.name not in WHOLE_MODEL), looking.told(left)
    assert math.isfinite(after.loss)


def test_a_new_start_cures_it_unless_it_is_none_of_the_weights(case: Case) -> None:
    with looking.kept(case.model):
        initialize(case.model, seed=0)
        _, left = case.again(case.batch)
    if case.name in NO_CURE:
        assert case.rule in [f.rule for f in left], f"{NO_CURE[case.name]}, and yet it is gone: {looking.told(left)}"
    else:
        assert not left, looking.told(left)


def test_raw_bytes_are_named_where_the_model_runs_eagerly() -> None:
    model, x, y = FAULTS["raw bytes"][0]()
    model.run_eagerly = True
    assert [f.rule for f in looking.found(model, x, y)] == ["input-scale"]


def test_the_lists_speak_of_faults_that_there_are() -> None:
    assert {*NO_REMEDY, *WHOLE_MODEL, *NO_CURE, *LEARNS} <= FAULTS.keys()
