"""The main line of a network, from its snapshot: the rows that are drawn as one curve, and where all others stand.

In a network with skip connections the main line is the residual stream: the rows that every path runs through, which
in a directed graph without cycles are those that no edge leads past. What stands between two of them is a block. Three
kinds of region between two such rows are no side path, and the main line leads through them: the beginning and the end
of the network (several inputs, several outputs), what scales a picture up again (the inside of a U-Net), and what holds
more than half of the layers around it. There it follows the longest of the parallel paths.

Imports the graph and the records only: the report and the page draw the same line.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from .flow import Flow
from .records import LayerInfo, Snapshot, Statistics

Above = Mapping[int, Collection[int]]
"""Row -> the rows that flow into it."""
_START, _END = -1, -2
_WITHOUT_KERNEL = 1e-3
"""What a row without a kernel adds to the length of a path, on which a kernel counts 1."""
_DEEPEST = 50
"""Regions within regions; what lies deeper is a block."""


@dataclass(frozen=True, slots=True)
class Trunk:
    """The main line of one model."""

    line: tuple[int, ...]
    """The rows of the main line, by position in the snapshot, in order."""
    places: tuple[float, ...]
    """Of each row of the snapshot, where it stands along the line: `i` for `line[i]`, between `i - 1` and `i` in the
    block that ends there. A part stands where its layer does; the batch, NaN."""

    @property
    def slots(self) -> tuple[int, ...]:
        """Of each row, the position on the line of the point that stands for it; -1 for the batch."""
        last = len(self.line) - 1
        return tuple(-1 if math.isnan(place) else min(max(math.ceil(place), 0), last) for place in self.places)

    @property
    def blocks(self) -> tuple[tuple[int, ...], ...]:
        """Of each point of the line, the other rows that it stands for, in order."""
        found: list[list[int]] = [[] for _ in self.line]
        line = set(self.line)
        for row, slot in enumerate(self.slots):
            if slot >= 0 and row not in line:
                found[slot].append(row)
        return tuple(tuple(sorted(rows, key=lambda row: self.places[row])) for rows in found)


def trunk_of(layers: Sequence[LayerInfo]) -> Trunk:
    """The main line of the model that has these rows."""
    return trunk_in(Flow(Snapshot(0, tuple(layers), (Statistics(),) * len(layers))))


def trunk_in(flow: Flow) -> Trunk:
    """The main line of a graph."""
    return _Finder(flow).trunk


class _Finder:
    """One search: the graph of the layer calls, and what it asks of it again and again."""

    def __init__(self, flow: Flow) -> None:
        self.layers = [row.info for row in flow.rows]
        order = [row for row in flow.order if self.layers[row].role == "layer"]
        self.order = order
        self.above = {row: [p for p in flow.parents[row] if self.layers[p].role == "layer"] for row in order}

    @cached_property
    def trunk(self) -> Trunk:
        line = self._inside(self.order, self.above, _START, _END, 0)
        places = self._places(line)
        kept = self._one_a_block(line, places)
        return Trunk(tuple(kept), tuple(places if kept == line else self._places(kept)))

    def _weight(self, row: int) -> float:
        return 1.0 if self.layers[row].weight_shape else _WITHOUT_KERNEL

    def _levels(self, rows: Iterable[int], above: Above) -> dict[int, float]:
        """Of each row, the length of the longest path to it, itself included."""
        found: dict[int, float] = {}
        for row in rows:
            found[row] = max((found.get(p, 0.0) for p in above[row]), default=0.0) + self._weight(row)
        return found

    def _length(self, rows: Iterable[int], above: Above) -> float:
        return max(self._levels(rows, above).values(), default=0.0)

    def _line(self, rows: Sequence[int], above: Above, start: int, end: int, depth: int) -> list[int]:
        """The main line through a connected region of `rows`, in order, from one row on it to another one."""
        cuts = _cuts(rows, above, start, end)
        if not cuts:
            return self._disentangled(rows, above, start, end, depth)
        whole = self._length(rows, above)
        line: list[int] = []
        bounds = [*cuts, end]
        first, before = 0, start
        for cut in bounds:
            last = len(rows) if cut == end else rows.index(cut, first)
            region = rows[first:last]
            if region and self._is_passed_through(region, above, before, cut, whole):
                line += self._inside(region, above, before, cut, depth + 1)
            if cut != end:
                line.append(cut)
            first, before = last + 1, cut
        return line

    def _is_passed_through(self, region: Sequence[int], above: Above, start: int, end: int, whole: float) -> bool:
        """Whether the main line leads through a region between two of its rows, and not past it."""
        if start == _START or end == _END or 2.0 * self._length(region, above) > whole:
            return True
        return self.layers[end].kind != "Multiply" and any(self._scales_up(row, above) for row in region)

    def _scales_up(self, row: int, above: Above) -> bool:
        """Whether a row has more positions than each row that flows into it, which have more than one."""
        shape = self.layers[row].shape
        sources = [self.layers[p].shape for p in above[row] if p >= 0]
        if any(len(source) != len(shape) for source in sources):
            return False  # as heads of attention, which are no positions
        return 1 < max((math.prod(source[:-1]) for source in sources), default=0) < math.prod(shape[:-1])

    def _inside(self, region: Sequence[int], above: Above, start: int, end: int, depth: int) -> list[int]:
        """The main line through a region: through the longest of its parts that no edge joins."""
        if depth > _DEEPEST:
            return []
        inner = set(region)
        within: Above = {row: [p for p in above.get(row, ()) if p in inner or p == start] for row in (*region, end)}
        if start != _START:
            within = _sums(region, within, end)
        parts = _parts(region, within)
        longest = max(parts, key=lambda part: (self._length(part, within), len(part)), default=[])
        chosen = set(longest)
        kept = {row: [p for p in within[row] if p in chosen or p == start] for row in longest}
        kept[end] = [p for p in within[end] if p in chosen]
        return self._line(longest, kept, start, end, depth)

    def _disentangled(self, rows: Sequence[int], above: Above, start: int, end: int, depth: int) -> list[int]:
        """The main line through a region in which every row is led past: without the edges that lead past most."""
        if not rows or depth > _DEEPEST:
            return []
        levels = self._levels(rows, above) | {start: 0.0}
        levels[end] = max(levels.values()) + 1.0
        path = [*self._longest_path(rows, levels, above), end]
        needed = set(itertools.pairwise(path))
        edges = [(p, row) for row in (*rows, end) for p in above[row] if (p, row) not in needed]
        # A stream is added up; what a kernel takes in from far above, as attention to an encoder does, is none.
        latest = {row: max((levels[p] for p in above[row]), default=0.0) for row in (*rows, end)}
        dropped = {(p, row) for p, row in edges if self.layers[row].weight_shape and levels[p] < latest[row]}
        if not dropped:
            spans = {(p, row): levels[row] - levels[p] for p, row in edges}
            widest = max(spans.values(), default=0.0)
            dropped = {edge for edge, span in spans.items() if 2.0 * span > widest}
        if not dropped:
            return path[:-1]
        kept = {row: [p for p in above[row] if (p, row) not in dropped] for row in (*rows, end)}
        left = _between(rows, kept, path[0], path[-2])
        on_paths = {start, *left}
        kept = {row: [p for p in kept[row] if p in on_paths] for row in (*left, end)}
        return self._line(left, kept, start, end, depth + 1)

    def _longest_path(self, rows: Sequence[int], levels: Mapping[int, float], above: Above) -> list[int]:
        inner = set(rows)
        path = [max(rows, key=lambda row: levels[row])]
        while before := [p for p in above[path[-1]] if p in inner]:
            path.append(max(before, key=lambda row: levels[row]))
        return path[::-1]

    def _places(self, line: Sequence[int]) -> list[float]:
        """Where each row stands along the line: between the points around it, by its distance from both."""
        position = {row: i for i, row in enumerate(line)}
        below: dict[int, list[int]] = {row: [] for row in self.order}
        for row, sources in self.above.items():
            for p in sources:
                below[p].append(row)
        before = _nearest(self.order, self.above, position, -1, max)
        after = _nearest(self.order[::-1], below, position, len(line), min)
        places = [math.nan] * len(self.layers)
        for row in self.order:
            (low, passed), (high, left) = before[row], after[row]
            share = (passed + 1.0) / (passed + left + 2.0)
            places[row] = float(position[row]) if row in position else low + max(high - low, 0) * share
        at_depth = {self.layers[row].depth: places[row] for row in self.order}
        for row, info in enumerate(self.layers):
            if info.role in ("weight", "gates", "attention"):
                places[row] = at_depth.get(info.depth, math.nan)
        return places

    def _one_a_block(self, line: list[int], places: Sequence[float]) -> list[int]:
        """The line with one point a block: what has no kernel and keeps the shape belongs to the block before it."""
        on_line = set(line)
        inside = {math.ceil(places[row]) for row in self.order if row not in on_line}
        kept: list[int] = []
        in_block = False
        for i, row in enumerate(line):
            info = self.layers[row]
            before = self.layers[line[i - 1]]
            joins = in_block and i not in inside and not info.weight_shape and info.shape == before.shape
            if joins and info.normalises:  # one behind the last block alone normalises for the outputs
                joins = i + 1 in inside or bool(kept[:-1] and self.layers[kept[-2]].normalises)
            if joins:
                kept[-1] = row
            else:
                kept.append(row)
                in_block = i in inside
        return kept


def _cuts(rows: Sequence[int], above: Above, start: int, end: int) -> list[int]:
    """The rows that every path from start to end holds: no edge leads past them."""
    place = {start: -1, end: len(rows)} | {row: i for i, row in enumerate(rows)}
    furthest = [-1] * (len(rows) + 1)
    fed = set()
    for row in (*rows, end):
        sources = [p for p in above[row] if p in place] or ([start] if row != end else [])
        fed.update(sources)
        for p in sources:
            furthest[place[p] + 1] = max(furthest[place[p] + 1], place[row])
    for row in rows:
        if row not in fed:  # nothing takes it in: an end of its own
            furthest[place[row] + 1] = len(rows)
    cuts, reached = [], furthest[0]
    for i, row in enumerate(rows):
        if reached <= i:
            cuts.append(row)
        reached = max(reached, furthest[i + 1])
    return cuts


def _between(rows: Sequence[int], above: Above, first: int, last: int) -> list[int]:
    """The rows on any path from the first to the last."""
    ahead, behind = {first}, {last}
    for row in rows:
        if any(p in ahead for p in above[row]):
            ahead.add(row)
    for row in reversed(rows):
        if row in behind:
            behind.update(above[row])
    return [row for row in rows if row in ahead and row in behind]


def _parts(rows: Sequence[int], above: Above) -> list[list[int]]:
    """The rows in groups that no edge joins, each in order."""
    group = {row: row for row in rows}

    def root(row: int) -> int:
        while group[row] != row:
            group[row] = group[group[row]]
            row = group[row]
        return row

    for row in rows:
        for p in above[row]:
            if p in group:
                group[root(p)] = root(row)
    parts: dict[int, list[int]] = {}
    for row in rows:
        parts.setdefault(root(row), []).append(row)
    return list(parts.values())


def _sums(rows: Sequence[int], above: Above, end: int) -> dict[int, Collection[int]]:
    """The edges, where additions outside of any layer are written as chains.

    A row that takes in all that an earlier one takes in, and more, takes in the sum that the earlier one has seen.
    """
    made: dict[int, Collection[int]] = dict(above)
    seen: list[tuple[int, frozenset[int]]] = []
    for row in (*rows, end):
        sources = frozenset(above[row])
        known = next(((u, s) for u, s in reversed(seen) if s < sources), None)
        if known is not None:
            made[row] = [known[0], *(p for p in above[row] if p not in known[1])]
        if len(sources) >= 2:
            seen.append((row, sources))
    return made


def _nearest(
    order: Iterable[int], sources: Above, position: Mapping[int, int], none: int, choose: Callable[..., int]
) -> dict[int, tuple[int, int]]:
    """Of each row, the nearest point of the line toward its sources, and how many rows lie between."""
    found: dict[int, tuple[int, int]] = {}
    for row in order:
        ends = [(position[p], 0) if p in position else (found[p][0], found[p][1] + 1) for p in sources[row]]
        nearest = choose((end for end, _ in ends), default=none)
        found[row] = (nearest, max((passed for end, passed in ends if end == nearest), default=0))
    return found
