"""A coordinate check in the log, read back by TensorBoard's own reader."""

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from keras_initaudit.report.width import CoordinateCheck, CoordinateRow
from keras_initaudit.tensorboard.summary import LogError
from keras_initaudit.tensorboard.widths import write

ROW = CoordinateRow("dense/a", 0.0, 0.0, 0.0, 0.0, points=((64, 2.0, 0.5), (64, 8.0, 0.0), (128, 4.0, float("inf"))))
CHECK = CoordinateCheck((64, 128), 5, 2, (ROW,))


def test_each_width_is_a_step_and_the_mean_is_geometric(tmp_path):
    found = EventAccumulator(write(tmp_path / "run", CHECK))
    found.Reload()
    assert [(event.step, event.value) for event in found.Scalars("coordinates/start/dense/a")] == [
        (64, 2.0),
        (128, 2.0),
    ]
    # What is zero or not finite has no logarithm.
    assert [(event.step, event.value) for event in found.Scalars("coordinates/change/dense/a")] == [(64, -1.0)]
    (text,) = found.Tensors("coordinates/check")
    assert b"dense/a" in text.tensor_proto.string_val[0]


def test_a_folder_that_holds_a_log_is_left_alone(tmp_path):
    assert write(tmp_path / "run", CHECK) == str(tmp_path / "run")
    assert write(tmp_path / "run", CHECK) == str(tmp_path / "run-2")


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(LogError, match="cannot be written"):
        write(tmp_path / "file" / "run", CHECK)
