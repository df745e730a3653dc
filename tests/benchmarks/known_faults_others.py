"""The rule sets of AutoTrainer and TheDeepChecker, as far as they are published and can be written in some lines.

Both look at a training that runs, not at its start: AutoTrainer's rules see the 150 updates in ten checks, those of
TheDeepChecker the data, the initial weights, and 100 updates on one batch. The limits are the published defaults:
AutoTrainer's from its paper (ICSE 2021, section III) and its `default_param`; TheDeepChecker's from its paper (TOSEM
2022, section 4) and the settings file that its authors kept in their next tool, RLDebugger.

Left out of AutoTrainer: the accuracy on held-out data (the training accuracy is used). Where there is no accuracy, as
in a regression, what it asks of the accuracy counts as true, and slow convergence and oscillation cannot be said.
Left out of TheDeepChecker: the numeric check of the gradients, fitting one batch in 1000 iterations, and all that comes
after it (regularization, augmentation, corrupted labels); its batch has 32 samples here, not 50, and it makes 100
updates, not 200. They know no severity: whatever they find is a finding. It names a cause if it says what one of our
rules would say.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import keras
import numpy as np
from known_faults_data import Array

OTHERS = ("AutoTrainer", "TheDeepChecker")
F_CRITICAL = 2.70554
"""Of TheDeepChecker's test whether two variances are alike, at its significance of 0.1."""


Step = Callable[[Any], float]
"""Makes an update on the samples of these numbers, and gives the loss."""


def watch(restart: Callable[[], None], step: Step, model: Any, x: Any, y: Any) -> dict[str, list[str]]:
    """Trains `model` once for each rule set, and gives what it finds, in the names of our rules."""
    look = looker(model)
    found = {}
    for name, rules in zip(OTHERS, (autotrainer, the_deep_checker), strict=True):
        restart()
        found[name] = sorted(rules(step, model, x, y, look))
    return found


def first_rows(data: Any, rows: int) -> Any:
    return keras.tree.map_structure(lambda values: values[:rows], data)


def looker(model: Any) -> Any:
    """A function of a batch: gradients of the trainable variables, activations by layer, outputs."""
    import tensorflow as tf

    known = {"relu", "sigmoid", "tanh", "selu", "elu", "leaky_relu", "gelu", "silu"}
    layers = (
        [] if not getattr(model, "inputs", None) else [layer for layer in model.layers if activation(layer) in known]
    )
    taps = keras.Model(model.inputs, [[layer.output for layer in layers], model.outputs]) if layers else None

    @tf.function
    def look(x: Any, y: Any) -> Any:
        with tf.GradientTape() as tape:
            outputs = model(x, training=True)
            loss = model.compute_loss(x, y, outputs)
        seen = taps(x, training=True)[0] if taps else []
        gradients = tape.gradient(loss, model.trainable_variables)
        return [tf.convert_to_tensor(g) for g in gradients if g is not None], seen, outputs

    look.layers = [(layer.name, activation(layer)) for layer in layers]
    return look


def activation(layer: Any) -> str:
    return getattr(getattr(layer, "activation", None), "__name__", "")


def accuracy(outputs: Any, y: Any) -> float | None:
    """The share of right classes; None where the targets are no classes."""
    if isinstance(y, (list, tuple)):
        return None
    outputs = np.asarray(outputs)
    if y.dtype.kind in "iu":
        return float(np.mean(outputs.argmax(-1) == y))
    if not np.isin(y, (0.0, 1.0)).all():
        return None
    if y.shape[-1] > 1 and (y.sum(-1) == 1).all():
        return float(np.mean(outputs.argmax(-1) == y.argmax(-1)))
    return float(np.mean((outputs > 0.5) == (y > 0.5)))


