"""The tab's routes on real logs, through both of TensorBoard's loaders; and that the tab is never in the way."""

import argparse
import dataclasses
import gzip
import json
import math
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tensorboard_server
from deep_network import Network, findings_of
from tensorboard.backend import application
from tensorboard.plugins import base_plugin
from werkzeug.test import Client

from keras_initaudit.flow import Flow
from keras_initaudit.names import shortened
from keras_initaudit.records import COLUMNS, VERDICTS, Curve, Finding, LayerInfo, Snapshot, Statistics, Trial
from keras_initaudit.report import BAND, trials
from keras_initaudit.report.quantities import OF_THE_SIGNAL, QUANTITIES
from keras_initaudit.tensorboard import answers, eventfile, levels, metadata, reader, routes, store
from keras_initaudit.tensorboard.answers import label, verdict
from keras_initaudit.tensorboard.plugin import InitAuditPlugin
from keras_initaudit.tensorboard.routes import InitAuditTab
from keras_initaudit.tensorboard.summary import Writer, statistics_array

STEPS = tuple(range(25))
"""More than the ten points that TensorBoard keeps of a plugin's tags on its own."""
EVIL = "<script>alert(1)</script>&\"'\n\N{SNOWMAN}"


def write(folder, network, steps, rate=0.05):
    writer = Writer(folder / "initaudit")
    snapshots = list(network.audits(steps, rate))
    for snapshot in snapshots:
        writer.write(snapshot, findings_of(snapshot))
    writer.close()
    return snapshots


