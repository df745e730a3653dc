"""The data of the tab: headers, audits, tables, histograms and coordinate checks, through TensorBoard's data provider.

The provider hides where the log is and which loader reads it. What was read is kept until the run has a newer audit:
a table of a deep network over many audits is tens of megabytes, and each request asks for a few columns of it.
"""

from __future__ import annotations

import collections
import dataclasses
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from tensorboard.data import provider

from ..records import COLUMNS
from ..report.width import CoordinateCheck, check_from_json
from ..trunk import Trunk, trunk_of
from . import levels, metadata

MOST_AUDITS = 1000
"""Audits of one run that are sent to the page; of a longer log, so many at even distances."""
CACHE_BYTES = 256 * 2**20
"""About five runs of 2000 layers and 200 audits."""

DERIVED: Mapping[str, tuple[str, ...]] = {
    "forward_nonfinite": ("activation_nonfinite", "preactivation_nonfinite"),
    "update_nonfinite": ("gradient_nonfinite", "weight_nonfinite"),
}
"""Columns made of others by the larger value: TensorFlow's fused layers turn NaN pre-activations into zeros."""

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Audit:
    """One audit of a run: its step, its time and what it found."""

    step: int
    wall_time: float
    record: metadata.AuditRecord | None
    """None where it was not logged or cannot be read."""


@dataclass(frozen=True, slots=True)
class Tables:
    """`values[step, row, column]` of one run."""

    steps: tuple[int, ...]
    values: Floats


@dataclass(frozen=True, slots=True)
class Source:
    """One experiment as one request may see it."""

    data: provider.DataProvider
    context: Any
    experiment: str


class Store:
    """Reads runs and keeps what it has read."""

    def __init__(self) -> None:
        self._kept: collections.OrderedDict[Any, tuple[Any, Any, int]] = collections.OrderedDict()
        self._lock = threading.Lock()

    def stamps(self, source: Source, tag: str = metadata.STATS_TAG) -> dict[str, tuple[int, float]]:
        """Run -> (last step and its time), of every run with the tag in it: by default, with an audit."""
        listed = source.data.list_tensors(
            source.context,
            experiment_id=source.experiment,
            plugin_name=metadata.PLUGIN_NAME,
            run_tag_filter=provider.RunTagFilter(tags=[tag]),
        )
        return {run: (tags[tag].max_step, tags[tag].max_wall_time) for run, tags in listed.items() if tag in tags}

    def checks(self, source: Source) -> dict[str, tuple[int, float]]:
        """Run -> (largest width, time), of every run that holds a coordinate check and no audit."""
        audited = self.stamps(source)
        found = self.stamps(source, metadata.COORDINATES_TAG)
        return {run: stamp for run, stamp in found.items() if run not in audited}

    def check(self, source: Source, run: str, stamp: tuple[int, float]) -> CoordinateCheck:
        """The coordinate check of the run; ValueError, in words for the user, where it cannot be read."""

        def load() -> tuple[CoordinateCheck, int]:
            data = self._read(source, run, metadata.COORDINATES_TAG)
            if not data:
                raise ValueError("the log has no coordinate check any more")
            content = _bytes(data[-1])
            return check_from_json(content), 5 * len(content)

        check: CoordinateCheck = self.keep((source.experiment, run, "check"), stamp, load)
        return check

    def header(self, source: Source, run: str, stamp: tuple[int, float]) -> metadata.Header:
        """How the tensors of the run are read; ValueError, in words for the user, where they cannot be."""

        def load() -> tuple[metadata.Header, int]:
            listed = source.data.list_tensors(
                source.context,
                experiment_id=source.experiment,
                plugin_name=metadata.PLUGIN_NAME,
                run_tag_filter=provider.RunTagFilter(runs=[run], tags=[metadata.INIT_TAG]),
            )
            tags = listed.get(run, {})
            if metadata.INIT_TAG not in tags:
                raise ValueError("the log has no header: its beginning is missing")
            content = tags[metadata.INIT_TAG].plugin_content
            return metadata.parse_header(content), len(content)

        header: metadata.Header = self.keep((source.experiment, run, "header"), stamp, load)
        return header

    def ends(self, source: Source, run: str, stamp: tuple[int, float]) -> levels.Ends:
        """The ends of the run's model."""

        def load() -> tuple[levels.Ends, int]:
            layers = self.header(source, run, stamp).layers
            return levels.ends_of(layers), 50 * len(layers)

        ends: levels.Ends = self.keep((source.experiment, run, "gradient ends"), stamp, load)
        return ends

    def trunk(self, source: Source, run: str, stamp: tuple[int, float]) -> Trunk:
        """The main line of the run's model, which runs of one architecture share."""
        layers = self.header(source, run, stamp).layers
        graph = hash(tuple((row.path, row.inputs, row.role, row.kind, row.shape, row.weight_shape) for row in layers))

        def load() -> tuple[Trunk, int]:
            return trunk_of(layers), 100 * len(layers)

        trunk: Trunk = self.keep(("trunk", graph), None, load)
        return trunk

    def audits(self, source: Source, run: str, stamp: tuple[int, float]) -> tuple[Audit, ...]:
        """Every audit of the run, by step."""

        def load() -> tuple[tuple[Audit, ...], int]:
            made, size = [], 0
            for datum in self._read(source, run, metadata.FINDINGS_TAG):
                content = _bytes(datum)
                size += len(content)
                try:
                    record = metadata.parse_audit(content)
                except ValueError:
                    record = None
                made.append(Audit(int(datum.step), float(datum.wall_time), record))
            return tuple({audit.step: audit for audit in made}.values()), size

        audits: tuple[Audit, ...] = self.keep((source.experiment, run, "audits"), stamp, load)
        return audits

    def tables(self, source: Source, run: str, stamp: tuple[int, float], ends: bool) -> Tables:
        """The statistics of the run: at every audit, or at its two ends alone, which is much faster."""
        header = self.header(source, run, stamp)
        shape = (len(header.layers), len(header.columns))

        def load() -> tuple[Tables, int]:
            data = self._read(source, run, metadata.STATS_TAG, 1 if ends else MOST_AUDITS)
            data += self._read(source, run, metadata.INIT_TAG)
            found = {int(datum.step): datum.numpy for datum in reversed(data)}
            steps = [step for step in sorted(found) if found[step].shape == shape]
            values = np.empty((len(steps), *shape), np.float32)
            for position, step in enumerate(steps):
                values[position] = found[step]
            return Tables(tuple(steps), values), values.nbytes

        tables: Tables = self.keep((source.experiment, run, "ends" if ends else "tables"), stamp, load)
        return tables

    def histograms(self, source: Source, run: str, tag: str) -> list[tuple[int, Floats]]:
        """`[buckets, 3]` (left, right, count) of one stock tag at every step."""
        read = source.data.read_tensors(
            source.context,
            experiment_id=source.experiment,
            plugin_name="histograms",
            downsample=MOST_AUDITS,
            run_tag_filter=provider.RunTagFilter(runs=[run], tags=[tag]),
        )
        return [(int(datum.step), np.asarray(datum.numpy)) for datum in read.get(run, {}).get(tag, [])]

    def _read(self, source: Source, run: str, tag: str, downsample: int = MOST_AUDITS) -> list[provider.TensorDatum]:
        read = source.data.read_tensors(
            source.context,
            experiment_id=source.experiment,
            plugin_name=metadata.PLUGIN_NAME,
            downsample=downsample,
            run_tag_filter=provider.RunTagFilter(runs=[run], tags=[tag]),
        )
        return list(read.get(run, {}).get(tag, []))

    def keep(self, key: Any, stamp: Any, load: Callable[[], tuple[Any, int]]) -> Any:
        """What `load` gives, or gave under the same stamp; the oldest go when it is too much."""
        with self._lock:
            if key in self._kept and self._kept[key][0] == stamp:
                self._kept.move_to_end(key)
                return self._kept[key][1]
        value, size = load()
        with self._lock:
            self._kept[key] = (stamp, value, size)
            self._kept.move_to_end(key)
            total = sum(kept[2] for kept in self._kept.values())
            while total > CACHE_BYTES and len(self._kept) > 1:
                total -= self._kept.popitem(last=False)[1][2]
        return value


