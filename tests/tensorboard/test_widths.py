"""A coordinate check in the log, read back by TensorBoard's own reader, and told to the page by the tab."""

import math
import time

import pytest
from tensorboard.backend import application
from tensorboard.backend.event_processing import data_ingester
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins import base_plugin
from test_plugin import flags_for, get
from werkzeug.test import Client

from keras_initaudit.records import LayerInfo, Snapshot, Statistics
from keras_initaudit.report.width import CoordinateCheck, CoordinateRow, check_from_json
from keras_initaudit.tensorboard import eventfile, metadata, runfile
from keras_initaudit.tensorboard.plugin import InitAuditPlugin
from keras_initaudit.tensorboard.reader import read_runs
from keras_initaudit.tensorboard.summary import LogError, Writer
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


# --- the tab

EXPLODES = CoordinateRow("<b>", 0.0, 0.01, 1.0, 0.02, points=((64, 1.0, 0.125), (128, 1.0, 0.25)))
LOST = CoordinateRow("nan", math.nan, math.nan, math.nan, math.nan, False, ((64, math.nan, math.inf), (128, 0.0, 1.0)))
BAD = CoordinateCheck((64, 128), 5, 1, (EXPLODES, LOST))


def client_of(folder):
    """A client of the tab over a folder with two runs, as soon as it knows both."""
    flags = flags_for(folder)
    ingester = data_ingester.LocalDataIngester(flags)
    ingester.start()
    context = base_plugin.TBContext(data_provider=ingester.data_provider, flags=flags)
    client = Client(
        application.TensorBoardWSGI([InitAuditPlugin().load(context)], "", ingester.data_provider, None, [])
    )
    end = time.monotonic() + 30
    while len(get(client, "runs").json["runs"]) < 2 and time.monotonic() < end:
        time.sleep(0.1)
    return client


def audited(folder):
    writer = Writer(folder)
    writer.write(Snapshot(0, (LayerInfo("dense", 0),), (Statistics(activation_rms=0.5),)), [])
    writer.close()


def test_the_json_of_a_check_gives_it_back():
    for check in (CHECK, BAD):
        again = check_from_json(check.to_json())
        assert again.to_json() == check.to_json()
        assert again.text() == check.text()
    assert check_from_json(CHECK.to_json()) == CHECK
    assert math.isnan(check_from_json(BAD.to_json()).rows[1].start)


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"widths": [1], "steps": "x"}', CHECK.to_json().replace("[64, 2.0, 0.5]", "[64, 2.0]")]
)
def test_what_is_no_check_is_an_error(text):
    with pytest.raises(ValueError, match="the coordinate check is damaged"):
        check_from_json(text)


def test_the_tab_has_a_card_and_the_rows_of_a_check(tmp_path):
    audited(tmp_path / "audited" / "initaudit")
    write(tmp_path / "width", BAD)
    client = client_of(tmp_path)
    cards = {card["run"]: card for card in get(client, "runs").json["runs"]}
    assert set(cards) == {"audited/initaudit", "width"}
    assert "check" not in cards["audited/initaudit"]
    card = cards["width"]
    assert (card["verdict"], card["headline"]) == ("bad", "<b> explodes with width, and 1 of 1 more layers with it")
    assert card["check"] == "widths 64, 128; 5 updates; 1 starts of each"
    told = get(client, "coordinates", run="width").json
    assert card.pop("name") == "width"  # cut to the columns of a card
    assert {name: told[name] for name in card} == card
    assert told["names"] == [row.layer for row in BAD.rows]
    first, second = told["rows"]
    assert first["cells"] == ["<b>", "+0.00 \u00b1 0.01", "+1.00 \u00b1 0.02", "explodes with width"]
    assert first["curves"] == [[[64, 1.0], [128, 1.0]], [[64, pytest.approx(0.125)], [128, pytest.approx(0.25)]]]
    assert (first["verdict"], first["finite"], second["finite"]) == ("bad", True, False)
    assert second["curves"] == [[], [[128, 1.0]]]  # nothing that has no logarithm


def test_each_route_refuses_the_runs_of_the_other(tmp_path):
    audited(tmp_path / "audited")
    write(tmp_path / "width", CHECK)
    client = client_of(tmp_path)
    refused = get(client, "coordinates", run="audited")
    assert (refused.status_code, refused.json["error"]) == (400, "run: no run 'audited' with a coordinate check in it")
    assert get(client, "run", run="width").status_code == 400
    assert get(client, "coordinates", run="width").status_code == 200


def test_a_damaged_check_is_a_problem_of_its_card_alone(tmp_path):
    write(tmp_path / "width", CHECK)
    event = runfile.head()
    event.summary.value.add(
        tag=metadata.COORDINATES_TAG,
        metadata=metadata.tensor_metadata(b"{}", ""),
        tensor=metadata.string_tensor(b"{"),
    )
    (tmp_path / "torn").mkdir()
    (tmp_path / "torn" / "events.out.tfevents.1.torn").write_bytes(
        eventfile.frame(runfile.head().SerializeToString()) + eventfile.frame(summary_of(event))
    )
    client = client_of(tmp_path)
    torn, whole = get(client, "runs").json["runs"]
    assert "the coordinate check is damaged" in torn["problem"]
    assert whole["verdict"] == "healthy"
    assert "cannot be read" in get(client, "coordinates", run="torn").json["error"]


def summary_of(event):
    """The event without the version, which only the first of a file has."""
    return type(event)(wall_time=event.wall_time, summary=event.summary).SerializeToString()


def test_the_reader_of_audits_leaves_a_check_out(tmp_path):
    write(tmp_path / "width", CHECK)
    assert read_runs(tmp_path) == []
