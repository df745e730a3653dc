"""What the models of `known_faults.py` are made of: data that is shipped or made, and short builders.

Every data set is a pair `(x, y)` in a fixed random order, so that the first batch is a fair sample. Nothing is
downloaded, and two calls give the same.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import initializers, layers
from sklearn import datasets

Array = np.ndarray[Any, np.dtype[Any]]
Start = tuple[Any, Any, Any]
"""A compiled model as it is built, with its inputs and targets."""


@dataclass(frozen=True)
class Fault:
    """A start that the literature or a public question describes as faulty, and the same one repaired."""

    name: str
    family: str
    source: str
    """The benchmark or question, what it describes, and where."""
    named: frozenset[str]
    """The rules that name the right cause."""
    faulty: Callable[[], Start]
    repaired: Callable[[], Start]


@dataclass(frozen=True)
class Healthy:
    """A model that learns as it is."""

    name: str
    family: str
    build: Callable[[], Start]
    ends: tuple[float, float] | None = None
    """Loss of the best constant answer and of the targets, where the compiled loss does not say."""


AUTOTRAINER = "AutoTrainer, ICSE 2021, doi.org/10.1109/ICSE43902.2021.00043"
DEEPLOCALIZE = "DeepLocalize, ICSE 2021, arxiv.org/abs/2103.03376, and DeepFD, ICSE 2022, arxiv.org/abs/2205.01938"
UMLAUT = "UMLAUT, CHI 2021, doi.org/10.1145/3411764.3445538"
DEEPDIAGNOSIS = "DeepDiagnosis, ICSE 2022, arxiv.org/abs/2112.04036"
DEEPCHECKER = "TheDeepChecker, TOSEM 2022, arxiv.org/abs/2204.00694"

VANISHES = "vanishing-signal vanishing-gradient collapsed-samples"
EXPLODES = "exploding-signal exploding-gradient"
RATE_LOW = "update-ratio no-update not-learning"


def fault(
    name: str, family: str, source: str, named: str, faulty: Callable[[], Start], repaired: Callable[[], Start]
) -> Fault:
    return Fault(name, family, source, frozenset(named.split()), faulty, repaired)


def asked(number: int, says: str) -> str:
    """A question on Stack Overflow that a benchmark took up."""
    return f"{DEEPLOCALIZE}: stackoverflow.com/questions/{number}: {says}"


def issue(number: int, says: str) -> str:
    return f"github.com/keras-team/keras/issues/{number}: {says}"


def ordered(x: Array, y: Array) -> tuple[Array, Array]:
    """In a fixed random order; float32, classes int32."""
    order = np.random.default_rng(0).permutation(len(x))
    y = np.asarray(y)
    return np.asarray(x, "float32")[order], y[order].astype("int32" if y.dtype.kind in "iu" else "float32")


def standard(values: Array) -> Array:
    """Each column with mean 0 and standard deviation 1; a constant column stays 0."""
    return ((values - values.mean(0)) / np.where(values.std(0) > 0, values.std(0), 1)).astype("float32")


@functools.cache
def shipped(name: str, scaled: bool = True) -> tuple[Array, Array]:
    """`iris`, `wine` or `breast_cancer` of scikit-learn; raw columns unless `scaled`."""
    x, y = ordered(*getattr(datasets, f"load_{name}")(return_X_y=True))
    return (standard(x) if scaled else x), y


@functools.cache
def digits(scale: str = "standard", image: bool = False) -> tuple[Array, Array]:
    """The digits: `standard`, between 0 and 1 (`unit`) or as bytes are, between 0 and 255 (`bytes`)."""
    x, y = ordered(*datasets.load_digits(return_X_y=True))
    x = {"standard": (x - x.mean()) / x.std(), "unit": x / 16, "bytes": x * (255 / 16)}[scale]
    return (x.reshape(-1, 8, 8, 1) if image else x).astype("float32"), y


def with_one_hot(data: tuple[Array, Array]) -> tuple[Array, Array]:
    return data[0], np.eye(int(data[1].max()) + 1, dtype="float32")[data[1]]


def column(y: Array) -> Array:
    return y.reshape(len(y), 1).astype("float32")


@functools.cache
def made(kind: str, samples: int = 512) -> tuple[Array, Array]:
    """Data sets of two columns or one: `xor`, `circle`, `blob`, `line`, `square`, `quartic`."""
    rng = np.random.default_rng(5)
    if kind == "xor":
        x = rng.integers(0, 2, (samples, 2)).astype("float32")
        return x, column(x[:, 0] != x[:, 1])
    if kind == "circle":
        return ordered(*datasets.make_circles(samples, noise=0.08, factor=0.4, random_state=5))
    if kind == "blob":
        x, y = datasets.make_blobs(samples, centers=3, cluster_std=2.0, random_state=5)
        return ordered(standard(x), y)
    high = {"line": 200.0, "square": 5.0, "quartic": 100.0}[kind]
    x = rng.uniform(-high if kind == "quartic" else 0, high, (samples, 1))
    y = {"line": lambda: 2 * x, "square": lambda: 5 * x**2 + rng.normal(size=x.shape) ** 3, "quartic": lambda: x**4}
    return ordered(x, y[kind]())


@functools.cache
def table(spread: float = 0.0, columns: int = 8, samples: int = 512) -> tuple[Array, Array]:
    """Two classes by a smooth function of columns, standard ones or each 10**spread times as wide as the last."""
    rng = np.random.default_rng(6)
    x = rng.normal(size=(samples, columns))
    y = (np.tanh(x[:, :3] @ [1.0, -1.0, 0.5]) + 0.5 * x[:, 3] * x[:, 4] > 0).astype("int32")
    factor = 10.0 ** (spread * np.arange(columns))
    return (x * factor + (3 * factor if spread else 0)).astype("float32"), y


@functools.cache
def numbers(kind: str, scaled: bool = True) -> tuple[Array, Array]:
    """Regressions, one column of targets; both sides standardised where `scaled`."""
    rng = np.random.default_rng(10)
    if kind in ("line", "square", "quartic"):
        x, y = made(kind)
    elif kind == "smooth":
        x = rng.normal(size=(512, 9))
        y = column(np.tanh(x[:, 0] - x[:, 1]) + 0.5 * x[:, 2] + 0.1 * rng.normal(size=512))
    elif kind == "alcohol":  # of the other columns of the wines, one of which goes up to 1700
        wine = shipped("wine", scaled=False)[0]
        x, y = wine[:, 1:], standard(wine[:, :1])
    elif kind == "bits":
        x = rng.integers(0, 2, (512, 12)).astype("float32")
        y = x @ (2.0 ** np.arange(12))[:, None]
    elif kind == "prices":  # the price of the next day, divided by the largest one of all times
        walk = 0.1 + 0.01 * np.cumsum(rng.normal(size=600)).astype("float32")
        x, y = np.stack([walk[i : i + 5] for i in range(512)]), walk[5:517, None]
    elif kind == "plane":  # two raw columns
        x = rng.normal(50, 10, (512, 2))
        y = 3 * x[:, :1] - 2 * x[:, 1:]
    elif kind == "negative":  # y = 2 x - 1
        x = rng.uniform(-1, 6, (128, 1))
        y = 2 * x - 1
    else:
        raise ValueError(kind)
    x, y = ordered(x, y)
    return (standard(x), standard(y)) if scaled else (x, y)


def between(low: float, high: float) -> tuple[Array, Array]:
    """The smooth regression with targets from `low` to `high`."""
    x, y = numbers("smooth")
    return x, low + (high - low) * (y - y.min()) / (y.max() - y.min())


def binary(name: str, scaled: bool = True) -> tuple[Array, Array]:
    """Two classes as a column of zeros and ones."""
    rng = np.random.default_rng(11)
    if name == "moons":
        x, y = ordered(*datasets.make_moons(512, noise=0.1, random_state=5))
    elif name == "thousands":  # one column of several thousand
        x = rng.uniform(1000, 9000, (512, 1)).astype("float32")
        y = (x[:, 0] > 5000).astype("int32")
    else:
        x, y = shipped(name, scaled=False)
    return (standard(x) if scaled else x), column(y)


def clusters(scaled: bool = True) -> tuple[Array, Array]:
    """Two squares beside each other, from 0.2 to 0.4 and from 0.5 to 0.7."""
    rng = np.random.default_rng(12)
    y = rng.integers(0, 2, 256)
    x = rng.uniform(0.2, 0.4, (256, 2)) + 0.3 * y[:, None]
    x, y = ordered(x, y)
    return (standard(x) if scaled else x), y


def labels() -> tuple[Array, Array]:
    """Samples with any of three labels."""
    x, y = datasets.make_multilabel_classification(n_samples=512, n_features=20, n_classes=3, random_state=5)
    return standard(x), y.astype("float32")


def holed(value: float, targets: bool = False) -> tuple[Array, Array]:
    """A standard table, one in thirty of whose inputs or targets is `value`."""
    rng = np.random.default_rng(13)
    x, y = numbers("smooth") if targets else shipped("breast_cancer")
    spoilt = (y if targets else x).copy()
    spoilt[rng.random(spoilt.shape) < 1 / 30] = value
    spoilt[3, 0] = value
    return (x, spoilt) if targets else (spoilt, y)


@functools.cache
def waves(length: int = 24, samples: int = 512, level: float = 0.0, scale: float = 1.0) -> tuple[Array, Array]:
    """Noisy sines, one column, and the value that comes next; `level` and `scale` as prices have them."""
    rng = np.random.default_rng(7)
    time = np.arange(length + 1) * rng.uniform(0.2, 0.6, (samples, 1)) + rng.uniform(0, 6, (samples, 1))
    series = level + scale * (np.sin(time) + 0.05 * rng.normal(size=time.shape))
    return series[:, :length, None].astype("float32"), series[:, length:].astype("float32")


@functools.cache
def sequences(length: int = 24, samples: int = 512, early: bool = False) -> tuple[Array, Array]:
    """Sequences of four columns in two classes, by the mean of the first column, or by a clear first step."""
    rng = np.random.default_rng(8)
    x = rng.normal(size=(samples, length, 4))
    y = x[:, 0, 0] > 0 if early else x[:, :, 0].mean(1) > 0
    x[:, 1:] *= 0.2 if early else 1.0
    return x.astype("float32"), y.astype("int32")


@functools.cache
def sentences(words: int = 400, length: int = 16, samples: int = 512) -> tuple[Array, Array]:
    """Word numbers in two classes: words of the lower half are good ones, and the larger part decides."""
    rng = np.random.default_rng(9)
    bias = rng.uniform(0.15, 0.85, (samples, 1))
    good = rng.random((samples, length)) < bias
    x = rng.integers(1, words // 2, (samples, length)) + np.where(good, 0, words // 2)
    return x.astype("int32"), (good.mean(1) > 0.5).astype("int32")


def optimizer(text: str) -> Any:
    """`"sgd 0.1"`, `"momentum 0.1"` (0.9), `"adam 1e-3"`, ...; without a rate, Keras's own."""
    name, _, rate = text.partition(" ")
    options = {"learning_rate": float(rate)} if rate else {}
    if name == "momentum":
        return keras.optimizers.SGD(momentum=0.9, **options)
    made_of = {"sgd": "SGD", "adam": "Adam", "rmsprop": "RMSprop", "nadam": "Nadam", "adamw": "AdamW", "lion": "Lion"}
    return getattr(keras.optimizers, made_of.get(name, name))(**options)


