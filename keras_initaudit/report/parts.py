"""Parts that all forms of a report share: which layers are shown, their numbers, and the titles of findings.

Names of layers are untrusted text, which each form escapes.
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING

from ..numerals import count, num
from ..records import Finding, LayerInfo, Snapshot, Statistics, marked_paths
from ..records.remedies import Reinitialize, SetBias
from .svg import clean, layer_rows

if TYPE_CHECKING:
    from .report import Report

HEADERS = ("layer", "output", "spread", "gradient", "weights", "log update", "finding")
LEGEND = (
    "rms of the output, its spread over samples, rms of dL/d(output) and of the weights, log10 of the last update "
    "over the weights"
)
MARK = {"bad": "\u2716", "warning": "\u26a0", "healthy": "\u2714", "note": "\u2139"}
"""Verdict -> its sign."""
DIGITS = 3
"""Of a number in a table; a sentence has two."""


def measured(snapshot: Snapshot) -> str:
    """One line: the loss, the samples, the optimizer."""
    said = [f"loss {num(snapshot.loss, DIGITS)}" if _loss_is_known(snapshot) else "loss not known"]
    if snapshot.baseline_loss is not None:
        said[0] += f" (a model that knows nothing: {num(snapshot.baseline_loss, DIGITS)})"
    if snapshot.batch_size:
        said.append(count(snapshot.batch_size, "sample"))
    if snapshot.optimizer:
        rate = "" if snapshot.learning_rate is None else f" at {num(snapshot.learning_rate)}"
        said.append(f"{snapshot.optimizer}{rate}")
    return ", ".join(said)


def listed(report: Report) -> list[Finding]:
    """The findings in their order, notes last."""
    return sorted(report.findings, key=lambda finding: finding.severity == "note")


def proof(report: Report, finding: Finding) -> str | None:
    """The proof of a finding, where no finding before it has the same: findings of one trial share its sentence."""
    first = next((f for f in listed(report) if f.proof == finding.proof), None)
    return finding.proof if first is finding else None


def rules_by_path(report: Report) -> dict[str, list[str]]:
    """Path of a row -> the rules whose findings mark it."""
    rules: dict[str, list[str]] = {}
    for finding in listed(report):
        for path in marked_paths(finding):
            if finding.rule not in rules.setdefault(path, []):
                rules[path].append(finding.rule)
    return rules


def chosen(report: Report, room: int) -> list[tuple[LayerInfo, Statistics]]:
    """At most `room` layers, in order: those that a finding names first, then evenly from the rest."""
    rows = [row for row in layer_rows(report.snapshot) if row[0].weight] or layer_rows(report.snapshot)
    if len(rows) <= room:
        return rows
    named = {f.layer for f in report.findings}
    spots = [round(i * (len(rows) - 1) / (room - 1)) for i in range(room)]
    wanted = [i for i, (info, _) in enumerate(rows) if info.path in named]
    keep = {0, len(rows) - 1, *wanted[: room - 2]}
    for spot in sorted(spots, key=lambda s: -min((abs(s - k) for k in keep), default=0)):
        if len(keep) < room:
            keep.add(spot)
    return [rows[i] for i in sorted(keep)]


def cells(row: Statistics) -> list[str]:
    """The numbers of a layer, as its line in the table has them."""
    values = (row.activation_rms, row.activation_spread, row.backward_rms, row.weight_rms, row.update_log10)
    broken = (row.activation_nonfinite > 0.0, False, row.backward_nonfinite > 0.0, row.weight_nonfinite > 0.0, False)
    return [
        "not finite" if bad else "" if math.isnan(v) else num(v, DIGITS) for v, bad in zip(values, broken, strict=True)
    ]


def _loss_is_known(snapshot: Snapshot) -> bool:
    """False where the loss is NaN, and nothing else is: the training step does not show its loss then."""
    broken = any(row.activation_nonfinite > 0.0 or row.backward_nonfinite > 0.0 for row in snapshot.statistics)
    return broken or not math.isnan(snapshot.loss)


def found_at(report: Report, finding: Finding) -> int:
    """The step of the audit that found it. A finding of the first audit names no step."""
    first = report.step if report.first_step is None else report.first_step
    return int(finding.evidence.get("step", first))


def since(report: Report, finding: Finding) -> str:
    """The step of a finding where the report is of a later one: its numbers are not those of the table."""
    found = found_at(report, finding)
    return "" if found == report.step else f" at step {found}"


def title(report: Report, finding: Finding) -> str:
    """The title of a finding, in plain text."""
    where = f" at {clean(finding.layer)}" if finding.layer else ""
    return f"{finding.severity}{since(report, finding)}: {finding.rule}{where}"


def leads_to(finding: Finding) -> str:
    """A sentence on what follows from a finding; empty where nothing does."""
    if finding.evidence.get("origin") == "data":
        return ""  # what is measured in the layers after it follows from the data
    rules = dict.fromkeys(str(c["rule"]) for c in finding.evidence.get("consequences", ()))
    return f" It leads to {', '.join(rules)}." if rules else ""


def remedy_title(finding: Finding) -> str:
    """The line above a remedy: the layers that it changes."""
    if not isinstance(finding.action, Reinitialize | SetBias):
        return "Remedy:"
    # A kernel of a layer (`lstm/recurrent_kernel`) has a row of its own, and an argument of the layer starts it.
    layers = list(dict.fromkeys(re.sub(r"/\w*kernel$", "", path) for path in finding.action.layers))
    if len(layers) <= 3:
        return f"Remedy, for {', '.join(layers)}:"
    return f"Remedy, for {layers[0]}, {layers[1]} and {len(layers) - 2} more layers:"
