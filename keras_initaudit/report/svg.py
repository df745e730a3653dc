"""The pictures of the layers, as inline SVG without a script: the depth profile, and what shows the worst finding.

Both stand over one axis of rows in their order. Layer names are untrusted text: `clean` takes control characters out,
and what goes into markup is escaped here.
"""

from __future__ import annotations

import html
import math
import re
from collections.abc import Sequence

from ..flow import Flow, Row
from ..names import shortened
from ..records import Finding, LayerInfo, Snapshot, Statistics, marked_paths
from .colours import GRADIENT, SIGNAL, colour
from .quantities import Quantity, has, quantities

BAND = (-2.0, 2.0)
"""Decades of an rms around 1 that need no attention: the band of every depth profile, here and on the page. The first
finding about a signal or gradient that fades comes with two decades (`Thresholds.signal_loss_warning`)."""
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_LEFT, _RIGHT, _TOP, _BOTTOM = 52.0, 8.0, 22.0, 24.0
"""Margins of the profile."""
_PANEL = 96.0
"""Height of the picture of one quantity, with its title."""
_MOST_POINTS = 60
"""Layers whose points are drawn upon the curves."""
_MOST_BARS = 200
"""Of more rows, each bar is the mark of several: the farthest from what is usual."""


def profile_svg(snapshot: Snapshot, finding: Finding | None = None, width: int = 640, height: int = 220) -> str:
    """The depth profile as inline SVG: signal and gradient by layer in decades, with a cross where one is not finite.

    The signal is its rms. The gradient is its norm over that of the last hidden layer, as the rules measure it
    (`Flow.gradient_levels`), so that for both curves flat is good; a head has no such level. Below it stand the
    statistics that show the finding, the rows that it marks in its colour.
    """
    flow = Flow(snapshot)
    profiled = [row for row in flow.layers if row.info.weight] or list(flow.layers)
    shown = [
        (one, [row for row in flow.rows if finding is not None and has(one, finding, row.info, row.stats)])
        for one in quantities(finding)
    ]
    shown = [(one, rows) for one, rows in shown if rows]
    indices = sorted({row.index for rows in (profiled, *(rows for _, rows in shown)) for row in rows})
    if len(profiled) < 2 and not shown:
        return ""
    rows = [flow.rows[index] for index in indices]
    step = (width - _RIGHT - _LEFT) / len(rows)
    x = {index: _LEFT + step * (i + 0.5) for i, index in enumerate(indices)}
    made = [_profile(flow, profiled, x, width, height)]
    for i, (quantity, measured) in enumerate(shown):
        made.append(_panel(quantity, measured, finding, x, step, width, height + _PANEL * i))
    total = height + _PANEL * len(shown)
    names = shortened([clean(rows[0].path), clean(rows[-1].path)], max(8, width // 18), "\u2026")
    ends = (f'x="{_LEFT}"', f'x="{width - _RIGHT}" text-anchor="end"')
    for row, name, place in zip((rows[0], rows[-1]), names, ends, strict=True):
        made.append(f'<text {place} y="{total - 6:.0f}">{html.escape(name)}<title>{_escaped(row.path)}</title></text>')
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {total:.0f}" width="{width}" '
        f'height="{total:.0f}" role="img" aria-label="{_described(rows, shown)}" '
        f'style="max-width:100%;height:auto" font-size="11" fill="currentColor">{"".join(made)}</svg>'
    )


def _profile(flow: Flow, rows: Sequence[Row], x: dict[int, float], width: int, height: int) -> str:
    """Both curves over the band of what needs no attention."""
    signal = [_decades(row.stats.activation_rms, row.stats.activation_nonfinite) for row in rows]
    levels = {index: decades for index, (decades, _) in flow.gradient_levels().items()}
    sizes = [_decades(row.stats.backward_rms, row.stats.backward_nonfinite) for row in rows]
    gradient = [
        size if size is None or math.isinf(size) else levels.get(row.index)
        for row, size in zip(rows, sizes, strict=True)
    ]
    known = [v for v in (*signal, *gradient) if v is not None and math.isfinite(v)]
    low, high = math.floor(min([BAND[0] - 1.0, *known])), math.ceil(max([BAND[1], *known]))
    top, bottom = _TOP, height - _BOTTOM

    def y(decades: float) -> float:
        return top + (bottom - top) * (high - decades) / (high - low)

    ticks = [(float(d), f"1e{d}") for d in range(low, high + 1, max(1, math.ceil((high - low) / 6)))]
    made = [_band(width, y(BAND[1]), y(BAND[0])), *(_tick(width, y(at), text) for at, text in ticks)]
    for name, values, stroke, dash in (
        ("signal", signal, SIGNAL, ""),
        ("gradient", gradient, GRADIENT, ' stroke-dasharray="6 3"'),
    ):
        places = [x[row.index] for row in rows]
        points = [(a, y(v)) for a, v in zip(places, values, strict=True) if v is not None and math.isfinite(v)]
        line = " ".join(f"{a:.1f},{b:.1f}" for a, b in points)
        made.append(f'<polyline points="{line}" fill="none" stroke="{stroke}" stroke-width="2"{dash}/>')
        if len(rows) <= _MOST_POINTS:
            made += [f'<circle cx="{a:.1f}" cy="{b:.1f}" r="2.5" fill="{stroke}"/>' for a, b in points]
        for a, v in zip(places, values, strict=True):
            if v is not None and not math.isfinite(v):
                edge = bottom if v == -math.inf else top
                made.append(cross(a, edge, stroke, f"{name}: {'zero' if v == -math.inf else 'not finite'}"))
    made.append(
        f'<text x="{_LEFT}" y="12" fill="{SIGNAL}">signal (solid)</text>'
        f'<text x="{_LEFT + 110}" y="12" fill="{GRADIENT}">gradient over the last hidden layer\'s (dashed)</text>'
    )
    return "".join(made)


def _panel(
    quantity: Quantity,
    rows: Sequence[Row],
    finding: Finding | None,
    x: dict[int, float],
    step: float,
    width: int,
    above: float,
) -> str:
    """One statistic as bars, those of the rows that the finding marks in its colour; the usual is shaded."""
    top, bottom = above, above + _PANEL - 6.0 - _BOTTOM
    levels = {row.index: quantity.level(row.stats) for row in rows}
    finite = [level for level in levels.values() if math.isfinite(level)]
    usual = quantity.usual
    if quantity.kind == "fraction":
        low, high = 0.0, 1.0
        ticks = [(0.0, "0 %"), (1.0, "100 %")]
    else:
        ends = [*(usual or ()), *finite, quantity.base]
        low, high = min(ends), max(ends)
        low, high = math.floor(low), max(math.ceil(high), math.floor(low) + 1)
        ticks = [(end, f"1e{end:.0f}" if quantity.kind == "scale" else f"{end:.0f}") for end in (low, high)]

    def y(level: float) -> float:
        return top + (bottom - top) * (high - level) / (high - low)

    made = [_band(width, y(usual[1]), y(usual[0]))] if usual else []
    made += [_tick(width, y(at), text) for at, text in ticks]
    marked = set(marked_paths(finding)) if finding else set()
    wide = min(14.0, max(1.0, 0.7 * step))
    base = y(quantity.base)
    for row in _thinned(rows, levels, usual):
        level, own = levels[row.index], row.path in marked
        fill = colour(finding.severity) if own and finding else colour("muted")
        said = f"{_escaped(row.path)}: {html.escape(quantity.text(row.stats))}"
        if not math.isfinite(level):
            made.append(cross(x[row.index], bottom if level < 0.0 else top, fill, said))
            continue
        upper, tall = min(base, y(level)), max(1.5, abs(base - y(level)))
        made.append(
            f'<rect x="{x[row.index] - wide / 2.0:.1f}" y="{upper:.1f}" width="{wide:.1f}" height="{tall:.1f}" '
            f'fill="{fill}"><title>{said}</title></rect>'
        )
    shaded = " (shaded: usual)" if usual else ""
    made.append(f'<text x="{_LEFT}" y="{top - 6.0:.1f}">{html.escape(quantity.title)}{shaded}</text>')
    return "".join(made)


def _thinned(rows: Sequence[Row], levels: dict[int, float], usual: tuple[float, float] | None) -> list[Row]:
    """At most `_MOST_BARS` rows: of neighbours, the one that is farthest from what is usual."""
    low, high = usual or (0.0, 0.0)

    def distance(row: Row) -> float:
        level = levels[row.index]
        return max(low - level, level - high)

    each = math.ceil(len(rows) / _MOST_BARS)
    return [max(rows[i : i + each], key=distance) for i in range(0, len(rows), each or 1)]


def _described(rows: Sequence[Row], shown: Sequence[tuple[Quantity, Sequence[Row]]]) -> str:
    """The pictures in words, for those who do not see them."""
    said = [f"Depth profile of signal and gradient from {clean(rows[0].path)} to {clean(rows[-1].path)}"]
    for quantity, measured in shown:
        known = [row for row in measured if not math.isnan(quantity.level(row.stats))]
        least, most = (end(known, key=lambda row: quantity.level(row.stats)) for end in (min, max))
        ends = f"{quantity.text(least.stats)} at {clean(least.path)}, {quantity.text(most.stats)} at {clean(most.path)}"
        said.append(f"{quantity.title}: {ends}")
    return html.escape("; ".join(said))


def _band(width: float, top: float, bottom: float) -> str:
    return (
        f'<rect x="{_LEFT}" width="{width - _RIGHT - _LEFT}" y="{top:.1f}" height="{bottom - top:.1f}" '
        f'fill="{colour("healthy")}" fill-opacity=".12"/>'
    )


def _tick(width: float, y: float, text: str) -> str:
    return (
        f'<line x1="{_LEFT}" x2="{width - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}" stroke="currentColor" '
        f'stroke-opacity=".15"/><text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{text}</text>'
    )


def cross(x: float, y: float, stroke: str, title: str) -> str:
    """The mark of a value that cannot be drawn; what it is stands in its title, which is markup."""
    return (
        f'<path d="M{x - 4:.1f} {y - 4:.1f}l8 8m0 -8l-8 8" stroke="{stroke}" stroke-width="2">'
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


def _escaped(text: str) -> str:
    return html.escape(clean(text))
