"""Where a loss begins and ends: at the best answer that is the same for every sample, and at the targets.

Both are values of the model's own compiled loss, its weights, masks, smoothing and reduction included: an answer is put
in the place of the model's outputs. Which constant answer is the best is found beforehand from each loss and its
targets. A loss that is not known, or not computed in the way of Keras, has no ends.
"""

from __future__ import annotations

import contextlib
import inspect
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
import numpy.typing as npt

from ..observe.batch import batch_size, unpack
from ..observe.engines import NoTrialError
from ..observe.engines.undocumented import (
    compiled_with,
    losses_of,
    mask_of,
    outputs_known,
    regularizes_activity,
    with_mask,
)

Numbers = npt.NDArray[np.floating[Any]]

_SAMPLES_LEAST = 8
"""Samples that a batch must have: fewer are learnt by heart by anything."""
_WAY_LEAST = 0.05
"""Share of the loss of an uninformed answer that must lie between the ends: one class alone is nothing to learn."""
_EPSILON = 1e-7
"""What Keras's cross-entropies keep probabilities away from 0 and 1 by."""
_SEARCHED = 2**16
"""Targets of one output on which the best answer is looked for: it has converged long before."""
_SEARCHES = 28
"""Steps of the golden section: they narrow the range to 1e-6 of it."""
_GOLDEN = (math.sqrt(5.0) - 1.0) / 2.0

_CLASSES = frozenset(
    {
        "categorical_crossentropy",
        "categorical_focal_crossentropy",
        "categorical_hinge",
        "kl_divergence",
        "sparse_categorical_crossentropy",
    }
)
"""Losses of vectors that are distributions over classes."""
_YES_NO = frozenset({"binary_crossentropy", "binary_focal_crossentropy"})
_SIGNS = frozenset({"hinge", "squared_hinge"})
_OF_MEANS = frozenset({"binary_crossentropy", "mean_squared_error", "poisson", "squared_hinge"})
"""Losses that are least at the mean of the targets; where the others are is searched for."""
_DISTANCES = frozenset(
    {
        "huber",
        "log_cosh",
        "mean_absolute_error",
        "mean_absolute_percentage_error",
        "mean_squared_error",
        "mean_squared_logarithmic_error",
        "poisson",
    }
)
"""Losses of each number by itself, smallest where it is the target."""


class Ends(NamedTuple):
    """Two losses of a model on one batch."""

    constant: float
    at_targets: float


class _Answers(NamedTuple):
    """What could stand in the place of one output."""

    constant: Numbers
    at_targets: Numbers
    uninformed: Numbers


def ends(
    model: Any, batch: Any, kept: Callable[[], contextlib.AbstractContextManager[Any]] = contextlib.nullcontext
) -> Ends:
    """The loss of the best constant answer, and that at the targets, of a model's compiled loss on a batch.

    Args:
        model: Compiled and built; its step was run or traced before.
        batch: What `train_step` takes, on one replica.
        kept: Where the model must be run for the shapes and masks of its outputs, that is done in such a block.

    Raises:
        NoTrialError: Where there are no such ends, or nothing between them.
    """
    x, y, sample_weight = unpack(batch)
    compiled = compiled_with(model)[1]
    _check(model, compiled, batch)
    outputs = outputs_known(model, batch_size(batch))
    if outputs is None:
        with kept():
            outputs = model(x, training=True) if _takes_training(model) else model(x)
    if len(model.losses) > sum(variable.regularizer is not None for variable in model.trainable_weights):
        raise NoTrialError("the model adds losses of its own to the compiled one")
    try:
        answers = _answers(compiled, outputs, y, sample_weight)
        values = [float(compiled(y, answer, sample_weight)) for answer in answers]
    except NoTrialError:
        raise
    except Exception as error:  # targets of a kind that no array holds, or that do not fit the outputs
        raise NoTrialError(f"the loss at its targets cannot be computed ({type(error).__name__}: {error})") from error
    constant, at_targets, uninformed = values
    if not all(map(math.isfinite, values)):
        raise NoTrialError(f"the loss is {at_targets} at the targets and {constant} at the best constant answer")
    if not constant - at_targets > _WAY_LEAST * abs(uninformed - min(at_targets, 0.0)):
        raise NoTrialError(
            f"a constant answer costs {constant:.3g} on this batch, and the targets themselves {at_targets:.3g}"
        )
    return Ends(constant, at_targets)


def _check(model: Any, compiled: Any, batch: Any) -> None:
    for name in ("train_step", "compute_loss", "make_train_function"):
        if name in vars(model) or getattr(type(model), name) is not getattr(keras.Model, name):
            raise NoTrialError(f"the model has a {name} of its own")
    if compiled is None or not compiled.built:
        raise NoTrialError("the model was compiled without a loss" if compiled is None else "the loss is not built")
    if regularizes_activity(model):
        raise NoTrialError("a layer has an activity regularizer")
    if batch_size(batch) < _SAMPLES_LEAST:
        raise NoTrialError(f"the batch has {batch_size(batch)} samples, and {_SAMPLES_LEAST} are needed")


