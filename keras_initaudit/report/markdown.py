"""A report as GitHub-flavoured markdown: all findings, then the layers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import parts, trials
from .formatting import code_md, escape_md, fence, sentence

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
        lines.append(f"{escape_md(sentence(finding.message))}{escape_md(parts.leads_to(finding))}")
        if finding.remedy:
            quotes = fence(finding.remedy)
            lines += ["", f"{escape_md(parts.remedy_title(finding))}", "", f"{quotes}python", finding.remedy, quotes]
        proof, trial = parts.proof(report, finding), trials.beside(report, finding)
        if proof:
            lines += ["", f"Measured: {escape_md(sentence(proof))}"]
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
    chosen, rules = parts.chosen(report, _TABLE_ROWS), parts.rules_by_path(report)
    if chosen:
        lines += ["", f"| {' | '.join(parts.HEADERS)} |", "|---|" + "---:|" * (len(parts.HEADERS) - 2) + "---|"]
        for info, row in chosen:
            cells = [code_md(info.path), *parts.cells(row), ", ".join(rules.get(info.path, ()))]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"
