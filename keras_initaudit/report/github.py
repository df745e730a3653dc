"""A report as workflow commands of GitHub Actions: each finding becomes an annotation that a pull request shows.

Reference: GitHub, "Workflow commands for GitHub Actions", which also says what is escaped.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import parts
from .formatting import sentence
from .svg import clean

if TYPE_CHECKING:
    from .report import Report

_COMMAND = {"bad": "error", "warning": "warning", "note": "notice"}


def workflow_commands(report: Report, source: str | None = None, run: str | None = None) -> str:
    """One line for each finding, the worst first; one notice where there is none.

    Args:
        report: The report.
        source: The file at which they are shown, relative to the root of the repository; None for the job alone.
        run: Name of the run, where there are several.

    Example:
        >>> from keras_initaudit.records import Snapshot
        >>> from keras_initaudit.report import Report
        >>> workflow_commands(Report(Snapshot(0, (), ())), source="model.py")
        '::notice file=model.py,title=Init Audit::healthy before the first update: nothing found in 0 layers'
    """
    of_run = f" of {run}" if run else ""
    lines = []
    for finding in parts.listed(report):
        title = f"Init Audit{of_run}: {parts.title(report, finding)}"
        said = [parts.message(finding)]
        if finding.remedy:
            said += [parts.remedy_title(finding), finding.remedy]
        proof = parts.proof(report, finding)
        if proof:
            said.append(f"Measured: {sentence(proof)}")
        lines.append(_line(_COMMAND[finding.severity], source, title, "\n".join(said)))
    return "\n".join(lines) or _line("notice", source, f"Init Audit{of_run}", report.headline)


def _line(command: str, source: str | None, title: str, message: str) -> str:
    options = {"file": source, "title": title}
    given = ",".join(f"{name}={_escaped(clean(value), ':,')}" for name, value in options.items() if value)
    return f"::{command} {given}::{_escaped(message, '')}"


def _escaped(text: str, also: str) -> str:
    """Text in which a line break, a percent sign and the characters of `also` are written as `%` and their code."""
    return "".join(f"%{ord(c):02X}" if c in f"%\r\n{also}" else c for c in text)
