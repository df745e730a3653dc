"""The writer of the log: each audit as tensors for the page, and as what the stock dashboards draw.

One record holds our own tensors of an audit, so that the page never sees half of one; the scalars, the histograms and
the report follow, and all of it reaches the operating system before `write` returns. Nothing here imports TensorFlow
or Keras: `tf.summary` would cost seconds at import and a third of a millisecond a value.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt
from tensorboard.compat.proto import event_pb2, summary_pb2, tensor_pb2, types_pb2
from tensorboard.plugins.custom_scalar import layout_pb2

from ..records import COLUMNS, Finding, Histogram, LayerInfo, Snapshot, Trial
from ..report.trials import drawable, left, same_scale
from . import metadata
from .eventfile import frame
from .reader import Run, read, read_runs
from .runfile import LogError, claim, head, log_error

STOCK_ROWS = 256
"""Rows of a deeper network in the stock dashboards, evenly spread: each makes some eleven charts there, and TensorBoard
is slow beyond some thousand. The tab has every row."""

_COLUMN = {name: position for position, name in enumerate(COLUMNS)}


class Writer:
    """Writes the audits of one model into a run folder that no other writer shares.

    A folder that already holds a log is left alone: the run then goes beside it, into `<log_dir>-2` and so on.
    `log_dir` is the folder that is written. Closing is not final: a later `write` goes on in the same file.

    Args:
        log_dir: The run folder, made where it is missing.

    Raises:
        LogError: where the folder cannot be made or written.

    Example:
        >>> import tempfile
        >>> from keras_initaudit.records import LayerInfo, Snapshot, Statistics
        >>> writer = Writer(tempfile.mkdtemp())
        >>> writer.write(Snapshot(0, (LayerInfo("dense", 0),), (Statistics(activation_rms=0.5),)), [])
        >>> writer.close()
        >>> read(writer.log_dir)[0]["dense"].activation_rms
        0.5
    """

    def __init__(self, log_dir: str | os.PathLike[str]) -> None:
        self._wanted = log_dir
        self._file: BinaryIO | None = None
        self._layers: tuple[LayerInfo, ...] = ()
        self._names: list[str] = []
        self._stock: list[int] = []
        self._announced: set[str] = set()
        self._tried: set[int] = set()
        self._path = self._begin()

    @property
    def log_dir(self) -> str:
        """The run folder that is written."""
        return str(self._path.parent)

    def write(
        self,
        snapshot: Snapshot,
        findings: Sequence[Finding],
        report_markdown: str | None = None,
        trials: Sequence[Trial] = (),
    ) -> None:
        """Appends one audit and flushes it.

        A snapshot with other rows than those before it (another model) opens a new run folder.

        Args:
            snapshot: All rows at one step.
            findings: What was found in it.
            report_markdown: The report for the Text dashboard; None leaves it out.
            trials: Those of the audits so far; each is written once.

        Raises:
            LogError: where the file cannot be written (the disk is full, the folder was taken away).
        """
        if self._announced and [row.path for row in snapshot.layers] != [row.path for row in self._layers]:
            self.close()
            self._announced.clear()
            self._tried.clear()
            self._path = self._begin()
        if not self._announced:
            self._layers = snapshot.layers
            self._names = metadata.row_names(snapshot.layers)
            self._stock = _stock_rows(snapshot.layers)
        now = time.time()
        new = [trial for trial in trials if trial.step not in self._tried]
        self._tried.update(trial.step for trial in new)
        values = [self._own(snapshot, findings, new), self._scalars(snapshot, new), self._histograms(snapshot)]
        if report_markdown is not None:
            values.append([self._text(report_markdown)])
        events = [(snapshot.step, made) for made in values]
        events += [event for trial in new for event in enumerate(_losses(trial))]
        self._append(
            event_pb2.Event(wall_time=now, step=step, summary=summary_pb2.Summary(value=made))
            for step, made in events
            if made
        )

    def close(self) -> None:
        """Closes the file; a later `write` opens it again."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _begin(self) -> Path:
        self._path, self._file = claim(self._wanted)
        self._append([head()])
        return self._path

    def _append(self, events: Iterator[event_pb2.Event] | list[event_pb2.Event]) -> None:
        data = b"".join(frame(event.SerializeToString()) for event in events)
        try:
            if self._file is None:
                self._file = open(self._path, "ab", buffering=0)  # noqa: SIM115  stays open between audits
            rest = memoryview(data)
            while rest:
                rest = rest[self._file.write(rest) :]
        except OSError as error:
            raise log_error(self._path.parent, error) from error

    def _metadata(self, tag: str, made: summary_pb2.SummaryMetadata) -> summary_pb2.SummaryMetadata | None:
        """The metadata of a tag, once: the loaders keep what came with its first value."""
        if tag in self._announced:
            return None
        self._announced.add(tag)
        return made

    def _own(
        self, snapshot: Snapshot, findings: Sequence[Finding], trials: Sequence[Trial]
    ) -> list[summary_pb2.Summary.Value]:
        table = float32_tensor(statistics_array(snapshot))
        values = []
        if metadata.INIT_TAG not in self._announced:
            first = metadata.tensor_metadata(metadata.encode_header(snapshot.layers), "Statistics at the first audit.")
            # Also when the first audit is not of step 0 (a resumed training): the header must stand somewhere.
            values.append((metadata.INIT_TAG, first, table))
        content = metadata.encode_header(None)
        values.append((metadata.STATS_TAG, metadata.tensor_metadata(content, "Statistics at every audit."), table))
        changed = {
            row: layer
            for row, (layer, before) in enumerate(zip(snapshot.layers, self._layers, strict=True))
            if layer != before
        }
        record = metadata.string_tensor(metadata.encode_audit(snapshot, findings, changed, trials))
        values.append((metadata.FINDINGS_TAG, metadata.tensor_metadata(content, "Findings at every audit."), record))
        return [
            summary_pb2.Summary.Value(tag=tag, metadata=self._metadata(tag, made), tensor=tensor)
            for tag, made, tensor in values
        ]

    def _scalars(self, snapshot: Snapshot, tried: Sequence[Trial]) -> list[summary_pb2.Summary.Value]:
        value = summary_pb2.Summary.Value
        made = []
        if "custom_scalars__config__" not in self._announced:
            layout = metadata.string_tensor(_layout(any(map(drawable, tried))).SerializeToString())
            about = self._metadata("custom_scalars__config__", metadata.stock_metadata("custom_scalars"))
            made.append(value(tag="custom_scalars__config__", metadata=about, tensor=layout))
        if math.isfinite(snapshot.loss):
            made.append(value(tag=metadata.LOSS_TAG, simple_value=snapshot.loss))
        table = statistics_array(snapshot)
        rows = self._stock
        for group, column, logarithm in metadata.SCALARS:
            numbers = table[:, _COLUMN[column]]
            if logarithm:
                numbers = np.log10(numbers, where=numbers > 0, out=np.where(numbers == 0, metadata.LOG_OF_ZERO, np.nan))
            made += [
                value(tag=f"{group}/{self._names[row]}", simple_value=number)
                for row, number in zip(rows, numbers[rows].tolist(), strict=True)
                if math.isfinite(number)
            ]
        fractions = np.fmax.reduce(table[:, [_COLUMN[name] for name in metadata.NONFINITE_COLUMNS]], axis=1)
        made += [
            value(tag=f"{metadata.NONFINITE_SCALAR}/{self._names[row]}", simple_value=fraction)
            for row, fraction in zip(rows, fractions[rows].tolist(), strict=True)
            if math.isfinite(fraction)
        ]
        return made

    def _histograms(self, snapshot: Snapshot) -> list[summary_pb2.Summary.Value]:
        names = {snapshot.layers[row].path: self._names[row] for row in self._stock}
        made = []
        for kind, rows in snapshot.histograms.items():
            for path, histogram in rows.items():
                buckets = _buckets(histogram)
                if path in names and buckets is not None:
                    tag = f"{kind}/{names[path]}"
                    about = self._metadata(tag, metadata.stock_metadata("histograms"))
                    made.append(summary_pb2.Summary.Value(tag=tag, metadata=about, tensor=buckets))
        return made

    def _text(self, markdown: str) -> summary_pb2.Summary.Value:
        about = self._metadata(metadata.REPORT_TAG, metadata.stock_metadata("text"))
        tensor = metadata.string_tensor(markdown.encode())
        return summary_pb2.Summary.Value(tag=metadata.REPORT_TAG, metadata=about, tensor=tensor)


