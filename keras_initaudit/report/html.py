"""A report for a notebook: headline, findings, pictures, table; self-contained, no script, in the theme of the page."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from ..records import Finding, Severity, Verdict
from . import parts, trials
from .colours import colour, themes
from .formatting import sentence
from .svg import clean, profile_svg

if TYPE_CHECKING:
    from .report import Report

_TABLE_ROWS = 40
_STYLE = (
    f"{themes()}"
    ".initaudit{font:14px/1.45 system-ui,sans-serif;max-width:60em;padding:10px 14px;border-left:4px solid;"
    "color:var(--ia-text);background:var(--ia-surface)}"
    ".initaudit h3,.initaudit h4{margin:.9em 0 .2em;font-size:1em;font-weight:600;line-height:1.3}"
    ".initaudit h3{margin-top:0;font-size:1.15em}.initaudit style+section h4{margin-top:0}"
    ".initaudit p,.initaudit figure{margin:.2em 0}"
    ".initaudit pre{margin:.3em 0;padding:.3em .6em;overflow-x:auto;border:1px solid var(--ia-line);"
    "font-family:monospace;color:var(--ia-text);background:var(--ia-surface)}"
    ".initaudit code{font-family:monospace;color:inherit;background:none}"
    ".initaudit .ia-more{color:var(--ia-muted);font-size:.9em}"
    ".initaudit table{margin:.6em 0;border-collapse:collapse;color:var(--ia-text);background:var(--ia-surface)}"
    ".initaudit caption{caption-side:bottom;text-align:left;padding:.3em 0;color:var(--ia-muted);font-size:.9em}"
    ".initaudit th,.initaudit td{padding:.1em .6em;text-align:right;font-weight:400;background:var(--ia-surface)}"
    ".initaudit thead th{font-weight:600}.initaudit tr{border-bottom:1px solid var(--ia-line)}"
    ".initaudit th:first-child,.initaudit td:last-child,.initaudit thead th:last-child{text-align:left}"
    + "".join(f".initaudit .ia-{name}{{color:var(--ia-{name})}}" for name in ("bad", "warning", "healthy", "note"))
)
"""Colours come from `themes`, and the background too: so the contrast does not depend on the page around it."""


def html(report: Report) -> str:
    """See `Report._repr_html_`."""
    headline = f"{_mark(report.verdict)} Init Audit: {escape(clean(report.headline))}"
    made = [
        f'<div class="initaudit" style="border-color:{colour(report.verdict)}"><style>{_STYLE}</style>',
        f'<h3 class="ia-{report.verdict}">{headline}</h3>',
        *map(_paragraph, (parts.measured(report.snapshot), *trials.by_limits(report))),
        *(_in_report(report, finding) for finding in parts.listed(report)),
        *(_paragraph(f"ignored {parts.title(report, finding)}") for finding in report.ignored),
    ]
    picture = profile_svg(report.snapshot, parts.worst(report))
    return "".join([*made, f"<figure>{picture}</figure>" if picture else "", _table(report), "</div>"])


def finding_html(finding: Finding) -> str:
    """A finding alone for a notebook: what, where, the remedy and its proof, the reference."""
    made = _finding(finding, "", [f"Measured: {sentence(clean(finding.proof))}"] if finding.proof else [], "")
    return f'<div class="initaudit" style="border-color:{colour(finding.severity)}"><style>{_STYLE}</style>{made}</div>'


def _in_report(report: Report, finding: Finding) -> str:
    said = [*trials.measured(report, finding), *trials.harmless(report, finding)]
    trial = trials.beside(report, finding)
    curves = ""
    if trial is not None:
        limit = trials.budget(trial)
        picture = trials.svg(trial, trials.other_start(report, trial))
        curves = f"<figure>{picture}</figure>{_paragraph(limit) if limit else ''}"
    return _finding(finding, parts.since(report, finding), said, curves)


def _finding(finding: Finding, since: str, said: list[str], curves: str) -> str:
    where = f" at <code>{escape(clean(finding.layer))}</code>" if finding.layer else ""
    title = f"{_mark(finding.severity)} {finding.severity}{since}: {escape(finding.rule)}{where}"
    made = [f'<h4 class="ia-{finding.severity}">{title}</h4>']
    made.append(_paragraph(parts.message(finding)))
    if finding.remedy:
        made.append(_paragraph(parts.remedy_title(finding)))
        made.append(f"<pre>{escape(finding.remedy)}</pre>")
    made += [*map(_paragraph, said), curves]
    if finding.reference:
        made.append(f'<p class="ia-more">{escape(clean(finding.reference))}</p>')
    return f"<section>{''.join(made)}</section>"


def _mark(verdict: Verdict | Severity) -> str:
    """The sign of a verdict, which the word after it says too."""
    return f'<span aria-hidden="true">{parts.MARK[verdict]}</span>'


def _paragraph(text: str) -> str:
    return f"<p>{escape(clean(text))}</p>"


def _table(report: Report) -> str:
    table, rows = parts.table(report, _TABLE_ROWS), []
    if not table.names:
        return ""
    for name, numbers, rules in zip(table.names, table.numbers, table.rules, strict=True):
        cells = "".join(f"<td>{escape(cell)}</td>" for cell in (*numbers, ", ".join(rules)))
        rows.append(f'<tr><th scope="row"><code>{escape(name)}</code></th>{cells}</tr>')
    head = "".join(f'<th scope="col">{name}</th>' for name in table.headers)
    hidden = f"; {table.hidden} more not shown" if table.hidden else ""
    caption = f"<caption>{escape(table.legend)}{hidden}</caption>"
    return f"<table>{caption}<thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"


Finding._repr_html_ = finding_html  # type: ignore[attr-defined]  # a notebook asks the class; a record knows no HTML
