"""Optimizers under muP: one rate for each class of weights, with what Keras has for several optimizers of one model.

The rates are derived in `width`. Besides the rate, each class has its own

    weight decay    lambda / factor     Keras takes lr * lambda * W off a weight; the product keeps its size
    epsilon         epsilon * gradient  it stands beside the size of the gradient, which falls with the width

as in Dey et al. 2025, table 1.
"""

from __future__ import annotations

import re
from typing import Any

import keras

from ..optimizers import ClippedMultiOptimizer, ScaledSchedule
from .width import growths, smaller_model

NORMALISED: dict[str, int] = {"Adam": 1, "AdamW": 1, "Adamax": 1, "Nadam": 1, "RMSprop": 2, "Lion": 0}
"""The optimizers of Keras whose update does not change with the scale of an entry's gradient -> the power of the
gradient that their epsilon is added to; 0 without an epsilon."""
PROPORTIONAL = ("SGD",)
"""Those whose update is proportional to the gradient."""


def mup_optimizer(optimizer: Any, model: Any, base: Any) -> Any:
    """The same optimizer for a larger model: what is a good learning rate for `base` is one for `model`.

    Where one output of a weight sums m_in times as many inputs as in the base, and there are m_out times as many
    outputs, its rate is lr / m_in for Adam, AdamW, Adamax, Nadam, RMSprop and Lion, and lr m_out / m_in for SGD: under
    Adam, hidden and output kernels have lr / m, all others lr. The model is to be started by
    `initialize(model, "mup", base=base)`. Schedules are scaled as a whole; weight decay and epsilon follow the classes,
    and clipping is what it was. Callbacks that set learning rates see each of `optimizer.optimizers`; say to each of
    them, too, what `exclude_from_weight_decay` is to leave out.

    Args:
        optimizer: A Keras optimizer, or its name: one that would train the base. It is not changed.
        model: The built model that is to be trained.
        base: The smaller model, or a function that returns it. Its sizes count, not its weights.

    Returns:
        A `keras.optimizers.MultiOptimizer`, which is saved and loaded with the model.

    Raises:
        ImportError: Where Keras has no `MultiOptimizer`: before 3.15.
        ValueError: When the kind of optimizer has no rule here, or the two models differ in more than size.

    Example:
        >>> def build(width):
        ...     return keras.Sequential([keras.Input((8,)), keras.layers.Dense(width), keras.layers.Dense(1)])
        >>> optimizer = mup_optimizer(keras.optimizers.Adam(0.01), build(64), base=build(16))
        >>> rates = [float(keras.ops.convert_to_numpy(part.learning_rate)) for part in optimizer.optimizers]
        >>> sorted({round(rate, 4) for rate in rates})
        [0.0025, 0.01]

    Reference:
        Yang et al. 2022, https://arxiv.org/abs/2203.03466, tables 3 and 8, appendix B; Dey et al. 2025,
        https://arxiv.org/abs/2505.01618, table 1 (weight decay, epsilon); Everett et al. 2024,
        https://arxiv.org/abs/2407.05872 (epsilon).
    """
    if not hasattr(keras.optimizers, "MultiOptimizer"):
        raise ImportError(
            "`mup_optimizer` needs keras.optimizers.MultiOptimizer, which came with Keras 3.15. This is Keras "
            f"{keras.__version__}: pip install 'keras>=3.15'."
        )
    optimizer = keras.optimizers.get(optimizer)
    power = _power(optimizer)
    if optimizer.global_clipnorm and optimizer.gradient_accumulation_steps:
        raise ValueError(
            "`global_clipnorm` would clip each part of an accumulated gradient, and not its sum, when the weights have "
            "several optimizers. Give `clipnorm`, or no `gradient_accumulation_steps`."
        )
    classes: dict[tuple[float, float], list[str]] = {}
    for growth in growths(model, smaller_model(base)):
        key = (growth.rate(normalised=power is not None), growth.gradient ** (power or 0))
        classes.setdefault(key, []).append(growth.path)
    _refuse_shared_paths(classes)
    keys = {_pattern(paths, set().union(*classes.values()) - set(paths)): key for key, paths in classes.items()}
    # In the order in which Keras writes a map into a file: the state of the optimizers is found by their number.
    parts = {pattern: _scaled(optimizer, *keys[pattern]) for pattern in sorted(keys)}
    # The default has no weight of the model; one of the parts would come back from the file as another optimizer.
    several = keras.optimizers.OptimizerMap(_scaled(optimizer, 1.0, 1.0), parts)
    scale = optimizer.loss_scale_factor
    if optimizer.global_clipnorm:
        return ClippedMultiOptimizer(several, optimizer.global_clipnorm, loss_scale_factor=scale)
    return keras.optimizers.MultiOptimizer(several, loss_scale_factor=scale)


def _power(optimizer: Any) -> int | None:
    """The power of the gradient that epsilon is added to; None of an optimizer that does not normalise."""
    names = [kind.__name__ for kind in type(optimizer).__mro__ if kind.__module__.split(".")[0] == "keras"]
    for name in names:
        if name in NORMALISED:
            return NORMALISED[name]
        if name in PROPORTIONAL:
            return None
    raise ValueError(
        f"There is no muP rule here for the optimizer {type(optimizer).__name__}; there is one for "
        f"{', '.join((*NORMALISED, *PROPORTIONAL))}."
    )


def _scaled(optimizer: Any, rate: float, epsilon: float) -> Any:
    """A new optimizer of the same kind for one class of weights."""
    config = optimizer.get_config()
    given = config["learning_rate"]
    if isinstance(given, dict):
        config["learning_rate"] = ScaledSchedule(keras.optimizers.schedules.deserialize(given), rate)
    else:
        config["learning_rate"] = float(given) * rate
    if config.get("weight_decay"):
        config["weight_decay"] /= rate
    if "epsilon" in config:
        config["epsilon"] *= epsilon
    config["global_clipnorm"] = None  # one norm of all weights: see `ClippedMultiOptimizer`
    config.pop("name", None)
    return type(optimizer).from_config(config)


def _pattern(paths: list[str], others: set[str]) -> str:
    """One key for all weights of a class: a map with a key each would come back from a file as an optimizer each.

    A model that is loaded may lack the names of the models around a layer, so that each end of a path stands for it.

    Args:
        paths: Those of the class, as `encoder/dense/kernel`.
        others: Those of the other classes, which the key must not match.
    """
    parts = [path.split("/") for path in paths]
    ends = {"/".join(names[start:]) for names in parts for start in range(max(1, len(names) - 1))}
    return "|".join(re.escape(end) for end in sorted(ends - others))


def _refuse_shared_paths(classes: dict[tuple[float, float], list[str]]) -> None:
    seen: dict[str, tuple[float, float]] = {}
    for key, paths in classes.items():
        for path in paths:
            if seen.setdefault(path, key) != key:
                raise ValueError(
                    f"Two weights of the model have the path {path!r} and need different rates; Keras tells them apart "
                    "by it. Give the layers names of their own."
                )
