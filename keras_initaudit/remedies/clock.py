"""What two loss curves say of a start: pure functions of numbers.

The way is what a start has to come: from the loss of the best constant answer (0) to the loss at the targets (1). Ways
are compared and never losses, for a remedy may scale the targets. A start arrives when the mean of its last three
losses has come half of the way. The figures below were chosen on curves that were measured beforehand.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from ..diagnosis.wording import num, percent
from ..records import Curve, Outcome, Trial

_ARRIVED = 0.5
AVERAGED = 3
"""Losses of which the mean is taken: dropout and small batches make single ones jump."""
REMEDIED_MOST = 100
"""Updates that the start with the remedy may make."""
TIMES = 3
AS_IS_LEAST = 20
"""The start as it is may make `TIMES` as many updates as the other one needed, and at least this many."""
AS_IS_MOST = TIMES * REMEDIED_MOST
"""Updates after which a start is judged by its loss alone."""
_MOVED = 0.05
_QUARTER = 0.25
"""Where neither start arrives: a remedied one that came at least `_MOVED` of the way shows that the other one is bad if
that came less than a `_QUARTER` as far."""
_SLOWER = 2
_LATER = 5
"""A warning needs at least `_SLOWER` times as many updates and `_LATER` more: smaller ratios are noise. Six seeds of a
healthy convolutional network with dropout need 21 to 44."""
_NOTHING = 1e-5
"""Share of a loss that is written as 0: cross-entropies keep probabilities away from 0 and 1 by 1e-7."""
_LOST = 20
"""Losses in a row that are not finite, after which nothing can come any more: a loss scale is halved 15 times first."""


def way(loss: float, constant: float, at_targets: float) -> float:
    """The fraction of the way that a loss has come: 0 at the best constant answer, 1 at the targets."""
    return (constant - loss) / (constant - at_targets)


def arrived(losses: Sequence[float], constant: float, at_targets: float) -> bool:
    """Whether the mean of the last three losses has come half of the way."""
    return len(losses) >= AVERAGED and way(_end(losses), constant, at_targets) >= _ARRIVED


def lost(losses: Sequence[float]) -> bool:
    """Whether the losses have not been finite for so long that they stay so."""
    return len(losses) >= _LOST and not any(map(math.isfinite, losses[-_LOST:]))


def curve(losses: Sequence[float], constant: float, at_targets: float) -> Curve:
    """The record of these losses, with the number of updates that it took to come half of the way."""
    lengths = range(AVERAGED, len(losses) + 1)
    needed = next((n for n in lengths if arrived(losses[:n], constant, at_targets)), None)
    return Curve(tuple(losses), constant, at_targets, needed)


def as_is_limit(remedied: Curve) -> int:
    """The updates that the start as it is may make, beside this one with the remedy."""
    return AS_IS_MOST if remedied.needed is None else max(AS_IS_LEAST, TIMES * remedied.needed)


def farthest(curve: Curve) -> float:
    """The largest fraction of the way that the mean of three losses came; minus infinity where none was finite."""
    means = [_end(curve.losses[:n]) for n in range(AVERAGED, len(curve.losses) + 1)]
    return max((way(m, curve.constant, curve.at_targets) for m in means if math.isfinite(m)), default=-math.inf)


def judge(as_is: Curve, remedied: Curve) -> Outcome:
    """Whether the start as it is is bad, slow or good enough, beside the same model with the remedy.

    Args:
        as_is: Up to where it arrived, or as many updates as it was allowed.
        remedied: The same of the start with the remedy.
    """
    if as_is.needed is not None:
        return "warning" if _much_slower(as_is.needed, remedied.needed) else "note"
    made, complete = len(as_is.losses), len(as_is.losses) >= as_is_limit(remedied) or lost(as_is.losses)
    if remedied.needed is not None:
        # Of a run that the budget cut short it is known that it needs more updates than it made.
        return "bad" if complete else "warning" if _much_slower(made, remedied.needed) else "undecided"
    if complete and (_hopeless(as_is) or _left_behind(as_is, remedied)):
        return "bad"
    return "undecided"


def much_slower_from(needed: int) -> int:
    """The number of updates from which a start is much slower than one that needed `needed` of them."""
    return max(_SLOWER * needed, needed + _LATER)


def _much_slower(needed: int, remedied: int | None) -> bool:
    return remedied is not None and needed >= much_slower_from(remedied)


def _hopeless(curve: Curve) -> bool:
    """Whether the loss ends not finite, or above twice that of the best constant answer."""
    end = _end(curve.losses)
    return not math.isfinite(end) or end > _twice(curve)


def _twice(curve: Curve) -> float:
    """Twice the loss of the best constant answer, counted from 0 or from where the loss can get below that."""
    return 2.0 * curve.constant - min(curve.at_targets, 0.0)


def _left_behind(as_is: Curve, remedied: Curve) -> bool:
    came = farthest(remedied)
    return came >= _MOVED and farthest(as_is) < _QUARTER * came


def harmful(as_is: Curve, remedied: Curve) -> bool:
    """Whether a remedy leaves the loss above both the first one and twice that of the best constant answer."""
    first, end = as_is.losses[0], _end(remedied.losses)
    if not math.isfinite(end):
        return True
    came = way(end, remedied.constant, remedied.at_targets)
    return math.isfinite(first) and came < way(first, as_is.constant, as_is.at_targets) and end > _twice(remedied)


def helps(as_is: Curve, remedied: Curve) -> bool:
    """Whether a remedy does no harm, and brings the start at least a little of the way."""
    return not harmful(as_is, remedied) and (remedied.needed is not None or farthest(remedied) >= _MOVED)


def sentence(trial: Trial) -> str:
    """What was tried and what came of it, in numbers; of a trial that was not run, why."""
    as_is, remedied = trial.as_is, trial.remedied
    if as_is is None or remedied is None:
        return f"Not tried: {trial.reason}."
    goal = remedied.at_targets if abs(remedied.at_targets) > _NOTHING * abs(remedied.constant) else 0.0
    ends = f"from {num(remedied.constant)}, the best constant answer, to {num(goal)}"
    if remedied.needed is not None:
        first = f"With the remedy, {remedied.needed} updates on this batch bring the loss half of the way {ends}"
        if as_is.needed is not None:
            return f"{first}; as it is, {as_is.needed} do."
        return f"{first}; as it is, {len(as_is.losses)} do not."
    made, came = len(remedied.losses), percent(max(0.0, farthest(remedied)))
    first = f"With the remedy, {made} updates on this batch bring the loss {came} of the way {ends}"
    if as_is.needed is not None:
        return f"{first}; as it is, {as_is.needed} bring it half of the way."
    if not math.isfinite(_end(as_is.losses)):
        return f"{first}; as it is, the loss is not finite after {len(as_is.losses)}."
    return f"{first}; as it is, {len(as_is.losses)} bring it {percent(max(0.0, farthest(as_is)))}."


def _end(losses: Sequence[float]) -> float:
    last = losses[-AVERAGED:]
    return sum(last) / len(last)
