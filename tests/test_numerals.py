"""Numbers as text: a table of values and of their texts. The page's own formatter is compared in a browser."""

from __future__ import annotations

import math

import pytest

from keras_initaudit.numerals import count, num, percent


@pytest.mark.parametrize(
    ("value", "two", "three"),
    [
        (0.0, "0", "0"),
        (-0.0, "0", "0"),
        (1.0, "1", "1"),
        (0.7349, "0.73", "0.735"),
        (-2.8712, "-2.9", "-2.87"),
        (9.96, "10", "9.96"),
        (0.125, "0.13", "0.125"),  # a tie goes up
        (99.95, "100", "100"),
        (140.4, "140", "140"),
        (1234.5, "1235", "1235"),  # all digits before the point
        (9999.4, "9999", "9999"),
        (12500.0, "1.3e4", "1.3e4"),
        (0.01, "0.01", "0.01"),
        (0.00999999977, "0.01", "0.01"),  # the learning rate 0.01 in float32
        (0.00996, "0.01", "0.00996"),
        (0.00994, "9.9e-3", "9.9e-3"),
        (0.001, "1e-3", "1e-3"),
        (3.64e-7, "3.6e-7", "3.6e-7"),
        (-2e12, "-2e12", "-2e12"),
        (5e-324, "4.9e-324", "4.9e-324"),
        (9.99e307, "1e308", "1e308"),
        (1.7976931348623157e308, "1.8e308", "1.8e308"),  # the largest float64
        (-1.7976931348623157e308, "-1.8e308", "-1.8e308"),
        (math.nan, "not finite", "not finite"),
        (-math.inf, "not finite", "not finite"),
    ],
)
def test_a_number_as_text(value: float, two: str, three: str) -> None:
    assert (num(value), num(value, 3)) == (two, three)


def test_the_text_is_the_number_within_half_of_its_last_digit() -> None:
    for exponent in range(-30, 30):
        for mantissa in (1.0, 1.049, 1.051, 2.4449, 5.5551, 9.4999, 9.9501):
            value = mantissa * 10.0**exponent
            assert float(num(value)) == pytest.approx(value, rel=0.0501)
            assert float(num(value, 3)) == pytest.approx(value, rel=0.00501 if 0.01 <= value < 1e4 else 0.0501)


@pytest.mark.parametrize(
    ("fraction", "text"),
    [(0.0, "0 %"), (0.003, "0.3 %"), (0.25, "25 %"), (0.994, "99 %"), (0.9999, "over 99 %"), (1.0, "100 %")],
)
def test_a_fraction_as_text(fraction: float, text: str) -> None:
    assert percent(fraction) == text


def test_a_counted_noun() -> None:
    assert [count(n, "layer") for n in (0, 1, 2, 2000)] == ["0 layers", "1 layer", "2 layers", "2,000 layers"]
