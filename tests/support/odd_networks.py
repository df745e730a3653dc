"""Snapshots of numpy networks with one thing odd about them, for the tests of the rules: how odd is an argument."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy_network import Array, edited, glorot, he, of_kind, rms, snapshot, weights

from keras_initaudit.records import NAN, LayerInfo, LossKind, Snapshot, Statistics

Made = Snapshot | tuple[Snapshot, ...]
Make = Callable[[], Made]


def widths(depth: int, width: int = 64) -> list[int]:
    return [64, *[width] * depth, 10]


def plain(depth: int, scheme: Any = he, activation: str = "relu", factor: float = 1.0, **how: Any) -> Snapshot:
    """A dense chain `dense_0`, `dense_1`, ... with a linear `head`."""
    shape = widths(depth)
    std = scheme(shape) if callable(scheme) else [scheme] * (depth + 1)
    return snapshot(weights(shape, [factor * s for s in std]), activation, **how)


def healthy(depth: int = 3, **how: Any) -> Snapshot:
    return plain(depth, **how)


def with_kernel(
    i: int, change: Callable[[Array], Array], depth: int = 3, activation: str = "relu", **how: Any
) -> Snapshot:
    kernels = weights(widths(depth), (he if activation == "relu" else glorot)(widths(depth)))
    kernels[i] = change(kernels[i])
    return snapshot(kernels, activation, **how)


def of(shot: Snapshot, **fields: Any) -> Snapshot:
    """The snapshot with another loss, optimizer, ..."""
    return dataclasses.replace(shot, **fields)


def each(shot: Snapshot, **layer: Any) -> Snapshot:
    """The snapshot with some fields of every layer replaced."""
    return of(shot, layers=tuple(dataclasses.replace(info, **layer) for info in shot.layers))


def later(start: Snapshot, then: Snapshot, step: int = 2) -> tuple[Snapshot, Snapshot]:
    return start, of(then, step=step)


def added(shot: Snapshot, info: LayerInfo, row: Statistics) -> Snapshot:
    return of(shot, layers=(*shot.layers, info), statistics=(*shot.statistics, row))


# --- data


def pixels() -> Array:
    return np.random.default_rng(0).integers(0, 256, (32, 64)).astype(float)


def scaled(size: float, **fields: Any) -> Snapshot:
    """A healthy network on data of this rms."""
    x = np.random.default_rng(1).normal(size=(32, 64))
    return of(healthy(x=x / rms(x) * size), **fields)


def cut_off(shot: Snapshot) -> Snapshot:
    """A ReLU makes what the loss takes for logits."""
    return of(edited(shot, "head", layer={"activation": "relu"}), loss_kind="classes", outputs_mean="logits")


def targets(scale: float, kind: LossKind) -> Snapshot:
    shot = edited(healthy(), "target", activation_rms=scale, activation_std=scale, activation_mean=0.0)
    return of(shot, loss_kind=kind)


def tokens() -> Snapshot:
    shot = edited(healthy(), "input", activation_rms=5000.0, activation_mean=4000.0, activation_max=9999.0)
    return edited(shot, "dense_0", layer=of_kind("Embedding"))


# --- signal and gradient


def drifted(decades: float, **fields: Any) -> Snapshot:
    """A healthy network whose last hidden layer gives out so many decades more than what comes in."""
    shot = healthy()
    return of(edited(shot, "dense_2", activation_rms=shot["input"].activation_rms * 10.0**decades), **fields)


def graded(decades: float, depth: int = 10, **fields: Any) -> Snapshot:
    """A healthy network with a gradient that grows by so many decades a layer on its way back."""
    shot = healthy(depth)
    for i in range(depth):
        shot = edited(shot, f"dense_{i}", backward_rms=1e-2 * 10 ** (decades * (depth - 1 - i)))
    return of(shot, **fields)


def normalised(
    shot: Snapshot, after: str = "dense_0", path: str = "batch_normalization", kind: str = "BatchNormalization"
) -> Snapshot:
    """A normalisation behind a layer."""
    i = [info.path for info in shot.layers].index(after)
    info = LayerInfo(path, i, shape=(64,), inputs=(after,), **of_kind(kind))
    row = dataclasses.replace(shot[after], activation_rms=1.0, weight_rms=NAN, update_log10=NAN)
    layers = [dataclasses.replace(a, inputs=(info.path,)) if a.inputs == (after,) else a for a in shot.layers]
    layers.insert(i + 1, info)
    rows = list(shot.statistics)
    rows.insert(i + 1, row)
    return of(shot, layers=tuple(layers), statistics=tuple(rows))


# --- units


def attention(entropy: float) -> Snapshot:
    part = LayerInfo("dense_1/attention", 1, "attention", "MultiHeadAttention", activation="softmax")
    return added(healthy(), part, Statistics(attention_entropy=entropy))


def gates(saturated: float) -> Snapshot:
    part = LayerInfo("dense_1/gates", 1, "gates", "LSTM", activation="sigmoid")
    return added(healthy(), part, Statistics(activation_saturated=saturated))


def through_time(shot: Snapshot, decades: float, path: str = "dense_1", steps: int = 40, **layer: Any) -> Snapshot:
    """The network with a recurrent layer in it, each time step of which changes the gradient by so many decades."""
    before = next(info for info in shot.layers if info.path == path).inputs[0]
    shot = edited(shot, before, layer={"shape": (steps, 64)})
    return edited(shot, path, layer=of_kind("SimpleRNN") | layer, backward_time_log10=decades)


def identical(weight: float, gradient: float) -> Snapshot:
    return edited(healthy(), "dense_1", weight_identical=weight, gradient_identical=gradient)


def twins(gradient: float) -> Snapshot:
    """Two layers that start with the same numbers; the gradient of one is so many times that of the other."""
    shot = healthy()
    first = shot["dense_1"]
    return edited(
        shot,
        "dense_2",
        layer={"duplicate_of": "dense_1"},
        gradient_rms=gradient * first.gradient_rms,
        gradient_max=gradient * first.gradient_max,
    )


# --- weights


def depthwise(factor: float = 1.0, **layer: Any) -> Snapshot:
    """A healthy network whose second layer is said to be a depthwise convolution that He started with Keras's fans."""
    config: dict[str, Any] = {"input_axes": None, "output_axes": None}
    known = {
        **of_kind("DepthwiseConv2D"),
        "weight_shape": (3, 3, 64, 1),
        "fan_in": 9.0,
        "fan_out": 9.0,
        "initializer": "HeNormal",
        "initializer_config": config,
    }
    return edited(healthy(), "dense_1", layer=known | layer, weight_rms=factor * math.sqrt(2.0 / 576.0))


