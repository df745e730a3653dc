"""Training steps, activations and softmaxes of a person's own: what is really used, and what is really known."""

from __future__ import annotations

import functools
from typing import Any

import keras
import looking
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, ops

from keras_initaudit import audit
from keras_initaudit.diagnosis import diagnose
from keras_initaudit.records import Snapshot

X, Y = looking.vectors(), looking.classes()


# --- a training step


class OwnStep(keras.Model):
    """Trains `network` by an optimizer of its own; `twin` is a copy that the step writes, or that nobody uses."""

    def __init__(self, *, gives: str = "network", hides_loss: bool = False) -> None:
        super().__init__()
        self.network = keras.Sequential([keras.Input((32,)), layers.Dense(8, "relu"), layers.Dense(5)], name="network")
        self.twin = keras.models.clone_model(self.network)
        self.twin.name = "twin"
        self.gives, self.hides_loss = gives, hides_loss
        self.own_optimizer = keras.optimizers.SGD(0.05)

    def call(self, x: Any) -> Any:
        return self.network(x)

    def train_step(self, data: Any) -> Any:
        x, y = data
        with tf.GradientTape() as tape:
            y_pred = self(x, training=True)
            if self.hides_loss:
                loss = tf.reduce_mean(keras.losses.sparse_categorical_crossentropy(y, y_pred, from_logits=True))
            else:
                loss = self.compute_loss(y=y, y_pred=y_pred)
        given = self.trainable_variables if self.gives == "all" else self.network.trainable_variables
        gradients = tape.gradient(loss, given)
        if self.gives == "nothing":
            for weight, gradient in zip(given, gradients, strict=True):
                weight.assign_sub(0.05 * gradient)
        else:
            self.own_optimizer.apply(gradients, given)
        for weight, copy in zip(self.network.weights, self.twin.weights, strict=True):
            copy.assign(0.99 * copy + 0.01 * weight)
        return {"loss": loss}


def own(**options: Any) -> Any:
    keras.utils.set_random_seed(0)
    return looking.compiled(OwnStep(**options), looking.logits_loss(), "rmsprop")


def reached(shot: Snapshot) -> dict[str, bool]:
    return {info.path.partition("/")[0]: info.reached for info in shot.layers if info.weight is not None}


def test_a_copy_that_no_optimizer_is_given_needs_no_gradient() -> None:
    report = audit(own(), X, Y)
    assert report.findings == ()
    assert set(reached(report.snapshot).values()) == {True}


@pytest.mark.parametrize("gives", ["all", "nothing"])
def test_a_weight_that_an_optimizer_is_given_needs_one_and_so_does_any_where_none_is_given_anything(gives: str) -> None:
    report = audit(own(gives=gives), X, Y)
    found = next(f for f in report.findings if f.rule == "no-gradient")
    assert any("twin" in path for path in found.evidence["affected"])
    assert all("twin" in path for path in found.evidence["affected"]) == (gives == "all")


def test_the_optimizer_that_is_used_is_named_and_no_loss_is_made_up() -> None:
    report = audit(own(hides_loss=True), X, Y)
    assert (report.snapshot.optimizer, report.snapshot.learning_rate) == ("SGD", pytest.approx(0.05))
    for text in (report.text(color=False), report.to_markdown(), report._repr_html_()):
        assert "loss not known" in text
        assert "SGD at 0.05" in text
        assert "not finite" not in text
    seen = audit(own(), X, Y)
    assert "loss not known" not in str(seen)
    assert seen.loss > 0.0
    compiled = audit(looking.compiled(keras.Sequential([layers.Dense(5, "softmax")]), optimizer="rmsprop"), X, Y)
    assert (compiled.snapshot.optimizer, compiled.snapshot.learning_rate) == ("RMSprop", pytest.approx(0.001))


