"""What stands where in a model: names, kernels, fans, neighbours.

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

from ..layers import catalogue, table
from ..layers.inside import held_layers, own_weights, with_layers_below
from ..records import LayerInfo, to_jsonable
from ..theory import gains

_NOT_KERNELS = frozenset({"bias", "beta", "gamma", "alpha", "scale"})
"""Weights that are not kernels, whatever their rank: attention and GRU biases have rank 2, PReLU slopes any."""


def layer_paths(model: Any) -> dict[int, str]:
    """Id of every layer below `model`, and of the model -> its path, the names joined by `/`; unique and readable.

    The model's own name is left out, except for the model itself. A layer that stands in several places has its first.
    """
    paths: dict[int, str] = {id(model): model.name}
    taken: set[str] = set()

    def walk(layer: Any, prefix: str) -> None:
        for inner in held_layers(layer):
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
        for inner in held_layers(layer):
            walk(inner, owner)

    walk(model, model)
    return owned


def kernels(layer: Any, used: Mapping[int, str] | None = None) -> list[Any]:
    """The layer's own weights that mix inputs into outputs, tables included: of rank 2 or more, not a bias or a scale.

    Of the classes of Keras it is known which these are. Any other weight is none where it is only added to the data or
    put beside it, as `used` tells (id of the weight -> its use); where it tells nothing, as of an eager model, the name
    decides.
    """
    known = {id(variable) for variable in catalogue.known_kernels(layer)}
    return [
        variable
        for variable in own_weights(layer)
        if len(variable.shape) >= 2
        and (id(variable) in known or (_may_be_kernel(variable) and (used or {}).get(id(variable)) != "other"))
    ]


def undecided(layer: Any) -> list[Any]:
    """The layer's own weights of which its class does not say whether they are kernels."""
    known = {id(variable) for variable in catalogue.known_kernels(layer)}
    return [v for v in own_weights(layer) if len(v.shape) >= 2 and id(v) not in known and _may_be_kernel(v)]


def _may_be_kernel(variable: Any) -> bool:
    return variable.name.split("/")[-1] not in _NOT_KERNELS


def looks_up(layer: Any, used: Mapping[int, str], weight: Any = None) -> bool:
    """Whether the layer takes in the numbers of the rows of a table; of one weight, whether it is such a table."""
    weights = own_weights(layer) if weight is None else [weight]
    return table.facts(layer).lookup or any(used.get(id(w)) == "table" for w in weights)


def scales(layer: Any) -> list[Any]:
    """The layer's own trainable weights that are neither kernels nor biases: they multiply what passes through it."""
    rest = [v for v in own_weights(layer) if v.trainable and not any(v is kernel for kernel in kernels(layer))]
    return [v for v in rest if not v.name.split("/")[-1].endswith(("bias", "beta"))]


def columns_last(layer: Any, weight: Any) -> tuple[int, ...]:
    """The permutation that brings the axes that index output units to the end of a kernel."""
    last = catalogue.unit_axes(layer, weight)
    return (*(axis for axis in range(len(weight.shape)) if axis not in last), *last)


def units(layer: Any, weight: Any) -> int:
    """The number of output units of a kernel."""
    return math.prod(int(weight.shape[axis]) for axis in catalogue.unit_axes(layer, weight))


def activations(model: Any) -> dict[tuple[int, str], gains.ActivationFacts]:
    """(id of a layer, `activation` or `recurrent_activation`) -> what is known of that activation, of all in a model.

    A layer that is an activation itself has that as its `activation`. Functions of the person's own are evaluated for
    it: not within a trace.
    """
    found = {}
    for layer in with_layers_below(model):
        found[id(layer), "activation"] = gains.facts(activation_of(layer))
        gates = getattr(layer, "recurrent_activation", None)
        if gates is not None:
            found[id(layer), "recurrent_activation"] = gains.facts(gates)
    return found


def activation_of(layer: Any) -> Any:
    """The activation that the layer applies; the layer itself where it is one of Keras's; None where there is none.

    A layer of the person's own that stands by itself may be anything, and is not called to find out.
    """
    activation = getattr(layer, "activation", None)
    is_one = table.facts(layer).activation and not own_weights(layer)
    return layer if activation is None and is_one else activation


def softmax_axes(layer: Any) -> tuple[int, ...]:
    """The axes over which a layer's softmax makes probabilities: of a `Softmax`, or of a partial function, its own."""
    activation = getattr(layer, "activation", None)
    holder = activation if isinstance(activation, keras.layers.Layer) else layer
    axis = getattr(activation, "keywords", {}).get("axis", -1)
    if isinstance(holder, keras.layers.Softmax):
        axis = holder.axis
    return tuple(axis) if isinstance(axis, list | tuple) else (int(axis),)


def row(path: str, depth: int, layer: Any, activation: gains.ActivationFacts, **known: Any) -> LayerInfo:
    """The row of one observed layer, as far as the layer alone tells."""
    return LayerInfo(
        path=path,
        depth=depth,
        kind=type(layer).__name__,
        activation=activation.name,
        gain=activation.gain,
        has_bias=hasattr(layer, "bias_initializer") and any("bias" in v.name for v in own_weights(layer)),
        gates=len(catalogue.gates(layer)),
        normalises=catalogue.normalises(layer),
        concatenates=table.facts(layer).concatenates,
        makes_outputs=catalogue.makes_outputs(layer),
        **known,
    )


def with_weight(info: LayerInfo, owner: Any, weight: Any) -> LayerInfo:
    """`info` with all that is known of the kernel that its weight columns describe."""
    fan_in, fan_out = or_none(lambda: catalogue.fans(owner, weight)) or (None, None)
    input_axes, output_axes = catalogue.kernel_axes(owner, weight)
    kernel = catalogue.kernel_of(owner, weight)
    initializer = _initializer(owner, weight)
    config = or_none(lambda: json.loads(json.dumps(to_jsonable(initializer.get_config())))) if initializer else None
    return dataclasses.replace(
        info,
        weight=weight.name,
        weight_shape=tuple(int(n) for n in weight.shape),
        weight_dtype=keras.backend.standardize_dtype(weight.dtype),
        fan_in=None if fan_in is None else float(fan_in),
        fan_out=None if fan_out is None else float(fan_out),
        input_axes=tuple(input_axes or ()),
        output_axes=tuple(output_axes or ()),
        channelwise=kernel is not None and kernel.channelwise,
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
    """The attribute that holds the initializer of this weight: by the table, or by the names that Keras gives them."""
    kernel = catalogue.kernel_of(layer, weight)
    if kernel is not None and getattr(layer, kernel.initializer, None) is not None:
        return kernel.initializer
    stem = weight.name.split("/")[-1].removesuffix("_kernel").removesuffix("kernel")
    names = (
        f"{stem}_initializer",
        f"{stem}_kernel_initializer",
        "kernel_initializer",
        "embeddings_initializer",
        "initializer",
    )
    return next((name for name in names if getattr(layer, name, None) is not None), None)


def or_none(compute: Any) -> Any:
    """What `compute` returns; None where the layer is of a kind for which the quantity is not defined."""
    try:
        return compute()
    except (ValueError, TypeError, AttributeError, NotImplementedError):
        return None
