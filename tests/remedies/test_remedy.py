"""Remedies: each text runs, is proven on the model, and leaves no trace of the trial."""

import dataclasses
import random

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_initaudit as ki
from keras_initaudit.diagnosis import Thresholds, diagnose
from keras_initaudit.observe.batch import first_batch, first_samples
from keras_initaudit.observe.probe import Probe
from keras_initaudit.records import Finding
from keras_initaudit.records.remedies import (
    LearningRate,
    Policy,
    Preprocess,
    Reinitialize,
    ScaleTargets,
    Scheme,
    WholeModel,
)
from keras_initaudit.remedies import apply, proving
from keras_initaudit.remedies.proving import prove

RNG = np.random.default_rng(0)
X = RNG.normal(size=(64, 20)).astype("float32")
Y = RNG.integers(0, 4, 64)


def network(start, activation="relu", depth=8, **options):
    hidden = [
        layers.Dense(48, activation=activation, kernel_initializer=start, name=f"hidden_{index}", **options)
        for index in range(depth)
    ]
    model = keras.Sequential(
        [keras.Input((20,)), *hidden, layers.Dense(4, activation="softmax", name="head")], name="net"
    )
    model.compile("adam", "sparse_categorical_crossentropy")
    return model


def probe_of(model, x=X, y=Y):
    return Probe(model, first_samples(first_batch(x, y, None, size=32), 32), histograms=False)


def found_in(probe):
    return diagnose([probe.measure(0)], Thresholds())


def state(model):
    return [np.array(ops.convert_to_numpy(variable)) for variable in model.variables]


def same(one, other):
    return all(a.tobytes() == b.tobytes() for a, b in zip(one, other, strict=True))


FAULTS = {
    "symmetric-units": lambda: (network("zeros"), X),
    "vanishing-signal": lambda: (network(keras.initializers.RandomNormal(stddev=0.01)), X),
    "exploding-signal": lambda: (network(keras.initializers.RandomNormal(stddev=1.0)), X),
    "saturated-units": lambda: (network(keras.initializers.RandomNormal(stddev=1.0), "tanh"), X),
    "dead-units": lambda: (network("he_normal", bias_initializer=keras.initializers.Constant(-10)), X),
    "input-scale": lambda: (network("he_normal"), 128 + 100 * X),
    "duplicate-kernels": lambda: (network(keras.initializers.HeNormal(seed=1)), X),
}


@pytest.mark.parametrize("rule", FAULTS)
def test_a_remedy_is_proven_in_numbers_and_its_text_mends_the_model(rule):
    keras.utils.set_random_seed(1)
    model, x = FAULTS[rule]()
    probe = probe_of(model, x)
    findings = found_in(probe)
    assert rule in [finding.rule for finding in findings]
    before, states = state(model), (random.getstate(), np.random.get_state()[1].tobytes())
    proven = prove(findings, probe, Thresholds())
    assert same(before, state(model))
    assert (random.getstate(), np.random.get_state()[1].tobytes()) == states
    assert [(f.rule, f.layer, f.severity, f.message) for f in proven] == [
        (f.rule, f.layer, f.severity, f.message) for f in findings
    ]
    finding = next(finding for finding in proven if finding.rule == rule)
    assert finding.remedy is not None
    assert "goes from" in finding.proof
    assert "the loss from" in finding.proof
    # What the proof says holds when a person does it, with another probe.
    data, classes = apply(finding.action, model, (x, Y))
    left = found_in(probe_of(model, ops.convert_to_numpy(data), classes))
    assert [f for f in left if f.rule == rule and f.severity == "bad"] == []


