"""What shows a finding: for each rule, the statistics that are drawn and listed beside the scale of the layers.

A rule whose fault the scales of signal and gradient show by themselves has none. The page gets the same as data.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from ..numerals import num, percent
from ..records import Finding, LayerInfo, Role, Statistics, marked_paths

Kind = Literal["fraction", "scale", "decades"]
"""A fraction lies in [0, 1]; a scale is positive, and drawn by its logarithm; decades are a logarithm already."""


@dataclass(frozen=True, slots=True)
class Quantity:
    """One statistic of the rows, as it is drawn."""

    column: str
    """Field of `Statistics`."""
    header: str
    """Of its column in a table."""
    title: str
    """Above its picture."""
    kind: Kind
    usual: tuple[float, float] | None = None
    """What needs no attention, as it is drawn: the first limit of the rule bounds it. None where no limit does."""
    of: tuple[Role, ...] = ("layer", "weight", "gates", "attention")
    """Roles of the rows that it is shown of; those that a finding marks always are."""

    @property
    def base(self) -> float:
        """Where a bar begins: at what is healthy, so that a long bar is a bad one."""
        low, high = self.usual or (0.0, 0.0)
        if self.kind == "fraction":
            return 1.0 if high == 1.0 else 0.0
        return 0.0 if low <= 0.0 <= high else (low + high) / 2.0

    def value(self, row: Statistics) -> float:
        """The statistic as it was measured; NaN where the row has none."""
        measured: float = getattr(row, self.column)
        return measured

    def level(self, row: Statistics) -> float:
        """The height at which it is drawn: NaN where there is none, an infinity for the logarithm of zero."""
        value = self.value(row)
        if self.kind != "scale" or math.isnan(value):
            return value
        return math.log10(value) if value > 0.0 else -math.inf

    def text(self, row: Statistics, digits: int = 3) -> str:
        """The statistic in a table; empty where the row has none."""
        value = self.value(row)
        if math.isnan(value):
            return ""
        return percent(value) if self.kind == "fraction" else num(value, digits)


_HEADS: tuple[Role, ...] = ("attention",)
_DATA_ROLES: tuple[Role, ...] = ("layer", "input", "target")
_SATURATED = Quantity("activation_saturated", "saturated", "fraction of saturated outputs", "fraction", (0.0, 0.35))
_DEAD = Quantity("activation_dead", "dead", "fraction of dead units", "fraction", (0.0, 0.7))
_ENTROPY = Quantity("attention_entropy", "entropy", "attention entropy over log(keys)", "fraction", (0.35, 1.0), _HEADS)
_LOGIT = Quantity("attention_logit_max", "logit", "largest attention logit", "scale", None, _HEADS)
_IDENTICAL = Quantity("weight_identical", "identical", "units with the same weights as another", "fraction")
_SPREAD = Quantity("activation_spread", "spread", "spread over samples", "scale", (-3.0, 0.0))
_UPDATE = Quantity("update_log10", "update", "log10(last update / weights)", "decades", (-7.0, -0.5))
_UNCHANGED = Quantity("update_zero", "unchanged", "weights that the last update left as they were", "fraction")
_TIME = Quantity("backward_time_log10", "per step", "log10 of the gradient a time step", "decades", (-0.43, 0.43))
_DATA = Quantity("activation_rms", "output", "rms of data and outputs", "scale", None, _DATA_ROLES)
_WEIGHTS = Quantity("weight_rms", "weights", "rms of the weights", "scale")

QUANTITIES: Mapping[str, tuple[Quantity, ...]] = {
    "saturated-units": (_SATURATED,),
    "dead-units": (_DEAD,),
    "attention-entropy": (_ENTROPY, _LOGIT),
    "symmetric-units": (_IDENTICAL,),
    "collapsed-samples": (_SPREAD,),
    "update-ratio": (_UPDATE,),
    "divergence": (_UPDATE,),
    "not-learning": (_UPDATE,),
    "no-update": (_UNCHANGED,),
    "vanishing-through-time": (_TIME,),
    "exploding-through-time": (_TIME,),
    "input-scale": (_DATA,),
    "target-scale": (_DATA,),
    "fan-mismatch": (_WEIGHTS,),
}
"""Rule -> what shows its findings."""
OF_THE_SIGNAL = ("non-finite", "exploding-signal", "vanishing-signal")
"""The rules that the scale of the signal shows; that of the gradient shows whatever else has no quantity."""


def has(quantity: Quantity, finding: Finding, info: LayerInfo, row: Statistics) -> bool:
    """Whether the quantity is shown of a row, beside this finding."""
    return not math.isnan(quantity.value(row)) and (info.role in quantity.of or info.path in marked_paths(finding))


def quantities(finding: Finding | None) -> tuple[Quantity, ...]:
    """What shows a finding; nothing where there is none, or where the scales do."""
    return () if finding is None else QUANTITIES.get(finding.rule, ())
