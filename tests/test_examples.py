"""Every example runs as a user runs it, in a process and folder of its own, and shows what it promises."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = sorted((Path(__file__).parent.parent / "examples").glob("*.py"))


def run(script, folder):
    done = subprocess.run(
        [sys.executable, script],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=600,
        env=os.environ | {"NO_COLOR": "1"},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_the_quickstart_tells_the_bad_start_from_the_good_one(tmp_path):
    output = run(next(script for script in EXAMPLES if script.name == "quickstart.py"), tmp_path)
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
    output = run(next(script for script in EXAMPLES if script.name == "deep_plain_networks.py"), tmp_path)
    rows = [line.split() for line in output.splitlines()[1:]]
    assert [row[:2] for row in rows] == [
        [activation, start]
        for activation in ("relu", "tanh", "gelu", "silu")
        for start in ("random_normal", "initialize")
    ]
    for before, after in zip(rows[::2], rows[1::2], strict=True):
        assert (before[2], after[2]) == ("bad", "healthy")
        assert float(before[3]) < 0.2 < 0.4 < float(after[3])


def test_every_example_has_a_test():
    assert [script.name for script in EXAMPLES] == ["deep_plain_networks.py", "quickstart.py"]


@pytest.mark.parametrize("script", EXAMPLES, ids=lambda s: s.name)
def test_an_example_is_short(script):
    assert len(script.read_text().splitlines()) < 80
