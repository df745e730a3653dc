"""How the tests of the rules look at real Keras models: small data, one probe, one diagnosis."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np

from keras_initaudit.diagnosis import Thresholds, diagnose
from keras_initaudit.observe.batch import first_batch, first_samples
from keras_initaudit.observe.probe import Probe
from keras_initaudit.records import Finding, Snapshot

SAMPLES = 64


def vectors(features: int = 32, seed: int = 0) -> Any:
    """Standard normal data."""
    return np.random.default_rng(seed).normal(size=(SAMPLES, features)).astype("float32")


def images(side: int = 12, channels: int = 3, seed: int = 0) -> Any:
    """Smooth random images in [0, 1]: neighbouring pixels are alike, as in photographs."""
    coarse = np.random.default_rng(seed).uniform(size=(SAMPLES, (side + 3) // 4, (side + 3) // 4, channels))
    return np.kron(coarse, np.ones((1, 4, 4, 1)))[:, :side, :side].astype("float32")


def sequences(length: int = 10, features: int = 8, seed: int = 0) -> Any:
    return np.random.default_rng(seed).normal(size=(SAMPLES, length, features)).astype("float32")


def tokens(length: int = 12, vocabulary: int = 50, seed: int = 0) -> Any:
    return np.random.default_rng(seed).integers(1, vocabulary, (SAMPLES, length)).astype("int32")


def classes(count: int = 5) -> Any:
    return (np.arange(SAMPLES) % count).astype("int32")


def compiled(model: Any, loss: Any = "sparse_categorical_crossentropy", optimizer: Any = "adam") -> Any:
    model.compile(optimizer, loss)
    return model


def logits_loss() -> Any:
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def batch(x: Any, y: Any, size: int = 32) -> Any:
    """What an audit looks at: the first samples."""
    return first_samples(first_batch(x, y, None, size=size), size)


@contextlib.contextmanager
def kept(model: Any) -> Iterator[None]:
    """The model's variables, put back at the end."""
    values = [(variable, np.array(variable)) for variable in model.variables]
    try:
        yield
    finally:
        for variable, value in values:
            variable.assign(value)


def snapshots(model: Any, x: Any, y: Any, *, then: int = 0, size: int = 32) -> list[Snapshot]:
    """The snapshot at the start; with `then`, also the one after so many updates."""
    probe = Probe(model, batch(x, y, size), histograms=False)
    found = [probe.measure(0)]
    for step in range(then):
        probe.mark()
        model.train_on_batch(x, y)
        found.append(probe.measure(step + 1))
    return found


def found(model: Any, x: Any, y: Any, *, then: int = 0, thresholds: Thresholds | None = None) -> tuple[Finding, ...]:
    return diagnose(snapshots(model, x, y, then=then), thresholds)


def told(findings: tuple[Finding, ...]) -> str:
    """What a failing test shows."""
    lines = [f"{f.severity} {f.rule} {f.layer}: {f.message} {f.evidence.get('consequences', '')}" for f in findings]
    return "\n".join(lines) or "nothing found"
