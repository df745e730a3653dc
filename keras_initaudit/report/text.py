"""A report for a terminal of 80 columns, at most a screenful."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from ..numerals import count
from ..records import Finding, Trial
from . import parts, trials
from .formatting import WIDTH, sentence, shorten, wrap
from .svg import clean, layer_rows

if TYPE_CHECKING:
    from .report import Report

_FULL_FINDINGS = 3
_TABLE_ROWS = 12
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
        lines += [shorten(f"also {parts.title(report, finding)}", WIDTH) for finding in rest[:4]]
        if len(rest) > 4:
            lines.append(f"and {count(len(rest) - 4, 'more finding')}; to_markdown() shows them all")
    if report.ignored:
        titles = [f"ignored {parts.title(report, finding)}" for finding in report.ignored]
        more = [f"and {len(titles) - 4} more ignored"] if len(titles) > 4 else []
        lines += ["", *(shorten(title, WIDTH) for title in titles[:4]), *more]
    return "\n".join([*lines, "", *_table(report)])


def _table(report: Report) -> list[str]:
    chosen = parts.chosen(report, _TABLE_ROWS)
    if not chosen:
        return []
    rules, cells = parts.rules_by_path(report), [list(parts.HEADERS)]
    for info, row in chosen:
        cells.append([clean(info.path), *parts.cells(row), rules.get(info.path, [""])[0]])
    widths = [max(len(line[i]) for line in cells) for i in range(len(parts.HEADERS))]
    widths[0] = max(5, min(widths[0], WIDTH - sum(widths[1:]) - 2 * (len(widths) - 1)))
    lines = []
    for line in cells:
        first = shorten(line[0], widths[0], middle=True).ljust(widths[0])
        numbers = [cell.rjust(width) for cell, width in zip(line[1:-1], widths[1:-1], strict=True)]
        lines.append("  ".join([first, *numbers, line[-1]]).rstrip())
    hidden = len(layer_rows(report.snapshot)) - len(chosen)
    more = f"; {count(hidden, 'more layer')} not shown" if hidden > 0 else ""
    now = f"after {count(report.step, 'update')}: " if report.step else ""
    return [*lines, *wrap(f"({now}{parts.LEGEND}{more})", "")]


def _finding_lines(report: Report, finding: Finding, paint: bool) -> list[str]:
    title = shorten(parts.title(report, finding), WIDTH)
    lines = [f"{_COLOUR[finding.severity]}{title}{_RESET}" if paint else title]
    lines += wrap(sentence(clean(finding.message)) + clean(parts.leads_to(finding)), "  ")
    if finding.severity == "note":
        return lines
    if finding.remedy:
        lines += wrap(clean(parts.remedy_title(finding)), "  ")
        lines += [f"      {clean(line)}" for line in finding.remedy.splitlines()]
    proof, trial = parts.proof(report, finding), trials.beside(report, finding)
    if proof:
        lines += wrap(f"Measured: {sentence(clean(proof))}", "  ")
    return lines if trial is None else [*lines, *_trial_lines(report, trial)]


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
