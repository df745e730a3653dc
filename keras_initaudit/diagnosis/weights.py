"""Rules about the weights: were they drawn for the right fans, does the loss depend on them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from ..flow import Row
from ..records import LayerInfo, Severity
from . import schemes
from .network import Network
from .rule import Case
from .wording import num, several

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


_COUNTS = 1.3
"""Ratio of the standard deviation to the one that the scheme means with the true fans, from which a layer counts."""


def fan_mismatch(network: Network) -> list[Case]:
    """The scheme was given the wrong fans for this layer: depthwise, grouped, transposed convolution, experts.

    Only where the weight has the variance that the wrong fans give: loaded weights have another one. Layer after layer
    the ratios multiply: their product is the amount, above 1 whether the weights are too large or too small.
    """
    found: list[tuple[float, Row]] = []
    for row in network.layers:
        info = row.info
        # The kernel of a recurrent layer holds its gates side by side, and Keras counts them all as outputs.
        if not row.has_kernel or info.gates or network.normalised_after(row):
            continue
        ratio = _fan_ratio(row)
        if ratio is not None and max(ratio, 1.0 / ratio) >= _COUNTS:
            found.append((ratio, row))
    if not found:
        return []
    ratio, worst = max(found, key=lambda pair: abs(math.log(pair[0])))
    rows = [row for _, row in found]
    change = list(schemes.alike(network, rows))
    info = worst.info
    return [
        Case(
            amount=math.exp(abs(sum(math.log(ratio) for ratio, _ in found))),
            layer=worst.path,
            affected=[worst.path, *(row.path for row in rows if row is not worst)],
            change=change if worst in change else [worst],
            facts={
                "scheme": info.initializer,
                "fans_assumed": list(schemes.shape_fans(info.weight_shape)),
                "fans_true": [info.fan_in, info.fan_out],
                "ratio": ratio,
            },
        )
    ]


def wrong_fans(case: Case) -> str:
    """The words of `fan_mismatch`."""
    assumed, true = (" and ".join(num(f or 0.0) for f in case.facts[name]) for name in ("fans_assumed", "fans_true"))
    return (
        f"{case.facts['scheme'] or 'the scheme'} took the fans {assumed} from the shape of the kernel at "
        f"{several(case.affected)}; the true ones are {true}, so that the weights are {num(case.facts['ratio'])} times "
        "as large as intended"
    )


def _fan_ratio(row: Row) -> float | None:
    """Std of the weight over the std that its scheme means; None unless the wrong fans explain it."""
    info = row.info
    if info.fan_in is None or info.fan_out is None or (not schemes.misread(info) and _strided(info)):
        return None
    assumed = _assumed_fans(info)
    if info.initializer is not None:
        laws = [_law(info.initializer, info.initializer_config, info.gain)]
    else:  # the initializer is not known: a common scheme with the wrong fans shows by its variance
        laws = list(_SCHEMES.values()) if schemes.misread(info) else []
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
    ratio = schemes.shape_fans(info.weight_shape)[1] / (info.fan_out or 1.0)
    return math.isclose(ratio, round(math.sqrt(max(ratio, 0.0))) ** 2, rel_tol=1e-6)


def _assumed_fans(info: LayerInfo) -> tuple[float, float] | None:
    """The fans that the initializer worked with: by its axes where it has them, else by the shape."""
    inputs, outputs = info.initializer_config.get("input_axes"), info.initializer_config.get("output_axes")
    if inputs is None or outputs is None:
        return schemes.shape_fans(info.weight_shape)
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


def no_gradient(network: Network) -> list[Case]:
    """A trainable weight that the loss does not reach, or a loss that gives no gradient to any weight.

    Exactly zero is exactly zero: there is nothing to tune.
    """
    weighted = [row for row in network.rows if row.info.role in ("layer", "weight") and row.info.weight is not None]
    trained = [row for row in weighted if row.info.trainable]
    if weighted and not trained:
        return [_no_gradient("bad", None, weighted, "frozen")]
    fresh = [row for row in weighted if not row.info.trainable and _freshly_drawn(row)]
    found = []
    if fresh:
        found.append(_no_gradient("warning", fresh[0].path, fresh, "frozen at random"))
    lost = [row for row in trained if not row.info.reached]
    if lost:
        severity: Severity = "bad" if len(lost) == len(trained) else "warning"
        return [*found, _no_gradient(severity, lost[0].path, lost, "disconnected")]
    matrices = [row for row in trained if len(row.info.weight_shape) >= 2 and not math.isnan(row.stats.gradient_rms)]
    # A zero-initialised head starves what is below it for one step, and gets a gradient itself: then not all are zero.
    flat = all(row.stats.gradient_rms == 0.0 and not row.stats.gradient_nonfinite > 0.0 for row in matrices)
    if matrices and flat and not network.opening:
        return [*found, _no_gradient("bad", matrices[-1].path, matrices, "flat")]
    return found


def _no_gradient(severity: Severity, layer: str | None, rows: list[Row], reason: str) -> Case:
    drawn_by = rows[0].info.initializer
    return Case(
        amount=0.0,
        layer=layer,
        affected=[row.path for row in rows],
        severity=severity,
        facts={"reason": reason} | ({"drawn_by": drawn_by} if reason == "frozen at random" else {}),
    )


def unreached(case: Case) -> str:
    """The words of `no_gradient`."""
    where = several(case.affected)
    words = {
        "frozen": "no weight is trainable: the whole model is frozen",
        "frozen at random": f"the weights of {where} are frozen and look untrained (drawn by "
        f"{case.facts.get('drawn_by')}): load trained weights, or set trainable = True",
        "disconnected": f"the loss does not reach {where}: trainable weights that get no gradient",
        "flat": f"the gradient of every kernel is exactly zero, that of {case.layer} included: "
        "the loss does not change with the outputs",
    }
    return words[case.facts["reason"]]


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
