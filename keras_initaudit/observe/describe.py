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

from ..layers import catalogue, table
from ..layers.inside import held_layers, output_maker, own_weights, with_layers_below
from ..records import NAN, LayerInfo, LossKind, OutputsMean, to_jsonable
from ..theory import gains
from .engines.undocumented import keras_made

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
    fan_in, fan_out = _or_none(lambda: catalogue.fans(owner, weight)) or (None, None)
    input_axes, output_axes = catalogue.kernel_axes(owner, weight)
    kernel = catalogue.kernel_of(owner, weight)
    initializer = _initializer(owner, weight)
    config = _or_none(lambda: json.loads(json.dumps(to_jsonable(initializer.get_config())))) if initializer else None
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


_LOSSES: dict[LossKind, tuple[str, ...]] = {
    "classes": ("categorical_crossentropy", "sparse_categorical_crossentropy", "categorical_focal_crossentropy"),
    "yes-no": ("binary_crossentropy", "binary_focal_crossentropy"),
    "squares": ("mean_squared_error",),
    "distances": ("mean_absolute_error", "huber", "log_cosh"),
}
"""What a loss takes the targets for -> functions of `keras.losses`. A loss that is not here has targets of any kind."""


def loss_kind(model: Any) -> LossKind:
    """What the model's loss takes the targets for; empty where that is not known, or where there are several losses."""
    function = _loss_function(_only(getattr(model, "loss", None)))
    for kind, names in _LOSSES.items():
        if any(function is getattr(keras.losses, name) for name in names):
            return kind
    return ""


def outputs_mean(model: Any) -> OutputsMean:
    """What the model's loss takes the outputs for; empty where it is not known, or where no layer of Keras makes them.

    A function of the model's own behind the last layer may make probabilities of anything.
    """
    kind, outputs = loss_kind(model), getattr(model, "outputs", None)
    maker = output_maker(outputs[0]) if outputs and len(outputs) == 1 else None
    by_layer = isinstance(maker, keras.layers.Layer) and not isinstance(maker, keras.layers.Lambda)
    if not kind or not by_layer or not keras_made(maker):
        return ""
    if kind in ("squares", "distances"):
        return "numbers"
    return "logits" if getattr(_only(model.loss), "from_logits", False) else "probabilities"


def least_target(y: Any) -> float:
    """The smallest of all targets; NaN where there are none, or where they are no arrays of numbers."""
    leaves = [leaf for leaf in keras.tree.flatten(y) if leaf is not None]
    arrays = [_or_none(lambda leaf=leaf: np.asarray(keras.ops.convert_to_numpy(leaf), np.float64)) for leaf in leaves]
    return min((float(a.min()) if a is not None and a.size else NAN for a in arrays), default=NAN)


def baseline_loss(model: Any, y: Any, sample_weight: Any = None) -> float | None:
    """The loss of a model that gives every input the same uninformed answer; None where the loss is not a known one.

    Categories: log C for C of them. Yes or no: log 2. Numbers: what the mean of the batch's targets gives, or their
    median. Samples count by their weights, those that follow from the weights of classes included.
    """
    loss, kind = _only(getattr(model, "loss", None)), loss_kind(model)
    name = getattr(_loss_function(loss), "__name__", "")
    targets = [leaf for leaf in keras.tree.flatten(y) if leaf is not None]
    if not kind or len(targets) != 1 or "focal" in name or name in ("huber", "log_cosh"):
        return None
    numbers = _or_none(lambda: np.asarray(keras.ops.convert_to_numpy(targets[0]), np.float64))
    if numbers is None:  # ragged
        return None
    # One loss for each vector of targets; class numbers need no axis of their own, and may have one.
    vectors = numbers.ndim > 1 and (name != "sparse_categorical_crossentropy" or numbers.shape[-1] == 1)
    shape = numbers.shape[:-1] if vectors else numbers.shape
    weights = _weights(sample_weight, shape)
    if weights is None:
        return None
    if kind == "yes-no":
        losses = np.full(shape, math.log(2))
    elif kind == "classes":
        outputs = getattr(model, "outputs", None)
        classes = outputs[0].shape[-1] if outputs else None
        if not classes or classes < 2:
            return None
        losses = np.full(shape, math.log(classes))
    else:
        of_units = np.broadcast_to(weights[..., None] if vectors else weights, numbers.shape)
        distance = numbers - _center(numbers, of_units, median=kind == "distances")
        losses = np.square(distance) if kind == "squares" else np.abs(distance)
        losses = losses.mean(-1) if vectors else losses
    total = float(np.sum(losses * weights))
    reduction = getattr(loss, "reduction", None)
    if reduction == "sum":
        return total
    return total / max(float(weights.sum()) if reduction == "mean_with_sample_weight" else weights.size, 1e-30)


def _only(structure: Any) -> Any:
    """The one loss of a list or dict of losses; None where there are several."""
    leaves = keras.tree.flatten(structure)
    return leaves[0] if len(leaves) == 1 else None


def _loss_function(loss: Any) -> Any:
    """The function behind a loss: a name, a function, or an object of Keras, which holds its function as `fn`."""
    loss = _or_none(lambda: keras.losses.get(loss)) if isinstance(loss, str) else loss
    return getattr(loss, "fn", loss)


def _weights(sample_weight: Any, shape: tuple[int, ...]) -> Any:
    """The weight of each of the losses; None where the weights are several, or of another shape."""
    given = [leaf for leaf in keras.tree.flatten(sample_weight) if leaf is not None]
    if not given:
        return np.ones(shape)
    weights = np.asarray(keras.ops.convert_to_numpy(given[0]), np.float64)
    if weights.ndim == len(shape) + 1 and weights.shape[-1] == 1:
        weights = weights[..., 0]
    weights = weights.reshape(weights.shape + (1,) * (len(shape) - weights.ndim))
    return _or_none(lambda: np.broadcast_to(weights, shape)) if len(given) == 1 else None


def _center(numbers: Any, weights: Any, *, median: bool) -> Any:
    """The weighted mean or median over the samples, the answer with the smallest square or distance."""
    total = np.maximum(weights.sum(0), 1e-30)
    if not median:
        return (numbers * weights).sum(0) / total
    order = np.argsort(numbers, axis=0)
    below = np.cumsum(np.take_along_axis(weights, order, 0), axis=0) / total
    return np.take_along_axis(np.take_along_axis(numbers, order, 0), (below < 0.5).sum(0)[None], 0)[0]


def _or_none(compute: Any) -> Any:
    """What `compute` returns; None where the layer is of a kind for which the quantity is not defined."""
    try:
        return compute()
    except (ValueError, TypeError, AttributeError, NotImplementedError):
        return None
