"""`audit()`: one verdict without a fit; clear errors, and the model as it was found, whatever happens."""

import random

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from keras_initaudit import Thresholds, audit

RNG = np.random.default_rng(0)
X = RNG.normal(size=(48, 6)).astype("float32")
LABELS = RNG.integers(0, 3, 48)


def model_of(kernel="he_normal", depth=3, activation="relu"):
    keras.utils.set_random_seed(2)
    hidden = [layers.Dense(16, activation, kernel_initializer=kernel) for _ in range(depth)]
    model = keras.Sequential([keras.Input((6,)), *hidden, layers.BatchNormalization(), layers.Dense(3, "softmax")])
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def everything(model):
    held = [*model.variables, *model.optimizer.variables, *model.metrics_variables]
    return [np.asarray(v.value) for v in held], random.getstate(), np.random.get_state()[1].tolist()


def assert_unchanged(before, after):
    for a, b in zip(before[0], after[0], strict=True):
        np.testing.assert_array_equal(a, b)
    assert before[1:] == after[1:]


def test_a_healthy_and_a_bad_start_are_told_apart():
    assert audit(model_of(), X, LABELS).verdict == "healthy"
    report = audit(model_of("zeros"), X, LABELS)
    assert report.verdict == "bad"
    assert report.findings[0].rule == "symmetric-units"
    assert report.findings[0].remedy


def test_nothing_is_changed_by_an_audit_and_the_trial_of_its_remedies():
    model = model_of(keras.initializers.RandomNormal(stddev=0.01), depth=12)
    model.fit(X, LABELS, verbose=0)  # so that metrics and the optimizer have state
    for layer in model.layers:
        if isinstance(layer, layers.Dense):
            layer.kernel.assign(layer.kernel * 0.01)
    before = everything(model)
    report = audit(model, X, LABELS)
    assert report.findings[0].proof, "the remedy was tried on this very model"
    assert report.step == 2
    assert "step 0" not in str(report)
    assert "bad start after 2 updates" in report.headline
    assert_unchanged(before, everything(model))


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(lambda: (tf.data.Dataset.from_tensor_slices((X, LABELS)).batch(8),), id="dataset"),
        pytest.param(lambda: (tf.constant(X), tf.constant(LABELS)), id="tensors"),
        pytest.param(lambda: (X.astype("float64"), LABELS.astype("int8")), id="other dtypes"),
        pytest.param(lambda: (X, LABELS, np.ones(48)), id="sample weights"),
        pytest.param(lambda: (((X[i : i + 8], LABELS[i : i + 8]) for i in (0, 8)),), id="generator"),
    ],
)
def test_anything_that_fit_takes_is_taken(data):
    report = audit(model_of(), *data(), probe_size=8)
    assert report.snapshot.batch_size == 8
    assert np.isfinite(report.loss)


def test_a_model_that_is_not_built_is_built_as_fit_would():
    keras.utils.set_random_seed(2)
    model = keras.Sequential([layers.Dense(8, "relu", kernel_initializer="he_normal"), layers.Dense(3, "softmax")])
    model.compile("adam", "sparse_categorical_crossentropy")
    assert audit(model, X, LABELS).verdict == "healthy"
    assert model.built


@pytest.mark.parametrize(("trial", "allowed", "outcome"), [(None, None, "bad"), (300, 300, "bad"), (0, 0, None)])
def test_what_is_found_is_tried_on_the_batch_that_fit_would_take(trial, allowed, outcome):
    model = model_of("zeros")
    report = audit(model, X, LABELS, probe_size=5, trial=trial)
    (found,) = report.trials
    assert report.snapshot.batch_size == 5
    assert found.outcome == outcome  # of five samples there would be none
    assert found.allowed == allowed or found.allowed > 100
    assert (report.findings[0].proof is None) == (outcome is None)
    assert report.findings[0].remedy
    assert report.verdict == "bad"
    assert model.train_function is None
    assert not model.optimizer.built


def test_where_nothing_can_be_tried_the_limits_decide():
    few = audit(model_of("zeros"), X[:6], LABELS[:6])
    assert few.trials[0].reason == "the batch has 6 samples, and 8 are needed"
    limits = audit(model_of("zeros"), X[:6], LABELS[:6], trial=0)
    assert [(f.rule, f.severity, f.proof) for f in few.findings] == [
        (f.rule, f.severity, None) for f in limits.findings
    ]


def test_one_sample_is_enough():
    assert audit(model_of(), X[:1], LABELS[:1]).snapshot.batch_size == 1


