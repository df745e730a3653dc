"""What the routes answer about a run, as plain data: its card, its audits and findings, its main line, its trials.

And about a coordinate check. Standard library, the records, and what the report and the pictures share. Nothing is
judged here.
"""

from __future__ import annotations

import functools
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ..diagnosis.rules import BY_SLUG
from ..names import shortened
from ..records import (
    Curve,
    Finding,
    Trial,
    Verdict,
    dumps,
    marked_paths,
    scalars,
    to_jsonable,
    verdict_of,
)
from ..report import trials as pictured
from ..report.width import HEADERS, LEGEND, MEANINGS, PANELS, CoordinateCheck
from ..trunk import Trunk
from . import metadata
from .store import Audit, known_columns

_ADDRESS = re.compile(
    r"https://[^\s<>\"]*[^\s<>\".,;:)]|arXiv:(?P<arxiv>\d{4}\.\d{4,5})|doi:(?P<doi>10\.\d{4,9}/[^\s,;]*[^\s,;.)])"
)
NAMES = {"turned": 24, "list": 40, "table": 56}
"""Place on the page -> the columns of a row's name there: under the heat map, in a list, in the table."""
COLUMNS_ON_CARD = 44
"""Of the name of a run."""
POINTS_ON_CARD = 48
"""Of each curve of a trial, which is drawn some hundred pixels wide there."""


def label(run: str) -> str:
    """The name of the run for a person: without the folder of the audit.

    >>> label("bad/initaudit"), label("bad/initaudit-2"), label("initaudit")
    ('bad', 'bad (2)', 'initaudit')
    """
    above, _, folder = run.rpartition("/")
    if above and folder == metadata.RUN_FOLDER:
        return above
    number = folder.removeprefix(f"{metadata.RUN_FOLDER}-")
    return f"{above} ({number})" if above and number != folder and number.isdigit() else run


def card_data(header: metadata.Header, audits: Sequence[Audit]) -> dict[str, Any]:
    """The data of a run's card: the verdict of its last audit and of its first, and the worst message."""
    card: dict[str, Any] = {
        "layers": sum(layer.role == "layer" for layer in header.layers),
        "audits": len(audits),
        "columns": known_columns(header),
        "newer": header.format if header.is_newer else None,
    }
    if not audits:
        return card | {"verdict": None}
    first, last = audits[0], audits[-1]
    found = last.record.findings if last.record else ()
    faults = [finding for finding in found if finding.severity != "note"]
    return card | {
        "step": last.step,
        "wall_time": last.wall_time,
        "loss": to_jsonable(last.record.snapshot.loss) if last.record else None,
        "verdict": verdict(last),
        "first_step": first.step,
        "first_verdict": verdict(first),
        "headline": faults[0].message if faults else None,
        "marked": marked_rows(faults[0], positions(header)) if faults else [],
        "trial": trial_data(audits, last.step, POINTS_ON_CARD) if faults else None,
        "rules": list(dict.fromkeys(finding.rule for finding in faults)),
        "notes": len(found) - len(faults),
    }


def run_data(header: metadata.Header, audits: Sequence[Audit], trunk: Trunk) -> dict[str, Any]:
    """The page's data of one run: its rows, its audits, and each finding once (audits refer to it by number)."""
    rows = positions(header)
    trials = trials_by_step(audits)
    findings: dict[str, int] = {}
    made = []
    for audit in audits:
        record = audit.record
        found = [
            _finding_data(finding, rows, trials, audits[0].step) for finding in (record.findings if record else ())
        ]
        numbers = [findings.setdefault(text, len(findings)) for text in found]
        made.append(
            {
                "step": audit.step,
                "wall_time": audit.wall_time,
                "loss": record.snapshot.loss if record else None,
                "verdict": verdict(audit),
                "findings": numbers if record else None,
            }
        )
    last = next((audit.record for audit in reversed(audits) if audit.record), metadata.AuditRecord())
    changed = dict(last.changed)
    return {
        "newer": header.format if header.is_newer else None,
        "columns": known_columns(header),
        "layers": [metadata.compact_layer(changed.get(row, layer)) for row, layer in enumerate(header.layers)],
        "names": short_names(tuple(layer.path for layer in header.layers)),
        "audits": made,
        "findings": [json.loads(text) for text in findings],
        "trials": [trial_data(audits, step) for step in trials],
        **line_data(trunk),
        **scalars(last.snapshot),
    }


@functools.lru_cache(maxsize=8)
def short_names(paths: tuple[str, ...]) -> dict[str, dict[int, str]]:
    """Place of `NAMES` -> row -> its name there, of the rows whose path is too long for it."""
    cut = {place: shortened(paths, width, "\N{HORIZONTAL ELLIPSIS}") for place, width in NAMES.items()}
    return {
        place: {row: name for row, (path, name) in enumerate(zip(paths, names, strict=True)) if name != path}
        for place, names in cut.items()
    }


def positions(header: metadata.Header) -> dict[str, int]:
    """Path of a row -> its position."""
    return {layer.path: row for row, layer in enumerate(header.layers)}


def marked_rows(finding: Finding, rows: Mapping[str, int]) -> list[int]:
    """The positions of the rows that a finding marks."""
    return [rows[path] for path in marked_paths(finding) if path in rows]


