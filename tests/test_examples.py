"""Every example runs as a user runs it, in a process and folder of its own, and shows what it promises."""

import ast
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent.parent / "examples"
EXAMPLES = sorted(FOLDER.glob("*.py"))
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))


def run(script, folder, *command):
    done = subprocess.run(
        [sys.executable, *command, FOLDER / script],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=1500,
        env=os.environ | {"NO_COLOR": "1"},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def rows(output, *names):
    """The cells of the lines that begin with these names, in their order."""
    lines = output.splitlines()
    return [next(line for line in lines if line.startswith(name))[len(name) :].split() for name in names]


def numbers(cells):
    return [float(cell) for cell in cells]


def test_the_quickstart_tells_the_bad_start_from_the_good_one(tmp_path):
    output = run("quickstart.py", tmp_path)
    bad, good, results = output.split("===\n")[1:]
    assert "bad initialization before the first update: vanishing-signal" in bad
    assert "HeNormal()" in bad
    assert "healthy before the first update" in good
    accuracies = [float(number) for number in re.findall(r"accuracy ([\d.]+)", results)]
    assert accuracies[0] < 0.2 < 0.9 < accuracies[1]
    assert "tensorboard --logdir logs/quickstart" in output
    runs = {
        path.parent.relative_to(tmp_path / "logs" / "quickstart") for path in tmp_path.rglob("events.out.tfevents.*")
    }
    assert {str(path) for path in runs} == {"stddev_0.05/initaudit", "he_normal/initaudit"}


@pytest.mark.slow
def test_deep_plain_networks_train_after_initialize_and_not_before(tmp_path):
    output = run("deep_plain_networks.py", tmp_path)
    rows = [line.split() for line in output.splitlines()[1:]]
    assert [row[:2] for row in rows] == [
        [activation, start]
        for activation in ("relu", "tanh", "gelu", "silu")
        for start in ("random_normal", "initialize")
    ]
    for before, after in zip(rows[::2], rows[1::2], strict=True):
        assert (before[2], after[2]) == ("bad", "healthy")
        assert float(before[3]) < 0.2 < 0.4 < float(after[3])


@pytest.mark.slow
def test_the_transformer_is_repaired(tmp_path):
    output = run("transformer.py", tmp_path)
    assert "bad: attention-entropy" in output
    assert "After the repair: healthy" in output
    as_it_is, repaired = map(numbers, rows(output, "as it is", "repaired"))
    assert repaired[0] < as_it_is[0] + 0.5
    assert repaired[-1] < as_it_is[-1] - 0.2


@pytest.mark.slow
def test_normalisation_hides_the_scale_of_a_convolution(tmp_path):
    output = run("convolutional.py", tmp_path)
    assert re.search("^(bad|warning): vanishing-signal", output, re.MULTILINE)
    small, he, normalised = rows(output, "plain, stddev 0.02", "plain, HeNormal", "normalised, stddev 0.02")
    # On a slow machine the budget of the trial may end before it is clear that the start never arrives.
    assert small[0] in ("bad", "warning")
    assert (he[0], normalised[0]) == ("healthy", "healthy")
    assert float(small[1]) < 0.2 < 0.8 < min(float(he[1]), float(normalised[1]))


@pytest.mark.slow
def test_a_recurrent_network_remembers_with_an_orthogonal_kernel(tmp_path):
    bad, good, results = run("recurrent.py", tmp_path).split("===\n")[1:]
    assert "bad: vanishing-through-time" in bad
    assert "recurrent_initializer = Orthogonal()" in bad
    assert "healthy before the first update" in good
    (forgets,), (remembers,) = map(numbers, rows(results, "stddev 0.01", "orthogonal"))
    assert forgets < 0.6 < 0.95 < remembers  # of two classes


@pytest.mark.slow
def test_the_generator_of_the_gan_is_at_fault(tmp_path):
    bad, good = run("custom_train_step.py", tmp_path).split("===\n")[1:]
    assert "vanishing-signal at\n  generator/" in bad
    assert "healthy before the first update" in good
    small, usual = (float(re.search(r"differ by ([\d.e-]+)", one)[1]) for one in (bad, good))
    assert small < 2e-3 < 5e-3 < usual


@pytest.mark.slow
def test_fine_tuning_is_no_fault_and_a_backbone_that_was_never_trained_is(tmp_path):
    output = run("fine_tuning.py", tmp_path)
    names = ("trained, frozen, new head", "the same, head of zeros", "trained, LoRA, new head")
    # A head of 64 to 5 units; with LoRA two factors of rank 4 for each of four kernels of 64 to 64 units.
    for cells, trainable in zip(rows(output, *names), (325, 325, 325 + 4 * 2 * 4 * 64), strict=True):
        assert cells == [str(trainable), "healthy", "nothing"]
    assert rows(output, "frozen before its training") == [["325", "warning", "no-gradient"]]


@pytest.mark.slow
def test_the_table_of_initializers(tmp_path):
    output = run("initializers.py", tmp_path)
    (signal, gradient, verdict, accuracy), small, xavier, lecun = rows(
        output, "HeNormal()", "RandomNormal(stddev=0.01)", "XavierNormal()", "LeCunNormal()"
    )
    assert (verdict, rows(output, "Zeros()")[0][2], small[2]) == ("healthy", "bad", "bad")
    assert 0.2 < float(signal) < 5.0
    assert 0.1 < float(gradient) < 10.0
    # On layers of ReLU a variance of 1 / fan_in, and of Xavier between equal widths, loses half of it at each.
    for one in (xavier, lecun):
        assert float(signal) * 2.0**-7 < float(one[0]) < float(signal) * 2.0**-4
    assert float(small[3]) < 0.2 < 0.8 < float(accuracy)


@pytest.mark.slow
def test_the_gate_of_a_project(tmp_path):
    assert "2 passed" in run("pytest_gate.py", tmp_path, "-m", "pytest", "-q", "-p", "no:cacheprovider")
    run("pytest_gate.py", tmp_path)
    command = ["audit", "model.keras", "--data", "batch.npz", "--fail-on", "bad", "--format", "github"]
    done = subprocess.run(
        [sys.executable, "-m", "keras_initaudit", *command], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("::notice title=Init Audit::healthy")


def cells(notebook):
    return [cell for cell in json.loads(notebook.read_text())["cells"] if cell["cell_type"] == "code"]


@pytest.mark.slow
@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda n: n.name)
def test_a_notebook_runs_and_shows_what_was_kept(notebook, tmp_path, monkeypatch):
    """As Jupyter runs it: a cell after the other, the value of the last line of each is its output."""
    monkeypatch.chdir(tmp_path)
    program = ["import sys", "shown = []", "def show(value): shown.append(value)"]
    for cell in cells(notebook):
        tree = ast.parse("".join(cell["source"]))
        if isinstance(tree.body[-1], ast.Expr):
            tree.body[-1] = ast.Expr(ast.Call(ast.Name("show", ast.Load()), [tree.body[-1].value], []))
        program.append(ast.unparse(ast.fix_missing_locations(tree)))
    program.append("print(*[repr(value).splitlines()[0] for value in shown if value is not None], sep='\\n')")
    (tmp_path / "cells.py").write_text("\n".join(program))
    done = subprocess.run([sys.executable, "cells.py"], capture_output=True, text=True, timeout=1500)
    assert done.returncode == 0, done.stderr[-3000:]
    kept = [output["data"] for cell in cells(notebook) for output in cell["outputs"]]
    reports = [data for data in kept if "text/html" in data]
    assert ["<svg" in "".join(data["text/html"]) for data in reports] == [True, True]
    shown = done.stdout.splitlines()[-len(kept) :]
    for data, printed in zip(kept[: len(reports)], shown, strict=False):
        assert printed == "".join(data["text/plain"])


# Recipe -> the package that it needs, and what it prints.
RECIPES = {
    "weights_and_biases": ("wandb", r"[1-9]\d* reports of \d+ numbers each"),
    "mlflow_store": ("mlflow", r"kept: healthy, 5 metrics"),
    "keras_tuner_search": ("keras_tuner", r"(?s)(?=.*zeros +FAILED +None)(?=.*he_normal +COMPLETED +0\.\d+)"),
    "optuna_study": ("optuna", r"(?s)(?=.*zeros +PRUNED +None)(?=.*he_normal +COMPLETE +0\.\d+)"),
    "scikeras_grid": ("scikeras", r"zeros +0\.000\nhe_normal +0\.\d+\nruns in the log: initaudit, initaudit-2"),
    "keras_tensorboard": ("tensorboard", r"runs: initaudit, train, validation"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe(name, tmp_path):
    package, printed = RECIPES[name]
    pytest.importorskip(package)
    assert re.search(printed, run(f"recipes/{name}.py", tmp_path))


def test_every_recipe_has_a_test():
    assert sorted(RECIPES) == sorted(path.stem for path in (FOLDER / "recipes").glob("*.py"))


def test_every_example_has_a_test():
    source = Path(__file__).read_text()
    assert len(EXAMPLES) >= 9
    assert NOTEBOOKS
    assert not [script.name for script in EXAMPLES if f'run("{script.name}"' not in source]


@pytest.mark.parametrize("script", EXAMPLES, ids=lambda s: s.name)
def test_an_example_is_short_and_says_what_one_learns(script):
    lines = script.read_text().splitlines()
    assert len(lines) < 80
    if script.name not in ("quickstart.py", "deep_plain_networks.py"):
        assert "One learns" in " ".join(lines[:5])
        assert f"examples/{script.name}`" in " ".join(lines[:10])
