"""One `InitAudit` and several fits: copied, given another model, interrupted, given a model of Keras 2."""

import copy
import datetime
import pickle
import warnings

import joblib
import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from sklearn.base import clone

import keras_initaudit.callback as callback_module
from keras_initaudit import BadInitializationError, InitAudit, Thresholds, audit, initialize
from keras_initaudit.report import Report
from keras_initaudit.tensorboard.summary import read_runs

RNG = np.random.default_rng(0)
X = RNG.normal(size=(64, 6)).astype("float32")
LABELS = RNG.integers(0, 3, 64)


def model_of(kernel="glorot_uniform", depth=2, **compile_with):
    keras.utils.set_random_seed(5)
    hidden = [layers.Dense(16, "relu", kernel_initializer=kernel, name=f"hidden_{i}") for i in range(depth)]
    model = keras.Sequential([keras.Input((6,)), *hidden, layers.Dense(3, "softmax", name="head")])
    model.compile(**{"optimizer": "adam", "loss": "sparse_categorical_crossentropy"} | compile_with)
    return model


def fit(model, *callbacks, **options):
    return model.fit(X, LABELS, callbacks=list(callbacks), **{"batch_size": 16, "verbose": 0} | options).history


def steps(callback):
    return [report.step for report in callback.reports]


# Copies


def at_multiples_of_three(step):
    return step % 3 == 0


def pickled(callback):
    return pickle.loads(pickle.dumps(callback))


def through_a_file(callback, path):
    joblib.dump(callback, path / "callback.joblib")
    return joblib.load(path / "callback.joblib")


COPIES = {
    "copy": lambda callback, path: copy.copy(callback),
    "deepcopy": lambda callback, path: copy.deepcopy(callback),
    "pickle": lambda callback, path: pickled(callback),
    "joblib": through_a_file,
    "clone": lambda callback, path: clone(callback, safe=False),
}
SCHEDULES = {
    "none": (lambda: None, [0, 1, 2]),
    "integer": (lambda: 2, [0, 2, 4]),
    "list": (lambda: [0, 3], [0, 3]),
    "generator": (lambda: (step for step in (1, 4)), [0, 1, 4]),
    "function": (lambda: at_multiples_of_three, [0, 3]),
}


@pytest.mark.parametrize("how", COPIES)
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_fresh_one_can_be_copied_whatever_its_schedule(how, schedule, tmp_path):
    made, _ = SCHEDULES[schedule]
    callback = InitAudit(tmp_path, made(), (X, LABELS), 16, False, "stop", Thresholds(), 2, ["duplicate-kernels"])
    again = COPIES[how](callback, tmp_path)
    assert again is not callback
    assert vars(again).keys() == vars(callback).keys()
    for name in ("log_dir", "schedule", "probe_size", "histograms", "on_finding", "thresholds", "verbose", "ignore"):
        assert getattr(again, name) == getattr(callback, name), name
    np.testing.assert_array_equal(again.data[0], X)


@pytest.mark.parametrize("how", ["copy", "deepcopy", "clone"])
def test_a_copy_reads_the_same_data(how, tmp_path):
    data = tf.data.Dataset.from_tensor_slices((X, LABELS)).batch(8)
    again = COPIES[how](InitAudit(False, [0], data, verbose=0, on_finding="silent"), tmp_path)
    assert again.data is data
    fit(model_of(), again)
    assert again.reports[0].snapshot.batch_size == 8


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_copy_audits_at_the_steps_of_the_schedule(schedule):
    made, expected = SCHEDULES[schedule]
    callback = pickled(InitAudit(False, made(), verbose=0, on_finding="silent"))
    fit(model_of(), callback)
    assert steps(callback) == expected


@pytest.fixture(scope="module")
def used(tmp_path_factory):
    callback = InitAudit(tmp_path_factory.mktemp("used"), [0, 3], verbose=0, on_finding="silent")
    fit(model_of("zeros"), callback)
    return callback


