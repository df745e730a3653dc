"""Which remedy repairs a finding, beside initializers for its kernels: see `schemes`.

The diagnosis knows no Keras: what it proposes is data of `records.remedies`, which `remedies.apply` carries out.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence

from ..flow import Row
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
from .schemes import for_kernels, kernel_scheme, misread

# --- where a signal or a gradient is lost

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


# --- data, outputs and the learning rate


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
