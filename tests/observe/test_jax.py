"""What is peculiar to JAX: the state beside the model, what a jaxpr says, and that TensorFlow is not needed."""

import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers, ops

from keras_initaudit import BadInitializationError, InitAudit
from keras_initaudit.observe.engines import engine

jax = pytest.importorskip("jax")
pytestmark = pytest.mark.skipif(keras.backend.backend() != "jax", reason="Keras runs on another backend")

RNG = np.random.default_rng(0)
X = RNG.normal(size=(32, 6)).astype("float32")
Y = RNG.integers(0, 3, 32)


def network(**options):
    """Its kernels are too small: something is found before the first update."""
    keras.utils.set_random_seed(1)
    small = keras.initializers.RandomNormal(stddev=0.01)
    hidden = [layers.Dense(8, "relu", kernel_initializer=small) for _ in range(4)]
    model = keras.Sequential([keras.Input((6,)), *hidden, layers.Dense(3, "softmax")])
    model.compile("adam", "sparse_categorical_crossentropy", **options)
    return model


def values(model):
    return [np.asarray(v.value) for v in (*model.variables, *model.optimizer.variables)]


def fit(model, *callbacks, **options):
    return model.fit(X, Y, batch_size=8, shuffle=False, verbose=0, callbacks=list(callbacks), **options)


def audit(on_finding="silent", **options):
    return InitAudit(False, on_finding=on_finding, verbose=0, **{"trial": 0, "schedule": [0, 1, 2]} | options)


# The state beside the model


def interrupt(report):
    raise KeyboardInterrupt


@pytest.mark.parametrize(("on_finding", "error"), [(interrupt, KeyboardInterrupt), ("raise", BadInitializationError)])
def test_what_is_raised_before_the_first_update_leaves_the_model_as_it_was(on_finding, error):
    model = network()
    before = [np.asarray(v.value) for v in model.variables]
    with pytest.raises(error):
        fit(model, audit(on_finding))
    for a, b in zip(before, model.variables, strict=True):
        np.testing.assert_array_equal(a, b.value)
    assert int(model.optimizer.iterations) == 0
    fit(model)
    assert int(model.optimizer.iterations) == 4


def test_what_is_raised_at_a_later_audit_leaves_the_model_as_it_was_then():
    class Stop(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if batch == 1:
                raise KeyboardInterrupt

    plain, watched = network(), network()
    for model, callbacks in ((plain, [Stop()]), (watched, [audit(), Stop()])):
        with pytest.raises(KeyboardInterrupt):
            fit(model, *callbacks)
    assert int(watched.optimizer.iterations) == 2
    for a, b in zip(values(plain), values(watched), strict=True):
        np.testing.assert_array_equal(a, b)


def test_code_of_ones_own_may_ask_for_the_model_and_change_it():
    """Keras gives the variables their values then, in the midst of an audit."""
    asked = []

    def change(report):
        bias = callback.model.layers[-1].bias
        bias.assign(bias + 1.0)
        asked.append(report.step)

    callback = audit(change, schedule=[0])
    model = network()
    fit(model, callback)
    other = network()
    other.layers[-1].bias.assign(other.layers[-1].bias + 1.0)
    fit(other)
    assert asked == [0]
    for a, b in zip(values(model), values(other), strict=True):
        np.testing.assert_array_equal(a, b)


class Counting(keras.metrics.SparseCategoricalAccuracy):
    """Counts the traces of the step of `fit`: no shadow step has metrics."""

    traces = 0

    def update_state(self, *args, **kwargs):
        Counting.traces += 1
        return super().update_state(*args, **kwargs)


def test_a_trial_runs_the_function_that_fit_has_compiled_and_traces_nothing_more():
    counted, trained = [], []
    for most in (0, 40):
        model, callback, Counting.traces = network(metrics=[Counting()]), audit(schedule=[0], trial=most), 0
        fit(model, callback)
        counted.append(Counting.traces)
        trained.append(values(model))
    (trial,) = callback.reports[0].trials
    assert trial.as_is is not None
    assert counted[0] == counted[1] > 0
    for a, b in zip(*trained, strict=True):
        np.testing.assert_array_equal(a, b)


# What a jaxpr says


def facts_of(function, *weights, x=None):
    """The facts of a forward pass; `function` is given the frame, a tap, and the inputs."""

    class Held(layers.Layer):
        pass

    model = Held()
    for weight in weights:
        model._track_variable(weight)

    def forward(frame, inputs):
        def tap(tensor, label):
            return frame.tap(tensor, lambda dy: None, label)

        function(tap, inputs)

    return engine().follow(model, X if x is None else x, forward)


def weight(*shape):
    return keras.Variable(RNG.normal(size=shape).astype("float32"))


def test_what_flows_where():
    def forward(tap, x):
        a = tap(x * 2.0, 0)
        b = tap(ops.relu(a), 1)
        return tap(ops.where(b > 0.0, a, 0.0) + b, 2)

    facts = facts_of(forward)
    assert facts.flows([0]) == {0: (-1,), 1: (0,), 2: (0, 1)}
    assert facts.activations() == {0: "relu"}
    assert facts.sums() == [({0, 1}, {1})]


def test_what_a_weight_is_for():
    kernel, added, table, places = weight(6, 6), weight(6), weight(5, 6), weight(3, 6)

    def forward(tap, x):
        x = tap(ops.matmul(x, kernel) + added, 0)
        found = ops.take(table, ops.cast(ops.argmax(x, -1), "int32") % 5, axis=0)
        return tap(x + found + ops.take(places, np.zeros(32, "int32"), axis=0), 1)

    uses = facts_of(forward, kernel, added, table, places).uses([kernel, added, table, places])
    assert uses == {id(kernel): "kernel", id(added): "other", id(table): "table", id(places): "other"}


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (lambda x, table: ops.take(table, x, axis=0), True),
        (lambda x, table: ops.one_hot(x, 5), True),
        (lambda x, table: ops.take(table, x, axis=0) * ops.cast(x, "float32")[:, None], False),
        (lambda x, table: ops.cast(x > 2, "float32"), False),
    ],
)
def test_what_is_only_looked_up(function, expected):
    table = weight(5, 6)
    x = RNG.integers(0, 5, 32).astype("int32")
    facts = facts_of(lambda tap, x: tap(function(x, table), 0), table, x=x)
    assert facts.looked_up(0) is expected


