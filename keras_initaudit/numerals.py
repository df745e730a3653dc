"""Numbers as text: one rule for messages, reports and the page, whose `static/format.js` repeats it.

A test in a real browser compares the two on a table of numbers. Standard library only.
"""

from __future__ import annotations

import math

_UP = 1.0 + 2.0**-40
"""Python rounds a tie, as 0.125, to the even digit, JavaScript rounds it up. A tie that is a little larger is none."""


def num(value: float, digits: int = 2) -> str:
    """A number with `digits` significant digits: 0.73, 140 and not 1.4e+02, 3.6e-7 and not 3.60e-07.

    Digits before the decimal point are all written; below 0.01 and from 1e4 on there is an exponent, and two digits.

    >>> num(0.734), num(0.734, 3), num(140.2), num(3.6e-7), num(1e-3), num(math.inf)
    ('0.73', '0.734', '140', '3.6e-7', '1e-3', 'not finite')
    """
    if not math.isfinite(value):
        return "not finite"
    if value == 0.0:
        return "0"
    raised = value * _UP if abs(value) < 1e308 else value  # the largest floats have no room above them
    mantissa, power = f"{raised:.1e}".split("e")
    if int(power) < -2 or abs(value) >= 1e4:
        return f"{mantissa.removesuffix('.0')}e{int(power)}"
    exponent = int(f"{raised:.{digits - 1}e}".split("e")[1])
    text = f"{raised:.{max(0, digits - 1 - exponent)}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def percent(fraction: float) -> str:
    """A fraction as a percentage that says 100 % only when it is all of it.

    >>> percent(0.125), percent(0.004), percent(0.9999), percent(1.0)
    ('13 %', '0.4 %', 'over 99 %', '100 %')
    """
    text = num(100.0 * fraction)
    return "over 99 %" if text == "100" and fraction < 1.0 else f"{text} %"


def count(number: int, noun: str) -> str:
    """`1 layer`, `30 layers`, `2,000 layers`.

    >>> count(1, "layer"), count(2000, "layer")
    ('1 layer', '2,000 layers')
    """
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
