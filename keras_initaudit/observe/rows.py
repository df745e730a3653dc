"""From a recording to the rows of a snapshot: the tensors of each row within the trace, its facts outside of it.

`samples_of` runs while the shadow step is traced, so that the tensors are symbols of its graph (or eager, where the
model is); no number is known yet, and nothing is evaluated. `rows_of` runs when the step is over: it touches no tensor.
Whether a weight is a kernel may be known by then alone, so that a few samples are taken that no row needs.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import keras
from keras import ops

from ..layers import catalogue
from ..layers.inside import own_weights
from ..records import LayerInfo
from . import describe, measures, recurrence
from .batch import unpack
from .engines import Array, Facts, Use, engine
from .taps import Call, Recording

Key = tuple[str, int, str]
"""Names a sample: `leaf`, `call`, `gates` or `attention` with the number of the leaf or call, or `weight` with the id
of the variable; then the prefix of its statistics (`activation`, `backward`, ...), or what else it is for."""


@dataclasses.dataclass(eq=False)
class Samples:
    """The tensors of one run that statistics are taken of, thinned."""

    tensors: dict[Key, Any] = dataclasses.field(default_factory=dict)
    """Of a kernel and its gradient `[fan_in, units]`, of probabilities and their logits `[rows, choices]`, of a weight
    that multiplies (a gate, a scale) its value and gradient, stacked, of the gradient through time its sizes and
    which of them are real, `[2, samples, steps]`; of all else `[samples, positions, units]`."""
    matrices: dict[Key, int] = dataclasses.field(default_factory=dict)
    """Of the kernels and gradients whose identical columns are to be counted, the number of rows before thinning."""


@dataclasses.dataclass(eq=False)
class Row:
    """A row of the snapshot that is to come."""

    info: LayerInfo
    samples: dict[str, Key] = dataclasses.field(default_factory=dict)
    """Prefix of the statistics, `entropy`, `logits`, `time`, or `scale ` and the name of a weight -> its sample."""
    matrices: dict[str, int] = dataclasses.field(default_factory=dict)
    """`weight` or `gradient`, where identical columns are to be counted -> number of rows before thinning."""
    owner: Any = None
    variable: Any = None
    """The weight of the weight columns, and the layer that holds it."""
    ends: tuple[float, float] | None = None
    """Where the activation is flat: the pre-activations outside are saturated."""


class _Leaf(NamedTuple):
    """A numeric leaf of the batch."""

    path: str
    number: int
    """Its place in the flat batch."""
    tensor: Any


# Within the trace


def samples_of(recording: Recording, batch: Any) -> Samples:
    """The samples of all that a row may be needed of: data, calls, and every weight that may be a kernel or scale."""
    found = Samples()
    inputs, targets = _leaves(batch)
    for leaf in (*inputs, *targets):
        found.tensors["leaf", leaf.number, "activation"] = measures.thinned(
            leaf.tensor, measures.ACTIVATION_SAMPLE_SIZE
        )
    owned = _owned(recording)
    known = {id(leaf.tensor) for leaf in inputs} | {id(call.output) for call in recording.calls}
    for i, call in enumerate(recording.calls):
        if call.output is not None:
            _sample_call(found.tensors, i, call, recording)
            entering = call.argument is not None and id(call.arguments[0]) not in known and call.number == 1
            if entering and any(describe.kernels(owner) for owner in owned[id(call.layer)]):
                sample = measures.thinned(call.argument, measures.ACTIVATION_SAMPLE_SIZE)
                found.tensors["call", i, "entering"] = sample
        _sample_parts(found.tensors, i, call)
    for layers in owned.values():
        for owner in layers:
            for weight in describe.kernels(owner):
                _sample_weight(found, recording, owner, weight)
        for weight in _scales(layers):
            gradient = recording.gradients.get(id(weight))
            if engine().is_tensor(gradient):
                pair = [ops.cast(x, "float32") for x in (recording.frame.value(weight), gradient)]
                found.tensors["weight", id(weight), "scale"] = ops.stack(pair)
    return found


def _sample_call(tensors: dict[Key, Any], i: int, call: Call, recording: Recording) -> None:
    layer = call.layer

    def units_last(x: Any) -> Any:
        rank = len(x.shape)
        return ops.transpose(x, [0, *range(2, rank), 1]) if rank > 2 and catalogue.channels_first(layer) else x

    output = units_last(call.value)
    tensors["call", i, "activation"] = measures.thinned(output, measures.ACTIVATION_SAMPLE_SIZE)
    if call.preactivation is not None:
        tensors["call", i, "preactivation"] = measures.thinned(units_last(call.preactivation))
    if call.backward is not None:
        tensors["call", i, "backward"] = measures.thinned(units_last(engine().dense(call.backward)))
        if call.passed and call.preactivation is not None:
            tensors["call", i, "passed"] = measures.thinned(units_last(engine().dense(call.passed[0])))
    if call.through_time and (call.mask is None or len(call.mask.shape) == 2):
        gradient = engine().dense(call.through_time[0])
        sizes = recurrence.gradient_sizes(gradient, call.mask, backwards=bool(layer.go_backwards))
        tensors["call", i, "time"] = sizes
    if recording.activation(layer).name == "softmax":
        probabilities = _choices_last(output, describe.softmax_axes(layer))
        tensors["call", i, "entropy"] = measures.thinned_rows(probabilities)


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


def _sample_parts(tensors: dict[Key, Any], i: int, call: Call) -> None:
    """The gates of a recurrent layer and the weights of an attention layer."""
    if call.gates is not None:
        tensors["gates", i, "preactivation"] = measures.thinned(call.gates)
        tensors["gates", i, "activation"] = measures.thinned(call.layer.cell.recurrent_activation(call.gates))
    if call.attention is not None:
        tensors["attention", i, "activation"] = measures.thinned(call.attention)
        tensors["attention", i, "entropy"] = measures.thinned_rows(call.attention)
    if call.logits is not None:
        tensors["attention", i, "logits"] = measures.thinned_rows(call.logits)


def _sample_weight(found: Samples, recording: Recording, owner: Any, weight: Any) -> None:
    fan_in = math.prod(weight.shape) // max(1, describe.units(owner, weight))
    key: Key = ("weight", id(weight), "weight")
    if key in found.tensors:
        return
    found.tensors[key] = as_columns(owner, weight, recording.frame.value(weight))
    found.matrices[key] = fan_in
    gradient = recording.gradients.get(id(weight))
    if gradient is None:
        return
    key = ("weight", id(weight), "gradient")
    rows = engine().rows_of(gradient)
    if rows is None:
        found.tensors[key] = as_columns(owner, weight, gradient)
        found.matrices[key] = fan_in
    else:
        # As many rows as were looked up, at the most.
        values, looked_up = rows
        found.tensors[key] = values[:: measures.matrix_stride(looked_up or 1, int(weight.shape[-1]))]


def as_columns(owner: Any, weight: Any, value: Any) -> Any:
    """A kernel as `[fan_in, units]`, with all units and, where it is large, some of the inputs."""
    permutation = describe.columns_last(owner, weight)
    if permutation != tuple(range(len(permutation))):
        value = ops.transpose(value, permutation)
    return measures.thinned_matrix(value, describe.units(owner, weight))


def _owned(recording: Recording) -> dict[int, list[Any]]:
    return describe.owners(recording.model, [call.layer for call in recording.calls if call.output is not None])


def _scales(layers: Sequence[Any]) -> list[Any]:
    """The weights of these layers that are neither kernels nor biases."""
    return [weight for layer in layers for weight in describe.scales(layer)]


def _leaves(batch: Any) -> tuple[list[_Leaf], list[_Leaf]]:
    """The inputs and the targets that are numbers."""
    x, y, _ = unpack(batch)
    return list(_named_leaves(x, "input", 0)), list(_named_leaves(y, "target", len(keras.tree.flatten(x))))


def _named_leaves(structure: Any, role: str, first: int) -> Iterator[_Leaf]:
    leaves = [
        ("/".join(str(key) for key in path), number, leaf)
        for number, (path, leaf) in enumerate(keras.tree.flatten_with_path(structure), first)
        if engine().is_tensor(leaf) and keras.backend.standardize_dtype(leaf.dtype) not in ("string", "bool")
    ]
    for name, number, leaf in leaves:
        yield _Leaf(f"({role})" if len(leaves) == 1 else f"({role} {name})", number, leaf)


# Outside of it


def rows_of(recording: Recording, samples: Samples, batch: Any, facts: Facts) -> Iterator[Row]:
    """Inputs, then a row for each call with the parts of its layer behind it, then targets."""
    return _Rows(recording, samples, facts).of(batch)


class _Rows:
    """What all rows of one run are made of."""

    def __init__(self, recording: Recording, samples: Samples, facts: Facts) -> None:
        self.recording, self.samples, self.facts = recording, samples, facts
        self.names = describe.layer_paths(recording.model)
        self.reached = recording.gradients.keys() - facts.unreached()
        self.shown: set[int] = set()
        self.used: dict[int, Use] = {}

    def of(self, batch: Any) -> Iterator[Row]:
        model, calls = self.recording.model, self.recording.calls
        paths = [self.names[id(call.layer)] + ("" if call.number == 1 else f"#{call.number}") for call in calls]
        inputs, targets = _leaves(batch)
        tapped = [path for call, path in zip(calls, paths, strict=True) if call.output is not None]
        labels = {-1 - leaf.number: leaf.path for leaf in inputs} | dict(enumerate(tapped))
        above = self.facts.flows([leaf.number for leaf in inputs])
        flows = {path: tuple(labels[label] for label in above[i]) for i, path in enumerate(tapped)}
        owned = _owned(self.recording)
        undecided = [weight for layers in owned.values() for layer in layers for weight in describe.undecided(layer)]
        self.used = self.facts.uses(undecided) if undecided else {}
        calls_of = {id(call.layer): call.number for call in calls if call.output is not None}

        unshown = [] if id(model) in calls_of else owned.get(id(model), [])
        scales = self._scales(unshown)  # of the model itself, which has no row: they go with the first
        for leaf in inputs:
            row, scales = _data_row(leaf, -1, "input", scales), {}
            row.info = dataclasses.replace(row.info, lookup=self.facts.looked_up(leaf.number))
            yield row
        if id(model) not in calls_of:
            yield from self._weights(unshown, None, 0)
        data = {leaf.path for leaf in inputs}  # and the rows that prepare it, with no kernel
        depth = -1
        for i, (call, path) in enumerate(zip(calls, paths, strict=True)):
            if call.output is None:
                yield from self._parts(i, path, depth)
                continue
            depth += 1
            main = self._call(i, path, depth, flows[path], shared=calls_of[id(call.layer)] > 1)
            layers = owned[id(call.layer)] if call.number == 1 else []
            meets_data = not data.isdisjoint(flows[path])
            if not meets_data:
                main.samples.pop("entering", None)
            rows = list(self._weights(layers, main, depth))
            if rows[0].info.weight is None:
                rows[0].samples.pop("entering", None)
                if meets_data and data.issuperset(flows[path]) and not main.info.shared:
                    data.add(path)
            yield from rows
            yield from self._parts(i, path, depth)
        for leaf in targets:
            yield _data_row(leaf, depth + 1, "target")

    def _call(self, i: int, path: str, depth: int, flows_from: tuple[str, ...], *, shared: bool) -> Row:
        call = self.recording.calls[i]
        layer, activation = call.layer, self.recording.activation(call.layer)
        shape = tuple(n or 0 for n in call.value.shape[1:])
        lookup = describe.looks_up(layer, self.used)
        known = {"shape": shape, "shared": shared, "inputs": flows_from, "lookup": lookup}
        row = Row(describe.row(path, depth, layer, activation, **known), self._samples("call", i))
        row.ends = activation.ends if "preactivation" in row.samples else None
        return row

    def _parts(self, i: int, path: str, depth: int) -> Iterator[Row]:
        """The gates of a recurrent layer and the weights of an attention layer."""
        call = self.recording.calls[i]
        kind = type(call.layer).__name__
        gates, attention = self._samples("gates", i), self._samples("attention", i)
        if gates:
            activation = self.recording.activation(call.layer.cell, "recurrent_activation")
            number = len(catalogue.gates(call.layer.cell))
            info = LayerInfo(f"{path}/gates", depth, "gates", kind, activation=activation.name, gates=number)
            yield Row(info, gates, ends=activation.ends)
        if attention:
            yield Row(LayerInfo(f"{path}/attention", depth, "attention", kind, activation="softmax"), attention)

    def _samples(self, what: str, number: int) -> dict[str, Key]:
        keys = [(what, number, prefix) for prefix in _PREFIXES]
        return {key[2]: key for key in keys if key in self.samples.tensors}

    def _weights(self, layers: list[Any], main: Row | None, depth: int) -> Iterator[Row]:
        """`main` with the first kernel of `layers`, then a row for each further one."""
        kernels = ((owner, w) for owner in layers for w in describe.kernels(owner, self.used))
        weights = [(owner, w) for owner, w in kernels if id(w) not in self.shown]
        self.shown |= {id(w) for _, w in weights}
        if main is not None:
            trainable = [w for owner in layers for w in own_weights(owner) if w.trainable]
            if trainable:
                main.info = dataclasses.replace(main.info, reached=any(map(self._reached, trainable)))
            main.samples |= self._scales(layers)
            if weights:
                owner, weight = weights.pop(0)
                main.info = describe.with_weight(main.info, owner, weight)
                self._show(main, owner, weight)
            yield main
        taken: set[str] = set()
        for owner, weight in weights:
            prefix = self.names[id(owner)] if main is None else main.info.path
            path = f"{prefix}/{weight.name.split('/')[-1]}"
            if path in taken:
                path = f"{self.names[id(owner)]}/{weight.name.split('/')[-1]}"
            taken.add(path)
            activation = self.recording.activation(owner)
            lookup = describe.looks_up(owner, self.used, weight)
            info = describe.row(path, depth, owner, activation, role="weight", lookup=lookup)
            row = Row(describe.with_weight(info, owner, weight))
            self._show(row, owner, weight)
            yield row

    def _show(self, row: Row, owner: Any, weight: Any) -> None:
        """Gives a row the columns of a kernel."""
        row.owner, row.variable = owner, weight
        if row.info.trainable:
            row.info = dataclasses.replace(row.info, reached=self._reached(weight))
        for prefix in ("weight", "gradient") if id(weight) in self.reached else ("weight",):
            key = ("weight", id(weight), prefix)
            row.samples[prefix] = key
            if key in self.samples.matrices:
                row.matrices[prefix] = self.samples.matrices[key]

    def _scales(self, layers: list[Any]) -> dict[str, Key]:
        pairs = [(weight.name, ("weight", id(weight), "scale")) for weight in _scales(layers)]
        return {f"scale {name}": key for name, key in pairs if key in self.samples.tensors}

    def _reached(self, weight: Any) -> bool:
        """Whether a weight has a gradient, or needs none: one that no optimizer is given is written by other means."""
        applied = self.recording.applied
        return id(weight) in self.reached or (bool(applied) and id(weight) not in applied)


_PREFIXES = ("activation", "preactivation", "backward", "passed", "entropy", "logits", "time", "entering")


def _data_row(leaf: _Leaf, depth: int, role: Any, scales: Mapping[str, Key] | None = None) -> Row:
    kind = keras.backend.standardize_dtype(leaf.tensor.dtype)
    info = LayerInfo(leaf.path, depth, role, kind=kind, shape=tuple(n or 0 for n in leaf.tensor.shape[1:]))
    return Row(info, {"activation": ("leaf", leaf.number, "activation"), **(scales or {})})


# On the host


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
