"""`InitAudit`: when to probe, where to write, what to do about a finding. No mathematics; no fault reaches `fit`.

The first audit runs between the moment in which `fit` has its first batch and the first update. To be there, the
callback stands in for `model.train_function` for one call: it takes the batch, puts Keras's own function back, probes,
and calls that function with the batch in front. From then on it only counts.
"""

from __future__ import annotations

import dataclasses
import datetime
import os
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Literal

import keras

from . import auditing
from .batch import first_batch, first_samples, take_batch
from .diagnosis import Thresholds
from .hooks import replaced
from .probe import Probe, require_tensorflow, updates_made
from .records import Finding, Snapshot
from .report import Report
from .tensorboard.summary import Writer

Reaction = Literal["warn", "raise", "stop", "silent"]
_REACTIONS = ("warn", "raise", "stop", "silent")
_DENSE = (1, 2, 5)


class BadInitializationError(Exception):
    """What `InitAudit(on_finding="raise")` raises, before the first update where the fault can be seen there.

    Attributes:
        report: The `Report` with the findings.
    """

    def __init__(self, report: Report) -> None:
        super().__init__(f"\n{report}")
        self.report = report


class InitAudit(keras.callbacks.Callback):
    """Watches a `fit` for what a bad initialization does, and says so before the first update.

    It runs the model's own `train_step` beside the training on a small fixed batch, at a few steps only, and puts back
    everything that this touches: weights, optimizer, metrics and history of the training are bit for bit those of the
    same `fit` without it. A fault of the audit itself becomes one warning, and the training goes on.

    Args:
        log_dir: Folder for TensorBoard; the audit writes into its subfolder `initaudit`. None means
            `logs/<date-time>`, False writes no log.
        schedule: Steps (updates made) at which to audit: None for 0, 1, 2, 5, 10, 20, 50, ..., an integer n for
            every n-th step, an iterable of steps, or a function from a step to whether to audit there. Step 0, the
            state at initialization, is always audited.
        data: The batch to audit on, as `x` or `(x, y)` or `(x, y, sample_weight)`, or a dataset; None takes the first
            training batch.
        probe_size: Number of samples of it that are used.
        histograms: Whether the log gets histograms of weights, activations and gradients.
        on_finding: `"warn"` prints the report; `"raise"` raises `BadInitializationError` when the verdict is bad, and
            `"stop"` ends the training then; `"silent"` records only; a function is called with each report that has
            news.
        thresholds: Limits of the rules; None for the defaults.
        verbose: 0 prints nothing, 1 the first verdict and later news, 2 every report.

    Raises:
        TypeError: An argument is of the wrong type.
        ValueError: An argument has a value that is not allowed.
        RuntimeError: Keras runs on another backend than TensorFlow.

    Attributes:
        reports: The reports so far, the one at initialization first.
        findings: All that was found, each finding once; a warning that turns bad is a finding of its own.
        snapshots: The first few snapshots and the last one: what the diagnosis works on.

    Example:
        >>> model.fit(x, y, callbacks=[InitAudit()])  # doctest: +SKIP
    """

    def __init__(
        self,
        log_dir: str | os.PathLike[str] | Literal[False] | None = None,
        schedule: int | Iterable[int] | Callable[[int], bool] | None = None,
        data: Any = None,
        probe_size: int = 32,
        histograms: bool = True,
        on_finding: Reaction | Callable[[Report], object] = "warn",
        thresholds: Thresholds | None = None,
        verbose: int = 1,
    ) -> None:
        super().__init__()
        require_tensorflow("InitAudit")
        self.log_dir = _checked_log_dir(log_dir)
        self._is_due = _checked_schedule(schedule)
        self.probe_size = auditing.checked_probe_size(probe_size)
        if not isinstance(histograms, bool):
            raise TypeError(f"histograms must be True or False, got {histograms!r}")
        if not callable(on_finding) and on_finding not in _REACTIONS:
            raise ValueError(
                f"on_finding must be one of {', '.join(map(repr, _REACTIONS))} or a function of a Report, "
                f"got {on_finding!r}"
            )
        if verbose not in (0, 1, 2):
            raise ValueError(f"verbose must be 0, 1 or 2, got {verbose!r}")
        self.data = data
        self.histograms = histograms
        self.on_finding = on_finding
        self.thresholds = auditing.checked_thresholds(thresholds)
        self.verbose = int(verbose)
        self.reports: list[Report] = []
        self.findings: list[Finding] = []
        self.snapshots: list[Snapshot] = []
        self._probe: Probe | None = None
        self._compiled: tuple[Any, ...] = ()
        self._writer: Writer | None = None
        self._step = 0
        self._failed = False

    # What Keras calls

    def on_train_begin(self, logs: Any = None) -> None:
        """Starts anew for a model that it has not seen; goes on for one that it has."""
        del logs
        compiled = (self.model, self.model.optimizer, self.model._compile_loss)
        if not _same(compiled[:1], self._compiled[:1]):
            self.snapshots, self._probe, self._step = [], None, 0
            self.reports, self.findings = [], []
        elif self._probe is not None and not _same(compiled, self._compiled):
            # Compiled again: the kept trace holds the old loss and optimizer.
            self._guarded(self._new_probe, self._probe.batch)
        self._compiled = compiled
        self._failed = False

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        """Stands in for the train function at the first batch; remembers the weights before an audited one."""
        del batch, logs
        if self._failed:
            return
        if self._probe is None:
            self._step = updates_made(self.model)  # more than 0 where a training is resumed
            self._stand_in()
        elif self._due_after_next():
            self._guarded(self._probe.mark)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Counts, and audits where the schedule says so."""
        del batch, logs
        due = self._due_after_next()
        self._step += self.model.steps_per_execution
        if due and self._probe is not None and not self._failed:
            self._guarded(self._audit, self.model.steps_per_execution)

    def on_train_end(self, logs: Any = None) -> None:
        """Closes the log; a later `fit` goes on in it."""
        del logs
        if self._writer is not None:
            self._guarded(self._writer.close)

    # What they do

    def _due_after_next(self) -> bool:
        return any(self._is_due(self._step + i + 1) for i in range(self.model.steps_per_execution))

    def _stand_in(self) -> None:
        model, train = self.model, self.model.train_function
        standing = replaced(model, "train_function", lambda iterator: first(iterator))

        def first(iterator: Any) -> Any:
            standing.__exit__(None, None, None)
            batch = None
            try:
                batch, iterator = take_batch(iterator, model.steps_per_execution)
            finally:
                if batch is not None:
                    self._guarded(self._begin, batch)
            return train(iterator)

        standing.__enter__()

    def _begin(self, batch: Any) -> None:
        if self.data is not None:
            data = self.data if isinstance(self.data, tuple) else (self.data,)
            batch = first_batch(*data, size=self.probe_size)
            if batch is None:
                raise ValueError("data has no batch")
        self._new_probe(first_samples(batch, self.probe_size))
        assert self._probe is not None
        if self._probe.ready():  # else the first audit is that of step 1
            self._audit()
            if self._due_after_next():
                self._probe.mark()

    def _new_probe(self, batch: Any) -> None:
        self._probe = Probe(self.model, batch, histograms=self.histograms)

    def _audit(self, updates: int = 1) -> None:
        assert self._probe is not None
        measured = self._probe.measure(self._step, updates=updates)
        # Histograms are for the log: kept, they would be the larger part of what a long fit gathers.
        snapshot = dataclasses.replace(measured, histograms={})
        # The diagnosis needs the first audit and those that confirm it; what lies between is in the log.
        self.snapshots = [*self.snapshots[:_KEPT_SNAPSHOTS], snapshot]
        report = auditing.judge(self._probe, self.snapshots, self.thresholds, known=self.findings)
        known = {auditing.identity(finding) for finding in self.findings}
        news = [finding for finding in report.findings if auditing.identity(finding) not in known]
        self.reports.append(report)
        self.findings.extend(news)
        self._write(measured, report)
        self._tell(report, news)
        self._react(report, news)

    def _write(self, snapshot: Snapshot, report: Report) -> None:
        if self.log_dir is False:
            return
        try:
            if self._writer is None:
                if self.log_dir is None:
                    self.log_dir = Path("logs") / datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
                self._writer = Writer(Path(self.log_dir) / "initaudit")
            self._writer.write(snapshot, report.findings, report.to_markdown())
        except OSError as error:
            self.log_dir = False
            warnings.warn(f"InitAudit writes no log: {error}. The audit and the training go on.", stacklevel=2)

    def _tell(self, report: Report, news: list[Finding]) -> None:
        if self.on_finding == "silent":
            return
        first = len(self.reports) == 1
        if self.verbose == 0:
            if news and self.on_finding == "warn":
                warnings.warn(f"InitAudit: {report.verdict}: {news[0].message}", stacklevel=2)
        elif first or news or self.verbose == 2:
            print(report.text() if first else f"\n{report.text()}", flush=True)
            if first and self.log_dir is not False:
                print(f"\nSee it: tensorboard --logdir {self.log_dir}\n", flush=True)

    def _react(self, report: Report, news: list[Finding]) -> None:
        if callable(self.on_finding):
            if news:
                self.on_finding(report)
        elif any(finding.severity == "bad" for finding in news):
            if self.on_finding == "raise":
                raise BadInitializationError(report)
            if self.on_finding == "stop":
                self.model.stop_training = True

    def _guarded(self, action: Callable[..., object], *args: Any) -> None:
        """Runs a part of the audit; a fault of it becomes one warning, and the rest of this `fit` is not audited."""
        try:
            action(*args)
        except BadInitializationError:
            raise
        except Exception as error:
            self._failed = True
            warnings.warn(
                f"InitAudit stops auditing this fit at step {self._step} after a fault of its own, and the training "
                f"goes on: {type(error).__name__}: {error}",
                stacklevel=2,
            )


_KEPT_SNAPSHOTS = 8


def _same(left: tuple[Any, ...], right: tuple[Any, ...]) -> bool:
    return len(left) == len(right) and all(a is b for a, b in zip(left, right, strict=True))


def default_schedule(step: int) -> bool:
    """0, 1, 2, 5, 10, 20, 50, 100, ...: dense where an initialization shows, sparse where it no longer matters."""
    while step and step % 10 == 0:
        step //= 10
    return step in (0, *_DENSE)


def _checked_schedule(schedule: Any) -> Callable[[int], bool]:
    if schedule is None:
        return default_schedule
    if isinstance(schedule, bool | str):
        raise TypeError(f"schedule must be None, an integer, steps or a function of a step, got {schedule!r}")
    if isinstance(schedule, int):
        if schedule < 1:
            raise ValueError(f"schedule must be at least 1 where it is an integer, got {schedule}")
        return lambda step: step % schedule == 0
    if callable(schedule):
        return lambda step: bool(schedule(step))
    try:
        steps = frozenset(schedule)
    except TypeError as error:
        raise TypeError(
            f"schedule must be None, an integer, steps or a function of a step, got {schedule!r}"
        ) from error
    wrong = [step for step in steps if isinstance(step, bool) or not isinstance(step, int) or step < 0]
    if wrong:
        raise ValueError(f"schedule must hold steps, integers from 0; got {wrong[0]!r} in it")
    return lambda step: step in steps


def _checked_log_dir(log_dir: Any) -> Any:
    if log_dir is None or log_dir is False:
        return log_dir
    if not isinstance(log_dir, str | os.PathLike):
        raise TypeError(f"log_dir must be a path, None for logs/<date-time> or False for no log, got {log_dir!r}")
    if not os.fspath(log_dir):
        raise ValueError("log_dir must not be empty; None means logs/<date-time>, False means no log")
    return log_dir
