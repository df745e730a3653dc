"""The engine of PyTorch: who fulfils the protocol, what its operations say, and the names that it needs."""

import keras
import numpy as np
import pytest
from keras import layers

if keras.backend.backend() != "torch":
    pytest.skip("the engine of PyTorch", allow_module_level=True)

import subprocess
import sys

import torch
from names_of_torch import NAMES
from protocols import differences

from keras_initaudit.observe import engines
from keras_initaudit.observe.batch import first_samples
from keras_initaudit.observe.engines import torch as engine
from keras_initaudit.observe.engines.torch import frame, graph, step, training
from keras_initaudit.observe.engines.torch.state import modules_kept, tensors_kept
from keras_initaudit.observe.probe import Probe


@pytest.mark.parametrize(
    ("protocol", "part"),
    [
        (engines.Engine, engine),
        (engines.Frame, frame.TorchFrame),
        (engines.Facts, frame.TorchFacts),
        (engines.Runner, step.TorchRunner),
        (engines.Updates, training.TorchUpdates),
    ],
)
def test_an_engine_has_the_functions_of_the_protocol(protocol, part):
    assert not list(differences(protocol, part))


@pytest.mark.parametrize(("name", "need", "look"), NAMES, ids=[name for name, *_ in NAMES])
def test_a_name_is_there_and_means_what_is_needed(name, need, look):
    assert look(), f"{name}: {need}"


ALONE = """
import sys
import keras, numpy as np
from keras_initaudit import InitAudit, audit, initialize
first = keras.layers.Dense(8, "relu", kernel_initializer="zeros")
model = keras.Sequential([keras.Input((6,)), first, keras.layers.Dense(1)])
model.compile("adam", "mse")
x = np.random.default_rng(0).normal(size=(32, 6)).astype("float32")
report = audit(model, x, x[:, :1])
assert report.verdict == "bad", report
assert report.trials[0].reason is None, report.trials
seen = InitAudit(sys.argv[1], verbose=0, on_finding="silent")
model.fit(x, x[:, :1], verbose=0, callbacks=[seen])
assert [one.step for one in seen.reports] == [0, 1]
assert audit(initialize(model, x=x, seed=0), x, x[:, :1]).verdict != "bad"
print("tensorflow" in sys.modules, "jax" in sys.modules)
"""


