"""What the person reads: one `Report`, as text for a terminal, markdown, HTML for a notebook, and JSON.

The headline comes first, then what is wrong, worst first, each with its remedy, then the layers. It shows and does not
decide: the findings are made elsewhere. Needs no Keras; layer names are untrusted text and are escaped.
"""

from __future__ import annotations

import html
import json
import math
import os
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ..records import (
    COLUMNS,
    Finding,
    LayerInfo,
    Snapshot,
    Statistics,
    Verdict,
    dumps,
    finding_from_json,
    snapshot_from_json,
    to_jsonable,
)
from .formatting import WIDTH, code_md, count, escape_md, fence, num, sentence, shorten, wrap
from .svg import clean, layer_rows, profile_svg

SCHEMA = "keras_initaudit.report"
VERSION = 1
"""Of the JSON form. Fields may be added under one version; a change of meaning gets another."""

_FULL_FINDINGS = 3
_TABLE_ROWS = 12
_BOLD, _RESET = "\x1b[1m", "\x1b[0m"
_COLOUR = {"bad": "\x1b[31m", "warning": "\x1b[33m", "healthy": "\x1b[32m"}
_HEX = {"bad": "#c5221f", "warning": "#b06000", "healthy": "#188038"}
_MARK = {"bad": "\u2716", "warning": "\u26a0", "healthy": "\u2714"}
_AS_BAD_AS: Mapping[str, tuple[Verdict, ...]] = {"warning": ("warning", "bad"), "bad": ("bad",)}
_HEADERS = ("layer", "output", "spread", "gradient", "weights", "log update", "finding")
_LEGEND = (
    "rms of the output, its spread over samples, rms of dL/d(output) and of the weights, log10 of the last update "
    "over the weights"
)


class BadInitializationError(Exception):
    """A verdict that is as bad as was asked for: its text is the report.

    `InitAudit(on_finding="raise")` raises it, before the first update where the fault can be seen there, and
    `Report.raise_for_verdict`.

    Attributes:
        report: The `Report` with the findings.
    """

    def __init__(self, report: Report) -> None:
        super().__init__(f"\n{report}")
        self.report = report

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.report,)  # else a copy, as from another process, is made with the text