def compiled(model: Any, by: str = "adam 1e-3", loss: Any = "sparse_categorical_crossentropy") -> Any:
    model.compile(optimizer(by), loss, jit_compile=False)
    return model


def fresh(initializer: Any) -> Any:
    """A copy for one layer, so that no two layers share an instance."""
    one = initializers.get(initializer)
    return type(one).from_config(one.get_config())


def normal(std: float, mean: float = 0.0) -> Any:
    return initializers.RandomNormal(mean, std)


def uniform(limit: float, low: float | None = None) -> Any:
    return initializers.RandomUniform(-limit if low is None else low, limit)


def constant(value: float) -> Any:
    return initializers.Constant(value)


BINARY: dict[str, Any] = {"head": "sigmoid", "loss": "binary_crossentropy"}
LINEAR: dict[str, Any] = {"head": None, "loss": "mse"}
SPARSE = "sparse_categorical_crossentropy"
CATEGORICAL = "categorical_crossentropy"
FROM_LOGITS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
EARLY_KERAS = 0.05
"""`init="uniform"` and `init="normal"` of Keras 1: between -0.05 and 0.05, and with a standard deviation of 0.05."""


def outputs(y: Array) -> int:
    """Units of the head: one a class where the targets are class numbers, else one a column."""
    return int(y.max()) + 1 if y.dtype.kind in "iu" else y.shape[-1]


