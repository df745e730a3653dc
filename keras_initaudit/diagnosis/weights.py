"""Rules about the weights and what moves them: size of the first updates, fans of the scheme, reach of the loss."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from ..records import Finding, LayerInfo, Severity
from . import remedies
from .network import Network, Row
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
_RECURRENT = ("LSTM", "GRU", "RNN", "Bidirectional")
"""The input kernel of a recurrent layer holds its gates side by side, and Keras counts them all as outputs."""


def update_ratio(network: Network, thresholds: Thresholds) -> list[Finding]:
    """The first update changes the weights by far too much, or by nothing."""
    rows = [
        row
        for row in network.rows
        if row.info.role in ("layer", "weight")
        and len(row.info.weight_shape) >= 2
        and not row.info.lookup
        and math.isfinite(row.stats.update_log10)
        and row.stats.weight_rms > 0.3 * _least_rms(row)
    ]
    if not rows:
        return _steps_behind_normalisation(network, thresholds)
    fastest = max(rows, key=lambda row: row.stats.update_log10)
    rate = network.snapshot.learning_rate
    rising = max((network.snapshot.peak_rate or 0.0) / rate, 1.0) if rate else 1.0
    slowest = max(row.stats.update_log10 for row in rows) + math.log10(rising)  # warm-up starts from next to nothing
    if fastest.stats.update_log10 >= thresholds.update_high_warning:
        value = fastest.stats.update_log10
        severity: Severity = "bad" if value >= thresholds.update_high_bad else "warning"
        lower = None if not rate else f"model.optimizer.learning_rate = {rate * 10.0 ** (-2.5 - value):.1g}"
        return [
            finding(
                "update-ratio",
                severity,
                fastest.path,
                f"one update changes the weights of {fastest.path} by {num(10.0**value)} of their size; "
                "about 0.001 is usual",
                observed=value,
                expected=-3.0,
                threshold=thresholds.update_high_bad if severity == "bad" else thresholds.update_high_warning,
                unit="log10 of rms(update) / rms(weight)",
                layers=[network.owner(fastest).path],
                learning_rate=rate,
                remedy=lower,
            )
        ]
    if slowest <= thresholds.update_low_warning:
        return [
            finding(
                "update-ratio",
                "warning",
                None,
                f"one update changes no weight by more than {num(10.0**slowest)} of its size; about 0.001 is usual",
                observed=slowest,
                expected=-3.0,
                threshold=thresholds.update_low_warning,
                unit="log10 of rms(update) / rms(weight)",
                affected=[row.path for row in rows],
                learning_rate=rate,
                remedy=None if not rate else f"model.optimizer.learning_rate = {rate * 10.0 ** (-3.0 - slowest):.1g}",
            )
        ]
    return []


def _steps_behind_normalisation(network: Network, thresholds: Thresholds) -> list[Finding]:
    """Before the first update: weights that are small in front of a layer normalisation, which hides it.

    What such weights make does not depend on their size, so that a step counts by its share of it, and small steps are
    long ones. In a chain the shares add up.
    """
    kernels = [
        row
        for row in network.hidden
        if row.stats.weight_rms > 0.0
        and network.feeds(row, "LayerNormalization")
        and network.normalised_after(row)
        and not network.bypassed(row)
    ]
    rate = network.snapshot.learning_rate
    if not rate or len(kernels) < 2:
        return []
    kept = math.sqrt(network.persistence)
    steps = [
        rate / row.stats.weight_rms * (1.0 if network.adaptive else row.stats.gradient_rms * kept) for row in kernels
    ]
    together = len(steps) * sum(steps)
    if not together >= thresholds.normalised_steps_bad:
        return []
    group = remedies.alike(network, kernels)
    return [
        finding(
            "update-ratio",
            "bad",
            kernels[0].path,
            f"a layer normalisation hides how small the weights of {several([row.path for row in kernels])} are: the "
            f"first update will change each by {num(sum(steps) / len(steps))} of its size, all {len(steps)} at once",
            observed=together,
            expected=1.0,
            threshold=thresholds.normalised_steps_bad,
            unit="kernels x sum of rms(update) / rms(weight)",
            layers=[row.path for row in group],
            affected=[row.path for row in kernels],
            learning_rate=rate,
            remedy=remedies.for_kernels(network, group),
        )
    ]


def _least_rms(row: Row) -> float:
    """Rms of a small random start: a weight below it starts from zero, and moves by any multiple of its size."""
    return 0.1 / math.sqrt(row.fan_in)


def fan_mismatch(network: Network, thresholds: Thresholds) -> list[Finding]:
    """The scheme was given the wrong fans for this layer: depthwise, grouped, transposed convolution, experts.

    It is claimed only where the weight has the variance that the wrong fans give: loaded weights are left alone.
    """
    found: list[tuple[float, Row]] = []
    for row in network.layers:
        info = row.info
        if not row.has_kernel or any(word in info.kind for word in _RECURRENT) or network.normalised_after(row):
            continue
        ratio = _fan_ratio(row)
        if ratio is not None and max(ratio, 1.0 / ratio) >= thresholds.fan_ratio:
            found.append((ratio, row))
    # Layer after layer the factors multiply; a single stride of two (0.71) is nobody's trouble.
    if not found or abs(sum(math.log(ratio) for ratio, _ in found)) < math.log(thresholds.fan_ratio_together):
        return []
    ratio, worst = max(found, key=lambda pair: abs(math.log(pair[0])))
    rows = [row for _, row in found]
    group = list(remedies.alike(network, rows))
    if worst not in group:
        group = [worst]
    assumed = remedies.shape_fans(worst.info.weight_shape)
    where = several([worst.path, *(row.path for row in rows if row is not worst)])
    true = f"{num(worst.info.fan_in or 0.0)} and {num(worst.info.fan_out or 0.0)}"
    return [
        finding(
            "fan-mismatch",
            "warning",
            worst.path,
            f"{worst.info.initializer or 'the scheme'} read fans of {num(assumed[0])} and {num(assumed[1])} off the "
            f"shape of the kernel at {where}; they are {true}, so the weights are {num(ratio)} times what it means",
            observed=worst.stats.weight_rms,
            expected=worst.stats.weight_rms / ratio,
            threshold=thresholds.fan_ratio,
            unit="rms of the weights",
            layers=[row.path for row in group],
            affected=[row.path for row in rows],
            fans_assumed=list(assumed),
            fans_true=[worst.info.fan_in, worst.info.fan_out],
            ratio=ratio,
            remedy=remedies.for_kernels(network, group),
        )
    ]


def _fan_ratio(row: Row) -> float | None:
    """Std of the weight over the std that its scheme means; None unless the wrong fans explain it."""
    info = row.info
    if info.fan_in is None or info.fan_out is None or (not remedies.misread(info) and _strided(info)):
        return None
    assumed = _assumed_fans(info)
    if info.initializer is not None:
        laws = [_law(info.initializer, info.initializer_config, info.gain)]
    else:  # some layers do not tell theirs: a common scheme with the wrong fans gives itself away by its variance
        laws = list(_SCHEMES.values()) if remedies.misread(info) else []
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
    ratio = remedies.shape_fans(info.weight_shape)[1] / (info.fan_out or 1.0)
    return math.isclose(ratio, round(math.sqrt(max(ratio, 0.0))) ** 2, rel_tol=1e-6)


def _assumed_fans(info: LayerInfo) -> tuple[float, float] | None:
    """The fans that the initializer worked with: by its axes where it has them, else by the shape."""
    inputs, outputs = info.initializer_config.get("input_axes"), info.initializer_config.get("output_axes")
    if inputs is None or outputs is None:
        return remedies.shape_fans(info.weight_shape)
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
            f"{several([row.path for row in fresh])} will never be trained, and the weights look freshly drawn "
            f"({fresh[0].info.initializer}): load the weights that it was frozen for, or set trainable = True"
        )
        found.append(_no_gradient("warning", fresh[0].path, message, fresh, "frozen at random"))
    lost = [row for row in trained if not row.info.reached]
    if lost:
        message = (
            f"the loss does not reach {several([row.path for row in lost])}: trainable weights that nothing will move"
        )
        severity: Severity = "bad" if len(lost) == len(trained) else "warning"
        return [*found, _no_gradient(severity, lost[0].path, message, lost, "disconnected")]
    matrices = [row for row in trained if len(row.info.weight_shape) >= 2 and not math.isnan(row.stats.gradient_rms)]
    # A zero-initialised head starves what is below it for one step, and gets a gradient itself: then not all are zero.
    if matrices and all(row.stats.gradient_rms == 0.0 and not row.stats.gradient_nonfinite > 0.0 for row in matrices):
        last = matrices[-1]
        message = (
            f"the gradient of every kernel is exactly zero, that of {last.path} included: "
            "the loss does not change with the outputs"
        )
        return [*found, _no_gradient("bad", last.path, message, matrices, "flat")]
    return found


def _freshly_drawn(row: Row) -> bool:
    """Whether a weight still has the variance of its uniform initializer, and keeps within the edges of that.

    Training moves some weight over an edge long before it changes the variance; of a distribution without edges, or
    with few weights near them, nothing is said.
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
