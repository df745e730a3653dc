"""What is tried at an audit: which start, with which remedies, what is left out, and what it costs where nothing is."""

import os
import signal
import threading

import keras
import looking
import numpy as np
import pytest
from keras import layers, optimizers

from keras_initaudit import InitAudit, audit
from keras_initaudit.diagnosis import diagnose
from keras_initaudit.observe.batch import first_batch
from keras_initaudit.observe.engines import FirstCall
from keras_initaudit.observe.probe import Probe
from keras_initaudit.records import Finding
from keras_initaudit.records.remedies import (
    LearningRate,
    Policy,
    Preprocess,
    Reinitialize,
    ScaleTargets,
    Scheme,
    SetBias,
    WholeModel,
)
from keras_initaudit.remedies import trial
from keras_initaudit.remedies.starts import applied
from keras_initaudit.remedies.trying import tried

X, LABELS = looking.vectors(6)[:32], looking.classes(3)[:32]
NORMAL = keras.initializers.RandomNormal
REDRAWN = Reinitialize({"kernel_initializer": Scheme("HeNormal")}, layers=("hidden_0", "hidden_1", "hidden_2"))
ZEROED = Reinitialize({"kernel_initializer": Scheme("Zeros")}, layers=("hidden_0", "hidden_1", "hidden_2"))


def network(*starts, **compile_with):
    """Three hidden layers; as many starts, or one for all of them."""
    keras.utils.set_random_seed(5)
    schemes = starts * 3 if len(starts) == 1 else starts
    hidden = [layers.Dense(24, "relu", kernel_initializer=s, name=f"hidden_{i}") for i, s in enumerate(schemes)]
    model = keras.Sequential([keras.Input((6,)), *hidden, layers.Dense(3, "softmax", name="head")])
    options = {"optimizer": optimizers.Adam(0.01), "loss": "sparse_categorical_crossentropy"}
    model.compile(**options | compile_with)
    return model


def finding(action=None, rule="vanishing-signal", layer="hidden_2", severity="bad"):
    return Finding(rule, severity, layer, "made for this test").with_remedy(action)


def tries(model, *findings, x=X, y=LABELS, fresh=True, **options):
    batch = first_batch(x, y, size=32)
    probe = Probe(model, batch, histograms=False)
    probe.measure(0)
    found = findings or diagnose([probe.measure(0)])
    return tried(found, probe, FirstCall(batch, False, None, None), fresh=fresh, **options)


def values(model):
    return [np.copy(keras.ops.convert_to_numpy(v)) for v in (*model.variables, *model.optimizer.variables)]


@pytest.fixture
def runs(monkeypatch):
    """How many updates each start made, in their order."""
    made = []
    curve = trial.Runs.curve

    def counted(self, change, limit):
        found = curve(self, change, limit)
        made.append(len(found.losses))
        return found

    monkeypatch.setattr(trial.Runs, "curve", counted)
    return made


# Which start


def test_the_remedies_of_what_was_found_are_the_start_and_the_sentence_is_their_proof():
    model = network("zeros")
    before = values(model)
    found, (said,) = tries(model)
    assert (said.rule, found.outcome, found.left_out, found.step) == ("symmetric-units", "bad", (), 0)
    needed, as_is = found.remedied.needed, len(found.as_is.losses)
    assert said.proof.startswith(f"With the remedy, {needed} updates on this batch bring the loss half of the way")
    assert said.proof.endswith(f"as it is, {as_is} do not.")
    assert as_is == max(20, 3 * needed)
    assert isinstance(said.action, Reinitialize)
    assert all(map(np.array_equal, before, values(model)))


def test_what_is_said_of_the_remedy_holds_for_who_applies_it():
    """The same updates made by `fit`: after as many of them the loss is where the trial says."""
    model = network("zeros")
    found, (said,) = tries(model)
    applied((said.action,), model, ())
    losses = [model.fit(X, LABELS, batch_size=32, verbose=0).history["loss"][0] for _ in found.remedied.losses]
    np.testing.assert_allclose(losses, found.remedied.losses, rtol=1e-3)
    assert np.mean(losses[-3:]) < 0.5 * np.log(3) < losses[0]