def test_a_model_that_is_not_compiled_is_refused_with_the_remedy():
    model = keras.Sequential([keras.Input((6,)), layers.Dense(3)])
    with pytest.raises(ValueError, match=r"not compiled.*model\.compile\(optimizer, loss\)"):
        audit(model, X, LABELS)


@pytest.mark.parametrize("wrong", [None, "model.keras", layers.Dense(3)])
def test_what_is_not_a_model_is_refused(wrong):
    with pytest.raises(TypeError, match=r"model must be a keras\.Model, got " + type(wrong).__name__):
        audit(wrong, X, LABELS)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"probe_size": "8"}, TypeError, "probe_size must be an integer.*'8'"),
        ({"probe_size": 0}, ValueError, "probe_size must be at least 1, got 0"),
        ({"trial": 1.0}, TypeError, "trial must be an integer.*0 for no trial.*got 1.0"),
        ({"trial": -2}, ValueError, "trial must be .*got -2"),
        ({"thresholds": 3}, TypeError, "thresholds must be .*Thresholds or None, got int"),
    ],
)
def test_a_bad_argument_is_named_with_its_value(options, error, message):
    with pytest.raises(error, match=message):
        audit(model_of(), X, LABELS, **options)


def test_no_data_is_refused():
    with pytest.raises(ValueError, match="at least one sample"):
        audit(model_of(), X[:0], LABELS[:0])


def test_a_step_that_fails_leaves_the_model_as_it_was():
    model = model_of()
    before = everything(model)
    with pytest.raises(Exception, match=r".+"):
        audit(model, X[:, :4], LABELS)  # two features short
    assert_unchanged(before, everything(model))
    assert not any("call" in vars(layer) for layer in model._flatten_layers())
    assert audit(model, X, LABELS).verdict == "healthy"


def test_other_thresholds_give_another_verdict():
    model = model_of(keras.initializers.RandomNormal(stddev=0.1), depth=8)
    strict = Thresholds(
        signal_loss_warning=0.01, signal_loss_bad=0.02, gradient_loss_warning=0.01, gradient_loss_bad=0.02
    )
    assert audit(model, X, LABELS, thresholds=strict).findings
    assert len(audit(model, X, LABELS, thresholds=strict).findings) >= len(audit(model, X, LABELS).findings)


def test_missing_targets_are_said_with_the_call_that_gives_them():
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    with pytest.raises(ValueError, match=r"y is missing.*'mse'.*audit\(model, x, y\)"):
        audit(model, np.ones((8, 4)))


def test_layers_that_were_frozen_before_they_were_trained_are_named():
    keras.utils.set_random_seed(3)
    x, y = np.random.default_rng(0).normal(size=(256, 32)), np.arange(256) % 4
    body = [layers.Dense(64, "relu", name=f"body_{i}") for i in range(2)]
    model = keras.Sequential([keras.Input((32,)), *body, layers.Dense(4, "softmax")])

    def told(trainable):
        for layer in body:
            layer.trainable = trainable
        model.compile("adam", "sparse_categorical_crossentropy")
        return [(f.rule, f.severity, f.layer, f.evidence.get("reason")) for f in audit(model, x, y).findings]

    assert told(trainable=True) == []
    assert told(trainable=False) == [("no-gradient", "warning", "body_0", "frozen at random")]
    told(trainable=True)
    model.fit(x, y, epochs=3, verbose=0)
    assert told(trainable=False) == []


class Unhelpful(keras.optimizers.schedules.LearningRateSchedule):
    """A schedule that cannot be asked ahead of time."""

    def __call__(self, step):
        if isinstance(step, int):
            raise RuntimeError("not before the training")
        return 0.1


@pytest.mark.parametrize(
    ("rate", "peak"),
    [
        (0.01, None),
        (keras.optimizers.schedules.CosineDecay(1e-6, 10_000, warmup_target=0.1, warmup_steps=500), 0.1),
        (keras.optimizers.schedules.ExponentialDecay(0.3, 100, 0.5), 0.3),
        (Unhelpful(), None),
    ],
    ids=["constant", "warm-up", "decay", "unhelpful"],
)
def test_the_snapshot_holds_the_rate_that_a_schedule_comes_to(rate, peak):
    model = model_of()
    model.compile(keras.optimizers.SGD(rate), "sparse_categorical_crossentropy")
    found = audit(model, X, LABELS).snapshot.peak_rate
    assert found == (None if peak is None else pytest.approx(peak, rel=0.01))
