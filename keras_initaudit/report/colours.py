"""The colours of a report: those of the page in its light theme, which `tensorboard/static/style.css` must repeat."""

from __future__ import annotations

from collections.abc import Mapping

from ..records import Severity, Verdict

VERDICT: Mapping[Verdict | Severity, str] = {
    "bad": "#c9252d",
    "warning": "#a86200",
    "healthy": "#177245",
    "note": "#4a5568",
}
SIGNAL, GRADIENT = "#1d5fd1", "#d9480f"
"""Of the two curves of a depth profile."""
REMEDIED, AS_IS = SIGNAL, GRADIENT
"""Of the two curves of a trial."""