@pytest.mark.parametrize("how", COPIES)
def test_a_used_one_keeps_what_it_found_and_neither_model_nor_log(how, used, tmp_path):
    again = COPIES[how](used, tmp_path)
    assert [report.to_json() for report in again.reports] == [report.to_json() for report in used.reports]
    assert again.findings == used.findings
    assert len(again.findings) > 0
    assert [snapshot.step for snapshot in again.snapshots] == [0, 3]
    assert again.model is None
    held = [type(value).__name__ for value in again.__getstate__().values()]
    assert not {"Sequential", "Probe", "Writer"} & set(held)


def test_a_copy_starts_anew_at_its_next_fit_and_leaves_the_other_alone(tmp_path):
    model = model_of()
    first = InitAudit(tmp_path, [0, 2, 6], verbose=0, on_finding="silent")
    fit(model, first)
    second = copy.copy(first)
    fit(model_of("zeros"), second)
    assert (steps(first), steps(second)) == ([0, 2], [0, 2])
    assert (first.reports[0].verdict, second.reports[0].verdict) == ("healthy", "bad")
    fit(model, first)
    assert (steps(first), steps(second)) == ([0, 2, 6], [0, 2])
    runs = {run.name: [snapshot.step for snapshot in run.snapshots] for run in read_runs(tmp_path)}
    assert runs == {"initaudit": [0, 2, 6], "initaudit-2": [0, 2]}


def test_what_a_subclass_adds_is_copied_too():
    callback = Named(False)
    callback.name = "mine"
    assert pickled(callback).name == "mine"


class Named(InitAudit):
    pass


def test_the_error_can_be_sent_to_another_process():
    report = audit(model_of("zeros"), X, LABELS)
    error = pickled(BadInitializationError(report))
    assert error.report.to_json() == report.to_json()
    assert str(error) == str(BadInitializationError(report))


# Another model


@pytest.mark.parametrize("clear", [False, True])
def test_each_model_of_a_cross_validation_has_a_run_of_its_own(clear, tmp_path):
    callback = InitAudit(tmp_path, [0, 1], verbose=0, on_finding="silent")
    for kernel in ("he_normal", "zeros", "glorot_uniform"):
        if clear:
            keras.backend.clear_session()
        fit(model_of(kernel), callback)
        assert steps(callback) == [0, 1]
        assert callback.log_dir == tmp_path, "the argument stays what it was"
    runs = read_runs(tmp_path)
    assert [run.name for run in runs] == ["initaudit", "initaudit-2", "initaudit-3"]
    assert [[snapshot.step for snapshot in run.snapshots] for run in runs] == [[0, 1]] * 3
    assert [bool(run.findings[0]) for run in runs] == [False, True, False]


def test_without_log_dir_no_two_runs_share_a_folder(tmp_path, monkeypatch, capsys):
    class Frozen(datetime.datetime):
        @classmethod
        def now(cls, tz=None):
            return cls(2026, 1, 2, 3, 4, 5)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(callback_module.datetime, "datetime", Frozen)
    callback = InitAudit(None, [0, 1], on_finding="warn")
    fit(model_of(), callback)
    fit(model_of(), callback)
    fit(model_of(), InitAudit(None, [0, 1], verbose=0))
    assert callback.log_dir is None
    names = [run.name for run in read_runs(tmp_path / "logs")]
    assert names == [f"20260102-030405{end}/initaudit" for end in ("", "-2", "-3")]
    printed = capsys.readouterr().out
    assert "tensorboard --logdir logs/20260102-030405\n" in printed
    assert "tensorboard --logdir logs/20260102-030405-2\n" in printed


def test_runs_are_listed_in_the_order_of_their_numbers(tmp_path):
    callback = InitAudit(tmp_path, [0], verbose=0, on_finding="silent")
    fit(model_of(), callback, steps_per_epoch=1)
    (path,) = (tmp_path / "initaudit").iterdir()
    for number in (2, 10):
        (tmp_path / f"initaudit-{number}").mkdir()
        (tmp_path / f"initaudit-{number}" / path.name).write_bytes(path.read_bytes())
    assert [run.name for run in read_runs(tmp_path)] == ["initaudit", "initaudit-2", "initaudit-10"]


