"""The scale of the signal at each layer, in decades (powers of ten) from its point of reference.

Scales multiply from layer to layer, so that decades add up. The point of reference is the input, or the last
normalisation. That of the gradient is in `Flow.gradient_levels`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from ..flow import Row, log10
from .network import Network

USUAL = (1e-3, 10.0)
"""The rms of data of a usual scale: a one-hot code of 50 000 words has 0.0045, digits in [0, 16] have about 8, raw
pixels about 140."""

LEAST_DRIFT = 0.5
"""Decades of signal or gradient below which nothing else is measured: layers halve and double them by chance."""
_GATED_LOSS = 0.5
"""Decades that any gated recurrent layer takes off: two gates at one half and a tanh. An LSTM as Keras ships it
passes on 0.3 of a unit signal, a GRU 0.4."""


@dataclass(frozen=True, slots=True)
class Drift:
    """How far the rms of a row lies from its reference, in decades, and how many kernels lie between."""

    decades: float
    kernels: int
    reference: int
    source: float
    """Log10 of the rms at the reference."""


def drifts(network: Network) -> dict[int, Drift]:
    """Of each layer row, the decades that its rms has moved since the input or the last normalisation.

    The layers between the data and the first kernel (rescaling, flattening, concatenation) prepare the input: their
    output is the point of reference.
    """
    found: dict[int, Drift] = {}
    data: set[int] = set()
    fresh: set[int] = set()
    heads = {row.index for row in network.heads}
    for i in network.order:
        row = network.rows[i]
        rms = row.output_rms if i in heads else row.stats.activation_rms
        if row.info.role not in ("input", "layer") or not math.isfinite(rms):
            continue
        above = [found[p] for p in network.parents[i] if p in found]
        prepared = not above or all(network.rows[p].info.role == "input" or p in data for p in network.parents[i])
        if prepared and not row.has_kernel and (row.info.role == "input" or not row.info.lookup):
            data.add(i)
        if row.normalises and rms > 0.0:
            found[i] = Drift(0.0, 0, i, min(0.0, log10(rms)))
        elif i in data or row.info.lookup or not above or _meets_numbers(network, row):
            found[i] = Drift(0.0, 0, i, log10(rms))
        elif (
            all(p in data and _unscaled(row, network.rows[p]) for p in network.parents[i])
            if row.has_kernel
            else fresh.issuperset(network.parents[i])
        ):
            # Data far from unit scale is another cause, with the activation that it saturates; here only what the
            # layers after that do counts.
            found[i] = Drift(0.0, 1, i, log10(rms))
            fresh.add(i)
        else:
            before = max(above, key=lambda d: d.decades + d.source)
            passed = max(d.kernels for d in above) + row.has_kernel
            entering = row.stats.entering_rms
            source = (log10(entering) if entering > 0.0 else before.source) - _GATED_LOSS * row.gated
            if _sums_positions(network, row):
                source += max(0.0, log10(rms) - before.source - before.decades)
            found[i] = Drift(log10(rms) - source, passed, before.reference, source)
    return found


def _sums_positions(network: Network, row: Row) -> bool:
    """Whether a row without a kernel reduces many positions to one: a sum over a set may grow with the set."""
    above = [network.rows[p].info.shape for p in network.parents[row.index]]
    return not row.has_kernel and len(above) == 1 and len(row.info.shape) < len(above[0])


def _meets_numbers(network: Network, row: Row) -> bool:
    """Whether the inputs of a row are only indices into a table."""
    arriving = [network.rows[p].info for p in network.parents[row.index]]
    return all(info.role == "input" and info.lookup for info in arriving)


def _unscaled(row: Row, source: Row) -> bool:
    """Whether the input of a first kernel is far from unit scale: data, or what the model's code made of it."""
    entering = row.stats.entering_rms
    rms = entering if math.isfinite(entering) else source.stats.activation_rms
    return not USUAL[0] < rms < USUAL[1]
