"""Parts that all forms of a report share: which layers are shown, their numbers, and the titles of findings.

Names of layers are untrusted text, which each form escapes.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from ..numerals import count, num
from ..records import Finding, LayerInfo, Snapshot, Statistics, marked_paths
from .formatting import sentence
from .quantities import Quantity, has, quantities
from .svg import clean, layer_rows

if TYPE_CHECKING:
    from .report import Report

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


class Table(NamedTuple):
    """The layers of a report, as every form lists them."""

    headers: list[str]
    """Of the name, of the numbers, of the findings."""
    names: list[str]
    numbers: list[list[str]]
    """Of each layer."""
    rules: list[list[str]]
    """The rules whose findings mark each layer."""
    meanings: list[str]
    """What the numbers are."""
    hidden: int
    """Layers that are not listed."""

    @property
    def legend(self) -> str:
        """What the numbers are, in one line."""
        pairs = zip(self.headers[1:-1], self.meanings, strict=True)
        return "; ".join(f"{header}: {meaning}" for header, meaning in pairs)

    def without(self, header: str) -> Table:
        """The table without a column of numbers, if it has it."""
        if header not in self.headers[1:-1]:
            return self
        at = self.headers.index(header)
        headers = [*self.headers[:at], *self.headers[at + 1 :]]
        numbers = [[*line[: at - 1], *line[at:]] for line in self.numbers]
        meanings = [*self.meanings[: at - 1], *self.meanings[at:]]
        return Table(headers, self.names, numbers, self.rules, meanings, self.hidden)


def table(report: Report, room: int) -> Table:
    """At most `room` layers, with the numbers that any of them has, and with what shows the worst finding."""
    rows, rules = chosen(report, room), rules_by_path(report)
    usual = {column.header for column in _USUAL}
    more = [quantity for quantity in quantities(worst(report)) if quantity.header not in usual]
    columns = [(one.header, one.meaning, [one.cell(row) for _, row in rows]) for one in _USUAL]
    columns[-1:-1] = [(one.header, one.title, _cells(report, one, rows)) for one in more]
    columns = [column for column in columns if any(column[-1])]
    shown = {info.path for info, _ in rows}
    return Table(
        ["layer", *(header for header, *_ in columns), "finding"],
        [clean(info.path) for info, _ in rows],
        [[cells[i] for *_, cells in columns] for i in range(len(rows))],
        [rules.get(info.path, []) for info, _ in rows],
        [meaning for _, meaning, _ in columns],
        sum(info.path not in shown for info, _ in layer_rows(report.snapshot)),
    )


def worst(report: Report) -> Finding | None:
    """The finding that the pictures and the table show."""
    return next(iter(listed(report)), None)


def chosen(report: Report, room: int) -> list[tuple[LayerInfo, Statistics]]:
    """At most `room` layers, in order: those that a finding names first, then evenly from the rest.

    The layers with a weight, and the rows that a finding marks, as the gates of a layer or the data.
    """
    marked = rules_by_path(report)
    pairs = zip(report.snapshot.layers, report.snapshot.statistics, strict=True)
    rows = [(info, row) for info, row in pairs if (info.role == "layer" and info.weight) or info.path in marked]
    rows = rows or layer_rows(report.snapshot)
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


class _Column(NamedTuple):
    header: str
    meaning: str
    cell: Callable[[Statistics], str]


def _measured(column: str, nonfinite: str = "") -> Callable[[Statistics], str]:
    """The cell of a statistic; `nonfinite` is the column that says how much of it is not finite."""

    def cell(row: Statistics) -> str:
        if nonfinite and getattr(row, nonfinite) > 0.0:
            return "not finite"
        value: float = getattr(row, column)
        return "" if math.isnan(value) else num(value, DIGITS)

    return cell


_USUAL = (
    _Column("output", "rms", _measured("activation_rms", "activation_nonfinite")),
    _Column("spread", "standard deviation over samples / rms", _measured("activation_spread")),
    _Column("gradient", "rms of dL/d(output)", _measured("backward_rms", "backward_nonfinite")),
    _Column("weights", "rms", _measured("weight_rms", "weight_nonfinite")),
    _Column("update", "log10(last update / weights)", _measured("update_log10")),
)


def _cells(report: Report, quantity: Quantity, rows: Sequence[tuple[LayerInfo, Statistics]]) -> list[str]:
    """What shows the worst finding, of each row that it is shown of."""
    finding = worst(report)
    return [quantity.text(row) if finding and has(quantity, finding, info, row) else "" for info, row in rows]


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


def message(finding: Finding) -> str:
    """The sentence of a finding, and what follows from it. The name of a layer keeps its case."""
    return sentence(clean(finding.message), clean(finding.layer)) + clean(leads_to(finding))


def leads_to(finding: Finding) -> str:
    """A sentence on what follows from a finding; empty where nothing does."""
    if finding.evidence.get("origin") == "data":
        return ""  # what is measured in the layers after it follows from the data
    rules = dict.fromkeys(str(c["rule"]) for c in finding.evidence.get("consequences", ()))
    return f" It leads to {', '.join(rules)}." if rules else ""


def remedy_title(finding: Finding) -> str:
    """The line above a remedy: the layers that it changes."""
    # A kernel of a layer (`lstm/recurrent_kernel`) has a row of its own, and an argument of the layer starts it.
    changed: tuple[str, ...] = getattr(finding.action, "layers", ())
    layers = list(dict.fromkeys(re.sub(r"/\w*kernel$", "", path) for path in changed))
    if len(layers) > 3:
        layers = [*layers[:2], f"{len(layers) - 2} more layers"]
    *first, last = layers or [""]
    return f"Remedy for {', '.join(first)}{' and ' if first else ''}{last}:" if last else "Remedy:"
