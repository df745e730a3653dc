"""What an audit sees and says, as plain data: layers, statistics, snapshots, findings.

Everything here is a frozen dataclass of numbers and text that survives a round trip through JSON. A snapshot carries
all that the diagnosis needs, so that it can be judged without the model: in another process, on another machine, with
other thresholds. Standard library only: the TensorBoard plugin imports this module, and must start without Keras.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal, get_args

from .codec import dumps as dumps
from .codec import number as number
from .codec import record
from .codec import to_jsonable as to_jsonable
from .remedies import Remedy

NAN = math.nan

Severity = Literal["bad", "warning", "note"]
"""A note is true and harmless: it costs no verdict."""
Verdict = Literal["healthy", "warning", "bad"]
VERDICTS: tuple[Verdict, ...] = ("bad", "warning", "healthy")
"""Worst first."""
Outcome = Literal["bad", "warning", "note", "undecided"]
Role = Literal["layer", "weight", "gates", "attention", "input", "target"]
Normalises = Literal["", "batch", "layer", "group", "rms", "unit", "other"]
OutputsMean = Literal["", "numbers", "probabilities", "logits"]
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
    input_axes: tuple[int, ...] = ()
    output_axes: tuple[int, ...] = ()
    """Axes of that weight as an initializer takes them; empty where the shape is (..., inputs, outputs)."""
    channelwise: bool = False
    """Whether each unit of that weight sees one channel of its own: equal weights do not make them equal units."""
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
    makes_outputs: bool = False
    """Whether the table is also the kernel that makes the outputs (tied weights)."""
    gates: int = 0
    """Of a recurrent layer, what its kernels hold side by side: 4 for LSTM, 3 for GRU, 1 without gates; else 0. A
    `Bidirectional` has none, its two layers have."""
    normalises: Normalises = ""
    """Over what the layer takes the scale that it divides by; empty where it does not."""
    concatenates: bool = False
    """Whether the layer puts its inputs side by side, and adds nothing up."""


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
    attention_logit_max: float = NAN
    """Largest absolute value of what enters the softmax of one of Keras's own attention layers; masked ones aside."""
    backward_rms: float = NAN
    """Of dL/d(activation), the gradient of the loss at the layer's output; L is the mean over the batch. Of a softmax
    or sigmoid whose logits the loss is computed from, as Keras's cross-entropies do, it is that at the logits."""
    backward_max: float = NAN
    backward_zero: float = NAN
    backward_nonfinite: float = NAN
    backward_time_log10: float = NAN
    """Of a recurrent layer, log10 of the factor by which one time step changes the gradient on its way back: the mean
    absolute value of dL/d(input) at the first real step over that at the last, to the power of 1 / (steps - 1)."""
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
    least_target: float | None = None
    """The smallest of all targets of the batch; None where they are no numbers."""
    constant_loss: float | None = None
    """The least loss of an answer that is the same for every sample, with the penalties of the weights as they are, so
    that `loss` below it has been learnt; None where unknown."""
    outputs_mean: OutputsMean = ""
    """What that loss takes the outputs for. Empty where it is not known, or where more than layers of Keras makes
    them."""

    def __getitem__(self, path: str) -> Statistics:
        """The statistics of the row at `path`; KeyError with the known paths where there is none."""
        for layer, row in zip(self.layers, self.statistics, strict=True):
            if layer.path == path:
                return row
        raise KeyError(f"no row {path!r} in this snapshot; its rows are {[layer.path for layer in self.layers]}")


SCALARS: tuple[str, ...] = tuple(
    f.name for f in fields(Snapshot) if f.name not in ("step", "layers", "statistics", "histograms")
)
"""Names of the fields of a snapshot that hold one value each, however many rows it has."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One cause of trouble, named once: what, where, by how much, and the code that repairs it.

    Example:
        >>> found = Finding("vanishing-signal", "bad", "dense_3", "each layer multiplies the signal by 0.27")
        >>> found.rule, found.severity, found.layer, found.remedy
        ('vanishing-signal', 'bad', 'dense_3', None)
    """

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
    """The code of `action`, which a person copies; None where no code repairs it."""
    reference: str = ""
    """Where the rule comes from: author, year, section."""
    proof: str | None = None
    """What the remedy did to this model on this batch, in numbers."""
    action: Remedy | None = None
    """The remedy as data: `keras_initaudit.remedies.apply` does what it says."""

    @property
    def key(self) -> str:
        """The rule and the layer, as `vanishing-signal:hidden`; the rule alone where it is the whole model."""
        return self.rule if self.layer is None else f"{self.rule}:{self.layer}"

    def with_remedy(self, action: Remedy | None, proof: str | None = None) -> Finding:
        """The finding with another remedy, as data and as code, and its proof."""
        return dataclasses.replace(self, action=action, remedy=None if action is None else action.code, proof=proof)


def verdict_of(findings: Iterable[Finding]) -> Verdict:
    """The severity of the worst finding; `"healthy"` where there are none but notes."""
    severities = {finding.severity for finding in findings}
    return "bad" if "bad" in severities else "warning" if "warning" in severities else "healthy"


def as_bad_as(verdict: Verdict, limit: Verdict) -> bool:
    """Whether a verdict is the given one, or worse."""
    return VERDICTS.index(verdict) <= VERDICTS.index(limit)


def marked_paths(finding: Finding) -> tuple[str, ...]:
    """Paths of the rows that a finding marks: the layer that it names, and those that have its fault.

    The layers that its remedy changes (`evidence["layers"]`) may be others: saturated gates are a fault of the row of
    the gates, and the remedy changes the kernel.
    """
    affected = finding.evidence.get("affected")
    paths = [finding.layer, *(affected if isinstance(affected, list | tuple) else ())]
    return tuple(dict.fromkeys(path for path in paths if isinstance(path, str)))


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
    step: int = 0
    """Updates made before it: it decides on what was found at the audit of this step."""
    left_out: tuple[str, ...] = ()
    """The findings whose remedies the other start did without, and learnt all the same: `Finding.key` of each."""


def layer_from_json(data: Mapping[str, Any]) -> LayerInfo:
    """A `LayerInfo` from its JSON form; fields that this version does not know are left out."""
    layer: LayerInfo = record(LayerInfo, data)
    return layer


def finding_from_json(data: Mapping[str, Any]) -> Finding:
    """A `Finding` from its JSON form; fields that this version does not know are left out."""
    finding: Finding = record(Finding, data)
    return finding


def snapshot_from_json(data: Mapping[str, Any]) -> Snapshot:
    """A `Snapshot` from its JSON form; fields that this version does not know are left out."""
    snapshot: Snapshot = record(Snapshot, data)
    return snapshot


def scalars(snapshot: Snapshot) -> dict[str, Any]:
    """The JSON form of the `SCALARS` of a snapshot; `snapshot_without_rows` turns it back."""
    return {name: to_jsonable(getattr(snapshot, name)) for name in SCALARS}


def snapshot_without_rows(data: Mapping[str, Any]) -> Snapshot:
    """A snapshot of step 0 with the `SCALARS` that `data` holds, and the default values of the others."""
    known = {name: data[name] for name in SCALARS if name in data}
    return snapshot_from_json({"step": 0, "layers": (), "statistics": (), **known})


def trial_from_json(data: Mapping[str, Any]) -> Trial:
    """A `Trial` from its JSON form; fields that this version does not know are left out."""
    trial: Trial = record(Trial, data)
    if trial.outcome not in (None, *get_args(Outcome)):
        raise ValueError(f"a trial cannot end {trial.outcome!r}")
    return trial