def test_figures_are_those_of_all_the_data_and_not_of_the_batch_that_was_seen():
    """Data in an order: the first batch lies around 20, or is as large as that, and all of it is not."""
    keras.utils.set_random_seed(1)
    generator = np.random.default_rng(2)
    x = generator.normal(size=(256, 8)).astype("float32")
    slow = np.linspace(20.0, -12.0, 256, dtype="float32")[:, None]
    y = slow + 0.1 * generator.normal(size=(256, 1)).astype("float32")
    hidden, out = keras.layers.Dense(32, "relu", name="hidden"), keras.layers.Dense(1, name="out")
    model = keras.Sequential([keras.Input((8,), name="x"), hidden, out], name="regression")
    model.compile("adam", "mse")
    probe = probe_of(model, x, y)
    (finding,) = prove(found_in(probe), probe, Thresholds())
    assert finding.rule == "initial-loss"
    assert "the first loss goes from" in (finding.proof or "")
    apply(finding.action, model, (x, y))
    assert float(model.get_layer("out").bias.value[0]) == pytest.approx(float(y.mean()), rel=1e-5)
    assert abs(y.mean() - y[:32].mean()) > 10.0

    probe = probe_of(model, 30.0 * slow * x, y)
    (finding,) = [f for f in prove(found_in(probe), probe, Thresholds()) if f.rule == "input-scale"]
    assert finding.proof is not None
    data, _ = apply(finding.action, model, (30.0 * slow * x, y))
    assert float(np.std(ops.convert_to_numpy(data))) == pytest.approx(1.0, rel=1e-3)

    probe = probe_of(model, x, 30.0 * y)
    (finding,) = [f for f in prove(found_in(probe), probe, Thresholds()) if f.rule == "input-scale"]
    assert finding.proof is not None
    _, targets = apply(finding.action, model, (x, 30.0 * y))
    assert float(np.std(ops.convert_to_numpy(targets))) == pytest.approx(1.0, rel=1e-3)
    assert float(np.mean(ops.convert_to_numpy(targets))) == pytest.approx(0.0, abs=1e-3)


def test_a_remedy_that_does_not_help_is_replaced_or_dropped():
    keras.utils.set_random_seed(1)
    model = network("zeros")
    probe = probe_of(model)
    (finding,) = [f for f in found_in(probe) if f.rule == "symmetric-units"]
    useless = Reinitialize({"kernel_initializer": Scheme("Zeros")}, layers=("hidden_0",))
    unknown = Reinitialize({"kernel_initializer": Scheme("NoSuchScheme")}, layers=("hidden_0",))
    for remedy in (useless, unknown):
        (proven,) = prove([finding.with_remedy(remedy)], probe, Thresholds())
        assert proven.action == WholeModel()
        assert proven.remedy == WholeModel().code
    (proven,) = prove([finding.with_remedy(Preprocess("bytes"))], probe, Thresholds())
    assert proven.remedy is None
    assert proven.proof is None


def test_what_has_no_remedy_is_left_alone():
    finding = Finding("no-gradient", "bad", "head", "nothing", {}, None)
    assert prove([finding], probe_of(network("he_normal")), Thresholds()) == (finding,)


@pytest.mark.parametrize("rate", [50.0, 1e-9])
def test_another_learning_rate_is_tried_and_taken_back(rate):
    keras.utils.set_random_seed(1)
    model = network("he_normal", depth=3)
    model.compile(keras.optimizers.SGD(rate, momentum=0.9), "sparse_categorical_crossentropy", metrics=["accuracy"])
    audit = ki.InitAudit(False, on_finding="silent")
    model.fit(X, Y, epochs=4, verbose=0, callbacks=[audit])
    finding = next(f for f in audit.findings if f.rule == "update-ratio")
    assert "updates bring the loss" in finding.proof
    held = [*model.variables, *model.optimizer.variables, *model.metrics_variables]
    before, states = [v.numpy().tobytes() for v in held], (random.getstate(), np.random.get_state()[1].tobytes())
    probe = probe_of(model)
    probe.measure(0)
    (again,) = prove([dataclasses.replace(finding, proof=None)], probe, Thresholds())
    assert again.remedy == finding.remedy
    assert [v.numpy().tobytes() for v in held] == before
    assert (random.getstate(), np.random.get_state()[1].tobytes()) == states
    # The rate learns where the other one did not.
    keras.utils.set_random_seed(1)
    other = network("he_normal", depth=3)
    other.compile(keras.optimizers.SGD(rate), "sparse_categorical_crossentropy")
    apply(finding.action, other)
    loss = other.fit(X, Y, epochs=20, verbose=0).history["loss"]
    assert loss[-1] < 0.8 * loss[0]


