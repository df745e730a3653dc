"""Which remedy repairs a finding: initializers for its kernels, or a change of the data.

The diagnosis knows no Keras: what it proposes is data of `records.remedies`, which `remedies.apply` carries out.
"""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Iterable, Sequence

from ..flow import Row
from ..records import LayerInfo
from ..records.remedies import (
    Activate,
    CleanData,
    LearningRate,
    PlainNormalization,
    Preprocess,
    Reinitialize,
    Remedy,
    ScaleTargets,
    Scheme,
    SetBias,
    Together,
    WholeModel,
    Widen,
)
from .network import Network

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


def shape_fans(shape: Sequence[int]) -> tuple[float, float]:
    """The (fan_in, fan_out) that Keras reads off a weight's shape alone, right for plain dense and convolutions."""
    if len(shape) < 2:
        size = float(math.prod(shape))
        return size, size
    receptive = math.prod(shape[:-2])
    return float(shape[-2] * receptive), float(shape[-1] * receptive)


def kernel_scheme(activation: str, gain: float | None, info: LayerInfo | None = None) -> Scheme:
    """The recommended initializer for a kernel in front of `activation`.

    He for ReLU, LeCun for SELU, Glorot for tanh, sigmoid and linear, He with the exact gain for everything else. With
    `info`, for the true fans of that weight, where its shape alone would mislead.
    """
    name = activation.split("(")[0]
    wrong = info is not None and misread(info)
    if not wrong:
        if name in _HE:
            return Scheme("HeNormal")
        if name == "selu":
            return Scheme("LeCunNormal")
        if name in _GLOROT or gain is None:
            return Scheme("GlorotNormal")
        # One word is a name that `gain` takes; a function of the person's own has its module in front, and a dot.
        return Scheme("HeNormal", {"gain": name if activation.isidentifier() else _rounded(gain)})
    assert info is not None
    square = 2.0 if name in _HE else 1.0 if name in _GLOROT or name == "selu" or gain is None else gain * gain
    axes = _axes(info)
    if axes is not None:
        inputs, outputs = axes
        axes_named = {"input_axes": list(inputs), "output_axes": list(outputs)}
        return Scheme("VarianceScaling", {"scale": _rounded(square), **axes_named})
    assumed, _ = shape_fans(info.weight_shape)
    return Scheme("VarianceScaling", {"scale": _rounded(square * assumed / (info.fan_in or assumed))})


def _rounded(value: float) -> float:
    """To four digits: what a person reads is what is applied."""
    return float(f"{value:.4g}")


def misread(info: LayerInfo) -> bool:
    """Whether the shape of a weight tells another fan_in than the layer has."""
    if info.fan_in is None or len(info.weight_shape) < 2:
        return False
    return not math.isclose(shape_fans(info.weight_shape)[0], info.fan_in, rel_tol=0.01)


def _axes(info: LayerInfo) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
    """Its input and output axes, where their products are the true fans: a stride makes them others."""
    inputs, outputs = info.input_axes, info.output_axes
    fans = tuple(math.prod(info.weight_shape[axis] for axis in axes) for axes in (inputs, outputs))
    return (inputs, outputs) if inputs and fans == (info.fan_in, info.fan_out) else None


def for_kernels(network: Network, kernels: Iterable[Row], *, bias: bool = False) -> Remedy | None:
    """The recommended schemes for the kernels, by the names of the arguments that their layers have for them.

    One remedy is for all of them: see `alike`. None where there are no kernels; where no layer takes an initializer, a
    new start of the whole model.
    """
    rows = [network.owner(row) for row in alike(network, kernels)]
    if not rows:
        return None
    parts = _parts(network)
    arguments = {row.path: _arguments(network, row, parts) for row in rows}
    if not any(arguments.values()):
        return WholeModel()
    schemes = {argument: scheme for found in arguments.values() for argument, scheme in found.items()}
    takers = {argument: [row for row in rows if argument in arguments[row.path]] for argument in schemes}
    if bias and any(row.info.has_bias for row in rows):
        schemes["bias_initializer"] = Scheme("Zeros")
        takers["bias_initializer"] = [row for row in rows if row.info.has_bias]
    kinds = {argument: tuple(sorted({row.info.kind for row in having})) for argument, having in takers.items()}
    every = tuple(sorted({row.info.kind for row in rows}))
    return Reinitialize(schemes, {argument: some for argument, some in kinds.items() if some != every})


