"""The questions that the rules ask about a whole snapshot: its zeros, its skip connections, what follows what."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from ..flow import Flow, Row
from ..records import Normalises, Snapshot


@dataclass(frozen=True)
class Network(Flow):
    """The rows of one snapshot, what flows into what, and the audits before it."""

    before: tuple[Snapshot, ...] = ()
    """The audits before this one, in the order of their steps."""

    @cached_property
    def opening(self) -> bool:
        """Whether intended zeros may still be zero: a trainable weight starts at zero and gets a gradient.

        Before it the gradient is exactly zero for one update, or for two where two such zeros follow each other. What
        is still exactly zero after that stays zero.
        """
        first = self.before[0].step if self.before else self.snapshot.step
        return self.snapshot.step < first + 2 and self.starts_at_zero

    @property
    def starts_at_zero(self) -> bool:
        """Whether a trainable weight is all zero, a bias aside, and has a gradient: a kernel, a table, a gate."""
        return self.has_gates or any(
            row.info.trainable and row.stats.weight_rms == 0.0 and row.stats.gradient_rms > 0.0 for row in self.rows
        )

    @property
    def has_gates(self) -> bool:
        """Whether a gate or a scale, no kernel, starts at zero and gets a gradient."""
        return any(row.info.zero_scales for row in self.rows)

    @property
    def persistence(self) -> float:
        """How many learning rates a constant gradient changes the weights by: 1 / (1 - momentum), at most 1000."""
        return 1.0 / max(1.0 - self.snapshot.momentum, 1e-3)

    @cached_property
    def hidden(self) -> tuple[Row, ...]:
        """The kernels that are no head."""
        return tuple(row for row in self.kernels if row not in self.heads)

    @cached_property
    def firsts(self) -> tuple[Row, ...]:
        """The kernels whose input comes from the data, through no other kernel or table."""
        trained = sum(1 << r.index for r in self.layers if r.has_kernel or r.info.lookup)
        return tuple(row for row in self.kernels if not self.ancestors[row.index] & trained)

    @cached_property
    def junctions(self) -> tuple[Row, ...]:
        """The layer calls whose output is the input of a kernel: where the scale of signal and gradient counts."""
        return tuple(self.rows[i] for i in sorted(self._feeding(self.kernels)))

    def bypassed(self, row: Row) -> bool:
        """Whether a skip connection bypasses `row`: a later sum has a term that does not pass through it."""
        above = self.ancestors[row.index]
        if not above:
            return False
        for merge in self.sums:
            if not self.is_ancestor(row.index, merge.index):
                continue
            for p in self.parents[merge.index]:
                inside = p == row.index or self.is_ancestor(row.index, p)
                if not inside and (above >> p & 1 or self.ancestors[p] & above & self._layer_bits):
                    return True
        return False

    @cached_property
    def sums(self) -> tuple[Row, ...]:
        """The layer calls that combine several inputs into one: a chain of a thousand has none."""
        return tuple(r for r in self.layers if len(self.parents[r.index]) > 1 and not r.info.concatenates)

    @cached_property
    def _layer_bits(self) -> int:
        return sum(1 << row.index for row in self.layers)

    def normalised_after(self, row: Row) -> bool:
        """Whether the output of `row` is normalised, on every path, before the next kernel or output."""
        seen: set[int] = set()
        queue = [row.index]
        while queue:
            children = [c for c in self.children[queue.pop()] if self.rows[c].info.role == "layer"]
            if not children:
                return False
            for child in children:
                if child in seen or self.rows[child].normalises:
                    continue
                if self.rows[child].has_kernel:
                    return False
                seen.add(child)
                queue.append(child)
        return True

    def feeds(self, row: Row, normalises: Normalises) -> bool:
        """Whether the output of `row` goes directly into a normalisation of this kind."""
        return any(self.rows[c].info.normalises == normalises for c in self.children[row.index])

    def activation(self, row: Row) -> str:
        """The activation after a kernel: that of its layer, or of the layers between it and the next kernel."""
        seen: set[int] = set()
        queue = [row.index]
        while queue:
            here = self.rows[queue.pop(0)]
            if here.info.activation not in (None, "linear"):
                return str(here.info.activation)
            for child in self.children[here.index]:
                if child not in seen and self.rows[child].info.role == "layer" and not self.rows[child].has_kernel:
                    seen.add(child)
                    queue.append(child)
        return "linear"

    def owner(self, row: Row) -> Row:
        """The layer that a part (a second kernel, gates, attention weights) belongs to; of a layer, itself."""
        if row.info.role == "layer":
            return row
        path = row.path
        while "/" in path:
            path = path.rsplit("/", 1)[0]
            for candidate in self.layers:
                if candidate.path == path:
                    return candidate
        return row

    def place(self, row: Row) -> Row:
        """The row in the flow that a row belongs to: for attention weights, the last part of their layer with a row."""
        owner = self.owner(row)
        if owner.info.role == "layer":
            return owner
        stem = row.path.rpartition("/")[0] + "/"
        return next((layer for layer in reversed(self.layers) if layer.path.startswith(stem)), owner)

    def through(self, row: Row) -> Iterator[Row]:
        """The kernels between the inputs and `row`, in order, `row` itself included."""
        for kernel in self.kernels:
            if kernel.index == row.index or self.is_ancestor(kernel.index, row.index):
                yield kernel
