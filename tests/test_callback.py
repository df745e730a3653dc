"""`InitAudit` in a real `fit`: arguments, schedule, reactions, faults, neighbours; the training is never harmed."""

import pickle
import random
import warnings

import keras
import numpy as np
import pytest
from keras import layers

import keras_initaudit.callback as callback_module
from keras_initaudit import BadInitializationError, InitAudit
from keras_initaudit.callback import default_schedule
from keras_initaudit.tensorboard.summary import read

RNG = np.random.default_rng(0)
X = RNG.normal(size=(64, 6)).astype("float32")
LABELS = RNG.integers(0, 3, 64)


def model_of(kernel="glorot_uniform", depth=2, activation="relu", **compile_with):
    keras.utils.set_random_seed(5)
    hidden = [layers.Dense(16, activation, kernel_initializer=kernel, name=f"hidden_{i}") for i in range(depth)]
    model = keras.Sequential([keras.Input((6,)), *hidden, layers.Dense(3, "softmax", name="head")])
    model.compile(**{"optimizer": "adam", "loss": "sparse_categorical_crossentropy"} | compile_with)
    return model


def fit(model, *callbacks, x=X, y=LABELS, **options):
    random.seed(3)
    return model.fit(x, y, callbacks=list(callbacks), **{"batch_size": 16, "epochs": 2, "verbose": 0} | options)


def weights_after(*callbacks, **options):
    model = model_of()
    history = fit(model, *callbacks, **options).history
    return [*model.get_weights(), *[np.asarray(v.value) for v in model.optimizer.variables]], history


def stands_in(model):
    return "keras_initaudit" in getattr(model.train_function, "__module__", "")


def assert_same_training(left, right):
    for a, b in zip(left[0], right[0], strict=True):
        np.testing.assert_array_equal(a, b)
    assert left[1] == right[1]


@pytest.mark.parametrize(
    ("name", "value", "error", "received"),
    [
        ("probe_size", "32", TypeError, "'32'"),
        ("probe_size", 0, ValueError, "0"),
        ("probe_size", True, TypeError, "True"),
        ("schedule", "often", TypeError, "'often'"),
        ("schedule", 0, ValueError, "0"),
        ("schedule", [0, -1], ValueError, "-1"),
        ("schedule", [0, 1.5], ValueError, "1.5"),
        ("schedule", 1.5, TypeError, "1.5"),
        ("on_finding", "explode", ValueError, "'explode'"),
        ("histograms", "yes", TypeError, "'yes'"),
        ("thresholds", {"vanishing": 3}, TypeError, "dict"),
        ("verbose", 7, ValueError, "7"),
        ("log_dir", 3, TypeError, "3"),
        ("log_dir", "", ValueError, "empty"),
        ("trial", "20", TypeError, "'20'"),
        ("trial", True, TypeError, "True"),
        ("trial", 2.5, TypeError, "2.5"),
        ("trial", -1, ValueError, "-1"),
    ],
)
def test_a_bad_argument_is_named_with_its_value_when_the_callback_is_made(name, value, error, received):
    with pytest.raises(error, match=name) as raised:
        InitAudit(**{name: value})
    assert received in str(raised.value)


def test_the_default_schedule_is_dense_early_and_sparse_late():
    assert [step for step in range(1001) if default_schedule(step)] == [0, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000]


@pytest.mark.parametrize(
    ("schedule", "steps"),
    [(None, [0, 1, 2, 5]), (3, [0, 3, 6]), ([4], [0, 4]), (lambda step: step > 6, [0, 7, 8]), (range(3), [0, 1, 2])],
)
def test_audits_happen_at_the_scheduled_steps_and_always_at_initialization(schedule, steps):
    audit = InitAudit(False, schedule, verbose=0)
    fit(model_of(), audit)
    assert [report.step for report in audit.reports] == steps