# --- what else than kernels can be at fault where a signal or a gradient is lost

_FLAT = ("sigmoid", "hard_sigmoid", "softmax")
"""Hidden activations that pass little on: the slope of a sigmoid is 1/4 at most, and the outputs of a softmax sum to 1,
whatever their number. Glorot & Bengio 2010, section 3.1."""
_USUAL = 3.0
"""Kernels up to this many times as large as 1 / sqrt(fan_in) are not what saturates a sigmoid."""
_NARROW = 4
"""Units of ReLU of which a fair share of all starts is dead, each in half of all directions: 2^-4 in a layer."""
_WIDE = 32


def for_signal(network: Network, kernels: Iterable[Row], *, bias: bool = False) -> Remedy | None:
    """What makes the signal, or the gradient, get through some kernels: not always their own start.

    A normalization whose gamma or beta takes away what it normalizes; a hidden layer too narrow for ReLU; hidden
    activations that pass little on; residual branches, which only count together. Else `for_kernels`.
    """
    rows = [network.owner(row) for row in kernels]
    if not rows:
        return None
    shifted = _shifted(network, rows)
    if shifted:
        return PlainNormalization(tuple(row.path for row in shifted))
    narrow = _narrow(network, rows)
    if narrow:
        return narrow
    flatly = flat(network, rows)
    if flatly is not None:
        return flatly
    if any(network.bypassed(row) for row in rows):
        return WholeModel()
    return for_kernels(network, rows, bias=bias)


def _shifted(network: Network, kernels: Sequence[Row]) -> list[Row]:
    """The normalizations of the network, where one behind these kernels does not give a mean of 0 and a size of 1.

    Its own weights do that where what arrives at it varies: the normalized values have both by construction. What is
    behind it shows nothing, so that all of its kind start again, but those that a skip connection bypasses: there a
    gamma of zero is meant.
    """
    behind = [network.rows[c] for c in dict.fromkeys(c for row in kernels for c in network.children[row.index])]
    kinds = {
        row.info.kind for row in behind if row.info.normalises in ("batch", "layer", "group") and _off(network, row)
    }
    return [row for row in network.layers if row.info.kind in kinds and not network.bypassed(row)]


def _off(network: Network, row: Row) -> bool:
    arriving = [network.rows[p].stats.activation_std for p in network.parents[row.index]]
    varies = any(std > 0.1 for std in arriving)  # an epsilon of 1e-3 is nothing beside its square
    return varies and (row.stats.activation_std < 1.0 / _USUAL or abs(row.stats.activation_mean) > 1.0)


def _narrow(network: Network, kernels: Sequence[Row]) -> Widen | None:
    """More units, where hidden layers of ReLU have so few that all of them can be dead at once."""
    found = [
        row
        for row in network.hidden
        if network.activation(row).startswith("relu") and row.info.shape and 0 < row.info.shape[-1] <= _NARROW
    ]
    if not any(row in kernels for row in found) or any(row.info.kind != "Dense" for row in found):
        return None
    return Widen(_WIDE, tuple(row.path for row in found))


