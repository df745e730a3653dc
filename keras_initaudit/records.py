"""What an audit sees and says, as plain data: layers, statistics, snapshots, findings.

Everything here is a frozen dataclass of numbers and text that survives a round trip through JSON. A snapshot carries
all that the diagnosis needs, so that it can be judged without the model: in another process, on another machine, with
other thresholds. Standard library only: the TensorBoard plugin imports this module, and must start without Keras.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import numbers
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal, get_args, get_origin, get_type_hints

NAN = math.nan

Severity = Literal["bad", "warning"]
Verdict = Literal["healthy", "warning", "bad"]
Outcome = Literal["bad", "warning", "note", "undecided"]
Role = Literal["layer", "weight", "gates", "attention", "input", "target"]
LossKind = Literal["classes", "yes-no", "squares", "distances", ""]


@dataclass(frozen=True, slots=True)
class LayerInfo:
    """One row of a snapshot: what stands there and what it is joined to; nothing here changes from step to step.

    Most rows are layers (`role="layer"`), one per call, in the order in which they are called. The others are
    what a layer holds inside or what surrounds the model: a second kernel (`"weight"`: a recurrent or pointwise
    kernel), the gates of a recurrent layer (`"gates"`), the softmax of an attention layer (`"attention"`), the batch
    itself (`"input"`, `"target"`).
    """

    path: str
    """Unique and stable: the layer's path in the model, `#2` for a second call, `/recurrent_kernel` for a part."""
    depth: int
    """Position in the order of calls, from 0; a part has the depth of its layer; inputs -1, targets the last."""
    role: Role = "layer"
    kind: str = ""
    """The class, as `Dense`; of a part, the class of its layer."""
    shape: tuple[int, ...] = ()
    """Of one sample's output, without the batch axis; 0 where it is not known."""
    activation: str | None = None
    """Name of the activation that the layer applies, as `relu` or `leaky_relu(0.2)`; None where there is none."""
    gain: float | None = None
    """Forward gain of that activation; None where it has none (softmax)."""
    weight: str | None = None
    """Name of the weight that the weight columns describe, as `kernel`; None for a row without a kernel."""
    weight_shape: tuple[int, ...] = ()
    weight_dtype: str | None = None
    """Of the variable itself, as `float32`: a step that it cannot hold is lost."""
    fan_in: float | None = None
    fan_out: float | None = None
    """True fans of that weight: inputs summed into one output, outputs fed by one input."""
    initializer: str | None = None
    """Class name of the initializer that the layer was made with, as `HeNormal`."""
    initializer_config: Mapping[str, Any] = field(default_factory=dict)
    """Its `get_config()`, JSON values only."""
    initializer_argument: str | None = "kernel_initializer"
    """Name of the argument by which the layer is given it; None where its constructor takes none."""
    has_bias: bool = False
    """Whether it has a bias that a `bias_initializer` starts."""
    trainable: bool = True
    """False for a frozen weight."""
    reached: bool = True
    """Whether the loss depends on the weight at all (the gradient exists, be it zero). Asked only of a weight that an
    optimizer was given, where any was."""
    zero_scales: tuple[str, ...] = ()
    """Names of the layer's trainable weights that were all zero at the first audit, and had a gradient that was not:
    gates and scales, no kernels and no biases. No gradient passes them before they have moved."""
    shared: bool = False
    """Whether the same layer is called more than once; weight columns stand in its first row alone."""
    duplicate_of: str | None = None
    """Path of an earlier row whose weight started with the same numbers, up to a factor."""
    inputs: tuple[str, ...] = ()
    """Paths of the rows whose output flows into this one without passing another row."""
    lookup: bool = False
    """Whether the layer looks the rows of a table up; of an input, whether nothing is done with its numbers but to look
    something up, so that they have no scale."""


