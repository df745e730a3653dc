"""What a report shows of a trial: its two curves, its budget, and that the limits judged where it could not.

The sentence of a trial is the proof of its findings. Losses are drawn as the part of the way that is left: 1 at the
best constant answer, 0 at the targets. So one scale serves both starts, also where a remedy scales the targets.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from ..numerals import count, num, percent
from ..records import Curve, Finding, Trial
from . import colours, parts
from .formatting import sentence
from .svg import clean
from .svg import cross as cross_svg

if TYPE_CHECKING:
    from .report import Report

BLOCKS, BLOCKS_ASCII = "\u2581\u2582\u2583\u2584\u2585\u2586\u2587\u2588", "_.:-=+*#"
"""Eight levels, the lowest first."""
CROSS, CROSS_ASCII = "\u00d7", "x"
"""A loss that is not finite."""
WITH_REMEDY, OTHER_START = "with the remedy", "another start"
_LONGEST = 32
"""Characters of a curve: with its name and the losses at its ends it fits into a line of 80."""
_HIGHEST = 2.0
"""What is higher is drawn there: a start that ends above twice the loss of the best constant answer is hopeless."""


class Line(NamedTuple):
    """One curve in one line of text."""

    name: str
    first: str
    levels: str
    last: str


def beside(report: Report, finding: Finding) -> Trial | None:
    """The trial that is drawn beside this finding: that of its audit, where no worse finding has the same."""
    for trial in report.trials:
        if drawable(trial) and next(iter(_decided(report, trial)), None) is finding:
            return trial
    return None


def _decided(report: Report, trial: Trial) -> list[Finding]:
    """What was found at the audit of a trial."""
    return [finding for finding in parts.listed(report) if parts.found_at(report, finding) == trial.step]


def by_limits(report: Report) -> list[str]:
    """A sentence for each trial that could not judge what was found at its audit."""
    said = []
    for trial in report.trials:
        if not _decided(report, trial):
            continue
        at = "" if trial.step == report.step else f" at step {trial.step}"
        if trial.outcome is None:
            said.append(f"Judged by the limits{at}, not tried: {trial.reason or 'the reason is not known'}.")
        elif trial.outcome == "undecided":
            said.append(f"Judged by the limits{at}: the trial decided nothing.")
    return said


def measured(report: Report, finding: Finding) -> list[str]:
    """A sentence on what came of the remedy of a finding, or of the start that its trial put beside the model."""
    proof, trial = parts.proof(report, finding), beside(report, finding)
    if proof:
        return [f"Measured: {sentence(clean(proof))}"]
    return _of_another_start(trial) if trial is not None and other_start(report, trial) == OTHER_START else []


def harmless(report: Report, finding: Finding) -> list[str]:
    """A sentence on why a finding is a note, below the first one."""
    first = next((note for note in parts.listed(report) if note.severity == "note"), None)
    trial = next((one for one in report.trials if one.step == parts.found_at(report, finding)), None)
    if finding is not first or trial is None:
        return []
    if trial.outcome == "note":
        return ["Tried: the model learns this batch without a remedy, too, and about as fast."]
    return ["Tried: the start above learns without this remedy, too."] if finding.key in trial.left_out else []


def _of_another_start(trial: Trial) -> list[str]:
    """What came of a start of which the report tells no remedy, where it learnt the batch."""
    as_is, other = trial.as_is, trial.remedied
    if as_is is None or other is None or other.needed is None:
        return []
    end = f"{len(as_is.losses)} do not" if as_is.needed is None else f"{as_is.needed} do"
    return [
        f"Measured: With {OTHER_START} of the model, {count(other.needed, 'update')} on this batch bring the loss half "
        f"of the way to the targets; as it is, {end}."
    ]


def budget(trial: Trial) -> str | None:
    """The most updates that a start was allowed, where that cut one short.

    Of one that never arrived it is known that it was slow, and no more, where it could not make all of its updates.
    """
    if trial.allowed is None:
        return None
    late = [curve for curve in (trial.as_is, trial.remedied) if curve is not None and curve.needed is None]
    slow = trial.outcome == "warning" and trial.as_is in late
    short = slow or any(len(curve.losses) == trial.allowed for curve in late)
    return f"The budget allowed at most {count(trial.allowed, 'update')} to each start." if short else None


def other_start(report: Report, trial: Trial) -> str:
    """The name of the start beside the one as it is: where its remedies do not help, the report does not tell them."""
    return WITH_REMEDY if any(finding.proof for finding in _decided(report, trial)) else OTHER_START


def lines(trial: Trial, other: str = WITH_REMEDY, blocks: str = BLOCKS, cross: str = CROSS) -> list[Line]:
    """Both curves as text: a character stands for the mean of some losses, of as many in both."""
    if not drawable(trial):
        return []
    curves = [(f"loss {'of ' if other == OTHER_START else ''}{other}", trial.remedied), ("loss as it is", trial.as_is)]
    known = [(name, curve, left(curve)) for name, curve in curves if curve is not None]
    each = math.ceil(max(len(values) for *_, values in known) / _LONGEST)
    drawn = [(name, curve, _means(values, each)) for name, curve, values in known]
    finite = [mean for *_, means in drawn for mean in means if math.isfinite(mean)]
    low, high = min([0.5, *finite]), max([1.0, *finite])

    def level(mean: float) -> str:
        if not math.isfinite(mean):
            return cross
        return blocks[min(len(blocks) - 1, int(len(blocks) * (mean - low) / (high - low)))]

    return [
        Line(name, num(curve.losses[0], parts.DIGITS), "".join(map(level, means)), num(curve.losses[-1], parts.DIGITS))
        for name, curve, means in drawn
    ]


def _means(values: Sequence[float], each: int) -> list[float]:
    """The mean of every `each` values; NaN where one of them is."""
    groups = [values[i : i + each] for i in range(0, len(values), each)]
    return [sum(group) / len(group) for group in groups]


def svg(trial: Trial, other: str = WITH_REMEDY, width: int = 460, height: int = 170) -> str:
    """Both curves as inline SVG without a script; the best constant answer is a line across it."""
    as_is, remedied = trial.as_is, trial.remedied
    if as_is is None or remedied is None or not drawable(trial):
        return ""
    longest = max(len(as_is.losses), len(remedied.losses), 2)
    curves = (
        (other, left(remedied), colours.REMEDIED, ""),
        ("as it is", left(as_is), colours.AS_IS, ' stroke-dasharray="6 3"'),
    )
    high = max([1.1, *(value for _, values, _, _ in curves for value in values if math.isfinite(value))])
    x0, x1, top, bottom = 64.0, width - 8.0, 22.0, height - 32.0

    def x(i: int) -> float:
        return x0 + (x1 - x0) * i / (longest - 1)

    def y(part: float) -> float:
        return top + (bottom - top) * (high - part) / high

    same_ends = same_scale(trial)
    scale = "loss" if same_ends else "part of the way left"
    made = []
    for part, dash in ((1.0, ' stroke-dasharray="2 3"'), (0.0, "")):
        label = _loss_at(part, remedied) if same_ends else percent(part)
        made.append(
            f'<line x1="{x0}" x2="{x1}" y1="{y(part):.1f}" y2="{y(part):.1f}" stroke="currentColor"{dash}/>'
            f'<text x="{x0 - 6}" y="{y(part) + 4:.1f}" text-anchor="end">{label}</text>'
        )
    made.append(f'<text x="{x1}" y="{y(1.0) - 4:.1f}" text-anchor="end">best constant answer</text>')
    for name, values, colour, dash in curves:
        points = " ".join(f"{x(i):.1f},{y(v):.1f}" for i, v in enumerate(values) if math.isfinite(v))
        made.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"{dash}/>')
        made += [
            cross_svg(x(i), top, colour, f"{name}: not finite") for i, v in enumerate(values) if not math.isfinite(v)
        ]
    middle = (top + bottom) / 2.0
    made += [
        f'<text x="{x0}" y="12" fill="{colours.REMEDIED}">{other} (solid)</text>',
        f'<text x="{x0 + 150}" y="12" fill="{colours.AS_IS}">as it is (dashed)</text>',
        f'<text transform="translate(12 {middle:.1f}) rotate(-90)" text-anchor="middle">{scale}</text>',
        *(
            f'<text x="{x(i):.1f}" y="{bottom + 14:.1f}" text-anchor="{anchor}">{i}</text>'
            for i, anchor in ((0, "start"), (longest - 1, "end"))
        ),
        f'<text x="{(x0 + x1) / 2.0}" y="{height - 6}" text-anchor="middle">updates on this batch</text>',
    ]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'role="img" aria-label="Loss as it is: {_course(as_is)}; {other}: {_course(remedied)}" '
        f'style="max-width:100%;height:auto;display:block" font-size="11" fill="currentColor">{"".join(made)}</svg>'
    )


def _course(curve: Curve) -> str:
    """A curve in words, for those who do not see it."""
    first, last = num(curve.losses[0], parts.DIGITS), num(curve.losses[-1], parts.DIGITS)
    best = num(curve.constant, parts.DIGITS)
    return f"from {first} to {last} in {count(len(curve.losses), 'update')}, the best constant answer has {best}"


def _loss_at(part: float, curve: Curve) -> str:
    """The loss at which this part of the way is left, to a thousandth of the way: 0 and not 1e-7 at the targets."""
    loss = curve.at_targets + part * _way(curve)
    return num(loss) if abs(loss) > 1e-3 * abs(_way(curve)) else "0"


def drawable(trial: Trial) -> bool:
    """Whether both curves are there, each with two ends."""
    curves = (trial.as_is, trial.remedied)
    return all(c is not None and len(c.losses) > 0 and math.isfinite(_way(c)) and _way(c) != 0.0 for c in curves)


def same_scale(trial: Trial) -> bool:
    """Whether the losses of both curves can be compared: no remedy has moved the targets."""
    as_is, remedied = trial.as_is, trial.remedied
    assert as_is is not None
    assert remedied is not None
    return (as_is.constant, as_is.at_targets) == (remedied.constant, remedied.at_targets)


def left(curve: Curve) -> list[float]:
    """Of each loss, the part of the way that is left, at most `_HIGHEST` and at least 0; NaN where it is not finite."""
    parts_left = [(loss - curve.at_targets) / _way(curve) for loss in curve.losses]
    return [min(max(part, 0.0), _HIGHEST) if math.isfinite(part) else math.nan for part in parts_left]


def _way(curve: Curve) -> float:
    return curve.constant - curve.at_targets
