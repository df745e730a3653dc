"""The README's code and commands run, in their order, and print what the README says they print."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"<!-- (run|output) -->\n```\w+\n(.*?)```", README, re.DOTALL)
COMMANDS = [shlex.split(line, comments=True)[1:] for line in re.findall(r"^keras-initaudit .*$", README, re.MULTILINE)]
# What the commands work on, from the model and the data of the README's code.
FILES = """
import numpy
model.save("model.keras")
numpy.savez("batch.npz", x=x[:32] / 16, y=y[:32])
"""


def not_run(text):
    """The Python blocks of a text that no mark says to run."""
    return re.findall(r"(?<!<!-- run -->\n)```python\n(.*?)```", text, re.DOTALL)


def masked(text):
    """Lines without numbers, curves, which differ a little from one processor to another, and padding.

    And without the line that says what takes long, where the machine is slow.
    """
    text = re.sub(r"^InitAudit tries .*\n", "", text, flags=re.MULTILINE)
    without = re.sub(r"-?\d+(\.\d+)?(e[-+]?\d+)?|[\u2581-\u2588]+", "#", text)
    return [re.sub(r"\s+", " ", line).strip() for line in without.splitlines() if line.strip()]


def test_the_code_prints_what_the_readme_shows(tmp_path):
    mark = "=== the next block ==="
    code = f"\nprint({mark!r}, flush=True)\n".join(text for kind, text in [*BLOCKS, ("run", FILES)] if kind == "run")
    code += "".join(f"\n{name}()" for name in re.findall(r"^def (test_\w+)\(\):", code, re.MULTILINE))
    (tmp_path / "readme.py").write_text(code)
    done = subprocess.run(
        [sys.executable, "readme.py"],
        cwd=tmp_path,
        env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "2", "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    printed = done.stdout.split(mark)
    runs = -1
    for kind, text in BLOCKS:
        if kind == "run":
            runs += 1
        else:
            assert masked(printed[runs]) == masked(text)
    assert runs >= 1
    assert len(COMMANDS) >= 4
    for command in COMMANDS:
        line = [sys.executable, "-m", "keras_initaudit", *command]
        done = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, (command, done.stderr[-3000:])


def test_every_python_block_is_run():
    assert not not_run(README)
    assert not_run("text\n\n```python\nprint(1)\n```\n") == ["print(1)\n"]
    assert not not_run("<!-- run -->\n```python\nprint(1)\n```\n")


def test_the_mask_hides_numbers_and_nothing_else():
    assert masked("loss 2.3e-5  at dense_1\n\n") == ["loss # at dense_#"]
    assert masked("loss 2.3 at dense") != masked("loss 2.3 at head")
    assert masked("loss 2.3 \u2585\u2581 1") == ["loss # # #"] != masked("loss 2.3 \u00d7 1")


@pytest.mark.parametrize("link", re.findall(r"\]\(([^)#]+)", README))
def test_a_link_within_the_project_leads_somewhere(link):
    if not link.startswith("http"):
        assert (ROOT / link).exists()
