"""What stands where in a model: names, kernels, fans, neighbours, and the loss of a model that knows nothing.

All of it is read once, when the first snapshot is taken, and never changes afterwards. Nothing here runs the model.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
import math
from collections.abc import Iterable, Mapping
from typing import Any

import keras
import numpy as np

from . import gains
from .connections import fans
from .records import LayerInfo, to_jsonable

_NOT_KERNELS = frozenset({"bias", "beta", "gamma", "alpha", "scale"})
"""Weights that are not kernels, whatever their rank: attention and GRU biases have rank 2, PReLU slopes any."""

_PREFIX = 64
"""Leading numbers of a kernel by which two kernels are recognized as drawn from one seed."""


def layer_paths(model: Any) -> dict[int, str]:
    """Id of every layer below `model`, and of the model -> its path, the names joined by `/`; unique and readable.

    The model's own name is left out, except for the model itself. A layer that stands in several places has its first.
    """
    paths: dict[int, str] = {id(model): model.name}
    taken: set[str] = set()

    def walk(layer: Any, prefix: str) -> None:
        for inner in layer._layers:
            if id(inner) in paths:
                continue
            path = prefix + inner.name
            repeats = 2
            while path in taken:
                path = f"{prefix}{inner.name}~{repeats}"
                repeats += 1
            taken.add(path)
            paths[id(inner)] = path
            walk(inner, path + "/")

    walk(model, "")
    return paths


def owners(model: Any, observed: Iterable[Any]) -> dict[int, list[Any]]:
    """Id of each observed layer -> itself and the layers below it that are not observed themselves.

    A weight of a layer that leaves no output of its own (the cell of an LSTM, the layer within `TimeDistributed`) is
    shown with the layer that does.
    """
    seen = {id(layer) for layer in observed}
    owned: dict[int, list[Any]] = {}
    visited: set[int] = set()

    def walk(layer: Any, owner: Any) -> None:
        if id(layer) in visited:
            return
        visited.add(id(layer))
        owner = layer if id(layer) in seen else owner
        owned.setdefault(id(owner), []).append(layer)
        for inner in layer._layers:
            walk(inner, owner)

    walk(model, model)
    return owned


def kernels(layer: Any) -> list[Any]:
    """The layer's own weights that mix inputs into outputs: of rank 2 or more, not a bias or a scale."""
    return [v for v in layer._trainable_variables if len(v.shape) >= 2 and v.name.split("/")[-1] not in _NOT_KERNELS]


def columns_last(layer: Any, weight: Any) -> tuple[int, ...]:
    """The permutation that brings the axes that index output units to the end of a kernel."""
    rank = len(weight.shape)
    if "Transpose" in type(layer).__name__ and "Conv" in type(layer).__name__:
        return (*range(rank - 2), rank - 1, rank - 2)
    return tuple(range(rank))


def output_axes(layer: Any, weight: Any) -> int:
    """How many of the last axes, after `columns_last`, index output units."""
    if "depthwise" in weight.name or type(layer).__name__.startswith("DepthwiseConv"):
        return 2
    if isinstance(layer, keras.layers.EinsumDense):
        kernel, output = layer.equation.split("->")[0].split(",")[1], layer.equation.split("->")[1]
        trailing = 0
        for letter in reversed(kernel):
            if letter not in output:
                break
            trailing += 1
        return max(1, trailing)
    return 1


def activation_of(layer: Any) -> Any:
    """The activation that the layer applies; the layer itself where it is one; None where there is none."""
    activation = getattr(layer, "activation", None)
    if activation is None and not layer._trainable_variables and gains.activation_name(layer) is not None:
        return layer
    return activation


def row(path: str, depth: int, layer: Any, **known: Any) -> LayerInfo:
    """The row of one observed layer, as far as the layer alone tells."""
    activation = activation_of(layer)
    name = gain = None
    if activation is not None:
        name = gains.activation_name(activation)
        gain = _or_none(lambda: float(gains.gain(activation)))
    return LayerInfo(
        path=path,
        depth=depth,
        kind=type(layer).__name__,
        activation=name,
        gain=gain,
        has_bias=hasattr(layer, "bias_initializer") and any("bias" in v.name for v in layer._trainable_variables),
        **known,
    )


def with_weight(info: LayerInfo, owner: Any, weight: Any) -> LayerInfo:
    """`info` with all that is known of the kernel that its weight columns describe."""
    fan_in, fan_out = _or_none(lambda: fans(owner, weight)) or (None, None)
    initializer = _initializer(owner, weight)
    config = _or_none(lambda: json.loads(json.dumps(to_jsonable(initializer.get_config())))) if initializer else None
    return dataclasses.replace(
        info,
        weight=weight.name,
        weight_shape=tuple(int(n) for n in weight.shape),
        fan_in=None if fan_in is None else float(fan_in),
        fan_out=None if fan_out is None else float(fan_out),
        initializer=type(initializer).__name__ if initializer is not None else None,
        initializer_config=config or {},
        initializer_argument=initializer_argument(owner, weight),
        trainable=bool(weight.trainable),
    )


