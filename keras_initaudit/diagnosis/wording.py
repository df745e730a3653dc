"""How findings are put together: the names of layers in a sentence, and one shape of evidence."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from ..numerals import count as plural
from ..numerals import num, percent
from ..records import Finding, Severity
from ..records.remedies import Reinitialize, Remedy, SetBias


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


__all__ = ["finding", "num", "percent", "plural", "several"]