def test_without_a_remedy_the_model_is_started_anew_and_that_is_proposed_where_it_helps(runs):
    found, (said,) = tries(network("zeros"), finding())
    assert (found.outcome, said.action) == ("bad", WholeModel())
    assert "With the remedy" in said.proof
    assert len(runs) == 2
    found, (said,) = tries(network("he_normal"), finding())  # the negative control: it does not help
    assert (found.outcome, said) == ("note", finding())


def test_a_remedy_that_does_not_do_gives_way_to_a_new_start_of_the_model(runs):
    found, (said,) = tries(network("zeros"), finding(ZEROED))
    assert runs[0] == 100
    assert found.outcome == "bad"
    assert said.action == WholeModel()
    assert said.remedy == WholeModel().code
    assert f"{found.remedied.needed} updates" in said.proof
    assert len(runs) == 3


def test_a_part_of_the_better_start_proves_nothing():
    """The kernels are at fault as well, and nothing was found in them: nobody would be told to start them anew."""
    found, (said,) = tries(network("zeros"), finding(Preprocess("standardize"), "input-scale", "(input)"))
    assert found.outcome == "bad"
    assert found.remedied.needed is not None
    assert (said.action, said.proof) == (Preprocess("standardize"), None)


def test_data_come_first_and_then_the_weights_and_the_bias():
    """The targets are scaled before their mean becomes the bias, whatever the order of the findings."""
    model = keras.Sequential([keras.Input((6,)), layers.Dense(8, "relu"), layers.Dense(1, name="out")])
    model.compile("sgd", "mse")
    y = 100.0 + 7.0 * X[:, :1]
    start = (SetBias(("out",)), WholeModel(), ScaleTargets())
    for order in (start, start[::-1]):
        _, targets = applied(order, model, (X, y))
        assert float(np.std(targets)) == pytest.approx(1.0, rel=1e-4)
        assert float(model.layers[-1].bias.value[0]) == pytest.approx(0.0, abs=1e-4)
    kernels = [np.copy(model.layers[0].kernel), applied(start, model, (X, y)), np.copy(model.layers[0].kernel)]
    np.testing.assert_array_equal(kernels[0], kernels[2])


def test_raw_inputs_and_raw_targets_are_scaled_together():
    keras.utils.set_random_seed(2)
    model = keras.Sequential([keras.Input((6,)), layers.Dense(24, "relu"), layers.Dense(1)])
    model.compile(optimizers.SGD(0.05), "mse")
    inputs = finding(Preprocess("standardize"), "input-scale", "(input)")
    targets = finding(ScaleTargets(), "initial-loss", None)
    x, y = 1e3 * X, 1e3 * (5.0 + X[:, :1])
    found, said = tries(model, inputs, targets, x=x, y=y)
    assert found.outcome == "bad"
    assert found.remedied.constant == pytest.approx(1.0, rel=1e-3)
    assert [f.action for f in said] == [Preprocess("standardize"), ScaleTargets()]
    assert said[0].proof == said[1].proof is not None


# Several causes


def test_of_two_faults_the_one_that_does_not_matter_becomes_a_note():
    """Kernels that are far too small, and two layers with the same seed."""
    seeded = [NORMAL(stddev=1e-3, seed=1) for _ in range(3)]
    model = network(*seeded)
    report = audit(model, X, LABELS)
    (found,) = report.trials
    assert found.left_out == ("duplicate-kernels:hidden_2",)
    assert [(f.rule, f.severity) for f in report.findings] == [
        ("vanishing-signal", "bad"),
        ("duplicate-kernels", "note"),
    ]
    assert report.findings[0].proof
    assert (report.findings[1].remedy is not None, report.findings[1].proof) == (True, None)
    assert report.verdict == "bad"


