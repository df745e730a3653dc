"""The questions that the rules ask about a whole snapshot: its optimizer, its trunk, its skip connections."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property

from ..flow import Flow, Row, log10
from ..records import Normalises, Snapshot
from .thresholds import Thresholds

_PLAIN_OPTIMIZERS = frozenset({"SGD"})
_BOUNDED = frozenset({"tanh", "sigmoid", "softsign", "softmax", "hard_tanh", "hard_sigmoid", "relu6"})
"""Activations whose values stay within limits."""


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
    def adaptive(self) -> bool:
        """Whether the optimizer divides each gradient by its size; an unknown one is assumed to."""
        return self.snapshot.optimizer not in _PLAIN_OPTIMIZERS

    @property
    def persistence(self) -> float:
        """How many learning rates a constant gradient changes the weights by: 1 / (1 - momentum), at most 1000."""
        return 1.0 / max(1.0 - self.snapshot.momentum, 1e-3)

    def paces(self, kernels: Iterable[Row]) -> list[float]:
        """How fast training changes each of these kernels at first, ascending; empty where that is unknown.

        For SGD, learning rate / (1 - momentum) x rms(gradient) / rms(weight). Any other optimizer divides by the size
        of the gradient, as long as that is far above its epsilon: there, rms(gradient) itself.
        """
        rate = self.snapshot.peak_rate or self.snapshot.learning_rate
        scale = 1.0 if self.adaptive else (rate or math.nan) * self.persistence
        # Below a head of zeros there is no gradient at the first step, and one at the second.
        if all(head.stats.weight_rms == 0.0 for head in self.heads):
            return []
        found = []
        for row in kernels:
            weight = 1.0 if self.adaptive else row.stats.weight_rms
            pace = scale * row.stats.gradient_rms / weight if weight > 0.0 else math.nan
            if row.info.trainable and math.isfinite(pace):
                found.append(pace)
        return sorted(found)

    def first_step(self) -> float:
        """Log10 of the first step of SGD over the usual size of the weights, the median of all kernels; else NaN.

        With momentum, over sqrt(1 - momentum). The usual size is their own, but not under half of 1 / sqrt(fan_in):
        weights that are small on purpose may grow. Kernels whose output is bounded do not count.
        """
        if self.adaptive or not self.snapshot.learning_rate:
            return math.nan
        rate = self.snapshot.learning_rate * math.sqrt(self.persistence)
        steps = []
        for row in (*self.loose, *self.heads):
            size = max(row.stats.weight_rms, 0.5 / math.sqrt(row.fan_in))
            if row.info.trainable and row.stats.gradient_rms > 0.0 and math.isfinite(size):
                steps.append(rate * row.stats.gradient_rms / size)
        return log10(statistics.median(steps)) if steps else math.nan

    @cached_property
    def loose(self) -> tuple[Row, ...]:
        """The hidden kernels whose output has no limit: no bounded activation, softmax or normalisation follows."""
        stems = [row.path.rpartition("/")[0] for row in self.rows if row.info.role == "attention"]
        softmaxed = {f"{stem}/{part}" for stem in stems for part in ("query", "key")}
        return tuple(
            row
            for row in self.hidden
            if row.path not in softmaxed and self.activation(row) not in _BOUNDED and not self.normalised_after(row)
        )

    @property
    def bounded(self) -> bool:
        """Whether there are hidden kernels, and the output of each is bounded."""
        return bool(self.hidden) and not self.loose

    @cached_property
    def narrowness(self) -> float:
        """Sum of 1 / fan_in over the chain of kernels in which errors of scale multiply: depth over width.

        It is the variance, in the logarithm, of what a random chain does to one input and another (Hanin & Nica 2020).
        A recurrent kernel counts once for each step in time; a depthwise one, whose channels the next layer mixes, not.
        """
        if not self.loose:
            return 0.0
        mixing = [row for row in self.trunk if not row.info.channelwise]
        chain = [*(row for row in mixing if row in self.loose and row not in self.firsts), *self.heads[:1]]
        in_time = [row for row in self.rows if row.info.weight == "recurrent_kernel" and self.owner(row) in self.loose]
        depth = sum(1.0 / row.fan_in for row in chain)
        return depth + sum(self._steps_in_time(self.owner(row)) / row.fan_in for row in in_time)

    def no_way_back(self, thresholds: Thresholds) -> float:
        """The decades of too large a scale from which an adaptive optimizer does not recover; at most 300."""
        return min(thresholds.narrow_bad / max(self.narrowness, 1e-9), 300.0)

    def _steps_in_time(self, row: Row) -> int:
        """Length of the sequences that arrive at a recurrent layer; 1 where it is not known."""
        arriving = [self.rows[p].info.shape for p in self.parents[row.index]]
        return max((1, *(shape[0] for shape in arriving if len(shape) > 1)))

    def stands_still(self, kernels: Iterable[Row], thresholds: Thresholds) -> bool | None:
        """Whether the product of these kernels changes too slowly for any usual training; None where unknown."""
        pace = self.pace(kernels)
        limit = thresholds.gradient_floor if self.adaptive else thresholds.pace_low
        return None if math.isnan(pace) else pace <= limit

    def pace(self, kernels: Iterable[Row]) -> float:
        """Log10 of how fast the product of these kernels changes (see `paces`); NaN where that is unknown.

        From a start near zero, n kernels start to grow with SGD after about 1 / ((n - 2) pace) updates, the head's
        counted: the sum of all but the fastest. Of any other optimizer the median gradient.
        """
        paces = self.paces(kernels)
        if not paces:
            return math.nan
        return log10(paces[(len(paces) - 1) // 2] if self.adaptive else sum(paces[: max(1, len(paces) - 1)]))

    def partly_stands_still(self, kernels: Iterable[Row], thresholds: Thresholds) -> bool | None:
        """Whether a quarter of these kernels hardly change at all; None where unknown."""
        paces = self.paces(kernels)
        floor = thresholds.gradient_floor if self.adaptive else thresholds.kernel_pace_low
        return log10(paces[(len(paces) - 1) // 4]) <= floor if paces else None

    @cached_property
    def hidden(self) -> tuple[Row, ...]:
        """The kernels that are no head."""
        return tuple(row for row in self.kernels if row not in self.heads)

    @cached_property
    def trunk(self) -> tuple[Row, ...]:
        """The hidden kernels that no skip connection bypasses."""
        return tuple(row for row in self.hidden if not self.bypassed(row))

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
        for merge in self._sums:
            if not self.is_ancestor(row.index, merge.index):
                continue
            for p in self.parents[merge.index]:
                inside = p == row.index or self.is_ancestor(row.index, p)
                if not inside and (above >> p & 1 or self.ancestors[p] & above & self._layer_bits):
                    return True
        return False

    @cached_property
    def _sums(self) -> tuple[Row, ...]:
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
