"""The coordinate check: what the outputs of a model's layers do when it gets wider, at the start and after updates.

A layer's output is taken where the layer is called, in a forward pass outside of any training step, and the updates are
those of the model's own `train_on_batch`: so it runs wherever Keras does.
"""

from __future__ import annotations

import contextlib
import math
import os
import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from .layers.inside import layers_below, own_weights, with_layers_below
from .observe.describe import layer_paths
from .observe.engines.randomness import python_states_kept
from .observe.engines.undocumented import names_kept, optimizer_state
from .observe.hooks import replaced
from .progress import bar
from .remedies.width import same_layers
from .report.width import CoordinateCheck, CoordinateRow

_Loops = (keras.layers.RNN, keras.layers.TimeDistributed, keras.layers.Bidirectional)
"""Layers that call others within a loop, and stand for them."""


def coordinate_check(
    build: Callable[[int], Any],
    widths: Sequence[int],
    x: Any,
    y: Any = None,
    *,
    steps: int = 5,
    seeds: int = 3,
    log_dir: str | os.PathLike[str] | None = None,
) -> CoordinateCheck:
    """Says which layers explode, and which stop learning, when a model gets wider.

    Models of all widths are updated on the same batch. For each layer that has weights, with h(0) its output at the
    start and h(t) that after t updates, the check fits

        log rms(h(0)) = a + start * log(width)          log rms(h(t) - h(0)) = b + change * log(width)

    Under muP every `change` is 0: each layer learns as much at any width, and a learning rate that is good at one is
    good at all. Under the usual schemes with Adam it is up to 1 (the layer explodes), with SGD down to -1/2 (it stops
    learning). A `start` below 0 is no fault by itself: the output layer of muP starts with width^(-1/2).

    Args:
        build: Function of a width to a compiled model. It is called `seeds` times for each width, and should draw new
            weights each time.
        widths: At least two.
        x: One batch of inputs.
        y: Its targets, where the model wants some.
        steps: Number of updates.
        seeds: Number of starts of each width. Python's and NumPy's random numbers, from which Keras takes the seeds of
            initializers, are seeded with 0, 1, ... before each, and put back in the end.
        log_dir: A folder for TensorBoard's log: the check for the tab "Init Audit", as text, and as two scalars a
            layer, with the width as the step.

    Returns:
        The check, with `verdict`, `rows`, `text()`, `markdown()`, `html()` and `to_json()`. A model that `build` keeps
        and returns again has its weights, optimizer and metrics as they were.

    Raises:
        ValueError: When the models differ in more than size (the first difference is named), a model is not compiled,
            or there are less than two widths.

    Example:
        >>> def build(width):
        ...     layers = [keras.layers.Dense(width, "relu"), keras.layers.Dense(1)]
        ...     model = keras.Sequential([keras.Input((8,)), *layers])
        ...     model.compile(keras.optimizers.Adam(0.01), "mse")
        ...     return model
        >>> check = coordinate_check(build, (16, 64, 256), np.ones((4, 8)), np.ones((4, 1)), steps=2)
        >>> check.verdict, [row.meaning for row in check.rows]
        ('bad', ['stable', 'explodes with width'])

    Reference:
        Yang et al. 2022, "Tensor Programs V", appendix D.1, https://arxiv.org/abs/2203.03466.
    """
    sizes = sorted({int(width) for width in widths})
    if len(sizes) < 2 or steps < 1 or seeds < 1:
        raise ValueError(
            "`coordinate_check` needs two different widths, one step and one seed at least. "
            f"Received: widths={list(widths)!r}, steps={steps!r}, seeds={seeds!r}."
        )
    inputs = keras.tree.map_structure(ops.convert_to_tensor, x)
    points: dict[str, list[tuple[int, float, float]]] = {}
    first: Any = None
    models = [(width, seed) for width in sizes for seed in range(seeds)]
    with python_states_kept(wind_back=True), bar("Coordinate check: updating models") as progress:
        for done, (width, seed) in enumerate(models):
            progress(done, len(models))
            random.seed(seed)
            np.random.seed(seed)
            with names_kept():
                model = build(width)
            if getattr(model, "optimizer", None) is None:
                raise ValueError(f"`build({width})` must return a compiled model. Received: {model!r}.")
            model(inputs, training=False)  # one that has no Input is built by it
            if first is None:
                first, paths = model, layer_paths(model)
                names = [paths[id(layer)] for layer in _observed(model)]
            same_layers(model, first)
            for name, (start, change) in zip(names, _measured(model, inputs, (x, y), steps), strict=True):
                points.setdefault(name, []).append((width, start, change))
    rows = tuple(_row(name, found) for name, found in points.items())
    check = CoordinateCheck(tuple(sizes), steps, seeds, rows)
    if log_dir is not None:
        from .tensorboard.widths import write

        write(log_dir, check)
    return check


