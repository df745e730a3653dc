"""From a recording to the rows of a snapshot: what stands where, and which tensors its statistics are taken of.

It runs while the shadow step is traced, so that the tensors are symbols of its graph (or eager, where the model is); no
number is known yet, and nothing is evaluated.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from typing import Any

import keras
from keras import ops

from ..layers import catalogue
from ..layers.inside import own_weights
from ..records import LayerInfo
from . import describe, measures
from .batch import unpack
from .engines import Array, Use, engine
from .taps import Call, Recording


@dataclasses.dataclass(eq=False)
class Row:
    """A row of the snapshot that is to come, with the tensors that its statistics are taken of."""

    info: LayerInfo
    tensors: dict[str, Any] = dataclasses.field(default_factory=dict)
    """Prefix of the statistics (`activation`, `backward`, ...) -> thinned tensor: of a kernel and its gradient
    `[fan_in, units]`, of all else `[samples, positions, units]`."""
    matrices: dict[str, int] = dataclasses.field(default_factory=dict)
    """`weight` or `gradient`, where identical columns are to be counted -> number of rows before thinning."""
    owner: Any = None
    variable: Any = None
    """The weight of the weight columns, and the layer that holds it."""
    ends: tuple[float, float] | None = None
    """Where the activation is flat: the pre-activations outside are saturated."""
    probabilities: Any = None
    """`[rows, choices]`, of which the entropy is taken."""
    scales: dict[str, Any] = dataclasses.field(default_factory=dict)
    """Name of a weight that multiplies (a gate, a scale) -> it and its gradient, stacked."""


def rows_of(recording: Recording, batch: Any) -> Iterator[Row]:
    """Inputs, then a row for each call with the parts of its layer behind it, then targets."""
    x, y, _ = unpack(batch)
    model, calls = recording.model, recording.calls
    names = describe.layer_paths(model)
    paths = [names[id(call.layer)] + ("" if call.number == 1 else f"#{call.number}") for call in calls]
    inputs = dict(_named_tensors(x, "input"))
    taps = recording.taps(paths)
    above = recording.frame.flows(taps, list(inputs.items()))
    flows = dict(zip((tap.path for tap in taps), above, strict=True))
    owned = describe.owners(model, [call.layer for call in calls if call.output is not None])
    used = _uses(recording, batch, owned)
    calls_of = {id(call.layer): call.number for call in calls if call.output is not None}

    loose = [] if id(model) in calls_of else owned.get(id(model), [])
    scales = _scales(recording, loose)  # of the model itself, which has no row: they go with the first
    for path, tensor in inputs.items():
        lookup = recording.frame.looked_up(tensor)  # before its statistics add to the graph
        row, scales = _data_row(path, tensor, -1, "input", scales), {}
        row.info = dataclasses.replace(row.info, lookup=lookup)
        yield row
    if id(model) not in calls_of:
        yield from _weight_rows(recording, names, loose, None, 0, set(), used)
    shown: set[int] = set()
    known = {id(tensor) for tensor in inputs.values()} | {id(call.output) for call in calls}
    data = set(inputs)  # and the rows that prepare it, with no kernel
    depth = -1
    for call, path in zip(calls, paths, strict=True):
        if call.output is None:
            yield from _part_rows(recording, call, path, depth)
            continue
        depth += 1
        main = _call_row(recording, call, path, depth, flows[path], shared=calls_of[id(call.layer)] > 1)
        main.info = dataclasses.replace(main.info, lookup=describe.looks_up(call.layer, used))
        layers = owned[id(call.layer)] if call.number == 1 else []
        meets_data = not data.isdisjoint(flows[path])
        if meets_data and call.arguments and id(call.arguments[0]) not in known:
            main.tensors["entering"] = measures.thinned(call.arguments[0], measures.ACTIVATION_SAMPLE_SIZE)
        rows = list(_weight_rows(recording, names, layers, main, depth, shown, used))
        if rows[0].info.weight is None:
            rows[0].tensors.pop("entering", None)
            if meets_data and data.issuperset(flows[path]) and not main.info.shared:
                data.add(path)
        yield from rows
        yield from _part_rows(recording, call, path, depth)
    for path, tensor in _named_tensors(y, "target"):
        yield _data_row(path, tensor, depth + 1, "target")


def _uses(recording: Recording, batch: Any, owned: dict[int, list[Any]]) -> dict[int, Use]:
    """What the step does with the weights of which nothing else says it."""
    weights = [w for layers in owned.values() for layer in layers for w in describe.undecided(layer)]
    outputs = [call.output for call in recording.calls if call.output is not None]
    return recording.frame.uses(keras.tree.flatten(batch), outputs, weights) if weights else {}


def _call_row(
    recording: Recording, call: Call, path: str, depth: int, flows_from: tuple[str, ...], *, shared: bool
) -> Row:
    layer = call.layer
    shape = tuple(n or 0 for n in call.output.shape[1:])
    activation = recording.activation(layer)
    info = describe.row(path, depth, layer, activation, shape=shape, shared=shared, inputs=flows_from)
    row = Row(info)

    def units_last(x: Any) -> Any:
        rank = len(x.shape)
        return ops.transpose(x, [0, *range(2, rank), 1]) if rank > 2 and catalogue.channels_first(layer) else x

    output = units_last(call.output)
    row.tensors["activation"] = measures.thinned(output, measures.ACTIVATION_SAMPLE_SIZE)
    if call.preactivation is not None:
        row.tensors["preactivation"] = measures.thinned(units_last(call.preactivation))
        row.ends = activation.ends
    if call.backward is not None:
        row.tensors["backward"] = measures.thinned(units_last(engine().dense(call.backward)))
    if call.passed and {"preactivation", "backward"} <= set(row.tensors):
        row.tensors["passed"] = measures.thinned(units_last(engine().dense(call.passed[0])))
    if info.activation == "softmax":
        row.probabilities = measures.thinned_rows(_choices_last(output, describe.softmax_axes(layer)))
    return row


def _choices_last(x: Any, axes: tuple[int, ...]) -> Any:
    """Probabilities with the axes over which they add up to one as the last axis."""
    shape = engine().shape(x)
    if shape is None or axes == (-1,):
        return x
    rank = len(shape)
    last = [axis % rank for axis in axes]
    rest = [axis for axis in range(rank) if axis not in last]
    x = ops.transpose(x, [*rest, *last])
    return ops.reshape(x, (*ops.shape(x)[: len(rest)], -1)) if len(last) > 1 else x


def _part_rows(recording: Recording, call: Call, path: str, depth: int) -> Iterator[Row]:
    """The gates of a recurrent layer and the weights of an attention layer."""
    kind = type(call.layer).__name__
    if call.gates is not None:
        cell = call.layer.cell
        activation = recording.activation(cell, "recurrent_activation")
        number = len(catalogue.gates(cell))
        info = LayerInfo(f"{path}/gates", depth, "gates", kind, activation=activation.name, gates=number)
        row = Row(info, ends=activation.ends)
        row.tensors["preactivation"] = measures.thinned(call.gates)
        row.tensors["activation"] = measures.thinned(cell.recurrent_activation(call.gates))
        yield row
    if call.attention is not None:
        info = LayerInfo(f"{path}/attention", depth, "attention", kind, activation="softmax")
        weights = measures.thinned(call.attention)
        yield Row(info, tensors={"activation": weights}, probabilities=measures.thinned_rows(call.attention))


def _weight_rows(
    recording: Recording,
    names: dict[int, str],
    layers: list[Any],
    main: Row | None,
    depth: int,
    shown: set[int],
    used: dict[int, Use],
) -> Iterator[Row]:
    """`main` with the first kernel of `layers`, then a row for each further one."""
    weights = [(owner, w) for owner in layers for w in describe.kernels(owner, used) if id(w) not in shown]
    trainable = [w for owner in layers for w in own_weights(owner) if w.trainable]
    if main is not None:
        info = main.info
        if trainable:
            info = dataclasses.replace(info, reached=any(_reached(recording, w) for w in trainable))
        main.info = info
        main.scales = _scales(recording, layers)
    rest = weights
    if main is not None and weights:
        owner, weight = weights[0]
        main.info = describe.with_weight(main.info, owner, weight)
        _observe_weight(main, recording, owner, weight)
        rest = weights[1:]
    if main is not None:
        yield main
    shown |= {id(w) for _, w in weights}
    taken: set[str] = set()
    for owner, weight in rest:
        prefix = names[id(owner)] if main is None else main.info.path
        path = f"{prefix}/{weight.name.split('/')[-1]}"
        if path in taken:
            path = f"{names[id(owner)]}/{weight.name.split('/')[-1]}"
        taken.add(path)
        activation = recording.activation(owner)
        lookup = describe.looks_up(owner, used, weight)
        info = describe.row(path, depth, owner, activation, role="weight", lookup=lookup)
        row = Row(describe.with_weight(info, owner, weight))
        _observe_weight(row, recording, owner, weight)
        yield row


def _observe_weight(row: Row, recording: Recording, owner: Any, weight: Any) -> None:
    row.owner, row.variable = owner, weight
    fan_in = math.prod(weight.shape) // max(1, describe.units(owner, weight))
    row.tensors["weight"] = as_columns(owner, weight, recording.frame.value(weight))
    row.matrices["weight"] = fan_in
    gradient = recording.gradients.get(id(weight))
    if row.info.trainable:
        row.info = dataclasses.replace(row.info, reached=_reached(recording, weight))
    if gradient is None:
        return
    rows = engine().rows_of(gradient)
    if rows is None:
        row.tensors["gradient"] = as_columns(owner, weight, gradient)
        row.matrices["gradient"] = fan_in
    else:
        # As many rows as were looked up, at the most.
        values, looked_up = rows
        row.tensors["gradient"] = values[:: measures.matrix_stride(looked_up or 1, int(weight.shape[-1]))]


def _scales(recording: Recording, layers: list[Any]) -> dict[str, Any]:
    """Name -> value and gradient, stacked, of each weight of these layers that is neither kernel nor bias."""
    weights = [weight for layer in layers for weight in describe.scales(layer)]
    pairs = [(weight, recording.gradients.get(id(weight))) for weight in weights]
    return {
        weight.name: ops.stack([ops.cast(x, "float32") for x in (recording.frame.value(weight), gradient)])
        for weight, gradient in pairs
        if engine().is_tensor(gradient)
    }


def _reached(recording: Recording, weight: Any) -> bool:
    """Whether a weight has a gradient, or needs none: a copy that no optimizer is given is written by other means."""
    return id(weight) in recording.gradients or (bool(recording.applied) and id(weight) not in recording.applied)


def as_columns(owner: Any, weight: Any, value: Any) -> Any:
    """A kernel as `[fan_in, units]`, with all units and, where it is large, some of the inputs."""
    permutation = describe.columns_last(owner, weight)
    if permutation != tuple(range(len(permutation))):
        value = ops.transpose(value, permutation)
    return measures.thinned_matrix(value, describe.units(owner, weight))


def _data_row(path: str, tensor: Any, depth: int, role: Any, scales: dict[str, Any] | None = None) -> Row:
    kind = keras.backend.standardize_dtype(tensor.dtype)
    info = LayerInfo(path, depth, role, kind=kind, shape=tuple(n or 0 for n in tensor.shape[1:]))
    sample = measures.thinned(tensor, measures.ACTIVATION_SAMPLE_SIZE)
    return Row(info, tensors={"activation": sample}, scales=scales or {})


def _named_tensors(structure: Any, role: str) -> Iterator[tuple[str, Any]]:
    """(row path, tensor) of each numeric leaf of a batch's inputs or targets."""
    leaves = [
        ("/".join(str(key) for key in path), leaf)
        for path, leaf in keras.tree.flatten_with_path(structure)
        if engine().is_tensor(leaf) and keras.backend.standardize_dtype(leaf.dtype) not in ("string", "bool")
    ]
    for name, leaf in leaves:
        yield (f"({role})" if len(leaves) == 1 else f"({role} {name})"), leaf


def tensors_of(rows: list[Row]) -> tuple[list[Any], list[tuple[int, str]]]:
    """The tensors that statistics are taken of, and what each of them is."""
    tensors, parts = [], []
    for i, row in enumerate(rows):
        for prefix, tensor in row.tensors.items():
            tensors.append(tensor)
            parts.append((i, prefix))
        if row.probabilities is not None:
            tensors.append(row.probabilities)
            parts.append((i, "entropy"))
        for name, tensor in row.scales.items():
            tensors.append(tensor)
            parts.append((i, f"scale {name}"))
    return tensors, parts


def statistics_of(row: Row, prefix: str, tensor: Array) -> dict[str, float]:
    """Column -> number, of all that is measured of one tensor of a row."""
    values = {}
    for name, value in measures.measured(prefix, tensor, row.ends or (-math.inf, math.inf)).items():
        if name != "saturated":
            values[f"{prefix}_{name}"] = value
        elif row.ends is not None and row.ends[1] < math.inf:
            values["activation_saturated"] = value
    if prefix in row.matrices:
        values[f"{prefix}_identical"] = measures.identical(tensor, sampled=len(tensor) < row.matrices[prefix])
    return values
