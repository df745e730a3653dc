"""The log: what is written is read back, by our reader and by TensorBoard's own, whole or damaged."""

import dataclasses
import json
import math
import os
import subprocess
import sys
import threading
import zlib
from pathlib import Path

import numpy as np
import pytest
from deep_network import Network, findings_of
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.compat.proto import event_pb2
from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import masked_crc32c
from tensorboard.plugins.custom_scalar import layout_pb2
from tensorboard.util import tensor_util

from keras_initaudit.records import COLUMNS, Curve, Finding, Histogram, LayerInfo, Snapshot, Statistics, Trial
from keras_initaudit.tensorboard import eventfile, metadata
from keras_initaudit.tensorboard.reader import read, read_runs
from keras_initaudit.tensorboard.summary import STOCK_ROWS, LogError, Writer, statistics_array

STEPS = (0, 1, 2, 5)


@pytest.fixture(scope="module")
def snapshots():
    return list(Network(12, std=0.8).audits(STEPS))


@pytest.fixture
def run(tmp_path, snapshots):
    writer = Writer(tmp_path / "initaudit")
    for snapshot in snapshots:
        writer.write(snapshot, findings_of(snapshot), "# Verdict\n\nbad")
    writer.close()
    return writer.log_dir


def event_file(folder):
    (name,) = (name for name in os.listdir(folder) if "tfevents" in name)
    return os.path.join(folder, name)


def accumulated(folder):
    return EventAccumulator(folder, size_guidance={"tensors": 0, "scalars": 0}).Reload()


def as_logged(snapshot):
    """The snapshot without its histograms, in the precision of the log."""
    rows = statistics_array(snapshot).astype(np.float32).astype(float).tolist()
    statistics = tuple(Statistics(*row) for row in rows)
    return dataclasses.replace(snapshot, statistics=statistics, histograms={})


def same(a, b):
    return repr(a) == repr(b)  # NaN is not equal to itself


# --- round trip ---------------------------------------------------------------------------------------------------


def test_every_field_of_a_snapshot_survives_but_its_histograms(run, snapshots):
    back = read(run)
    assert [s.step for s in back] == list(STEPS)
    for written, again in zip(snapshots, back, strict=True):
        assert same(as_logged(written), again)
        assert math.isfinite(again.loss)
        assert again.batch_size == 64
        assert again.optimizer == "SGD"


def test_findings_survive(run, snapshots):
    (found,) = read_runs(run)
    assert found.problems == ()
    assert [list(f) for f in found.findings] == [findings_of(s) for s in snapshots]
    assert found.findings[0][0].rule == "vanishing-gradient"


def test_a_layer_that_is_unfrozen_between_audits_is_logged_as_it_is_then(tmp_path, snapshots):
    first, second = (dataclasses.replace(s, histograms={}) for s in snapshots[:2])
    frozen = (*first.layers[:1], dataclasses.replace(first.layers[1], trainable=False), *first.layers[2:])
    with_frozen = dataclasses.replace(first, layers=frozen)
    writer = Writer(tmp_path)
    writer.write(with_frozen, [])
    writer.write(second, [])
    assert [s.layers[1].trainable for s in read(tmp_path)] == [False, True]


def test_extreme_numbers_survive_or_become_what_float32_makes_of_them(tmp_path):
    row = Statistics(activation_rms=1e-44, activation_max=math.inf, backward_rms=1e300, weight_mean=-0.0)
    writer = Writer(tmp_path)
    writer.write(Snapshot(2**40, (LayerInfo("d", 0),), (row,), loss=-math.inf), [])
    (back,) = read(tmp_path)
    assert back.step == 2**40
    assert back.loss == -math.inf
    assert back["d"].activation_rms == pytest.approx(1e-44, rel=0.05)  # a subnormal of float32
    assert back["d"].activation_max == back["d"].backward_rms == math.inf
    assert math.isnan(back["d"].update_log10)


