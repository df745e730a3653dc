"""What a coordinate check found, and its forms: text, markdown, HTML with a picture, JSON.

Names of layers are untrusted text, which each form escapes. Standard library only.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

from ..names import LEAST, shortened
from ..numerals import num
from ..records import Verdict, dumps
from . import colours, parts
from .formatting import code_md
from .svg import clean

LIMIT = 0.25
"""The exponents of the theory are multiples of 1/2 (Everett et al. 2024): this is half way to the next one."""
HEADERS = ("layer", "start", "change", "meaning")
LEGEND = (
    "exponent of the width in the rms of a layer's output at the start, and of its change after the updates, with the "
    "standard error"
)


@dataclass(frozen=True)
class CoordinateRow:
    """How the output of one layer goes with the width."""

    layer: str
    start: float
    """Slope of log rms at the start against log width; NaN where the output is zero."""
    start_error: float
    """Its standard error."""
    change: float
    """Slope of log rms of the change since the start; NaN where nothing changes."""
    change_error: float
    finite: bool = True
    """Whether all outputs of all widths are finite."""
    points: tuple[tuple[int, float, float], ...] = ()
    """(width, rms at the start, rms of the change) of each model."""

    @property
    def meaning(self) -> str:
        """What the slopes say: "explodes with width", "stops learning with width" or "stable"."""
        if not self.finite or _beyond(self.start, self.start_error) or _beyond(self.change, self.change_error):
            return "explodes with width"
        return "stops learning with width" if _beyond(-self.change, self.change_error) else "stable"


def _beyond(slope: float, error: float) -> bool:
    """Whether a slope is above the limit by a standard error, where there is one."""
    return slope - (0.0 if math.isnan(error) else error) > LIMIT


@dataclass(frozen=True)
class CoordinateCheck:
    """The result of `coordinate_check`: a row a layer. It prints, renders in a notebook, and goes to JSON."""

    widths: tuple[int, ...]
    steps: int
    seeds: int
    rows: tuple[CoordinateRow, ...]

    @property
    def verdict(self) -> Verdict:
        """The worst of the rows: "bad" where one explodes, "warning" where one stops learning, else "healthy"."""
        meanings = {row.meaning for row in self.rows}
        if "explodes with width" in meanings:
            return "bad"
        return "warning" if "stops learning with width" in meanings else "healthy"

    @property
    def headline(self) -> str:
        """The verdict as a sentence."""
        wrong = [row for row in self.rows if row.meaning != "stable"]
        if not wrong:
            return f"healthy: all {len(self.rows)} layers are stable from width {self.widths[0]} to {self.widths[-1]}"
        worst = max(wrong, key=lambda row: (row.meaning.startswith("explodes"), abs(row.change)))
        others = f", and {len(wrong) - 1} of {len(self.rows) - 1} more layers with it" if len(wrong) > 1 else ""
        return f"{self.verdict}: {clean(worst.layer)} {worst.meaning}{others}"

    def __str__(self) -> str:
        return self.text()

    def text(self) -> str:
        """The check for a terminal."""
        names = [clean(row.layer) for row in self.rows]
        room = max(LEAST, min(40, max(map(len, names))))
        lines = [f"Coordinate check: {self.headline}", f"({self._measured()})", ""]
        lines.append(f"{'layer':<{room}}  {'start':>13}  {'change':>13}  meaning")
        for name, row in zip(shortened(names, room), self.rows, strict=True):
            lines.append(
                f"{name:<{room}}  {_slope(row.start, row.start_error):>13}  "
                f"{_slope(row.change, row.change_error):>13}  {row.meaning}"
            )
        return "\n".join([*lines, f"({LEGEND})"])

    def markdown(self) -> str:
        """The check as markdown."""
        lines = [f"**Coordinate check: {code_md(self.headline)}**", "", self._measured(), ""]
        lines += ["| " + " | ".join(HEADERS) + " |", "|---|---|---|---|"]
        lines += [f"| {code_md(cells[0])} | {' | '.join(cells[1:])} |" for cells in map(_cells, self.rows)]
        return "\n".join([*lines, "", LEGEND])

    def html(self) -> str:
        """The check for a notebook: headline, picture, table; self-contained, no script."""
        colour = colours.colour(self.verdict)
        head = "".join(f"<th>{name}</th>" for name in HEADERS)
        body = "".join(
            "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in _cells(row)) + "</tr>" for row in self.rows
        )
        return (
            f'<div style="font-family:system-ui,sans-serif;max-width:60em"><div style="font-weight:600;color:{colour}">'
            f"{parts.MARK[self.verdict]} {escape(self.headline)}</div><div>{escape(self._measured())}</div>"
            f'{self.svg()}<table><caption style="caption-side:bottom;font-size:.85em">{LEGEND}</caption><thead><tr>'
            f"{head}</tr></thead><tbody>{body}</tbody></table></div>"
        )

    def _repr_html_(self) -> str:
        return self.html()

    def to_json(self) -> str:
        """The check as one line of JSON."""
        rows = [vars(row) | {"meaning": row.meaning} for row in self.rows]
        return dumps(vars(self) | {"verdict": self.verdict, "rows": rows})

    def svg(self) -> str:
        """Two panels: rms of each layer's output at the start, and of its change, against the width."""
        panels = []
        for title, at in (("output at the start", 1), ("change after the updates", 2)):
            curves = {row.layer: _means(row.points, at) for row in self.rows}
            panels.append(Panel(title, curves, {row.layer: _COLOUR[row.meaning] for row in self.rows}))
        return panels_svg(panels, "width", "rms")

    def _measured(self) -> str:
        return f"widths {', '.join(map(str, self.widths))}; {self.steps} updates; {self.seeds} starts of each"