def _takes_training(model: Any) -> bool:
    return "training" in inspect.signature(model.call).parameters


# The answers


def _answers(compiled: Any, outputs: Any, y: Any, sample_weight: Any) -> list[Any]:
    """Outputs of the model's structure: the best constant ones, the targets, and uninformed ones."""
    leaves = keras.tree.flatten_with_path(outputs)
    places = {path: number for number, (path, _) in enumerate(leaves)}
    names = list(compiled.output_names or ())
    found: dict[int, _Answers] = {}
    for path, loss in losses_of(compiled):
        number = places[path] if path in places else names.index(path[0])
        if number in found:
            raise NoTrialError("an output has two losses")
        output = leaves[number][1]
        weights = sample_weight if not keras.tree.is_nested(sample_weight) else _at(sample_weight, path, names)
        found[number] = _of_output(loss, output, _at(y, path, names), [weights, mask_of(output)])
    filled = []
    for kind in ("constant", "at_targets", "uninformed"):
        tensors = []
        for number, (_, output) in enumerate(leaves):
            answer = getattr(found[number], kind) if number in found else np.zeros(output.shape)
            tensor = keras.ops.convert_to_tensor(np.reshape(answer, output.shape).astype("float32"))
            tensors.append(with_mask(tensor, mask_of(output)))
        filled.append(keras.tree.pack_sequence_as(outputs, tensors))
    return filled


def _at(structure: Any, path: Sequence[Any], names: Sequence[str]) -> Any:
    """What stands at the place of an output, in lists or dicts of its number or name."""
    for step in path:
        if isinstance(structure, dict) and isinstance(step, int):
            step = names[step]
        elif isinstance(structure, list | tuple) and isinstance(step, str):
            step = names.index(step)
        structure = structure[step]
    return structure[0] if isinstance(structure, list | tuple) and len(structure) == 1 else structure


def _of_output(loss: Any, output: Any, y: Any, weighted_by: Sequence[Any]) -> _Answers:
    name = getattr(getattr(loss, "fn", None), "__name__", "")
    foreign = type(loss).__module__.partition(".")[0] != "keras" or getattr(keras.losses, name, None) is not loss.fn
    if foreign or getattr(loss, "axis", -1) not in (-1, len(output.shape) - 1):
        raise NoTrialError(f"nothing is known of the loss {getattr(loss, 'name', loss)!r}")
    targets = np.asarray(keras.ops.convert_to_numpy(y))
    shape = tuple(output.shape)
    if name == "sparse_categorical_crossentropy":
        labels = targets.reshape(shape[:-1]).astype(np.int64)
        return _of_classes(loss, *_one_hot(labels, shape[-1], getattr(loss, "ignore_class", None)), weighted_by)
    if name in _CLASSES:
        return _of_classes(loss, _shaped(targets, shape), np.ones(shape[:-1]), weighted_by)
    columns = shape if len(shape) > 1 else (*shape, 1)
    if name in _YES_NO | _SIGNS | _DISTANCES:
        return _of_numbers(loss, name, _shaped(targets, shape).reshape(columns), weighted_by)
    raise NoTrialError(f"nothing is known of the loss {loss.name!r}")


def _shaped(targets: Numbers, shape: tuple[int, ...]) -> Numbers:
    """Targets of the shape of the output, from which an axis of length 1 may be missing, or which may lack one."""
    if tuple(size for size in targets.shape if size != 1) != tuple(size for size in shape if size != 1):
        raise NoTrialError(f"the targets are of the shape {targets.shape}, and the outputs of {shape}")
    return targets.reshape(shape).astype(np.float64)


def _one_hot(labels: npt.NDArray[np.int64], classes: int, ignored: int | None) -> tuple[Numbers, Numbers]:
    counted = np.ones(labels.shape) if ignored is None else (labels != ignored).astype(np.float64)
    made = np.zeros((*labels.shape, classes), np.float32)
    np.put_along_axis(made, np.where(counted > 0.0, labels, 0)[..., None], 1.0, -1)
    return made, counted