def flat(network: Network, kernels: Sequence[Row]) -> Activate | None:
    """ReLU, or tanh in a recurrent layer, for all hidden layers of an activation that passes little on.

    Not where the kernels are so large that they saturate it, and not for a gate, an attention weight or the choice of
    an expert: there the values between 0 and 1 are meant, and scale something else.
    """
    at_fault = [row for row in kernels if network.activation(row) in _FLAT and row in network.hidden]
    sizes = [row.stats.weight_rms * math.sqrt(row.fan_in) for row in at_fault]
    if not at_fault or statistics.median(sizes) > _USUAL:
        return None
    name, recurrent = network.activation(at_fault[0]), at_fault[0].info.gates == 1
    alike = [row for row in network.hidden if network.activation(row) == name and (row.info.gates == 1) == recurrent]
    applying = {row.index: _applies(network, row) for row in alike}
    if any(row.info.gates > 1 or _scales(network, applying[row.index]) for row in alike):
        return None
    wanted = "tanh" if recurrent else "relu"
    schemes = {"kernel_initializer": kernel_scheme(wanted, None)}
    if recurrent:
        schemes["recurrent_initializer"] = Scheme("Orthogonal")
    if any(row.info.initializer_argument != "kernel_initializer" or misread(row.info) for row in alike):
        schemes = {}
    paths = tuple(row.path for row in alike)
    start = Reinitialize(schemes, layers=paths) if schemes else None
    return Activate(wanted, tuple(dict.fromkeys(row.path for row in applying.values())), start)


def _applies(network: Network, kernel: Row) -> Row:
    """The row that applies the activation behind a kernel: its own, or a layer between it and the next kernel."""
    here = kernel
    while here.info.activation in (None, "linear"):
        behind = [network.rows[c] for c in network.children[here.index] if not network.rows[c].has_kernel]
        if not behind:
            return kernel
        here = behind[0]
    return here


def _scales(network: Network, row: Row) -> bool:
    """Whether what a row gives meets another way before the next kernel: as a factor of it, or a term."""
    queue, seen = [row.index], set[int]()
    while queue:
        for child in network.children[queue.pop()]:
            below = network.rows[child]
            if child in seen or below.info.role != "layer":
                continue
            if len(network.parents[child]) > 1 and not below.info.concatenates:
                return True
            seen.add(child)
            if not below.has_kernel:
                queue.append(child)
    return False


def alike(network: Network, kernels: Iterable[Row]) -> list[Row]:
    """Those of the kernels that one text serves, in which no argument has two values: the most common ones first."""
    rows = list(kernels)
    parts = _parts(network)
    wanted = [_arguments(network, network.owner(row), parts) for row in rows]
    counts = Counter(_as_text(arguments) for arguments in wanted if arguments)
    if not counts:
        return rows
    chosen: dict[str, str] = {}
    for arguments, _ in counts.most_common():
        if all(chosen.get(argument, scheme) == scheme for argument, scheme in arguments):
            chosen.update(arguments)
    served = [bool(found) and set(_as_text(found)) <= set(chosen.items()) for found in wanted]
    return [row for row, is_served in zip(rows, served, strict=True) if is_served]


def _as_text(arguments: dict[str, Scheme]) -> tuple[tuple[str, str], ...]:
    return tuple((argument, scheme.code) for argument, scheme in arguments.items())


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


def _arguments(network: Network, row: Row, parts: dict[str, list[Row]]) -> dict[str, Scheme]:
    """The initializers for all kernels of a layer, by argument; empty where it takes none."""
    argument = row.info.initializer_argument
    if argument is None:
        return {}
    if row.info.lookup or argument == "embeddings_initializer":
        found = {argument: _table(row)}
    elif row.info.channelwise and parts.get(row.path):  # no activation stands between the two kernels
        found = {argument: kernel_scheme("linear", None, row.info)}
    else:
        found = {argument: _scheme(network, row)}
    gates = row.info.gates
    for part in parts.get(row.path, ()):
        other = part.info.initializer_argument
        if other == "recurrent_initializer":
            gates = gates or part.info.gates or 1
        elif other is not None and other not in found:  # by the activation of its layer
            found[other] = _scheme(network, Row(row.index, part.info, part.stats))
    if gates:
        found["recurrent_initializer"] = Scheme("Orthogonal", {"blocks": gates} if gates > 1 else {})
    return found