class ReadsNumbers(keras.Model):
    """Its step runs eagerly, and cannot be traced: no tracer has a number."""

    def train_step(self, state, data):
        x, y = data

        def loss_of(trainable, fixed):
            predicted, fixed = self.stateless_call(trainable, fixed, x, training=True)
            return ops.mean(keras.losses.sparse_categorical_crossentropy(y, predicted)), fixed

        (loss, fixed), gradients = jax.value_and_grad(loss_of, has_aux=True)(state[0], state[1])
        trainable, optimizer = self.optimizer.stateless_apply(state[2], gradients, state[0])
        return {"loss": float(loss)}, (trainable, fixed, optimizer, state[3])


def test_an_eager_step_that_cannot_be_traced_is_observed():
    inputs = keras.Input((6,))
    outputs = layers.Dense(3, "softmax", name="b")(layers.Dense(4, "relu", name="a")(inputs))
    model = ReadsNumbers(inputs, outputs)
    model.compile("adam", run_eagerly=True)
    callback = audit(schedule=[0])
    fit(model, callback)
    (report,) = callback.reports
    assert {row.path: row.inputs for row in report.snapshot.layers}["b"] == ("a",)
    assert report.snapshot["a"].gradient_rms > 0.0


# On several devices

ON_FOUR_DEVICES = """
import os
os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=4"
import keras, numpy as np
keras.distribution.set_distribution(keras.distribution.DataParallel(auto_shard_dataset=False))
import test_jax

def trained(*callbacks):
    model = test_jax.network()
    test_jax.fit(model, *callbacks)
    return test_jax.values(model)

callback = test_jax.audit(trial=30)
for a, b in zip(trained(), trained(callback), strict=True):
    np.testing.assert_array_equal(a, b)
(trial,) = callback.reports[0].trials
devices = test_jax.network().layers[0].kernel.value.sharding.device_set
print(len(devices), len(callback.reports), len(trial.as_is.losses))
"""


def test_data_parallel_training_is_audited_and_bit_identical():
    done = run(ON_FOUR_DEVICES)
    devices, reports, updates = map(int, done.stdout.splitlines()[-1].split())
    assert (devices, reports) == (4, 3)
    assert updates > 2


# Without TensorFlow

PROGRAM = """
import sys
sys.modules["tensorflow"] = None  # whoever imports it fails
import numpy as np, keras
from keras_initaudit import InitAudit, audit, initialize
from keras_initaudit.cli import main

model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, "relu"), keras.layers.Dense(1)])
model.compile("sgd", "mse")
x, y = np.eye(8, 4, dtype="float32"), np.arange(8.0).reshape(8, 1)
callback = InitAudit(sys.argv[1], verbose=0)
model.fit(x, y, verbose=0, callbacks=[callback])
initialize(model, x=x)
print(len(audit(model, x, y).snapshot.layers), callback.reports[0].step)
sys.exit(main(["report", sys.argv[1]]))
"""


def run(program, *arguments):
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[2]), str(Path(__file__).parent)])},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode in (0, 1), done.stderr[-3000:]
    return done


def test_tensorflow_is_not_needed(tmp_path):
    done = run(PROGRAM, tmp_path)
    assert "4 0" in done.stdout.splitlines(), done.stderr[-3000:]
    assert "Init Audit: " in done.stdout
    assert list(tmp_path.rglob("events.out.tfevents.*"))