def net(
    data: tuple[Array, Array],
    widths: Sequence[int],
    activation: str | None = "relu",
    kernel: Any = "glorot_uniform",
    bias: Any = "zeros",
    *,
    head: str | None = "softmax",
    head_kernel: Any = None,
    head_bias: Any = None,
    by: str = "adam 1e-3",
    loss: Any = "sparse_categorical_crossentropy",
    after: Callable[[], Any] | None = None,
    dropout: float = 0.0,
) -> Start:
    """A stack of dense layers. `after` makes a layer to put between each dense layer and its activation."""
    x, y = data
    stack: list[Any] = [keras.Input(x.shape[1:])]
    for width in widths:
        stack.append(layers.Dense(width, kernel_initializer=fresh(kernel), bias_initializer=fresh(bias)))
        stack += [after()] if after else []
        stack += [layers.Activation(activation)] if activation else []
        stack += [layers.Dropout(dropout)] if dropout else []
    last = layers.Dense(
        outputs(y),
        activation=head,
        kernel_initializer=fresh(kernel if head_kernel is None else head_kernel),
        bias_initializer=fresh(bias if head_bias is None else head_bias),
    )
    return compiled(keras.Sequential([*stack, last]), by, loss), x, y


def convnet(
    data: tuple[Array, Array],
    filters: Sequence[int],
    activation: str | None = "relu",
    kernel: Any = "glorot_uniform",
    bias: Any = "zeros",
    *,
    pools: Sequence[int] = (0,),
    dense: Sequence[int] = (),
    head: str | None = "softmax",
    by: str = "adam 1e-3",
    loss: Any = "sparse_categorical_crossentropy",
) -> Start:
    """A stack of 3 x 3 convolutions with a maximum pool behind those in `pools`, then dense layers."""
    x, y = data
    stack: list[Any] = [keras.Input(x.shape[1:])]
    for i, width in enumerate(filters):
        stack.append(
            layers.Conv2D(
                width,
                3,
                1,
                "same",
                activation=activation,
                kernel_initializer=fresh(kernel),
                bias_initializer=fresh(bias),
            )
        )
        stack += [layers.MaxPooling2D()] if i in pools else []
    stack.append(layers.Flatten())
    for width, act in [*((w, activation) for w in dense), (outputs(y), head)]:
        stack.append(
            layers.Dense(width, activation=act, kernel_initializer=fresh(kernel), bias_initializer=fresh(bias))
        )
    return compiled(keras.Sequential(stack), by, loss), x, y


def functional(inputs: Any, outputs: Any, data: Any, by: str = "adam 3e-3", loss: Any = SPARSE) -> Start:
    return compiled(keras.Model(inputs, outputs), by, loss), *data


def sequential(data: Any, *stack: Any, by: str = "adam 3e-3", loss: Any = SPARSE) -> Start:
    model = keras.Sequential([keras.Input(data[0].shape[1:], dtype=data[0].dtype), *stack])
    return compiled(model, by, loss), *data


def softmax(h: Any, classes: int = 10) -> Any:
    return layers.Dense(classes, "softmax")(h)


def recurrent(
    data: tuple[Array, Array],
    *cells: Any,
    head: str | None = "softmax",
    by: str = "adam 1e-3",
    loss: Any = "sparse_categorical_crossentropy",
) -> Start:
    """The given layers behind the input, then a dense head."""
    x, y = data
    model = keras.Sequential([keras.Input(x.shape[1:], dtype=x.dtype), *cells, layers.Dense(outputs(y), head)])
    return compiled(model, by, loss), x, y


def healthy(family: str, *builders: Callable[[], Start]) -> list[Healthy]:
    """The models of these functions, which are named like them."""
    return [Healthy(builder.__name__.replace("_", " "), family, builder) for builder in builders]
