"""What a remedy does to the model on its batch: applied to the model itself, measured, and taken back again.

A model of any kind can be measured and not every one can be cloned: so it is the model itself that is changed, and its
weights are put back bit for bit, whatever happens.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

from keras import ops

from ..diagnosis import Thresholds, diagnose, seen_by
from ..diagnosis.wording import num
from ..observe.engines import engine
from ..observe.engines.undocumented import names_kept, optimizer_state, weights_of
from ..observe.probe import iterations
from ..records import Finding, LayerInfo, Snapshot
from ..records.remedies import (
    Activate,
    LearningRate,
    Policy,
    Preprocess,
    Reinitialize,
    Remedy,
    Together,
    WholeModel,
    Widen,
)
from .applying import apply, made
from .initialization import initialize
from .proof import effect


def prove(findings: Sequence[Finding], probe: Any, thresholds: Thresholds | None = None) -> tuple[Finding, ...]:
    """The findings, each with what its remedy does to this model on this batch, in `proof`.

    A remedy that does not help is replaced by a new start of the whole model where that does, and dropped where it does
    not. One that changes the learning rate shows only in training: a few updates are made, and taken back. Another
    dtype policy needs another model: it stays as it is, without a proof.

    Args:
        findings: What was found in the probe's model as it is.
        probe: A `Probe`, after a `measure`; it and its model end as they were.
        thresholds: Limits of the rules, those of the diagnosis that made the findings.

    Returns:
        As many findings, in the same order.
    """
    proven = []
    before: tuple[Snapshot, float] | None = None
    for finding in findings:
        if finding.action is None or isinstance(
            finding.action, Policy | Activate | Together | Widen
        ):  # not by the weights
            proven.append(finding)
        elif isinstance(finding.action, LearningRate):
            proven.append(_with_shorter_steps(finding, finding.action, probe, thresholds))
        else:
            if before is None:
                with _kept(probe):
                    before = probe.measure(0), _penalty(probe.model)
            proven.append(_proven(finding, probe, thresholds, before))
    return tuple(proven)


def _proven(finding: Finding, probe: Any, thresholds: Thresholds | None, before: tuple[Snapshot, float]) -> Finding:
    assert finding.action is not None
    candidates: list[Remedy] = [finding.action]
    if not isinstance(finding.action, WholeModel | Preprocess):
        candidates.append(WholeModel())
    weaker: Finding | None = None
    for remedy in candidates:
        try:
            after, penalty = _after(remedy, probe)
        except Exception:  # a remedy that cannot be applied is none, whatever the reason
            continue
        found = diagnose([after], thresholds)
        proof = effect(finding, before[0], after, found, thresholds, (before[1], penalty))
        if proof is not None and not seen_by(finding.rule, after, thresholds):
            return finding.with_remedy(remedy, proof)
        if proof is not None and weaker is None:
            weaker = finding.with_remedy(remedy, proof)
    return finding.with_remedy(None) if weaker is None else weaker


# --- trying

_UPDATES = 3
_SHORTER = 4
"""Updates of a trial, and how often the step is divided by ten until they bring the loss down."""

_TRIES = 64
"""Training steps within which an optimizer must make an update: a loss scale of 2^15 is halved 15 times at most."""


def _with_shorter_steps(finding: Finding, proposed: LearningRate, probe: Any, thresholds: Thresholds | None) -> Finding:
    """The finding with the longest step that learns from a new start: by now the old one may be beyond repair."""
    dropped = finding.with_remedy(None)
    if engine().replicas(probe.model) > 1:  # an update by hand is made on one replica
        return dropped
    try:
        for shorter in range(_SHORTER):
            remedy = LearningRate(float(f"{proposed.value / 10.0**shorter:.1g}"))
            with _kept(probe), warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of a start that is only tried
                start, first_update, end = _trained(remedy, probe)
            found = diagnose([start, first_update, end], thresholds)
            if end.loss < start.loss and not any(other.rule == finding.rule for other in found):
                changes = [row.update_log10 for row in first_update.statistics if not math.isnan(row.update_log10)]
                proof = (
                    f"from a new start, {_UPDATES} updates bring the loss of this batch from {start.loss:.4g} to "
                    f"{end.loss:.4g}; the first changes no kernel by more than {num(10.0 ** max(changes))} of its size"
                )
                return finding.with_remedy(remedy, proof)
    except Exception:  # a schedule that cannot be set, an optimizer or a training step that cannot be run by hand
        return dropped
    return dropped


def _trained(remedy: LearningRate, probe: Any) -> tuple[Snapshot, Snapshot, Snapshot]:
    """The snapshots before, after the first of and after a few updates, from a new start of model and optimizer."""
    biases = [v for v in probe.model.trainable_variables if v.path.rpartition("/")[2] == "bias"]
    for variable in biases:
        variable.assign(ops.zeros_like(variable))
    initialize(probe.model, seed=0)
    _start_optimizer(probe.model.optimizer)  # after the weights: some keep copies of them
    apply(remedy, probe.model)
    start: Snapshot = probe.measure(0)
    probe.mark()
    _update(probe)
    first: Snapshot = probe.measure(1)
    for _ in range(_UPDATES - 1):
        _update(probe)
    end: Snapshot = probe.measure(_UPDATES)
    return start, first, end


def _update(probe: Any) -> None:
    """Training steps until the optimizer has made one update: it may skip some, or collect gradients first."""
    optimizer = probe.model.optimizer
    before = iterations(optimizer)
    for _ in range(_TRIES):
        probe.update()
        if iterations(optimizer) > before:
            return
    raise RuntimeError(f"the optimizer {optimizer.name!r} made no update in {_TRIES} training steps")


def _start_optimizer(optimizer: Any) -> None:
    """Gives an optimizer the state that a freshly built copy of it has for the weights as they are now.

    Zeros would not do: a loss scale of 0 makes NaN of every gradient, and slots may be copies of the weights.
    """
    if not optimizer.built:  # to build it here would leave it built, for weights that may yet be frozen
        raise ValueError(f"the optimizer {optimizer.name!r} has made no update")
    copy = type(optimizer).from_config(optimizer.get_config())
    copy.build(weights_of(optimizer))
    for variable, fresh in zip(optimizer_state(optimizer), optimizer_state(copy), strict=True):
        variable.assign(fresh.value)


def _after(remedy: Remedy, probe: Any) -> tuple[Snapshot, float]:
    """The snapshot with the remedy, and what the regularizers of the weights add to its loss."""
    with _kept(probe):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a start that is only tried
            batch = apply(remedy, probe.model, probe.batch)
        if batch is not probe.batch:
            # Another dtype or number of samples may come out of it, so that the probe's own trace does not fit.
            other: Snapshot = type(probe)(probe.model, batch, histograms=False).measure(0)
            return other, _penalty(probe.model)
        snapshot: Snapshot = probe.measure(0)
        described = dataclasses.replace(snapshot, layers=_described_again(remedy, probe, snapshot))
        return described, _penalty(probe.model)


def _penalty(model: Any) -> float:
    """What the regularizers of the weights add to the loss."""
    pairs = [(v.regularizer, ops.copy(v)) for v in model.trainable_variables if v.regularizer is not None]
    return sum(float(ops.convert_to_numpy(regularizer(value))) for regularizer, value in pairs)


def _described_again(remedy: Remedy, probe: Any, snapshot: Snapshot) -> tuple[LayerInfo, ...]:
    """The rows with what a new start changes in them: the initializer, and which weights repeat another's numbers."""
    repeated = probe.duplicates()
    schemes = {a: made(s) for a, s in remedy.schemes.items()} if isinstance(remedy, Reinitialize) else {}
    touched = {path.partition("#")[0] for path in remedy.layers} if isinstance(remedy, Reinitialize) else set()
    rows = []
    for row in snapshot.layers:
        changes: dict[str, Any] = {"duplicate_of": repeated.get(row.path)}
        if isinstance(remedy, WholeModel) and row.weight is not None:
            changes |= {"initializer": None, "initializer_config": {}}
        scheme = schemes.get(row.initializer_argument or "")
        if scheme is not None and row.role == "layer" and row.path.partition("#")[0] in touched:
            changes |= {"initializer": type(scheme).__name__, "initializer_config": dict(scheme.get_config())}
        rows.append(dataclasses.replace(row, **changes))
    return tuple(rows)


@contextlib.contextmanager
def _kept(probe: Any) -> Iterator[None]:
    """Puts back all that a remedy or an update changes: names, variables, random states, and the probe's mark."""
    mark, probe.marked = probe.marked, None
    try:
        with names_kept(), probe.everything_kept():
            yield
    finally:
        probe.marked = mark