def test_a_learning_rate_that_cannot_be_set_or_does_not_help_is_no_remedy():
    finding = Finding("update-ratio", "bad", None, "fast").with_remedy(LearningRate(0.1))
    scheduled = network("he_normal", depth=2)
    scheduled.compile(
        keras.optimizers.SGD(keras.optimizers.schedules.ExponentialDecay(9.0, 10, 0.9)),
        "sparse_categorical_crossentropy",
    )
    plain = network("he_normal", depth=2)
    for model in (scheduled, plain):
        model.train_on_batch(X, Y)
    useless = finding.with_remedy(LearningRate(1e9))
    for probe, tried in ((probe_of(scheduled), finding), (probe_of(plain), useless)):
        probe.measure(0)
        (proven,) = prove([tried], probe, Thresholds())
        assert proven.remedy is None
        assert proven.proof is None


def test_the_model_is_put_back_when_the_trial_fails():
    model = network("zeros")
    probe = probe_of(model)
    (finding,) = [f for f in found_in(probe) if f.rule == "symmetric-units"]
    before = state(model)

    class BadProbe:
        model = probe.model
        batch = probe.batch
        marked = "mark"
        everything_kept = staticmethod(probe.everything_kept)

        def measure(self, step):
            raise KeyboardInterrupt

    bad = BadProbe()
    with pytest.raises(KeyboardInterrupt):
        proving._after(finding.action, bad)
    assert same(before, state(model))
    assert bad.marked == "mark"


def test_only_the_named_layers_are_drawn_again_and_always_alike():
    schemes = {"kernel_initializer": Scheme("HeNormal"), "bias_initializer": Scheme("Zeros")}
    remedy = Reinitialize(schemes, layers=("hidden_1", "hidden_2#2"))
    drawn = []
    for _ in range(2):
        model = network("ones", bias_initializer="ones", depth=3)
        apply(remedy, model)
        drawn.append(state(model)[:6])  # less the head, which follows no seed here
    assert same(*drawn)
    first, second, third = (model.get_layer(f"hidden_{index}") for index in range(3))
    assert np.all(np.array(first.kernel) == 1.0)
    assert np.all(np.array(first.bias) == 1.0)
    for layer in (second, third):
        assert np.array(layer.kernel).var() * 48 == pytest.approx(2.0, rel=5 * np.sqrt(2 / 48**2))
        assert np.all(np.array(layer.bias) == 0.0)
    assert not np.array_equal(np.array(second.kernel), np.array(third.kernel))


def test_recurrent_kernels_take_their_own_scheme_and_forget_gates_stay_open():
    model = keras.Sequential([keras.Input((5, 6)), layers.LSTM(8, name="lstm"), layers.Dense(1)])
    schemes = {
        "kernel_initializer": Scheme("GlorotNormal"),
        "recurrent_initializer": Scheme("Orthogonal", {"blocks": 4}),
        "bias_initializer": Scheme("Zeros"),
    }
    apply(Reinitialize(schemes, layers=("lstm",)), model)
    cell = model.get_layer("lstm").cell
    for gate in np.split(np.array(cell.recurrent_kernel), 4, axis=1):
        np.testing.assert_allclose(gate.T @ gate, np.eye(8), atol=1e-5)
    np.testing.assert_array_equal(np.array(cell.bias), np.repeat([0.0, 1.0, 0.0], [8, 8, 16]))


def test_parts_of_attention_are_drawn_with_their_axes():
    inputs = keras.Input((5, 64))
    attention = layers.MultiHeadAttention(4, 16, name="attention")
    model = keras.Model(inputs, attention(inputs, inputs))
    apply(Reinitialize({"kernel_initializer": Scheme("HeNormal")}, layers=("attention/query",)), model)
    kernel = np.array(attention.query_dense.kernel)
    assert kernel.var() * 64 == pytest.approx(2.0, rel=5 * np.sqrt(2 / kernel.size))


