"""`audit()`: observes a model for one step, diagnoses it and tries the remedies; the model stays as it was."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras

from .diagnosis import Thresholds, diagnose
from .diagnosis.attempts import new_starts
from .diagnosis.ignoring import checked_ignore, split
from .observe.batch import first_batch, fixed_batch_size, unpack
from .observe.engines import FirstCall, require
from .observe.keras2 import refuse_keras_2
from .observe.probe import Probe, updates_made
from .progress import Progress, bar
from .records import Finding, Snapshot, Trial
from .remedies.trying import tried
from .report import Report

TRYING = "Init Audit: trying the start with and without the remedy"
"""What is shown where a trial takes long."""
_BATCH = 256
"""Samples that a start is tried on where no `fit` says how many: a few dozen are learnt by heart from a bad start."""


def audit(
    model: Any,
    x: Any,
    y: Any = None,
    sample_weight: Any = None,
    *,
    probe_size: int = 32,
    thresholds: Thresholds | None = None,
    ignore: Sequence[str] = (),
    trial: int | None = None,
) -> Report:
    """Audits a model as it is now, by one step of training on one batch; nothing is changed.

    Args:
        model: A compiled `keras.Model`. One that is not built yet is built by the audit, as `fit` would.
        x: Anything that `fit` takes; the first batch of it is used, of arrays 256 samples: a start is tried on these.
        y: Targets, where `x` has none.
        sample_weight: Weights of the samples.
        probe_size: Number of samples to measure.
        thresholds: Limits of the rules; None for the defaults.
        ignore: Findings to accept: rules, as `"duplicate-kernels"`, or rules at layers, as `"no-gradient:ema/*"`.
            The verdict does not count them; the report lists them.
        trial: Where something is found, the model is trained for some updates, as it is and with the remedies, and put
            back: the most updates that one of these runs may make. None for what fits into half a minute, 0 for no
            trial.

    Returns:
        The report. What was tried on this model and batch is in its `trials`, and decides how bad its findings are.

    Raises:
        TypeError: `model` is not a Keras model, or another argument is of the wrong type.
        ValueError: `model` is not compiled, `probe_size` is not positive, `trial` is negative, `ignore` names no rule,
            or there is no data.
        RuntimeError: Keras runs on a backend that there is no engine for.

    Example:
        >>> import keras, numpy as np
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2, kernel_initializer="zeros"),
        ...                           keras.layers.Dense(1, kernel_initializer="zeros")])
        >>> model.compile("sgd", "mse")
        >>> audit(model, np.eye(4), np.ones((4, 1))).verdict
        'bad'
    """
    require("audit")
    size = checked_probe_size(probe_size)
    limits = checked_thresholds(thresholds)
    meant = checked_ignore(ignore)
    most = checked_trial(trial)
    refuse_keras_2(model)
    if not callable(getattr(model, "train_step", None)):
        raise TypeError(f"model must be a keras.Model, got {type(model).__name__}")
    if not getattr(model, "compiled", False):
        raise ValueError(
            "model is not compiled: an audit runs a training step, and needs its loss; "
            "call model.compile(optimizer, loss) first"
        )
    batch = first_batch(x, y, sample_weight, size=fixed_batch_size(model) or max(size, _BATCH))
    if batch is None:
        raise ValueError("x holds no batch: an audit needs at least one sample")
    if unpack(batch)[1] is None and _needs_targets(model):
        raise ValueError(
            f"y is missing: the model was compiled with loss={model.loss!r}, which compares outputs with targets; "
            "give them as audit(model, x, y)"
        )
    probe = Probe(model, batch, size=size, histograms=False)
    call = FirstCall(batch, False, None, None)
    with bar(TRYING) as progress:
        snapshots = [probe.measure(updates_made(model))]
        return judge(probe, snapshots, limits, meant, call=call, most=most, progress=progress)


def _needs_targets(model: Any) -> bool:
    """Whether Keras's own training step hands the targets to a loss."""
    own = (getattr(type(model), name) is not getattr(keras.Model, name) for name in ("train_step", "compute_loss"))
    return model.loss is not None and not any(own)


def judge(
    probe: Probe,
    snapshots: Sequence[Snapshot],
    thresholds: Thresholds,
    ignore: Sequence[str] = (),
    known: Sequence[Finding] = (),
    trials: Sequence[Trial] = (),
    *,
    call: FirstCall,
    most: int | None = None,
    progress: Progress | None = None,
) -> Report:
    """The report of the last of `snapshots`.

    What is found at the first audit is tried, and later a learning rate, once. What came of a remedy stays.

    Args:
        probe: After the last of the snapshots.
        snapshots: Those of one model, the first one first.
        thresholds: Limits of the rules.
        ignore: Findings that are meant.
        known: What was found at earlier audits.
        trials: What was tried at earlier audits.
        call: What the updates of a trial are made with.
        most: The most updates that one run of a trial may make; None for the default, 0 for no trial.
        progress: Called at each update of a trial, with the updates made and the most that may be made.
    """
    first, later = snapshots[0].step, len(snapshots) > 1
    remedies = {f.key: f for f in known}
    findings, ignored = split(diagnose(snapshots, thresholds, trials), ignore)
    if not later or not any(trial.step > first for trial in trials):
        new = [f for f in findings if f.key not in remedies]
        step = snapshots[-1].step
        trial, changed = tried(
            new,
            probe,
            call,
            fresh=first == 0,
            step=step,
            later=later,
            new_starts=new_starts(snapshots[0]),
            most=most,
            progress=progress,
        )
        remedies |= {f.key: f for f in changed}
        if trial is not None:
            trials = (*trials, trial)
            findings, ignored = split(diagnose(snapshots, thresholds, trials), ignore)
    tried_as = [remedies.get(f.key, f) for f in findings]
    counted = tuple(f.with_remedy(r.action, r.proof) for f, r in zip(findings, tried_as, strict=True))
    return Report(snapshots[-1], counted, ignored, tuple(trials), first)


def identity(finding: Finding) -> tuple[str, str | None, str]:
    """What makes two findings of different audits the same; a warning that turns bad is another one."""
    return finding.rule, finding.layer, finding.severity


def checked_probe_size(probe_size: Any) -> int:
    """`probe_size`, a positive integer."""
    if isinstance(probe_size, bool) or not isinstance(probe_size, int):
        raise TypeError(f"probe_size must be an integer, the number of samples to audit on, got {probe_size!r}")
    if probe_size < 1:
        raise ValueError(f"probe_size must be at least 1, got {probe_size}")
    return probe_size


def checked_thresholds(thresholds: Any) -> Thresholds:
    """`thresholds`, the defaults for None."""
    if thresholds is None:
        return Thresholds()
    if not isinstance(thresholds, Thresholds):
        raise TypeError(f"thresholds must be a keras_initaudit.Thresholds or None, got {type(thresholds).__name__}")
    return thresholds


def checked_trial(trial: Any) -> int | None:
    """`trial`, a number of updates or None."""
    allowed = "the most updates that one run of a trial may make, 0 for no trial, or None for the default"
    if trial is not None and (isinstance(trial, bool) or not isinstance(trial, int)):
        raise TypeError(f"trial must be an integer, {allowed}; got {trial!r}")
    if trial is not None and trial < 0:
        raise ValueError(f"trial must be {allowed}; got {trial}")
    return trial
