"""The code that mends a finding: Python source that runs, for this layer.

A remedy either assigns some of the arguments that the layers in the finding's `evidence["layers"]` have for their
initializers (`kernel_initializer`, `embeddings_initializer`, ...) and `preprocessing` (a Keras layer to put in front of
the data), or changes the data, arrays named `x` and `y`, or acts on a name `model`. It is source, and no object,
because a person pastes it, and because the diagnosis knows no Keras.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Sequence

from ..flow import Row
from ..records import LayerInfo
from .network import Network

WHOLE_MODEL = "from keras_initaudit import initialize\ninitialize(model)"
"""Starts every layer of the model again, with the fans and the gain of each: where no remedy of single layers helps."""

_HE = ("relu", "relu6")
_GLOROT = (
    "linear",
    "tanh",
    "sigmoid",
    "softmax",
    "log_softmax",
    "log_sigmoid",
    "hard_sigmoid",
    "hard_tanh",
    "softsign",
)
_GATES = {"LSTM": 4, "GRU": 3, "ConvLSTM1D": 4, "ConvLSTM2D": 4, "ConvLSTM3D": 4}


def shape_fans(shape: Sequence[int]) -> tuple[float, float]:
    """The (fan_in, fan_out) that Keras reads off a weight's shape alone, right for plain dense and convolutions."""
    if len(shape) < 2:
        size = float(math.prod(shape))
        return size, size
    receptive = math.prod(shape[:-2])
    return float(shape[-2] * receptive), float(shape[-1] * receptive)


def kernel_scheme(activation: str, gain: float | None, info: LayerInfo | None = None) -> tuple[str, str]:
    """The recommended initializer for a kernel in front of `activation`: (name to import, call).

    He for ReLU, LeCun for SELU, Glorot for tanh, sigmoid and linear, He with the exact gain for everything else. With
    `info`, for the true fans of that weight, where its shape alone would mislead.
    """
    name = activation.split("(")[0]
    wrong = info is not None and misread(info)
    if not wrong:
        if name in _HE:
            return "HeNormal", "HeNormal()"
        if name == "selu":
            return "LeCunNormal", "LeCunNormal()"
        if name in _GLOROT or gain is None:
            return "GlorotNormal", "GlorotNormal()"
        # One word is a name that `gain` takes; a function of the person's own has its module in front, and a dot.
        return "HeNormal", f'HeNormal(gain="{name}")' if activation.isidentifier() else f"HeNormal(gain={gain:.4g})"
    assert info is not None
    square = 2.0 if name in _HE else 1.0 if name in _GLOROT or name == "selu" or gain is None else gain * gain
    axes = _axes(info)
    if axes is not None:
        inputs, outputs = axes
        call = f"VarianceScaling(scale={square:.4g}, input_axes={inputs}, output_axes={outputs})"
        return "VarianceScaling", call
    assumed, _ = shape_fans(info.weight_shape)
    return "VarianceScaling", f"VarianceScaling(scale={square * assumed / (info.fan_in or assumed):.4g})"


def misread(info: LayerInfo) -> bool:
    """Whether the shape of a weight tells another fan_in than the layer has."""
    if info.fan_in is None or len(info.weight_shape) < 2:
        return False
    return not math.isclose(shape_fans(info.weight_shape)[0], info.fan_in, rel_tol=0.01)


def _axes(info: LayerInfo) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
    """The axes whose products are the true fans, where there are any that mean it."""
    shape, rank = info.weight_shape, len(info.weight_shape)
    candidates: list[tuple[tuple[int, ...], tuple[int, ...]]] = []
    if "Depthwise" in info.kind:
        spatial = tuple(range(rank - 2))
        candidates = [(spatial, (*spatial, rank - 1))]
    elif "Transpose" not in info.kind:
        candidates = [((a,), (b,)) for a in range(rank) for b in range(rank) if a < b]
        candidates += [(tuple(range(k)), tuple(range(k, rank))) for k in range(1, rank)]
    for inputs, outputs in candidates:
        fans = math.prod(shape[a] for a in inputs), math.prod(shape[a] for a in outputs)
        if fans[0] == info.fan_in and fans[1] == info.fan_out:
            return inputs, outputs
    return None


def for_kernels(network: Network, kernels: Iterable[Row], *, bias: bool = False) -> str | None:
    """Assigns the recommended schemes to the kernels, by the names that their layers have for them.

    One text is for all of them: see `alike`. Where the layers differ in their arguments, a comment says which of them
    take one. None where there are no kernels; where no layer takes an initializer, a new start of the whole model.
    """
    rows = [network.owner(row) for row in alike(network, kernels)]
    if not rows:
        return None
    parts = _parts(network)
    arguments = {row.path: _arguments(network, row, parts) for row in rows}
    if not any(arguments.values()):
        return WHOLE_MODEL
    schemes = {argument: scheme for found in arguments.values() for argument, scheme in found.items()}
    takers = {argument: [row for row in rows if argument in arguments[row.path]] for argument in schemes}
    if bias and any(row.info.has_bias for row in rows):
        schemes["bias_initializer"] = ("Zeros", "Zeros()")
        takers["bias_initializer"] = [row for row in rows if row.info.has_bias]
    lines = []
    for argument, (_, call) in schemes.items():
        kinds = {row.info.kind for row in takers[argument]}
        which = "" if kinds == {row.info.kind for row in rows} else f"  # {', '.join(sorted(kinds))}"
        lines.append(f"{argument} = {call}{which}")
    names = sorted({name for name, _ in schemes.values()})
    return "\n".join([f"from keras_initaudit import {', '.join(names)}", *lines])


