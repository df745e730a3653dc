"""`InitAudit`: when to probe, where to write, what to do about a finding. No mathematics; no fault reaches `fit`.

The first audit runs between the moment in which `fit` has its first batch and the first update: the engine takes the
place of `model.train_function` for one call, and shows the batch. From then on the callback only counts.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import datetime
import itertools
import os
import shlex
import warnings
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

import keras

from . import auditing
from .diagnosis import Thresholds
from .diagnosis.ignoring import checked_ignore
from .observe.batch import first_batch, fixed_batch_size
from .observe.engines import FirstCall, engine, require
from .observe.engines.undocumented import OutOfBatches, compiled_with, updates_per_call, without_fit
from .observe.keras2 import keras_2_sentence
from .observe.probe import Probe, updates_made
from .progress import bar
from .records import Finding, Snapshot
from .report import BadInitializationError as BadInitializationError
from .report import Report
from .report.notebook import show
from .schedules import checked_schedule, default_schedule, is_due
from .tensorboard.summary import Writer

Reaction = Literal["warn", "raise", "stop", "silent"]
_REACTIONS = ("warn", "raise", "stop", "silent")
_KEPT_SNAPSHOTS = 8


class InitAudit(OutOfBatches, keras.callbacks.Callback):
    """Watches a `fit` for what a bad initialization does, and says so before the first update.

    It runs the model's own `train_step` beside the training on a small fixed batch, at a few steps only, and puts back
    everything that this touches: weights, optimizer, metrics and history of the training are bit for bit those of the
    same `fit` without it. A fault of the audit itself becomes one warning, and the training goes on.

    Args:
        log_dir: Folder for TensorBoard; the audit writes into its subfolder `initaudit`, or `initaudit-2` and so on
            where that holds a log: each model has its own. None means `logs/<date-time>`, False writes no log.
        schedule: Steps (updates made) at which to audit: None for 0, 1, 2, 5, 10, 20, 50, ..., an integer n for
            every n-th step, an iterable of steps, or a function from a step to whether to audit there. Step 0, the
            state at initialization, is always audited.
        data: The batch to audit on, as `x` or `(x, y)` or `(x, y, sample_weight)`, or a dataset; None takes the first
            training batch.
        probe_size: Number of samples of it that are used.
        histograms: Whether the log gets histograms of weights, activations and gradients.
        on_finding: `"warn"` prints the report; `"raise"` raises `BadInitializationError` when the verdict is bad, and
            `"stop"` ends the training then; `"silent"` records only; a function is called with each report that has
            news, and what it raises ends the training too.
        thresholds: Limits of the rules; None for the defaults.
        verbose: 0 prints nothing, 1 the first verdict and later news, 2 every report: in a notebook as HTML, with
            pictures, elsewhere as text.
        ignore: Findings that are meant: rules, as `"duplicate-kernels"`, or rules at layers, as `"no-gradient:ema/*"`.
            They cost no verdict and are no news; the report lists them.
        trial: Where something is found, the start is tried before the first update: some updates are made on the first
            training batch, as it is and with the remedies, and put back; and once more where the learning rate is
            found to be wrong later. The most updates that one of these runs may make; None for what fits into half a
            minute, 0 for no trial.

    Raises:
        TypeError: An argument is of the wrong type.
        ValueError: An argument has a value that is not allowed.
        RuntimeError: Keras runs on a backend that there is no engine for.

    A copy (`copy.deepcopy`, `pickle`, `sklearn.base.clone`) has the arguments and what was found so far, and starts
    anew at its next `fit`.

    Attributes:
        reports: The reports so far, the one at initialization first.
        findings: All that was found, each finding once; a warning that turns bad is a finding of its own.
        snapshots: The first few snapshots and the last one: what the diagnosis works on.

    Example:
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2, kernel_initializer="zeros"),
        ...                           keras.layers.Dense(1, kernel_initializer="zeros")])
        >>> model.compile("sgd", "mse")
        >>> seen = InitAudit(log_dir=False, verbose=0, on_finding=lambda report: None)
        >>> history = model.fit(np.eye(4), np.ones((4, 1)), verbose=0, callbacks=[seen])
        >>> seen.reports[0].verdict
        'bad'
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
        ignore: Iterable[str] = (),
        trial: int | None = None,
    ) -> None:
        super().__init__()
        require("InitAudit")
        self.log_dir = _checked_log_dir(log_dir)
        self.schedule = checked_schedule(schedule)
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
        auditing.checked_thresholds(thresholds)
        self.thresholds = thresholds
        self.verbose = verbose
        self.ignore = checked_ignore(ignore)
        self.trial = auditing.checked_trial(trial)
        self._begin_anew()

    def _begin_anew(self) -> None:
        """As it is before the first `fit`: nothing found, no model, no log."""
        self.reports: list[Report] = []
        self.findings: list[Finding] = []
        self.snapshots: list[Snapshot] = []
        self._call: FirstCall | None = None
        self._probe: Probe | None = None
        self._compiled: tuple[Any, ...] = ()
        self._is_due: Callable[[int], bool] = default_schedule
        self._put_back: Callable[[], None] = lambda: None
        self._writer: Writer | None = None
        self._folder: Path | None = None
        self._unwritable = False
        self._step = 0
        self._failed = False

    def __getstate__(self) -> dict[str, Any]:
        kept = {name: value for name, value in without_fit(vars(self)).items() if name not in _OF_A_FIT}
        return kept | {name: list(kept[name]) for name in ("reports", "findings", "snapshots")}

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        super().__init__()
        self._begin_anew()
        self.__dict__.update(state)

    def __deepcopy__(self, memo: dict[int, Any]) -> InitAudit:
        memo[id(self.data)] = self.data  # only read, and a dataset or a generator cannot be copied
        made = type(self).__new__(type(self))
        memo[id(self)] = made
        made.__setstate__(copy.deepcopy(self.__getstate__(), memo))
        return made

    # What Keras calls

    def on_train_begin(self, logs: Any = None) -> None:
        """Starts anew for a model that it has not seen; goes on for one that it has."""
        del logs
        keras_2 = keras_2_sentence(self.model_as_it_is)
        if keras_2 is not None:
            self._begin_anew()
            self._failed = True
            warnings.warn(f"InitAudit does not audit this fit: {keras_2}.", stacklevel=2)
            return
        compiled = (self.model_as_it_is, *compiled_with(self.model_as_it_is))
        self._failed = False
        self._put_back()
        if not _same(compiled[:1], self._compiled[:1]):
            self._close_log()
            self._begin_anew()
        elif not self.reports:
            self._probe = None  # the first audit was interrupted
        elif self._probe is not None and not _same(compiled, self._compiled):
            # Compiled again: the kept trace holds the old loss and optimizer.
            self._guarded(self._new_probe, self._probe.batch)
        self._compiled = compiled
        self._is_due = is_due(self.schedule)

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        """Stands in for the train function at the first batch; remembers the weights before an audited one."""
        del batch, logs
        if self._failed:
            return
        if self._probe is None:
            with engine().attached(self.model_as_it_is):
                self._step = updates_made(self.model_as_it_is)  # more than 0 where a training is resumed
            self._put_back()
            self._put_back = engine().stand_in(self.model_as_it_is, self._begin)
        elif self._due_after_next():
            with engine().attached(self.model_as_it_is):
                self._guarded(self._probe.mark)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Counts, and audits where the schedule says so."""
        del batch, logs
        if not self._compiled:
            return  # a model of Keras 2
        due = self._due_after_next()
        updates = updates_per_call(self.model_as_it_is)
        self._step += updates
        if due and self._probe is not None and not self._failed:
            self._look(self._measured, updates)

    def on_train_end(self, logs: Any = None) -> None:
        """Closes the log; a later `fit` goes on in it."""
        del logs
        self._put_back()
        self._close_log()
        if self._call is not None:  # the next one has functions of its own
            self._call = FirstCall(self._call.batch, self._call.runs_python, None, None)

    # What they do

    def _due_after_next(self) -> bool:
        return any(self._is_due(self._step + i + 1) for i in range(updates_per_call(self.model_as_it_is)))

    def _begin(self, call: FirstCall) -> None:
        """The first audit, on the first batch."""
        self._call = call
        self._look(self._first_measured, call.batch)

    def _first_measured(self, batch: Any) -> Snapshot | None:
        if self.data is not None:
            data = self.data if isinstance(self.data, tuple) else (self.data,)
            batch = first_batch(*data, size=max(self.probe_size, fixed_batch_size(self.model_as_it_is) or 0))
            if batch is None:
                raise ValueError("data has no batch")
        self._new_probe(batch)
        assert self._probe is not None
        if not self._probe.ready():
            return None  # the first audit is that of step 1
        measured = self._measured()
        if self._due_after_next():
            self._probe.mark()
        return measured

    def _new_probe(self, batch: Any) -> None:
        assert self._call is not None
        self._probe = Probe(
            self.model_as_it_is,
            batch,
            size=self.probe_size,
            histograms=self.histograms,
            data_runs_python=self._call.runs_python,
        )

    def _measured(self, updates: int = 1) -> Snapshot:
        assert self._probe is not None
        return self._probe.measure(self._step, updates=updates)

    def _look(self, measure: Callable[..., Snapshot | None], *args: Any) -> None:
        """One audit. What a person's own `on_finding` raises is theirs, everything else a fault of the audit."""
        with engine().attached(self.model_as_it_is):
            measured = self._guarded(measure, *args)
            seen = None if measured is None else self._guarded(self._judged, measured)
            if seen is not None:
                self._guarded(self._show, measured, *seen)
                self._react(*seen)

    def _judged(self, measured: Snapshot) -> tuple[Report, list[Finding]]:
        """The report, and what is news in it: what is found for the first time, and costs the verdict something."""
        assert self._probe is not None
        assert self._call is not None
        # Histograms are for the log: kept, they would be the larger part of what a long fit gathers.
        snapshot = dataclasses.replace(measured, histograms={})
        # The diagnosis needs the first audit and those that confirm it; what lies between is in the log.
        snapshots = [*self.snapshots[:_KEPT_SNAPSHOTS], snapshot]
        limits = auditing.checked_thresholds(self.thresholds)
        quiet = self.on_finding == "silent" or not self.verbose
        with contextlib.nullcontext() if quiet else bar(auditing.TRYING) as progress:
            report = auditing.judge(
                self._probe,
                snapshots,
                limits,
                self.ignore,
                self.findings,
                self.reports[-1].trials if self.reports else (),
                call=self._call,
                most=self.trial,
                progress=progress,
            )
        self.snapshots = snapshots  # an interrupted trial has none
        known = {auditing.identity(finding) for finding in self.findings}
        news = [finding for finding in report.findings if auditing.identity(finding) not in known]
        self.reports.append(report)
        self.findings.extend(news)
        return report, [finding for finding in news if finding.severity != "note"]

    def _show(self, measured: Snapshot, report: Report, news: list[Finding]) -> None:
        self._write(measured, report)
        self._tell(report, news)

    def _write(self, snapshot: Snapshot, report: Report) -> None:
        if self.log_dir is False or self._unwritable:
            return
        try:
            if self._writer is None:
                self._folder = _new_folder() if self.log_dir is None else Path(self.log_dir)
                self._writer = Writer(self._folder / "initaudit")
            self._writer.write(snapshot, report.findings, report.to_markdown(), trials=report.trials)
        except OSError as error:
            self._unwritable = True
            warnings.warn(f"InitAudit writes no log: {error}. The audit and the training go on.", stacklevel=2)

    def _close_log(self) -> None:
        if self._writer is not None:
            self._guarded(self._writer.close)

    def _tell(self, report: Report, news: list[Finding]) -> None:
        if self.on_finding == "silent":
            return
        first = len(self.reports) == 1
        if self.verbose == 0:
            if news and self.on_finding == "warn":
                warnings.warn(f"InitAudit: {report.verdict}: {news[0].message}", stacklevel=2)
        elif first or news or self.verbose == 2:
            if not show(report):
                print(report.text() if first else f"\n{report.text()}", flush=True)
            if first and self._folder is not None and not self._unwritable:
                print(f"\nSee it: tensorboard --logdir {shlex.quote(str(self._folder))}\n", flush=True)

    def _react(self, report: Report, news: list[Finding]) -> None:
        if callable(self.on_finding):
            if news:
                self.on_finding(report)
        elif any(finding.severity == "bad" for finding in news):
            if self.on_finding == "raise":
                raise BadInitializationError(report)
            if self.on_finding == "stop":
                self.model_as_it_is.stop_training = True

    def _guarded(self, action: Callable[..., Any], *args: Any) -> Any:
        """What a part of the audit gives; a fault of it becomes one warning, and ends the audit of this `fit`."""
        try:
            return action(*args)
        except Exception as error:
            self._failed = True
            warnings.warn(
                f"InitAudit stops auditing this fit at step {self._step} after a fault of its own, and the training "
                f"goes on: {type(error).__name__}: {error}",
                stacklevel=2,
            )
            return None


_OF_A_FIT = (
    *("_call", "_probe", "_compiled", "_is_due", "_put_back"),
    *("_writer", "_folder", "_unwritable", "_step", "_failed"),
)
"""Attributes that belong to a `fit` and its model: a copy has none of them."""


def _same(left: tuple[Any, ...], right: tuple[Any, ...]) -> bool:
    return len(left) == len(right) and all(a is b for a, b in zip(left, right, strict=True))


def _new_folder() -> Path:
    """`logs/<date-time>`, made now and by nobody else: two runs may begin in one second."""
    name = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    for attempt in itertools.count(1):
        folder = Path("logs") / (name if attempt == 1 else f"{name}-{attempt}")
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            continue
        return folder
    raise AssertionError("unreachable: the count has no end")


def _checked_log_dir(log_dir: Any) -> Any:
    if log_dir is None or log_dir is False:
        return log_dir
    if not isinstance(log_dir, str | os.PathLike):
        raise TypeError(f"log_dir must be a path, None for logs/<date-time> or False for no log, got {log_dir!r}")
    if not os.fspath(log_dir):
        raise ValueError("log_dir must not be empty; None means logs/<date-time>, False means no log")
    return log_dir
