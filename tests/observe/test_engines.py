"""The protocol of the engines: who fulfils it, what runs within a trace and what outside, what engines may do."""

import contextlib
import dataclasses
import importlib

import keras
import numpy as np
import pytest
from protocols import differences, everything

from keras_initaudit import InitAudit, callback
from keras_initaudit.observe import engines, probe
from keras_initaudit.observe.batch import first_samples
from keras_initaudit.observe.engines import eager

BACKEND = keras.backend.backend()
engine = engines.engine()
frame, step = (importlib.import_module(f"{engine.__name__}.{name}") for name in ("frame", "step"))
PLACES = (frame, step, eager)
PARTS = {
    "tensorflow": [
        ("Frame", "GraphFrame"),
        ("Facts", "_GraphFacts"),
        ("Facts", "EagerFacts"),
        ("Runner", "GraphRunner"),
    ],
    "jax": [("Frame", "JaxFrame"), ("Facts", "JaxprFacts"), ("Facts", "EagerFacts"), ("Runner", "JaxRunner")],
}[BACKEND]
FRAME, FACTS = (getattr(frame, name) for _, name in PARTS[:2])
of_tensorflow = pytest.mark.skipif(BACKEND != "tensorflow", reason="of the taps of TensorFlow")

RNG = np.random.default_rng(0)
X = RNG.normal(size=(16, 5, 4)).astype("float32")
Y = RNG.integers(0, 3, 16)


# Who fulfils it


FOUND = [
    (engines.Engine, engine),
    *((getattr(engines, protocol), next(vars(p)[name] for p in PLACES if name in vars(p))) for protocol, name in PARTS),
]


@pytest.mark.parametrize(("protocol", "part"), FOUND, ids=lambda part: part.__name__)
def test_an_engine_has_the_functions_of_the_protocol(protocol, part):
    assert not list(differences(protocol, part))


def test_a_function_that_is_missing_or_another_is_found():
    class Other(FRAME):
        def tap(self, x, seen):
            return x

        entering = None

    assert set(differences(engines.Frame, Other)) == {"tap", "entering"}


# Within a trace, and outside


def snapshot(model=None):
    keras.utils.set_random_seed(3)
    model = model or everything()
    return probe.Probe(model, first_samples((X, Y), None)).measure(0)


def in_a_trace():
    if BACKEND == "jax":
        import jax

        return isinstance(keras.ops.ones(()), jax.core.Tracer)
    import tensorflow as tf

    return not tf.executing_eagerly()


def test_tensors_are_touched_within_the_trace_and_facts_asked_outside_of_it(monkeypatch):
    where = []
    for name in ("samples_of", "rows_of"):
        function = getattr(probe, name)
        monkeypatch.setattr(probe, name, lambda *args, f=function, n=name: where.append((n, in_a_trace())) or f(*args))
    asked = FACTS.flows
    monkeypatch.setattr(FACTS, "flows", lambda *args: where.append(("flows", in_a_trace())) or asked(*args))
    snapshot()
    assert where[-3:] == [("samples_of", True), ("rows_of", False), ("flows", False)]


def assert_same(left, right):
    assert left.layers == right.layers
    for path, a, b in zip((row.path for row in left.layers), left.statistics, right.statistics, strict=True):
        for (name, x), y in zip(dataclasses.asdict(a).items(), dataclasses.asdict(b).values(), strict=True):
            assert x == y or (x != x and y != y), (path, name, x, y)
    assert left.loss == right.loss


def copied(self, x):
    with self.unrecorded():
        return keras.ops.copy(x)


@of_tensorflow
def test_what_goes_on_and_what_is_kept_may_be_two_tensors(monkeypatch):
    """As where the kept one has lost its tracers, or is a copy that nobody writes into any more."""
    expected = snapshot()
    assert any(stats.entering_rms == stats.entering_rms for stats in expected.statistics)
    monkeypatch.setattr(FRAME, "snapshot", copied)
    monkeypatch.setattr(FRAME, "entering", lambda self, x: keras.ops.copy(x))
    assert_same(snapshot(), expected)


