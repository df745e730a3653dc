"""The depth profile of a report: the rms of signal and gradient by layer, as inline SVG without a script.

Layer names are untrusted text: `clean` takes control characters out, and what goes into markup is escaped here.
"""

from __future__ import annotations

import html
import math
import re

from ..flow import Flow
from ..records import LayerInfo, Snapshot, Statistics
from . import colours

BAND = (-2.0, 2.0)
"""Decades of an rms around 1 that need no attention: the band of every depth profile, here and on the page. The first
finding about a signal or gradient that fades comes with two decades (`Thresholds.signal_loss_warning`)."""
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


def profile_svg(snapshot: Snapshot, width: int = 640, height: int = 220) -> str:
    """The depth profile as inline SVG: signal and gradient by layer in decades, with a cross where one is not finite.

    The signal is its rms. The gradient is its norm over that of the last hidden layer, as the rules measure it
    (`Flow.gradient_levels`), so that for both curves flat is good; a head has no such level.
    """
    flow = Flow(snapshot)
    rows = [row for row in flow.layers if row.info.weight] or list(flow.layers)
    if len(rows) < 2:
        return ""
    signal = [_decades(row.stats.activation_rms, row.stats.activation_nonfinite) for row in rows]
    levels = {index: decades for index, (decades, _) in flow.gradient_levels().items()}
    sizes = [_decades(row.stats.backward_rms, row.stats.backward_nonfinite) for row in rows]
    gradient = [
        size if size is None or math.isinf(size) else levels.get(row.index)
        for row, size in zip(rows, sizes, strict=True)
    ]
    known = [v for v in (*signal, *gradient) if v is not None and math.isfinite(v)]
    low, high = math.floor(min([BAND[0] - 1.0, *known])), math.ceil(max([BAND[1], *known]))
    left, right, top, bottom = 44.0, width - 8.0, 22.0, height - 24.0

    def x(i: int) -> float:
        return left + (right - left) * i / (len(rows) - 1)

    def y(decades: float) -> float:
        return top + (bottom - top) * (high - decades) / (high - low)

    grid = []
    step = max(1, math.ceil((high - low) / 6))
    for decade in range(low, high + 1, step):
        grid.append(
            f'<line x1="{left}" x2="{right}" y1="{y(decade):.1f}" y2="{y(decade):.1f}" stroke="currentColor" '
            f'stroke-opacity=".15"/><text x="{left - 6}" y="{y(decade) + 4:.1f}" text-anchor="end">1e{decade}</text>'
        )
    band = (
        f'<rect x="{left}" width="{right - left}" y="{y(BAND[1]):.1f}" '
        f'height="{y(BAND[0]) - y(BAND[1]):.1f}" fill="{colours.VERDICT["healthy"]}" '
        'fill-opacity=".12"/>'
    )
    curves = []
    for name, values, colour, dash in (
        ("signal", signal, colours.SIGNAL, ""),
        ("gradient", gradient, colours.GRADIENT, ' stroke-dasharray="6 3"'),
    ):
        points = [(x(i), y(v)) for i, v in enumerate(values) if v is not None and math.isfinite(v)]
        line = " ".join(f"{a:.1f},{b:.1f}" for a, b in points)
        curves.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="2"{dash}/>')
        for i, v in enumerate(values):
            if v is not None and not math.isfinite(v):
                edge = bottom if v == -math.inf else top
                curves.append(cross(x(i), edge, colour, f"{name}: {'zero' if v == -math.inf else 'not finite'}"))
    names = [html.escape(clean(rows[i].path)) for i in (0, -1)]
    legend = (
        f'<text x="{left}" y="12" fill="{colours.SIGNAL}">signal (solid)</text>'
        f'<text x="{left + 110}" y="12" fill="{colours.GRADIENT}">'
        "gradient over the last hidden layer's (dashed)</text>"
        f'<text x="{left}" y="{height - 6}">{names[0]}</text>'
        f'<text x="{right}" y="{height - 6}" text-anchor="end">{names[1]}</text>'
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        'role="img" aria-label="Depth profile of signal and gradient" style="max-width:100%" font-size="11" '
        f'fill="currentColor">{band}{"".join(grid)}{"".join(curves)}{legend}</svg>'
    )


def cross(x: float, y: float, colour: str, title: str) -> str:
    """The mark of a value that cannot be drawn; what it is stands in its title."""
    return (
        f'<path d="M{x - 4:.1f} {y - 4:.1f}l8 8m0 -8l-8 8" stroke="{colour}" stroke-width="2">'
        f"<title>{title}</title></path>"
    )


def _decades(rms: float, nonfinite: float) -> float | None:
    """Log10 of an rms: None where it was not measured, an infinity where it is zero or not finite."""
    if nonfinite > 0.0:
        return math.inf
    if math.isnan(rms):
        return None
    return math.log10(rms) if rms > 0.0 else -math.inf


def layer_rows(snapshot: Snapshot) -> list[tuple[LayerInfo, Statistics]]:
    """The rows that are layer calls, each with its statistics."""
    rows = zip(snapshot.layers, snapshot.statistics, strict=True)
    return [(info, row) for info, row in rows if info.role == "layer"]


def clean(text: str | None) -> str:
    """Text without control characters: a layer name must not move the cursor."""
    return _CONTROL.sub(" ", text or "")
