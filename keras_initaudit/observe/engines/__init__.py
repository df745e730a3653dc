"""What the audit asks of a backend: the protocol that each engine fulfils, and the engine of the backend in use.

An engine is one module of this package, named like the backend, and the only one that imports it. Everything else in
`observe` speaks `keras.ops` and this protocol. What runs within `Runner.run` may be traced: it touches tensors, and
never asks for their values.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, Literal, NamedTuple, Protocol

import keras
import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float32]
BACKENDS = ("tensorflow",)
"""Backends that there is an engine for."""


Use = Literal["kernel", "table", "other"]
"""What is done with a weight: it is multiplied with data; looked up by data; or added to it, put beside it, given out
as it is, picked by position."""


class UnobservableError(Exception):
    """The model's training step hides its gradients where a second run of it cannot reach them."""


class NoTrialError(Exception):
    """A start cannot be tried, or what comes of it cannot be judged; the text says why."""


class Tap(NamedTuple):
    """A tensor that is observed on its way: what came in, what goes on, and what its layer was called with."""

    path: str
    source: Any
    output: Any
    arguments: Sequence[Any]


class Flow(NamedTuple):
    """What a graph says of its taps, each known by its number; -1 is the inputs."""

    above: list[set[int]]
    """Of each tap, those that flow into it without passing another one."""
    raw: dict[int, str]
    """Of a tap, the activation that is applied to it outside of any layer."""
    sums: list[tuple[set[int], ...]]
    """Of each addition, what flows into each of its terms."""


class Frame(Protocol):
    """One run of the step: which tensors belong to it, and how they are observed."""

    def sees(self, x: Any) -> bool:
        """Whether `x` is a floating tensor of this run."""

    def here(self) -> bool:
        """Whether the code that runs now belongs to this run, and not to a loop or function within it."""

    def first_replica(self) -> bool:
        """Whether it runs for the first of the replicas."""

    def unrecorded(self) -> AbstractContextManager[Any]:
        """What is computed in the block leaves no gradient behind."""

    def tap(self, x: Any, seen: Callable[[Any], None]) -> Any:
        """`x`, so that `seen` is given dL/dx; where the loss passes it by, dL/d(the logits that it takes instead)."""

    def value(self, variable: Any) -> Any:
        """The value that a Keras variable has in this run."""

    def position(self) -> int:
        """How many operations the run consists of so far; 0 where nobody counts them."""

    def attention(self, layer: Any, start: int, inner: Sequence[range]) -> Any:
        """The weights `[..., queries, keys]` that a softmax in the code of `layer` itself makes; None without one.

        Args:
            layer: The layer whose call has just ended.
            start: The position at which it began.
            inner: The positions of the layers that it has called, which have rows of their own.
        """

    def uses(self, data: Sequence[Any], outputs: Sequence[Any], weights: Sequence[Any]) -> dict[int, Use]:
        """Id of a weight -> what the step does with it; nothing of a weight of which the run leaves no trace.

        Args:
            data: The tensors of the batch.
            outputs: What the observed layers gave out: what reaches one of these is a signal.
            weights: Keras variables.
        """

    def looked_up(self, tensor: Any) -> bool:
        """Whether nothing is done with the numbers of a tensor but to look something up by them, or compare them."""

    def flows(self, taps: Sequence[Tap], inputs: Sequence[tuple[str, Any]]) -> list[tuple[str, ...]]:
        """Of each tap, the paths of the taps and inputs that flow into it without passing another one."""


Step = Callable[[Frame, Any, Any], list[Any]]
"""(frame, batch, loss scale) -> tensors."""


class Runner(Protocol):
    """Runs the step of one model beside its training; whatever that changes is put back."""

    def ready(self, batch: Any) -> bool:
        """Whether the step can run now."""

    def build(self, step: Step, batch: Any) -> None:
        """Makes the variables that the model does not have yet, with the values that they have in its `fit`."""

    def run(self, step: Step, batch: Any, scale: float) -> list[Array]:
        """What the step returns on the first replica, on the host. It is traced once, where the backend traces."""

    def everything_kept(self) -> AbstractContextManager[None]:
        """All that a training step changes is put back at the end of the block."""

    def randomness_kept(self) -> AbstractContextManager[None]:
        """The random states that are no variables of the model are put back at the end of the block."""

    def update(self, batch: Any) -> None:
        """One real update; within `everything_kept`."""

    def sampler(self, tensors: Callable[[], list[Any]]) -> Callable[[], list[Array]]:
        """A function that brings tensors made of variables to the host."""


