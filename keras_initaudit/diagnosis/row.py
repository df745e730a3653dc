"""One row of a snapshot, and what the rules ask about it alone."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ..records import LayerInfo, Statistics

_NORMALISED = 1e-2
"""A normalisation gives out an rms of about 1; what is far below that it has not normalised."""


def log10(value: float) -> float:
    """The logarithm, in which an exact zero counts as the smallest positive float32."""
    return math.log10(max(value, 1e-45))


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
        """Whether the row is a layer call with a kernel of its own (a matrix or more, not a table)."""
        return self.info.role == "layer" and len(self.info.weight_shape) >= 2 and not self.info.lookup

    @property
    def normalises(self) -> bool:
        """Whether the row sets the scale of what passes through it by what it sees."""
        # One whose epsilon is larger than what arrives, or that is frozen with averages that do not fit, does nothing;
        # one with a gain of zero does.
        return bool(self.info.normalises) and not 0.0 < self.stats.activation_rms <= _NORMALISED

    @property
    def fan_in(self) -> float:
        """Inputs of one unit; by the shape of the weight where the layer does not tell."""
        return max(self.info.fan_in or math.prod(self.info.weight_shape[:-1]), 1.0)

    @property
    def gated(self) -> bool:
        """Whether the row is a recurrent layer with gates."""
        return self.info.gates > 1

    @property
    def output_rms(self) -> float:
        """Rms of what a head gives out, in front of its softmax or sigmoid if it has one."""
        before = self.stats.preactivation_rms
        return before if math.isfinite(before) else self.stats.activation_rms

    @property
    def backward_norm(self) -> float:
        """Norm of dL/d(activation) of one sample: strides and max pooling change the rms of it, and not the norm.

        Averaging over n positions takes sqrt(n) off it, 1.5 decades for 32 x 32, which the limits leave room for.
        """
        size = math.prod(n for n in self.info.shape if n > 0)
        return self.stats.backward_rms * math.sqrt(size)