def misread(ratio: float, layers: int) -> Snapshot:
    """A healthy network of so many layers that He started with fans that make the weights `ratio` times too large."""
    shot = healthy(layers)
    for i in range(layers):
        shot = edited(
            shot,
            f"dense_{i}",
            layer={"fan_in": 64.0 * ratio**2, "initializer": "HeNormal"},
            weight_rms=math.sqrt(2.0 / 64.0),
        )
    return shot


def updated(log10: float) -> tuple[Snapshot, Snapshot]:
    """A healthy network and its next audit, each kernel changed by so many decades of its size."""
    shot = healthy()
    rows = [dataclasses.replace(row, update_log10=log10) if row.weight_rms > 0 else row for row in shot.statistics]
    return later(shot, of(shot, statistics=tuple(rows)))


def moved(unchanged: float) -> Snapshot:
    """A healthy network of which the last update left this share of each kernel as it was."""
    shot = healthy()
    rows = [dataclasses.replace(row, update_zero=unchanged) if row.weight_rms > 0 else row for row in shot.statistics]
    return of(shot, statistics=tuple(rows))


def unmoved(audits: int, **fields: Any) -> tuple[Snapshot, ...]:
    """A healthy network that so many audits after the first find exactly as it was."""
    still = of(moved(1.0), **fields)
    return of(healthy(), **fields), *(of(still, step=step) for step in (1, 2, 5, 10)[:audits])


def standing(shot: Snapshot, moved: float = 1e-5, step: int = 20, **fields: Any) -> Snapshot:
    """The network after so many updates that moved no kernel by more than this, its loss above a constant answer's."""
    log10 = math.log10(moved / step)
    rows = [dataclasses.replace(row, update_log10=log10) if row.weight_rms > 0 else row for row in shot.statistics]
    return of(shot, **{"statistics": tuple(rows), "step": step, "constant_loss": 0.9 * shot.loss} | fields)


def paced(shot: Snapshot, log10: float) -> Snapshot:
    """Plain descent whose first step changes each kernel by so many decades of its size."""
    for info, row in zip(shot.layers, shot.statistics, strict=True):
        if row.weight_rms > 0:
            shot = edited(shot, info.path, gradient_rms=row.weight_rms)
    return of(shot, optimizer="SGD", learning_rate=10.0**log10)


def flat_loss(but: str = "") -> Snapshot:
    """No kernel has a gradient, but that of one layer."""
    shot = healthy()
    for info in shot.layers:
        if info.weight is not None and info.path != but:
            shot = edited(shot, info.path, gradient_rms=0.0)
    return shot