def test_a_seed_that_is_used_twice_and_does_no_harm_is_a_note():
    report = audit(network(*[keras.initializers.HeNormal(seed=s) for s in (1, 2, 2)]), X, LABELS)
    assert [(f.rule, f.severity) for f in report.findings] == [("duplicate-kernels", "note")]
    assert report.verdict == "healthy"
    # The negative control: without a trial the limits of its rule decide.
    limited = audit(network(*[keras.initializers.HeNormal(seed=s) for s in (1, 2, 2)]), X, LABELS, trial=0)
    assert [f.severity for f in limited.findings] == ["warning"]


def test_the_minor_finding_is_left_out_first_and_never_the_last_one(runs):
    minor = finding(SetBias(("head",)), "initial-loss", "head", "warning")
    model = network("he_normal")
    model.layers[-1].bias.assign([0.3, 0.0, 0.0])
    y = np.eye(3, dtype="float32")[LABELS]
    model.compile(optimizers.Adam(0.01), "categorical_crossentropy")
    found, said = tries(model, finding(REDRAWN), minor, y=y)
    assert found.left_out == ("initial-loss:head",)
    assert [f.proof is None for f in said] == [False, True]
    assert said[1] == minor
    assert len(runs) == 3  # both, without the bias, as it is


def test_what_is_needed_is_not_left_out():
    first, second = (Reinitialize({"kernel_initializer": Scheme("HeNormal")}, layers=(f"hidden_{i}",)) for i in (0, 2))
    model = network("zeros", "he_normal", "zeros")
    found, said = tries(model, finding(first, layer="hidden_0"), finding(second))
    assert (found.outcome, found.left_out) == ("bad", ())
    assert said[0].proof == said[1].proof is not None


def test_one_remedy_of_two_findings_is_tried_once(runs):
    found, said = tries(network("zeros"), finding(REDRAWN), finding(REDRAWN, "symmetric-units"))
    assert len(runs) == 2
    assert found.left_out == ()
    assert said[0].proof == said[1].proof is not None


# What is not sold


def test_a_remedy_that_does_not_help_is_not_sold():
    found, (said,) = tries(network("zeros"), finding(ZEROED), fresh=False)
    assert found.outcome == "undecided"
    assert (said.action, said.remedy, said.proof) == (None, None, None)
    _, (said,) = tries(network("zeros"), finding(ZEROED, "symmetric-units"), fresh=False)
    assert (said.action, said.proof) == (ZEROED, None)  # what is lost stays lost


def test_not_even_a_structural_finding_has_a_remedy_that_does_harm():
    harmful = Reinitialize({"kernel_initializer": Scheme("RandomNormal", {"stddev": 1e4})}, layers=("hidden_0", "head"))
    model = network("he_normal", optimizer=optimizers.SGD(1e-30))
    _, (said,) = tries(model, finding(harmful, "symmetric-units"), fresh=False)
    assert (said.action, said.proof) == (None, None)


def test_a_remedy_that_cannot_be_applied_is_none():
    unknown = Reinitialize({"kernel_initializer": Scheme("NoSuchScheme")}, layers=("hidden_0",))
    _, (said,) = tries(network("he_normal"), finding(unknown))
    assert (said.action, said.remedy) == (None, None)
    found, (said, other) = tries(network("zeros"), finding(unknown), finding(REDRAWN, "symmetric-units"))
    assert found.outcome == "bad"
    assert said.action is None
    assert other.proof


def test_a_dtype_policy_is_proposed_untried():
    policy = finding(Policy("mixed_bfloat16"), "no-update", None)
    found, (said,) = tries(network("he_normal"), policy)
    assert found.outcome == "note"  # a new start of the model is what there is to compare with
    assert said == policy
    found, said = tries(network("zeros"), policy, finding(REDRAWN))
    assert found.outcome == "bad"
    assert (said[0], bool(said[1].proof)) == (policy, True)


# Where there is none


