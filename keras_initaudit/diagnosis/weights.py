"""Rules about the weights: were they drawn for the right fans, does the loss depend on them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from ..flow import Row
from ..records import Finding, LayerInfo, Severity
from . import proposals
from .network import Network
from .thresholds import Thresholds
from .wording import finding, num, several

_SCHEMES: dict[str, tuple[float, str]] = {
    "GlorotUniform": (1.0, "fan_avg"),
    "GlorotNormal": (1.0, "fan_avg"),
    "HeUniform": (2.0, "fan_in"),
    "HeNormal": (2.0, "fan_in"),
    "LecunUniform": (1.0, "fan_in"),
    "LecunNormal": (1.0, "fan_in"),
    "LeCunUniform": (1.0, "fan_in"),
    "LeCunNormal": (1.0, "fan_in"),
}


def fan_mismatch(network: Network, thresholds: Thresholds) -> list[Finding]:
    """The scheme was given the wrong fans for this layer: depthwise, grouped, transposed convolution, experts.

    Only where the weight has the variance that the wrong fans give: loaded weights have another one.
    """
    found: list[tuple[float, Row]] = []
    for row in network.layers:
        info = row.info
        # The kernel of a recurrent layer holds its gates side by side, and Keras counts them all as outputs.
        if not row.has_kernel or info.gates or network.normalised_after(row):
            continue
        ratio = _fan_ratio(row)
        if ratio is not None and max(ratio, 1.0 / ratio) >= thresholds.fan_ratio:
            found.append((ratio, row))
    # Layer after layer the factors multiply; a single stride of two (0.71) does no harm.
    if not found or abs(sum(math.log(ratio) for ratio, _ in found)) < math.log(thresholds.fan_ratio_together):
        return []
    ratio, worst = max(found, key=lambda pair: abs(math.log(pair[0])))
    rows = [row for _, row in found]
    group = list(proposals.alike(network, rows))
    if worst not in group:
        group = [worst]
    assumed = proposals.shape_fans(worst.info.weight_shape)
    where = several([worst.path, *(row.path for row in rows if row is not worst)])
    true = f"{num(worst.info.fan_in or 0.0)} and {num(worst.info.fan_out or 0.0)}"
    return [
        finding(
            "fan-mismatch",
            "warning",
            worst.path,
            f"{worst.info.initializer or 'the scheme'} took the fans {num(assumed[0])} and {num(assumed[1])} from the "
            f"shape of the kernel at {where}; the true ones are {true}, so that the weights are {num(ratio)} times as "
            "large as intended",
            observed=worst.stats.weight_rms,
            expected=worst.stats.weight_rms / ratio,
            threshold=thresholds.fan_ratio,
            unit="rms of the weights",
            layers=[row.path for row in group],
            affected=[row.path for row in rows],
            fans_assumed=list(assumed),
            fans_true=[worst.info.fan_in, worst.info.fan_out],
            ratio=ratio,
            remedy=proposals.for_kernels(network, group),
        )
    ]


def _fan_ratio(row: Row) -> float | None:
    """Std of the weight over the std that its scheme means; None unless the wrong fans explain it."""
    info = row.info
    if info.fan_in is None or info.fan_out is None or (not proposals.misread(info) and _strided(info)):
        return None
    assumed = _assumed_fans(info)
    if info.initializer is not None:
        laws = [_law(info.initializer, info.initializer_config, info.gain)]
    else:  # the initializer is not known: a common scheme with the wrong fans shows by its variance
        laws = list(_SCHEMES.values()) if proposals.misread(info) else []
    for law in laws:
        if law is None or assumed is None:
            continue
        scale, mode = law
        wrong, meant = _std(scale, mode, assumed), _std(scale, mode, (info.fan_in, info.fan_out))
        # Five standard errors of the rms of n normals, and 2 % for other distributions.
        tolerance = 5.0 / math.sqrt(2.0 * math.prod(info.weight_shape)) + 0.02
        if wrong is not None and meant is not None and math.isclose(row.stats.weight_rms, wrong, rel_tol=tolerance):
            return wrong / meant
    return None


def _strided(info: LayerInfo) -> bool:
    """Whether only the fan_out differs, and by a square: a stride, which every plain convolution may have."""
    ratio = proposals.shape_fans(info.weight_shape)[1] / (info.fan_out or 1.0)
    return math.isclose(ratio, round(math.sqrt(max(ratio, 0.0))) ** 2, rel_tol=1e-6)


def _assumed_fans(info: LayerInfo) -> tuple[float, float] | None:
    """The fans that the initializer worked with: by its axes where it has them, else by the shape."""
    inputs, outputs = info.initializer_config.get("input_axes"), info.initializer_config.get("output_axes")
    if inputs is None or outputs is None:
        return proposals.shape_fans(info.weight_shape)
    try:
        shape = info.weight_shape
        return float(math.prod(shape[int(a)] for a in inputs)), float(math.prod(shape[int(a)] for a in outputs))
    except (TypeError, ValueError, IndexError):
        return None


def _law(name: str, config: Mapping[str, Any], gain: float | None) -> tuple[float, str] | None:
    """Scale and mode of a scheme of the variance-scaling family; None for any other initializer."""
    scale, mode = _SCHEMES.get(name, (1.0, "fan_in"))
    if name == "VarianceScaling":
        given = config.get("scale", 1.0)
        scale = float(given) if isinstance(given, int | float) else 1.0
    elif name not in _SCHEMES:
        return None
    own = config.get("gain")
    if name.startswith("He") and own is not None:
        scale = 1.0  # that 2 is the gain of ReLU, which a scheme that has the gain as a setting squares itself
    if isinstance(own, int | float):
        scale *= own * own
    elif own is not None:
        if gain is None:
            return None
        scale *= gain * gain
    return scale, str(config.get("mode", mode))


def _std(scale: float, mode: str, fans: tuple[float, float]) -> float | None:
    fan_in, fan_out = fans
    count = {
        "fan_in": fan_in,
        "fan_out": fan_out,
        "fan_avg": (fan_in + fan_out) / 2.0,
        "fan_sum": fan_in + fan_out,
        "fan_geo_avg": math.sqrt(fan_in * fan_out),
    }.get(mode)
    return None if count is None or count <= 0.0 or scale <= 0.0 else math.sqrt(scale / count)


def no_gradient(network: Network, thresholds: Thresholds) -> list[Finding]:
    """A trainable weight that the loss does not reach, or a loss that gives no gradient to any weight."""
    del thresholds  # exactly zero is exactly zero
    weighted = [row for row in network.rows if row.info.role in ("layer", "weight") and row.info.weight is not None]
    trained = [row for row in weighted if row.info.trainable]
    if weighted and not trained:
        message = "no weight is trainable: the whole model is frozen"
        return [_no_gradient("bad", None, message, weighted, "frozen")]
    fresh = [row for row in weighted if not row.info.trainable and _freshly_drawn(row)]
    found = []
    if fresh:
        message = (
            f"the weights of {several([row.path for row in fresh])} are frozen and look untrained "
            f"(drawn by {fresh[0].info.initializer}): load trained weights, or set trainable = True"
        )
        found.append(_no_gradient("warning", fresh[0].path, message, fresh, "frozen at random"))
    lost = [row for row in trained if not row.info.reached]
    if lost:
        message = (
            f"the loss does not reach {several([row.path for row in lost])}: trainable weights that get no gradient"
        )
        severity: Severity = "bad" if len(lost) == len(trained) else "warning"
        return [*found, _no_gradient(severity, lost[0].path, message, lost, "disconnected")]
    matrices = [row for row in trained if len(row.info.weight_shape) >= 2 and not math.isnan(row.stats.gradient_rms)]
    # A zero-initialised head starves what is below it for one step, and gets a gradient itself: then not all are zero.
    flat = all(row.stats.gradient_rms == 0.0 and not row.stats.gradient_nonfinite > 0.0 for row in matrices)
    if matrices and flat and not network.opening:
        last = matrices[-1]
        message = (
            f"the gradient of every kernel is exactly zero, that of {last.path} included: "
            "the loss does not change with the outputs"
        )
        return [*found, _no_gradient("bad", last.path, message, matrices, "flat")]
    return found


def _freshly_drawn(row: Row) -> bool:
    """Whether a weight still has the variance of its uniform initializer, and stays within its limits.

    Training moves some weight over a limit long before it changes the variance. The answer is no for a distribution
    without limits, or with too few weights.
    """
    info, stats = row.info, row.stats
    law = _law(info.initializer or "", info.initializer_config, info.gain)
    uniform = str(info.initializer_config.get("distribution", info.initializer)).lower().endswith("uniform")
    fans, size = _assumed_fans(info), math.prod(info.weight_shape)
    std = None if law is None or fans is None else _std(*law, fans)
    if std is None or not uniform or size < 64:
        return False
    edge, seen = math.sqrt(3.0) * std, min(size, 2**14)
    # Of n draws the largest lies within a few parts in n of the edge; five standard errors for the variance.
    near = (1.0 - 10.0 / seen) * edge <= stats.weight_max <= 1.0001 * edge
    return near and math.isclose(stats.weight_rms, std, rel_tol=5.0 / math.sqrt(2.0 * seen) + 0.005)


def _no_gradient(severity: Severity, layer: str | None, message: str, rows: list[Row], reason: str) -> Finding:
    return finding(
        "no-gradient",
        severity,
        layer,
        message,
        observed=0.0,
        expected="a gradient",
        threshold=0.0,
        unit="rms of dL/d(weight)",
        affected=[row.path for row in rows],
        reason=reason,
    )
