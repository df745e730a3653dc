"""The bar: on a terminal and in a notebook, after two seconds; never in a file."""

import io
import sys

import keras
import numpy as np
import pytest

from keras_initaudit import InitAudit, audit, coordinate_check, initialize, progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def at_once(monkeypatch):
    monkeypatch.setattr(progress, "AFTER", 0.0)
    monkeypatch.setattr(progress, "_BETWEEN", 0.0)


def shown_on(stream, monkeypatch):
    monkeypatch.setattr(sys, "stderr", stream)
    with progress.bar("counting") as told:
        told(1, 4)
        told(4, 4)
    return stream.getvalue()


def test_it_grows_and_goes(at_once, monkeypatch):
    first, second, blank, end = shown_on(Terminal(), monkeypatch).split("\r")[1:]
    assert (first.count("#"), first.count(".")) == (8, 22)
    assert (second.count("#"), second.count(".")) == (30, 0)
    assert (blank.strip(), end) == ("", "")
    assert len(blank) == len(first)


def test_a_file_gets_nothing_and_a_notebook_does(at_once, monkeypatch):
    assert shown_on(io.StringIO(), monkeypatch) == ""
    monkeypatch.setitem(sys.modules, "ipykernel", sys)
    assert "counting" in shown_on(io.StringIO(), monkeypatch)


def test_what_is_quick_shows_nothing(monkeypatch):
    assert shown_on(Terminal(), monkeypatch) == ""


def network(width=8):
    keras.utils.set_random_seed(0)
    hidden = [keras.layers.Dense(width, "relu", kernel_initializer="zeros") for _ in range(3)]
    model = keras.Sequential([keras.Input((4,)), *hidden, keras.layers.Dense(1, kernel_initializer="zeros")])
    model.compile("adam", "mse")
    return model


X = np.random.default_rng(0).normal(size=(32, 4)).astype("float32")
Y = X[:, :1]


@pytest.mark.parametrize(
    ("action", "words"),
    [
        (lambda: audit(network(), X, Y, trial=30), "trying the start"),
        (lambda: audit(network(), X, Y, trial=0), None),
        (lambda: network().fit(X, Y, verbose=0, callbacks=[InitAudit(False, trial=30)]), "trying the start"),
        (lambda: network().fit(X, Y, verbose=0, callbacks=[InitAudit(False, verbose=0, trial=30)]), None),
        (lambda: network().fit(X, Y, verbose=0, callbacks=[InitAudit(False, on_finding="silent")]), None),
        (lambda: initialize(network(), x=X), "initializing"),
        (lambda: initialize(network()), None),
        (lambda: coordinate_check(network, (4, 8), X, Y, steps=1, seeds=1), "updating models"),
    ],
    ids=["audit", "no trial", "fit", "quiet fit", "silent fit", "on data", "without data", "widths"],
)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_where_it_is_shown(action, words, at_once, monkeypatch):
    stream = Terminal()
    monkeypatch.setattr(sys, "stderr", stream)
    action()
    seen = stream.getvalue()
    assert (words in seen and "#" in seen) if words else "[" not in seen