def autotrainer(step: Step, model: Any, x: Any, y: Any, look: Any) -> set[str]:
    """Ten checks in 150 updates: dying ReLU, exploding and vanishing gradient, slow convergence, oscillation."""
    rng = np.random.default_rng(0)
    order = np.concatenate([rng.permutation(len(keras.tree.flatten(x)[0])) for _ in range(40)])
    count: dict[str, int] = defaultdict(int)
    accuracies: list[float] = []
    for i in range(150):
        if not np.isfinite(step(order[i * 32 : (i + 1) * 32])):
            return {"non-finite", "exploding-gradient"}
        if i % 15:
            continue
        gradients = [np.asarray(g) for g in look(*first_rows((x, y), 32))[0]]
        kernels = [g for g in gradients if g.ndim > 1] or gradients
        if not all(np.isfinite(g).all() for g in gradients):
            return {"non-finite", "exploding-gradient"}
        first, last = np.linalg.norm(kernels[0]), np.linalg.norm(kernels[-1])
        ratio = first / last if last else 0.0
        count["vanishing-gradient"] += bool(ratio < 1e-3 and first < 1e-4)
        count["exploding-gradient"] += bool(ratio > 70)
        count["dead-units"] += sum(np.sum(g == 0) for g in gradients) >= 0.7 * sum(g.size for g in gradients)
        score = accuracy(model(first_rows(x, 512), training=False), first_rows(y, 512))
        accuracies += [] if score is None else [score]
    still = bool(accuracies) and max(np.diff(accuracies)) < 0.01
    if not accuracies or max(accuracies) < 0.7 or still:
        for rule in ("dead-units", "exploding-gradient", "vanishing-gradient"):
            if count[rule]:
                return {rule}
        return {"update-ratio", "not-learning", "no-update"} if still else set()
    highs = [b for a, b, c in zip(accuracies, accuracies[1:], accuracies[2:], strict=False) if b >= a and b >= c]
    lows = [b for a, b, c in zip(accuracies, accuracies[1:], accuracies[2:], strict=False) if b <= a and b <= c]
    swings = sum(high - low >= 0.03 for high, low in zip(highs, lows, strict=False))
    return {"update-ratio"} if swings >= 0.2 * len(accuracies) else set()


def the_deep_checker(step: Step, model: Any, x: Any, y: Any, look: Any) -> set[str]:
    """Checks of data, weights, biases and first loss; then of ten times ten updates on one batch."""
    batch = first_rows((x, y), 32)
    found = data_checks(x, y) | weight_checks(model, look) | loss_checks(model, x, y, batch)
    losses: list[float] = []
    gradients: dict[int, list[float]] = defaultdict(list)
    for check in range(10):
        before = [np.array(v) for v in model.trainable_variables]
        part = [step(np.arange(32)) for _ in range(10)]
        if not np.isfinite(part).all():
            return found | {"non-finite"}
        losses.append(float(np.mean(part)))
        found |= step_checks(before, [np.array(v) for v in model.trainable_variables])
        seen = look(*batch)
        for i, g in enumerate(np.asarray(g) for g in seen[0]):
            if g.ndim > 1:
                gradients[i].append(float(np.mean(np.abs(g))))
        if check:
            found |= activation_checks(seen[1], look.layers) | gradient_checks(gradients)
        if all(np.var(np.asarray(out), 0).max() == 0 for out in keras.tree.flatten(seen[2])):
            found |= {"collapsed-samples", "no-gradient"}  # constant outputs
    drops = [(a - b) / a for a, b in pairwise(losses) if a]
    if any(all(d < 0.05 for d in drops[i : i + 4]) for i in range(len(drops) - 3)):
        found |= {"not-learning", "update-ratio"}  # stagnated
    if np.mean(np.abs(np.diff(np.diff(losses) > 0))) > 0.5:
        found |= {"update-ratio"}  # fluctuates
    return found


def data_checks(x: Any, y: Any) -> set[str]:
    """Each column, or an image as a whole: between 0 or -1 and 1, or with mean 0 and standard deviation 1."""

    def plain(values: Array) -> bool:
        if np.ptp(values) == 0:
            return False
        unit = abs(values.max() - 1) < 0.01 and min(abs(values.min()), abs(values.min() + 1)) < 0.01
        return bool(unit or (abs(values.mean()) < 0.01 and abs(values.std() - 1) < 0.01))

    found = set()
    inputs = [v for v in keras.tree.flatten(x) if v.dtype.kind == "f"]
    columns = [c for v in inputs for c in (v.T if v.ndim == 2 else [v])]
    targets = [v for v in keras.tree.flatten(y) if v.dtype.kind == "f" and not np.isin(v, (0, 1)).all()]
    if not all(map(plain, columns)):
        found |= {"input-scale"}
    if not all(plain(c) for v in targets for c in v.reshape(-1, v.shape[-1]).T):
        found |= {"input-scale"}
    return found