@pytest.mark.parametrize("loaded", ["trained", "frozen"])
def test_loaded_weights_get_no_new_start(loaded, runs):
    model = network("zeros")
    model.layers[0].trainable = loaded != "frozen"
    model.compile("adam", "sparse_categorical_crossentropy")
    found, said = tries(model, finding(), fresh=loaded != "trained")
    assert found.reason == "no remedy can be applied to the built model, and its weights are not those of a new start"
    assert said == (finding(),)
    found, (said,) = tries(model, finding(ZEROED), fresh=loaded != "trained")
    assert found.outcome == "undecided"
    assert said.action is None
    assert len(runs) == 2, "no new start of the whole model either"


def test_nothing_that_could_change_is_nothing_to_try(runs):
    model = network("zeros")
    model.trainable = False
    model.compile("adam", "sparse_categorical_crossentropy")
    assert tries(model, finding()) == (None, (finding(),))
    assert runs == []


def test_switched_off():
    found, said = tries(network("zeros"), finding(REDRAWN), most=0)
    assert (found.outcome, found.reason, found.allowed) == (None, "it is switched off", 0)
    assert said == (finding(REDRAWN),)


@pytest.mark.parametrize("most", [1, 5, 60])
def test_no_run_makes_more_updates_than_it_may_and_all_of_them_twice_as_many(most, runs):
    found, _ = tries(network("zeros"), finding(ZEROED), finding(SetBias(("head",)), "initial-loss", "head"), most=most)
    assert found.allowed == most
    assert max(runs) <= most
    assert sum(runs) <= 2 * most


class Calls(keras.callbacks.Callback):
    """Counts the calls of the train function, those of a trial too."""

    count = 0

    def on_train_batch_begin(self, batch, logs=None):
        train = self.model.train_function
        if batch == 0 and not self.count:

            def counted(iterator):
                self.count += 1
                return train(iterator)

            self.model.train_function = counted


@pytest.mark.parametrize(("scheme", "trials"), [("he_normal", 0), ("zeros", 1)])
def test_a_start_in_which_nothing_is_found_makes_no_update(scheme, trials):
    calls, seen = Calls(), InitAudit(False, verbose=0, on_finding="silent")
    network(scheme).fit(X, LABELS, batch_size=16, epochs=3, verbose=0, callbacks=[calls, seen])
    made = [len(curve.losses) for t in seen.reports[-1].trials for curve in (t.as_is, t.remedied)]
    assert len(seen.reports[-1].trials) == trials
    # One call more makes the trace of `fit` before the first update of a trial.
    assert calls.count == 6 + sum(made) + trials
    assert sum(made) >= 23 * trials


def test_the_outcome_holds_for_the_whole_fit():
    seen = InitAudit(False, 1, verbose=0, on_finding="silent")
    network("zeros").fit(X, LABELS, batch_size=16, epochs=3, verbose=0, callbacks=[seen])
    assert [len(report.trials) for report in seen.reports] == [1] * 7
    assert len({report.findings[0].proof for report in seen.reports}) == 1
    assert seen.reports[-1].findings[0].proof


def test_the_first_audit_of_a_training_that_goes_on_is_tried_without_a_new_start():
    model = network("zeros")
    model.fit(X, LABELS, batch_size=16, verbose=0)
    seen = InitAudit(False, verbose=0, on_finding="silent")
    model.fit(X, LABELS, batch_size=16, verbose=0, callbacks=[seen])
    (found,) = seen.reports[0].trials
    assert (seen.reports[0].step, found.step) == (2, 2)
    assert found.outcome == "bad"
    assert seen.reports[0].findings[0].severity == "bad"
    assert seen.reports[0].findings[0].proof


def test_data_of_ones_own_are_audited_and_the_batch_of_the_training_is_tried():
    seen = InitAudit(False, data=(X[:5], LABELS[:5]), verbose=0, on_finding="silent")
    network("zeros").fit(X, LABELS, batch_size=16, verbose=0, callbacks=[seen])
    assert seen.reports[0].snapshot.batch_size == 5
    assert seen.reports[0].trials[0].outcome == "bad"  # of five samples there would be none


# A learning rate, later