def test_a_kept_tensor_that_is_another_one_would_be_seen(monkeypatch):
    expected = snapshot()
    kept = FRAME.snapshot
    monkeypatch.setattr(FRAME, "snapshot", lambda self, x: 2.0 * kept(self, x))
    with pytest.raises(AssertionError):
        assert_same(snapshot(), expected)


def test_what_enters_an_activation_reaches_the_tap_of_its_output(monkeypatch):
    entered, tap, entering = {}, FRAME.tap, FRAME.entering
    given = []

    def watched(self, x, seen, label=None, arguments=(), entered=None, **others):
        if label is not None:
            given.append((label, entered))
        return tap(self, x, seen, label, arguments, entered, **others)

    monkeypatch.setattr(FRAME, "tap", watched)
    monkeypatch.setattr(FRAME, "entering", lambda self, x: entered.setdefault(id(x), entering(self, x)))
    shot = snapshot()
    paths = [row.path for row in shot.layers if row.role == "layer"]
    with_entry = {paths[label] for label, x in given if x is not None}
    assert with_entry == {"first", "tanh", "last"}
    assert [label for label, _ in given][-len(paths) :] == list(range(len(paths)))


def test_zeros_that_nothing_flows_into_are_no_gradient(monkeypatch):
    model = everything()
    kernel = model.get_layer("plain").kernel
    assert snapshot(model)["plain"].gradient_rms > 0.0
    monkeypatch.setattr(FACTS, "unreached", lambda self: {id(kernel), id(model.get_layer("plain").bias)})
    shot = snapshot(model)
    assert np.isnan(shot["plain"].gradient_rms)
    reached = {row.path: row.reached for row in shot.layers if row.role == "layer"}
    assert (reached["plain"], reached["last"]) == (False, True)


# In the middle of an epoch


def test_variables_are_read_where_they_are_attached(monkeypatch):
    inside, read, attaching = [], [], engine.attached

    @contextlib.contextmanager
    def attached(model):
        inside.append(model)
        try:
            with attaching(model):
                yield
        finally:
            inside.pop()

    def reading(owner, name):
        function = getattr(owner, name)
        monkeypatch.setattr(
            owner, name, lambda *args, **kwargs: read.append((name, len(inside))) or function(*args, **kwargs)
        )

    monkeypatch.setattr(engine, "attached", attached)
    reading(callback, "updates_made")
    for name in ("mark", "measure", "duplicates"):
        reading(probe.Probe, name)
    everything().fit(X, Y, batch_size=4, verbose=0, callbacks=[InitAudit(False, verbose=0, on_finding="silent")])
    assert {name for name, _ in read} == {"updates_made", "mark", "measure", "duplicates"}
    assert all(depth == 1 for _, depth in read)
    assert not inside


# The first batch


def test_the_first_batch_is_shown_once_and_the_stand_in_is_gone():
    model, seen = everything(), []

    class Begin(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            if not seen:
                engine.stand_in(model, seen.append)

    model.fit(X, Y, batch_size=4, shuffle=False, verbose=0, callbacks=[Begin()])
    (call,) = seen
    np.testing.assert_array_equal(call.batch[0], X[:4])
    assert call.runs_python is False
    assert call.train is model.train_function
    if BACKEND == "tensorflow":
        assert type(call.iterator.element_spec) is type(call.batch)
    assert "make_train_function" not in vars(model)
    assert float(model.optimizer.iterations) == 4.0


def test_a_stand_in_is_undone_where_what_it_shows_the_batch_to_raises():
    model = everything()

    def fails(call):
        raise KeyboardInterrupt

    class Begin(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            engine.stand_in(model, fails)

    with pytest.raises(KeyboardInterrupt):
        model.fit(X, Y, batch_size=4, verbose=0, callbacks=[Begin()])
    assert "make_train_function" not in vars(model)
    assert float(model.optimizer.iterations) == 0.0
    model.fit(X, Y, batch_size=4, verbose=0)
    assert float(model.optimizer.iterations) == 4.0