def test_a_model_without_rows_is_no_fault(tmp_path):
    Writer(tmp_path).write(Snapshot(0, (), (), loss=1.0), [], "nothing to see")
    (back,) = read(tmp_path)
    assert back.layers == back.statistics == ()


# --- what stock TensorBoard finds ---------------------------------------------------------------------------------


def test_tensorboard_reads_our_tensors(run, snapshots):
    events = accumulated(run)
    stats = events.Tensors(metadata.STATS_TAG)
    assert [e.step for e in stats] == list(STEPS)
    for event, snapshot in zip(stats, snapshots, strict=True):
        np.testing.assert_array_equal(
            tensor_util.make_ndarray(event.tensor_proto), statistics_array(snapshot).astype(np.float32)
        )
    assert [e.step for e in events.Tensors(metadata.INIT_TAG)] == [0]
    header = metadata.parse_header(events.SummaryMetadata(metadata.INIT_TAG).plugin_data.content)
    assert header.columns == COLUMNS
    assert header.layers == snapshots[0].layers
    assert [e.step for e in events.Tensors(metadata.FINDINGS_TAG)] == list(STEPS)


def test_scalars_stand_statistic_first_in_the_order_of_depth_and_as_logarithms(run, snapshots):
    events = accumulated(run)
    tags = events.Tags()["scalars"]
    groups = {group for group, _, _ in metadata.SCALARS} | {"nonfinite"}
    assert {tag.split("/")[0] for tag in tags} == groups | {"loss"}
    names = [tag.split("/", 1)[1] for tag in sorted(tags) if tag.startswith("backward_rms_log10/")]
    assert names == [f"{i:03d}_dense{f'_{i}' if i else ''}" for i in range(12)]
    for step, event in enumerate(events.Scalars("backward_rms_log10/003_dense_3")):
        expected = math.log10(snapshots[step]["dense_3"].backward_rms)
        assert event.value == pytest.approx(expected, rel=1e-6)
    assert events.Scalars("loss")[0].value == pytest.approx(snapshots[0].loss)


def test_a_scale_of_zero_is_drawn_at_the_foot_and_what_is_missing_is_not_drawn(tmp_path):
    layers = (LayerInfo("zero", 0), LayerInfo("flatten", 1))
    Writer(tmp_path).write(
        Snapshot(0, layers, (Statistics(weight_rms=0.0, activation_nonfinite=0.5), Statistics())), []
    )
    events = accumulated(str(tmp_path))
    assert events.Scalars("weight_rms_log10/000_zero")[0].value == metadata.LOG_OF_ZERO
    assert events.Scalars("nonfinite/000_zero")[0].value == 0.5
    assert [tag for tag in events.Tags()["scalars"] if "flatten" in tag] == []
    assert all(math.isfinite(e.value) for tag in events.Tags()["scalars"] for e in events.Scalars(tag))


def test_a_very_deep_network_gives_the_stock_dashboards_some_rows_and_the_tab_all(tmp_path):
    layers = tuple(LayerInfo(f"d{i}", i) for i in range(1000))
    rows = tuple(Statistics(activation_rms=1.0 + i) for i in range(1000))
    histograms = {"weights": {layer.path: Histogram(0.0, 1.0, (1.0,)) for layer in layers}}
    Writer(tmp_path).write(Snapshot(0, layers, rows, histograms=histograms), [])
    (back,) = read(tmp_path)
    assert [row.activation_rms for row in back.statistics] == [1.0 + i for i in range(1000)]
    tags = accumulated(str(tmp_path)).Tags()
    for group, kind in (("activation_rms_log10", "scalars"), ("weights", "tensors")):
        kept = sorted(tag for tag in tags[kind] if tag.startswith(f"{group}/"))
        assert len(kept) == STOCK_ROWS
        assert (kept[0], kept[-1]) == (f"{group}/000_d0", f"{group}/999_d999")


