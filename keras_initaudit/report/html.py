"""A report for a notebook: headline, findings, depth profile, table; self-contained, no script."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from ..records import Finding
from . import colours, parts, trials
from .formatting import sentence
from .svg import clean, profile_svg

if TYPE_CHECKING:
    from .report import Report

_TABLE_ROWS = 40


def html(report: Report) -> str:
    """See `Report._repr_html_`."""
    colour = colours.VERDICT[report.verdict]
    made = [
        f'<div style="font-family:system-ui,sans-serif;max-width:60em;border-left:4px solid {colour};'
        'padding-left:12px">',
        f'<div style="font-size:1.15em;font-weight:600;color:{colour}">{parts.MARK[report.verdict]} Init Audit: '
        f"{escape(clean(report.headline))}</div>",
        f"<div>{escape(clean(parts.measured(report.snapshot)))}</div>",
    ]
    made += [f"<div>{escape(clean(said))}</div>" for said in trials.by_limits(report)]
    made += [_finding_html(report, finding) for finding in parts.listed(report)]
    made += [f"<div>ignored {escape(parts.title(report, finding))}</div>" for finding in report.ignored]
    made += [profile_svg(report.snapshot), _table(report), "</div>"]
    return "".join(made)


def _table(report: Report) -> str:
    rules, rows = parts.rules_by_path(report), []
    for info, row in parts.chosen(report, _TABLE_ROWS):
        numbers = "".join(f'<td style="text-align:right">{cell}</td>' for cell in parts.cells(row))
        name, found = escape(clean(info.path)), escape(", ".join(rules.get(info.path, ())))
        rows.append(f'<tr><td style="text-align:left">{name}</td>{numbers}<td>{found}</td></tr>')
    head = "".join(f"<th>{name}</th>" for name in parts.HEADERS)
    caption = f'<caption style="caption-side:bottom;font-size:.85em">{parts.LEGEND}</caption>'
    return f"<table>{caption}<thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>" if rows else ""


def _finding_html(report: Report, finding: Finding) -> str:
    where = f" at <code>{escape(clean(finding.layer))}</code>" if finding.layer else ""
    text = escape(sentence(clean(finding.message)) + clean(parts.leads_to(finding)))
    severity = f"{parts.MARK[finding.severity]} {finding.severity}{parts.since(report, finding)}"
    severity = f'<span style="color:{colours.VERDICT[finding.severity]}">{severity}</span>'
    made = [
        '<div style="margin:.7em 0">'
        f'<div style="font-weight:600">{severity}: {escape(finding.rule)}{where}</div><div>{text}</div>'
    ]
    if finding.remedy:
        made.append(f"<div>{escape(clean(parts.remedy_title(finding)))}</div>")
        made.append(f'<pre style="margin:.3em 1em;font-family:monospace">{escape(finding.remedy)}</pre>')
    proof, trial = parts.proof(report, finding), trials.beside(report, finding)
    if proof:
        made.append(f"<div>Measured: {escape(sentence(clean(proof)))}</div>")
    if trial is not None:
        limit = trials.budget(trial)
        made += [trials.svg(trial, trials.other_start(report, trial)), *([f"<div>{limit}</div>"] if limit else [])]
    return "".join([*made, "</div>"])
