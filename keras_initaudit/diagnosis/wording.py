"""How findings are worded and put together: short numbers, counted nouns, one shape of evidence."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

from ..records import Finding, Severity
from ..records.remedies import Reinitialize, Remedy, SetBias


def num(value: float) -> str:
    """A number as a person says it: two digits, 3.6e-7 and not 3.6e-07, 140 and not 1.4e+02."""
    if not math.isfinite(value):
        return str(value)
    if value == 0.0:
        return "0"
    size = abs(value)
    if 0.01 <= size < 1e4:
        digits = max(0, 1 - math.floor(math.log10(size)))
        text = f"{value:.{digits}f}"
        return text.rstrip("0").rstrip(".") if "." in text else text
    mantissa, exponent = f"{value:.1e}".split("e")
    return f"{mantissa.removesuffix('.0')}e{int(exponent)}"


def percent(fraction: float) -> str:
    """A fraction as a percentage that says 100 % only when it is all of it."""
    text = f"{100.0 * fraction:.0f}"
    return "over 99 %" if text == "100" and fraction < 1.0 else f"{text} %"


def plural(count: int, noun: str) -> str:
    """`1 layer`, `30 layers`."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def several(paths: Sequence[str]) -> str:
    """One path, or the first and how many more."""
    return paths[0] if len(paths) == 1 else f"{paths[0]} and {len(paths) - 1} more"


def finding(
    rule: str,
    severity: Severity,
    layer: str | None,
    message: str,
    *,
    observed: Any,
    expected: Any,
    threshold: Any,
    unit: str,
    layers: Sequence[str] = (),
    affected: Sequence[str] = (),
    remedy: Remedy | None = None,
    **more: Any,
) -> Finding:
    """A finding whose evidence has the fields that every finding has.

    `layers` are those that the remedy changes, `affected` those that the fault touches (`layers` where not given).
    """
    if isinstance(remedy, Reinitialize | SetBias):
        remedy = dataclasses.replace(remedy, layers=tuple(layers))
    evidence = {
        "observed": observed,
        "expected": expected,
        "threshold": threshold,
        "unit": unit,
        "layers": list(layers),
        "affected": list(affected or layers or ([layer] if layer else [])),
        **more,
    }
    return Finding(rule, severity, layer, message, evidence).with_remedy(remedy)