def weight_checks(model: Any, look: Any) -> set[str]:
    """The variance of each kernel against He's, Glorot's or LeCun's, by the network's activation; biases of zero."""
    found = set()
    kind = look.layers[0][1] if look.layers else ""
    for v in model.trainable_variables:
        value = np.array(v)
        if value.ndim < 2 or "bias" in v.path:
            found |= {"dead-units"} if "bias" in v.path and value.any() else set()
            continue
        if np.var(value) < 1e-8:
            found |= {"symmetric-units"}
            continue
        fan_in, fan_out = np.prod(value.shape[:-1]), value.shape[-1] * np.prod(value.shape[:-2])
        laws = {"relu": 2 / fan_in, "tanh": 2 / (fan_in + fan_out), "sigmoid": 1 / fan_in}
        wanted = [laws[kind]] if kind in laws else list(laws.values())
        if all(max(np.var(value) / w, w / np.var(value)) > F_CRITICAL for w in wanted):
            found |= {"vanishing-signal", "exploding-signal", "vanishing-gradient", "exploding-gradient"}
            found |= {"saturated-units", "fan-mismatch"}
    return found


def loss_checks(model: Any, x: Any, y: Any, batch: Any) -> set[str]:
    """The first loss of classes, at most twice the logarithm of their number."""
    if isinstance(y, (list, tuple)) or (y.dtype.kind == "f" and (y.shape[-1] == 1 or (y.sum(-1) != 1).any())):
        return set()
    classes = int(y.max()) + 1 if y.dtype.kind in "iu" else y.shape[-1]
    loss = float(model.compute_loss(batch[0], batch[1], model(batch[0], training=False)))
    if not np.isfinite(loss):
        return {"non-finite"}
    return {"initial-loss"} if abs(loss - np.log(classes)) >= np.log(classes) else set()


def step_checks(before: list[Array], after: list[Array]) -> set[str]:
    """Logarithm of the mean update, an update, over the mean weight: between -4 and -1; dead and negative weights."""
    found = set()
    for old, new in zip(before, after, strict=True):
        if old.ndim < 2:
            continue
        scale = np.mean(np.abs(old))
        change = np.mean(np.abs(new - old)) / 10
        if scale and change == 0:
            found |= {"no-update", "no-gradient"}
        elif scale and not -4 <= np.log10(change / scale) <= -1:
            found |= {"update-ratio"}
        if np.mean(np.abs(new) < 1e-5) > 0.95:
            found |= {"vanishing-signal"}
        if np.mean(new < 0) > 0.95:
            found |= {"dead-units"}
    return found


def activation_checks(seen: Any, layers: list[tuple[str, str]]) -> set[str]:
    """More than half of the units dead or saturated, or a standard deviation that is not between 0.5 and 2."""
    found = set()
    for (_, kind), values in zip(layers, seen, strict=True):
        a = np.asarray(values).reshape(-1, values.shape[-1])
        if kind in ("sigmoid", "tanh"):
            low = 0.0 if kind == "sigmoid" else -1.0
            ends = np.abs(2 * (a - low) / (1 - low) - 1).mean(0)
            found |= {"saturated-units"} if np.mean(ends > 0.85) > 0.5 else set()
        else:
            found |= {"dead-units"} if np.mean(np.percentile(np.abs(a), 95, 0) < 1e-5) > 0.5 else set()
        if a.std() ** 2 < 0.5**2 / F_CRITICAL:
            found |= {"vanishing-signal", "collapsed-samples"}
        if a.std() ** 2 > 2.0**2 * F_CRITICAL:
            found |= {"exploding-signal"}
    return found


def gradient_checks(means: dict[int, list[float]]) -> set[str]:
    """Mean absolute gradients below 1e-6 or above 1e6, or that halve or double in each of the last four checks."""
    found = set()
    for values in means.values():
        rates = [b / a for a, b in zip(values[-5:], values[-4:], strict=False) if a]
        if values[-1] < 1e-6 or (len(rates) == 4 and all(r <= 0.5 for r in rates)):
            found |= {"vanishing-gradient", "no-gradient"}
        if values[-1] > 1e6 or (len(rates) == 4 and all(r >= 2 for r in rates)):
            found |= {"exploding-gradient"}
    return found
