"""The rule about the activation that makes the outputs: can it give what the targets are, as the loss reads them?"""

from __future__ import annotations

from ..flow import Row
from ..numerals import num
from ..records import Finding
from ..records.remedies import Activate
from .network import Network
from .thresholds import Thresholds
from .wording import finding

_ONE_SIDED = ("relu", "relu6")
"""Activations that give nothing below zero, and pass no gradient there."""
_DISTRIBUTIONS = ("softmax", "sparsemax")
_UNIT = ("sigmoid", "hard_sigmoid", *_DISTRIBUTIONS)
"""Those that stay between 0 and 1."""


def output_activation(network: Network, thresholds: Thresholds) -> list[Finding]:
    """The activation of the last layer cannot give the targets, or gives what the loss does not take it for.

    A softmax of one unit is 1 whatever the weights are. A sigmoid reaches no target above 1, a ReLU none below 0. The
    outputs of a softmax sum to 1, those of several labels do not. A cross-entropy reads its outputs as probabilities,
    unless it is told that they are logits: it cuts off what lies outside 0 and 1, and with it the gradient.
    """
    last = _last(network)
    targets = [row for row in network.rows if row.info.role == "target"]
    if last is None or len(targets) != 1:
        return []
    name = (last.info.activation or "linear").split("(")[0]
    found = _unsuited(network, thresholds, last, name, targets[0])
    if found is None:
        return []
    wanted, why = found
    return [
        finding(
            "output-activation",
            "bad" if wanted.constant else "warning",
            last.path,
            f"{last.path} makes the outputs with {_article(name)}: {why}",
            observed=name,
            expected=wanted,
            threshold=None,
            unit="activation of the outputs",
            layers=[last.path],
            affected=[head.path for head in network.heads],
            remedy=Activate(wanted, (last.path,)),
        )
    ]


def _article(name: str) -> str:
    return "no activation" if name == "linear" else f"{name} as their activation"


def _last(network: Network) -> Row | None:
    """The row that makes the outputs, where there is one, of Keras's own layers; else None."""
    if len(network.heads) != 1 or not network.snapshot.outputs_mean:
        return None
    row = network.heads[0]
    while True:
        behind = [network.rows[c] for c in network.children[row.index] if network.rows[c].info.role == "layer"]
        if not behind:
            return row
        if len(behind) > 1 or len(network.parents[behind[0].index]) > 1:
            return None
        row = behind[0]


def _unsuited(network: Network, thresholds: Thresholds, last: Row, name: str, target: Row) -> tuple[str, str] | None:
    """The activation to write instead, and why; None where this one can give what is asked."""
    kind, units, stats = network.snapshot.loss_kind, last.info.shape[-1] if last.info.shape else 0, target.stats
    mean, deviation, largest = stats.activation_mean, stats.activation_std, stats.activation_max
    negative = network.snapshot.least_target < 0.0
    fractions = not negative and largest <= 1.0
    distribution = abs(units * mean - 1.0) < 0.01  # the targets of each sample sum to 1
    bounded = "sigmoid" if fractions else "linear"
    if kind == "classes":
        return _unsuited_to_classes(network, name, units)
    if name in _DISTRIBUTIONS and units == 1:
        return bounded, "over one unit it is 1, whatever the weights are"
    if name in _DISTRIBUTIONS and target.info.shape == last.info.shape and not distribution and deviation > 0.0:
        return bounded, f"they sum to 1, but the targets of a sample to {num(units * mean)}"
    if kind == "yes-no":
        if network.snapshot.outputs_mean == "logits":
            return ("linear", "the loss takes them for logits of either sign") if name in _ONE_SIDED else None
        return None if name in _UNIT else ("sigmoid", "the loss takes them for probabilities, and cuts off the others")
    if name in _UNIT and not fractions:
        return "linear", f"they stay between 0 and 1, but the targets {'are negative too' if negative else 'do not'}"
    if name == "tanh" and largest > 1.0:
        return "linear", f"they stay between -1 and 1, but the targets go up to {num(largest)}"
    large = stats.activation_rms >= thresholds.target_high_warning  # they are to be scaled, around zero
    if name in _ONE_SIDED and (negative or large):
        return "linear", f"they are never negative, but the targets are{'' if negative else ' once they are scaled'}"
    return None


def _unsuited_to_classes(network: Network, name: str, units: int) -> tuple[str, str] | None:
    if units < 2:
        return None
    if network.snapshot.outputs_mean == "logits":
        return ("linear", "the loss takes them for logits of either sign") if name in _ONE_SIDED else None
    if name in _DISTRIBUTIONS:
        return None
    return "softmax", "the loss takes them for probabilities that sum to 1"
