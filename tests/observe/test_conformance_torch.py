"""Every kind of `fit` on PyTorch, with and without the audit: what `test_conformance` has, and what is written for it.

A training step of one's own is made of PyTorch's parts here: optimizers and schedules, gradients and updates by hand,
modules, buffers, loaders, and writes in place.
"""

import random
import warnings

import keras
import numpy as np
import pytest
from keras import layers

if keras.backend.backend() != "torch":
    pytest.skip("the engine of PyTorch", allow_module_level=True)

import torch
from test_conformance import CASES as SHARED
from test_conformance import IMAGES, LABELS, WEIGHTS, X, Y, assert_clean, assert_same, audited, dense, regression

from keras_initaudit.observe.engines import NoTrialError
from keras_initaudit.observe.engines import torch as engine

NOT_HERE = {"four_steps_per_execution", "finite_generator_four_steps_per_execution"}
"""Keras has one step a call here."""
# Keras builds these with batches of any size, and cannot.
NOT_HERE |= {"stateful", "size_in_the_code"}
NOT_HERE |= {name for name in SHARED if "tensorflow" in name}
NOT_HERE |= {"jit"}  # once, as `compiled`: it takes half a minute
CASES = {name: build for name, build in SHARED.items() if name not in NOT_HERE}


def case(function):
    CASES[function.__name__] = function
    return function


class Loss(keras.Model):
    """Two layers and a loss to be kept; each kind has a step of its own."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.a, self.drop, self.b = layers.Dense(8, "relu"), layers.Dropout(0.2), layers.Dense(1)
        self.tracker = keras.metrics.Mean(name="loss")
        self.steps = 0
        self.setup()

    def setup(self):
        self.build((None, 6))

    def build(self, shape):
        self.a.build((None, 6))
        self.b.build((None, 8))
        self.built = True

    def call(self, x, training=False):
        return self.b(self.drop(self.a(x), training=training))

    def loss_of(self, data):
        x, y = data
        loss = torch.mean(torch.square(self(x, training=True) - y))
        self.tracker.update_state(loss)
        return loss

    def done(self):
        self.steps += 1
        return {"loss": self.tracker.result(), "steps": float(self.steps)}


def own(kind):
    """A model with a step of its own as a case."""

    def build():
        model = kind()
        model.compile("adam")
        return model, {"x": X, "y": Y}

    CASES[kind.__name__] = build
    return kind


@own
class KerasOptimizer(Loss):
    def train_step(self, data):
        loss = self.loss_of(data)
        self.zero_grad()
        loss.backward()
        gradients = [v.value.grad.clamp(-1.0, 1.0) for v in self.trainable_variables]
        with torch.no_grad():
            self.optimizer.apply(gradients, self.trainable_variables)
            self.b.bias.assign_add([0.01])
        return self.done()


@own
class TorchOptimizer(Loss):
    """With a schedule, whose wrapper of `step` holds what stood in the class before."""

    def setup(self):
        self.build((None, 6))
        self.own_optimizer = torch.optim.Adam(self.parameters(), lr=0.02, amsgrad=True)
        self.schedule = torch.optim.lr_scheduler.StepLR(self.own_optimizer, 2, 0.5)

    def train_step(self, data):
        loss = self.loss_of(data)
        self.own_optimizer.zero_grad(set_to_none=False)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.parameters(), 1.0)
        self.own_optimizer.step()
        self.schedule.step()
        return self.done() | {"rate": self.schedule.get_last_lr()[0]}


ELSEWHERE = {}


@own
class OptimizerElsewhere(Loss):
    """One that the model does not hold."""

    def setup(self):
        self.build((None, 6))
        ELSEWHERE["optimizer"] = torch.optim.SGD(self.parameters(), lr=0.02, momentum=0.9)

    def train_step(self, data):
        loss = self.loss_of(data)
        ELSEWHERE["optimizer"].zero_grad()
        loss.backward()
        ELSEWHERE["optimizer"].step()
        return self.done()


@own
class WithClosure(Loss):
    def setup(self):
        self.build((None, 6))
        self.own_optimizer = torch.optim.RMSprop(self.parameters(), lr=0.01)

    def train_step(self, data):
        def closure():
            self.own_optimizer.zero_grad()
            loss = self.loss_of(data)
            loss.backward()
            return loss

        self.own_optimizer.step(closure)
        return self.done()


@own
class Scaled(Loss):
    def setup(self):
        self.build((None, 6))
        self.own_optimizer = torch.optim.SGD(self.parameters(), lr=0.02)
        self.scaler = torch.amp.GradScaler("cpu", growth_interval=2)

    def train_step(self, data):
        self.own_optimizer.zero_grad()
        self.scaler.scale(self.loss_of(data)).backward()
        self.scaler.step(self.own_optimizer)
        self.scaler.update()
        return self.done() | {"scale": self.scaler.get_scale()}


@own
class ByHand(Loss):
    """Past the counter of writes, and with gradients that add up over two steps."""

    def train_step(self, data):
        self.loss_of(data).backward()
        if self.steps % 2:
            for parameter in self.parameters():
                if parameter.grad is not None:
                    parameter.data.sub_(0.05 * parameter.grad)
            self.zero_grad()
        self.a.kernel.value.data.clamp_(-0.5, 0.5)
        return self.done()


@own
class FunctionalGradients(Loss):
    """Exponential averages in a `no_grad` block, tensors that are exchanged, and generators of one's own."""

    def setup(self):
        self.build((None, 6))
        self.register_buffer("slow", torch.zeros(6, 8))
        self.exchanged = torch.zeros(())
        self.torch_generator = torch.Generator().manual_seed(3)
        self.numpy_generator = np.random.default_rng(3)
        self.python_generator = random.Random(3)

    def train_step(self, data):
        x, y = data
        x = x + 0.1 * torch.randn(x.shape, generator=self.torch_generator) + 0.1 * torch.randn(x.shape)
        x = x * float(self.numpy_generator.uniform(0.5, 1.5)) * self.python_generator.uniform(0.5, 1.5)
        x = x * random.choice([0.5, 1.0]) * float(np.random.uniform(0.5, 1.5))
        weights = [v.value for v in self.trainable_variables]
        gradients = torch.autograd.grad(self.loss_of((x, y)), weights, create_graph=True)
        with torch.no_grad():
            self.optimizer.apply([g.detach() for g in gradients], self.trainable_variables)
            self.slow.mul_(0.9).add_(0.1 * self.a.kernel.value)
            self.exchanged = self.exchanged + 1.0
            self.a.kernel.assign_sub(0.001 * self.slow * self.exchanged)
        return self.done()