@dataclass(frozen=True, repr=False)
class Report:
    """What one audit saw and found.

    Args:
        snapshot: The last audit: every layer at one step.
        findings: What is wrong so far, worst first.
        ignored: What was found and is meant, by the `ignore=` of the audit: it costs no verdict.

    Example:
        >>> from keras_initaudit.records import LayerInfo, Snapshot, Statistics
        >>> report = Report(Snapshot(0, (LayerInfo("dense", 0, kind="Dense"),), (Statistics(activation_rms=0.7),)), ())
        >>> report.verdict
        'healthy'
        >>> Report.from_json(report.to_json()).layers[0]["activation_rms"]
        0.7
    """

    snapshot: Snapshot
    findings: tuple[Finding, ...] = ()
    ignored: tuple[Finding, ...] = ()

    @property
    def verdict(self) -> Verdict:
        """That of the worst finding; `"healthy"` where there is none."""
        severities = {finding.severity for finding in self.findings}
        return "bad" if "bad" in severities else "warning" if severities else "healthy"

    def raise_for_verdict(self, verdict: Literal["warning", "bad"] = "bad") -> Report:
        """Raises where the verdict is as bad as this one; for a test of one's own.

        Args:
            verdict: `"bad"`, or `"warning"` for warnings too.

        Returns:
            The report itself where it is better than that.

        Raises:
            BadInitializationError: The verdict is that bad. The text of the error is the report.
            ValueError: `verdict` is neither.

        Example:
            >>> Report(Snapshot(0, (), ())).raise_for_verdict("warning").verdict
            'healthy'
        """
        if verdict not in _AS_BAD_AS:
            raise ValueError(f'verdict must be "warning" or "bad", got {verdict!r}')
        if self.verdict in _AS_BAD_AS[verdict]:
            raise BadInitializationError(self)
        return self

    @property
    def step(self) -> int:
        """Updates made before the audit: 0 at initialization."""
        return self.snapshot.step

    @property
    def loss(self) -> float:
        """The loss of the audited batch."""
        return self.snapshot.loss

    @property
    def layers(self) -> tuple[dict[str, Any], ...]:
        """A row for each layer: its path, kind, activation, statistics and the rules that name it."""
        return tuple(
            {
                "path": info.path,
                "depth": info.depth,
                "kind": info.kind,
                "activation": info.activation,
                **{name: getattr(row, name) for name in COLUMNS},
                "findings": self._rules_at(info.path),
            }
            for info, row in layer_rows(self.snapshot)
        )

    @property
    def headline(self) -> str:
        """One sentence: the verdict and what it is about."""
        snapshot = self.snapshot
        when = "before the first update" if self.step == 0 else f"after {count(self.step, 'update')}"
        if self.verdict == "healthy":
            but = f", {len(self.ignored)} ignored" if self.ignored else ""
            return f"healthy {when}: nothing found in {count(len(layer_rows(snapshot)), 'layer')}{but}"
        first = self.findings[0]
        more = f" and {len(self.findings) - 1} more" if len(self.findings) > 1 else ""
        subject = f"bad {_at_fault(first)}" if self.verdict == "bad" else "warning"
        return f"{subject} {when}: {first.rule}{f' at {clean(first.layer)}' if first.layer else ''}{more}"

    def __repr__(self) -> str:
        return f"<Report: {self.headline}>"

    def __str__(self) -> str:
        return self.text(color=False)

    def text(self, *, color: bool | None = None) -> str:
        """The report for a terminal of 80 columns, at most a screenful.

        Args:
            color: Whether to colour it; None colours where the output is a terminal and `NO_COLOR` is not set.
        """
        paint = _terminal() if color is None else color
        verdict = f"{_BOLD}{_COLOUR[self.verdict]}" if paint else ""
        lines = [f"{verdict}{line}{_RESET if paint else ''}" for line in wrap(f"Init Audit: {self.headline}", "")]
        lines.append(f"  {self._measured()}")
        for finding in self.findings[:_FULL_FINDINGS]:
            lines += ["", *_finding_lines(finding, paint, self.step)]
        rest = self.findings[_FULL_FINDINGS:]
        if rest:
            lines.append("")
            lines += [shorten(f"also {_title(finding, self.step)}", WIDTH) for finding in rest[:4]]
            if len(rest) > 4:
                lines.append(f"and {count(len(rest) - 4, 'more finding')}; to_markdown() shows them all")
        if self.ignored:
            titles = [f"ignored {_title(finding, self.step)}" for finding in self.ignored]
            more = [f"and {len(titles) - 4} more ignored"] if len(titles) > 4 else []
            lines += ["", *(shorten(title, WIDTH) for title in titles[:4]), *more]
        return "\n".join([*lines, "", *self._table()])

    def _measured(self) -> str:
        snapshot = self.snapshot
        parts = [f"loss {num(snapshot.loss)}" if _loss_is_known(snapshot) else "loss not known"]
        if snapshot.baseline_loss is not None:
            parts[0] += f" (a model that knows nothing: {num(snapshot.baseline_loss)})"
        if snapshot.batch_size:
            parts.append(count(snapshot.batch_size, "sample"))
        if snapshot.optimizer:
            rate = "" if snapshot.learning_rate is None else f" at {num(snapshot.learning_rate)}"
            parts.append(f"{snapshot.optimizer}{rate}")
        return ", ".join(parts)

    def _rules_at(self, path: str) -> list[str]:
        named = [f.rule for f in self.findings if f.layer == path or path in f.evidence.get("affected", ())]
        return list(dict.fromkeys(named))

    def _chosen(self, room: int) -> list[tuple[LayerInfo, Statistics]]:
        """At most `room` layers, in order: those that a finding names first, then evenly from the rest."""
        rows = [row for row in layer_rows(self.snapshot) if row[0].weight] or layer_rows(self.snapshot)
        if len(rows) <= room:
            return rows
        named = {f.layer for f in self.findings}
        spots = [round(i * (len(rows) - 1) / (room - 1)) for i in range(room)]
        wanted = [i for i, (info, _) in enumerate(rows) if info.path in named]
        keep = {0, len(rows) - 1, *wanted[: room - 2]}
        for spot in sorted(spots, key=lambda s: -min((abs(s - k) for k in keep), default=0)):
            if len(keep) < room:
                keep.add(spot)
        return [rows[i] for i in sorted(keep)]

    def _table(self) -> list[str]:
        chosen = self._chosen(_TABLE_ROWS)
        if not chosen:
            return []
        cells = [list(_HEADERS)]
        cells += [[clean(info.path), *_cells(row), (self._rules_at(info.path) or [""])[0]] for info, row in chosen]
        widths = [max(len(line[i]) for line in cells) for i in range(len(_HEADERS))]
        widths[0] = max(5, min(widths[0], WIDTH - sum(widths[1:]) - 2 * (len(widths) - 1)))
        lines = []
        for line in cells:
            first = shorten(line[0], widths[0], middle=True).ljust(widths[0])
            numbers = [cell.rjust(width) for cell, width in zip(line[1:-1], widths[1:-1], strict=True)]
            lines.append("  ".join([first, *numbers, line[-1]]).rstrip())
        hidden = len(layer_rows(self.snapshot)) - len(chosen)
        more = f"; {count(hidden, 'more layer')} not shown" if hidden > 0 else ""
        now = f"after {count(self.step, 'update')}: " if self.step else ""
        return [*lines, *wrap(f"({now}{_LEGEND}{more})", "")]

    def to_json(self) -> str:
        """The report as JSON, with the name and the version of its schema."""
        return dumps(
            {
                "schema": SCHEMA,
                "version": VERSION,
                "verdict": self.verdict,
                "headline": self.headline,
                "step": self.step,
                "loss": self.loss,
                "findings": self.findings,
                "ignored": self.ignored,
                "snapshot": to_jsonable(self.snapshot),
            }
        )

    @classmethod
    def from_json(cls, text: str | bytes | Mapping[str, Any]) -> Report:
        """The report behind what `to_json` wrote, or behind that text already parsed.

        Raises:
            ValueError: It is no such text, or of a version that this release does not know.
        """
        try:
            data = text if isinstance(text, Mapping) else json.loads(text)
        except ValueError as error:
            raise ValueError(f"Report.from_json: not JSON: {error}") from error
        if not isinstance(data, Mapping) or data.get("schema") != SCHEMA:
            raise ValueError(f'Report.from_json: expected an object with "schema": "{SCHEMA}", as to_json writes it')
        if data.get("version") != VERSION:
            raise ValueError(
                f"Report.from_json: version {data.get('version')!r} of the schema, this release reads {VERSION}; "
                "use the release of keras_initaudit that wrote it, or a newer one"
            )
        try:
            findings, ignored = (
                tuple(finding_from_json(f) for f in data.get(name, ())) for name in ("findings", "ignored")
            )
            return cls(snapshot_from_json(data["snapshot"]), findings, ignored)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise ValueError(f"Report.from_json: the report is damaged: {type(error).__name__}: {error}") from error

    def to_markdown(self) -> str:
        """The report as GitHub-flavoured markdown: all findings, then the layers."""
        lines = [f"**{_MARK[self.verdict]} Init Audit: {escape_md(self.headline)}**", "", escape_md(self._measured())]
        for finding in self.findings:
            where = f" at {code_md(finding.layer)}" if finding.layer else ""
            title = f"{_MARK[finding.severity]} {finding.severity}{_since(finding, self.step)}: {finding.rule}{where}"
            lines += ["", f"### {title}", ""]
            lines.append(f"{escape_md(sentence(finding.message))}{escape_md(_leads_to(finding))}")
            if finding.remedy:
                quotes = fence(finding.remedy)
                lines += ["", f"{escape_md(_remedy_title(finding))}", "", f"{quotes}python", finding.remedy, quotes]
            if finding.proof:
                lines += ["", f"Measured: {escape_md(sentence(finding.proof))}"]
            if finding.reference:
                lines += ["", f"*{escape_md(finding.reference)}*"]
        if self.ignored:
            lines.append("")
        for finding in self.ignored:
            where = f" at {code_md(finding.layer)}" if finding.layer else ""
            lines.append(f"- ignored {finding.severity}{_since(finding, self.step)}: {finding.rule}{where}")
        chosen = self._chosen(40)
        if chosen:
            lines += ["", f"| {' | '.join(_HEADERS)} |", "|---|" + "---:|" * (len(_HEADERS) - 2) + "---|"]
            for info, row in chosen:
                cells = [code_md(info.path), *_cells(row), ", ".join(self._rules_at(info.path))]
                lines.append(f"| {' | '.join(cells)} |")
        return "\n".join(lines) + "\n"

    def _repr_html_(self) -> str:
        """The report for a notebook: headline, findings, depth profile, table; self-contained, no script."""
        colour = _HEX[self.verdict]
        parts = [
            f'<div style="font-family:system-ui,sans-serif;max-width:60em;border-left:4px solid {colour};'
            'padding-left:12px">',
            f'<div style="font-size:1.15em;font-weight:600;color:{colour}">{_MARK[self.verdict]} Init Audit: '
            f"{html.escape(clean(self.headline))}</div>",
            f"<div>{html.escape(clean(self._measured()))}</div>",
        ]
        parts += [_finding_html(finding, self.step) for finding in self.findings]
        parts += [f"<div>ignored {html.escape(_title(finding, self.step))}</div>" for finding in self.ignored]
        parts += [profile_svg(self.snapshot), self._table_html(), "</div>"]
        return "".join(parts)

    def _table_html(self) -> str:
        rows = []
        for info, row in self._chosen(40):
            rules = ", ".join(self._rules_at(info.path))
            numbers = "".join(f'<td style="text-align:right">{cell}</td>' for cell in _cells(row))
            name = html.escape(clean(info.path))
            rows.append(f'<tr><td style="text-align:left">{name}</td>{numbers}<td>{html.escape(rules)}</td></tr>')
        head = "".join(f"<th>{name}</th>" for name in _HEADERS)
        caption = f'<caption style="caption-side:bottom;font-size:.85em">{_LEGEND}</caption>'
        return f"<table>{caption}<thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>" if rows else ""