def line_data(trunk: Trunk) -> dict[str, Any]:
    """The main line: its rows, and where each row stands along it (null for the batch)."""
    return {
        "line": trunk.line,
        "places": [None if math.isnan(place) else round(place, 3) for place in trunk.places],
    }


def _finding_data(finding: Finding, rows: Mapping[str, int], trials: Mapping[int, Trial], first: int) -> str:
    """A finding as the page reads it: with the rows that it marks, its trial, and how its severity was come by."""
    step = finding.evidence.get("step", first)
    trial = trials.get(step)
    measured = finding.proof is not None or (trial is not None and trial.outcome not in (None, "undecided"))
    rule = BY_SLUG.get(finding.rule)
    structural = bool((rule is not None and rule.structural) or finding.evidence.get("structural", False))
    basis = "seen" if structural and finding.proof is None else "measured" if measured else "judged"
    why = None if trial is None or basis != "judged" else trial.reason or "the trial decided nothing"
    return dumps(
        to_jsonable(finding)
        | {
            "rows": marked_rows(finding, rows),
            "basis": basis,
            "why_judged": why,
            "trial": step if trial else None,
            "reference_parts": list(reference_parts(finding.reference)),
        }
    )


def reference_parts(reference: str) -> Iterator[tuple[str, str | None]]:
    """The text of a reference in parts, each with the address that it names, if it does.

    >>> list(reference_parts("He et al. 2015, arXiv:1502.01852, eq. 9"))
    [('He et al. 2015, ', None), ('arXiv:1502.01852', 'https://arxiv.org/abs/1502.01852'), (', eq. 9', None)]
    """
    end = 0
    for found in _ADDRESS.finditer(reference):
        if found.start() > end:
            yield reference[end : found.start()], None
        arxiv, doi = found["arxiv"], found["doi"]
        yield (
            found[0],
            f"https://arxiv.org/abs/{arxiv}" if arxiv else f"https://doi.org/{doi}" if doi else found[0],
        )
        end = found.end()
    if end < len(reference):
        yield reference[end:], None


def trials_by_step(audits: Sequence[Audit]) -> dict[int, Trial]:
    """The trials of a run, by the step of the audit on which each decides."""
    return {trial.step: trial for audit in audits if audit.record for trial in audit.record.trials}


def trial_data(audits: Sequence[Audit], step: int, most: int | None = None) -> dict[str, Any] | None:
    """The trial that decides on what was found at a step, or the last one before it; None where there is none.

    Losses are the part of the way that is left from the best constant answer (1) to the targets (0), as in the report.

    Args:
        audits: Those of the run.
        step: The step.
        most: The most points of a curve; None for all.
    """
    trials = [trial for at, trial in sorted(trials_by_step(audits).items()) if at <= step]
    if not trials:
        return None
    trial = trials[-1]
    told: dict[str, Any] = {"step": trial.step, "outcome": trial.outcome, "reason": trial.reason}
    if not pictured.drawable(trial) or trial.as_is is None or trial.remedied is None:
        return told | {"curves": []}
    found = [finding for audit in audits if audit.record for finding in audit.record.findings]
    proofs = [f.proof for f in found if f.proof and f.evidence.get("step", audits[0].step) == trial.step]
    name = pictured.WITH_REMEDY if proofs else pictured.OTHER_START
    return told | {
        "sentence": proofs[0] if proofs else None,
        "budget": pictured.budget(trial),
        "left_out": trial.left_out,
        # of one scale of losses where both have the same ends; a remedy may scale the targets
        "ends": (trial.as_is.constant, trial.as_is.at_targets) if pictured.same_scale(trial) else None,
        "curves": [
            _curve_data("remedied", name, trial.remedied, most),
            _curve_data("as-is", "as it is", trial.as_is, most),
        ],
    }


def _curve_data(kind: str, name: str, curve: Curve, most: int | None) -> dict[str, Any]:
    left = pictured.left(curve)
    last = len(left) - 1
    spots = range(len(left)) if most is None or last < most else [round(i * last / (most - 1)) for i in range(most)]
    return {
        "kind": kind,
        "name": name,
        "points": [[i, round(left[i], 4) if math.isfinite(left[i]) else None] for i in spots],
        "first": curve.losses[0],
        "last": curve.losses[-1],
        "made": len(curve.losses),
        "needed": curve.needed,
    }


def check_card(check: CoordinateCheck) -> dict[str, Any]:
    """The data of the card of a coordinate check."""
    return {"verdict": check.verdict, "headline": check.sentence, "check": check.measured, "layers": len(check.rows)}


def check_data(check: CoordinateCheck) -> dict[str, Any]:
    """A coordinate check as the page draws it: the cells of its table; a curve of (width, rms) a layer and panel."""
    return check_card(check) | {
        "widths": check.widths,
        "headers": HEADERS,
        "legend": LEGEND,
        "panels": [title for title, _ in PANELS],
        "meanings": MEANINGS,
        "names": shortened([row.cells[0] for row in check.rows], NAMES["table"], "\N{HORIZONTAL ELLIPSIS}"),
        "rows": [
            {
                "cells": row.cells,
                "finite": row.finite,
                "verdict": MEANINGS[row.meaning],
                "curves": [row.means(at) for _, at in PANELS],
            }
            for row in check.rows
        ],
    }


def verdict(audit: Audit) -> Verdict | None:
    """The verdict of an audit; None where its findings are not known."""
    return None if audit.record is None else verdict_of(audit.record.findings)
