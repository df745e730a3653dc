"""The command line, run as a person runs it."""

from __future__ import annotations

import dataclasses
import json
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy_network import edited, glorot, he, snapshot, weights

from keras_initaudit import cli
from keras_initaudit.diagnosis import diagnose
from keras_initaudit.records import Curve, Snapshot, Trial
from keras_initaudit.report import Report
from keras_initaudit.report.github import workflow_commands
from keras_initaudit.tensorboard import summary
from keras_initaudit.tensorboard.summary import Writer

WIDTHS = [16, 32, 32, 32, 4]


def shot(scheme: Any = he, depth: int = 3) -> Snapshot:
    widths = [16, *[32] * depth, 4]
    return snapshot(weights(widths, scheme(widths)))


def log(folder: Path, *snapshots: Snapshot, findings: Any = None) -> Path:
    writer = Writer(folder)
    for one in snapshots:
        writer.write(one, diagnose([one]) if findings is None else findings)
    writer.close()
    return folder


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two models, one of them from zeros, and a batch."""
    import keras

    folder = tmp_path_factory.mktemp("saved")
    for name, kernel in (("good", "he_normal"), ("bad", "zeros")):
        hidden = [keras.layers.Dense(16, "relu", kernel_initializer=kernel) for _ in range(2)]
        model = keras.Sequential(
            [keras.Input((8,)), *hidden, keras.layers.Dense(3, "softmax", kernel_initializer=kernel)]
        )
        if name == "good":
            model.save(folder / "uncompiled.keras")
        model.compile("adam", "sparse_categorical_crossentropy")
        model.save(folder / f"{name}.keras")
    np.savez(folder / "batch.npz", x=np.random.default_rng(0).normal(size=(40, 8)), y=np.arange(40) % 3)
    return folder


def test_audit_of_a_saved_model(saved: Path, capsys: pytest.CaptureFixture[str]) -> None:
    batch = ["--data", str(saved / "batch.npz")]
    assert cli.main(["audit", str(saved / "good.keras"), *batch, "--fail-on", "warning"]) == 0
    assert "healthy" in capsys.readouterr().out
    assert cli.main(["audit", str(saved / "bad.keras"), *batch]) == 0
    assert "symmetric-units" in capsys.readouterr().out
    assert cli.main(["audit", str(saved / "bad.keras"), *batch, "--fail-on", "bad", "--format", "json"]) == 1
    out = capsys.readouterr().out
    assert Report.from_json(out).verdict == "bad"
    assert json.loads(out)["run"].endswith("bad.keras")


@pytest.mark.parametrize(("given", "allowed"), [([], None), (["--trial", "25"], 25), (["--trial", "0"], 0)])
def test_what_a_trial_may_cost(saved: Path, capsys: pytest.CaptureFixture[str], given: list[str], allowed: Any) -> None:
    call = ["audit", str(saved / "bad.keras"), "--data", str(saved / "batch.npz"), "--format", "json", *given]
    assert cli.main(call) == 0
    (found,) = Report.from_json(capsys.readouterr().out).trials
    assert found.allowed > 100 if allowed is None else found.allowed == allowed
    assert found.outcome == {None: "bad", 25: "undecided", 0: None}[allowed]


@pytest.mark.parametrize(("value", "message"), [("-1", "must be at least 0, got -1"), ("few", "invalid")])
def test_a_trial_of_another_number(value: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["audit", "m.keras", "--data", "b.npz", "--trial", value])
    assert ended.value.code == 2
    error = capsys.readouterr().err
    assert "--trial" in error
    assert message in error


def test_a_model_without_a_loss_is_given_one(saved: Path, capsys: pytest.CaptureFixture[str]) -> None:
    call = ["audit", str(saved / "uncompiled.keras"), "--data", str(saved / "batch.npz")]
    assert cli.main(call) == 2
    assert "name one with --loss" in capsys.readouterr().err
    assert cli.main([*call, "--loss", "sparse_categorical_crossentropy"]) == 0


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        (None, "no data at"),
        ({}, "holds no array x; it holds nothing"),
        ({"y": np.zeros(3)}, "holds no array x; it holds y"),
        ({"x": np.zeros(3), "z": np.zeros(3)}, "unknown array 'z'"),
        ({"x": np.zeros(3), "x_a": np.zeros(3)}, "holds both x and x_a"),
        ({"x": np.array([object()])}, "not plain numbers"),
        (b"text", "is no .npz file"),
        (np.zeros(3), "holds one array"),
        ({"x": np.zeros((4, 99)), "y": np.zeros(4)}, "cannot audit"),
    ],
)
def test_data_that_cannot_be_used(
    saved: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], arrays: Any, message: str
) -> None:
    path = tmp_path / "batch.npz"
    if isinstance(arrays, bytes):
        path.write_bytes(arrays)
    elif isinstance(arrays, dict):
        np.savez(path, **arrays)
    elif arrays is not None:
        with open(path, "wb") as file:
            np.save(file, arrays)
    assert cli.main(["audit", str(saved / "good.keras"), "--data", str(path)]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error


def test_a_model_that_cannot_be_loaded(saved: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    batch = ["--data", str(saved / "batch.npz")]
    assert cli.main(["audit", str(tmp_path / "none.keras"), *batch]) == 2
    assert "no model at" in capsys.readouterr().err
    (tmp_path / "text.keras").write_text("text")
    assert cli.main(["audit", str(tmp_path / "text.keras"), *batch]) == 2
    assert "cannot load" in capsys.readouterr().err


def test_report_judges_a_log_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = log(tmp_path / "run", shot(glorot, 13))
    assert cli.main(["report", str(folder)]) == 0
    assert "warning before the first update: vanishing-signal" in " ".join(capsys.readouterr().out.split())
    assert cli.main(["report", str(folder), "--threshold", "signal_loss_bad=2.05", "--fail-on", "bad"]) == 1
    assert "bad: vanishing-signal" in capsys.readouterr().out
    assert cli.main(["report", str(folder), "--fail-on", "bad"]) == 0
    assert cli.main(["report", str(folder), "--fail-on", "warning"]) == 1


def test_report_keeps_what_was_proven(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bad = shot(glorot, 40)
    proven = [dataclasses.replace(f, proof="it went well") for f in diagnose([bad])]
    assert proven
    cli.main(["report", str(log(tmp_path / "run", bad, findings=proven))])
    assert "Measured: It went well." in capsys.readouterr().out


def test_report_judges_by_what_was_tried(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = log(tmp_path / "run", shot(glorot, 40))
    assert cli.main(["report", str(folder), "--fail-on", "warning"]) == 1
    capsys.readouterr()
    read = summary.read_runs

    def with_trial(folder: Any) -> Any:
        curve = Curve((1.0, 0.4, 0.3, 0.2), 1.0, 0.0, 4)
        return [
            SimpleNamespace(
                name=run.name,
                snapshots=run.snapshots,
                findings=run.findings,
                problems=(),
                trials=(Trial("note", curve, curve, 9),),
            )
            for run in read(folder)
        ]

    monkeypatch.setattr(summary, "read_runs", with_trial)
    assert cli.main(["report", str(folder), "--format", "json", "--fail-on", "warning"]) == 0
    found = Report.from_json(capsys.readouterr().out)
    assert {f.severity for f in found.findings} == {"note"}
    assert found.trials[0].allowed == 9


def test_report_adds_what_training_showed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dead = dataclasses.replace(edited(shot(), "dense_1", activation_dead=1.0, activation_rms=0.0), step=2)
    cli.main(["report", str(log(tmp_path / "run", shot(), dead)), "--format", "json"])
    found = json.loads(capsys.readouterr().out)
    assert found["step"] == 2
    assert found["findings"][0]["rule"] == "dead-units"


def test_many_runs_are_told_one_after_the_other(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log(tmp_path / "a" / "initaudit", shot())
    log(tmp_path / "b" / "initaudit", shot(glorot, 40))
    assert cli.main(["report", str(tmp_path), "--format", "json", "--fail-on", "bad"]) == 1
    runs = json.loads(capsys.readouterr().out)
    assert [(run["run"], run["verdict"]) for run in runs] == [("a/initaudit", "healthy"), ("b/initaudit", "bad")]
    assert cli.main(["report", str(tmp_path), "--format", "markdown"]) == 0
    out = capsys.readouterr().out
    assert "# a/initaudit" in out
    assert "# b/initaudit" in out
    assert cli.main(["report", str(tmp_path)]) == 0
    listed = [line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines()[2:]]
    assert [name for name, _ in listed] == ["a/initaudit", "b/initaudit"]
    assert [headline.split()[0] for _, headline in listed] == ["healthy", "bad"]


@pytest.mark.parametrize(
    ("options", "begins", "holds"),
    [
        ([], "Init Audit: warning", "vanishing-signal"),
        (["--format", "markdown"], "**\u26a0 Init Audit: warning", "### "),
        (["--format", "html"], "<!doctype html>", "<svg"),
        (["--format", "json"], "{", '"vanishing-signal"'),
        (["--format", "github"], "::warning title=Init Audit%3A warning%3A vanishing-signal", "%0A"),
        (["--format", "github", "--source", "a,b.py"], "::warning file=a%2Cb.py,title=", "::Each layer"),
    ],
)
def test_the_same_report_in_every_form_and_in_a_file(
    options: list[str], begins: str, holds: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = log(tmp_path / "run", shot(glorot, 13))
    assert cli.main(["report", str(folder), *options]) == 0
    out = capsys.readouterr().out
    assert out.startswith(begins)
    assert holds in out
    path = tmp_path / "report"
    assert cli.main(["report", str(folder), *options, "--output", str(path), "--fail-on", "warning"]) == 1
    assert path.read_text() == out
    assert not capsys.readouterr().out


@pytest.mark.parametrize(("ending", "begins"), [("md", "**"), ("html", "<!doctype"), ("json", "{"), ("txt", "Init ")])
def test_the_ending_of_a_file_chooses_the_form(ending: str, begins: str, tmp_path: Path) -> None:
    folder, path = log(tmp_path / "run", shot()), tmp_path / f"report.{ending}"
    assert cli.main(["report", str(folder), "--output", str(path)]) == 0
    assert path.read_text().startswith(begins)
    assert cli.main(["report", str(folder), "--output", str(path), "--format", "github"]) == 0
    assert path.read_text().startswith("::notice title=Init Audit::healthy")


def test_a_file_that_cannot_be_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = log(tmp_path / "run", shot())
    assert cli.main(["report", str(folder), "--output", str(tmp_path / "none" / "report.md")]) == 2
    assert "--output: cannot write" in capsys.readouterr().err


def test_an_annotation_is_one_line_whatever_a_layer_is_called() -> None:
    found = dataclasses.replace(diagnose([shot(glorot, 40)])[0], layer="a\n::error::b%", message="50 %\r\nof it")
    (line,) = workflow_commands(Report(shot(), (found,))).splitlines()
    assert "at a %3A%3Aerror%3A%3Ab%25::50 %25  of it" in line


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["report", "nowhere"], "no folder 'nowhere'"),
        (["report", "."], "no log of an audit"),
        (
            ["report", ".", "--threshold", "nonsense=1"],
            "no limit is named 'nonsense'; there are dead_bad, dead_warning, divergence",
        ),
        (["report", ".", "--threshold", "dead_bad=high"], "needs a number"),
        (["report", ".", "--threshold", "dead_bad=0.1"], "dead_bad must be not below dead_warning"),
    ],
)
def test_a_wrong_call_says_what_is_right(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(arguments) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [[], ["nonsense"], ["audit", "m.keras"], ["report"]])
def test_argparse_ends_with_the_same_status(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(arguments)
    assert ended.value.code == 2


@pytest.mark.parametrize("command", [[], ["audit"], ["report"], ["schemes"]], ids=" ".join)
def test_help_is_one_screen_with_an_example(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main([*command, "--help"])
    assert ended.value.code == 0
    out = capsys.readouterr().out
    assert "exit status:" in out
    assert re.search(r"example:\n  keras-initaudit \w+ .*", out)
    assert len(out.splitlines()) <= 44
    assert max(map(len, out.splitlines())) <= 84


def test_the_schemes_are_real_initializers(capsys: pytest.CaptureFixture[str]) -> None:
    import keras_initaudit

    assert cli.main(["schemes", "--format", "json"]) == 0
    for row in json.loads(capsys.readouterr().out):
        name = row["initializer"].split("(")[0]
        made = eval(row["initializer"], {name: getattr(keras_initaudit, name)})
        assert np.shape(made((8, 32))) == (8, 32)
    assert cli.main(["schemes"]) == 0
    assert "HeNormal()" in capsys.readouterr().out


def test_the_schemes_for_one_activation(capsys: pytest.CaptureFixture[str]) -> None:
    from keras_initaudit import critical_point, depth_scale, gain

    assert cli.main(["schemes", "--activation", "tanh", "--format", "json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["gain"] == {"forward": gain("tanh"), "backward": gain("tanh", "backward")}
    assert found["critical_point"] == dataclasses.asdict(critical_point("tanh"))
    assert (found["activation"], found["recommended"]) == ("tanh", "GlorotNormal()")
    depths = {start["initializer"]: start["depth_scale"] for start in found["starts"]}
    assert depths == {
        "GlorotNormal(), LeCunNormal()": "Infinity",
        "HeNormal()": depth_scale("tanh", 2**0.5),
        'HeNormal(gain="tanh")': depth_scale("tanh", gain("tanh")),
    }
    assert cli.main(["schemes", "--activation", "tanh"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["gain", "1.5925", "forward,", "1.4674", "backward"] in lines
    assert ["critical", "point", "weights", "of", "variance", "1", "/", "fan_in"] in lines
    assert ["HeNormal()", "2", "/", "fan_in", "21.7"] in lines


@pytest.mark.parametrize(
    ("name", "recommended", "point", "last"),
    [
        ("relu", "HeNormal()", "variance 2 / fan_in", "any number"),
        ("leaky_relu(0.1)", 'HeNormal(gain="leaky_relu(0.1)")', "variance 1.98 / fan_in", "any number"),
        ("swish", 'HeNormal(gain="silu")', "none", "15.0"),
        ("selu", "LeCunNormal()", "variance 0.4768 / fan_in", "33.6"),
        ("linear", "GlorotNormal()", "variance 1 / fan_in", "any number"),
        ("relu6", 'HeNormal(gain="relu6")', "variance 2 / fan_in", "any number"),
    ],
)
def test_an_activation_of_each_kind(
    capsys: pytest.CaptureFixture[str], name: str, recommended: str, point: str, last: str
) -> None:
    assert cli.main(["schemes", "--activation", name]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split(maxsplit=1)[1] == recommended
    assert lines[3].endswith(point)
    table = lines[lines.index("") + 2 : -3]
    assert table[-1].endswith(last)
    explodes = {line.split("  ")[0] for line in table if line.endswith("none: it grows without bound")}
    assert explodes == ({"HeNormal()"} if name in ("leaky_relu(0.1)", "selu", "linear") else set())


@pytest.mark.parametrize(("name", "message"), [("rellu", "Unknown activation 'rellu'"), ("softmax", "has no gain")])
def test_an_activation_without_figures(capsys: pytest.CaptureFixture[str], name: str, message: str) -> None:
    assert cli.main(["schemes", "--activation", name]) == 2
    error = capsys.readouterr().err
    assert error.startswith("keras-initaudit: --activation: ")
    assert message in error


def test_the_module_runs_and_reads_a_log_without_keras(tmp_path: Path) -> None:
    folder = log(tmp_path / "run", shot(glorot, 40))
    command = [sys.executable, "-m", "keras_initaudit", "report", str(folder), "--fail-on", "bad"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    assert "vanishing-signal" in done.stdout
    code = (
        f"import sys; from keras_initaudit import cli; cli.main(['report', {str(folder)!r}]); "
        "sys.exit('keras' in sys.modules or 'tensorflow' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0