def rates(model, value, *, fresh=True):
    model.fit(X, LABELS, batch_size=32, verbose=0)
    return tries(model, finding(LearningRate(value), "update-ratio", None), fresh=fresh, later=True, step=1)


def test_a_learning_rate_is_divided_by_ten_until_it_learns_from_a_new_start(runs):
    model = network("he_normal", optimizer=optimizers.SGD(1e4))
    found, (said,) = rates(model, 1e3)
    assert (found.outcome, found.step) == ("bad", 1)
    assert said.action.value in (1.0, 0.1)
    assert len(runs) == {1.0: 5, 0.1: 6}[said.action.value]
    assert float(model.optimizer.learning_rate) == 1e4
    assert "With the remedy" in said.proof


def test_weights_that_were_loaded_are_tried_as_they_are(runs):
    model = network("he_normal", optimizer=optimizers.SGD(1e4))
    found, (said,) = rates(model, 0.1, fresh=False)
    assert found.outcome == "bad"
    assert found.remedied.needed is None  # by now they are beyond repair
    assert len(runs) == 6
    assert said.action is None


def test_a_learning_rate_that_is_scheduled_cannot_be_set():
    for schedule in (
        optimizers.schedules.ExponentialDecay(9.0, 10, 0.9),
        optimizers.schedules.CosineDecay(1e-6, 100, warmup_target=9.0, warmup_steps=50),
    ):
        found, (said,) = rates(network("he_normal", optimizer=optimizers.SGD(schedule)), 0.1)
        assert (found.outcome, found.reason) == (None, "the learning rate cannot be set")
        assert (said.action, said.proof) == (None, None)


def test_what_else_is_found_later_is_not_tried(runs):
    assert tries(network("zeros"), finding(REDRAWN), later=True, step=5) == (None, (finding(REDRAWN),))
    assert runs == []


@pytest.mark.parametrize("rate", [50.0, 1e-7])
def test_a_rate_that_is_found_to_be_wrong_is_tried_once_in_a_fit(rate):
    seen = InitAudit(False, 1, verbose=0, on_finding="silent")
    model = network("he_normal", optimizer=optimizers.SGD(rate, momentum=0.9))
    model.fit(X, LABELS, batch_size=16, epochs=3, verbose=0, callbacks=[seen])
    (found,) = seen.reports[-1].trials
    first = next(report for report in seen.reports if report.findings)
    assert (found.step, found.outcome) == (first.step, "bad")
    assert first.step == 0  # the first update follows from the rate
    for report in seen.reports[first.step :]:
        said = next(f for f in report.findings if f.rule == "update-ratio")
        assert said.severity == "bad"
        assert isinstance(said.action, LearningRate)
        assert said.proof == first.findings[0].proof is not None


# Interrupts


@pytest.mark.parametrize("after", [0.05, 0.3, 0.6])
def test_an_interrupt_in_the_middle_leaves_the_weights_of_the_person(after, monkeypatch):
    model = network("zeros", optimizer=optimizers.Nadam(0.01))
    model.optimizer.build(model.trainable_variables)
    before = values(model)
    seen = InitAudit(False, verbose=0, on_finding="silent")
    curve = trial.Runs.curve
    timer = threading.Timer(after, os.kill, (os.getpid(), signal.SIGINT))

    def interrupted(self, change, limit):
        if not timer.is_alive():
            timer.start()
        while True:  # however fast the machine is
            curve(self, change, limit)

    monkeypatch.setattr(trial.Runs, "curve", interrupted)
    with pytest.raises(KeyboardInterrupt):
        model.fit(X, LABELS, batch_size=16, verbose=0, callbacks=[seen])
    monkeypatch.undo()
    assert all(map(np.array_equal, before, values(model)))
    assert int(model.optimizer.iterations) == 0
    assert "make_train_function" not in vars(model)
    model.fit(X, LABELS, batch_size=16, verbose=0, callbacks=[seen])
    assert seen.reports[0].trials[0].outcome == "bad"