def initializer_argument(layer: Any, weight: Any) -> str | None:
    """The argument by which the layer is given an initializer for this weight; None where its constructor has none."""
    name = _initializer_name(layer, weight)
    for kind in type(layer).__mro__ if name is not None else ():
        if "__init__" in vars(kind):
            parameters = inspect.signature(vars(kind)["__init__"]).parameters
            if name in parameters:
                return name
            if all(parameter.kind is not parameter.VAR_KEYWORD for parameter in parameters.values()):
                return None  # nothing is handed on to the classes above
    return None


def _initializer(layer: Any, weight: Any) -> Any:
    """The initializer that the layer was given for this weight."""
    name = _initializer_name(layer, weight)
    return None if name is None else getattr(layer, name)


def _initializer_name(layer: Any, weight: Any) -> str | None:
    """The attribute that holds the initializer of this weight, by the naming that all of Keras's layers follow."""
    stem = weight.name.split("/")[-1].removesuffix("_kernel").removesuffix("kernel")
    names = (
        f"{stem}_initializer",
        f"{stem}_kernel_initializer",
        "kernel_initializer",
        "embeddings_initializer",
        "depthwise_initializer",  # of DepthwiseConv2D, which calls its weight `kernel`
        "initializer",
    )
    return next((name for name in names if getattr(layer, name, None) is not None), None)


def duplicates(weights: Mapping[str, Any]) -> dict[str, str]:
    """Row path -> path of an earlier row whose kernel starts with the same numbers, up to a factor.

    Kernels are compared by their first `_PREFIX` numbers, scaled to unit length: for two independent draws to agree to
    1e-6 in 64 dimensions is out of the question. A constant kernel is nobody's duplicate.
    """
    prefixes, paths = [], []
    for path, weight in weights.items():
        flat = np.ravel(keras.ops.convert_to_numpy(keras.ops.reshape(weight.value, [-1])[:_PREFIX])).astype(np.float64)
        norm = np.linalg.norm(flat)
        if len(flat) == _PREFIX and np.isfinite(norm) and norm > 0 and len(np.unique(flat)) > _PREFIX // 2:
            prefixes.append(flat / norm)
            paths.append(path)
    if not prefixes:
        return {}
    stacked = np.stack(prefixes)
    alike = np.abs(stacked @ stacked.T) > 1 - 1e-6
    first = alike.argmax(axis=1)
    return {paths[i]: paths[j] for i, j in enumerate(first) if j < i}


def sources(calls: list[Any], inputs: list[tuple[str, Any]], paths: list[str]) -> list[tuple[str, ...]]:
    """For each observed call, the rows whose output flows into it without passing another observed call.

    In a graph it follows the operations backwards, so that an addition written in a model's own `call` is seen. Eager
    tensors have no past: there it takes the arguments that the layer was called with, and the inputs of their shape for
    one that it cannot know, because the layer has cast its data first.
    """
    known = {id(tensor): path for path, tensor in inputs} | {
        id(call.output): path for call, path in zip(calls, paths, strict=True) if call.output is not None
    }
    found = []
    for call in calls:
        if hasattr(call.source, "graph"):
            starts, names, visited = [call.source], [], set()
            while starts:
                tensor = starts.pop()
                if id(tensor) in known:
                    names.append(known[id(tensor)])
                elif id(tensor.op) not in visited:
                    visited.add(id(tensor.op))
                    # Not along a mask, which the signal does not flow through.
                    starts.extend(x for x in tensor.op.inputs if x.dtype.name != "bool")
        else:
            names = [known[id(x)] for x in call.arguments if id(x) in known]
            shapes = [x.shape for x in call.arguments]
            names = names or [path for path, tensor in inputs if tensor.shape in shapes]
        found.append(tuple(dict.fromkeys(reversed(names))))
    return found


def baseline_loss(model: Any, y: Any) -> float | None:
    """The loss of a model that gives every input the same uninformed answer; None where the loss is not a known one.

    Categories: log C for C of them. Yes or no: log 2. Numbers: what the mean of the batch's targets gives.
    """
    loss = getattr(model, "loss", None)
    name = loss if isinstance(loss, str) else getattr(loss, "name", None) or getattr(loss, "__name__", None)
    if not isinstance(name, str) or y is None or isinstance(y, dict | list | tuple):
        return None
    name = "".join("_" + c.lower() if c.isupper() else c for c in name).lstrip("_")
    outputs = getattr(model, "outputs", None)
    classes = outputs[0].shape[-1] if outputs else None
    if "binary" in name:
        return math.log(2)
    if "categorical_crossentropy" in name:
        return math.log(classes) if classes and classes > 1 else None
    targets = np.asarray(keras.ops.convert_to_numpy(y), np.float64)
    if name in ("mse", "mean_squared_error", "m_s_e"):
        return float(np.mean((targets - targets.mean(0)) ** 2))
    if name in ("mae", "mean_absolute_error", "m_a_e"):
        return float(np.mean(np.abs(targets - np.median(targets, 0))))
    return None


def _or_none(compute: Any) -> Any:
    """What `compute` returns; None where the layer is of a kind for which the quantity is not defined."""
    try:
        return compute()
    except (ValueError, TypeError, AttributeError, NotImplementedError):
        return None