def test_what_cannot_be_applied_is_an_error_that_says_why():
    model = network("he_normal", depth=1)
    with pytest.raises(TypeError, match=r"one of keras_initaudit\.records\.remedies, got NoneType"):
        apply(None, model)
    with pytest.raises(ValueError, match="'hidden_9', which is no layer of 'net'"):
        apply(Reinitialize({"kernel_initializer": Scheme("Zeros")}, layers=("hidden_9",)), model)
    with pytest.raises(ValueError, match="no initializer '__import__'"):
        apply(Reinitialize({"kernel_initializer": Scheme("__import__")}, layers=("hidden_0",)), model)
    with pytest.raises(ValueError, match=r"is built.*set_dtype_policy"):
        apply(Policy("mixed_bfloat16"), model)
    with pytest.raises(ValueError, match="needs y as one array, got NoneType"):
        apply(ScaleTargets(), model, (X,))
    with pytest.raises(ValueError, match="needs y as one array, got dict"):
        apply(ScaleTargets(), model, (X, {"a": Y}))
    with pytest.raises(ValueError, match="no input at"):
        apply(Preprocess("bytes", ("c",)), model, ({"a": X, "b": X}, Y))


class OwnStep(keras.Model):
    """A model that cannot be cloned, and trains by a step of its own."""

    def __init__(self, width):
        super().__init__()
        self.width = width
        self.inner = [layers.Dense(width, activation="relu", kernel_initializer="zeros") for _ in range(3)]
        self.head = layers.Dense(4)

    def call(self, x):
        for layer in self.inner:
            x = layer(x)
        return self.head(x)

    def get_config(self):
        raise NotImplementedError


def test_a_model_that_cannot_be_cloned_has_its_remedies_proven_all_the_same():
    model = OwnStep(16)
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    report = ki.audit(model, X, Y)
    assert report.verdict == "bad"
    finding = report.findings[0]
    assert finding.rule == "symmetric-units"
    assert "goes from 1 to 0" in finding.proof
    assert all(np.all(np.array(layer.kernel) == 0.0) for layer in model.inner)


# --- a trial starts model and optimizer anew


OPTIMIZERS = {
    name: kind
    for name, kind in vars(keras.optimizers).items()
    if isinstance(kind, type)
    and issubclass(kind, keras.optimizers.Optimizer)
    and kind is not keras.optimizers.Optimizer
}
WITH_ARGUMENTS = {
    "LossScaleOptimizer": lambda: keras.optimizers.LossScaleOptimizer(keras.optimizers.Nadam(0.01), initial_scale=64.0),
    "MultiOptimizer": lambda: keras.optimizers.MultiOptimizer(
        keras.optimizers.OptimizerMap(keras.optimizers.Nadam(), {"head/.*": keras.optimizers.Ftrl()})
    ),
    "accumulated": lambda: keras.optimizers.Adam(0.01, gradient_accumulation_steps=2, amsgrad=True),
    "averaged": lambda: keras.optimizers.SGD(0.01, momentum=0.9, use_ema=True, ema_overwrite_frequency=2),
}


def made(name):
    return (WITH_ARGUMENTS.get(name) or OPTIMIZERS[name])()


def trained(optimizer, updates=3, seed=1):
    keras.utils.set_random_seed(seed)
    model = network("he_normal", depth=2)
    model.compile(optimizer, "sparse_categorical_crossentropy")
    for _ in range(updates):
        model.train_on_batch(X[:32], Y[:32])
    return model


def every_variable(optimizer):
    """What the optimizer lists, and what Nadam keeps beside that."""
    inner = [optimizer, getattr(optimizer, "inner_optimizer", None), *getattr(optimizer, "optimizers", [])]
    loose = [o._u_product for o in inner if hasattr(o, "_u_product")]
    return [np.array(ops.convert_to_numpy(variable)) for variable in [*optimizer.variables, *loose]]


def counters():
    from keras.src.backend.common import global_state

    return dict(global_state.get_global_attribute("object_name_uids"))