def _bytes(datum: provider.TensorDatum) -> bytes:
    """The one string of a tensor."""
    content = datum.numpy.item()
    return content if isinstance(content, bytes) else str(content).encode()


def known_columns(header: metadata.Header) -> list[str]:
    """The columns of a run that can be asked for: those of its header that this version knows, and the derived."""
    own = [name for name in header.columns if name in COLUMNS]
    made = [name for name, parts in DERIVED.items() if set(parts) & set(own)]
    return own + made + [name for name, parts in levels.LEVELS.items() if set(parts) <= set(own)]


def select(
    tables: Tables,
    header: metadata.Header,
    ends: levels.Ends,
    columns: Sequence[str],
    steps: Sequence[int] | None,
    rows: Sequence[int],
) -> Tables:
    """`values[column, step, row]` of the chosen columns, steps (None for all) and rows, to 12 bits of mantissa.

    A relative error of 2^-12 is beyond what a pixel or three digits show, and makes the compressed answer smaller.
    """
    chosen = [i for i, step in enumerate(tables.steps) if steps is None or step in steps]
    position = {name: i for i, name in enumerate(header.columns)}
    made = np.empty((len(columns), len(chosen), len(rows)), np.float32)
    index = np.ix_(chosen, rows)
    wanted = [name for name in columns if name in levels.LEVELS]
    found = levels.level_columns(ends, wanted, lambda name: tables.values[chosen, :, position[name]]) if wanted else {}
    for out, name in zip(made, columns, strict=True):
        if name in found:
            out[:] = found[name][:, rows]
            continue
        parts = [position[part] for part in DERIVED.get(name, (name,)) if part in position]
        out[:] = tables.values[:, :, parts[0]][index]
        for part in parts[1:]:
            np.fmax(out, tables.values[:, :, part][index], out=out)
    made.view(np.uint32)[...] &= np.uint32(0xFFFFF800)
    return dataclasses.replace(tables, steps=tuple(tables.steps[i] for i in chosen), values=made)
