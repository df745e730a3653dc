"""The rule about the activation of the outputs: can it give what the targets are, as the loss reads them?"""

from __future__ import annotations

import math

from ..flow import Row
from ..numerals import num
from ..records.remedies import Activate, Remedy
from . import proposals
from .network import Network
from .rule import Case

_DISTRIBUTIONS = ("softmax", "sparsemax")
_UNIT = ("sigmoid", "hard_sigmoid", *_DISTRIBUTIONS)
"""Activations that stay between 0 and 1."""
_ONE_SIDED = ("relu", "relu6")
"""Those that give nothing below zero, and pass no gradient there."""


def output_activation(network: Network) -> list[Case]:
    """The last activation cannot give the targets, or gives what the loss does not take it for.

    A softmax of one unit is 1 whatever the weights are, and one of another softmax is nearly uniform. A sigmoid reaches
    no target above 1, a ReLU none below 0. The outputs of a softmax sum to 1, those of several labels do not. A
    cross-entropy takes its outputs for probabilities, unless it is told that they are logits: it cuts off what lies
    outside 0 and 1, and with it the gradient.
    """
    ends, last = proposals.outputs(network), proposals.applied_last(network)
    targets = [row for row in network.rows if row.info.role == "target"]
    if last is None or len(targets) != 1 or not network.snapshot.outputs_mean:
        return []
    softmaxes = [row for row in ends if _activation(row) in _DISTRIBUTIONS]
    if len(softmaxes) > 1:
        last, wanted, why = softmaxes[0], "linear", f"{softmaxes[-1].path} makes a softmax of it once more"
    else:
        found = _unsuited(network, last, targets[0])
        if found is None:
            return []
        wanted, why = found
    name = _activation(last)
    constant = name in _DISTRIBUTIONS and _units(last) == 1
    return [
        Case(
            amount=1.0,
            layer=last.path,
            observed=name,
            expected=wanted,
            affected=[row.path for row in ends],
            change=[last],
            severity="bad" if constant else "warning",
            facts={"why": why},
        )
    ]


def unsuited(case: Case) -> str:
    """The words of `output_activation`."""
    made = "without an activation" if case.observed == "linear" else f"by {case.observed}"
    return f"{case.layer} makes the outputs {made}, and {case.facts['why']}"


def suited(network: Network, case: Case) -> Remedy | None:
    """The activation to write."""
    del network
    return Activate(case.expected, tuple(row.path for row in case.change))


def _activation(row: Row) -> str:
    return (row.info.activation or "linear").split("(")[0]


def _units(row: Row) -> int:
    return row.info.shape[-1] if row.info.shape else 0


def _unsuited(network: Network, last: Row, target: Row) -> tuple[str, str] | None:
    """The activation to write instead, and what is wrong; None where this one can give what is asked."""
    name, units, kind = _activation(last), _units(last), network.snapshot.loss_kind
    mean, largest = target.stats.activation_mean, target.stats.activation_max
    least = math.nan if network.snapshot.least_target is None else network.snapshot.least_target
    within = least >= 0.0 and largest <= 1.0
    if network.snapshot.outputs_mean == "logits":
        return ("linear", "the loss takes them for logits of either sign") if name in _ONE_SIDED else None
    if kind == "classes":
        return None if name in _DISTRIBUTIONS or units < 2 else ("softmax", "the loss takes them for probabilities")
    if name in _DISTRIBUTIONS:
        wanted = "sigmoid" if within else "linear"
        if units == 1:
            return wanted, "over one unit it is 1, whatever the weights are"
        if target.info.shape == last.info.shape and abs(units * mean - 1.0) > 0.01:
            return wanted, f"they sum to 1, but the targets of a sample to {num(units * mean)}"
    if kind == "yes-no":
        return None if name in _UNIT else ("sigmoid", "the loss takes them for probabilities")
    beyond = f"the targets go down to {num(least)}" if least < 0.0 else f"the targets go up to {num(largest)}"
    if name in _UNIT and not within:
        return "linear", f"they stay between 0 and 1, but {beyond}"
    if name == "tanh" and largest > 1.0:
        return "linear", f"they stay between -1 and 1, but the largest of the targets has a size of {num(largest)}"
    if name in _ONE_SIDED and least < 0.0:
        return "linear", f"they are never negative, but {beyond}"
    return None
