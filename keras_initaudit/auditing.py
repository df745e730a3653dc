"""`audit()`: observes a model for one step, diagnoses it and tries the remedies; the model stays as it was."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras

from .diagnosis import Thresholds, diagnose
from .diagnosis.ignoring import checked_ignore, split
from .observe.batch import first_batch, fixed_batch_size, unpack
from .observe.engines import require
from .observe.keras2 import refuse_keras_2
from .observe.probe import Probe, updates_made
from .records import Finding, Snapshot
from .remedies.proving import prove
from .report import Report


def audit(
    model: Any,
    x: Any,
    y: Any = None,
    sample_weight: Any = None,
    *,
    probe_size: int = 32,
    thresholds: Thresholds | None = None,
    ignore: Sequence[str] = (),
) -> Report:
    """Audits a model as it is now, by one step of training on one batch; nothing is changed.

    Args:
        model: A compiled `keras.Model`. One that is not built yet is built by the audit, as `fit` would.
        x: Anything that `fit` takes; the first batch of it is used.
        y: Targets, where `x` has none.
        sample_weight: Weights of the samples.
        probe_size: Number of samples to use.
        thresholds: Limits of the rules; None for the defaults.
        ignore: Findings to accept: rules, as `"duplicate-kernels"`, or rules at layers, as `"no-gradient:ema/*"`.
            The verdict does not count them; the report lists them.

    Returns:
        The report, with the remedies that were proven on this model and batch.

    Raises:
        TypeError: `model` is not a Keras model, or `probe_size`, `thresholds` or `ignore` is of the wrong type.
        ValueError: `model` is not compiled, `probe_size` is not positive, `ignore` names no rule, or there is no data.
        RuntimeError: Keras runs on another backend than TensorFlow.

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
    refuse_keras_2(model)
    if not callable(getattr(model, "train_step", None)):
        raise TypeError(f"model must be a keras.Model, got {type(model).__name__}")
    if not getattr(model, "compiled", False):
        raise ValueError(
            "model is not compiled: an audit runs a training step, and needs its loss; "
            "call model.compile(optimizer, loss) first"
        )
    batch = first_batch(x, y, sample_weight, size=max(size, fixed_batch_size(model) or 0))
    if batch is None:
        raise ValueError("x holds no batch: an audit needs at least one sample")
    if unpack(batch)[1] is None and _needs_targets(model):
        raise ValueError(
            f"y is missing: the model was compiled with loss={model.loss!r}, which compares outputs with targets; "
            "give them as audit(model, x, y)"
        )
    probe = Probe(model, batch, size=size, histograms=False)
    return judge(probe, [probe.measure(updates_made(model))], limits, meant)


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
) -> Report:
    """The report of the last of `snapshots`; it tries the remedies of findings neither ignored nor `known` yet."""
    findings, ignored = split(diagnose(snapshots, thresholds), ignore)
    proven = {identity(finding): finding for finding in known}
    with probe.randomness_kept():  # creating an initializer draws a seed, even where one is given
        new = [finding for finding in findings if identity(finding) not in proven]
        proven |= zip(map(identity, new), prove(new, probe, thresholds), strict=True)
    counted = tuple(f.with_remedy(proven[identity(f)].action, proven[identity(f)].proof) for f in findings)
    return Report(snapshots[-1], counted, ignored)


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