@own
class FrozenMode(Loss):
    """A module of PyTorch in `eval` mode in training, whose buffers stay."""

    def setup(self):
        self.norm = torch.nn.BatchNorm1d(8)
        self.build((None, 6))

    def call(self, x, training=False):
        return self.b(self.drop(torch.nn.functional.relu_(self.norm.module(self.a(x))), training=training))

    def train_step(self, data):
        if self.steps == 2:
            self.norm.module.eval()
        loss = self.loss_of(data)
        self.zero_grad()
        loss.backward()
        with torch.no_grad():
            self.optimizer.apply([v.value.grad for v in self.trainable_variables], self.trainable_variables)
        return self.done() | {"training": float(self.norm.module.training)}


@own
class TwoOptimizers(Loss):
    """Two backward passes, the second of which adds to the gradients of the first."""

    def setup(self):
        self.build((None, 6))
        self.second = keras.optimizers.SGD(0.01)

    def train_step(self, data):
        self.zero_grad()
        for optimizer, layer in ((self.optimizer, self.a), (self.second, self.b)):
            self.loss_of(data).backward()
            with torch.no_grad():
                optimizer.apply([v.value.grad for v in layer.trainable_variables], layer.trainable_variables)
        return self.done()


@case
def wrapped_modules():
    """Batch normalization with buffers, dropout of PyTorch, a write in place, a convolution."""
    modules = [torch.nn.Conv2d(8, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.ReLU(inplace=True), torch.nn.Dropout(0.3)]
    i = keras.Input((8, 8, 3))
    h = layers.Conv2D(8, 3, data_format="channels_last")(i)
    h = keras.layers.TorchModuleWrapper(torch.nn.Sequential(*modules), output_shape=(None, 4, 4, 4))(
        layers.Permute((3, 1, 2))(h)
    )
    return regression(i, layers.Dense(1)(layers.Flatten()(h))), {"x": IMAGES, "y": Y[:24]}


class InPlace(layers.Layer):
    def call(self, x):
        x = x * 1.0
        x[:, 0] = 0.5
        x.add_(1.0)
        return torch.nn.functional.relu_(x)


@case
def writes_in_place():
    return dense(InPlace(), layers.Dense(8), InPlace()), {"x": X, "y": LABELS}


class Checkpointed(layers.Layer):
    """What the backward pass runs once more is no call of a layer."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.inner = layers.Dense(8, "tanh")

    def build(self, shape):
        self.inner.build(shape)

    def call(self, x):
        return torch.utils.checkpoint.checkpoint(self.inner, x, use_reentrant=False)


@case
def computed_twice():
    return dense(Checkpointed()), {"x": X, "y": LABELS}


class TorchNoise(layers.Layer):
    def call(self, x, training=False):
        return torch.nn.functional.dropout(x + 0.1 * torch.randn_like(x), 0.2) if training else x


@case
def drawn_by_torch():
    return dense(TorchNoise()), {"x": X, "y": LABELS}


class Counting(layers.Layer):
    """Counts and draws past all variables."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.calls, self.rng = 0, np.random.default_rng(2)

    def call(self, x, training=False):
        if training:
            self.calls += 1
            x = x * (1.0 + 0.1 / self.calls) * float(self.rng.uniform(0.9, 1.1))
        return x


@case
def counted_past_variables():
    return dense(Counting()), {"x": X, "y": LABELS}


class Items(torch.utils.data.Dataset):
    def __len__(self):
        return len(X)

    def __getitem__(self, i):
        return X[i] * np.float32(random.choice([0.5, 1.0])), LABELS[i], WEIGHTS[i]


for workers, seeded in ((0, False), (0, True), (2, False)):

    def loader(workers=workers, seeded=seeded):
        generator = torch.Generator().manual_seed(5) if seeded else None
        data = torch.utils.data.DataLoader(
            Items(), batch_size=7, shuffle=True, num_workers=workers, generator=generator, drop_last=True
        )
        return dense(layers.Dropout(0.2)), {"x": data}

    CASES[f"loader_{workers}_{seeded}"] = loader


@case
def compiled():
    model = dense(layers.BatchNormalization(), jit_compile=True)
    return model, {"x": X, "y": LABELS, "epochs": 1}


# The comparison


def numbers(tensor):
    return tensor.detach().double().numpy()  # every number of any precision


def state_after(build, make_callbacks):
    keras.backend.clear_session()
    keras.utils.set_random_seed(11)
    model, fit = build()
    callbacks = make_callbacks()
    defaults = {"epochs": 2, "verbose": 0, "callbacks": callbacks}
    if isinstance(fit["x"], np.ndarray | dict | list):
        defaults["batch_size"] = 8
    history = model.fit(**defaults | fit)
    held = [*model.variables, *model.metrics_variables]
    held += [v for o in vars(model).values() if isinstance(o, keras.optimizers.Optimizer) for v in o.variables]
    modules = {id(part): part for layer in model._flatten_layers() for part in layer.modules()}.values()
    tensors = [v.value for v in held] + [buffer for module in modules for buffer in module.buffers(recurse=False)]
    tensors += [p.grad for p in model.parameters() if p.grad is not None]
    for optimizer in (getattr(model, "own_optimizer", None), ELSEWHERE.get("optimizer")):
        states = optimizer.state.values() if optimizer is not None else ()
        tensors += [value for state in states for value in state.values() if value is not None]
    following = layers.Dense(2)
    following.build((None, 3))
    draws = (random.random(), np.random.rand(), *numbers(following.kernel.value).ravel())
    draws += (float(keras.random.normal(())), float(torch.rand(())))
    modes = tuple(module.training for module in modules)
    return model, list(map(numbers, tensors)), history.history, (*draws, modes), callbacks


MINUTES = {"compiled"}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if name in MINUTES else name for name in CASES]
)
def test_bit_identical_with_and_without(name, tmp_path):
    plain = state_after(CASES[name], list)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="InitAudit")
        watched = state_after(CASES[name], lambda: audited(tmp_path))
    assert_same(plain, watched)
    model, callback = watched[0], watched[4][0]
    assert callback.reports[0].step == 0
    assert len(callback.reports) >= 2
    seen = [row for snapshot in callback.snapshots for row in snapshot.statistics]
    assert any(np.isfinite(row.gradient_rms) and row.gradient_rms > 0 for row in seen)
    assert_clean(model)