@dataclass(frozen=True, slots=True)
class Statistics:
    """What was measured of one row at one step; NaN where the row has no such quantity.

    Moments are taken over the finite values; how many were not finite stands in the `*_nonfinite` fractions. Fractions
    lie in [0, 1]. The order of the fields is the order of the columns in the log.
    """

    activation_mean: float = NAN
    activation_std: float = NAN
    activation_rms: float = NAN
    """Root mean square of the layer's output over samples, positions and units."""
    activation_max: float = NAN
    """Largest absolute value."""
    activation_zero: float = NAN
    """Fraction of exact zeros."""
    activation_dead: float = NAN
    """Fraction of units that are zero for every sample and position, of a layer whose activation can be dead."""
    activation_saturated: float = NAN
    """Fraction of pre-activations on a flat end of the activation, where its slope is under 2 % of its steepest."""
    activation_nonfinite: float = NAN
    activation_spread: float = NAN
    """Rms over units of the standard deviation across samples, over the rms: 0 where all inputs give one output."""
    preactivation_mean: float = NAN
    preactivation_std: float = NAN
    preactivation_rms: float = NAN
    preactivation_max: float = NAN
    preactivation_nonfinite: float = NAN
    """Of what enters the layer's activation; of a layer without one, of nothing."""
    attention_entropy: float = NAN
    """Mean entropy of the attention weights over log(keys): 1 for uniform attention, 0 for one key a query. Queries and
    keys that are masked do not count. Of a layer whose activation is a softmax, that of its output."""
    backward_rms: float = NAN
    """Of dL/d(activation), the gradient of the loss at the layer's output; L is the mean over the batch. Of a softmax
    or sigmoid whose logits the loss is computed from, as Keras's cross-entropies do, it is that at the logits."""
    backward_max: float = NAN
    backward_zero: float = NAN
    backward_nonfinite: float = NAN
    weight_mean: float = NAN
    weight_std: float = NAN
    weight_rms: float = NAN
    weight_max: float = NAN
    weight_zero: float = NAN
    weight_identical: float = NAN
    """Fraction of units (columns along the output axis) whose incoming weights equal those of another unit."""
    weight_nonfinite: float = NAN
    gradient_rms: float = NAN
    """Of dL/d(weight), unscaled, before clipping."""
    gradient_max: float = NAN
    gradient_zero: float = NAN
    gradient_identical: float = NAN
    """Fraction of units whose incoming gradient equals that of another unit: with equal weights, they stay equal."""
    gradient_nonfinite: float = NAN
    update_log10: float = NAN
    """log10 of rms(change by the last update) / rms(weight before it); about -3 is usual. NaN at step 0."""
    update_zero: float = NAN
    """Fraction of the numbers of the weight that the last update left exactly as they were. NaN where no optimizer was
    given the weight, or made an update of it (learning rate 0, gradients that are gathered or skipped)."""
    entering_mean: float = NAN
    entering_std: float = NAN
    entering_rms: float = NAN
    entering_max: float = NAN
    entering_nonfinite: float = NAN
    """Of what enters a kernel that meets the data, where code outside of any layer has made it from the data."""


COLUMNS: tuple[str, ...] = tuple(f.name for f in fields(Statistics))
"""Names of the statistics, in the order of the log's columns."""

HISTOGRAM_KINDS: tuple[str, ...] = ("weights", "activations", "gradients")
"""Of the weight, of the output, and of dL/d(weight)."""


@dataclass(frozen=True, slots=True)
class Histogram:
    """Counts of the finite values of a strided sample in equal bins from `low` to `high`, both finite."""

    low: float
    high: float
    counts: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All rows at one step: `statistics[i]` is what was measured of `layers[i]`.

    Two snapshots of one audit have the same `layers` and the same batch, so that they differ by the weights alone.
    """

    step: int
    """Updates made before it: 0 is the state at initialization."""
    layers: tuple[LayerInfo, ...]
    statistics: tuple[Statistics, ...]
    loss: float = NAN
    """The loss of the shadow step on the batch, regularizers included."""
    baseline_loss: float | None = None
    """Loss of a model that gives every input the same uninformed answer (log C for C classes); None where unknown."""
    batch_size: int = 0
    histograms: Mapping[str, Mapping[str, Histogram]] = field(default_factory=dict)
    """kind (of `HISTOGRAM_KINDS`) -> path of the row -> histogram; empty where none were asked for."""
    optimizer: str = ""
    """Class name of the optimizer, as `Adam`."""
    learning_rate: float | None = None
    peak_rate: float | None = None
    """The largest learning rate that the optimizer's schedule comes to (warm-up); None without a schedule."""
    momentum: float = 0.0
    """Of SGD: a steady gradient moves the weights by 1 / (1 - momentum) times the learning rate."""
    loss_kind: LossKind = ""
    """What the compiled loss takes the targets for: one of several classes, yes or no, or numbers, of which it takes
    the mean square or another distance. Empty where the loss is not a known one."""

    def __getitem__(self, path: str) -> Statistics:
        """The statistics of the row at `path`; KeyError with the known paths where there is none."""
        for layer, row in zip(self.layers, self.statistics, strict=True):
            if layer.path == path:
                return row
        raise KeyError(f"no row {path!r} in this snapshot; its rows are {[layer.path for layer in self.layers]}")


@dataclass(frozen=True, slots=True)
class Finding:
    """One cause of trouble, named once: what, where, by how much, and the code that mends it."""

    rule: str
    """Slug of the rule, as `vanishing-gradient`."""
    severity: Severity
    layer: str | None
    """Path of the layer to change; None where it is the whole model."""
    message: str
    """One sentence with the number that matters."""
    evidence: Mapping[str, Any] = field(default_factory=dict)
    """`observed`, `expected` and `threshold`, and what follows from the cause; JSON values only."""
    remedy: str | None = None
    """Code that runs, or None where no code mends it."""
    reference: str = ""
    """Where the rule comes from: author, year, section."""
    proof: str | None = None
    """What the remedy did to a clone of this model on this batch, in numbers."""


