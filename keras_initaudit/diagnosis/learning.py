"""The rule about a start that no other rule suspects, and that does not learn all the same."""

from __future__ import annotations

import math

from ..flow import Row
from ..records import Finding
from ..records.remedies import WholeModel
from . import proposals
from .network import Network
from .thresholds import Thresholds
from .updates import USUAL_STEP, warming_up
from .wording import finding, num, plural

_UPDATES = range(20, 101)
"""Updates after which it is asked for: earlier nothing has to have happened, and later a model may have learnt."""


def not_learning(network: Network, thresholds: Thresholds) -> list[Finding]:
    """The loss is still that of a constant answer or above, and no kernel has moved by as much as would matter.

    How far a kernel can have moved is known by its largest step: no more than so many of these.
    """
    snapshot, constant = network.snapshot, network.snapshot.constant_loss
    made = snapshot.step - (network.before[0].step if network.before else 0)
    if made not in _UPDATES or constant is None or not snapshot.loss >= constant or snapshot.learning_rate == 0.0:
        return []
    if warming_up(network.before[-1] if network.before else None, snapshot):
        return []
    steps = [step for row in network.rows if (step := _largest_step(network, row)) is not None]
    if not steps or not made * max(steps) < thresholds.moved_warning:
        return []
    moved = made * max(steps)
    rate = snapshot.learning_rate
    larger = rate * USUAL_STEP / max(steps) if rate and max(steps) > 0.0 else math.inf
    return [
        finding(
            "not-learning",
            "warning",
            None,
            f"after {plural(made, 'update')} the loss is {num(snapshot.loss)}, and the best answer that is the same "
            f"for every sample has {num(constant)}; no kernel has moved by more than {num(moved)} times its size",
            observed=moved,
            expected=made * USUAL_STEP,
            threshold=thresholds.moved_warning,
            unit="rms(change of a kernel) / rms(kernel), at the most",
            affected=[row.path for row in network.rows if _largest_step(network, row) is not None],
            loss=snapshot.loss,
            constant_loss=constant,
            learning_rate=rate,
            # No optimizer is given a rate above 1: there it is the gradient that is too small.
            remedy=proposals.learning_rate(larger) if larger <= 1.0 else WholeModel(),
        )
    ]


def _largest_step(network: Network, row: Row) -> float | None:
    """Of the updates of a kernel that were measured, the largest, over its size; None where none was."""
    if not row.info.trainable or row.info.lookup or len(row.info.weight_shape) < 2:
        return None
    seen = [audit.statistics[row.index] for audit in (*network.before, network.snapshot)]
    seen = [stats for stats in seen if not math.isnan(stats.update_zero) or not math.isnan(stats.update_log10)]
    logs = [stats.update_log10 for stats in seen]
    return max((0.0 if math.isnan(log) else 10.0**log for log in logs), default=None)