def _row(layer: str, points: list[tuple[int, float, float]]) -> CoordinateRow:
    start, start_error = slope([(width, before) for width, before, _ in points])
    change, change_error = slope([(width, after) for width, _, after in points])
    finite = all(math.isfinite(value) for point in points for value in point)
    return CoordinateRow(layer, start, start_error, change, change_error, finite, tuple(points))


def slope(points: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Least squares of log y on log x: the slope and its standard error; NaN where there are too few points for it.

    Example:
        >>> found, error = slope([(1, 1.0), (2, 2.0), (4, 2.0)])
        >>> round(found, 2), round(error, 2)
        (0.5, 0.29)
    """
    kept = [(math.log(a), math.log(b)) for a, b in points if b > 0.0 and math.isfinite(b)]
    if len({a for a, _ in kept}) < 2:
        return math.nan, math.nan
    across, up = np.array(kept).T
    centred = across - across.mean()
    total = float(centred @ centred)
    found = float(centred @ up) / total
    rest = up - up.mean() - found * centred
    error = math.sqrt(float(rest @ rest) / (len(kept) - 2) / total) if len(kept) > 2 else math.nan
    return found, error


# --- one model


def _measured(model: Any, inputs: Any, batch: tuple[Any, Any], steps: int) -> list[tuple[float, float]]:
    """(rms at the start, rms of the change) of each observed layer."""
    if not model.optimizer.built:
        model.optimizer.build(model.trainable_variables)
    with _state_kept(model):
        before = _outputs(model, inputs)
        for _ in range(steps):
            model.train_on_batch(*batch)
        after = _outputs(model, inputs)
    return [
        (_rms(old), _rms([b - a for a, b in zip(old, new, strict=True)]))
        for old, new in zip(before, after, strict=True)
    ]


def _observed(model: Any) -> list[Any]:
    """The layers whose outputs are taken, in their order: those with weights, where no loop calls them."""
    inner = {
        id(part) for layer in with_layers_below(model) if isinstance(layer, _Loops) for part in layers_below(layer)
    }
    found = {
        id(layer): layer
        for layer in layers_below(model)
        if id(layer) not in inner and (own_weights(layer) or (isinstance(layer, _Loops) and layer.trainable_variables))
    }
    return list(found.values())


def _outputs(model: Any, inputs: Any) -> list[list[Any]]:
    """Of each observed layer, its output at each of its calls in one forward pass."""
    seen: list[list[Any]] = []
    with contextlib.ExitStack() as stack:
        for layer in _observed(model):
            seen.append([])
            stack.enter_context(replaced(layer, "call", _noting(layer.call, seen[-1])))
        model(inputs, training=False)
    return seen


def _noting(call: Callable[..., Any], seen: list[Any]) -> Callable[..., Any]:
    def noted(*args: Any, **kwargs: Any) -> Any:
        output = call(*args, **kwargs)
        value = ops.cast(keras.tree.flatten(output)[0], "float32")
        seen.append(np.asarray(ops.convert_to_numpy(value), np.float64))
        return output

    return noted


def _rms(values: list[Any]) -> float:
    """Over all calls; 0 of a layer that is not called."""
    count = sum(value.size for value in values)
    return math.sqrt(sum(float(np.sum(np.square(value))) for value in values) / count) if count else 0.0


@contextlib.contextmanager
def _state_kept(model: Any) -> Iterator[None]:
    """Puts back the values of the model's weights, optimizer and metrics."""
    held = [*model.variables, *optimizer_state(model.optimizer)]
    values = [np.array(ops.convert_to_numpy(variable)) for variable in held]
    try:
        yield
    finally:
        for variable, value in zip(held, values, strict=True):
            variable.assign(value)
        model.reset_metrics()