def test_histograms_have_finite_edges_always(tmp_path, snapshots):
    path = snapshots[0].layers[1].path
    bad = {"weights": {path: Histogram(-math.inf, 1.0, (1.0, 2.0))}, "gradients": {path: Histogram(0.0, 0.0, (5.0,))}}
    writer = Writer(tmp_path)
    writer.write(snapshots[0], [])
    writer.write(dataclasses.replace(snapshots[1], histograms=bad), [])
    events = accumulated(str(tmp_path))
    tags = [tag for tag in events.Tags()["tensors"] if tag.split("/")[0] in ("weights", "activations", "gradients")]
    assert len(tags) == 3 * 12
    for tag in tags:
        for event in events.Tensors(tag):
            assert np.isfinite(tensor_util.make_ndarray(event.tensor_proto)).all(), tag
    weights = events.Tensors(f"weights/000_{path}")
    assert [e.step for e in weights] == [0]
    buckets = tensor_util.make_ndarray(weights[0].tensor_proto)
    assert buckets.shape == (30, 3)
    assert buckets[:, 2].sum() == 64 * 32
    np.testing.assert_allclose(buckets[1:, 0], buckets[:-1, 1])


@pytest.mark.parametrize("value", [0.0, 3.0, -1e-30])
def test_a_histogram_of_one_value_gets_a_width(tmp_path, value):
    histograms = {"weights": {"d": Histogram(value, value, (0.0, 7.0))}}
    Writer(tmp_path).write(Snapshot(0, (LayerInfo("d", 0),), (Statistics(),), histograms=histograms), [])
    buckets = tensor_util.make_ndarray(accumulated(str(tmp_path)).Tensors("weights/000_d")[0].tensor_proto)
    assert (buckets[:, 0] < buckets[:, 1]).all()
    assert buckets[:, 2].tolist() == [0, 7, 0]
    assert buckets[1, 0] < value < buckets[1, 1]


def test_report_and_layout_are_there(run):
    events = accumulated(run)
    assert tensor_util.make_ndarray(events.Tensors("report")[0].tensor_proto).item() == b"# Verdict\n\nbad"
    assert events.SummaryMetadata("report").plugin_data.plugin_name == "text"
    layout = layout_pb2.Layout.FromString(
        tensor_util.make_ndarray(events.Tensors("custom_scalars__config__")[0].tensor_proto).item()
    )
    charts = [chart.multiline.tag[0] for category in layout.category for chart in category.chart]
    tags = events.Tags()["scalars"]
    assert len(charts) == 8
    for pattern in charts:
        assert any(tag.startswith(pattern.strip("^")) for tag in tags), pattern


# --- who writes where ---------------------------------------------------------------------------------------------


def test_two_writers_never_share_a_folder(tmp_path, snapshots):
    first, second = Writer(tmp_path / "initaudit"), Writer(tmp_path / "initaudit")
    assert first.log_dir == str(tmp_path / "initaudit")
    assert second.log_dir == str(tmp_path / "initaudit-2")
    first.write(snapshots[0], [])
    second.write(snapshots[1], [])
    assert [[s.step for s in run.snapshots] for run in read_runs(tmp_path)] == [[0], [1]]


def test_many_writers_at_once_get_a_folder_each(tmp_path):
    barrier, folders = threading.Barrier(8), []

    def make():
        barrier.wait()
        folders.append(Writer(tmp_path / "initaudit").log_dir)

    threads = [threading.Thread(target=make) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(folders)) == 8
    assert all(len(os.listdir(folder)) == 1 for folder in folders)


def test_a_folder_with_the_log_of_another_tool_is_left_alone(tmp_path):
    other = tmp_path / "train"
    other.mkdir()
    (other / "events.out.tfevents.1.host").write_bytes(b"")
    assert Writer(other).log_dir == str(tmp_path / "train-2")


