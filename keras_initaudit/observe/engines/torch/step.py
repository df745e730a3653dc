"""PyTorch: the step runs as it is, on copies of nothing; all that it writes is put back."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
import torch

from ...hooks import replaced
from .. import Array, Facts, Frame, Step
from ..randomness import keras_seeds_kept, python_states_kept
from ..undocumented import build_with, layers_built
from .frame import TorchFrame
from .graph import Trace
from .state import modules_kept, tensors_kept, torch_states_kept, variables


class TorchRunner:
    """Runs the step of one model. Its operations are written down at the first run that succeeds."""

    def __init__(self, model: Any, *, data_runs_python: bool) -> None:
        self.model = model
        self._data_runs_python = data_runs_python
        self._asked = False
        self._generator: Any = None

    def ready(self, batch: Any) -> bool:
        """See `Runner`. A `fit` has built the model before it."""
        if not layers_built(self.model):
            try:
                self._build(batch)
            except Exception:
                return False
        return True

    def build(self, step: Step, batch: Any) -> None:
        """See `Runner`."""
        del step
        if not layers_built(self.model):
            self._build(batch)

    def _build(self, batch: Any) -> None:
        # Not the optimizer, of which weights may be frozen until the training.
        with replaced(self.model, "optimizer", None):
            build_with(self.model, batch)

    def run(self, step: Step, batch: Any, scale: float) -> tuple[list[Array], Facts | None]:
        """See `Runner`."""
        frame = TorchFrame(self.model, None if self._asked else Trace())
        own = type(self.model).train_step is not keras.Model.train_step
        with self._kept(optimizers=own), running(self.model):
            tensors = on_host(step(frame, batch, keras.ops.convert_to_tensor(scale, "float32")))
        if self._asked:
            return tensors, None
        self._asked = True
        return tensors, frame.facts()

    @contextlib.contextmanager
    def everything_kept(self) -> Iterator[None]:
        """See `Runner`."""
        with self._kept(optimizers=True):
            yield

    @contextlib.contextmanager
    def _kept(self, *, optimizers: bool) -> Iterator[None]:
        held = variables(self.model, optimizers=optimizers)
        with self.randomness_kept(), tensors_kept(held), modules_kept(self.model):
            yield

    @contextlib.contextmanager
    def randomness_kept(self) -> Iterator[None]:
        """See `Runner`."""
        keras_seeds = keras_seeds_kept(self._global_generator, lambda state: tensors_kept([state.value]))
        with keras_seeds, torch_states_kept(), python_states_kept(wind_back=not self._data_runs_python):
            yield

    def _global_generator(self) -> Any:
        """The one that stands in for Keras's own."""
        if self._generator is None:
            self._generator = keras.random.SeedGenerator(seed=0, name="initaudit_seed_generator")
        return self._generator

    def sampler(self, tensors: Callable[[], list[Any]]) -> Callable[[], list[Array]]:
        """See `Runner`."""

        def sample() -> list[Array]:
            with torch.no_grad():
                return on_host(tensors())

        return sample


def runner(model: Any, *, data_runs_python: bool) -> TorchRunner:
    """See `Engine`."""
    return TorchRunner(model, data_runs_python=data_runs_python)


def replicas(model: Any) -> int:
    """See `Engine`."""
    del model
    return 1


@contextlib.contextmanager
def running(model: Any) -> Iterator[None]:
    """As in a `fit`: in training mode; and as Python, for what is compiled would be compiled anew for other tensors."""
    if not model.training:
        model.train()
    with torch.enable_grad(), torch.compiler.set_stance("force_eager"):
        yield


def on_host(tensors: Any) -> list[Array]:
    """Copies: what is on the host already may be a view of a weight."""
    with np.errstate(over="ignore"):  # a float64 past the range of float32 is infinite here
        return [tensor.detach().to("cpu", torch.float32, copy=True).numpy() for tensor in tensors]


def follow(model: Any, inputs: Any, forward: Callable[[Frame, Any], None]) -> Facts:
    """See `Engine`. It runs, on zeros where there are no tensors."""

    def tensor(leaf: Any) -> Any:
        if isinstance(leaf, keras.KerasTensor):
            return keras.ops.zeros([size or 1 for size in leaf.shape], leaf.dtype)
        return keras.ops.convert_to_tensor(leaf)

    values = keras.tree.map_structure(tensor, inputs)
    trace = Trace()
    frame = TorchFrame(model, trace, keras.tree.flatten(values))
    kept = TorchRunner(model, data_runs_python=False).everything_kept()
    with kept, torch.no_grad(), torch.compiler.set_stance("force_eager"), trace:
        forward(frame, values)
    return frame.facts()
