"""What flows into what in a snapshot: its rows as a graph, and the scale of the gradient on its way back.

Bit sets in plain integers hold the ancestors of each row, so that a thousand layers cost milliseconds. Where a snapshot
does not say what flows where (a subclassed model that hides it), the rows are taken as a chain in their order.
Imports the records only: the rules and the pictures of report and tab read the same graph.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

from .records import LayerInfo, Snapshot, Statistics

_NORMALISED = 1e-2
"""A normalisation gives out an rms of about 1; an output far below that is not normalised."""


SMALLEST = 1e-45
"""The smallest positive float32, rounded: what an exact zero counts as in a logarithm."""


def log10(value: float) -> float:
    """The logarithm, in which an exact zero counts as the smallest positive float32."""
    return math.log10(max(value, SMALLEST))


@dataclass(frozen=True, slots=True, eq=False)
class Row:
    """One row of the snapshot with its place in it."""

    index: int
    info: LayerInfo
    stats: Statistics

    @property
    def path(self) -> str:
        """Its name in findings."""
        return self.info.path

    @property
    def has_kernel(self) -> bool:
        """Whether the row is a layer call with a kernel (a matrix or more, not a table)."""
        return self.info.role == "layer" and len(self.info.weight_shape) >= 2 and not self.info.lookup

    @property
    def normalises(self) -> bool:
        """Whether the row sets the scale of what passes through it by what it sees."""
        # One whose epsilon is larger than what arrives, or that is frozen with averages that do not fit, does nothing;
        # one with a gain of zero does.
        return bool(self.info.normalises) and not 0.0 < self.stats.activation_rms <= _NORMALISED

    @property
    def fan_in(self) -> float:
        """Inputs of one unit; by the shape of the weight where the fans are not known."""
        return max(self.info.fan_in or math.prod(self.info.weight_shape[:-1]), 1.0)

    @property
    def gated(self) -> bool:
        """Whether the row is a recurrent layer with gates."""
        return self.info.gates > 1

    @property
    def output_rms(self) -> float:
        """Rms of the output of a head, before its softmax or sigmoid if it has one."""
        before = self.stats.preactivation_rms
        return before if math.isfinite(before) else self.stats.activation_rms

    @property
    def sqrt_size(self) -> float:
        """Of the output of one sample, its norm over its rms."""
        return math.sqrt(math.prod(n for n in self.info.shape if n > 0))

    @property
    def backward_norm(self) -> float:
        """Norm of dL/d(activation) of one sample: strides and max pooling change its rms, but not its norm.

        Averaging over n positions divides it by sqrt(n), 1.5 decades for 32 x 32, which the limits allow for.
        """
        return self.stats.backward_rms * self.sqrt_size


@dataclass(frozen=True)
class Flow:
    """The rows of one snapshot, and which one's output flows into which."""

    snapshot: Snapshot

    @cached_property
    def rows(self) -> tuple[Row, ...]:
        """Every row, in the order of the snapshot."""
        pairs = zip(self.snapshot.layers, self.snapshot.statistics, strict=True)
        return tuple(Row(i, info, stats) for i, (info, stats) in enumerate(pairs))

    @cached_property
    def layers(self) -> tuple[Row, ...]:
        """The rows that are layer calls."""
        return tuple(row for row in self.rows if row.info.role == "layer")

    @cached_property
    def kernels(self) -> tuple[Row, ...]:
        """The layer calls with a kernel, in order; the later calls of a shared layer included."""
        return tuple(row for row in self.layers if row.has_kernel)

    @cached_property
    def parents(self) -> tuple[tuple[int, ...], ...]:
        """Of each row, the rows whose output flows into it."""
        index = {row.path: row.index for row in self.rows}
        flow = [row.index for row in self.rows if row.info.role in ("input", "layer")]
        if not any(row.info.inputs for row in self.layers):
            before: dict[int, tuple[int, ...]] = {later: (earlier,) for earlier, later in itertools.pairwise(flow)}
            return tuple(before.get(row.index, ()) for row in self.rows)
        return tuple(
            tuple(index[p] for p in row.info.inputs if p in index and index[p] != row.index) for row in self.rows
        )

    @cached_property
    def children(self) -> tuple[tuple[int, ...], ...]:
        """Of each row, the rows that its output flows into."""
        found: list[list[int]] = [[] for _ in self.rows]
        for child, parents in enumerate(self.parents):
            for parent in parents:
                found[parent].append(child)
        return tuple(tuple(c) for c in found)

    @cached_property
    def order(self) -> tuple[int, ...]:
        """The rows, each after what flows into it; a cycle, which no forward pass has, is cut."""
        done: set[int] = set()
        order: list[int] = []
        for start in range(len(self.rows)):
            stack = [(start, iter(self.parents[start]))] if start not in done else []
            done.add(start)
            while stack:
                node, rest = stack[-1]
                following = next((p for p in rest if p not in done), None)
                if following is None:
                    order.append(node)
                    stack.pop()
                else:
                    done.add(following)
                    stack.append((following, iter(self.parents[following])))
        return tuple(order)

    @cached_property
    def ancestors(self) -> tuple[int, ...]:
        """Of each row, the bit set of the rows that it depends on, itself not included."""
        found = [0] * len(self.rows)
        for i in self.order:
            for p in self.parents[i]:
                found[i] |= found[p] | 1 << p
        return tuple(found)

    def is_ancestor(self, early: int, late: int) -> bool:
        """Whether the row `late` depends on the row `early`."""
        return bool(self.ancestors[late] >> early & 1)

    @cached_property
    def heads(self) -> tuple[Row, ...]:
        """The kernels that no other kernel follows: those that make the outputs."""
        fed = 0
        for row in self.kernels:
            fed |= self.ancestors[row.index]
        return tuple(row for row in self.kernels if not fed >> row.index & 1)

    @cached_property
    def last_hidden(self) -> tuple[Row, ...]:
        """The layer calls whose output a head takes in."""
        return tuple(self.rows[i] for i in sorted(self._feeding(self.heads)))

    def _feeding(self, kernels: Iterable[Row]) -> set[int]:
        return {p for row in kernels for p in self.parents[row.index] if self.rows[p].info.role == "layer"}

    @cached_property
    def heads_after(self) -> dict[int, tuple[Row, ...]]:
        """Of each of `last_hidden`: the heads that take in its output."""
        heads = {row.index for row in self.heads}
        return {
            row.index: tuple(self.rows[c] for c in self.children[row.index] if c in heads) for row in self.last_hidden
        }

    @cached_property
    def ends(self) -> dict[int, tuple[Row, ...]]:
        """Of each layer call that leads to one of `last_hidden`, or is one: those it leads to."""
        found = {
            row.index: tuple(
                e for e in self.last_hidden if e.index == row.index or self.is_ancestor(row.index, e.index)
            )
            for row in self.layers
        }
        return {index: ends for index, ends in found.items() if ends}

    def gradient_levels(self) -> dict[int, tuple[float, Row]]:
        """Of each hidden row: the decades of its `backward_norm` over its point of reference, and which row that is.

        The point of reference is the last hidden layer that the row leads to; of several, the one with the largest
        gradient. One without a gradient, or in front of heads of zeros, is none. A head has no level: its output
        (logits, probabilities, a price) is no hidden signal. `tensorboard.levels` computes the same for many audits at
        once, from `ends`, `heads_after` and `Row.sqrt_size`; a test compares the two.
        """
        references: dict[int, float] = {}
        for row in self.last_hidden:
            passes = any(head.stats.weight_rms > 0.0 for head in self.heads_after[row.index])
            if passes and row.backward_norm > 0.0:
                references[row.index] = log10(row.backward_norm)
        found: dict[int, tuple[float, Row]] = {}
        for index, ends in self.ends.items() if references else ():
            norm = self.rows[index].backward_norm
            reached = [end for end in ends if end.index in references]
            if reached and math.isfinite(norm):
                end = max(reached, key=lambda row: references[row.index])
                found[index] = (log10(norm) - references[end.index], end)
        return found