def _cells(row: Statistics) -> list[str]:
    values = (row.activation_rms, row.activation_spread, row.backward_rms, row.weight_rms, row.update_log10)
    broken = (row.activation_nonfinite > 0.0, False, row.backward_nonfinite > 0.0, row.weight_nonfinite > 0.0, False)
    return ["not finite" if bad else "" if math.isnan(v) else num(v) for v, bad in zip(values, broken, strict=True)]


def _loss_is_known(snapshot: Snapshot) -> bool:
    """NaN stands for a loss that the training step does not show, unless there is another sign of NaN."""
    broken = any(row.activation_nonfinite > 0.0 or row.backward_nonfinite > 0.0 for row in snapshot.statistics)
    return broken or not math.isnan(snapshot.loss)


def _at_fault(finding: Finding) -> str:
    """What a bad finding speaks of: not every bad start is one of the weights."""
    if finding.rule == "input-scale" or finding.evidence.get("origin") == "data":
        return "data"
    if finding.rule == "update-ratio":
        return "step size"
    return "start" if finding.evidence.get("step") else "initialization"


def _since(finding: Finding, step: int) -> str:
    """When a finding was made, where the report is of a later step: its numbers are not those of the table."""
    made = finding.evidence.get("step", 0)
    return "" if made == step else f" at step {made}"