def test_after_close_the_same_run_goes_on(tmp_path, snapshots):
    writer = Writer(tmp_path / "initaudit")
    writer.write(snapshots[0], [])
    writer.close()
    writer.write(snapshots[1], [])
    assert os.listdir(tmp_path) == ["initaudit"]
    assert [s.step for s in read(tmp_path)] == [0, 1]


def test_the_header_is_written_once(run):
    with open(event_file(run), "rb") as file:
        events = [event_pb2.Event.FromString(record) for record in eventfile.records(file)]
    described = [value.tag for event in events for value in event.summary.value if value.HasField("metadata")]
    assert len(described) == len(set(described))
    assert {metadata.INIT_TAG, metadata.STATS_TAG, metadata.FINDINGS_TAG, "report"} <= set(described)


def test_another_model_opens_another_run(tmp_path, snapshots):
    writer = Writer(tmp_path / "initaudit")
    writer.write(snapshots[0], [])
    writer.write(Snapshot(1, (LayerInfo("other", 0),), (Statistics(),)), [])
    writer.write(Snapshot(2, (LayerInfo("other", 0),), (Statistics(),)), [])
    assert [(run.name, len(run.snapshots)) for run in read_runs(tmp_path)] == [("initaudit", 1), ("initaudit-2", 2)]


def test_an_audit_is_on_disk_before_write_returns(tmp_path, snapshots):
    writer = Writer(tmp_path)
    for count, snapshot in enumerate(snapshots, 1):
        writer.write(snapshot, [])
        assert len(read(tmp_path)) == count


@pytest.mark.parametrize("blocked", ["a file in the way", "a file above"])
def test_a_folder_that_cannot_be_written_is_an_os_error_that_names_it(tmp_path, blocked):
    (tmp_path / "blocked").write_text("")
    folder = tmp_path / "blocked" if blocked == "a file in the way" else tmp_path / "blocked" / "run"
    with pytest.raises(LogError, match=r"blocked.*log_dir") as raised:
        Writer(folder)
    assert isinstance(raised.value, OSError)


@pytest.mark.parametrize("folder", ["gs://bucket/logs", "s3:/bucket/logs", Path("hdfs://host/logs")])
def test_a_folder_elsewhere_is_refused_and_not_made_here(tmp_path, monkeypatch, folder):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(LogError, match="local folders only"):
        Writer(folder)
    assert os.listdir(tmp_path) == []


def test_a_folder_taken_away_is_an_os_error_that_names_it(tmp_path, snapshots):
    writer = Writer(tmp_path / "run")
    writer.close()
    os.remove(event_file(tmp_path / "run"))
    os.rmdir(tmp_path / "run")
    with pytest.raises(LogError, match="run"):
        writer.write(snapshots[0], [])


# --- damage and other versions ------------------------------------------------------------------------------------


def test_no_cut_of_the_file_breaks_the_reader(run, snapshots):
    path = event_file(run)
    whole = Path(path).read_bytes()
    for length in [*range(200), *range(200, len(whole), 9973)]:
        with open(path, "wb") as file:
            file.write(whole[:length])
        for found in read_runs(run):
            assert found.problems == ()
            for again, written in zip(found.snapshots, snapshots, strict=False):
                assert same(again.statistics, as_logged(written).statistics)