def test_the_verdict_is_printed_before_the_first_update_with_the_tensorboard_line(tmp_path, capsys):
    seen = []

    class AtFirstUpdate(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            seen.append(capsys.readouterr().out)

    fit(model_of("zeros"), InitAudit(tmp_path), AtFirstUpdate(), epochs=1, steps_per_epoch=1)
    assert "symmetric-units" in seen[0]
    assert f"tensorboard --logdir {tmp_path}" in seen[0]


def test_without_log_dir_the_log_goes_to_logs_and_the_time(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    audit = InitAudit(verbose=0)
    assert not list(tmp_path.iterdir()), "nothing is made before there is something to write"
    fit(model_of(), audit)
    (run,) = (tmp_path / "logs").iterdir()
    assert [snapshot.step for snapshot in read(run / "initaudit")] == [0, 1, 2, 5]


def test_raise_happens_before_the_first_update_and_leaves_the_model_as_it_was():
    model = model_of("zeros")
    before = model.get_weights()
    with pytest.raises(BadInitializationError, match="symmetric-units") as raised:
        fit(model, InitAudit(False, on_finding="raise", verbose=0))
    assert raised.value.report.verdict == "bad"
    for a, b in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    assert int(model.optimizer.iterations.numpy()) == 0
    fit(model_of(), InitAudit(False, on_finding="raise", verbose=0))  # a healthy one does not raise


def test_stop_ends_the_training_of_a_bad_start_alone():
    bad, good = model_of("zeros"), model_of()
    fit(bad, InitAudit(False, on_finding="stop", verbose=0))
    fit(good, InitAudit(False, on_finding="stop", verbose=0))
    assert (int(bad.optimizer.iterations.numpy()), int(good.optimizer.iterations.numpy())) == (1, 8)


def test_a_function_is_called_with_each_report_that_has_news():
    reports = []
    fit(model_of("zeros"), InitAudit(False, on_finding=reports.append, verbose=0))
    assert reports[0].step == 0
    assert "symmetric-units" in {finding.rule for finding in reports[0].findings}


def test_silent_prints_and_warns_nothing(capsys):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fit(model_of("zeros"), InitAudit(False, on_finding="silent"))
    assert capsys.readouterr().out == ""


def test_without_printing_a_finding_is_a_warning():
    with pytest.warns(UserWarning, match="InitAudit: bad"):
        fit(model_of("zeros"), InitAudit(False, verbose=0))


def test_each_finding_is_kept_once():
    audit = InitAudit(False, 1, verbose=0, on_finding="silent")
    fit(model_of("zeros"), audit)
    names = [(finding.rule, finding.layer) for finding in audit.findings]
    assert len(audit.reports) == 9
    assert len(names) == len(set(names)) > 0


@pytest.mark.parametrize(("trial", "verdict"), [(None, "healthy"), (400, "healthy"), (0, "warning")])
def test_a_note_is_no_news_and_costs_no_verdict(trial, verdict, capsys):
    seeded = keras.initializers.GlorotUniform(seed=1)
    audit = InitAudit(False, 1, trial=trial)
    fit(model_of(seeded, depth=3), audit)
    (finding,) = audit.findings
    assert (finding.rule, finding.severity) == ("duplicate-kernels", "note" if trial != 0 else "warning")
    assert audit.reports[-1].verdict == verdict
    (found,) = audit.reports[-1].trials
    assert found.outcome == ("note" if trial != 0 else None)
    assert found.allowed == trial or trial is None
    assert capsys.readouterr().out.count("Init Audit:") == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error" if trial != 0 else "ignore")
        fit(model_of(seeded, depth=3), InitAudit(False, verbose=0, trial=trial))


# Faults: none of them reaches the training


def test_a_fault_of_the_audit_is_one_warning_that_names_it(monkeypatch):
    def broken(*args, **kwargs):
        raise ZeroDivisionError("made for this test")

    plain = weights_after()
    monkeypatch.setattr(callback_module.auditing, "judge", broken)
    with pytest.warns(UserWarning, match="ZeroDivisionError: made for this test") as caught:
        watched = weights_after(InitAudit(False))
    assert len([w for w in caught if "InitAudit" in str(w.message)]) == 1
    assert_same_training(plain, watched)


def test_a_log_that_cannot_be_written_is_one_warning_and_the_audit_goes_on(tmp_path):
    in_the_way = tmp_path / "file"
    in_the_way.write_text("not a folder")
    audit = InitAudit(in_the_way, verbose=0)
    plain = weights_after()
    with pytest.warns(UserWarning, match="writes no log") as caught:
        watched = weights_after(audit)
    (warned,) = [str(warning.message) for warning in caught if "InitAudit" in str(warning.message)]
    assert str(in_the_way) in warned
    assert len(audit.reports) == 4
    assert_same_training(plain, watched)


def test_nan_in_the_data_is_a_finding_that_blames_the_data():
    x = X.copy()
    x[3, 2] = np.nan
    audit = InitAudit(False, verbose=0, on_finding="silent")
    fit(model_of(), audit, x=x, shuffle=False)
    finding = audit.reports[0].findings[0]
    assert finding.rule == "non-finite"
    assert "input" in finding.message or "data" in finding.message


def test_an_empty_data_set_ends_as_it_does_without_the_audit():
    def outcome(*callbacks):
        try:
            return fit(model_of(), *callbacks, x=X[:0], y=LABELS[:0]).history
        except Exception as error:
            return type(error), str(error)

    audit = InitAudit(False, verbose=0)
    assert outcome() == outcome(audit)
    assert audit.reports == []


@pytest.mark.parametrize("samples", [1, 2, 17])
def test_few_samples(samples):
    audit = InitAudit(False, verbose=0, on_finding="silent")
    assert_same_training(
        weights_after(x=X[:samples], y=LABELS[:samples]), weights_after(audit, x=X[:samples], y=LABELS[:samples])
    )
    assert audit.reports[0].snapshot.batch_size == min(samples, 16)


def test_integer_inputs():
    audit = InitAudit(False, verbose=0, on_finding="silent")
    x = RNG.integers(-2, 3, (64, 6))
    assert_same_training(weights_after(x=x), weights_after(audit, x=x))
    assert audit.reports


def test_data_given_to_the_callback_is_the_one_that_is_audited():
    audit = InitAudit(False, data=(3 * X[:5], LABELS[:5]), verbose=0, on_finding="silent")
    assert_same_training(weights_after(), weights_after(audit))
    snapshot = audit.snapshots[0]
    assert snapshot.batch_size == 5
    rms = float(np.sqrt(np.mean(np.square(3 * X[:5]))))
    assert snapshot["(input)"].activation_rms == pytest.approx(rms, rel=1e-5)


@pytest.mark.parametrize(
    ("where", "error", "first"),
    [
        ("on_train_begin", KeyboardInterrupt(), False),
        ("on_train_batch_begin", KeyboardInterrupt(), False),
        ("on_train_batch_begin", RuntimeError("elsewhere"), True),
        ("on_train_batch_end", KeyboardInterrupt(), True),
        ("on_train_batch_end", RuntimeError("elsewhere"), False),
    ],
)
def test_an_interrupted_fit_leaves_nothing_behind_and_can_be_fitted_again(where, error, first):
    def interrupt(self, *args, **kwargs):
        raise error

    interrupting = type("Interrupting", (keras.callbacks.Callback,), {where: interrupt})()
    audit = InitAudit(False, verbose=0)
    model = model_of()
    with pytest.raises(type(error)):
        fit(model, *([interrupting, audit] if first else [audit, interrupting]))
    fit(model, InitAudit(False, verbose=0))
    assert not stands_in(model)


def test_an_exception_in_the_data_is_the_users_and_leaves_nothing_behind():
    def batches():
        yield X[:8], LABELS[:8]
        raise ValueError("the disk is gone")

    model = model_of()
    with pytest.raises(Exception, match="the disk is gone"):
        fit(model, InitAudit(False, verbose=0), x=batches(), y=None, steps_per_epoch=3, batch_size=None)
    assert not stands_in(model)


# Neighbours


def test_beside_the_callbacks_of_keras(tmp_path):
    def neighbours(folder):
        return [
            keras.callbacks.TensorBoard(folder / "logs", histogram_freq=1),
            keras.callbacks.ModelCheckpoint(folder / "model.keras"),
            keras.callbacks.BackupAndRestore(folder / "backup"),
            keras.callbacks.EarlyStopping("loss", patience=1),
            keras.callbacks.LearningRateScheduler(lambda epoch, rate: rate * 0.9),
            keras.callbacks.TerminateOnNaN(),
        ]

    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    plain = weights_after(*neighbours(tmp_path / "a"))
    watched = weights_after(InitAudit(tmp_path / "b" / "logs", verbose=0), *neighbours(tmp_path / "b"))
    assert_same_training(plain, watched)
    assert sorted(p.name for p in (tmp_path / "b" / "logs").iterdir()) == ["initaudit", "train"]


def test_swapped_ema_weights():
    def trained(*callbacks):
        model = model_of(optimizer=keras.optimizers.Adam(use_ema=True))
        return fit(model, *callbacks, keras.callbacks.SwapEMAWeights(swap_on_epoch=True)).history, model.get_weights()

    plain, watched = trained(), trained(InitAudit(False, verbose=0))
    assert plain[0] == watched[0]
    for a, b in zip(plain[1], watched[1], strict=True):
        np.testing.assert_array_equal(a, b)


def test_two_audits_at_once(tmp_path):
    audits = [InitAudit(tmp_path, verbose=0), InitAudit(tmp_path, verbose=0, schedule=2)]
    assert_same_training(weights_after(), weights_after(*audits))
    assert [report.step for report in audits[0].reports] == [0, 1, 2, 5]
    assert [report.step for report in audits[1].reports] == [0, 2, 4, 6, 8]
    runs = sorted(tmp_path.iterdir())
    assert len(runs) == 2, "two writers in one folder lose data"


def test_a_second_fit_goes_on_and_a_new_callback_begins_a_run(tmp_path):
    model, audit = model_of(), InitAudit(tmp_path, verbose=0, on_finding="silent")
    fit(model, audit)
    fit(model, audit)
    assert [report.step for report in audit.reports] == [0, 1, 2, 5, 10]
    assert [snapshot.step for snapshot in read(tmp_path / "initaudit")] == [0, 1, 2, 5, 10]
    fit(model, InitAudit(tmp_path, verbose=0, on_finding="silent"))
    assert len(list(tmp_path.iterdir())) == 2


def test_a_resumed_training_is_not_mistaken_for_an_initialization():
    model = model_of()
    fit(model)
    audit = InitAudit(False, verbose=0, on_finding="silent")
    fit(model, audit)
    assert [report.step for report in audit.reports] == [8, 10]
    assert "after 8 updates" in str(audit.reports[0])


def test_a_backend_without_an_engine_is_refused_with_the_remedy(monkeypatch):
    monkeypatch.setattr(keras.backend, "backend", lambda: "numpy")
    with pytest.raises(RuntimeError, match="KERAS_BACKEND"):
        InitAudit()


def test_a_second_fit_after_compiling_again_sees_the_new_loss():
    model, audit = model_of(), InitAudit(False, [1, 9], verbose=0, on_finding="silent")
    fit(model, audit)
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(), loss_weights=[7.0])
    fit(model, audit)
    assert audit.reports[-1].step == 9
    assert audit.reports[-1].snapshot.optimizer == "SGD"
    assert audit.reports[-1].loss > 4 * audit.reports[0].loss


def test_train_on_batch_is_unharmed():
    def trained(*callbacks):
        model = model_of()
        fit(model, *callbacks, epochs=1)
        losses = [float(model.train_on_batch(X[:8], LABELS[:8])) for _ in range(3)]
        return losses, model.get_weights()

    plain, watched = trained(), trained(InitAudit(False, verbose=0))
    assert plain[0] == watched[0]


def test_the_model_can_be_saved_cloned_and_pickled_while_it_trains(tmp_path):
    class Copying(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            self.model.save(tmp_path / "m.keras")
            keras.models.clone_model(self.model)
            pickle.loads(pickle.dumps(self.model))

    audit = InitAudit(False, verbose=0)
    plain = weights_after(Copying(), steps_per_epoch=1, epochs=1)
    assert_same_training(plain, weights_after(audit, Copying(), steps_per_epoch=1, epochs=1))
    loaded = keras.models.load_model(tmp_path / "m.keras")
    for a, b in zip(loaded.get_weights(), plain[0], strict=False):
        np.testing.assert_array_equal(a, b)


def test_a_new_model_begins_anew():
    audit = InitAudit(False, verbose=0, on_finding="silent")
    fit(model_of("zeros"), audit)
    assert audit.reports[0].verdict == "bad"
    fit(model_of(depth=3), audit)
    assert [report.step for report in audit.reports] == [0, 1, 2, 5]
    assert audit.reports[0].verdict == "healthy"
