"""What the commands work on: a saved model and its batch, or the log of a training."""

from __future__ import annotations

import argparse
import dataclasses
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import CommandError

if TYPE_CHECKING:
    from ..diagnosis import Thresholds
    from ..report import Report


def audited(given: argparse.Namespace) -> list[tuple[str, Report]]:
    """The report of a saved model, under its name."""
    thresholds, ignore = _thresholds(given.threshold), _ignore(given.ignore)
    if not given.model.exists():
        raise CommandError(f"no model at {str(given.model)!r}; model.save({str(given.model)!r}) writes one")
    x, y, weights = _batch(given.data)

    import keras

    from ..auditing import audit

    try:
        with warnings.catch_warnings():
            # A model that was never fitted has no optimizer variables to load: an audit is made for those.
            warnings.filterwarnings("ignore", message="Skipping variable loading for optimizer")
            model = keras.saving.load_model(given.model)
    except Exception as error:  # Keras raises whatever the file or a layer of it raises
        raise CommandError(f"cannot load {str(given.model)!r}: {type(error).__name__}: {error}") from error
    if given.loss:
        model.compile(optimizer=getattr(model, "optimizer", None) or "adam", loss=given.loss)
    if not getattr(model, "compiled", False):
        raise CommandError(f"{str(given.model)!r} was saved without a loss; name one with --loss")
    try:
        found = audit(
            model,
            x,
            y,
            weights,
            probe_size=given.probe_size,
            thresholds=thresholds,
            ignore=ignore,
            trial=given.trial,
        )
    except Exception as error:  # the model's own layers and losses run here
        raise CommandError(
            f"cannot audit {str(given.model)!r} on {str(given.data)!r}: {type(error).__name__}: {error}"
        ) from error
    return [(str(given.model), found)]


def logged(given: argparse.Namespace) -> list[tuple[str, Report]]:
    """The reports of the runs of a log, judged again, each under the name of its run."""
    from ..diagnosis import diagnose
    from ..diagnosis.ignoring import split
    from ..report import Report
    from ..tensorboard.summary import read_runs

    thresholds, ignore = _thresholds(given.threshold), _ignore(given.ignore)
    try:
        runs = read_runs(given.log_dir)
    except OSError as error:
        raise CommandError(str(error)) from error
    for run in runs:
        for problem in run.problems:
            print(f"keras-initaudit: {run.name}: {problem}", file=sys.stderr)
    runs = [run for run in runs if run.snapshots]
    if not runs:
        raise CommandError(
            f"no log of an audit in or below {str(given.log_dir)!r}; "
            "model.fit(..., callbacks=[InitAudit(log_dir=...)]) writes one"
        )
    reports = []
    for run in runs:
        # What was tried while the model was there stays so: how bad it is, a remedy that helped, one that did not.
        tried = {(f.rule, f.layer): f for found in run.findings for f in found}
        findings = tuple(
            f
            if before is None
            else dataclasses.replace(f, remedy=before.remedy, action=before.action, proof=before.proof)
            for f in diagnose(run.snapshots, thresholds, run.trials)
            for before in [tried.get((f.rule, f.layer))]
        )
        reports.append(
            (run.name, Report(run.snapshots[-1], *split(findings, ignore), run.trials, run.snapshots[0].step))
        )
    return reports


def _thresholds(pairs: Sequence[str]) -> Thresholds:
    from ..diagnosis import Thresholds

    known = {field.name for field in dataclasses.fields(Thresholds)}
    changes: dict[str, float] = {}
    for pair in pairs:
        name, _, value = pair.partition("=")
        if name not in known:
            raise CommandError(f"--threshold: no limit is named {name!r}; there are {', '.join(sorted(known))}")
        try:
            changes[name] = float(value)
        except ValueError:
            raise CommandError(f"--threshold: {name} needs a number, as {name}=0.5, got {value!r}") from None
    try:
        return Thresholds(**changes)
    except ValueError as error:
        raise CommandError(f"--threshold: {error}") from error


def _ignore(entries: Sequence[str]) -> tuple[str, ...]:
    from ..diagnosis.ignoring import checked_ignore

    try:
        return checked_ignore(entries)
    except ValueError as error:
        raise CommandError(f"--{error}") from error


def _batch(path: Path) -> tuple[Any, Any, Any]:
    """x, y and sample weights of an .npz file: arrays, or dicts of them where their names go on behind `x_`, `y_`."""
    import numpy as np

    try:
        loaded = np.load(path, allow_pickle=False)
    except FileNotFoundError:
        raise CommandError(
            f"no data at {str(path)!r}; numpy.savez({str(path)!r}, x=x[:32], y=y[:32]) writes it"
        ) from None
    except (OSError, ValueError) as error:
        raise CommandError(f"{str(path)!r} is no .npz file of plain arrays: {error}") from error
    if not isinstance(loaded, np.lib.npyio.NpzFile):
        raise CommandError(f"{str(path)!r} holds one array; numpy.savez(path, x=..., y=...) writes several under names")
    with loaded:
        try:
            arrays = {name: loaded[name] for name in loaded.files}
        except ValueError as error:
            raise CommandError(f"{str(path)!r} holds an array that is not plain numbers: {error}") from error
    strange = [n for n in arrays if n not in ("x", "y", "sample_weight") and not n.startswith(("x_", "y_"))]
    if strange:
        raise CommandError(
            f"{str(path)!r}: unknown array {strange[0]!r}; it may hold x, y, sample_weight, x_NAME and y_NAME"
        )

    def part(letter: str) -> Any:
        named = {name[2:]: array for name, array in arrays.items() if name.startswith(f"{letter}_")}
        if named and letter in arrays:
            raise CommandError(
                f"{str(path)!r} holds both {letter} and {letter}_{next(iter(named))}; only one form can be"
            )
        return named or arrays.get(letter)

    x = part("x")
    if x is None:
        raise CommandError(f"{str(path)!r} holds no array x; it holds {', '.join(arrays) or 'nothing'}")
    return x, part("y"), arrays.get("sample_weight")
