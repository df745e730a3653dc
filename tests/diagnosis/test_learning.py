"""A start that no other rule suspects and that does not learn, in real trainings."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

from keras_initaudit import InitAudit
from keras_initaudit.observe.batch import first_samples
from keras_initaudit.observe.probe import Probe
from keras_initaudit.records import Finding
from keras_initaudit.records.remedies import LearningRate
from keras_initaudit.remedies.ends import ends

RNG = np.random.default_rng(0)
X = RNG.normal(size=(24, 5)).astype("float32")
LABELS = RNG.choice(4, 24, p=(0.55, 0.2, 0.15, 0.1))
ONE_HOT = np.eye(4, dtype="float32")[LABELS]
YES = (RNG.random((24, 3)) < (0.2, 0.5, 0.7)).astype("float32")
NUMBERS = (RNG.gamma(2.0, 1.5, (24, 3)) * (1.0, 10.0, 0.1)).astype("float32")
WEIGHTS = RNG.uniform(0.2, 4.0, 24).astype("float32")


def network(loss: Any, units: int, **options: Any) -> Any:
    keras.utils.set_random_seed(2)
    parts = [keras.Input((5,)), layers.Dense(16, "tanh", **options), layers.Dense(units, name="out")]
    model = keras.Sequential(parts)
    model.compile("sgd", loss)
    return model


LOSSES = {
    "classes": (keras.losses.SparseCategoricalCrossentropy(from_logits=True), 4, LABELS),
    "smoothed": (keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=0.2), 4, ONE_HOT),
    "yes-no": (keras.losses.BinaryCrossentropy(from_logits=True, label_smoothing=0.1), 3, YES),
    "squares": (keras.losses.MeanSquaredError(), 3, NUMBERS),
    "distances": (keras.losses.MeanAbsoluteError(), 3, NUMBERS),
}


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("kind", LOSSES)
def test_the_constant_answer_is_that_of_the_compiled_loss(kind: str, weighted: bool) -> None:
    loss, units, y = LOSSES[kind]
    batch = (X, y, WEIGHTS) if weighted else (X, y)
    model = network(loss, units)
    shot = Probe(model, first_samples(batch, 64)).measure(0)
    expected = ends(model, keras.tree.map_structure(keras.ops.convert_to_tensor, batch)).constant
    assert shot.constant_loss == pytest.approx(expected, rel=1e-4)
    if shot.baseline_loss is not None and kind in ("classes", "yes-no") and not weighted:
        assert shot.constant_loss < shot.baseline_loss


def test_the_penalties_of_the_weights_are_in_it_as_they_are_in_the_loss() -> None:
    loss, units, y = LOSSES["classes"]
    plain = Probe(network(loss, units), first_samples((X, y), 64)).measure(0)
    model = network(loss, units, kernel_regularizer=keras.regularizers.L2(0.5))
    shot = Probe(model, first_samples((X, y), 64)).measure(0)
    penalty = 0.5 * float(np.sum(np.square(model.layers[0].get_weights()[0])))
    assert penalty > 1.0
    assert shot.constant_loss is not None
    assert plain.constant_loss is not None
    assert shot.constant_loss - plain.constant_loss == pytest.approx(penalty, rel=1e-5)
    assert shot.loss - plain.loss == pytest.approx(penalty, rel=1e-5)


class OwnLoss(keras.Model):
    def compute_loss(self, x: Any = None, y: Any = None, y_pred: Any = None, *args: Any, **kwargs: Any) -> Any:
        return 3.0 + keras.ops.mean(keras.ops.square(y - y_pred))


def test_nothing_is_known_of_a_loss_of_ones_own() -> None:
    i = keras.Input((5,))
    model = OwnLoss(i, layers.Dense(3)(i))
    model.compile("sgd", "mse")
    assert Probe(model, first_samples((X, NUMBERS), 64)).measure(0).constant_loss is None


def found(optimizer: Any, *, frozen: bool = False, updates: int = 20) -> list[Finding]:
    """What a `fit` says of not learning; the head is made at a glance, so that the first loss is above a constant's."""
    keras.utils.set_random_seed(3)
    x = np.random.default_rng(1).normal(size=(640, 8)).astype("float32")
    y = (x[:, 0] * x[:, 1] > 0).astype("int32")
    first = layers.Dense(32, "tanh", trainable=not frozen)
    model = keras.Sequential([keras.Input((8,)), first, layers.Dense(32, "tanh"), layers.Dense(2, "softmax")])
    model.compile(optimizer, "sparse_categorical_crossentropy")
    audit = InitAudit(log_dir=False, verbose=0, on_finding="silent")
    model.fit(x, y, batch_size=32, steps_per_epoch=updates, verbose=0, callbacks=[audit])
    return [finding for finding in audit.findings if finding.rule == "not-learning"]


@pytest.mark.parametrize("optimizer", [keras.optimizers.SGD, keras.optimizers.Adam])
def test_a_rate_that_is_far_too_small_is_found_and_a_larger_one_is_proposed(optimizer: Any) -> None:
    (finding,) = found(optimizer(1e-6))
    assert finding.severity == "bad"  # a trial has shown it: with the larger rate the batch is learnt
    assert finding.evidence["step"] == 20
    assert isinstance(finding.action, LearningRate)
    assert 1e-5 < finding.action.value <= 1.0
    assert "after 20 updates the loss is" in finding.message


@pytest.mark.parametrize("optimizer", [lambda: keras.optimizers.SGD(0.1, 0.9), lambda: keras.optimizers.Adam(1e-2)])
@pytest.mark.parametrize("frozen", [False, True])
def test_a_usual_rate_is_none_of_it(optimizer: Any, frozen: bool) -> None:
    assert not found(optimizer(), frozen=frozen)


def test_a_rate_that_warms_up_is_waited_for() -> None:
    slow = keras.optimizers.schedules.CosineDecay(0.0, 1000, warmup_target=1e-3, warmup_steps=100_000)
    assert not found(keras.optimizers.Adam(slow))
    assert found(keras.optimizers.Adam(2e-7))  # which is what it has come to by then
