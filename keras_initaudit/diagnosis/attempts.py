"""New starts of a whole model, for where the remedies of single findings do not make it learn: pure data."""

from __future__ import annotations

from ..records import Snapshot
from ..records.remedies import LearningRate, Remedy, Together, WholeModel
from . import proposals
from .network import Network

_USUAL_RATES = {"SGD": 0.01, "Adadelta": 1.0}
_USUAL_RATE = 0.001
"""Learning rates from the papers of the optimizers: that of Adam, and of what is made like it (Kingma & Ba 2015)."""
_FAR = 3.0
"""Rates closer to each other than this are one."""


def new_starts(snapshot: Snapshot) -> tuple[Remedy, ...]:
    """What takes the place of the remedies of single weights, in the order in which to try it until a start learns.

    First all kernels, for faults hide each other, and hidden activations that pass much on where they pass little. Then
    the same with the optimizer's usual learning rate, and with ten times that: whoever chose the rate of a start that
    does not learn saw a loss that says nothing of it.

    Args:
        snapshot: The first audit.

    Example:
        >>> from keras_initaudit.records import LayerInfo, Statistics
        >>> head = LayerInfo("head", 0, kind="Dense", weight="kernel", weight_shape=(8, 3))
        >>> new_starts(Snapshot(0, (head,), (Statistics(),), optimizer="SGD", learning_rate=0.01))[1].remedies
        (WholeModel(), LearningRate(value=0.1))
    """
    network = Network(snapshot)
    flat = proposals.flat(network, network.hidden)
    anew = (*([] if flat is None else [flat]), WholeModel())
    usual = _USUAL_RATES.get(snapshot.optimizer, _USUAL_RATE)
    own = snapshot.learning_rate
    rates = [rate for rate in (usual, 10.0 * usual) if own and max(rate / own, own / rate) > _FAR]
    starts = [anew, *((*anew, LearningRate(rate)) for rate in rates)]
    return tuple(start[0] if len(start) == 1 else Together(start) for start in starts)