Update = Callable[[], float]
"""Makes one update, and returns the loss in front of it, without the penalties of the weights."""


class Updates(Protocol):
    """Real updates of one model on one batch, for trials: whatever they change is put back."""

    model: Any
    samples: Any
    """The batch, of all replicas together."""

    def kept(self) -> AbstractContextManager[None]:
        """All that updates, or a remedy, change is put back at the end of the block, bit for bit."""

    def start(self, change: Callable[[], Any] | None = None) -> AbstractContextManager[tuple[Any, Update]]:
        """Within the block: the batch, and a function that makes one update on it.

        Args:
            change: Changes the model in place, and returns the batch to train on: another one, the same or None. The
                optimizer begins anew for the weights that it leaves.
        """


class Engine(Protocol):
    """The functions of an engine's module."""

    def runner(self, model: Any, *, data_runs_python: bool) -> Runner:
        """A `Runner`; `data_runs_python` says whether Python functions of the data may run at the same time."""

    def replicas(self, model: Any) -> int:
        """On how many replicas a step of the model runs."""

    def follow(self, model: Any, inputs: Any, forward: Callable[[Frame, Any], Sequence[Tap]]) -> Flow:
        """Traces `forward` on inputs of the shape of `inputs` (tensors, or `KerasTensor`s), and reads the graph."""

    def first_batch(self, x: Any, y: Any, sample_weight: Any, size: int) -> Any:
        """The first batch of anything that `fit` takes, as `train_step` would get it; None where there is no data."""

    def first_samples(self, batch: Any, size: int | None) -> Any:
        """The first samples of a batch as `fit` hands it to `train_step`."""

    def take_batch(self, iterator: Any, count: int) -> tuple[Any, Any]:
        """The next batch of `fit`'s iterator, None at its end, and an iterator that begins with it again."""

    def runs_python(self, iterator: Any) -> bool:
        """Whether Python functions may run in threads of their own to make the batches of `fit`'s iterator."""

    def is_tensor(self, x: Any) -> bool:
        """Whether `x` is a dense tensor of the backend."""

    def shape(self, x: Any) -> tuple[int | None, ...] | None:
        """The shape of a tensor, as far as it is known; None where not even its rank is."""

    def gather(self, x: Any, rows: npt.NDArray[np.int32]) -> Any:
        """Rows of a tensor by their numbers, none of them negative: one operation."""

    def dense(self, gradient: Any) -> Any:
        """A gradient as one tensor."""

    def rows_of(self, gradient: Any) -> tuple[Any, int | None] | None:
        """Of a gradient that holds some rows alone: their sums `[rows, units]`, and how many rows there were before.

        None for a dense gradient. The number is None where it is not known.
        """

    def updates(self, runner: Runner, batch: Any, train: Callable[[Any], Any] | None, iterator: Any) -> Updates:
        """Updates of a runner's model, once it has run its step.

        Args:
            runner: Of the model.
            batch: As `fit` hands it to `train_step`.
            train: `fit`'s own train function, used where no trace of it is left in the training; None without a `fit`.
            iterator: What `fit` calls it with: only what kind of elements it has is looked at.

        Raises:
            NoTrialError: Where the step acts on more than the model, or cannot be run beside the training.
        """


def require(what: str) -> None:
    """RuntimeError, with the remedy, where Keras runs on a backend that there is no engine for."""
    backend = keras.backend.backend()
    if backend not in BACKENDS:
        raise RuntimeError(
            f"{what} runs training steps on the TensorFlow backend, and Keras runs on {backend!r}; "
            'set KERAS_BACKEND="tensorflow" before keras is imported. The initializers, gain() and fans() run on any.'
        )


def engine() -> Engine:
    """The engine of the backend that Keras runs on."""
    require("An audit")
    found: Engine = importlib.import_module(f"{__name__}.{keras.backend.backend()}")
    return found