def test_a_folder_that_cannot_be_written_is_tried_again_for_the_next_model(tmp_path):
    folder = tmp_path / "logs"
    folder.write_text("in the way")
    callback = InitAudit(folder, [0], verbose=0, on_finding="silent")
    with pytest.warns(UserWarning, match="writes no log"):
        fit(model_of(), callback)
    assert callback.log_dir == folder
    folder.unlink()
    fit(model_of(), callback)
    assert [run.name for run in read_runs(folder)] == ["initaudit"]


# Interrupts between the beginning of a batch and the train function


class Interrupting(keras.callbacks.Callback):
    """Raises once, at the first batch."""

    def __init__(self, error=KeyboardInterrupt):
        super().__init__()
        self.error = error

    def on_train_batch_begin(self, batch, logs=None):
        if self.error is not None:
            error, self.error = self.error, None
            raise error


def after_an_interrupt(callbacks, then):
    model = model_of()
    with pytest.raises(KeyboardInterrupt):
        fit(model, *callbacks, Interrupting())
    result = then(model)
    state = [np.asarray(variable.value) for variable in (*model.variables, *model.optimizer.variables)]
    return result, state, sorted(vars(model)), model


def of_no_audit(model):
    """Whether nothing of the package is left on the model."""
    return not [name for name, value in vars(model).items() if "keras_initaudit" in getattr(value, "__module__", "")]


def fit_again(model):
    return fit(model, epochs=2)


def train_on_a_batch(model):
    return [float(model.train_on_batch(X[:8], LABELS[:8])) for _ in range(3)]


def compile_and_fit(model):
    model.compile("sgd", "sparse_categorical_crossentropy", loss_weights=[3.0])
    return fit(model)


@pytest.mark.parametrize("then", [fit_again, train_on_a_batch, compile_and_fit])
@pytest.mark.parametrize("count", [1, 2])
def test_what_comes_after_an_interrupted_fit_is_as_without_the_audit(then, count):
    plain = after_an_interrupt([], then)
    audits = [InitAudit(False, verbose=0) for _ in range(count)]
    watched = after_an_interrupt(audits, then)
    assert [callback.reports for callback in audits] == [[]] * count
    assert plain[0] == watched[0]
    for left, right in zip(plain[1], watched[1], strict=True):
        np.testing.assert_array_equal(left, right)
    assert plain[2] == watched[2]
    assert of_no_audit(watched[3])


def test_the_interrupted_callback_audits_the_next_fit_from_its_first_batch():
    callback = InitAudit(False, [0, 1], verbose=0)
    _, _, _, model = after_an_interrupt([callback], lambda model: fit(model, callback))
    assert steps(callback) == [0, 1]
    assert of_no_audit(model)


def test_an_interrupt_within_the_first_audit_is_made_up_for_at_the_next_fit(monkeypatch):
    def interrupt(*args, **kwargs):
        raise KeyboardInterrupt

    model, callback = model_of(), InitAudit(False, [0, 1], verbose=0)
    with monkeypatch.context() as patch:
        patch.setattr(callback_module.Probe, "measure", interrupt)
        with pytest.raises(KeyboardInterrupt):
            fit(model, callback)
    assert of_no_audit(model)
    fit(model, callback)
    assert steps(callback) == [0, 1]


