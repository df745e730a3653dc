"""Every example in a docstring of the package runs, and shows what it says."""

import doctest
import importlib
from pathlib import Path

import keras
import numpy as np
import pytest

import keras_initaudit

ROOT = Path(__file__).parent.parent
FOREIGN = {"tensorflow", "jax", "torch"} - {keras.backend.backend()}
"""Folders of engines that cannot be imported here."""
MODULES = [
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    for path in sorted((ROOT / "keras_initaudit").rglob("*.py"))
    if path.stem != "__main__" and not {*path.parts} & FOREIGN
]
# What an example may use without an import of its own: the public names, Keras and NumPy.
NAMES = {name: getattr(keras_initaudit, name) for name in keras_initaudit.__all__} | {"keras": keras, "np": np}


def examples(module):
    """The docstrings of a module that hold examples."""
    finder = doctest.DocTestFinder(exclude_empty=True)
    found = finder.find(module, module.__name__, globs=NAMES | vars(module))
    return [one for one in found if one.examples]


def failures(test):
    """What the examples of one docstring print instead of what they show."""
    told = []
    runner = doctest.DocTestRunner(verbose=False)
    runner.run(test, out=told.append)
    return "".join(told)


EXAMPLES = [test for name in MODULES for test in examples(importlib.import_module(name))]


@pytest.mark.parametrize("test", EXAMPLES, ids=lambda test: test.name.removeprefix("keras_initaudit."))
def test_the_examples_show_what_they_print(test):
    assert not failures(test)


def test_the_examples_were_found():
    assert len(EXAMPLES) >= 30
    assert not [example.source for test in EXAMPLES for example in test.examples if doctest.SKIP in example.options]
    assert {test.name.rpartition(".")[2] for test in EXAMPLES} >= {"gain", "initialize", "HeNormal", "audit", "fans"}


@pytest.mark.parametrize("name", keras_initaudit.__all__)
def test_every_public_name_has_an_example(name):
    public = getattr(keras_initaudit, name)
    assert [test for test in EXAMPLES if test.name == f"{public.__module__}.{public.__qualname__}"]


@pytest.mark.parametrize(("shown", "right"), [("1.414", True), ("1.41", False), ("", False)])
def test_a_wrong_example_fails(shown, right):
    text = f">>> round(gain('relu'), 3)\n{shown}\n"
    test = doctest.DocTestParser().get_doctest(text, dict(NAMES), "one", None, 0)
    assert bool(failures(test)) is not right