@dataclass(frozen=True, slots=True)
class Curve:
    """The loss of one start, updated again and again on one batch."""

    losses: tuple[float, ...]
    """In front of each update, without the penalties of the weights."""
    constant: float
    """The loss of the best answer that is the same for every sample."""
    at_targets: float
    """The loss of a model whose answers are the targets."""
    needed: int | None = None
    """Updates within which the loss came half of the way from `constant` to `at_targets`; None where it did not."""

    @property
    def finite(self) -> bool:
        """Whether every loss was a finite number."""
        return all(map(math.isfinite, self.losses))


@dataclass(frozen=True, slots=True)
class Trial:
    """An experiment: a start as it is, and with the remedy, each updated on the same batch, and what follows."""

    outcome: Outcome | None = None
    """None where it was not run; `"undecided"` where both starts stay about where they were."""
    as_is: Curve | None = None
    remedied: Curve | None = None
    allowed: int | None = None
    """The most updates that one of the starts was allowed to make."""
    reason: str | None = None
    """Why it was not run."""


def to_jsonable(value: Any) -> Any:
    """`value` as JSON can hold it: dataclasses as dicts, tuples as lists, numbers that JSON lacks as text.

    NaN and the infinities become "NaN", "Infinity" and "-Infinity": every JSON reader takes those, not every one
    the bare words. The functions `*_from_json` turn them back; so does `number`, one at a time.
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: to_jsonable(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): to_jsonable(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [to_jsonable(item) for item in value]
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, numbers.Integral):  # numpy's too
        return int(value)
    if isinstance(value, numbers.Real):
        value = float(value)
        if math.isfinite(value):
            return value
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return str(value)


def number(value: Any) -> float:
    """The float behind what `to_jsonable` wrote: its text forms of NaN and infinity included."""
    return float(value)


def layer_from_json(data: Mapping[str, Any]) -> LayerInfo:
    """A `LayerInfo` from its JSON form; fields that this version does not know are left out."""
    layer: LayerInfo = _record(LayerInfo, data)
    return layer


def finding_from_json(data: Mapping[str, Any]) -> Finding:
    """A `Finding` from its JSON form; fields that this version does not know are left out."""
    finding: Finding = _record(Finding, data)
    return finding


def snapshot_from_json(data: Mapping[str, Any]) -> Snapshot:
    """A `Snapshot` from its JSON form; fields that this version does not know are left out."""
    snapshot: Snapshot = _record(Snapshot, data)
    return snapshot


def trial_from_json(data: Mapping[str, Any]) -> Trial:
    """A `Trial` from its JSON form; fields that this version does not know are left out."""
    trial: Trial = _record(Trial, data)
    return trial


def dumps(value: Any) -> str:
    """`value` as one line of standard JSON."""
    return json.dumps(to_jsonable(value), allow_nan=False)


def _record(record: Any, data: Mapping[str, Any]) -> Any:
    """One of the dataclasses above from its JSON form, each field by its annotation."""
    hints = _hints(record)
    return record(**{name: _decoded(hint, data[name]) for name, hint in hints.items() if name in data})


@functools.cache
def _hints(record: Any) -> dict[str, Any]:
    return get_type_hints(record)


def _decoded(hint: Any, value: Any) -> Any:
    """The value of a field that is annotated with `hint`, from what `to_jsonable` wrote for it."""
    parts = get_args(hint)
    if type(None) in parts:  # `X | None`
        return None if value is None else _decoded(next(part for part in parts if part is not type(None)), value)
    if dataclasses.is_dataclass(hint):
        return _record(hint, value)
    if get_origin(hint) is tuple:
        return tuple(_decoded(parts[0], item) for item in value)
    if hint is Any or parts[-1:] == (Any,):
        return _plain(value)
    if get_origin(hint) is Mapping:
        return {key: _decoded(parts[1], item) for key, item in value.items()}
    return number(value) if hint is float and not isinstance(value, int | float) else value


_NUMBERS = ("NaN", "Infinity", "-Infinity")
_NAMES = ("rule", "layer", "layers", "affected")
"""Keys of `Finding.evidence` that hold names alone: a layer may be called "NaN"."""


def _plain(value: Any) -> Any:
    """A value of no known type: the texts that stand for numbers are turned back, except where only names can be."""
    if isinstance(value, Mapping):
        return {key: item if key in _NAMES else _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return number(value) if isinstance(value, str) and value in _NUMBERS else value


__all__: list[str] = [
    "COLUMNS",
    "HISTOGRAM_KINDS",
    "Curve",
    "Finding",
    "Histogram",
    "LayerInfo",
    "LossKind",
    "Outcome",
    "Role",
    "Severity",
    "Snapshot",
    "Statistics",
    "Trial",
    "Verdict",
    "dumps",
    "finding_from_json",
    "layer_from_json",
    "number",
    "snapshot_from_json",
    "to_jsonable",
    "trial_from_json",
]