_COLOUR: Mapping[str, str] = {
    "stable": colours.colour("healthy"),
    "stops learning with width": colours.colour("warning"),
    "explodes with width": colours.colour("bad"),
}


def _slope(value: float, error: float) -> str:
    if math.isnan(value):
        return "none"
    return f"{value:+.2f}" if math.isnan(error) else f"{value:+.2f} \u00b1 {error:.2f}"


def _cells(row: CoordinateRow) -> list[str]:
    return [clean(row.layer), _slope(row.start, row.start_error), _slope(row.change, row.change_error), row.meaning]


def _means(points: Sequence[tuple[int, float, float]], at: int) -> list[tuple[float, float]]:
    """(width, geometric mean) of what can be drawn on a logarithmic axis."""
    found: dict[int, list[float]] = {}
    for point in points:
        if math.isfinite(point[at]) and point[at] > 0.0:
            found.setdefault(point[0], []).append(math.log(point[at]))
    return [(float(width), math.exp(sum(logs) / len(logs))) for width, logs in found.items()]


# --- the picture


_PANEL = (330, 230)
"""Width and height of a panel, in pixels."""


@dataclass(frozen=True)
class Panel:
    """Curves on two logarithmic axes."""

    title: str
    curves: Mapping[str, Sequence[tuple[float, float]]]
    """Name -> points."""
    colours: Mapping[str, str]
    marks: Mapping[str, tuple[float, float]] | None = None
    """Name -> the point of the curve that is marked."""


def panels_svg(panels: Sequence[Panel], across: str, up: str, *, background: str = "none") -> str:
    """Panels side by side with the same axes, as inline SVG without a script.

    Args:
        panels: At least one, with points whose coordinates are positive.
        across: What the horizontal axis is.
        up: What the vertical axis is.
        background: Colour behind it: a picture that is a file of its own does not know the page's.
    """
    points = [point for panel in panels for curve in panel.curves.values() for point in curve]
    if not points:
        return ""
    width, height = _PANEL
    (x0, x1), (y0, y1) = (_range([point[axis] for point in points]) for axis in (0, 1))
    left, right, top, bottom = 48.0, width - 10.0, 24.0, height - 34.0
    made = [f'<rect width="100%" height="100%" fill="{background}"/>']
    for number, panel in enumerate(panels):

        def x(value: float, offset: float = float(number * width)) -> float:
            return offset + left + (right - left) * (math.log2(value) - x0) / (x1 - x0)

        def y(value: float) -> float:
            return bottom - (bottom - top) * (math.log2(value) - y0) / (y1 - y0)

        begin = number * width
        made.append(f'<text x="{begin + left}" y="14" font-weight="600">{escape(f"{panel.title}: {up}")}</text>')
        for low, high, place, upright in ((y0, y1, y, True), (x0, x1, x, False)):
            for power in range(math.ceil(low), math.floor(high) + 1, max(1, math.ceil((high - low) / 6))):
                made.append(_tick(place(2.0**power), num(2.0**power, 3), begin, (left, right, top, bottom), upright))
        made.append(
            f'<text x="{begin + (left + right) / 2}" y="{height - 4}" text-anchor="middle">{escape(across)}</text>'
        )
        for name, curve in panel.curves.items():
            line = " ".join(f"{x(a):.1f},{y(b):.1f}" for a, b in sorted(curve))
            colour = panel.colours[name]
            made.append(
                f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="2">'
                f"<title>{escape(clean(name))}</title></polyline>"
            )
            if panel.marks and name in panel.marks:
                a, b = panel.marks[name]
                made.append(f'<circle cx="{x(a):.1f}" cy="{y(b):.1f}" r="4" fill="{colour}"/>')
    names = {name: panel.colours[name] for panel in panels if panel.marks for name in panel.curves}
    for row, (name, colour) in enumerate(names.items()):
        made.append(f'<text x="{len(panels) * width}" y="{30 + 16 * row}" fill="{colour}">{escape(clean(name))}</text>')
    whole = len(panels) * width + (90 if names else 0)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {whole} {height}" width="{whole}" height="{height}" '
        f'role="img" aria-label="{escape(up)} against {escape(across)}" style="max-width:100%" font-size="11" '
        f'font-family="system-ui,sans-serif" fill="currentColor">{"".join(made)}</svg>'
    )


def _range(values: Sequence[float]) -> tuple[float, float]:
    """The powers of two between which the values lie, at least a factor of two apart."""
    low, high = math.log2(min(values)), math.log2(max(values))
    room = max(0.0, 1.0 - (high - low)) / 2.0
    return low - room, high + room


def _tick(at: float, label: str, begin: float, box: tuple[float, float, float, float], upright: bool) -> str:
    left, right, top, bottom = box
    if upright:
        return (
            f'<line x1="{begin + left}" x2="{begin + right}" y1="{at:.1f}" y2="{at:.1f}" stroke="currentColor" '
            f'stroke-opacity=".15"/><text x="{begin + left - 5}" y="{at + 4:.1f}" text-anchor="end">{label}</text>'
        )
    return (
        f'<line x1="{at:.1f}" x2="{at:.1f}" y1="{top}" y2="{bottom}" stroke="currentColor" stroke-opacity=".15"/>'
        f'<text x="{at:.1f}" y="{bottom + 14}" text-anchor="middle">{label}</text>'
    )
