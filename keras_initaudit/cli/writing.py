"""What the commands write: reports in every form, on the standard output or into a file."""

from __future__ import annotations

import html
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from .errors import CommandError

if TYPE_CHECKING:
    from ..report import Report

Named = tuple[str, "Report"]
"""A report, and the name of its model or run."""


def written(reports: Sequence[Named], form: str | None, output: Path | None, source: str | None = None) -> None:
    """Writes reports.

    Args:
        reports: One, or those of all runs.
        form: One of `FORMATS`; None for what the ending of `output` says, else text.
        output: A file; None for the standard output.
        source: The file that GitHub shows annotations at.
    """
    form = form or _BY_ENDING.get(output.suffix.lower() if output else "", "text")
    text = FORMATS[form](reports, source, output is not None).rstrip("\n") + "\n"
    if output is None:
        print(text, end="")
        return
    try:
        output.write_text(text, encoding="utf-8")
    except OSError as error:
        raise CommandError(f"--output: cannot write {str(output)!r}: {error.strerror or error}") from error


def _text(reports: Sequence[Named], source: str | None, into_file: bool) -> str:
    del source
    if len(reports) == 1:
        return reports[0][1].text(color=False if into_file else None)
    width = max(len(name) for name, _ in reports)
    lines = [f"{name.ljust(width)}  {report.headline}" for name, report in reports]
    return "\n".join([f"{len(reports)} runs; give the folder of one to see its report", "", *lines])


def _markdown(reports: Sequence[Named], source: str | None, into_file: bool) -> str:
    del source, into_file
    if len(reports) == 1:
        return reports[0][1].to_markdown()
    return "\n".join(f"# {name}\n\n{report.to_markdown()}" for name, report in reports)


def _html(reports: Sequence[Named], source: str | None, into_file: bool) -> str:
    del source, into_file
    parts = [f"<h1>{html.escape(name)}</h1>\n{report._repr_html_()}" for name, report in reports]
    head = '<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>Init Audit</title></head><body>\n'
    return head + "\n".join(parts) + "\n</body></html>"


def _json(reports: Sequence[Named], source: str | None, into_file: bool) -> str:
    del source, into_file
    made = [{"run": name, **json.loads(report.to_json())} for name, report in reports]
    return json.dumps(made if len(made) > 1 else made[0], allow_nan=False)


def _github(reports: Sequence[Named], source: str | None, into_file: bool) -> str:
    del into_file
    from ..report.github import workflow_commands

    many = len(reports) > 1
    return "\n".join(workflow_commands(report, source, name if many else None) for name, report in reports)


FORMATS: dict[str, Callable[[Sequence[Named], str | None, bool], str]] = {
    "text": _text,
    "markdown": _markdown,
    "html": _html,
    "json": _json,
    "github": _github,
}
_BY_ENDING = {".md": "markdown", ".html": "html", ".json": "json"}
