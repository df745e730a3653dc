"""Zeros that are meant: what a zero weight keeps from the rest for one update is judged when it has had its time."""

from __future__ import annotations

from typing import Any

import keras
import looking
import numpy as np
import odd_networks as odd
import pytest
from keras import layers
from numpy_network import edited

from keras_initaudit.diagnosis import diagnose
from keras_initaudit.records import Finding, Snapshot, layer_from_json, to_jsonable


class Gate(layers.Layer):
    """A learnt factor for each unit, from zero."""

    def build(self, shape: Any) -> None:
        self.scale = self.add_weight(shape=(shape[-1],), initializer="zeros", name="scale")

    def call(self, x: Any) -> Any:
        return x * self.scale


class Cut(layers.Layer):
    """Passes the signal on as it is, or zeros, and a gradient of zero."""

    def __init__(self, passes: bool = True, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.passes = passes

    def call(self, x: Any) -> Any:
        return 0.0 * x + (keras.ops.stop_gradient(x) if self.passes else 0.0)


def network(part: Any, width: int = 16) -> Any:
    """`part` of two hidden layers, and a random head; the layer `side` has what is behind it for its only way out."""
    keras.utils.set_random_seed(5)
    inputs = keras.Input((32,))
    trunk = layers.Dense(width, "tanh", name="trunk")(inputs)
    side = layers.Dense(width, "tanh", name="side")(layers.Dense(width, "tanh", name="first")(inputs))
    h = layers.Add(name="sum")([trunk, part(trunk, side, width)])
    return looking.compiled(keras.Model(inputs, layers.Dense(5, "softmax", name="head")(h)))


def gated(trunk: Any, side: Any, width: int) -> Any:
    factor = layers.Dense(width, name="factor")(Gate(name="gate")(trunk))
    return layers.Dense(width, name="branch")(layers.Multiply()([factor, side]))


def transformed(trunk: Any, side: Any, width: int) -> Any:
    """As the T-Net of PointNet: a matrix from a zero kernel and an identity bias, that multiplies the trunk."""
    identity = keras.initializers.Constant(np.eye(width).flatten())
    matrix = layers.Dense(width * width, kernel_initializer="zeros", bias_initializer=identity, name="matrix")(side)
    row = layers.Reshape((1, width))(trunk)
    return layers.Flatten()(layers.Dot(axes=(2, 1))([row, layers.Reshape((width, width))(matrix)]))


def cut(trunk: Any, side: Any, width: int) -> Any:
    del trunk
    return layers.Dense(width, name="branch")(Cut(name="cut")(side))


def gated_and_cut(trunk: Any, side: Any, width: int) -> Any:
    opened = layers.Dense(width, name="opened")(Gate(name="gate")(trunk))
    return layers.Add(name="both")([opened, cut(trunk, side, width)])


def audits(model: Any, updates: int = 2) -> list[Snapshot]:
    return looking.snapshots(model, looking.vectors(), looking.classes(), then=updates)


def told(findings: tuple[Finding, ...]) -> list[tuple[str, str, int | None]]:
    return [(f.severity, f.rule, f.evidence.get("step")) for f in findings]


@pytest.mark.parametrize("part", [gated, transformed])
def test_what_waits_for_a_zero_weight_is_healthy_once_that_has_moved(part: Any) -> None:
    shots = audits(network(part))
    assert shots[0]["first"].backward_rms == 0.0
    assert shots[1]["first"].backward_rms > 0.0
    for count in (1, 2, 3):
        assert told(diagnose(shots[:count])) == []


def test_what_no_zero_weight_explains_is_bad_at_once_and_in_words_of_zero() -> None:
    (found,) = diagnose(audits(network(cut), 0))
    assert (found.severity, found.rule) == ("bad", "vanishing-gradient")
    assert found.message.startswith("no gradient arrives at first: it is exactly zero there")
    assert "e-4" not in found.message


def test_what_a_zero_weight_does_not_explain_after_all_is_bad_at_step_two() -> None:
    shots = audits(network(gated_and_cut))
    assert told(diagnose(shots[:2])) == []
    assert told(diagnose(shots)) == [("bad", "vanishing-gradient", 2)]


def test_two_zeros_in_one_branch_never_move() -> None:
    def stuck(trunk: Any, side: Any, width: int) -> Any:
        return layers.Add()(
            [side, Gate(name="gate")(layers.Dense(width, kernel_initializer="zeros", name="zeros")(trunk))]
        )

    shots = audits(network(stuck))
    assert told(diagnose(shots[:2])) == []
    (found,) = (f for f in diagnose(shots) if f.rule == "symmetric-units")
    assert (found.severity, found.evidence["step"], found.evidence["affected"]) == ("bad", 2, ["zeros"])


def test_the_gate_of_a_model_that_has_no_row_of_its_own_counts() -> None:
    class Own(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.inner, self.head = layers.Dense(16, "tanh", name="inner"), layers.Dense(5, "softmax", name="head")
            self.factor = self.add_weight(shape=(), initializer="zeros", name="factor")

        def call(self, x: Any) -> Any:
            return self.head(self.factor * self.inner(x))

    keras.utils.set_random_seed(5)
    shots = audits(looking.compiled(Own()))
    assert [info.zero_scales for info in shots[0].layers if info.zero_scales] == [("factor",)]
    assert told(diagnose(shots[:1])) == told(diagnose(shots)) == []


def test_a_signal_that_waits_for_its_gate_is_no_fault_and_one_that_is_cut_is() -> None:
    def chain(part: Any) -> Any:
        keras.utils.set_random_seed(5)
        hidden = [layers.Dense(16, "tanh", name=name) for name in ("first", "second")]
        return looking.compiled(
            keras.Sequential([keras.Input((32,)), hidden[0], part, hidden[1], layers.Dense(5, "softmax", name="head")])
        )

    assert told(diagnose(audits(chain(Gate(name="gate"))))) == []
    (found,) = diagnose(audits(chain(Cut(passes=False, name="cut")), 0))
    assert (found.severity, found.rule) == ("bad", "vanishing-signal")
    assert "exactly zero" in found.message
    assert "e-4" not in found.message


def test_only_zero_scales_that_get_a_gradient_are_noted_and_they_survive_json() -> None:
    shots = audits(network(gated))
    noted = {info.path: info.zero_scales for info in shots[0].layers if info.zero_scales}
    assert noted == {"gate": ("scale",)}
    info = next(info for info in shots[0].layers if info.path == "gate")
    assert layer_from_json(to_jsonable(info)) == info
    assert shots[2].layers == shots[0].layers
    behind_zero = network(lambda trunk, side, width: Gate(name="gate")(Cut(passes=False, name="cut")(side)))
    assert not any(info.zero_scales for info in audits(behind_zero, 0)[0].layers)
    normalised = network(lambda trunk, side, width: layers.LayerNormalization()(side))
    assert not any(info.zero_scales for info in audits(normalised, 0)[0].layers)  # gamma is 1, beta is a bias


def no_gradient_below(shot: Snapshot) -> Snapshot:
    return edited(shot, "dense_0", backward_rms=0.0, gradient_rms=0.0)


def test_a_gate_that_has_just_opened_may_let_little_through() -> None:
    start = no_gradient_below(edited(odd.healthy(), "dense_1", layer={"zero_scales": ("scale",)}))
    little = edited(odd.healthy(), "dense_0", backward_rms=1e-9)
    assert told(diagnose([start, odd.of(little, step=2)])) == []
    assert told(diagnose([start, odd.of(no_gradient_below(odd.healthy()), step=1)])) == [
        ("bad", "vanishing-gradient", 1)
    ]  # of a snapshot whose rows no longer say so, it is judged at once
    later = no_gradient_below(edited(odd.healthy(), "dense_1", layer={"zero_scales": ("scale",)}))
    assert told(diagnose([start, odd.of(later, step=1)])) == []
    assert told(diagnose([start, odd.of(later, step=2)])) == [("bad", "vanishing-gradient", 2)]
    assert told(diagnose([odd.of(start, step=10), odd.of(later, step=11)])) == []
    assert told(diagnose([odd.of(start, step=10), odd.of(later, step=12)])) == [("bad", "vanishing-gradient", 12)]
