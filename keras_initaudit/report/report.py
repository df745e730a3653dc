"""`Report`: the result of one audit, its verdict, and JSON both ways; each other form has its own module.

The headline comes first, then the findings, worst first, each with its remedy, then the layers. The findings are made
elsewhere. Needs no Keras.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ..numerals import count
from ..records import (
    COLUMNS,
    Finding,
    Snapshot,
    Trial,
    Verdict,
    as_bad_as,
    dumps,
    finding_from_json,
    snapshot_from_json,
    to_jsonable,
    trial_from_json,
    verdict_of,
)
from .html import html
from .markdown import markdown
from .parts import found_at, listed, rules_by_path
from .svg import clean, layer_rows
from .text import text

SCHEMA = "keras_initaudit.report"
VERSION = 1
"""Of the JSON form. Fields may be added under one version; a change of meaning gets another."""


class BadInitializationError(Exception):
    """Raised for a verdict that is as bad as the given one: its text is the report.

    `InitAudit(on_finding="raise")` raises it, before the first update where the fault can be seen there, and
    `Report.raise_for_verdict`.

    Attributes:
        report: The `Report` with the findings.

    Example:
        >>> from keras_initaudit.records import Finding, Snapshot
        >>> report = Report(Snapshot(0, (), ()), (Finding("symmetric-units", "bad", "dense", "all weights are zero"),))
        >>> try:
        ...     report.raise_for_verdict()
        ... except BadInitializationError as error:
        ...     print(error.report.headline)
        bad initialization before the first update: symmetric-units at dense
    """

    def __init__(self, report: Report) -> None:
        super().__init__(f"\n{report}")
        self.report = report

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.report,)  # else a copy, as from another process, is made with the text


@dataclass(frozen=True, repr=False)
class Report:
    """The result of one audit.

    Args:
        snapshot: The last audit: every layer at one step.
        findings: The findings so far, worst first.
        ignored: The findings that the `ignore=` of the audit names: they do not count for the verdict.
        trials: What was tried, in the order of their steps: their outcomes are in the severities of the findings.
        first_step: The step of the first audit, whose findings name no step; None where that is the snapshot's.

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
    trials: tuple[Trial, ...] = ()
    first_step: int | None = None

    @property
    def verdict(self) -> Verdict:
        """That of the worst finding; `"healthy"` where there are none but notes."""
        return verdict_of(self.findings)

    def raise_for_verdict(self, verdict: Literal["warning", "bad"] = "bad") -> Report:
        """Raises where the verdict is this one or worse; for the tests of a program.

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
        if verdict not in ("warning", "bad"):
            raise ValueError(f'verdict must be "warning" or "bad", got {verdict!r}')
        if as_bad_as(self.verdict, verdict):
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
        rules = rules_by_path(self)
        return tuple(
            {
                "path": info.path,
                "depth": info.depth,
                "kind": info.kind,
                "activation": info.activation,
                **{name: getattr(row, name) for name in COLUMNS},
                "findings": rules.get(info.path, []),
            }
            for info, row in layer_rows(self.snapshot)
        )

    @property
    def headline(self) -> str:
        """One sentence: the verdict and what it is about."""
        snapshot = self.snapshot
        when = "before the first update" if self.step == 0 else f"after {count(self.step, 'update')}"
        faults = [finding for finding in listed(self) if finding.severity != "note"]
        if not faults:
            notes = f", {count(len(self.findings), 'note')}" if self.findings else ""
            but = f", {len(self.ignored)} ignored" if self.ignored else ""
            harmful = " harmful" if notes else ""
            return f"healthy {when}: nothing{harmful} found in {count(len(layer_rows(snapshot)), 'layer')}{notes}{but}"
        first = faults[0]
        more = f" and {len(faults) - 1} more" if len(faults) > 1 else ""
        subject = f"bad {_at_fault(self, first)}" if self.verdict == "bad" else "warning"
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
        return text(self, color=color)

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
                "trials": self.trials,
                "first_step": self.first_step,
                "snapshot": to_jsonable(self.snapshot),
            }
        )

    @classmethod
    def from_json(cls, text: str | bytes | Mapping[str, Any]) -> Report:
        """The report that `to_json` wrote, from its text or from that text already parsed.

        Raises:
            ValueError: It is no such text, or has a version that this release does not know.
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
            trials = tuple(map(trial_from_json, data.get("trials", ())))
            return cls(snapshot_from_json(data["snapshot"]), findings, ignored, trials, data.get("first_step"))
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise ValueError(f"Report.from_json: the report is damaged: {type(error).__name__}: {error}") from error

    def to_markdown(self) -> str:
        """The report as GitHub-flavoured markdown: all findings, then the layers."""
        return markdown(self)

    def _repr_html_(self) -> str:
        """The report for a notebook: headline, findings, pictures, table; self-contained, no script, light or dark."""
        return html(self)


_FAULTY = {
    "input-scale": "data",
    "target-scale": "targets",
    "update-ratio": "step size",
    "output-activation": "output layer",
    "no-gradient": "setup",
}
"""Rule -> what it finds at fault, where that is not how the weights were drawn."""


def _at_fault(report: Report, finding: Finding) -> str:
    """What is at fault in a bad finding: not every bad start is one of the weights."""
    if finding.evidence.get("origin") == "data":
        return "data"
    return _FAULTY.get(finding.rule) or ("start" if found_at(report, finding) else "initialization")


__all__: Sequence[str] = ["SCHEMA", "VERSION", "BadInitializationError", "Report"]