def statistics_array(snapshot: Snapshot) -> npt.NDArray[np.float64]:
    """`[rows, columns]`: the statistics of a snapshot, in the order of `COLUMNS`."""
    rows = [[getattr(row, name) for name in COLUMNS] for row in snapshot.statistics]
    return np.array(rows, np.float64).reshape(len(rows), len(COLUMNS))


def float32_tensor(values: npt.NDArray[np.float64]) -> tensor_pb2.TensorProto:
    """A float32 tensor; what float32 cannot hold becomes infinite or zero, as in the graph it was measured in."""
    with np.errstate(over="ignore"):
        content = values.astype("<f4").tobytes()
    return _tensor(types_pb2.DT_FLOAT, values.shape, content)


def _tensor(dtype: int, shape: tuple[int, ...], content: bytes) -> tensor_pb2.TensorProto:
    tensor = tensor_pb2.TensorProto(dtype=dtype, tensor_content=content)
    for size in shape:
        tensor.tensor_shape.dim.add(size=size)
    return tensor


def _buckets(histogram: Histogram) -> tensor_pb2.TensorProto | None:
    """`[buckets, 3]` float64 of left edge, right edge, count; None where an edge is not finite: it blanks the chart."""
    if not (math.isfinite(histogram.low) and math.isfinite(histogram.high) and histogram.counts):
        return None
    counts = np.array(histogram.counts, np.float64)
    low, high = histogram.low, histogram.high
    if low == high:  # the dashboard labels an axis without width by a hundred zeros: give it one
        width = abs(low) / 10 or 0.1
        counts = np.array([0.0, counts.sum(), 0.0])
        low, high = low - 1.5 * width, high + 1.5 * width
    edges = np.linspace(low, high, len(counts) + 1)
    buckets = np.stack([edges[:-1], edges[1:], counts], axis=1)
    return _tensor(types_pb2.DT_DOUBLE, buckets.shape, buckets.astype("<f8").tobytes())


