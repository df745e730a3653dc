"""Inside the loop of a recurrent layer: what enters its gates, and the gradient at each step of its sequence.

Both are computed within the trace, beside the loop itself, which no tap can enter.
"""

from __future__ import annotations

from typing import Any

from keras import ops

from ..layers import catalogue, table
from .engines import Frame

GATE_STEPS = 3
"""Time steps over which the gates of a recurrent layer are computed: from the second on, the state has its effect."""


def gradient_sizes(gradient: Any, mask: Any, *, backwards: bool) -> Any:
    """The mean absolute gradient of each sample at each time step, and which steps are real: `[2, samples, steps]`.

    Args:
        gradient: dL/d(sequence), `[samples, steps, ...]`.
        mask: `[samples, steps]`: the steps of each sample that are real; None where all are.
        backwards: Whether the layer begins at the end: what comes back is in the order in which it takes them.
    """
    size = ops.mean(ops.abs(ops.cast(gradient, "float32")), axis=list(range(2, len(gradient.shape))))
    both = ops.stack([size, ops.ones_like(size) if mask is None else ops.cast(mask, "float32")])
    return ops.flip(both, -1) if backwards else both


def gate_preactivations(frame: Frame, layer: Any, sequence: Any) -> tuple[Any, Any]:
    """What enters the gates and the candidate of a recurrent layer over its first `GATE_STEPS` steps.

    Returns:
        `[samples, steps, gates * units]` and `[samples, steps, units]`; None for what the cell has not. A cell of
        another class than LSTM, GRU and SimpleRNN has neither, nor has one with a `call` of its own.
    """
    cell = layer.cell
    known = table.facts(cell)
    order = known.gates
    if not order or not catalogue.unchanged(cell, "call") or len(sequence.shape) != 3 or not sequence.shape[1]:
        return None, None
    gates = [name for name in order if name != known.candidate]
    samples = ops.shape(sequence)[0]
    states = [ops.zeros((samples, units), cell.compute_dtype) for units in _as_list(cell.state_size)]
    kernel, recurrent = (ops.cast(frame.value(w), cell.compute_dtype) for w in (cell.kernel, cell.recurrent_kernel))
    bias = 0.0
    if cell.use_bias:
        bias = ops.cast(frame.value(cell.bias), cell.compute_dtype)
        bias = ops.sum(bias, 0) if len(bias.shape) == 2 else bias
    seen: dict[str, list[Any]] = {name: [] for name in order}
    steps = range(int(sequence.shape[1]))
    for t in (steps[::-1] if layer.go_backwards else steps)[:GATE_STEPS]:
        entering = ops.matmul(sequence[:, t], kernel) + ops.matmul(states[0], recurrent) + bias
        for name, part in zip(order, ops.split(entering, len(order), -1), strict=True):
            seen[name].append(part)
        _, states = cell.call(sequence[:, t], states, training=False)
    stacked = {name: ops.stack(parts, 1) for name, parts in seen.items()}
    return ops.concatenate([stacked[g] for g in gates], -1) if gates else None, stacked[known.candidate]


def _as_list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else [value]
