"""What a coordinate check found, and its forms: text, markdown, HTML with a picture, JSON.

Names of layers are untrusted text, which each form escapes. Standard library only.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

from ..names import LEAST, shortened
from ..numerals import num
from ..records import VERDICTS, Verdict, dumps
from ..records.codec import record
from . import colours, parts
from .formatting import code_md
from .svg import clean

LIMIT = 0.25
"""The exponents of the theory are multiples of 1/2 (Everett et al. 2024): this is half way to the next one."""
HEADERS = ("layer", "start", "change", "meaning")
PANELS = (("output at the start", 1), ("change after the updates", 2))
"""Title of each panel, and the position of its number in `CoordinateRow.points`."""
LEGEND = (
    "exponent of the width in the rms of a layer's output at the start, and of its change after the updates, with the "
    "standard error"
)


MEANINGS: Mapping[str, Verdict] = {
    "explodes with width": "bad",
    "stops learning with width": "warning",
    "stable": "healthy",
}
"""What the slopes of a layer can say, worst first, and how bad that is."""


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

    def means(self, at: int) -> list[tuple[int, float]]:
        """(width, geometric mean over its starts) of what has a logarithm; `at` is the position in each of `points`."""
        found: dict[int, list[float]] = {}
        for point in self.points:
            if math.isfinite(point[at]) and point[at] > 0.0:
                found.setdefault(point[0], []).append(math.log(point[at]))
        return [(width, math.exp(sum(logs) / len(logs))) for width, logs in found.items()]

    @property
    def cells(self) -> tuple[str, str, str, str]:
        """The row of a table, under `HEADERS`."""
        slopes = (_slope(self.start, self.start_error), _slope(self.change, self.change_error))
        return (clean(self.layer), *slopes, self.meaning)


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
        return min((MEANINGS[row.meaning] for row in self.rows), key=VERDICTS.index, default="healthy")

    @property
    def headline(self) -> str:
        """The verdict as a sentence."""
        return f"{self.verdict}: {self.sentence}"

    @property
    def sentence(self) -> str:
        """What the verdict says, without it."""
        wrong = [row for row in self.rows if row.meaning != "stable"]
        if not wrong:
            return f"all {len(self.rows)} layers are stable from width {self.widths[0]} to {self.widths[-1]}"
        worst = max(wrong, key=lambda row: (row.meaning.startswith("explodes"), abs(row.change)))
        others = f", and {len(wrong) - 1} of {len(self.rows) - 1} more layers with it" if len(wrong) > 1 else ""
        return f"{clean(worst.layer)} {worst.meaning}{others}"

    def __str__(self) -> str:
        return self.text()

    def text(self) -> str:
        """The check for a terminal."""
        names = [clean(row.layer) for row in self.rows]
        room = max(LEAST, min(40, max(map(len, names))))
        lines = [f"Coordinate check: {self.headline}", f"({self.measured})", ""]
        lines.append(f"{'layer':<{room}}  {'start':>13}  {'change':>13}  meaning")
        for name, row in zip(shortened(names, room), self.rows, strict=True):
            lines.append(f"{name:<{room}}  {row.cells[1]:>13}  {row.cells[2]:>13}  {row.meaning}")
        return "\n".join([*lines, f"({LEGEND})"])

    def markdown(self) -> str:
        """The check as markdown."""
        lines = [f"**Coordinate check: {code_md(self.headline)}**", "", self.measured, ""]
        lines += ["| " + " | ".join(HEADERS) + " |", "|---|---|---|---|"]
        lines += [f"| {code_md(cells[0])} | {' | '.join(cells[1:])} |" for cells in (row.cells for row in self.rows)]
        return "\n".join([*lines, "", LEGEND])

    def html(self) -> str:
        """The check for a notebook: headline, picture, table; self-contained, no script."""
        colour = colours.colour(self.verdict)
        head = "".join(f"<th>{name}</th>" for name in HEADERS)
        body = "".join(
            "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row.cells) + "</tr>" for row in self.rows
        )
        return (
            f'<div style="font-family:system-ui,sans-serif;max-width:60em"><div style="font-weight:600;color:{colour}">'
            f"{parts.MARK[self.verdict]} {escape(self.headline)}</div><div>{escape(self.measured)}</div>"
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
        for title, at in PANELS:
            curves = {row.layer: row.means(at) for row in self.rows}
            shades = {row.layer: colours.colour(MEANINGS[row.meaning]) for row in self.rows}
            panels.append(Panel(title, curves, shades))
        return panels_svg(panels, "width", "rms")

    @property
    def measured(self) -> str:
        """What was measured."""
        return f"widths {', '.join(map(str, self.widths))}; {self.steps} updates; {self.seeds} starts of each"


def check_from_json(text: str | bytes) -> CoordinateCheck:
    """The check that `CoordinateCheck.to_json` wrote; ValueError where it is none."""
    try:
        check: CoordinateCheck = record(CoordinateCheck, json.loads(text))
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"the coordinate check is damaged ({type(error).__name__}: {error})") from error
    if not check.widths:
        raise ValueError("the coordinate check is damaged (it has no widths)")
    return check


def _slope(value: float, error: float) -> str:
    if math.isnan(value):
        return "none"
    return f"{value:+.2f}" if math.isnan(error) else f"{value:+.2f} \u00b1 {error:.2f}"


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