def test_a_loss_that_is_nan_is_known_to_be() -> None:
    broken = audit(looking.compiled(keras.Sequential([layers.Dense(5, "softmax")])), np.where(X > 2, np.nan, X), Y)
    assert "loss not finite" in str(broken)


# --- an activation


def sign(x: Any) -> Any:
    return x + ops.stop_gradient(ops.sign(x) - x)


def through(x: Any) -> Any:
    """The values of tanh, and the gradient of the identity."""
    return x + ops.stop_gradient(ops.tanh(x) - x)


def bounded(x: Any) -> Any:
    return ops.tanh(x)


def saturated(activation: Any, scale: float) -> float:
    keras.utils.set_random_seed(0)
    wide = keras.initializers.RandomNormal(stddev=scale, seed=1)
    hidden = layers.Dense(64, activation, kernel_initializer=wide, name="hidden")
    model = keras.Sequential([keras.Input((32,)), hidden, layers.Dense(5, "softmax")])
    model.compile("adam", "sparse_categorical_crossentropy", run_eagerly=True)
    return float(looking.snapshots(model, X, Y)[0]["hidden"].activation_saturated)


def test_a_straight_through_activation_is_as_saturated_as_its_gradient_says() -> None:
    assert saturated(through, 2.0) == 0.0
    assert saturated(bounded, 0.1) < 0.05
    # Of the same pre-activations, as measured and as computed from the function.
    assert saturated(bounded, 2.0) == pytest.approx(saturated("tanh", 2.0), abs=1e-3) == pytest.approx(0.8, abs=0.1)
    assert np.isnan(saturated(sign, 1.0))  # a jump has no slope that its ends could be flat beside


def test_no_finding_comes_of_a_straight_through_sign() -> None:
    hidden = [layers.Dense(64, sign, name=f"hidden_{i}") for i in range(2)]
    model = keras.Sequential([keras.Input((32,)), *hidden, layers.Dense(5, "softmax")])
    model.compile("adam", "sparse_categorical_crossentropy", run_eagerly=True)
    assert "saturated-units" not in [f.rule for f in diagnose(looking.snapshots(model, X, Y))]


# --- a softmax

FIRST = functools.partial(keras.activations.softmax, axis=1)


@pytest.mark.parametrize(
    ("softmax", "axes"),
    [
        (lambda: layers.Softmax(name="soft"), (2,)),
        (lambda: layers.Softmax(axis=1, name="soft"), (1,)),
        (lambda: layers.Softmax(axis=[1, 2], name="soft"), (1, 2)),
        (lambda: layers.Activation(FIRST, name="soft"), (1,)),
        (lambda: layers.Activation("softmax", name="soft"), (2,)),
        (lambda: layers.Activation(layers.Softmax(axis=1), name="soft"), (1,)),
        (lambda: layers.Dense(6, FIRST, name="soft"), (1,)),
    ],
)
def test_the_entropy_is_taken_over_the_axes_of_the_softmax(softmax: Any, axes: tuple[int, ...]) -> None:
    keras.utils.set_random_seed(0)
    inputs = keras.Input((10, 6))
    soft = softmax()(layers.Dense(6, kernel_initializer=keras.initializers.RandomNormal(stddev=1.0, seed=1))(inputs))
    model = keras.Model(inputs, layers.Dense(5, "softmax")(layers.Flatten()(soft)))
    x = looking.sequences(10, 6)
    shot = looking.snapshots(looking.compiled(model), x, Y)[0]
    p = np.asarray(keras.Model(inputs, soft)(x[:32]), np.float64)
    assert p.sum(axes) == pytest.approx(1.0, abs=1e-5)
    choices = np.prod([p.shape[axis] for axis in axes])
    expected = float((-(p * np.log(np.maximum(p, 1e-30))).sum(axes) / np.log(choices)).mean())
    assert shot["soft"].attention_entropy == pytest.approx(expected, rel=1e-4)
    assert 0.2 < expected < 0.98