def _title(finding: Finding, step: int) -> str:
    where = f" at {clean(finding.layer)}" if finding.layer else ""
    return f"{finding.severity}{_since(finding, step)}: {finding.rule}{where}"


def _finding_lines(finding: Finding, paint: bool, step: int) -> list[str]:
    title = shorten(_title(finding, step), WIDTH)
    lines = [f"{_COLOUR[finding.severity]}{title}{_RESET}" if paint else title]
    lines += wrap(sentence(clean(finding.message)) + clean(_leads_to(finding)), "  ")
    if finding.remedy:
        lines += wrap(clean(_remedy_title(finding)), "  ")
        lines += [f"      {clean(line)}" for line in finding.remedy.splitlines()]
    if finding.proof:
        lines += wrap(f"Measured: {sentence(clean(finding.proof))}", "  ")
    return lines


def _finding_html(finding: Finding, step: int) -> str:
    where = f" at <code>{html.escape(clean(finding.layer))}</code>" if finding.layer else ""
    text = html.escape(sentence(clean(finding.message)) + clean(_leads_to(finding)))
    severity = f"{_MARK[finding.severity]} {finding.severity}{_since(finding, step)}"
    severity = f'<span style="color:{_HEX[finding.severity]}">{severity}</span>'
    parts = [
        '<div style="margin:.7em 0">'
        f'<div style="font-weight:600">{severity}: {html.escape(finding.rule)}{where}</div><div>{text}</div>'
    ]
    if finding.remedy:
        parts.append(f"<div>{html.escape(clean(_remedy_title(finding)))}</div>")
        parts.append(f'<pre style="margin:.3em 1em;font-family:monospace">{html.escape(finding.remedy)}</pre>')
    if finding.proof:
        parts.append(f"<div>Measured: {html.escape(sentence(clean(finding.proof)))}</div>")
    return "".join([*parts, "</div>"])


def _leads_to(finding: Finding) -> str:
    if finding.evidence.get("origin") == "data":
        return ""  # all that is measured behind it is an echo
    rules = dict.fromkeys(str(c["rule"]) for c in finding.evidence.get("consequences", ()))
    return f" It leads to {', '.join(rules)}." if rules else ""


def _remedy_title(finding: Finding) -> str:
    # A kernel of a layer (`lstm/recurrent_kernel`) has a row of its own, and is mended by an argument of the layer.
    layers = list(dict.fromkeys(re.sub(r"/\w*kernel$", "", path) for path in finding.evidence.get("layers", ())))
    remedy = finding.remedy or ""
    if not layers or re.search(r"\bmodel\b", remedy) or "preprocessing" in remedy:
        return "Remedy:"
    if len(layers) <= 3:
        return f"Remedy, for {', '.join(layers)}:"
    return f"Remedy, for {layers[0]}, {layers[1]} and {len(layers) - 2} more layers:"


def _terminal() -> bool:
    return not os.environ.get("NO_COLOR") and bool(getattr(sys.stdout, "isatty", lambda: False)())


__all__: Sequence[str] = ["SCHEMA", "VERSION", "BadInitializationError", "Report"]
