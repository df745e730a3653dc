"""What a release is made of: one version, and files that say where to find what."""

import re
import tomllib
from pathlib import Path

import pytest

import keras_initaudit

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
VERSION = re.escape(keras_initaudit.__version__)


def test_the_version_stands_in_one_place():
    assert PROJECT["project"]["dynamic"] == ["version"]
    assert PROJECT["tool"]["hatch"]["version"]["path"] == "keras_initaudit/__init__.py"
    holding = [
        str(path.relative_to(ROOT))
        for name in ("*.toml", "*.cff", "keras_initaudit/**/*.py")
        for path in ROOT.glob(name)
        if re.search(rf"(?<![\d.]){VERSION}(?![\d.])", path.read_text())
    ]
    assert holding == ["keras_initaudit/__init__.py"]


def test_the_changelog_has_this_version():
    assert re.findall(r"^## \[(.*?)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)[0] in (
        keras_initaudit.__version__,
        "Unreleased",
    )


@pytest.mark.parametrize("name", PROJECT["tool"]["hatch"]["build"]["targets"]["sdist"]["include"])
def test_what_the_sdist_names_exists(name):
    assert (ROOT / name.removeprefix("/")).exists()


def test_the_workflows_call_what_stands_in_ci():
    called = [
        call
        for path in (ROOT / ".github" / "workflows").glob("*.yml")
        for call in re.findall(r"(\.ci/\w+)", path.read_text())
    ]
    assert {".ci/run", ".ci/package"} <= set(called)
    for call in called:
        assert (ROOT / call).stat().st_mode & 0o100
