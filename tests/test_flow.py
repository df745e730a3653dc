"""The graph of a snapshot, and the scale of its gradient: one reference for the rules and the picture."""

from __future__ import annotations

import re

import numpy as np
import pytest
from numpy_network import edited, glorot, snapshot, weights

from keras_initaudit.diagnosis import Thresholds
from keras_initaudit.diagnosis.network import Network
from keras_initaudit.diagnosis.rule import find
from keras_initaudit.diagnosis.rules import BY_SLUG
from keras_initaudit.flow import Flow
from keras_initaudit.records import LayerInfo, Snapshot, Statistics
from keras_initaudit.report.svg import profile_svg


def layer(path: str, inputs: tuple[str, ...], backward: float, size: int = 8, weight: float = 0.3):
    """A dense layer of `size` units whose backward rms and weight rms are given."""
    info = LayerInfo(
        path, 0, kind="Dense", inputs=inputs, weight="kernel", weight_shape=(8, size), fan_in=8.0, shape=(size,)
    )
    return info, Statistics(activation_rms=1.0, backward_rms=backward, weight_rms=weight)


def shot(*rows: tuple[LayerInfo, Statistics]) -> Snapshot:
    return Snapshot(0, tuple(info for info, _ in rows), tuple(stats for _, stats in rows))


def levels(snapshot: Snapshot) -> dict[str, tuple[float, str]]:
    flow = Flow(snapshot)
    return {flow.rows[i].path: (decades, end.path) for i, (decades, end) in flow.gradient_levels().items()}


CHAIN = [layer("a", (), 1e-5), layer("b", ("a",), 1e-2), layer("head", ("b",), 10.0, size=1)]


def test_the_reference_is_the_last_hidden_layer_and_the_head_has_no_level() -> None:
    assert levels(shot(*CHAIN)) == {"a": (pytest.approx(-3.0), "b"), "b": (0.0, "b")}


def test_the_norm_counts_and_not_the_rms() -> None:
    wide = [layer("a", (), 1e-5, size=800), *CHAIN[1:]]
    assert levels(shot(*wide))["a"] == (pytest.approx(-2.0), "b")  # 100 times the units: one decade more


def test_each_branch_has_its_own_reference_and_what_feeds_both_the_larger() -> None:
    rows = [layer("trunk", (), 1e-3), layer("left", ("trunk",), 1e-1), layer("right", ("trunk",), 1e-2)]
    found = levels(shot(*rows, layer("one", ("left",), 1.0), layer("two", ("right",), 1.0)))
    assert found["trunk"] == (pytest.approx(-2.0), "left")
    assert found["right"] == (0.0, "right")


def test_no_gradient_passes_a_head_of_zeros_so_that_there_is_no_reference() -> None:
    assert levels(shot(*CHAIN[:2], layer("head", ("b",), 10.0, weight=0.0))) == {}
    assert levels(shot(CHAIN[0], layer("b", ("a",), 0.0), CHAIN[2])) == {}


def drawn(snapshot: Snapshot) -> np.ndarray:
    """The decades at which the picture draws the gradient, read off its grid."""
    picture = profile_svg(snapshot)
    marks = re.findall(r'y2="([\d.]+)"[^>]*/><text[^>]*>1e(-?\d+)<', picture)
    slope, start = np.polyfit([float(y) for y, _ in marks], [int(decade) for _, decade in marks], 1)
    points = re.findall(r'<polyline points="([^"]*)"', picture)[1].split()
    return np.array([slope * float(p.split(",")[1]) + start for p in points])


def test_finding_and_picture_say_the_same_number() -> None:
    shape = [16, *[32] * 12, 4]
    kernels = weights(shape, glorot(shape))
    found = snapshot([0.3 * kernel for kernel in kernels[:-1]] + kernels[-1:], "tanh")
    (finding,) = find(BY_SLUG["vanishing-gradient"], Network(found), Thresholds())
    decades, _ = levels(found)[finding.evidence["worst"]]
    assert -finding.evidence["observed"] == decades < -2.0
    expected = [level for level, _ in levels(found).values()]
    assert drawn(found) == pytest.approx(expected, abs=0.01 * np.ptp(expected))
    # The gradient of the head is none of them: a number of its own changes nothing.
    assert profile_svg(edited(found, "head", backward_rms=1e3)) == profile_svg(found)
    assert profile_svg(edited(found, "dense_3", backward_rms=1e3)) != profile_svg(found)
