"""The header and the audit record: a round trip, other versions, damage."""

import dataclasses
import json
import math

import pytest

from keras_initaudit.records import COLUMNS, Curve, Finding, LayerInfo, Snapshot, Trial
from keras_initaudit.tensorboard import metadata

LAYERS = (
    LayerInfo("input", -1, role="input", shape=(64,)),
    LayerInfo("block/dense", 0, kind="Dense", initializer_config={"scale": 2.0, "seed": None}, inputs=("input",)),
    LayerInfo("<b>dense</b> \N{SNOWMAN}", 1, kind="Dense", trainable=False, weight_shape=(3, 2), fan_in=3.0),
)


def test_a_header_survives_its_round_trip():
    header = metadata.parse_header(metadata.encode_header(LAYERS))
    assert header == metadata.Header(metadata.FORMAT, COLUMNS, LAYERS)
    assert not header.is_newer


def test_a_header_leaves_out_what_is_at_its_default():
    written = json.loads(metadata.encode_header((LayerInfo("dense", 0, trainable=False),)))["layers"]
    assert written == [{"path": "dense", "depth": 0, "trainable": False}]


def test_a_newer_header_is_read_and_said_to_be_newer():
    data = json.loads(metadata.encode_header(LAYERS))
    data["format"] = metadata.FORMAT + 1
    data["columns"].append("curvature")
    data["layers"][0]["colour"] = "red"
    data["tides"] = {"high": 1}
    header = metadata.parse_header(json.dumps(data).encode())
    assert header.is_newer
    assert header.columns == (*COLUMNS, "curvature")
    assert header.layers == LAYERS


def test_a_newer_header_that_cannot_be_read_asks_for_an_upgrade():
    data = {"format": metadata.FORMAT + 1, "tables": []}
    with pytest.raises(ValueError, match=r"newer than this version.*upgrade"):
        metadata.parse_header(json.dumps(data).encode())


def test_an_older_header_is_refused_in_one_sentence():
    data = json.loads(metadata.encode_header(LAYERS)) | {"format": metadata.FORMAT - 1}
    with pytest.raises(ValueError, match=r"^log format 1 is older than this version of keras_initaudit reads \(2\): "):
        metadata.parse_header(json.dumps(data).encode())


@pytest.mark.parametrize(
    "content", [b"", b"\xff\x00", b"[]", b"3", b"{}", b'{"format": "x"}', b'{"format": 2}', b'{"format":2,"columns":3}']
)
def test_a_damaged_header_is_a_value_error(content):
    with pytest.raises(ValueError, match=r"not a log of keras_initaudit|damaged"):
        metadata.parse_header(content)


def test_an_audit_record_survives_its_round_trip():
    finding = Finding("dead-units", "bad", "dense", "half are dead", {"observed": math.inf}, "code", "He", "proof")
    snapshot = Snapshot(3, LAYERS, (), 1.5, 2.3, 32, {}, "SGD", 1e-3, 0.1, 0.9, "squares")
    record = metadata.parse_audit(metadata.encode_audit(snapshot, [finding], {2: LAYERS[2]}))
    assert record.findings[0].evidence == {"observed": math.inf}
    assert (record.findings[0].remedy, record.findings[0].proof) == ("code", "proof")
    assert record.snapshot == dataclasses.replace(snapshot, step=0, layers=())
    assert record.changed == ((2, LAYERS[2]),)


def test_an_audit_record_is_standard_json_whatever_the_numbers():
    text = metadata.encode_audit(Snapshot(0, (), ()), [Finding("x", "bad", None, "", {"a": [math.nan]})], {})
    assert b"NaN" in text
    json.loads(text, parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))
    assert math.isnan(metadata.parse_audit(text).snapshot.loss)


TRIAL = Trial("bad", Curve((2.3, math.nan), 2.2, 0.0), Curve((2.3, 1.0, 1.0), 2.2, 0.0, 3), 50, None, 0, ("a:b",))


def with_trials(trials):
    """An audit record with these as they stand in the log."""
    data = json.loads(metadata.encode_audit(Snapshot(0, (), ()), [Finding("x", "bad", None, "")], {}))
    return metadata.parse_audit(json.dumps(data | {"trials": trials}).encode())


def test_an_audit_record_keeps_the_trials():
    other = Trial(reason="it is switched off", allowed=0, step=20)
    written = metadata.encode_audit(Snapshot(0, (), ()), [], {}, [TRIAL, other])
    assert repr(metadata.parse_audit(written).trials) == repr((TRIAL, other))  # NaN is not equal to itself
    assert b"trials" not in metadata.encode_audit(Snapshot(0, (), ()), [], {})
    assert with_trials([]).trials == ()


@pytest.mark.parametrize(
    "change",
    [
        {"outcome": "excellent"},
        {"outcome": 3},
        {"as_is": {}},
        {"as_is": 3},
        {"as_is": {"losses": 3, "constant": 1.0, "at_targets": 0.0}},
        {"as_is": {"losses": ["x"], "constant": 1.0, "at_targets": 0.0}},
        {"as_is": {"losses": "123", "constant": 1.0, "at_targets": 0.0}},
        {"as_is": {"losses": [1.0], "constant": None, "at_targets": 0.0}},
        {"as_is": {"losses": [1.0], "constant": 1.0, "at_targets": 0.0, "needed": "x"}},
        {"allowed": "x"},
        {"step": None},
        {"reason": 3},
        {"left_out": 3},
    ],
)
def test_a_damaged_trial_is_left_out_and_the_others_stay(change):
    whole = json.loads(metadata.encode_audit(Snapshot(0, (), ()), [], {}, [TRIAL]))["trials"][0]
    record = with_trials([whole | change, whole])
    assert repr(record.trials) == repr((TRIAL,))
    assert [finding.rule for finding in record.findings] == ["x"]


@pytest.mark.parametrize("trials", [3, "abc", None, {"outcome": "bad"}, [3], ["abc"], [[]], [None]])
def test_what_is_no_trial_at_all_is_left_out(trials):
    assert with_trials(trials).trials == ()


@pytest.mark.parametrize("content", [b"", b"[]", b'{"findings": [3]}', b'{"loss": "x"}', b'{"layers": {"x": {}}}'])
def test_a_damaged_audit_record_is_a_value_error(content):
    with pytest.raises(ValueError, match="damaged"):
        metadata.parse_audit(content)


def test_row_names_sort_as_text_in_the_order_of_depth():
    layers = [LayerInfo(f"d{depth}", depth) for depth in range(1200)]
    names = metadata.row_names(layers)
    assert names == sorted(names)
    assert names[7] == "0007_d7"
    assert metadata.row_names(layers[:20])[7] == "007_d7"
    assert metadata.row_names([]) == []