@pytest.mark.parametrize("name", sorted({*OPTIMIZERS, *WITH_ARGUMENTS}))
def test_a_trial_starts_from_the_state_of_a_freshly_built_optimizer(name):
    model = trained(made(name))
    ki.initialize(model, seed=3)
    fresh = made(name)
    fresh.build(model.trainable_variables)
    assert not same(every_variable(model.optimizer), every_variable(fresh))
    tracked = len(model._tracker.stored_ids["non_trainable_variables"]), len(model.optimizer.variables)
    states = random.getstate(), np.random.get_state()[1].tobytes()
    proving._start_optimizer(model.optimizer)
    assert same(every_variable(model.optimizer), every_variable(fresh))
    assert (random.getstate(), np.random.get_state()[1].tobytes()) == states
    assert (len(model._tracker.stored_ids["non_trainable_variables"]), len(model.optimizer.variables)) == tracked


@pytest.mark.parametrize("name", ["Adagrad", "LossScaleOptimizer", "ScheduleFreeAdamW", "accumulated", "averaged"])
def test_a_trial_makes_the_updates_that_a_new_training_makes_and_takes_them_back(name):
    model = trained(made(name))
    probe = probe_of(model)
    probe.measure(0)
    before, state_before, names = state(model), every_variable(model.optimizer), counters()
    with proving._kept(probe):
        start, first, end = proving._trained(LearningRate(0.02), probe)
    assert same(before, state(model))
    assert same(state_before, every_variable(model.optimizer))
    assert counters() == names
    # The same by hand: a model of its own with a new optimizer, that is built before the first step, as by `fit`.
    other = trained(made(name), updates=0)
    other.optimizer.learning_rate = 0.02
    ki.initialize(other, seed=0)
    other.optimizer.build(other.trainable_variables)
    losses = [other.evaluate(X[:32], Y[:32], verbose=0)]
    updates = 3 * (2 if name == "accumulated" else 1)
    for _ in range(updates):
        other.train_on_batch(X[:32], Y[:32])
        losses.append(other.evaluate(X[:32], Y[:32], verbose=0))
    expected = [losses[0], losses[updates // 3], losses[-1]]
    np.testing.assert_allclose([start.loss, first.loss, end.loss], expected, rtol=2e-4)
    assert expected[2] < 0.97 * expected[0]  # or else any state would do


@pytest.mark.parametrize("optimizer", ["sgd", "nadam", "adagrad"])
def test_a_learning_rate_is_proven_under_mixed_precision(optimizer):
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = network("he_normal", depth=2)
    finally:
        keras.config.set_dtype_policy("float32")
    model.compile(optimizer, "sparse_categorical_crossentropy")
    assert isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer)
    model.optimizer.learning_rate = 0.05
    model.train_on_batch(X[:32], Y[:32])
    probe = probe_of(model)
    probe.measure(1)
    before = every_variable(model.optimizer)
    finding = Finding("update-ratio", "bad", None, "fast").with_remedy(LearningRate(0.05))
    (proven,) = prove([finding], probe, Thresholds())
    assert "updates bring the loss" in proven.proof
    assert same(before, every_variable(model.optimizer))


@keras.saving.register_keras_serializable("tests")
class OwnOptimizer(keras.optimizers.SGD):
    """One that cannot be made again from its own configuration."""

    def __init__(self, schedule, **kwargs):
        super().__init__(0.05, **kwargs)
        self.schedule = schedule


def test_without_a_copy_of_the_optimizer_there_is_no_trial():
    model = trained(OwnOptimizer(len))
    probe = probe_of(model)
    probe.measure(3)
    before = every_variable(model.optimizer)
    finding = Finding("update-ratio", "bad", None, "fast").with_remedy(LearningRate(0.05))
    (proven,) = prove([finding], probe, Thresholds())
    assert (proven.remedy, proven.proof) == (None, None)
    assert same(before, every_variable(model.optimizer))


def test_an_optimizer_that_never_made_an_update_is_left_unbuilt():
    model = network("he_normal", depth=2)
    probe = probe_of(model)
    probe.measure(0)
    finding = Finding("update-ratio", "bad", None, "fast").with_remedy(LearningRate(0.05))
    (proven,) = prove([finding], probe, Thresholds())
    assert (proven.remedy, proven.proof) == (None, None)
    assert not model.optimizer.built