def _of_classes(loss: Any, targets: Numbers, counted: Numbers, weighted_by: Sequence[Any]) -> _Answers:
    classes = targets.shape[-1]
    smoothing = float(getattr(loss, "label_smoothing", 0.0))
    smooth = targets * (1.0 - smoothing) + smoothing / classes
    weights = counted * _row_weights(weighted_by, counted.shape)
    shares = np.tensordot(weights, smooth, weights.ndim)
    shares = shares / max(float(shares.sum()), 1e-30)
    uniform = np.full(classes, 1.0 / classes)
    tried = [shares]
    if loss.fn is keras.losses.categorical_hinge:
        tried = [np.zeros(classes), np.eye(classes)[int(np.argmax(shares))]]
    elif loss.fn is keras.losses.categorical_focal_crossentropy:
        powers = [np.maximum(shares, _EPSILON) ** power for power in np.linspace(0.0, 1.0, 41)]
        tried = [power / power.sum() for power in powers]
    form = _logits if getattr(loss, "from_logits", False) else _unchanged

    def cost(answer: Numbers) -> float:
        losses = loss.call(_tensor(targets), _tensor(np.broadcast_to(form(answer), targets.shape)))
        return float(np.sum(keras.ops.convert_to_numpy(losses) * weights))

    best = min(tried, key=cost) if len(tried) > 1 else tried[0]
    full = (np.broadcast_to(form(answer), targets.shape) for answer in (best, smooth, uniform))
    return _Answers(*full)


def _of_numbers(loss: Any, name: str, targets: Numbers, weighted_by: Sequence[Any]) -> _Answers:
    """Of losses of each number by itself: the best constant of each unit, between bounds that surely hold it."""
    units = targets.shape[-1]
    rows = targets.reshape(-1, units)
    weights = np.broadcast_to(_row_weights(weighted_by, targets.shape[:-1]).reshape(-1, 1), rows.shape)
    counted = rows[weights[:, 0] > 0.0]
    low, high, uninformed, answers, form = counted.min(0), counted.max(0), None, targets, _unchanged
    if name in _YES_NO:
        smoothing = float(getattr(loss, "label_smoothing", 0.0))
        form = _log_odds if getattr(loss, "from_logits", False) else _unchanged
        answers = targets * (1.0 - smoothing) + smoothing / 2.0
        low, high, uninformed = (np.full(units, form(np.asarray(p))) for p in (0.0, 1.0, 0.5))
    elif name in _SIGNS:
        answers = 2.0 * targets - 1.0 if np.isin(targets, (0.0, 1.0)).all() else targets
        low, high, uninformed = (np.full(units, p) for p in (-1.0, 1.0, 0.0))
        rows = answers.reshape(-1, units)
    stride = max(1, rows.size // _SEARCHED)
    seen, seen_weights = _tensor(rows[::stride, :, None]), weights[::stride]

    def cost(answer: Numbers) -> Numbers:
        losses = loss.call(seen, _tensor(np.broadcast_to(answer[None, :, None], seen.shape)))
        return np.asarray(np.sum(keras.ops.convert_to_numpy(losses).astype(np.float64) * seen_weights, 0))

    mean = form(np.average(answers.reshape(-1, units), 0, weights))
    best = mean if name in _OF_MEANS else _least(cost, low, high)
    uninformed = best if uninformed is None else uninformed
    full = (np.broadcast_to(answer, targets.shape) for answer in (best, form(answers), uninformed))
    return _Answers(*full)


def _least(cost: Callable[[Numbers], Numbers], low: Numbers, high: Numbers) -> Numbers:
    """Where a cost that falls and then rises is least between two bounds, of each of several: golden section."""
    left, right = high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)
    at_left, at_right = cost(left), cost(right)
    for _ in range(_SEARCHES):
        lower = at_left <= at_right
        low, high = np.where(lower, low, left), np.where(lower, right, high)
        new = np.where(lower, high - _GOLDEN * (high - low), low + _GOLDEN * (high - low))
        at_new = cost(new)
        left, right = np.where(lower, new, right), np.where(lower, left, new)
        at_left, at_right = np.where(lower, at_new, at_right), np.where(lower, at_left, at_new)
    return (low + high) / 2.0


def _row_weights(weighted_by: Sequence[Any], shape: tuple[int, ...]) -> Numbers:
    """The weights of the losses of a shape: of samples, and masks; one that does not fit counts as 1.

    They decide which constant answer is the best alone; what it costs, the compiled loss says.
    """
    weights = np.ones(shape)
    for given in weighted_by:
        if given is None:
            continue
        factor = np.asarray(keras.ops.convert_to_numpy(given), np.float64)
        while factor.ndim > len(shape) and factor.shape[-1] == 1:
            factor = factor[..., 0]
        factor = factor.reshape(factor.shape + (1,) * (len(shape) - factor.ndim))
        if _reaches(factor.shape, shape):
            weights = weights * factor
    return weights


def _reaches(shape: tuple[int, ...], whole: tuple[int, ...]) -> bool:
    return all(a in (1, b) for a, b in zip(shape, whole, strict=True))


def _tensor(numbers: Numbers) -> Any:
    return keras.ops.convert_to_tensor(np.asarray(numbers, np.float32))


def _unchanged(shares: Numbers) -> Numbers:
    return shares


def _logits(shares: Numbers) -> Numbers:
    return np.log(np.clip(shares, _EPSILON, 1.0))


def _log_odds(shares: Numbers) -> Numbers:
    inside = np.clip(shares, _EPSILON, 1.0 - _EPSILON)
    return np.log(inside / (1.0 - inside))
