"""The curves of a trial in TensorBoard's stock dashboards, read back with TensorBoard's own reader."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from deep_network import Network
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.custom_scalar import layout_pb2
from tensorboard.util import tensor_util

from keras_initaudit.records import Curve, Snapshot, Trial
from keras_initaudit.tensorboard.reader import read_runs
from keras_initaudit.tensorboard.summary import Writer

FALLING = Curve((2.5, 1.9, 1.4, 1.0), 2.25, 0.0, 4)
FLAT = Curve((2.5, 2.375, 2.25, 2.25, 2.25, 2.25), 2.25, 0.0)
BAD = Trial("bad", FLAT, FALLING, 1000)


@pytest.fixture(scope="module")
def audits() -> list[Snapshot]:
    return list(Network(3).audits((0, 1, 20)))


def written(folder: Path, audits: list[Snapshot], *trials: Trial) -> Any:
    writer = Writer(folder / "run")
    for shot in audits:
        writer.write(shot, [], trials=[trial for trial in trials if trial.step <= shot.step])
    writer.close()
    return EventAccumulator(str(folder / "run"), size_guidance={"tensors": 0, "scalars": 0}).Reload()


def curves(events: Any) -> dict[str, list[tuple[int, float]]]:
    tags = [tag for tag in events.Tags()["scalars"] if tag.startswith("trial")]
    return {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in tags}


def test_the_losses_stand_at_their_updates_beside_the_best_constant_answer(tmp_path: Path, audits: Any) -> None:
    made = curves(written(tmp_path, audits, BAD))
    assert made == {
        "trial/as_is": list(enumerate(FLAT.losses)),  # numbers that float32 holds
        "trial/with_remedy": [(i, pytest.approx(loss, rel=1e-6)) for i, loss in enumerate(FALLING.losses)],
        "trial/best_constant_answer": [(i, 2.25) for i in range(6)],
    }
    (run,) = read_runs(tmp_path)  # our own reader passes over them
    assert run.trials == (BAD,)
    assert [shot.step for shot in run.snapshots] == [0, 1, 20]


def test_what_is_not_finite_is_left_out(tmp_path: Path, audits: Any) -> None:
    lost = Curve((2.5, math.inf, math.nan, 3.0), 2.25, 0.0)
    made = curves(written(tmp_path, audits, Trial("bad", lost, FALLING)))
    assert made["trial/as_is"] == [(0, 2.5), (3, 3.0)]
    assert len(made["trial/with_remedy"]) == 4


def test_where_a_remedy_moves_the_targets_the_parts_of_the_way_are_compared(tmp_path: Path, audits: Any) -> None:
    scaled = Trial("bad", Curve((3e8, 2e8), 1e8, 0.0), Curve((1.5, 0.5), 1.0, 0.0, 2))
    made = curves(written(tmp_path, audits, scaled))
    assert made == {
        "trial_part_left/as_is": [(0, 2.0), (1, 2.0)],  # as high as the report draws it
        "trial_part_left/with_remedy": [(0, 1.5), (1, 0.5)],
        "trial_part_left/best_constant_answer": [(0, 1.0), (1, 1.0)],
    }


def test_a_later_trial_has_a_group_of_its_own_and_one_that_was_not_run_has_none(tmp_path: Path, audits: Any) -> None:
    later = Trial("bad", FLAT, FALLING, step=20)
    made = curves(written(tmp_path, audits, BAD, Trial(reason="the model is new", step=1), later))
    groups = {tag.split("/")[0] for tag in made}
    assert groups == {"trial", "trial_at_step_20"}
    assert made["trial_at_step_20/as_is"] == made["trial/as_is"]


@pytest.mark.parametrize(("trial", "charts"), [(BAD, 1), (Trial(reason="it is switched off"), 0)])
def test_the_custom_dashboard_lays_the_curves_over_each_other(
    tmp_path: Path, audits: Any, trial: Trial, charts: int
) -> None:
    events = written(tmp_path, audits, trial)
    (config,) = events.Tensors("custom_scalars__config__")
    layout = layout_pb2.Layout.FromString(tensor_util.make_ndarray(config.tensor_proto).item())
    tags = [chart.multiline.tag[0] for category in layout.category for chart in category.chart]
    assert tags.count("^trial[^/]*/") == charts
    assert len(tags) == 8 + charts
    assert bool(curves(events)) == bool(charts)
