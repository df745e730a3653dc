"""The levels of the gradient in numpy are those of `Flow.gradient_levels`, in every row of every kind of network."""

from __future__ import annotations

import dataclasses
import functools
import math
import time
from collections.abc import Sequence

import numpy as np
import odd_networks as odd
import pytest
from deep_network import Network
from numpy_network import edited

from keras_initaudit.flow import Flow, log10
from keras_initaudit.records import COLUMNS, Snapshot
from keras_initaudit.tensorboard.levels import LEVELS, ends_of, level_columns
from keras_initaudit.tensorboard.summary import statistics_array


def by_flow(snapshot: Snapshot) -> dict[str, np.ndarray]:
    """The two columns, row by row; of dL/d(weight) only the rows whose backward norm has a level."""
    found = {name: np.full(len(snapshot.layers), np.nan) for name in LEVELS}
    for index, (decades, end) in Flow(snapshot).gradient_levels().items():
        found["backward_level"][index] = decades
        found["gradient_level"][index] = log10(snapshot.statistics[index].gradient_rms) - log10(end.backward_norm)
    return found


def by_numpy(snapshots: Sequence[Snapshot]) -> dict[str, np.ndarray]:
    table = np.stack([statistics_array(snapshot) for snapshot in snapshots])
    return level_columns(ends_of(snapshots[0].layers), LEVELS, lambda name: table[:, :, COLUMNS.index(name)])


def branched(left: float, right: float) -> Snapshot:
    """Two heads: one behind the last layer, one at the layer before it; the gradients at both are given."""
    shot = odd.healthy()
    head = shot.layers[[layer.path for layer in shot.layers].index("head")]
    shot = edited(edited(shot, "dense_1", backward_rms=left), "dense_2", backward_rms=right)
    return odd.added(shot, dataclasses.replace(head, path="aside", inputs=("dense_1",)), shot["head"])


def without_edges(shot: Snapshot) -> Snapshot:
    return odd.each(shot, inputs=())


NETWORKS = {
    "trained": list(Network(12).audits((0, 1, 5))),
    "vanishing": list(Network(12, std=0.6).audits((0, 3))),
    "sigmoid": list(Network(40, "sigmoid", std=1.0).audits((0, 1))),
    "not finite": list(Network(30, std=50.0).audits((0, 1, 2))),
    "one layer": list(Network(1).audits((0,))),
    "of several sizes": [edited(odd.healthy(), "dense_0", layer={"shape": (-1, 9, 64)})],
    "residual": [odd.plain(6, residual=True)],
    "normalised": [odd.normalised(odd.plain(4, residual=True))],
    "two heads": [branched(1e-3, 1e-1), branched(1e-1, 1e-3), branched(0.0, 1e-3), branched(math.nan, 1e-3)],
    "head of zeros": [odd.healthy(), odd.with_kernel(3, np.zeros_like), edited(odd.healthy(), "head", weight_rms=0.0)],
    "one of two heads of zeros": [branched(1e-1, 1e-3), edited(branched(1e-1, 1e-3), "aside", weight_rms=0.0)],
    "no gradient": [edited(odd.healthy(), path, backward_rms=0.0) for path in ("dense_0", "dense_2")],
    "infinite": [edited(odd.healthy(), path, backward_rms=math.inf) for path in ("dense_0", "dense_2")],
    "a part": [odd.gates(0.1)],
    "no edges": [without_edges(odd.healthy()), without_edges(edited(odd.healthy(), "dense_1", backward_rms=1e-9))],
    "no layers": [Snapshot(0, (), ())],
}


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.filterwarnings("error")
def test_numpy_and_the_flow_say_the_same_of_every_row_at_every_audit(name: str) -> None:
    snapshots = NETWORKS[name]
    found = by_numpy(snapshots)
    for audit, snapshot in enumerate(snapshots):
        expected = by_flow(snapshot)
        close = functools.partial(np.testing.assert_allclose, rtol=1e-12, atol=1e-12)
        close(found["backward_level"][audit], expected["backward_level"])
        known = ~np.isnan(expected["backward_level"])
        close(found["gradient_level"][audit][known], expected["gradient_level"][known])


def test_the_networks_have_every_kind_of_level() -> None:
    """A negative control: the comparison is not one of NaN with NaN, and the point of reference counts."""
    levels = {name: [by_flow(snapshot)["backward_level"] for snapshot in shots] for name, shots in NETWORKS.items()}
    known = {name: [int(np.isfinite(audit).sum()) for audit in audits] for name, audits in levels.items()}
    assert known["trained"] == [11] * 3  # 12 layers less the head
    assert known["one layer"] == [0]
    assert known["head of zeros"] == [3, 0, 0]
    assert known["not finite"][2] == 0
    assert np.nanmin(levels["vanishing"][0]) < -2.0
    first, second, *_ = (audit[1] for audit in levels["two heads"])  # dense_0 leads to both
    assert abs(first - second) < 1e-9  # the larger of the two is its reference, whichever it is
    assert by_numpy(NETWORKS["two heads"])["backward_level"][0, 3] == 0.0  # dense_2 leads to one alone
    assert by_numpy(NETWORKS["two heads"])["backward_level"][0, 2] == pytest.approx(-2.0)  # dense_1 to both


def test_two_thousand_layers_at_two_hundred_audits_are_cheap() -> None:
    (snapshot,) = Network(2000, width=4).audits((0,), histograms=False)
    column = np.exp(np.random.default_rng(0).standard_normal((200, 2002))).astype(np.float32)
    start = time.process_time()
    ends = ends_of(snapshot.layers)
    found = level_columns(ends, LEVELS, lambda _: column)
    assert time.process_time() - start < 1.0  # 0.05 s on an idle machine
    assert int(np.isfinite(found["backward_level"]).sum()) == 200 * 1999