@pytest.fixture(scope="module")
def logs(tmp_path_factory):
    """Three runs of the audit, beside what else lies in a log folder."""
    folder = tmp_path_factory.mktemp("logs")
    written = {
        "good": write(folder / "good", Network(12), STEPS),
        "bad": write(folder / "bad", Network(12, std=0.6), STEPS),
        "nan": write(folder / "nan", Network(30, std=50.0, names=lambda i: f"{EVIL}{i}"), (0, 1, 2)),
    }
    (folder / "other").mkdir()
    other = eventfile.frame(b"\x09\x00\x00\x00\x00\x00\x00\xf0\x3f\x1a\x0dbrain.Event:2")
    (folder / "other" / "events.out.tfevents.1.other").write_bytes(other)
    (folder / "torn").mkdir()
    whole = next((folder / "good" / "initaudit").iterdir()).read_bytes()
    (folder / "torn" / "events.out.tfevents.1.torn").write_bytes(whole[: len(whole) // 2])
    (folder / "noise").mkdir()
    (folder / "noise" / "events.out.tfevents.1.noise").write_bytes(np.random.default_rng(0).bytes(5000))
    return folder, written


def flags_for(folder):
    """TensorBoard's own flags for a log folder, after our loader has seen them."""
    from tensorboard import default
    from tensorboard.program import TensorBoard

    board = TensorBoard(plugins=[*default.get_static_plugins(), InitAuditPlugin])
    board.configure(("tensorboard", f"--logdir={folder}"))
    return board.flags


@pytest.fixture(scope="module", params=["python", "rust"])
def client(request, logs):
    """A client of TensorBoard's WSGI application, over each of its two loaders."""
    from tensorboard.backend.event_processing import data_ingester
    from tensorboard.data import server_ingester

    folder, _ = logs
    flags = flags_for(folder)
    if request.param == "python":
        ingester = data_ingester.LocalDataIngester(flags)
        ingester.start()
    else:
        binary = server_ingester.get_server_binary()
        ingester = server_ingester.SubprocessServerDataIngester(
            binary,
            str(folder),
            reload_interval=0,
            channel_creds_type=_local(),
            samples_per_plugin=flags.samples_per_plugin,
        )
        ingester.start()
    context = base_plugin.TBContext(data_provider=ingester.data_provider, flags=flags)
    tab = InitAuditPlugin().load(context)
    client = Client(application.TensorBoardWSGI([tab], "", ingester.data_provider, None, []))
    end = time.monotonic() + 30
    while len(get(client, "runs").json["runs"]) < 4 and time.monotonic() < end:
        time.sleep(0.1)
    return client


def _local():
    from tensorboard.util import grpc_util

    return grpc_util.ChannelCredsType.LOCAL


def get(client, route, **parameters):
    return client.get(f"/data/plugin/initaudit/{route}", query_string=parameters)


def numbers(response):
    """Head and values of an answer of `columns`: decoded here a second time."""
    data = response.get_data()
    data = gzip.decompress(data) if response.headers.get("Content-Encoding") == "gzip" else data
    length = int.from_bytes(data[:4], "little")
    head = json.loads(data[4 : 4 + length])
    shape = (len(head["columns"]), len(head["steps"]), len(head["rows"]))
    return head, np.frombuffer(data, "<f4", offset=4 + length).reshape(shape)


# --- what is answered ---------------------------------------------------------------------------------------------


def test_every_run_of_an_audit_has_a_card_and_no_other_run_has(client):
    cards = {card["run"]: card for card in get(client, "runs").json["runs"]}
    assert set(cards) == {"good/initaudit", "bad/initaudit", "nan/initaudit", "torn"}
    assert {run: card["verdict"] for run, card in cards.items()} == {
        "good/initaudit": "healthy",
        "bad/initaudit": "bad",
        "nan/initaudit": "bad",
        "torn": "healthy",
    }
    bad = cards["bad/initaudit"]
    assert (bad["label"], bad["layers"], bad["step"], bad["audits"]) == ("bad", 12, 24, 25)
    assert bad["rules"] == ["vanishing-gradient"]
    assert {card["name"] for card in cards.values()} == {"good", "bad", "nan", "torn"}  # short enough as they are
    assert "each layer multiplies the gradient by" in bad["headline"]
    assert cards["nan/initaudit"]["loss"] == "NaN"


def test_a_run_tells_its_rows_its_audits_and_each_finding_once(client, logs):
    told = get(client, "run", run="bad/initaudit").json
    snapshots = logs[1]["bad"]
    assert [layer["path"] for layer in told["layers"]] == [layer.path for layer in snapshots[0].layers]
    assert [audit["step"] for audit in told["audits"]] == list(STEPS)
    for audit, snapshot in zip(told["audits"], snapshots, strict=True):
        assert [told["findings"][i]["message"] for i in audit["findings"]] == [f.message for f in findings_of(snapshot)]
        assert audit["loss"] == pytest.approx(snapshot.loss)
        assert audit["verdict"] == "bad"
    assert [finding["rows"] for finding in told["findings"]] == [[1]] * len(told["findings"])  # behind the input
    again = get(client, "run", run="nan/initaudit").json  # after the first update, all layers
    assert [audit["findings"] for audit in again["audits"]] == [[0], [1], [1]]
    assert [finding["rule"] for finding in again["findings"]] == ["non-finite"] * 2
    assert (told["optimizer"], told["learning_rate"], told["batch_size"]) == ("SGD", 0.05, 64)
    assert told["newer"] is None
    assert set(told["columns"]) == {*COLUMNS, *store.DERIVED, *levels.LEVELS}


def test_columns_are_the_numbers_that_were_written(client, logs):
    names = ["backward_rms", "activation_mean", "update_log10"]
    head, values = numbers(get(client, "columns", run="bad/initaudit", columns=",".join(names)))
    assert head == {"columns": names, "steps": list(STEPS), "rows": list(range(14))}
    head, _ = numbers(get(client, "columns", run="bad/initaudit", columns=",".join(names), line=1))
    assert head["line"] == list(range(1, 13))
    assert head["places"] == [None, *range(12), None]
    written = np.stack([statistics_array(snapshot) for snapshot in logs[1]["bad"]])
    for column, name in zip(values, names, strict=True):
        np.testing.assert_allclose(column, written[:, :, COLUMNS.index(name)], rtol=2**-12)
        assert not np.array_equal(column, np.roll(written[:, :, COLUMNS.index(name)], 1, axis=1))


def test_the_levels_of_the_gradient_are_those_of_the_rules(client, logs):
    head, values = numbers(get(client, "columns", run="bad/initaudit", columns="backward_level", steps="3,24"))
    _, rows = numbers(get(client, "columns", run="bad/initaudit", columns="backward_level", steps="3,24", rows="5,2"))
    for shown, some, step in zip(values[0], rows[0], head["steps"], strict=True):
        levels_of = Flow(logs[1]["bad"][step]).gradient_levels()
        expected = [levels_of[row][0] if row in levels_of else math.nan for row in range(14)]
        np.testing.assert_allclose(shown, expected, rtol=2**-11, atol=1e-5)
        np.testing.assert_array_equal(some, shown[[5, 2]])
        assert np.isnan(shown).tolist() == [True, *[False] * 11, True, True]  # the input, the head, the targets
        assert shown[1] < -2.0


def test_only_what_is_asked_for_is_sent(client, logs):
    ask = {"run": "bad/initaudit", "columns": "activation_rms"}
    head, whole = numbers(get(client, "columns", **ask))
    head, ends = numbers(get(client, "columns", **ask, steps="ends", rows="layer"))
    assert head["steps"] == [0, 24]
    assert head["rows"] == list(range(1, 13))  # neither the inputs nor the targets
    np.testing.assert_array_equal(ends, whole[:, [0, 24]][:, :, 1:13])
    head, some = numbers(get(client, "columns", **ask, steps="3,7", rows="5"))
    np.testing.assert_array_equal(some, whole[:, [3, 7]][:, :, [5]])


def test_what_is_not_finite_and_what_is_not_there_arrive_as_such(client, logs):
    columns = "backward_rms,backward_nonfinite,forward_nonfinite,attention_entropy"
    _, values = numbers(get(client, "columns", run="nan/initaudit", columns=columns))
    table = statistics_array(logs[1]["nan"][0])
    np.testing.assert_allclose(values[1, 0], table[:, COLUMNS.index("backward_nonfinite")], rtol=2**-12)
    assert values[1, 0, 1:31].max() == 1
    forward = np.fmax(
        table[:, COLUMNS.index("activation_nonfinite")], table[:, COLUMNS.index("preactivation_nonfinite")]
    )
    np.testing.assert_allclose(values[2, 0], forward, rtol=2**-12)
    assert np.isnan(values[3]).all()


def test_histograms_come_with_finite_edges(client, logs):
    told = get(client, "histograms", run="bad/initaudit", row="dense_3", kind="weights").json["histograms"]
    assert [histogram["step"] for histogram in told] == list(STEPS)
    expected = logs[1]["bad"][0].histograms["weights"]["dense_3"]
    assert (told[0]["low"], told[0]["high"]) == pytest.approx((expected.low, expected.high))
    assert told[0]["counts"] == list(expected.counts)
    assert get(client, "histograms", run="bad/initaudit", row="input", kind="weights").json == {"histograms": []}


def test_names_travel_as_text(client):
    told = get(client, "run", run="nan/initaudit")
    assert told.content_type == "application/json"
    assert told.headers["X-Content-Type-Options"] == "nosniff"
    assert told.json["layers"][1]["path"] == f"{EVIL}0"
    kind = get(client, "histograms", run="nan/initaudit", row=f"{EVIL}0", kind="weights")
    assert kind.status_code == 200


def test_answers_are_compressed_where_the_browser_takes_it(client):
    for route, ask in (("run", {}), ("columns", {"columns": "activation_rms"})):
        url = f"/data/plugin/initaudit/{route}"
        plain = client.get(url, query_string={"run": "bad/initaudit", **ask})
        packed = client.get(url, query_string={"run": "bad/initaudit", **ask}, headers={"Accept-Encoding": "gzip"})
        assert "Content-Encoding" not in plain.headers
        assert packed.headers["Content-Encoding"] == "gzip"
        assert gzip.decompress(packed.get_data()) == plain.get_data()
        assert len(packed.get_data()) < len(plain.get_data())


# --- what is refused ----------------------------------------------------------------------------------------------

RUN = {"run": "bad/initaudit"}


@pytest.mark.parametrize(
    ("route", "parameters", "reason"),
    [
        ("run", {}, "run: given 0 times"),
        ("run", {"run": ""}, "run: given"),
        ("run", {"run": ["a", "b"]}, "given 2 times"),
        ("run", {"run": "../../etc/passwd"}, "no run '../../etc/passwd'"),
        ("run", {"run": "other"}, "no run 'other'"),
        ("columns", {"columns": "activation_rms"}, "run: given 0 times"),
        ("columns", RUN, "columns: given 0 times"),
        ("columns", {**RUN, "columns": "activation_rms,<b>"}, "no column '<b>'"),
        ("columns", {**RUN, "columns": ",".join(["activation_rms"] * 201)}, "at most 200"),
        ("columns", {**RUN, "columns": "activation_rms", "steps": "x"}, "'x' is no whole number"),
        ("columns", {**RUN, "columns": "activation_rms", "steps": "1,"}, "'' is no whole number"),
        ("columns", {**RUN, "columns": "activation_rms", "steps": "9" * 5000}, "no whole number"),
        ("columns", {**RUN, "columns": "activation_rms", "steps": "77"}, "no audit at 77"),
        ("columns", {**RUN, "columns": "activation_rms", "rows": "few"}, "rows: 'few' is no whole number"),
        ("columns", {**RUN, "columns": "activation_rms", "rows": "14"}, "positions under 14"),
        ("columns", {**RUN, "columns": "activation_rms", "rows": "-1"}, "positions under 14"),
        ("histograms", {**RUN, "row": "dense"}, "kind: given 0 times"),
        ("histograms", {**RUN, "row": "dense", "kind": "biases"}, "allowed are weights"),
        ("histograms", {**RUN, "row": "nowhere", "kind": "weights"}, "no row 'nowhere'"),
    ],
)
def test_a_bad_parameter_is_400_with_its_reason(client, route, parameters, reason):
    response = get(client, route, **parameters)
    assert response.status_code == 400
    assert reason in response.json["error"]
    assert response.content_type == "application/json"


def test_only_reading_is_allowed(client):
    response = client.post("/data/plugin/initaudit/runs")
    assert response.status_code == 405
    assert "use GET" in response.json["error"]


# --- the page's files ---------------------------------------------------------------------------------------------

STATIC = Path(routes.__file__).parent / "static"


def test_every_file_of_the_page_is_served_and_nothing_else_is(client):
    for path in STATIC.iterdir():
        response = get(client, f"static/{path.name}")
        assert response.status_code == 200
        assert response.get_data() == path.read_bytes()
        assert response.content_type.startswith({".js": "text/javascript", ".css": "text/css"}[path.suffix])
    for name in ("../routes.py", "..%2froutes.py", "%2e%2e/routes.py", "/etc/passwd", "nothing.js", "", "."):
        assert get(client, f"static/{name}").status_code == 404, name


def test_what_the_page_shares_with_python_is_made_from_it(client):
    response = get(client, "static/constants.js")
    assert response.content_type.startswith("text/javascript")
    found = re.findall(r"^export const (\w+) = (.*);$", response.get_data(as_text=True), re.M)
    assert {name: json.loads(value) for name, value in found} == {
        "BAND": dict(zip(("low", "high"), BAND, strict=True)),
        "VERDICTS": list(VERDICTS),
        "OF_THE_SIGNAL": list(OF_THE_SIGNAL),
        "QUANTITIES": {rule: [one.column for one in shown] for rule, shown in QUANTITIES.items()},
        "DRAWN": {
            one.column: {"kind": one.kind, "band": one.usual and list(one.usual), "base": one.base}
            for shown in QUANTITIES.values()
            for one in shown
        },
    }
    own = "".join(path.read_text() for path in STATIC.glob("*.js"))
    assert not re.search(r"\[-2, 2\]|low: -2|bad: 0", own)


def test_the_page_loads_nothing_from_elsewhere_and_evaluates_nothing():
    for path in STATIC.iterdir():
        text = path.read_text().replace("http://www.w3.org/2000/svg", "")
        for forbidden in ("http:", "https:", "//cdn", "eval(", "Function(", "innerHTML", "outerHTML", "insertAdjacent"):
            assert forbidden not in text, (path.name, forbidden)
        assert "document.write" not in text


def test_the_entry_page_starts_our_module(client):
    response = client.get("/data/plugin_entry.html", query_string={"name": "initaudit"})
    assert b"static/index.js" in response.get_data()
    assert b"export async function render()" in get(client, "static/index.js").get_data()


# --- other versions -----------------------------------------------------------------------------------------------


class Logged:
    """A data provider over one run straight from its event file, without a loader."""

    def __init__(self, folder):
        self.values, self.content = {}, {}
        for name in os.listdir(folder):
            with open(folder / name, "rb") as file:
                from tensorboard.compat.proto import event_pb2

                for record in eventfile.records(file):
                    event = event_pb2.Event.FromString(record)
                    for value in event.summary.value:
                        self.values.setdefault(value.tag, []).append((event, value.tensor))
                        self.content.setdefault(value.tag, value.metadata.plugin_data.content)

    def list_tensors(self, ctx, *, experiment_id, plugin_name, run_tag_filter):
        from tensorboard.data import provider

        def series(tag):
            last = self.values[tag][-1][0]
            return provider.TensorTimeSeries(
                max_step=last.step,
                max_wall_time=last.wall_time,
                plugin_content=self.content[tag],
                description="",
                display_name="",
            )

        return {"run": {tag: series(tag) for tag in run_tag_filter.tags if tag in self.values}}

    def read_tensors(self, ctx, *, experiment_id, plugin_name, downsample, run_tag_filter):
        from tensorboard.data import provider
        from tensorboard.util import tensor_util

        (tag,) = run_tag_filter.tags
        return {
            "run": {
                tag: [
                    provider.TensorDatum(e.step, e.wall_time, tensor_util.make_ndarray(t)) for e, t in self.values[tag]
                ]
            }
        }


def client_of(folder):
    tab = InitAuditTab(base_plugin.TBContext(data_provider=Logged(folder)))
    return Client(application.TensorBoardWSGI([tab], "", None, None, []))


@pytest.fixture
def one_run(tmp_path):
    write(tmp_path, Network(4), (0, 1))
    return tmp_path / "initaudit"


def with_header(monkeypatch, change):
    """Writes the next log as another version would: its header passes through `change`."""
    honest = metadata.encode_header

    def changed(layers):
        header = json.loads(honest(layers))
        change(header)
        return json.dumps(header).encode()

    monkeypatch.setattr(metadata, "encode_header", changed)


def test_a_newer_format_is_shown_and_said_to_be_newer(tmp_path, monkeypatch):
    with_header(monkeypatch, lambda header: header.update(format=7))
    write(tmp_path, Network(4), (0, 1))
    client = client_of(tmp_path / "initaudit")
    (card,) = get(client, "runs").json["runs"]
    assert (card["newer"], card["verdict"]) == (7, "healthy")
    assert get(client, "run", run="run").json["newer"] == 7


def test_a_format_that_cannot_be_read_is_said_and_not_crashed_on(tmp_path, monkeypatch):
    with_header(monkeypatch, lambda header: (header.update(format=8), header.pop("columns")))
    write(tmp_path, Network(4), (0, 1))
    client = client_of(tmp_path / "initaudit")
    (card,) = get(client, "runs").json["runs"]
    assert "upgrade" in card["problem"]
    response = get(client, "columns", run="run", columns="activation_rms")
    assert response.status_code == 400
    assert "log format 8 is newer" in response.json["error"]


def test_a_column_of_another_version_is_neither_offered_nor_needed(tmp_path, monkeypatch):
    with_header(monkeypatch, lambda header: header["columns"].__setitem__(2, "curvature"))
    snapshots = write(tmp_path, Network(4), (0, 1))
    client = client_of(tmp_path / "initaudit")
    offered = get(client, "run", run="run").json["columns"]
    assert set(COLUMNS) - set(offered) == {"activation_rms"}
    assert "curvature" not in offered
    _, values = numbers(get(client, "columns", run="run", columns="backward_rms"))
    written = statistics_array(snapshots[1])[:, COLUMNS.index("backward_rms")]
    np.testing.assert_allclose(values[0, 1], written, rtol=2**-12)


def test_levels_are_offered_only_where_all_that_they_are_made_of_is_there(tmp_path, monkeypatch):
    with_header(monkeypatch, lambda header: header["columns"].__setitem__(COLUMNS.index("weight_rms"), "curvature"))
    write(tmp_path, Network(4), (0, 1))
    client = client_of(tmp_path / "initaudit")
    offered = get(client, "run", run="run").json["columns"]
    assert "backward_rms" in offered
    assert not set(levels.LEVELS) & set(offered)
    assert get(client, "columns", run="run", columns="backward_level").status_code == 400


def test_tables_of_another_shape_are_left_out(one_run, monkeypatch):
    monkeypatch.setattr(Logged, "read_tensors", _transposed(Logged.read_tensors))
    head, values = numbers(get(client_of(one_run), "columns", run="run", columns="backward_rms"))
    assert head["steps"] == []
    assert values.size == 0


def _transposed(read):
    def changed(self, *args, **kwargs):
        made = read(self, *args, **kwargs)
        for data in made["run"].values():
            for datum in data:
                datum._numpy = datum.numpy.T
        return made

    return changed


def test_what_was_read_is_kept_until_the_run_goes_on(one_run, monkeypatch):
    reads = []
    honest = Logged.read_tensors
    monkeypatch.setattr(Logged, "read_tensors", lambda self, *a, **k: (reads.append(1), honest(self, *a, **k))[1])
    client = client_of(one_run)
    for _ in range(5):
        get(client, "columns", run="run", columns="backward_rms")
    assert len(reads) == 2  # the audits, and the start apart


def test_what_is_kept_stays_under_its_limit(one_run, monkeypatch):
    monkeypatch.setattr(store, "CACHE_BYTES", 1000)
    kept = store.Store()
    for i in range(20):
        kept.keep(i, None, lambda: ("value", 300))
    assert len(kept._kept) == 3


# --- small parts --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("run", "shown"),
    [
        ("bad/initaudit", "bad"),
        ("a/b/initaudit", "a/b"),
        ("bad/initaudit-2", "bad (2)"),
        ("initaudit", "initaudit"),
        (".", "."),
        ("bad/train", "bad/train"),
        ("initaudit-x", "initaudit-x"),
    ],
)
def test_the_label_of_a_run(run, shown):
    assert label(run) == shown


def test_the_names_of_rows_fit_their_places_and_rows_that_differ_stay_different():
    paths = ("dense", *(f"an_encoder/transformer_block_{i}/self_attention_layer/query_projection" for i in range(30)))
    for place, width in answers.NAMES.items():
        cut = answers.short_names(paths)[place]
        assert list(cut) == list(range(1, 31))  # what fits is not sent
        assert len(set(cut.values())) == 30
        assert max(map(len, cut.values())) <= width < len(paths[1])
        assert ["dense", *cut.values()] == shortened(paths, width, "\N{HORIZONTAL ELLIPSIS}")


def test_an_audit_without_findings_that_can_be_read_has_no_verdict():
    assert verdict(store.Audit(0, 0.0, metadata.AuditRecord((Finding("rule", "bad", None, ""),)))) == "bad"
    assert verdict(store.Audit(0, 0.0, None)) is None


@pytest.mark.parametrize(
    ("grades", "card"),
    [
        (["note"], {"verdict": "healthy", "headline": None, "rules": [], "notes": 1}),
        (
            ["warning", "note", "note"],
            {"verdict": "warning", "headline": "warning", "rules": ["a-warning"], "notes": 2},
        ),
    ],
)
def test_notes_are_no_faults_on_the_card_and_a_trial_goes_to_the_page_once(tmp_path, grades, card):
    (shot,) = Network(4).audits((0,))
    trial = Trial("note", Curve((2.0, 1.0, 0.5, 0.2), 2.0, 0.0, 4), Curve((2.0, 0.5, 0.1), 2.0, 0.0, 3), 40)
    writer = Writer(tmp_path)
    for step in (0, 1):
        found = [Finding(f"a-{grade}", grade, None, grade) for grade in grades]
        writer.write(dataclasses.replace(shot, step=step), found, trials=[trial])
    writer.close()
    client = client_of(tmp_path)
    (shown,) = get(client, "runs").json["runs"]
    assert {name: shown[name] for name in card} == card
    told = get(client, "run", run="run").json
    (tried,) = told["trials"]
    assert [curve["points"] for curve in tried["curves"]] == [
        [[0, 1.0], [1, 0.25], [2, 0.05]],
        [[0, 1.0], [1, 0.5], [2, 0.25], [3, 0.1]],
    ]
    assert [curve["needed"] for curve in tried["curves"]] == [3, 4]
    assert tried["ends"] == [2.0, 0.0]
    assert (shown["trial"] is None) == (card["verdict"] == "healthy")
    assert [finding["severity"] for finding in told["findings"]] == list(dict.fromkeys(grades))


def test_a_trial_is_sent_as_the_report_draws_it_and_thinned_for_a_card():
    losses = tuple(4.0 * 0.9**i for i in range(100))
    other = Curve((*losses[:50], math.nan), 1.0, 0.0)
    trial = Trial("bad", other, Curve(losses, 2.0, 1.0, 100), step=3, left_out=("a:b",))
    remedied = Finding("a-rule", "bad", "x", "m", evidence={"step": 3}, proof="It was tried.")
    audits = [store.Audit(3, 0.0, metadata.AuditRecord((remedied,), trials=(trial,)))]
    assert answers.trial_data(audits, 2) is None
    whole, small = answers.trial_data(audits, 3), answers.trial_data(audits, 9, 10)
    assert whole["sentence"] == "It was tried."
    assert whole["ends"] is None  # each curve has its own
    assert [curve["name"] for curve in whole["curves"]] == ["with the remedy", "as it is"]
    first, second = (curve["points"] for curve in whole["curves"])
    assert first == [[i, pytest.approx(part, abs=1e-4)] for i, part in enumerate(trials.left(trial.remedied))]
    assert second[-1] == [50, None]
    assert [len(curve["points"]) for curve in small["curves"]] == [10, 10]
    assert [curve["points"][-1][0] for curve in small["curves"]] == [99, 50]
    not_run = Trial(None, reason="no time", step=3)
    audits = [store.Audit(3, 0.0, metadata.AuditRecord((remedied,), trials=(not_run,)))]
    assert answers.trial_data(audits, 3) == {"step": 3, "outcome": None, "reason": "no time", "curves": []}


@pytest.mark.parametrize(
    ("finding", "trial", "basis", "why"),
    [
        (Finding("vanishing-signal", "bad", "x", "m", proof="Tried."), Trial("bad"), "measured", None),
        (Finding("vanishing-signal", "warning", "x", "m"), Trial("warning"), "measured", None),
        (Finding("vanishing-signal", "bad", "x", "m"), Trial(None, reason="no time"), "judged", "no time"),
        (Finding("vanishing-signal", "bad", "x", "m"), Trial("undecided"), "judged", "the trial decided nothing"),
        (Finding("vanishing-signal", "bad", "x", "m"), None, "judged", None),
        (Finding("symmetric-units", "bad", "x", "m"), Trial("note"), "seen", None),
        (Finding("a-rule-of-later", "bad", "x", "m"), None, "judged", None),
    ],
)
def test_the_page_says_whether_a_finding_was_measured(tmp_path, finding, trial, basis, why):
    (shot,) = Network(4).audits((0,))
    writer = Writer(tmp_path)
    writer.write(shot, [finding], trials=[trial] if trial else [])
    writer.close()
    (told,) = get(client_of(tmp_path), "run", run="run").json["findings"]
    assert (told["basis"], told["why_judged"]) == (basis, why)


@pytest.mark.parametrize(
    ("text", "links"),
    [
        ("He et al. 2015, section 2.2", []),
        ("see https://keras.io/api/(x).", ["https://keras.io/api/(x"]),
        ("arXiv:1502.01852, doi:10.1000/xyz.1.", ["https://arxiv.org/abs/1502.01852", "https://doi.org/10.1000/xyz.1"]),
        ("javascript:alert(1) http://plain.org", []),
    ],
)
def test_only_safe_addresses_of_a_reference_are_links(text, links):
    parts = list(answers.reference_parts(text))
    assert "".join(part for part, _ in parts) == text
    assert [address for _, address in parts if address] == links


# --- never in the way ---------------------------------------------------------------------------------------------


def test_sampling_is_raised_where_the_user_has_not_set_it():
    flags = argparse.Namespace(samples_per_plugin={"scalars": 5})
    InitAuditPlugin().fix_flags(flags)
    assert flags.samples_per_plugin == {"scalars": 5, "initaudit": 1000, "histograms": 500}
    flags = argparse.Namespace(samples_per_plugin={"initaudit": 3})
    InitAuditPlugin().fix_flags(flags)
    assert flags.samples_per_plugin["initaudit"] == 3


def test_a_fault_behind_the_tab_costs_the_tab_alone(monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "keras_initaudit.tensorboard.routes", None)
    assert InitAuditPlugin().load(base_plugin.TBContext()) is None


def broken(folder, *names):
    """A folder in which the named packages cannot be imported."""
    for name in names:
        (folder / name).mkdir(parents=True)
        (folder / name / "__init__.py").write_text(f"raise ImportError('{name} is broken')")
    return folder


def test_finding_the_tab_imports_neither_keras_nor_tensorflow(tmp_path):
    code = """
import sys
from tensorboard import default
from tensorboard.plugins import base_plugin
from tensorboard.backend.application import make_plugin_loader
loaders = [make_plugin_loader(plugin) for plugin in default.get_dynamic_plugins()]
tabs = [loader.load(base_plugin.TBContext()) for loader in loaders]
assert "Init Audit" in [tab.frontend_metadata().tab_name for tab in tabs if tab], tabs
print([name for name in ("werkzeug", "keras", "tensorflow", "jax", "torch") if name in sys.modules])
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env=tensorboard_server.environment(tmp_path, broken(tmp_path / "broken", "keras", "tensorflow")),
    )
    assert done.stdout.strip() == "['werkzeug']", done.stderr


def test_tensorboard_starts_and_serves_the_tab_where_keras_is_broken(tmp_path, logs):
    folder = broken(tmp_path / "broken", "keras")
    with tensorboard_server.tensorboard(tmp_path, logs[0], "--load_fast=true", first=(folder,)) as server:
        assert len(server.runs(4)) == 4
        listing = server.json("data/plugins_listing")
        assert listing["initaudit"]["enabled"]
        assert listing["initaudit"]["tab_name"] == "Init Audit"
        assert "cannot be shown" not in server.output()


def test_a_path_prefix_and_named_folders_change_nothing(tmp_path, logs):
    named = f"one:{logs[0] / 'good'},two:{logs[0] / 'bad'}"
    with tensorboard_server.tensorboard(
        tmp_path, None, f"--logdir_spec={named}", "--load_fast=false", prefix="/deep/er"
    ) as server:
        assert sorted(card["label"] for card in server.runs(2)) == ["one", "two"]
        assert b"static/index.js" in server.get("data/plugin_entry.html?name=initaudit")
        assert server.get("data/plugin/initaudit/static/index.js")


def test_without_any_audit_the_tab_is_there_and_says_so(tmp_path):
    (tmp_path / "logs").mkdir()
    with tensorboard_server.tensorboard(tmp_path, tmp_path / "logs") as server:
        assert server.json("data/plugin/initaudit/runs")["runs"] == []
        assert not server.json("data/plugins_listing")["initaudit"]["enabled"]


def test_new_audits_appear(tmp_path):
    writer = Writer(tmp_path / "logs" / "initaudit")
    layers = (LayerInfo("dense", 0),)
    writer.write(Snapshot(0, layers, (Statistics(activation_rms=1.0),)), [])
    with tensorboard_server.tensorboard(tmp_path, tmp_path / "logs") as server:
        assert server.runs(1)[0]["step"] == 0
        bad = Finding("dead-units", "bad", "dense", "all are dead")
        writer.write(Snapshot(10, layers, (Statistics(activation_rms=0.0),)), [bad])
        end = time.monotonic() + 30
        while (card := server.runs(1)[0])["step"] == 0 and time.monotonic() < end:
            time.sleep(0.1)
        assert (card["step"], card["verdict"], card["first_verdict"]) == (10, "bad", "healthy")


def test_the_reader_and_the_page_agree(client, logs):
    told = {card["run"]: card for card in get(client, "runs").json["runs"]}
    for run in reader.read_runs(logs[0]):
        worst = {finding.severity for finding in run.findings[-1]}
        assert told[run.name]["verdict"] == ("bad" if worst else "healthy")
        assert told[run.name]["step"] == run.snapshots[-1].step
        assert math.isnan(run.snapshots[-1].loss) == (told[run.name]["loss"] == "NaN")
