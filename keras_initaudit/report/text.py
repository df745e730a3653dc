"""A report for a terminal of 80 columns, at most a screenful."""

from __future__ import annotations

import dataclasses
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..names import LEAST, shortened
from ..numerals import count
from ..records import Finding, Trial
from . import parts, trials
from .formatting import WIDTH, shorten, wrap
from .quantities import quantities
from .svg import clean

if TYPE_CHECKING:
    from .report import Report

_FULL_FINDINGS = 3
_TABLE_ROWS = 12
_NAME = 12
"""Columns that a name has at least: a rule is cut before it is."""
_LONGEST_REASON = 200
"""Characters, three lines: the reason for which nothing was tried may be the text of any error."""
_BOLD, _RESET = "\x1b[1m", "\x1b[0m"
_COLOUR = {"bad": "\x1b[31m", "warning": "\x1b[33m", "healthy": "\x1b[32m", "note": "\x1b[36m"}


def text(report: Report, *, color: bool | None = None) -> str:
    """See `Report.text`."""
    paint = _terminal() if color is None else color
    verdict = f"{_BOLD}{_COLOUR[report.verdict]}" if paint else ""
    lines = [f"{verdict}{line}{_RESET if paint else ''}" for line in wrap(f"Init Audit: {report.headline}", "")]
    lines.append(f"  {parts.measured(report.snapshot)}")
    for said in trials.by_limits(report):
        lines += wrap(shorten(clean(said), _LONGEST_REASON), "  ")
    findings = parts.listed(report)
    for finding in findings[:_FULL_FINDINGS]:
        lines += ["", *_finding_lines(report, finding, paint)]
    rest = findings[_FULL_FINDINGS:]
    if rest:
        lines.append("")
        lines += _titles(report, rest[:4], "also")
        if len(rest) > 4:
            lines.append(f"and {count(len(rest) - 4, 'more finding')}; to_markdown() shows them all")
    if report.ignored:
        hidden = len(report.ignored) - 4
        lines += ["", *_titles(report, report.ignored[:4], "ignored")]
        lines += [f"and {hidden} more ignored"] if hidden > 0 else []
    return "\n".join([*lines, "", *_table(report)])


def _table(report: Report) -> list[str]:
    table = parts.table(report, _TABLE_ROWS)
    if not table.names:
        return []
    found = [table.headers[-1], *(rules[0] if rules else "" for rules in table.rules)]
    if _room(table) - max(map(len, found)) < max(map(len, table.names)) and not _shows(report, "spread"):
        table = table.without("spread")  # a name says more
    names = [table.headers[0], *shortened(table.names, max(_NAME, _room(table) - max(map(len, found))))]
    width = max(map(len, names))
    found = shortened(found, max(LEAST, _room(table) - width))
    lines = []
    for name, numbers, rule in zip(names, [table.headers[1:-1], *table.numbers], found, strict=True):
        cells = [cell.rjust(wide) for cell, wide in zip(numbers, _widths(table), strict=True)]
        lines.append("  ".join([name.ljust(width), *cells, rule]).rstrip())
    now = f"after {count(report.step, 'update')}; " if report.step else ""
    more = f"; {count(table.hidden, 'more layer')} not shown" if table.hidden else ""
    return [*lines, *wrap(f"({now}{table.legend}{more})", "")]


def _widths(table: parts.Table) -> list[int]:
    """Of the columns of numbers."""
    return [max(map(len, column)) for column in zip(table.headers[1:-1], *table.numbers, strict=True)]


def _room(table: parts.Table) -> int:
    """What the columns of numbers leave for the name and the finding."""
    widths = _widths(table)
    return WIDTH - sum(widths) - 2 * (len(widths) + 1)


def _shows(report: Report, header: str) -> bool:
    """Whether a column shows the worst finding."""
    return any(quantity.header == header for quantity in quantities(parts.worst(report)))


def _titles(report: Report, findings: Sequence[Finding], first: str) -> list[str]:
    """The titles of findings, a line each."""
    before = [f"{first} {parts.title(report, dataclasses.replace(finding, layer=None))}" for finding in findings]
    room = WIDTH - len(" at ") - max(map(len, before))
    names = shortened([clean(finding.layer) for finding in findings], max(LEAST, room))
    return [f"{title} at {name}" if name else title for title, name in zip(before, names, strict=True)]


def _finding_lines(report: Report, finding: Finding, paint: bool) -> list[str]:
    titles = wrap(parts.title(report, finding), "")  # a long path is whole here
    lines = [f"{_COLOUR[finding.severity]}{title}{_RESET}" if paint else title for title in titles]
    lines += wrap(parts.message(finding), "  ")
    note = finding.severity == "note"
    if finding.remedy and not note:
        lines += wrap(clean(parts.remedy_title(finding)), "  ")
        lines += [f"      {clean(line)}" for line in finding.remedy.splitlines()]
    trial = trials.beside(report, finding)
    for said in trials.harmless(report, finding) if note else trials.measured(report, finding):
        lines += wrap(said, "  ")
    return lines if trial is None or note else [*lines, *_trial_lines(report, trial)]


def _trial_lines(report: Report, trial: Trial) -> list[str]:
    signs = (trials.BLOCKS, trials.CROSS) if _has_blocks() else (trials.BLOCKS_ASCII, trials.CROSS_ASCII)
    drawn = trials.lines(trial, trials.other_start(report, trial), *signs)
    widths = [max(len(cell) for cell in column) for column in zip(*drawn, strict=True)]
    lines = [f"  {one.name:{widths[0]}}  {one.first:>{widths[1]}} {one.levels} {one.last}" for one in drawn]
    limit = trials.budget(trial)
    return [*lines, *wrap(limit, "  ")] if limit else lines


def _has_blocks() -> bool:
    """Whether the output can show the characters of a curve."""
    try:
        (trials.BLOCKS + trials.CROSS).encode(getattr(sys.stdout, "encoding", None) or "utf-8")
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def _terminal() -> bool:
    return not os.environ.get("NO_COLOR") and bool(getattr(sys.stdout, "isatty", lambda: False)())