def test_a_flipped_byte_is_a_problem_that_is_said_and_what_stands_before_it_is_kept(run):
    path = event_file(run)
    data = bytearray(Path(path).read_bytes())
    data[len(data) // 2] ^= 0xFF
    with open(path, "wb") as file:
        file.write(data)
    (found,) = read_runs(run)
    assert 1 <= len(found.snapshots) < len(STEPS)
    (problem,) = found.problems
    assert "damaged at byte" in problem


def rewritten(run, change):
    """The log with each of our headers changed, as another version would have written it."""
    path = event_file(run)
    with open(path, "rb") as file:
        events = [event_pb2.Event.FromString(record) for record in eventfile.records(file)]
    for event in events:
        for value in event.summary.value:
            if value.tag.startswith("initaudit/"):
                change(value)
    with open(path, "wb") as file:
        file.write(b"".join(eventfile.frame(event.SerializeToString()) for event in events))


def test_fewer_and_more_columns_are_read_by_name(run, snapshots):
    keep = [3, 2, *range(20, len(COLUMNS))]

    def change(value):
        if value.metadata.plugin_data.content:
            header = json.loads(value.metadata.plugin_data.content)
            header["columns"] = [*(COLUMNS[i] for i in keep), "curvature"]
            value.metadata.plugin_data.content = json.dumps(header).encode()
        if value.tag != metadata.FINDINGS_TAG:
            table = np.frombuffer(value.tensor.tensor_content, "<f4").reshape(-1, len(COLUMNS))
            wider = np.concatenate([table[:, keep], np.full((len(table), 1), 7, "<f4")], axis=1)
            value.tensor.tensor_content = wider.tobytes()
            value.tensor.tensor_shape.dim[1].size = wider.shape[1]

    rewritten(run, change)
    (found,) = read_runs(run)
    assert found.problems == ()
    row, before = found.snapshots[1]["dense_3"], as_logged(snapshots[1])["dense_3"]
    for i, name in enumerate(COLUMNS):
        expected = getattr(before, name) if i in keep else math.nan
        assert same(getattr(row, name), expected), name


def test_a_newer_format_is_said(run):
    def change(value):
        if value.tag == metadata.INIT_TAG and value.metadata.plugin_data.content:
            header = json.loads(value.metadata.plugin_data.content)
            header["format"] = 9
            value.metadata.plugin_data.content = json.dumps(header).encode()

    rewritten(run, change)
    (found,) = read_runs(run)
    assert len(found.snapshots) == len(STEPS)
    assert "log format 9" in found.problems[0]


def test_an_older_log_is_refused_in_one_sentence(run):
    def change(value):
        if value.metadata.plugin_data.content:
            header = json.loads(value.metadata.plugin_data.content) | {"format": 1}
            value.metadata.plugin_data.content = json.dumps(header).encode()

    rewritten(run, change)
    (found,) = read_runs(run)
    assert (found.snapshots, found.findings, found.trials) == ((), (), ())
    (problem,) = found.problems
    assert "log format 1 is older" in problem
    with pytest.raises(ValueError, match="log format 1 is older"):
        read(run)


def test_each_trial_is_written_once_at_the_audit_at_which_it_is_new(tmp_path, snapshots):
    start = Trial("warning", Curve((2.0,) * 16, 2.0, 0.0, 16), Curve((2.0,) * 8, 2.0, 0.0, 8), 40)
    later = Trial(reason="an update takes 9.0 s", step=snapshots[1].step)
    writer = Writer(tmp_path / "run")
    for shot, trials in zip(snapshots, [(start,), (start, later), *[(start, later)] * len(snapshots)], strict=False):
        writer.write(shot, [], trials=trials)
    writer.close()
    (found,) = read_runs(tmp_path)
    assert found.trials == (start, later)
    written = [(step, [trial.step for trial in audit.trials]) for step, audit in records_of(tmp_path / "run")]
    assert written[:3] == [(0, [0]), (later.step, [later.step]), (snapshots[2].step, [])]


def records_of(run):
    """(step, record) of each audit, as they stand in the file."""
    with open(event_file(run), "rb") as file:
        for event in map(event_pb2.Event.FromString, eventfile.records(file)):
            for value in event.summary.value:
                if value.tag == metadata.FINDINGS_TAG:
                    yield event.step, metadata.parse_audit(value.tensor.string_val[0])


def test_another_model_gets_its_own_trials(tmp_path, snapshots):
    trial = Trial(reason="it is switched off", allowed=0)
    writer = Writer(tmp_path / "run")
    writer.write(snapshots[0], [], trials=[trial])
    fewer = dataclasses.replace(
        snapshots[0], layers=snapshots[0].layers[:-1], statistics=snapshots[0].statistics[:-1], histograms={}
    )
    writer.write(fewer, [], trials=[trial])
    writer.close()
    assert [run.trials for run in read_runs(tmp_path)] == [(trial,), (trial,)]


def test_a_table_of_another_shape_is_a_problem_and_no_crash(run):
    def change(value):
        if value.tag == metadata.STATS_TAG:
            value.tensor.tensor_shape.dim[0].size, value.tensor.tensor_shape.dim[1].size = (
                value.tensor.tensor_shape.dim[1].size,
                value.tensor.tensor_shape.dim[0].size,
            )

    rewritten(run, change)
    (found,) = read_runs(run)
    assert found.snapshots == ()
    assert "shape" in found.problems[0]


# --- finding runs -------------------------------------------------------------------------------------------------


def test_runs_are_found_below_a_folder_and_other_tools_are_passed_over(tmp_path, snapshots):
    for name in ("b/initaudit", "a/initaudit"):
        Writer(tmp_path / name).write(snapshots[0], [])
    (tmp_path / "a" / "train").mkdir()
    head = eventfile.frame(b"\x1a\x0dbrain.Event:2")
    (tmp_path / "a" / "train" / "events.out.tfevents.1.host").write_bytes(head)
    assert [run.name for run in read_runs(tmp_path)] == ["a/initaudit", "b/initaudit"]
    assert [run.name for run in read_runs(tmp_path / "a")] == ["initaudit"]
    assert [run.name for run in read_runs(tmp_path / "a" / "initaudit")] == ["."]
    with pytest.raises(ValueError, match=r"several runs.*a/initaudit.*b/initaudit"):
        read(tmp_path)


def test_no_folder_and_no_run_are_told_apart(tmp_path):
    with pytest.raises(FileNotFoundError, match="no folder"):
        read_runs(tmp_path / "missing")
    assert read_runs(tmp_path) == []
    with pytest.raises(FileNotFoundError, match="no log of an audit"):
        read(tmp_path)


# --- the file format ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 3, 4, 63, 64, 65, 1023, 1024, 1025, 4096, 65537])
def test_the_checksum_is_that_of_tensorboard(size):
    data = np.random.default_rng(size).bytes(size)
    assert eventfile.masked(eventfile.crc32c(data)) == masked_crc32c(data)
    assert eventfile.crc32c(data) != zlib.crc32(data) or size < 3  # the other polynomial; they agree on b"" and b"\xff"


def test_the_checksum_has_its_published_values():
    assert eventfile.crc32c(b"123456789") == 0xE3069283
    assert eventfile.crc32c(bytes(32)) == 0x8A9136AA  # RFC 3720, B.4
    assert eventfile.crc32c(bytes(range(32))) == 0x46DD794E


def test_writing_and_reading_imports_neither_tensorflow_nor_keras(tmp_path):
    code = """
import sys
from keras_initaudit.records import LayerInfo, Snapshot, Statistics
from keras_initaudit.tensorboard.summary import Writer, read
Writer(sys.argv[1]).write(Snapshot(0, (LayerInfo("d", 0),), (Statistics(),)), [], "text")
assert len(read(sys.argv[1])) == 1
print([name for name in ("numpy", "tensorflow", "keras", "jax", "torch") if name in sys.modules])
"""
    command = [sys.executable, "-c", code, str(tmp_path / "log")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['numpy']"  # numpy shows that the check can see a module


def test_a_finding_holds_whatever_text_it_is_given(tmp_path):
    finding = Finding("x", "bad", 'a/\n"<script>\x00\N{PILE OF POO}', "\u2028", {"k": [1, None, True, "nan"]}, None)
    Writer(tmp_path).write(Snapshot(0, (), ()), [finding])
    assert read_runs(tmp_path)[0].findings == ((finding,),)