def _table(row: Row) -> Scheme:
    """A table is looked up, and sums nothing: unit size, or what a kernel has where it also makes the outputs."""
    width = row.info.weight_shape[-1] if row.info.weight_shape else 1
    std = 1.0 / math.sqrt(width) if row.info.makes_outputs else 1.0
    return Scheme("RandomNormal", {"stddev": _rounded(std)})


def _scheme(network: Network, row: Row) -> Scheme:
    activation = network.activation(row)
    gain = row.info.gain
    if activation != (row.info.activation or "linear"):
        gain = next((r.info.gain for r in network.layers if r.info.activation == activation), gain)
    return kernel_scheme(activation, gain, row.info)


def rescaled(path: str, std: float, low: float, high: float, shape: Sequence[int] = ()) -> Preprocess:
    """What brings an input to unit scale: bytes to [0, 1], anything else standardized, a table column by column.

    The columns of a table are quantities of their own, with scales of their own; those of an image are not. Numbers up
    to 255 are bytes in an image, and in a table where the largest is 255 itself: an image has a white pixel somewhere.

    Args:
        path: Of its row, as `(input)`, or `(input left/0)` for `x["left"][0]`.
        std: Standard deviation of the input.
        low: Least of its values.
        high: Largest of them.
        shape: Of one sample.
    """
    columns = len(shape) in (1, 2)
    if low >= 0.0 and (high == 255.0 if columns else 16.0 < high <= 255.0):
        return Preprocess("bytes", _keys(path))
    if 0.0 < std * std < 1e-5:  # `Normalization` divides by no less than the root of 1e-7
        return Preprocess("tiny", _keys(path))
    return Preprocess("columns" if columns and shape[-1] > 1 else "standardize", _keys(path))


def _keys(path: str) -> tuple[str | int, ...]:
    named = path.removesuffix(")").partition(" ")[2].split("/")
    return tuple(int(key) if key.isdecimal() else key for key in named if key)


def standardised(network: Network, std: float) -> Remedy | None:
    """Targets at unit scale, around zero, and outputs that reach them: without an activation.

    None where there are several targets, or where they are all the same.
    """
    if not _one_target(network) or not 0.0 < std < math.inf:
        return None
    last = applied_last(network)
    if last is None or last.info.activation in (None, "linear"):
        return ScaleTargets()
    return Together((ScaleTargets(), Activate("linear", (last.path,))))


def outputs(network: Network) -> list[Row]:
    """The last kernel and the layers behind it; empty where there are several of either."""
    if len(network.heads) != 1:
        return []
    rows = [network.heads[0]]
    while behind := [network.rows[c] for c in network.children[rows[-1].index] if network.rows[c].info.role == "layer"]:
        if len(behind) > 1 or len(network.parents[behind[0].index]) > 1:
            return []
        rows.append(behind[0])
    return rows


def applied_last(network: Network) -> Row | None:
    """The row whose activation makes the outputs: the last kernel's where there is none."""
    rows = outputs(network)
    applied = [row for row in rows if row.info.activation not in (None, "linear")]
    return applied[-1] if applied else next(iter(rows), None)


def centered(network: Network) -> SetBias | None:
    """A bias that gives the mean of the targets; None where there are several."""
    return SetBias() if _one_target(network) else None


def _one_target(network: Network) -> bool:
    """Whether a person has the targets as one array, `y`."""
    return sum(row.info.role == "target" for row in network.rows) == 1


def learning_rate(value: float | None) -> LearningRate | None:
    """Another learning rate, to one digit; None where that of the training is not known."""
    return LearningRate(float(f"{value:.1g}")) if value else None


def without_non_finite(path: str) -> CleanData | None:
    """Data without NaN and infinity, where a person has it as one array."""
    if path == "(target)":
        return CleanData("targets")
    return CleanData("inputs") if path == "(input)" else None
