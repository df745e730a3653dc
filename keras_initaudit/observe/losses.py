"""What a model's loss takes its targets and outputs for, and what answers cost that know nothing of the inputs.

Read once, from the compiled loss and the targets of the batch, when the first snapshot is taken. Nothing here runs the
model.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import keras
import numpy as np

from ..layers.inside import output_maker
from ..records import LossKind, OutputsMean
from .describe import or_none
from .engines.undocumented import keras_made

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


def least_target(y: Any) -> float | None:
    """The smallest of all targets; None where there are none, or where they are no arrays of numbers."""
    leaves = [leaf for leaf in keras.tree.flatten(y) if leaf is not None]
    arrays = [or_none(lambda leaf=leaf: np.asarray(keras.ops.convert_to_numpy(leaf), np.float64)) for leaf in leaves]
    return (
        min((float(a.min()) for a in arrays), default=None) if all(a is not None and a.size for a in arrays) else None
    )


class _Targets(NamedTuple):
    """The targets of a model with one known loss, and the weight of each of the losses."""

    loss: Any
    kind: LossKind
    numbers: Any
    weights: Any
    vectors: bool
    """Whether the last axis holds what one loss is computed of."""
    sparse: bool
    """Whether they are numbers of classes."""

    def reduced(self, losses: Any) -> float:
        """What the loss makes of its values."""
        total = float(np.sum(losses * self.weights))
        reduction = getattr(self.loss, "reduction", None)
        if reduction == "sum":
            return total
        weights = self.weights
        return total / max(float(weights.sum()) if reduction == "mean_with_sample_weight" else weights.size, 1e-30)


def _targets(model: Any, y: Any, sample_weight: Any) -> _Targets | None:
    loss, kind = _only(getattr(model, "loss", None)), loss_kind(model)
    name = getattr(_loss_function(loss), "__name__", "")
    targets = [leaf for leaf in keras.tree.flatten(y) if leaf is not None]
    if not kind or len(targets) != 1 or "focal" in name or name in ("huber", "log_cosh"):
        return None
    numbers = or_none(lambda: np.asarray(keras.ops.convert_to_numpy(targets[0]), np.float64))
    if numbers is None:  # ragged
        return None
    # One loss for each vector of targets; class numbers need no axis of their own, and may have one.
    sparse = name == "sparse_categorical_crossentropy"
    vectors = numbers.ndim > 1 and (not sparse or numbers.shape[-1] == 1)
    weights = _weights(sample_weight, numbers.shape[:-1] if vectors else numbers.shape)
    return None if weights is None else _Targets(loss, kind, numbers, weights, vectors, sparse)


def baseline_loss(model: Any, y: Any, sample_weight: Any = None) -> float | None:
    """The loss of a model that gives every input the same uninformed answer; None where the loss is not a known one.

    Categories: log C for C of them. Yes or no: log 2. Numbers: what the mean of the batch's targets gives, or their
    median. Samples count by their weights, those that follow from the weights of classes included.
    """
    known = _targets(model, y, sample_weight)
    if known is None:
        return None
    numbers, weights = known.numbers, known.weights
    if known.kind == "yes-no":
        losses = np.full(weights.shape, math.log(2))
    elif known.kind == "classes":
        outputs = getattr(model, "outputs", None)
        classes = outputs[0].shape[-1] if outputs else None
        if not classes or classes < 2:
            return None
        losses = np.full(weights.shape, math.log(classes))
    else:
        of_units = np.broadcast_to(weights[..., None] if known.vectors else weights, numbers.shape)
        distance = numbers - _center(numbers, of_units, median=known.kind == "distances")
        losses = np.square(distance) if known.kind == "squares" else np.abs(distance)
        losses = losses.mean(-1) if known.vectors else losses
    return known.reduced(losses)


_LEAST_SHARE = 1e-7
"""What Keras's cross-entropies keep a probability above."""


def constant_loss(model: Any, y: Any, sample_weight: Any = None) -> float | None:
    """The least loss of an answer that is the same for every sample and position; None where the loss is not known.

    Categories and yes or no: their shares in the batch. Numbers: their mean, or their median.
    """
    known = _targets(model, y, sample_weight)
    own = getattr(type(model), "compute_loss", None) is not keras.Model.compute_loss
    if known is None or own or not known.weights.any():
        return None
    columns = known.numbers if known.vectors else known.numbers[..., None]
    if known.sparse:
        labels = columns[..., 0].astype(np.int64)
        if (labels < 0).any():  # a class that the loss ignores
            return None
        shares = np.bincount(labels.ravel(), known.weights.ravel()) / known.weights.sum()
        return known.reduced(-np.log(np.maximum(shares[labels], _LEAST_SHARE)))
    smoothing = float(getattr(known.loss, "label_smoothing", 0.0) or 0.0)
    if known.kind in ("classes", "yes-no"):
        columns = columns * (1.0 - smoothing) + smoothing / (2.0 if known.kind == "yes-no" else columns.shape[-1])
    rows = columns.reshape(-1, columns.shape[-1])
    of_units = np.broadcast_to(known.weights.reshape(-1, 1), rows.shape)
    answer = _center(rows, of_units, median=known.kind == "distances")
    if known.kind == "classes":
        losses = -(columns * np.log(np.maximum(answer, _LEAST_SHARE))).sum(-1)
    elif known.kind == "yes-no":
        yes = np.clip(answer, _LEAST_SHARE, 1.0 - _LEAST_SHARE)
        losses = -(columns * np.log(yes) + (1.0 - columns) * np.log(1.0 - yes)).mean(-1)
    else:
        distance = columns - answer
        losses = (np.square(distance) if known.kind == "squares" else np.abs(distance)).mean(-1)
    value = known.reduced(losses)
    return value if math.isfinite(value) else None


def _only(structure: Any) -> Any:
    """The one loss of a list or dict of losses; None where there are several."""
    leaves = keras.tree.flatten(structure)
    return leaves[0] if len(leaves) == 1 else None


def _loss_function(loss: Any) -> Any:
    """The function behind a loss: a name, a function, or an object of Keras, which holds its function as `fn`."""
    loss = or_none(lambda: keras.losses.get(loss)) if isinstance(loss, str) else loss
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
    return or_none(lambda: np.broadcast_to(weights, shape)) if len(given) == 1 else None


def _center(numbers: Any, weights: Any, *, median: bool) -> Any:
    """The weighted mean or median over the samples, the answer with the smallest square or distance."""
    total = np.maximum(weights.sum(0), 1e-30)
    if not median:
        return (numbers * weights).sum(0) / total
    order = np.argsort(numbers, axis=0)
    below = np.cumsum(np.take_along_axis(weights, order, 0), axis=0) / total
    return np.take_along_axis(np.take_along_axis(numbers, order, 0), (below < 0.5).sum(0)[None], 0)[0]