def _stock_rows(layers: Sequence[LayerInfo]) -> list[int]:
    rows = [row for row, layer in enumerate(layers) if layer.role not in ("input", "target")]
    if len(rows) <= STOCK_ROWS:
        return rows
    return [rows[round(i * (len(rows) - 1) / (STOCK_ROWS - 1))] for i in range(STOCK_ROWS)]


def _losses(trial: Trial) -> list[list[summary_pb2.Summary.Value]]:
    """The curves of a trial in front of each of its updates, with the best constant answer; empty without curves.

    Where a remedy moves the targets, its losses are on another scale: then each is the part of the way from the best
    constant answer to the targets that is left.
    """
    as_is, remedied = trial.as_is, trial.remedied
    if as_is is None or remedied is None or not drawable(trial):
        return []
    alike = same_scale(trial)
    curves = {
        "as_is": as_is.losses if alike else left(as_is),
        "with_remedy": remedied.losses if alike else left(remedied),
    }
    longest = max(map(len, curves.values()))
    curves["best_constant_answer"] = [as_is.constant if alike else 1.0] * longest
    group = metadata.TRIAL_GROUP if alike else f"{metadata.TRIAL_GROUP}_part_left"
    group += f"_at_step_{trial.step}" if trial.step else ""
    return [
        [
            summary_pb2.Summary.Value(tag=f"{group}/{name}", simple_value=values[update])
            for name, values in curves.items()
            if update < len(values) and math.isfinite(values[update])
        ]
        for update in range(longest)
    ]


def _layout(tried: bool) -> layout_pb2.Layout:
    """The Custom Scalars dashboard: one chart a statistic with all layers in it, and one of a trial."""
    charts = {
        "Signal: flat is good, a slope is bad": [
            ("Activation rms (log10)", "activation_rms_log10"),
            ("Backward rms, dL/d(activation) (log10)", "backward_rms_log10"),
            ("Sample spread", "activation_spread"),
        ],
        "Learning: about -3 is usual": [
            ("Update over weight (log10)", "update_log10"),
            ("Weight gradient rms (log10)", "gradient_rms_log10"),
        ],
        "Units: near 0 is good": [
            ("Dead units", "activation_dead"),
            ("Saturated", "activation_saturated"),
            ("Not finite", metadata.NONFINITE_SCALAR),
        ],
    }
    if tried:
        title = "The trial: updates on one batch, as it is and with the remedy"
        charts = {title: [("Loss", f"{metadata.TRIAL_GROUP}[^/]*")], **charts}
    return layout_pb2.Layout(
        category=[
            layout_pb2.Category(
                title=title,
                chart=[
                    layout_pb2.Chart(title=name, multiline=layout_pb2.MultilineChartContent(tag=[f"^{group}/"]))
                    for name, group in groups
                ],
            )
            for title, groups in charts.items()
        ]
    )


__all__ = ["LogError", "Run", "Writer", "read", "read_runs"]