def test_a_train_function_that_another_callback_makes_is_the_one_that_runs():
    made = []

    class Unfreezing(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            if batch == 0:
                made.append(self.model.make_train_function(force=True) or self.model.train_function)

    model, callback = model_of(), InitAudit(False, [0, 2], verbose=0)
    fit(model, callback, Unfreezing())
    assert model.train_function is made[0]
    assert steps(callback) == [1, 2], "the first batch has passed unseen"
    assert of_no_audit(model)


# A person's own function


@pytest.mark.parametrize("error", [ValueError("pruned"), KeyboardInterrupt(), SystemExit(3)])
@pytest.mark.parametrize("at", [0, 2])
def test_what_a_function_raises_reaches_its_owner_and_the_model_is_in_order(error, at):
    def prune(report):
        raise error

    # From zeros it is bad at once; a step of 1e20 is seen after the first update.
    model = model_of("glorot_uniform" if at else "zeros", optimizer=keras.optimizers.SGD(1e20 if at else 0.01))
    callback = InitAudit(False, [0, 2], on_finding=prune, verbose=0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(type(error)) as raised:
            fit(model, callback)
    assert raised.value is error
    assert steps(callback)[-1] == at
    assert int(model.optimizer.iterations.numpy()) == at
    assert of_no_audit(model)
    fit(model)
    assert int(model.optimizer.iterations.numpy()) == at + 4


def test_a_fault_in_what_is_shown_does_not_keep_a_bad_start_from_being_raised(monkeypatch):
    def closed(*args, **kwargs):
        raise BrokenPipeError("nobody reads")

    monkeypatch.setattr("builtins.print", closed)
    with pytest.warns(UserWarning, match="nobody reads"), pytest.raises(BadInitializationError):
        fit(model_of("zeros"), InitAudit(False, on_finding="raise"))


# Models of Keras 2


class Keras2Model:
    """What a model of Keras 2 looks like from outside: `tf_keras` itself is no part of the tests."""

    __module__ = "tf_keras.src.engine.training"
    optimizer = None

    def train_step(self, data):
        raise AssertionError("a model of Keras 2 is not run")


class Own(Keras2Model):
    """A person's own subclass."""


@pytest.mark.parametrize("use", [lambda model: audit(model, X, LABELS), initialize])
@pytest.mark.parametrize("kind", [Keras2Model, Own])
def test_a_model_of_keras_2_is_refused_by_its_name(use, kind):
    with pytest.raises(TypeError, match=r"model is a Keras 2 model.*`import keras` in place of `tf_keras`"):
        use(kind())


def test_a_fit_of_keras_2_is_one_warning_and_goes_on():
    callback = InitAudit(False)
    # What the fit of Keras 2 does with its callbacks, in its order.
    callback.set_model(Own())
    assert not callback._implements_train_batch_hooks()
    assert not callback._implements_test_batch_hooks()
    assert not callback._implements_predict_batch_hooks()
    with pytest.warns(UserWarning, match="does not audit this fit: model is a Keras 2 model"):
        callback.on_train_begin({})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        callback.on_train_batch_begin(0, {})
        callback.on_train_batch_end(0, {})
        callback.on_train_end({})
    fit(model_of(), callback)
    assert callback.reports[0].step == 0


def test_another_object_is_no_model_of_keras_2():
    with pytest.raises(TypeError, match=r"must be a keras\.Model, got str"):
        audit("model", X)


# Findings that are meant


def test_an_ignored_finding_is_no_news_and_raises_nothing(tmp_path, capsys):
    rules = [finding.rule for finding in audit(model_of("zeros"), X, LABELS).findings]
    assert rules
    callback = InitAudit(tmp_path, [0, 1], on_finding="raise", ignore=rules)
    fit(model_of("zeros"), callback)
    assert callback.findings == []
    assert [report.verdict for report in callback.reports] == ["healthy"] * 2
    assert [finding.rule for finding in callback.reports[0].ignored] == rules
    assert f"ignored bad: {rules[0]}" in capsys.readouterr().out
    assert read_runs(tmp_path)[0].findings == ((), ())
    with pytest.raises(BadInitializationError):
        fit(model_of("zeros"), InitAudit(False, on_finding="raise", verbose=0, ignore=["dead-units:nowhere/*"]))


def test_a_report_can_be_asked_to_raise():
    good, bad = audit(model_of(), X, LABELS), audit(model_of("zeros"), X, LABELS)
    assert good.raise_for_verdict("warning") is good
    with pytest.raises(BadInitializationError, match="symmetric-units") as raised:
        bad.raise_for_verdict()
    assert raised.value.report is bad
    assert isinstance(bad, Report)
