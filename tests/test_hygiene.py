"""What the audit leaves behind: no retrace, no growth, no thread, no open file, no warning of TensorFlow's."""

import gc
import os
import subprocess
import sys
import threading
import warnings
import weakref
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from tensorflow.python.eager import context
from tensorflow.python.framework import ops as tf_ops

from keras_initaudit import InitAudit, audit
from keras_initaudit.observe.batch import first_samples
from keras_initaudit.observe.probe import Probe

RNG = np.random.default_rng(0)
X = RNG.normal(size=(32, 4)).astype("float32")
Y = RNG.normal(size=(32, 1)).astype("float32")


class Counting(layers.Layer):
    """Counts how often it is run as Python: once a trace of whatever it stands in."""

    traces = 0

    def call(self, x):
        Counting.traces += 1
        return x


def small(**options):
    i = keras.Input((4,))
    h = layers.BatchNormalization()(layers.Dense(3, "tanh")(Counting()(i)))
    model = keras.Model(i, layers.Dense(1)(h))
    model.compile("adam", "mse", metrics=["mae"], **options)
    return model


def watching(tmp_path, schedule=1):
    return InitAudit(tmp_path, schedule=schedule, on_finding="silent")


# Traces


@pytest.mark.parametrize(
    "options", [{}, {"jit_compile": False}, {"steps_per_execution": 2}], ids=["auto", "no_jit", "executions"]
)
def test_the_models_own_functions_are_traced_as_often_as_without(options, tmp_path):
    def traces(callbacks):
        model = small(**options)
        Counting.traces = 0
        data = {"x": X, "y": Y, "batch_size": 10, "verbose": 0}  # and a last batch of another size
        model.fit(**data, epochs=2, validation_data=(X, Y), callbacks=callbacks)
        own = model.train_function
        model.fit(**data, epochs=1, callbacks=callbacks)
        assert model.train_function is own
        return Counting.traces

    plain, watched = traces([]), traces([watching(tmp_path, schedule=None)])
    assert plain > 2
    assert watched == plain + 1  # the shadow step's own trace, one for both fits


def test_many_audits_are_one_trace():
    model = small()
    probe = Probe(model, first_samples((X, Y), 16))
    Counting.traces = 0
    kept = set()
    for step in range(5):
        probe.mark()
        probe.measure(step)
        kept.add(probe._sample_kernels)
    assert Counting.traces == 1
    assert kept == {None, probe._sample_kernels}  # none before there is a layout to mark, one from then on


# Growth


