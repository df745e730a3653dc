"""A real dense network in numpy, forward and backward, that fills a snapshot: the rules are tested on what is true.

Written from the definitions of the statistics alone, independent of the probe: cross-entropy of logits, mean over the
batch, weights (inputs, units), every layer `dense_i`, the last one `head` without an activation.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from keras_initaudit.records import LayerInfo, Snapshot, Statistics

Array = np.ndarray[Any, np.dtype[np.float64]]

SLOPES: dict[str, tuple[Callable[[Array], Array], Callable[[Array], Array], float]] = {
    "linear": (lambda z: z, np.ones_like, 1.0),
    "relu": (lambda z: np.maximum(z, 0), lambda z: (z > 0).astype(float), math.sqrt(2.0)),
    "tanh": (np.tanh, lambda z: 1 - np.tanh(z) ** 2, 1.5925),
    "sigmoid": (
        lambda z: 1 / (1 + np.exp(-np.clip(z, -700, 700))),
        lambda z: (s := 1 / (1 + np.exp(-np.clip(z, -700, 700)))) * (1 - s),
        1.8462,
    ),
}


KINDS: dict[str, dict[str, Any]] = {
    "LSTM": {"gates": 4},
    "SimpleRNN": {"gates": 1},
    "BatchNormalization": {"normalises": "batch"},
    "LayerNormalization": {"normalises": "layer"},
    "RMSNorm": {"normalises": "other"},
    "DepthwiseConv2D": {"channelwise": True, "input_axes": (0, 1), "output_axes": (0, 1, 3)},
    "Conv2DTranspose": {"input_axes": (0, 1, 3), "output_axes": (0, 1, 2)},
    "Embedding": {"lookup": True},
    "Concatenate": {"concatenates": True},
}
"""Class -> what an audit says of such a layer; `tests/observe/test_describe.py` compares it with real ones."""


def of_kind(kind: str) -> dict[str, Any]:
    """The fields of a row that follow from the class of its layer."""
    return {"kind": kind, **KINDS.get(kind, {})}


def rms(x: Array) -> float:
    return float(np.sqrt(np.mean(np.square(x)))) if x.size else math.nan


def identical(matrix: Array) -> float:
    """Fraction of the columns that equal another column."""
    _, inverse, counts = np.unique(matrix, axis=1, return_inverse=True, return_counts=True)
    return float(np.mean(counts[inverse.ravel()] > 1)) if matrix.shape[1] > 1 else 0.0


def moments(prefix: str, x: Array) -> dict[str, float]:
    finite = x[np.isfinite(x)]
    return {
        f"{prefix}_mean": float(finite.mean()) if finite.size else math.nan,
        f"{prefix}_std": float(finite.std()) if finite.size else math.nan,
        f"{prefix}_rms": rms(finite),
        f"{prefix}_max": float(np.abs(finite).max()) if finite.size else math.nan,
        f"{prefix}_nonfinite": float(np.mean(~np.isfinite(x))),
    }


def spread(x: Array) -> float:
    return float(np.sqrt(np.mean(x.std(axis=0) ** 2)) / rms(x)) if rms(x) > 0 else math.nan


def weights(shape: Sequence[int], std: Sequence[float] | float, seed: int = 0) -> list[Array]:
    """Normal kernels for the widths in `shape`, one standard deviation for all or one each."""
    generator = np.random.default_rng(seed)
    pairs = list(itertools.pairwise(shape))
    stds = [std] * len(pairs) if isinstance(std, int | float) else list(std)
    return [generator.normal(0, s, (a, b)) for s, (a, b) in zip(stds, pairs, strict=True)]


def he(shape: Sequence[int]) -> list[float]:
    return [math.sqrt(2 / n) for n in shape[:-1]]


def glorot(shape: Sequence[int]) -> list[float]:
    return [math.sqrt(2 / (a + b)) for a, b in itertools.pairwise(shape)]


def snapshot(
    kernels: Sequence[Array],
    activation: str = "relu",
    *,
    x: Array | None = None,
    biases: Sequence[float] | None = None,
    residual: bool = False,
    step: int = 0,
    rate: float | None = None,
) -> Snapshot:
    """What an audit of this network sees: `kernels` from the input on, one activation for all but the logits."""
    phi, slope, gain = SLOPES[activation]
    generator = np.random.default_rng(1)
    x = generator.normal(0, 1, (32, kernels[0].shape[0])) if x is None else x
    classes = kernels[-1].shape[1]
    y = np.eye(classes)[np.arange(len(x)) % classes]
    biases = [0.0] * len(kernels) if biases is None else biases
    inputs, before, after = [], [], []
    h = x
    with np.errstate(over="ignore", invalid="ignore"):
        for i, (w, b) in enumerate(zip(kernels, biases, strict=True)):
            inputs.append(h)
            z = h @ w + b
            a = z if i == len(kernels) - 1 else phi(z)
            before.append(z)
            after.append(a)
            h = h + a if residual and a.shape == h.shape and i < len(kernels) - 1 else a
        shifted = h - h.max(axis=1, keepdims=True)
        p = np.exp(shifted) / np.exp(shifted).sum(axis=1, keepdims=True)
        loss = float(np.mean(np.log(np.exp(shifted).sum(axis=1)) - (shifted * y).sum(axis=1)))
        g = (p - y) / len(x)
        backward, gradients, merged = [], [], []
        for i in reversed(range(len(kernels))):
            merged.append(g)
            dz = g if i == len(kernels) - 1 else g * slope(before[i])
            skip = residual and after[i].shape == inputs[i].shape and i < len(kernels) - 1
            backward.append(g)
            gradients.append(inputs[i].T @ dz)
            g = dz @ kernels[i].T + (g if skip else 0)
    layers = [LayerInfo("input", -1, role="input", kind="InputLayer", shape=x.shape[1:])]
    rows = [Statistics(**moments("activation", x), activation_spread=spread(x))]
    last = "input"
    for i, w in enumerate(kernels):
        head = i == len(kernels) - 1
        path = "head" if head else f"dense_{i}"
        own = "linear" if head else activation
        a, z, d, dw = after[i], before[i], backward[-1 - i], gradients[-1 - i]
        skip = residual and a.shape == inputs[i].shape and not head
        flat = slope(z) < 0.02 * slope(np.zeros(1))[0] if own in ("tanh", "sigmoid") else None
        layers.append(
            LayerInfo(
                path, i, kind="Dense", shape=a.shape[1:], activation=own, gain=1.0 if head else gain,
                weight="kernel", weight_shape=w.shape, fan_in=w.shape[0], fan_out=w.shape[1],
                initializer="RandomNormal", has_bias=True, inputs=(last,),
            )
        )  # fmt: skip
        update = math.log10(rate * rms(dw) / rms(w)) if rate and rms(dw) > 0 and rms(w) > 0 else math.nan
        row = Statistics(
            **moments("activation", a),
            **{k: v for k, v in moments("preactivation", z).items() if not head},
            activation_zero=float(np.mean(a == 0)),
            activation_dead=float(np.mean(np.all(a == 0, axis=0))) if own == "relu" else math.nan,
            activation_saturated=math.nan if flat is None else float(flat.mean()),
            activation_spread=spread(a),
            backward_rms=rms(d), backward_max=float(np.abs(d).max()), backward_zero=float(np.mean(d == 0)),
            backward_nonfinite=float(np.mean(~np.isfinite(d))),
            weight_mean=float(w.mean()), weight_std=float(w.std()), weight_rms=rms(w),
            weight_max=float(np.abs(w).max()), weight_zero=float(np.mean(w == 0)), weight_identical=identical(w),
            weight_nonfinite=float(np.mean(~np.isfinite(w))),
            gradient_rms=rms(dw), gradient_max=float(np.abs(dw).max()), gradient_zero=float(np.mean(dw == 0)),
            gradient_identical=identical(dw), gradient_nonfinite=float(np.mean(~np.isfinite(dw))),
            update_log10=update,
        )  # fmt: skip
        rows.append(row)
        if skip:
            layers.append(LayerInfo(f"add_{i}", i, kind="Add", shape=a.shape[1:], inputs=(last, path)))
            total = inputs[i] + a
            rows.append(
                Statistics(**moments("activation", total), activation_spread=spread(total), backward_rms=rms(d))
            )
            path = f"add_{i}"
        last = path
    layers.append(LayerInfo("target", len(kernels), role="target"))
    rows.append(Statistics(**moments("activation", np.argmax(y, axis=1).astype(float))))
    return Snapshot(step, tuple(layers), tuple(rows), loss, math.log(classes), len(x), {}, "SGD", rate)


def edited(shot: Snapshot, path: str, *, layer: dict[str, Any] | None = None, **statistics: float) -> Snapshot:
    """The snapshot with some fields of one row replaced."""
    i = [info.path for info in shot.layers].index(path)
    layers, rows = list(shot.layers), list(shot.statistics)
    layers[i] = dataclasses.replace(layers[i], **(layer or {}))
    rows[i] = dataclasses.replace(rows[i], **statistics)
    return dataclasses.replace(shot, layers=tuple(layers), statistics=tuple(rows))
