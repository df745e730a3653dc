"""A report as GitHub-flavoured markdown: all findings, then the layers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import parts, trials
from .formatting import code_md, escape_md, fence

if TYPE_CHECKING:
    from .report import Report

_TABLE_ROWS = 40


def markdown(report: Report) -> str:
    """See `Report.to_markdown`."""
    lines = [
        f"**{parts.MARK[report.verdict]} Init Audit: {escape_md(report.headline)}**",
        "",
        escape_md(parts.measured(report.snapshot)),
    ]
    for said in trials.by_limits(report):
        lines += ["", escape_md(said)]
    for finding in parts.listed(report):
        where = f" at {code_md(finding.layer)}" if finding.layer else ""
        since = parts.since(report, finding)
        title = f"{parts.MARK[finding.severity]} {finding.severity}{since}: {finding.rule}{where}"
        lines += ["", f"### {title}", ""]
        lines.append(escape_md(parts.message(finding)))
        if finding.remedy:
            quotes = fence(finding.remedy)
            lines += ["", f"{escape_md(parts.remedy_title(finding))}", "", f"{quotes}python", finding.remedy, quotes]
        trial = trials.beside(report, finding)
        for said in (*trials.measured(report, finding), *trials.harmless(report, finding)):
            lines += ["", escape_md(said)]
        if trial is not None:
            curves = trials.lines(trial, trials.other_start(report, trial))
            drawn = [f"- {one.name}: {one.first} `{one.levels}` {one.last}" for one in curves]
            limit = trials.budget(trial)
            lines += ["", *drawn, *(["", limit] if limit else [])]
        if finding.reference:
            lines += ["", f"*{escape_md(finding.reference)}*"]
    if report.ignored:
        lines.append("")
    for finding in report.ignored:
        where = f" at {code_md(finding.layer)}" if finding.layer else ""
        lines.append(f"- ignored {finding.severity}{parts.since(report, finding)}: {finding.rule}{where}")
    table = parts.table(report, _TABLE_ROWS)
    if table.names:
        lines += ["", f"| {' | '.join(table.headers)} |", "|---|" + "---:|" * (len(table.headers) - 2) + "---|"]
        for name, numbers, rules in zip(table.names, table.numbers, table.rules, strict=True):
            lines.append(f"| {' | '.join([code_md(name), *numbers, ', '.join(rules)])} |")
        lines += ["", f"*{escape_md(table.legend)}*"]
    return "\n".join(lines) + "\n"
