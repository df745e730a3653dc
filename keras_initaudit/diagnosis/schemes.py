"""Which initializer a kernel should have: by the activation behind it, with the fans that its layer says it has.

The diagnosis knows no Keras: an initializer is a `Scheme`, its name and arguments as data.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence

from ..flow import Row
from ..records import LayerInfo
from ..records.remedies import Reinitialize, Remedy, Scheme, WholeModel
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