def test_an_audit_a_fit_with_a_log_and_a_start_import_no_other_backend(tmp_path):
    done = subprocess.run([sys.executable, "-c", ALONE, tmp_path], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.split() == ["False", "False"]
    assert list(tmp_path.glob("initaudit/*tfevents*"))


# What a layer of one's own changes


class Own(layers.Layer):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.calls, self.source = 0, np.random.default_rng(2)


def test_what_a_layer_counts_and_draws_is_put_back():
    layer = Own()
    model = keras.Sequential([keras.Input((4,)), layer, layers.Dense(1)])
    with modules_kept(model):
        layer.calls += 1
        drawn = layer.source.random()
        layer.eval()
    assert (layer.calls, layer.training) == (0, True)
    assert layer.source.random() == drawn
    layer.calls += 1  # outside of the block it stays
    assert layer.calls == 1


def test_a_write_past_the_counter_is_put_back():
    weight = torch.nn.Parameter(torch.ones(3))
    with tensors_kept([weight]):
        weight.data.mul_(2.0)
        assert weight.tolist() == [2.0] * 3
    assert weight.tolist() == [1.0] * 3


# Gradients


def test_at_logits_where_a_cross_entropy_takes_probabilities():
    x, y = np.eye(4, dtype="float32"), np.array([0, 1, 2, 0])

    def backward(loss):
        keras.utils.set_random_seed(0)
        model = keras.Sequential([keras.Input((4,)), layers.Dense(3, "softmax", name="last")])
        model.compile("sgd", loss)
        row = Probe(model, first_samples((x, y), None)).measure(0)["last"]
        return row.backward_rms, keras.ops.convert_to_numpy(model(x))

    rms, p = backward("sparse_categorical_crossentropy")
    at_logits = (p - np.eye(3)[y]) / 4.0
    assert rms == pytest.approx(np.sqrt(np.mean(at_logits**2)), rel=1e-5)
    # A loss of one's own takes the probabilities themselves: the gradient there is another one.
    rms, p = backward(lambda y, p: -keras.ops.log(keras.ops.take_along_axis(p, keras.ops.reshape(y, (-1, 1)), 1)))
    at_probabilities = np.eye(3)[y] / p / 4.0
    assert rms == pytest.approx(np.sqrt(np.mean(at_probabilities**2)), rel=1e-5)


# What operations say


def traced(function, *tensors):
    trace = graph.Trace()
    with trace:
        found = function(*tensors)
    return trace, graph.Reading(trace), found


def test_what_is_written_into_a_view_flows_on():
    x, y = torch.ones(3, 2), torch.ones(3)

    def write(x, y):
        z = x * 2.0
        z[:, 0] = y
        return z + 1.0

    trace, reading, found = traced(write, x, y)
    known = {trace.number(x): 0, trace.number(y): 1}
    assert set(reading.above(trace.number(found), known)) == {0, 1}
    trace, reading, found = traced(lambda x, y: (y * 2.0, x * 2.0)[1], x, y)
    known = {trace.number(x): 0, trace.number(y): 1}
    assert set(reading.above(trace.number(found), known)) == {0}


@pytest.mark.parametrize(
    ("function", "name"),
    [
        (torch.relu, "relu"),
        (lambda x: torch.nn.functional.leaky_relu(x, 0.3), "leaky_relu(0.3)"),
        (torch.nn.functional.leaky_relu, "leaky_relu(0.01)"),
        (torch.nn.functional.elu, "elu"),
        (torch.nn.functional.selu, "selu"),
        (torch.nn.functional.relu6, "relu6"),
        (torch.nn.functional.silu, "silu"),
        (lambda x: x * torch.sigmoid(x), "silu"),
        (lambda x: torch.tanh(x.reshape(-1)), "tanh"),
        (lambda x: 2.0 * x, None),
    ],
)
def test_an_activation_outside_of_a_layer_is_known(function, name):
    x = torch.ones(2, 3)
    trace, reading, _ = traced(function, x)
    assert reading.activation(trace.number(x)) == name


def test_a_weight_is_what_is_done_with_it():
    data, ids = torch.ones(4, 5, 3), torch.zeros(4, 5, dtype=torch.int32)
    weights = {
        name: torch.ones(*shape)
        for name, shape in {"kernel": (3, 3), "table": (7, 3), "position": (1, 5, 3), "first": (1, 1, 3)}.items()
    }

    def step(data, ids, kernel, table, position, first):
        x = data @ kernel + torch.nn.functional.embedding(ids, table) + position
        return torch.cat([first.expand(4, 1, 3), x], 1)

    trace, reading, found = traced(step, data, ids, *weights.values())
    numbers = {id(w): trace.number(w) for w in weights.values()}
    uses = reading.uses([trace.number(data), trace.number(ids)], {trace.number(found)}, numbers)
    assert {name: uses[id(w)] for name, w in weights.items()} == {
        "kernel": "kernel",
        "table": "table",
        "position": "other",
        "first": "other",
    }
    assert reading.looked_up(trace.number(ids))
    assert not reading.looked_up(trace.number(data))


# The first batch


def network():
    model = keras.Sequential([keras.Input((4,)), layers.Dense(3, "relu"), layers.Dense(1)])
    model.compile("adam", "mse")
    return model


def test_the_first_batch_is_shown_once_and_the_stand_in_is_gone():
    model, seen, x = network(), [], np.random.default_rng(0).normal(size=(16, 4)).astype("float32")

    class Begin(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            if not seen:
                engine.stand_in(model, seen.append)

    model.fit(x, x[:, :1], batch_size=4, shuffle=False, verbose=0, callbacks=[Begin()])
    (call,) = seen
    np.testing.assert_array_equal(call.batch[0], x[:4])
    assert call.train is model.train_function
    assert "make_train_function" not in vars(model)
    assert float(model.optimizer.iterations) == 4.0


def test_a_loader_gives_its_first_batch_and_draws_nothing():
    data = torch.utils.data.TensorDataset(torch.arange(12.0).reshape(12, 1), torch.zeros(12))
    generator = torch.Generator().manual_seed(1)
    loader = torch.utils.data.DataLoader(data, batch_size=4, shuffle=True, generator=generator)
    before, own = torch.get_rng_state(), generator.get_state()
    x, _ = engine.first_batch(loader, None, None, 4)
    assert x.shape == (4, 1)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(generator.get_state(), own)


def test_of_a_table_the_rows_that_were_looked_up_are_its_gradient():
    gradient = torch.zeros(5, 2)
    gradient[3], gradient[1] = 2.0, 1.0
    assert engine.rows_of(gradient) is None
    setattr(gradient, frame.ROWS, [torch.tensor([[3, 1]]), torch.tensor([3, 0])])
    values, looked_up = engine.rows_of(gradient)
    assert values.tolist() == [[2.0, 2.0], [1.0, 1.0], [0.0, 0.0]]
    assert looked_up == 4
    gradient[4] = 1.0  # it is used in another way as well
    assert engine.rows_of(gradient) is None