# Real updates


class Tried(keras.callbacks.Callback):
    """Makes updates in front of the first one of `fit`, from another start and as it is."""

    def __init__(self, updates=5, put_back=True):
        super().__init__()
        self.updates, self.put_back, self.losses, self.reason = updates, put_back, [], None

    def on_train_batch_begin(self, batch, logs=None):
        if self.losses or self.reason:
            return
        self.losses.append(None)
        engine.stand_in(self.model, self.begin)

    def begin(self, call):
        self.losses.clear()
        runner = engine.runner(self.model, data_runs_python=call.runs_python)
        if not self.put_back:
            self.model.train_step(call.batch)
            return

        def grown():
            for variable in self.model.trainable_variables:
                variable.assign(1.5 * variable + 0.01)

        try:
            updates = engine.updates(runner, call.batch, call.train, call.iterator)
            for change in (grown, None):
                with updates.start(change) as (_, update):
                    held = [v.numpy() for v in self.model.trainable_variables]
                    self.losses.append([update() for _ in range(self.updates)])
                    now = [v.numpy() for v in self.model.trainable_variables]
                    assert not all(map(np.array_equal, held, now))
        except NoTrialError as error:
            self.reason = str(error)


QUICK = {"accumulated_clipped_averaged", "added_losses_and_regularizers", "attention", "counted_past_variables"}
QUICK |= {"drawn_by_torch", "layer_with_own_state", "loader_0_True", "unseeded", "wrapped_modules", "writes_in_place"}
OWN_STEP = {name for name in CASES if name[0].isupper()}


@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in CASES]
)
def test_bit_identical_with_updates_that_are_tried(name):
    plain = state_after(CASES[name], list)
    scaled = "float16" in name and "b" not in name  # a loss scale lets the first ones pass without an update
    tried = Tried(24 if scaled else 5)
    watched = state_after(CASES[name], lambda: [tried])
    assert_same(plain, watched)
    if name in OWN_STEP:
        assert "own training step" in tried.reason
    else:
        assert tried.reason is None
        assert len(tried.losses) == 2


def test_updates_that_are_not_put_back_are_seen():
    plain = state_after(CASES["sequential"], list)
    with pytest.raises(AssertionError):
        assert_same(plain, state_after(CASES["sequential"], lambda: [Tried(put_back=False)]))
