"""The rule about a start that no other rule suspects, and that does not learn all the same."""

from __future__ import annotations

import math

from ..flow import Row
from ..records.remedies import Remedy, WholeModel
from . import proposals
from .network import Network
from .rule import Case
from .updates import USUAL_STEP, warming_up
from .wording import num, plural

_UPDATES = range(20, 101)
"""Updates after which it is asked for: earlier nothing has to have happened, and later a model may have learnt."""


def not_learning(network: Network) -> list[Case]:
    """The loss is still that of a constant answer or above; the amount is how far any kernel can have moved.

    That is known by its largest step: no more than so many of these.
    """
    snapshot, constant = network.snapshot, network.snapshot.constant_loss
    made = snapshot.step - (network.before[0].step if network.before else 0)
    if made not in _UPDATES or constant is None or not snapshot.loss >= constant or snapshot.learning_rate == 0.0:
        return []
    if warming_up(network.before[-1] if network.before else None, snapshot):
        return []
    steps = {row.path: step for row in network.rows if (step := _largest_step(network, row)) is not None}
    if not steps:
        return []
    largest = max(steps.values())
    return [
        Case(
            amount=made * largest,
            layer=None,
            expected=made * USUAL_STEP,
            affected=list(steps),
            facts={
                "updates": made,
                "loss": snapshot.loss,
                "constant_loss": constant,
                "largest_step": largest,
                "learning_rate": snapshot.learning_rate,
            },
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


def stands_still(case: Case) -> str:
    """The words of `not_learning`."""
    facts = case.facts
    return (
        f"after {plural(facts['updates'], 'update')} the loss is {num(facts['loss'])}, and the best answer that is the "
        f"same for every sample has {num(facts['constant_loss'])}; no kernel has moved by more than "
        f"{num(case.amount)} times its size"
    )


def larger_steps(network: Network, case: Case) -> Remedy | None:
    """The rate with which the largest step is a usual one; a new start where the gradient is what is too small."""
    del network
    rate, largest = case.facts["learning_rate"], case.facts["largest_step"]
    larger = rate * USUAL_STEP / largest if rate and largest > 0.0 else math.inf
    # No optimizer is given a rate above 1.
    return proposals.learning_rate(larger) if larger <= 1.0 else WholeModel()
