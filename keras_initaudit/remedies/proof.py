"""Whether a remedy helped, and the sentence that says so in numbers.

It compares two snapshots, before and after the remedy: the loss, and what the finding's own rule sees in both. It
touches no model and knows no Keras.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from ..diagnosis import Thresholds, seen_by
from ..diagnosis.wording import num
from ..flow import Flow
from ..records import Finding, Snapshot

_UNINFORMED = 2.0
"""A loss above this many times the uninformed one is no start to learn from, where it was lower before."""


def effect(
    finding: Finding,
    before: Snapshot,
    after: Snapshot,
    found: Sequence[Finding],
    thresholds: Thresholds | None = None,
    penalties: tuple[float, float] = (0.0, 0.0),
) -> str | None:
    """What a remedy did, in numbers; None where it is not proven.

    Not proven is a remedy that makes the loss infinite or NaN, that leaves it above both the first loss and twice that
    of a model that knows nothing, that turns a fault into its opposite, or after which the rule still sees as much of
    the fault at the same layers.

    Args:
        finding: What the remedy was for.
        before: The model as it was.
        after: The model with the remedy.
        found: The diagnosis of `after`.
        thresholds: The limits of that diagnosis.
        penalties: What the regularizers of the weights add to the two losses.

    Returns:
        One sentence without a full stop. It says "the finding is gone" only where the rule sees nothing any more at the
        layers that were affected, also nothing that `found` explains by something else.
    """
    left = remaining(finding, after, thresholds)
    if not math.isfinite(after.loss) or _harmful(before.loss - penalties[0], after.loss - penalties[1], after):
        return None
    opposite = {"vanishing-signal": "exploding-signal", "vanishing-gradient": "exploding-gradient"}.get(finding.rule)
    if opposite is not None and any(other.rule == opposite and other.severity == "bad" for other in found):
        return None
    if left and not _weaker(remaining(finding, before, thresholds) or [finding], left):
        return None
    old, new = (_observed(finding, snapshot) for snapshot in (before, after))
    measured = _MEASURES.get(finding.rule)
    parts = []
    if measured is not None and not (math.isnan(old) or math.isnan(new)):
        what = measured[0].format(layer=_where(finding))
        parts.append(f"{what} goes from {num(old)} to {num(new)}")
    if finding.rule != "initial-loss":
        goes = "from" if parts else "goes from"  # the verb of the part before it holds here too
        change = f"{goes} {num(before.loss)} to" if math.isfinite(before.loss) else "becomes"
        parts.append(f"the loss {change} {num(after.loss)}")
    end = "the finding is weaker but still there" if left else "the finding is gone"
    others = [f for f in found if f.severity == "bad" and not (f.rule == finding.rule and _touches(f, finding))]
    rest = dict.fromkeys(f"{f.rule} at {f.layer}" if f.rule == finding.rule else f.rule for f in others)
    return ", ".join(parts) + f"; {end}" + (f"; left to mend: {', '.join(rest)}" if rest else "")


def remaining(finding: Finding, snapshot: Snapshot, thresholds: Thresholds | None = None) -> list[Finding]:
    """What the finding's rule sees in a snapshot at the layers that the finding affects, whatever its severity."""
    return [other for other in seen_by(finding.rule, snapshot, thresholds) if _touches(other, finding)]


def _touches(one: Finding, other: Finding) -> bool:
    """Whether two findings of a rule speak of the same layers; one that names none speaks of the whole model."""
    paths = [set(finding.evidence.get("affected", ())) for finding in (one, other)]
    return not all(paths) or bool(paths[0] & paths[1])


def _harmful(first: float, loss: float, after: Snapshot) -> bool:
    return after.baseline_loss is not None and loss > max(first, _UNINFORMED * after.baseline_loss)


def _weaker(old: Sequence[Finding], new: Sequence[Finding]) -> bool:
    """Whether the fault has less than half its size in the measure of the rule, or is smaller and no longer bad."""
    if len({str(finding.evidence.get("unit")) for finding in (*old, *new)}) > 1:
        return False  # two measures, as entropy and share of saturated units
    before, after = (max(map(_distance, findings)) for findings in (old, new))
    milder = any(f.severity == "bad" for f in old) and not any(f.severity == "bad" for f in new)
    return after < (1.0 if milder else 0.5) * before


def _distance(finding: Finding) -> float:
    """How far what was observed lies from what is expected, as a share of that unless it is 0."""
    observed, expected = finding.evidence.get("observed"), finding.evidence.get("expected")
    if not isinstance(observed, int | float) or not isinstance(expected, int | float):
        return math.inf
    return abs(observed - expected) / (abs(expected) or 1.0)


def _where(finding: Finding) -> str:
    return str(finding.evidence.get("worst") or finding.evidence.get("source") or finding.layer or "the model")


def _observed(finding: Finding, snapshot: Snapshot) -> float:
    measure = _MEASURES.get(finding.rule)
    try:
        return math.nan if measure is None else measure[1](finding, snapshot)
    except KeyError:  # the row is gone, as the data's own is behind a layer in front of it
        return math.nan


def _column(name: str) -> Callable[[Finding, Snapshot], float]:
    def read(finding: Finding, snapshot: Snapshot) -> float:
        return float(getattr(snapshot[_where(finding)], name))

    return read


def _first_affected(name: str) -> Callable[[Finding, Snapshot], float]:
    def read(finding: Finding, snapshot: Snapshot) -> float:
        affected = finding.evidence.get("affected") or [finding.layer]
        return float(getattr(snapshot[str(affected[0])], name))

    return read


def _gradient_left(finding: Finding, snapshot: Snapshot) -> float:
    """The gradient at the finding's row over that of its point of reference, as the rules measure it."""
    flow = Flow(snapshot)
    levels = {flow.rows[index].path: decades for index, (decades, _) in flow.gradient_levels().items()}
    return float(10.0 ** levels[_where(finding)])


_MEASURES: dict[str, tuple[str, Callable[[Finding, Snapshot], float]]] = {
    "vanishing-signal": ("the rms of the activations at {layer}", _column("activation_rms")),
    "exploding-signal": ("the rms of the activations at {layer}", _column("activation_rms")),
    "vanishing-gradient": ("the gradient at {layer}, over the last hidden layer's,", _gradient_left),
    "exploding-gradient": ("the gradient at {layer}, over the last hidden layer's,", _gradient_left),
    "collapsed-samples": ("the spread of the samples at {layer}", _column("activation_spread")),
    "symmetric-units": ("the fraction of copied units at {layer}", _first_affected("weight_identical")),
    "dead-units": ("the fraction of dead units at {layer}", _first_affected("activation_dead")),
    "saturated-units": ("the fraction of saturated units at {layer}", _first_affected("activation_saturated")),
    "input-scale": ("the rms of the data at {layer}", _column("activation_rms")),
    "initial-loss": ("the first loss", lambda _, snapshot: snapshot.loss),
    "fan-mismatch": ("the rms of the weights of {layer}", _column("weight_rms")),
    "duplicate-kernels": (
        "the number of kernels that repeat another",
        lambda _, snapshot: float(sum(row.duplicate_of is not None for row in snapshot.layers)),
    ),
}
"""Rule -> what its proof speaks of, and how to read it off a snapshot."""
