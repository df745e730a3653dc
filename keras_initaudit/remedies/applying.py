"""`apply`: does to a model or its data what a remedy says.

A remedy is data (`records.remedies`). Its code is for people: nothing here runs or reads it, and the test of each
remedy shows that both do the same.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import keras
import numpy as np
from keras import ops

from .. import initializers
from ..initializers.base import mix
from ..layers import catalogue
from ..layers.inside import with_layers_below
from ..observe import describe
from ..observe.hooks import replace
from ..records.remedies import (
    Activate,
    CleanData,
    LearningRate,
    PlainNormalization,
    Policy,
    Preprocess,
    Reinitialize,
    Remedy,
    ScaleTargets,
    Scheme,
    SetBias,
    Together,
    WholeModel,
    Widen,
)
from .initialization import initialize


def apply(remedy: Remedy, model: Any, batch: Any = ()) -> Any:
    """Changes a model in place, or data, as a remedy says.

    Args:
        remedy: As `Finding.action` holds it.
        model: The model that it was made for. Weights that it draws again have a seed that follows from their path, so
            that the same call gives the same weights; `WholeModel` draws a new seed.
        batch: The data: `(x,)`, `(x, y)` or `(x, y, sample_weight)`; figures of the data are taken from it.

    Returns:
        The batch: the same object where the remedy leaves the data alone, else a new one.

    Raises:
        ValueError: The remedy names a layer or an initializer that there is not, or cannot be applied to this model or
            these data.
        TypeError: `remedy` is no remedy.

    Example:
        >>> from keras_initaudit.records.remedies import Reinitialize, Scheme
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2, kernel_initializer="zeros", name="d")])
        >>> remedy = Reinitialize({"kernel_initializer": Scheme("HeNormal")}, layers=("d",))
        >>> apply(remedy, model)
        ()
        >>> bool(ops.any(model.get_layer("d").kernel == 0.0))
        False
    """
    change = _CHANGES.get(type(remedy))
    if change is None:
        raise TypeError(f"remedy must be one of keras_initaudit.records.remedies, got {type(remedy).__name__}")
    return change(remedy, model, batch)


def made(scheme: Scheme) -> Any:
    """The initializer that a scheme names.

    Raises:
        ValueError: This package has none of that name: a log may come from elsewhere.
    """
    if scheme.initializer not in initializers.__all__:
        raise ValueError(f"there is no initializer {scheme.initializer!r} in keras_initaudit")
    return getattr(initializers, scheme.initializer)(**scheme.arguments)


def draw(owner: Any, variable: Any, initializer: Any, path: str, seed: int = 0) -> None:
    """Starts one weight by an initializer as its layer would have: EinsumDense says its axes; the seed is the path's.

    Args:
        owner: The layer that owns the weight.
        variable: The weight.
        initializer: Any Keras initializer, or a name.
        path: What the seed follows from; an initializer with a seed of its own keeps it.
        seed: Mixed into the seed.
    """
    scheme = keras.initializers.get(initializer)
    config = scheme.get_config() if isinstance(scheme, keras.initializers.Initializer) else {}
    given: dict[str, Any] = {}
    if "seed" in config and config["seed"] is None:
        given["seed"] = mix(seed, path)
    if "input_axes" in config and config["input_axes"] is None and isinstance(owner, keras.layers.EinsumDense):
        given |= dict(zip(("input_axes", "output_axes"), catalogue.kernel_axes(owner), strict=True))
    if given:
        scheme = type(scheme).from_config({**config, **given})
    variable.assign(scheme(variable.shape, dtype=variable.dtype))


# --- one function a remedy


def _reinitialize(remedy: Reinitialize, model: Any, batch: Any) -> Any:
    started = {argument: made(scheme) for argument, scheme in remedy.schemes.items()}
    for path, layer, part in _targets(remedy.layers, model):
        _start_again(path, layer, part, started)
    return batch


def _plain_normalization(remedy: PlainNormalization, model: Any, batch: Any) -> Any:
    for _, layer, _ in _targets(remedy.layers, model):
        for name, value in (("gamma", 1.0), ("beta", 0.0)):
            variable = getattr(layer, name, None)
            if isinstance(variable, keras.Variable):
                variable.assign(ops.full(variable.shape, value, variable.dtype))
    return batch


def _activate(remedy: Activate, model: Any, batch: Any) -> Any:
    function = keras.activations.get(remedy.activation)
    owners = [getattr(layer, "cell", layer) for _, layer, _ in _targets(remedy.layers, model)]
    for owner in owners:
        if not callable(vars(owner).get("activation")):
            raise ValueError(f"the layer {owner.name!r} has no activation that could be another one")
    for owner in owners:
        replace(owner, activation=function)
    return batch if remedy.start is None else _reinitialize(remedy.start, model, batch)


def _widen(remedy: Widen, model: Any, batch: Any) -> Any:
    del batch
    raise ValueError(
        f"the model {model.name!r} is built, and its layers keep their width; "
        f"give {', '.join(remedy.layers)} {remedy.argument}={remedy.units} and build it again"
    )


def _whole_model(remedy: WholeModel, model: Any, batch: Any) -> Any:
    del remedy
    initialize(model)
    return batch


def _set_bias(remedy: SetBias, model: Any, batch: Any) -> Any:
    start = {"bias_initializer": keras.initializers.Constant(float(np.mean(_array(batch, 1))))}
    for path, layer, part in _targets(remedy.layers, model):
        _start_again(path, layer, part, start)
    return batch


def _learning_rate(remedy: LearningRate, model: Any, batch: Any) -> Any:
    model.optimizer.learning_rate = remedy.value
    return batch


def _policy(remedy: Policy, model: Any, batch: Any) -> Any:
    del batch
    raise ValueError(
        f"the model {model.name!r} is built, and keeps its dtypes; "
        f"call keras.config.set_dtype_policy({remedy.name!r}) and build it again"
    )


def _together(remedy: Together, model: Any, batch: Any) -> Any:
    for each in remedy.remedies:
        batch = apply(each, model, batch)
    return batch


def _preprocess(remedy: Preprocess, model: Any, batch: Any) -> Any:
    del model
    if not batch:
        return batch
    leaves = keras.tree.flatten_with_path(batch[0])
    wanted = "/".join(map(str, remedy.keys))
    chosen = [i for i, (path, _) in enumerate(leaves) if len(leaves) == 1 or "/".join(map(str, path)) == wanted]
    if not chosen:
        raise ValueError(f"x has no input at {remedy.keys}; it has {[path for path, _ in leaves]}")
    flat = [leaf for _, leaf in leaves]
    flat[chosen[0]] = _in_front(remedy, np.asarray(flat[chosen[0]]))(flat[chosen[0]])
    return (keras.tree.pack_sequence_as(batch[0], flat), *batch[1:])


def _in_front(remedy: Preprocess, data: Any) -> Any:
    if remedy.how == "bytes":
        return keras.layers.Rescaling(1.0 / 255)
    if remedy.how == "tiny":
        return keras.layers.Rescaling(float(1 / data.std()), offset=float(-data.mean() / data.std()))
    layer = keras.layers.Normalization(axis=-1 if remedy.how == "columns" else None)
    layer.adapt(data)
    return layer


def _scale_targets(remedy: ScaleTargets, model: Any, batch: Any) -> Any:
    del remedy, model
    y = _array(batch, 1)
    return (batch[0], _like(batch[1], (y - y.mean()) / y.std()), *batch[2:])


def _clean_data(remedy: CleanData, model: Any, batch: Any) -> Any:
    del model
    x = _array(batch, 0)
    if remedy.part == "inputs":
        return (_like(batch[0], np.nan_to_num(x, posinf=0.0, neginf=0.0)), *batch[1:])
    y = _array(batch, 1)
    keep = np.isfinite(y).reshape(len(y), -1).all(axis=1)
    return tuple(part if part is None else _like(part, np.asarray(part)[keep]) for part in batch)


_CHANGES: Mapping[type[Remedy], Callable[[Any, Any, Any], Any]] = {
    Reinitialize: _reinitialize,
    PlainNormalization: _plain_normalization,
    Activate: _activate,
    Widen: _widen,
    WholeModel: _whole_model,
    Preprocess: _preprocess,
    ScaleTargets: _scale_targets,
    CleanData: _clean_data,
    SetBias: _set_bias,
    LearningRate: _learning_rate,
    Policy: _policy,
    Together: _together,
}


# --- what they share


def _array(batch: Any, index: int) -> Any:
    """The inputs (0) or the targets (1) as one numpy array."""
    part = batch[index] if len(batch) > index else None
    if part is None or isinstance(part, dict | list | tuple):
        raise ValueError(f"the remedy needs {'xy'[index]} as one array, got {type(part).__name__}")
    return np.asarray(part)


def _like(before: Any, array: Any) -> Any:
    """An array as a tensor: of the type that was there, unless whole numbers have become fractions."""
    whole = not np.issubdtype(np.asarray(before).dtype, np.floating) and np.issubdtype(array.dtype, np.floating)
    return ops.convert_to_tensor(array, dtype=keras.config.floatx() if whole else before.dtype)


def _targets(paths: tuple[str, ...], model: Any) -> Iterator[tuple[str, Any, str | None]]:
    """(path, layer, name of one weight or None for all of them) of rows of a snapshot."""
    names = describe.layer_paths(model)
    layers = {names[id(layer)]: layer for layer in with_layers_below(model) if id(layer) in names}
    for row in paths:
        path = re.sub(r"#\d+", "", row)
        owner, _, part = path.rpartition("/")
        if path in layers:
            yield path, layers[path], None
        elif owner in layers:
            yield path, layers[owner], part
        else:
            raise ValueError(f"the remedy is for {row!r}, which is no layer of {model.name!r}")


def _start_again(path: str, layer: Any, part: str | None, started: dict[str, Any]) -> None:
    for inner in with_layers_below(layer):
        for name, owner, attribute in catalogue.own_kernels(inner):
            if part is not None and name != part:
                continue
            variable = getattr(owner, attribute)
            argument = describe.initializer_argument(owner, variable)
            if argument in started:
                draw(owner, variable, started[argument], f"{path}/{name}")
        bias = getattr(inner, "bias", None)
        if "bias_initializer" in started and part is None and isinstance(bias, keras.Variable):
            draw(inner, bias, started["bias_initializer"], f"{path}/bias")
            _open_forget_gate(inner, bias)


def _open_forget_gate(cell: Any, bias: Any) -> None:
    if getattr(cell, "unit_forget_bias", False):  # as Keras adds to whatever bias initializer an LSTM is given
        value = np.array(ops.convert_to_numpy(ops.copy(bias)))
        value[cell.units : 2 * cell.units] = 1.0
        bias.assign(value)
