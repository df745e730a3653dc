"""The pictures of the layers, as inline SVG without a script: the depth profile, and what shows the worst finding.

Both stand over one axis of rows in their order. Layer names are untrusted text: `clean` takes control characters out,
and what goes into markup is escaped here.
"""

from __future__ import annotations

import html
import math
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from ..flow import Flow, Row
from ..names import shortened
from ..records import Finding, LayerInfo, Snapshot, Statistics, marked_paths
from ..trunk import trunk_in
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
"""Of more places, each bar is the mark of several."""


def profile_svg(snapshot: Snapshot, finding: Finding | None = None, width: int = 640, height: int = 220) -> str:
    """The depth profile as inline SVG: signal and gradient by layer in decades, with a cross where one is not finite.

    The signal is its rms. The gradient is its norm over that of the last hidden layer, as the rules measure it
    (`Flow.gradient_levels`), so that for both curves flat is good; a head has no such level. In a network with blocks
    the curves follow its main line. Below stand the statistics that show the finding, the rows that it marks in its
    colour.
    """
    flow = Flow(snapshot)
    shown = [
        (one, [row for row in flow.rows if finding is not None and has(one, finding, row.info, row.stats)])
        for one in quantities(finding)
    ]
    shown = [(one, rows) for one, rows in shown if rows]
    axis = _axis(flow, [row for _, rows in shown for row in rows])
    if len(axis.line) < 2 and not shown:
        return ""
    step = (width - _RIGHT - _LEFT) / len(axis.ends)
    made = [_profile(flow, axis, step, width, height)]
    for i, (quantity, measured) in enumerate(shown):
        made.append(_panel(quantity, measured, finding, axis, step, width, height + _PANEL * i))
    total = height + _PANEL * len(shown)
    rows = [flow.rows[index] for index in axis.ends]
    names = shortened([clean(rows[0].path), clean(rows[-1].path)], max(8, width // 18), "\u2026")
    ends = (f'x="{_LEFT}"', f'x="{width - _RIGHT}" text-anchor="end"')
    for row, name, place in zip((rows[0], rows[-1]), names, ends, strict=True):
        made.append(f'<text {place} y="{total - 6:.0f}">{html.escape(name)}<title>{_escaped(row.path)}</title></text>')
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {total:.0f}" width="{width}" '
        f'height="{total:.0f}" role="img" aria-label="{_described(rows, shown)}" '
        f'style="max-width:100%;height:auto" font-size="11" fill="currentColor">{"".join(made)}</svg>'
    )


@dataclass(frozen=True, slots=True)
class _Axis:
    """Where each row stands from left to right, in the slots of the picture."""

    ends: Sequence[int]
    """Slot -> the row that has it."""
    line: Sequence[Row]
    """The rows of both curves."""
    inside: Sequence[Row]
    """The rows inside of blocks: small marks beside the curves."""
    places: Mapping[int, float]
    """Row -> where its marks stand: `i` in the middle of the slot `i`."""
    slots: Mapping[int, int]
    """Row -> the slot of its bar."""


def _axis(flow: Flow, measured: Sequence[Row]) -> _Axis:
    """The main line with its blocks; of a chain, which has none, the rows with a weight and the measured ones.

    Where there are blocks, measured data stand before and behind the main line.
    """
    trunk = trunk_in(flow)
    line = set(trunk.line)
    inside = [row for row in flow.layers if row.index not in line]
    if not inside:
        chain = [row for row in flow.layers if row.info.weight] or list(flow.layers)
        own = sorted({row.index for row in (*chain, *measured)})
        slots = {index: i for i, index in enumerate(own)}
        return _Axis(own, chain, (), slots, slots)
    data = sorted({row.index for row in measured if trunk.slots[row.index] < 0})
    before = [index for index in data if index < trunk.line[0]]
    own = [*before, *trunk.line, *data[len(before) :]]
    places = {i: len(before) + place for i, place in enumerate(trunk.places) if not math.isnan(place)}
    slots = {i: len(before) + slot for i, slot in enumerate(trunk.slots) if slot >= 0}
    slots |= {index: i for i, index in enumerate(own) if index in data}
    return _Axis(own, [flow.rows[index] for index in trunk.line], inside, places, slots)


def _profile(flow: Flow, axis: _Axis, step: float, width: int, height: int) -> str:
    """Both curves over the band of what needs no attention, and small marks for what stands inside of blocks."""
    levels = {index: decades for index, (decades, _) in flow.gradient_levels().items()}

    def gradient(row: Row) -> float | None:
        size = _decades(row.stats.backward_rms, row.stats.backward_nonfinite)
        return size if size is None or math.isinf(size) else levels.get(row.index)

    def signal(row: Row) -> float | None:
        return _decades(row.stats.activation_rms, row.stats.activation_nonfinite)

    rows = (*axis.line, *axis.inside)
    known = [v for row in rows for v in (signal(row), gradient(row)) if v is not None and math.isfinite(v)]
    low, high = math.floor(min([BAND[0] - 1.0, *known])), math.ceil(max([BAND[1], *known]))
    top, bottom = _TOP, height - _BOTTOM

    def x(row: Row) -> float:
        return _LEFT + step * (min(max(axis.places[row.index], -0.5), len(axis.ends) - 0.5) + 0.5)

    def y(decades: float) -> float:
        return top + (bottom - top) * (high - decades) / (high - low)

    ticks = [(float(d), f"1e{d}") for d in range(low, high + 1, max(1, math.ceil((high - low) / 6)))]
    made = [_band(width, y(BAND[1]), y(BAND[0])), *(_tick(width, y(at), text) for at, text in ticks)]
    for name, measure, stroke, dash in (
        ("signal", signal, SIGNAL, ""),
        ("gradient", gradient, GRADIENT, ' stroke-dasharray="6 3"'),
    ):
        values = [(x(row), v) for row in axis.line if (v := measure(row)) is not None]
        points = [(a, y(v)) for a, v in values if math.isfinite(v)]
        within = [(x(row), v) for row in axis.inside if (v := measure(row)) is not None]
        if dots := "".join(f"M{a:.1f} {y(max(v, low)):.1f}h0" for a, v in within if v < math.inf):
            made.append(f'<path d="{dots}" stroke="{stroke}" stroke-width="3.5" stroke-linecap="round" opacity=".6"/>')
        made += [cross(a, top, stroke, f"{name}: not finite", 2.5) for a, v in within if v == math.inf]
        line = " ".join(f"{a:.1f},{b:.1f}" for a, b in points)
        made.append(f'<polyline points="{line}" fill="none" stroke="{stroke}" stroke-width="2"{dash}/>')
        if len(axis.line) <= _MOST_POINTS:
            made += [f'<circle cx="{a:.1f}" cy="{b:.1f}" r="2.5" fill="{stroke}"/>' for a, b in points]
        for a, v in values:
            if not math.isfinite(v):
                edge = bottom if v == -math.inf else top
                made.append(cross(a, edge, stroke, f"{name}: {'zero' if v == -math.inf else 'not finite'}"))
    made.append(
        f'<text x="{_LEFT}" y="12" fill="{SIGNAL}">signal (solid)</text>'
        f'<text x="{_LEFT + 110}" y="12" fill="{GRADIENT}">gradient over the last hidden layer\'s (dashed)</text>'
    )
    if axis.inside:
        made.append(f'<text x="{width - _RIGHT}" y="12" text-anchor="end">dots: inside the blocks</text>')
    return "".join(made)


def _panel(
    quantity: Quantity,
    rows: Sequence[Row],
    finding: Finding | None,
    axis: _Axis,
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
    for row in _one_a_bar(rows, levels, usual, axis, marked):
        x = _LEFT + step * (axis.slots[row.index] + 0.5)
        level, own = levels[row.index], row.path in marked
        fill = colour(finding.severity) if own and finding else colour("muted")
        said = f"{_escaped(row.path)}: {html.escape(quantity.text(row.stats))}"
        if not math.isfinite(level):
            made.append(cross(x, bottom if level < 0.0 else top, fill, said))
            continue
        upper, tall = min(base, y(level)), max(1.5, abs(base - y(level)))
        made.append(
            f'<rect x="{x - wide / 2.0:.1f}" y="{upper:.1f}" width="{wide:.1f}" height="{tall:.1f}" '
            f'fill="{fill}"><title>{said}</title></rect>'
        )
    shaded = " (shaded: usual)" if usual else ""
    made.append(f'<text x="{_LEFT}" y="{top - 6.0:.1f}">{html.escape(quantity.title)}{shaded}</text>')
    return "".join(made)


def _one_a_bar(
    rows: Sequence[Row],
    levels: Mapping[int, float],
    usual: tuple[float, float] | None,
    axis: _Axis,
    marked: Collection[str],
) -> list[Row]:
    """Of the rows of each bar, the one that is farthest from what is usual: of those that the finding marks, if any."""
    low, high = usual or (0.0, 0.0)

    def distance(row: Row) -> tuple[bool, float]:
        level = levels[row.index]
        return row.path in marked, max(low - level, level - high)

    each = math.ceil(len(axis.ends) / _MOST_BARS)
    bars: dict[int, list[Row]] = {}
    for row in rows:
        bars.setdefault(axis.slots[row.index] // each, []).append(row)
    return [max(bar, key=distance) for bar in bars.values()]


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


def cross(x: float, y: float, stroke: str, title: str, half: float = 4.0) -> str:
    """The mark of a value that cannot be drawn; what it is stands in its title, which is markup."""
    size = f"{2.0 * half:g}"
    return (
        f'<path d="M{x - half:.1f} {y - half:.1f}l{size} {size}m0 -{size}l-{size} {size}" stroke="{stroke}" '
        f'stroke-width="2"><title>{title}</title></path>'
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