def resident():
    """Kilobytes of memory that this process holds now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") // 1024


def test_three_hundred_audits_leave_no_objects_and_no_memory(tmp_path):
    model = small()
    callback = watching(tmp_path)
    model.fit(X, Y, batch_size=16, epochs=5, verbose=0, callbacks=[callback])

    def audits(count):
        model.fit(X, Y, batch_size=16, epochs=count // 2, verbose=0, callbacks=[callback])
        gc.collect()
        return len(gc.get_objects()), resident()

    audits(20)
    before, memory = audits(20)
    reports = len(callback.reports)
    after, grown = audits(300)
    assert len(callback.reports) == reports + 300
    # A report is kept for each audit, its snapshot with it: about fifty objects, two tuples of numbers a row.
    assert (after - before) / 300 < 120
    assert grown - memory < 12_000


def test_the_probe_itself_keeps_nothing():
    model = small()
    probe = Probe(model, first_samples((X, Y), 16))

    def audits(count):
        for step in range(count):
            probe.mark()
            probe.measure(step)
        gc.collect()
        return len(gc.get_objects()), resident()

    audits(20)
    before, memory = audits(20)
    after, grown = audits(300)
    assert abs(after - before) < 30
    assert grown - memory < 3_000


@pytest.mark.slow
def test_a_thousand_audits_of_a_probe_keep_nothing():
    probe = Probe(small(), first_samples((X, Y), 16))
    for step in range(50):
        probe.measure(step)
    gc.collect()
    before, memory = len(gc.get_objects()), resident()
    for step in range(1000):
        probe.mark()
        probe.measure(step)
    gc.collect()
    # One object kept by each audit would make a thousand; what a process gathers by the way makes some hundreds.
    assert abs(len(gc.get_objects()) - before) < 500
    assert resident() - memory < 10_000  # 10 kB an audit, of a snapshot that holds more


def gradients_registered():
    return len(tf_ops.gradient_registry._registry)


def test_several_fits_and_audits_register_no_gradients(tmp_path):
    model = small()
    model.fit(X, Y, batch_size=16, verbose=0)  # Keras's own
    before = gradients_registered()
    for _ in range(3):
        model.fit(X, Y, batch_size=16, verbose=0, callbacks=[watching(tmp_path)])
        audit(model, X, Y)
    assert gradients_registered() == before

    @tf.custom_gradient  # which is what the taps would be otherwise
    def twice(x):
        return 2 * x, lambda dy: 2 * dy

    tf.function(twice)(tf.ones([2]))
    assert gradients_registered() > before


def functions_known():
    return len(context.context().list_function_names())


def test_graphs_and_functions_go_with_their_model(tmp_path):
    def one():
        model = small()
        callback = watching(tmp_path)
        model.fit(X, Y, batch_size=16, verbose=0, callbacks=[callback])
        audit(model, X, Y)
        return weakref.ref(callback._probe._runner._trace.graph), weakref.ref(callback._probe), weakref.ref(callback)

    def plain():
        small().fit(X, Y, batch_size=16, verbose=0)

    def growth(make):
        make()
        keras.backend.clear_session()
        gc.collect()
        before = functions_known()
        for _ in range(2):
            make()
        keras.backend.clear_session()
        gc.collect()
        return functions_known() - before

    assert growth(one) <= growth(plain)
    references = one()
    keras.backend.clear_session()
    gc.collect()
    assert [reference() for reference in references] == [None, None, None]


# Threads and files


def open_files():
    return [str(path.resolve()) for path in Path("/proc/self/fd").iterdir()]


@pytest.mark.parametrize("fails", [False, True])
def test_no_thread_and_no_file_stays_open_after_a_fit(fails, tmp_path):
    small().fit(X, Y, verbose=0)  # TensorFlow's own threads
    threads = set(threading.enumerate())
    model = small()

    class Fault(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if fails:
                raise RuntimeError("a fault of another callback")

    callback = watching(tmp_path)
    try:
        model.fit(X, Y, batch_size=16, epochs=2, verbose=0, callbacks=[callback, Fault()])
    except RuntimeError:
        assert fails
    assert set(threading.enumerate()) == threads
    assert list(tmp_path.rglob("*tfevents*"))
    assert not list(tmp_path.rglob("*.lock"))
    if not fails:  # Keras calls no on_train_end after an exception: the file then closes with the callback
        assert not [name for name in open_files() if str(tmp_path) in name]
    del callback, model
    keras.backend.clear_session()
    gc.collect()
    assert not [name for name in open_files() if str(tmp_path) in name]


# What is printed

_FIT = """
import keras, numpy as np, sys
keras.utils.set_random_seed(0)
from keras import layers
i = keras.Input((6,), dtype="int32")
h = layers.Embedding(20, 8, mask_zero=True)(i)
h = layers.MultiHeadAttention(2, 4)(h, h)
h = layers.Dropout(0.2)(layers.LSTM(4)(h))
model = keras.Model(i, layers.Dense(3, "softmax")(h))
model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
x, y = np.random.randint(0, 20, (40, 6)), np.random.randint(0, 3, 40)
callbacks = []
if sys.argv[1] == "watched":
    from keras_initaudit import InitAudit
    callbacks = [InitAudit(sys.argv[2], schedule=1, on_finding="silent")]
model.fit(x, y, batch_size=16, epochs=2, verbose=0, callbacks=callbacks)
print("done")
"""


def test_nothing_is_printed_that_a_plain_fit_does_not_print(tmp_path):
    def lines(kind):
        done = subprocess.run(
            [sys.executable, "-W", "always::UserWarning", "-c", _FIT, kind, str(tmp_path)],
            capture_output=True,
            text=True,
            check=True,
            env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "1", "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
        )
        assert done.stdout.splitlines()[-1] == "done"
        said = [*done.stdout.splitlines(), *done.stderr.splitlines()]
        # Time, process and source line stand in front of what TensorFlow says.
        return [line.partition("] ")[2] or line for line in said if not line.startswith(("  ", "WARNING: All log"))]

    plain, watched = set(lines("plain")), set(lines("watched"))
    assert watched <= plain, watched - plain


def test_no_python_warning_comes_from_an_audit(tmp_path):
    model = small()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model.fit(X, Y, batch_size=10, epochs=2, verbose=0)
    plain = {str(w.message) for w in caught}
    broken, infinite = small(), small()
    broken.layers[2].kernel.assign(np.full((4, 3), np.nan, "float32"))
    infinite.layers[2].kernel.assign(np.full((4, 3), np.inf, "float32"))
    for watched in (small(), broken, infinite):  # numbers that are not finite are numbers too
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            watched.fit(X, Y, batch_size=10, epochs=2, verbose=0, callbacks=[watching(tmp_path)])
        assert {str(w.message) for w in caught} <= plain