def alike(network: Network, kernels: Iterable[Row]) -> list[Row]:
    """Those of the kernels that one text serves, in which no argument has two values: the most common ones first."""
    rows = list(kernels)
    parts = _parts(network)
    wanted = [_arguments(network, network.owner(row), parts) for row in rows]
    counts = Counter(tuple(arguments.items()) for arguments in wanted if arguments)
    if not counts:
        return rows
    chosen: dict[str, tuple[str, str]] = {}
    for arguments, _ in counts.most_common():
        if all(chosen.get(argument, scheme) == scheme for argument, scheme in arguments):
            chosen.update(arguments)
    return [row for row, found in zip(rows, wanted, strict=True) if found and found.items() <= chosen.items()]


def _parts(network: Network) -> dict[str, list[Row]]:
    """Path of a layer -> its further kernels."""
    found: dict[str, list[Row]] = {row.path: [] for row in network.layers}
    for part in network.rows:
        path = part.path
        while part.info.role == "weight" and "/" in path:
            path = path.rpartition("/")[0]
            if path in found:
                found[path].append(part)
                break
    return found


def _arguments(network: Network, row: Row, parts: dict[str, list[Row]]) -> dict[str, tuple[str, str]]:
    """The initializers for all kernels of a layer, argument -> (name to import, call); empty where it takes none."""
    kind, argument = row.info.kind, row.info.initializer_argument
    if argument is None:
        return {}
    if row.info.lookup or argument == "embeddings_initializer":
        found = {argument: _table(row)}
    elif kind.startswith("Separable"):  # no activation stands between its two kernels
        found = {argument: kernel_scheme("linear", None, row.info)}
    else:
        found = {argument: _scheme(network, row)}
    gates, recurrent = _GATES.get(kind), kind in _GATES or kind == "SimpleRNN"
    for part in parts.get(row.path, ()):
        other = part.info.initializer_argument
        if other == "recurrent_initializer":
            gates, recurrent = gates or _GATES.get(part.info.kind.removesuffix("Cell")), True
        elif other is not None and other not in found:  # by the activation of its layer
            found[other] = _scheme(network, Row(row.index, part.info, part.stats))
    if recurrent:
        found["recurrent_initializer"] = ("Orthogonal", f"Orthogonal({f'blocks={gates}' if gates else ''})")
    return found


def _table(row: Row) -> tuple[str, str]:
    """A table is looked up, and sums nothing: unit size, or what a kernel has where it also makes the outputs."""
    width = row.info.weight_shape[-1] if row.info.weight_shape else 1
    std = 1.0 / math.sqrt(width) if row.info.kind == "ReversibleEmbedding" else 1.0
    return "RandomNormal", f"RandomNormal(stddev={std:.4g})"


def _scheme(network: Network, row: Row) -> tuple[str, str]:
    activation = network.activation(row)
    gain = row.info.gain
    if activation != (row.info.activation or "linear"):
        gain = next((r.info.gain for r in network.layers if r.info.activation == activation), gain)
    return kernel_scheme(activation, gain, row.info)


_ALL = "# {name} holds all the {data} that you train on: those of one batch may lie elsewhere"
"""What stands above the code that takes figures of the data: the data may be in an order, of time or of classes."""


def rescaled(path: str, std: float, low: float, high: float) -> str:
    """A layer in front of the data that brings it to unit scale: bytes to [0, 1], anything else standardised.

    The figures are those of all the data, an array `x`, or one of several in a list or dict `x`.
    """
    if low >= 0.0 and 16.0 < high <= 255.0:
        return "import keras\npreprocessing = keras.layers.Rescaling(1.0 / 255)"
    keys = path.removesuffix(")").partition(" ")[2]
    data = "x" + "".join(f"[{int(key) if key.isdecimal() else json.dumps(key)}]" for key in keys.split("/") if key)
    lines = [_ALL.format(name="x", data="inputs"), "import keras"]
    if 0.0 < std * std < 1e-5:  # Normalization divides by no less than the root of 1e-7
        scale, offset = f"float(1 / {data}.std())", f"float(-{data}.mean() / {data}.std())"
        return "\n".join([*lines, f"preprocessing = keras.layers.Rescaling({scale}, offset={offset})"])
    return "\n".join([*lines, "preprocessing = keras.layers.Normalization(axis=None)", f"preprocessing.adapt({data})"])


def standardised(network: Network, std: float) -> str | None:
    """Targets, an array `y`, at unit scale; None where there are several, or where they are all the same."""
    if not _one_target(network) or not 0.0 < std < math.inf:
        return None
    return _ALL.format(name="y", data="targets") + "\ny = (y - y.mean()) / y.std()"


def centered(network: Network) -> str | None:
    """A bias that gives the mean of the targets, an array `y`; None where there are several."""
    if not _one_target(network):
        return None
    lines = [_ALL.format(name="y", data="targets"), "import keras", "import numpy as np"]
    return "\n".join([*lines, "bias_initializer = keras.initializers.Constant(float(np.mean(y)))"])


def _one_target(network: Network) -> bool:
    """Whether a person has the targets as one array, `y`."""
    return sum(row.info.role == "target" for row in network.rows) == 1


def without_non_finite(path: str) -> str | None:
    """Zeros for what is not finite in the inputs; for targets, the samples that have finite ones."""
    if path == "(target)":
        keep = "np.isfinite(y).reshape(len(y), -1).all(axis=1)"
        return f"import numpy as np\nkeep = {keep}\nx, y = x[keep], y[keep]"
    if path == "(input)":
        return "import numpy as np\nx = np.nan_to_num(x, posinf=0.0, neginf=0.0)"
    return None
