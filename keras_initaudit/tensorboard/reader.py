"""The reader of the log: snapshots and findings from event files, without TensorBoard's loaders.

Those sample what they read and import TensorFlow where it is installed. This one reads every audit, and logs of newer
versions too: it looks columns and fields up by name; what is missing is NaN, what is unknown is left out.
"""

from __future__ import annotations

import dataclasses
import os
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]  # its stubs are a package apart
from tensorboard.compat.proto import event_pb2, summary_pb2, tensor_pb2, types_pb2

from ..records import COLUMNS, Finding, Snapshot, Statistics, Trial
from . import metadata
from .eventfile import records

_DIGITS = re.compile(r"([0-9]+)")


@dataclass(frozen=True, slots=True)
class Run:
    """One audit's log: `findings[i]` is what was found in `snapshots[i]`."""

    name: str
    """Relative to the folder that was read, as TensorBoard names the run; `.` for the folder itself."""
    path: str
    snapshots: tuple[Snapshot, ...]
    findings: tuple[tuple[Finding, ...], ...]
    trials: tuple[Trial, ...] = ()
    """What was tried, each trial once, by step."""
    problems: tuple[str, ...] = ()
    """What could not be read, each a sentence; empty where all of it could."""


def read_runs(log_dir: str | os.PathLike[str]) -> list[Run]:
    """Every run of an audit in or below a folder, by name, `run-2` before `run-10`; empty where there is none.

    Args:
        log_dir: Any folder: a run, the folder above it, or the one above many.

    Raises:
        FileNotFoundError: where there is no such folder.
    """
    root = Path(log_dir)
    if not root.is_dir():
        raise FileNotFoundError(f"no folder {str(root)!r} to read a log from")
    runs = []
    for folder, folders, files in os.walk(root):
        folders.sort()
        names = sorted(name for name in files if "tfevents" in name)
        if names:
            run = _read_run(os.path.relpath(folder, root), Path(folder), names)
            if run is not None:
                runs.append(run)
    return sorted(runs, key=lambda run: [_in_order(part) for part in Path(run.name).parts])


def _in_order(name: str) -> list[str | int]:
    """A sort key by which `run` stands before `run-2`, and that before `run-10`."""
    return [int(part) if i % 2 else part for i, part in enumerate(_DIGITS.split(name))]


def read(log_dir: str | os.PathLike[str]) -> list[Snapshot]:
    """The snapshots of the one run in or below a folder, by step.

    Raises:
        FileNotFoundError: where there is no such folder, or no run in it.
        ValueError: where there are several runs, or nothing of the one can be read; the message says which, or why.
    """
    runs = read_runs(log_dir)
    if not runs:
        raise FileNotFoundError(
            f"no log of an audit in or below {str(log_dir)!r}; InitAudit(log_dir=...) writes one into "
            f"the folder {metadata.RUN_FOLDER!r} below it"
        )
    if len(runs) > 1:
        raise ValueError(f"{str(log_dir)!r} holds several runs, name one of them: {[run.name for run in runs]}")
    if not runs[0].snapshots and runs[0].problems:
        raise ValueError(f"the log in {runs[0].path!r} cannot be read: {'; '.join(runs[0].problems)}")
    return list(runs[0].snapshots)


class _Collected:
    """What has been read so far of the events of one run."""

    def __init__(self) -> None:
        self.is_ours = False
        self.header: metadata.Header | None = None
        self.columns: tuple[str, ...] = ()
        self.tables: dict[int, npt.NDArray[np.float32]] = {}
        self.audits: dict[int, metadata.AuditRecord] = {}
        self.problems: list[str] = []

    def take(self, step: int, value: summary_pb2.Summary.Value) -> None:
        if value.tag == metadata.INIT_TAG and self.header is None:
            self.is_ours = True
            self.header = metadata.parse_header(value.metadata.plugin_data.content)
            self.columns = self.header.columns
            if self.header.is_newer:
                self.problems.append(
                    f"written in log format {self.header.format}, which is newer than the {metadata.FORMAT} that this "
                    "version reads: what it does not know is left out"
                )
            self.tables.setdefault(step, float32_array(value.tensor))
        elif value.tag == metadata.STATS_TAG:
            self.tables[step] = float32_array(value.tensor)
        elif value.tag == metadata.FINDINGS_TAG and value.tensor.string_val:
            self.audits[step] = metadata.parse_audit(value.tensor.string_val[0])


def _read_run(name: str, folder: Path, files: list[str]) -> Run | None:
    found = _Collected()
    for file_name in files:
        try:
            with open(folder / file_name, "rb") as file:
                for record in records(file):
                    event = event_pb2.Event.FromString(record)
                    for value in event.summary.value:
                        found.take(event.step, value)
        except (OSError, ValueError, DecodeError) as error:
            found.problems.append(f"{file_name}: {error}")
    if found.header is None:
        return Run(name, str(folder), (), (), (), tuple(found.problems)) if found.is_ours else None
    snapshots, findings = [], []
    for step in sorted(found.tables):
        audit = found.audits.get(step, metadata.AuditRecord())
        try:
            snapshots.append(snapshot_of(step, found.tables[step], found.header, audit))
            findings.append(audit.findings)
        except ValueError as error:
            found.problems.append(f"step {step}: {error}")
    trials = {trial.step: trial for audit in found.audits.values() for trial in audit.trials}
    in_order = tuple(trials[step] for step in sorted(trials))
    return Run(name, str(folder), tuple(snapshots), tuple(findings), in_order, tuple(found.problems))


def snapshot_of(
    step: int, table: npt.NDArray[np.float32], header: metadata.Header, audit: metadata.AuditRecord
) -> Snapshot:
    """The snapshot that one table holds; ValueError where its shape is not that of the header."""
    if table.shape != (len(header.layers), len(header.columns)):
        raise ValueError(
            f"a table of shape {list(table.shape)} where the header has {len(header.layers)} rows and "
            f"{len(header.columns)} columns"
        )
    known = [(position, name) for position, name in enumerate(header.columns) if name in COLUMNS]
    rows = table.astype(float).tolist()
    statistics = tuple(Statistics(**{name: row[position] for position, name in known}) for row in rows)
    layers = list(header.layers)
    for row, layer in audit.changed:
        if 0 <= row < len(layers):
            layers[row] = layer
    return dataclasses.replace(audit.snapshot, step=step, layers=tuple(layers), statistics=statistics)


def float32_array(tensor: tensor_pb2.TensorProto) -> npt.NDArray[np.float32]:
    """The float32 tensor as an array; ValueError where it is none."""
    if tensor.dtype != types_pb2.DT_FLOAT:
        raise ValueError(f"a tensor of type {tensor.dtype} where float32 is expected")
    shape = [dim.size for dim in tensor.tensor_shape.dim]
    values = np.frombuffer(tensor.tensor_content, "<f4") if tensor.tensor_content else np.array(tensor.float_val, "<f4")
    return values.reshape(shape)
