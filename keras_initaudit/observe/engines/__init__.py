"""What the audit asks of a backend: the protocol that each engine fulfils, and the engine of the backend in use.

An engine is one module or package in here, named like the backend, and the only one that imports it. Everything else in
`observe` speaks `keras.ops` and this protocol.

Tensors within a trace, facts outside of it. What runs within `Runner.run` may be traced: it touches tensors through a
`Frame`, and never asks for their values. What a run says of itself (what flows where, what a weight is used for) is
asked of its `Facts` once it is over; the two know a tensor by its label. A tap has the label that it was given, from 0
on; the k-th leaf of the batch, in the order of `keras.tree.flatten`, has the label -1 - k.

Where backends differ in a function, its docstring has a line for each.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import AbstractContextManager
from typing import Any, Literal, NamedTuple, Protocol

import keras
import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float32]
BACKENDS = ("tensorflow", "jax", "torch")
"""Backends that there is an engine for."""


Use = Literal["kernel", "table", "other"]
"""What is done with a weight: it is multiplied with data; looked up by data; or added to it, put beside it, given out
as it is, picked by position."""


class UnobservableError(Exception):
    """The model's training step hides its gradients where a second run of it cannot reach them."""


class NoTrialError(Exception):
    """A start cannot be tried, or what comes of it cannot be judged; the text says why."""


class FirstCall(NamedTuple):
    """The first call of the train function in a `fit`, before it is made."""

    batch: Any
    """As `fit` hands it to `train_step`, whole."""
    runs_python: bool
    """Whether Python functions may run in threads of their own to make batches."""
    train: Callable[[Any], Any] | None
    """`fit`'s own train function."""
    iterator: Any
    """What it is called with."""


class Frame(Protocol):
    """One run of the step: which tensors belong to it, and how they are observed."""

    def train(self, model: Any, batch: Any) -> None:
        """Runs the model's own `train_step`; of what the run computes before and after it, the facts say nothing.

        TensorFlow: `train_step(batch)`, and what is behind it where it is a `tf.function`.
        JAX: `train_step(state, batch)`, with the state of this run; what Keras's cross-entropies are given is noticed.
        PyTorch: `train_step(batch)`, in a `TorchDispatchMode` that writes the operations down, at the first run.
        """

    def gradients(
        self, optimizers: Iterable[Any], take: Callable[[Any, Sequence[Any], Sequence[Any]], None]
    ) -> AbstractContextManager[Any]:
        """Within the block no optimizer updates anything: `take` gets it, its gradients and their weights instead.

        TensorFlow: in place of `optimizer.apply`.
        JAX: of `optimizer.stateless_apply` too; each gradient is labelled, for `Facts.unreached`, and that of a table
        goes with what was looked up in it, for `rows_of`.
        PyTorch: of `optimizer.apply`; a `step` of `torch.optim` finds no gradients, and so does nothing. Where no
        optimizer is used, the gradients that the step has left.
        """

    def sees(self, x: Any) -> bool:
        """Whether `x` is a floating tensor of this run.

        TensorFlow: of this graph. JAX: of this trace, below the tracers that differentiate. PyTorch: any that is real.
        """

    def here(self) -> bool:
        """Whether the code that runs now belongs to this run, and not to a loop or function within it.

        JAX: always; a tensor of a loop is one that `sees` does not see.
        PyTorch: not in the backward pass, which may run layers once more.
        """

    def first_replica(self) -> bool:
        """Whether it runs for the first of the replicas. JAX, PyTorch: always."""

    def unrecorded(self) -> AbstractContextManager[Any]:
        """What is computed in the block leaves no gradient behind. JAX: as anywhere. PyTorch: `no_grad`."""

    def tap(
        self,
        x: Any,
        seen: Callable[[Any], None],
        label: int | None = None,
        arguments: Sequence[Any] = (),
        entered: Any = None,
        beside: Any = None,
    ) -> Any:
        """`x`, so that `seen` is given dL/dx; where the loss passes it by, dL/d(the logits that it takes instead).

        TensorFlow: an operation with a backward side. JAX: a `custom_vjp`, its label a `checkpoint_name`.
        PyTorch: an `autograd.Function`, whose result is no view: what is written in place comes after it.

        Args:
            x: A tensor that `sees` sees.
            seen: Is given the gradient.
            label: The name of the tap in the facts; None for one that they leave out.
            arguments: What the layer was called with that gives `x`, for the facts of a run that leaves no graph.
            entered: What `entering` gave, where `x` is what an activation made of it.
            beside: A tensor that depends on a weight; it gets no gradient here. Data has none to be seen without it.
        """

    def entering(self, x: Any) -> Any:
        """`x`, on its way into an activation; a `tap` of what comes out may need the gradient here.

        TensorFlow: `x` as it is; Keras computes a cross-entropy from logits that it has kept.
        JAX: tapped; Keras computes it from the probabilities, and dL/d(logits) is found here alone. `tap` gives it away
        where the loss is a cross-entropy of what came out.
        PyTorch: as it is; a hook on the logits, where the run shows that a cross-entropy takes the probabilities.
        """

    def snapshot(self, x: Any) -> Any:
        """The value of a tensor as it is now, for statistics.

        TensorFlow: itself. JAX: without the tracers that differentiate. PyTorch: a copy, for later code may write in
        place.
        """

    def value(self, variable: Any) -> Any:
        """The value that a Keras variable has in this run.

        JAX: that of the state of this run, which is a `StatelessScope` around all of it; as it is differentiated,
        within the step.
        """

    def position(self) -> int:
        """How many operations the run consists of so far; 0 where nobody counts them."""

    def attention(self, layer: Any, start: int, inner: Sequence[range]) -> Any:
        """The weights `[..., queries, keys]` that a softmax in the code of `layer` itself makes; None without one.

        TensorFlow: found among the operations. JAX, PyTorch: None, as where nobody counts operations.

        Args:
            layer: The layer whose call has just ended.
            start: The position at which it began.
            inner: The positions of the layers that it has called, which have rows of their own.
        """


class Facts(Protocol):
    """What a run says of itself, asked when it is over.

    TensorFlow: read from the graph. JAX: from the jaxpr. PyTorch: from the list of operations.
    """

    def flows(self, leaves: Collection[int]) -> dict[int, tuple[int, ...]]:
        """Label of each tap -> labels of the taps and leaves that flow into it without passing another one.

        Args:
            leaves: Numbers of the leaves of the batch that are known; others are passed over.
        """

    def uses(self, weights: Sequence[Any]) -> dict[int, Use]:
        """Id of a Keras variable -> what the step does with it; nothing of one of which the run leaves no trace."""

    def looked_up(self, leaf: int) -> bool:
        """Whether nothing is done with the numbers of a leaf but to look something up by them, or compare them."""

    def unreached(self) -> set[int]:
        """Ids of the weights whose gradient is zeros because nothing flows into it.

        TensorFlow, PyTorch: none; a weight that the loss does not reach has the gradient None.
        """

    def activations(self) -> dict[int, str]:
        """Label of a tap -> the activation that is applied to it outside of any layer."""

    def sums(self) -> list[tuple[set[int], ...]]:
        """Of each addition, the labels of what flows into each of its terms."""


Step = Callable[[Frame, Any, Any], list[Any]]
"""(frame, batch, loss scale) -> tensors."""


class Runner(Protocol):
    """Runs the step of one model beside its training; whatever that changes is put back.

    TensorFlow: what the graph writes. JAX: nothing, for the `StatelessScope` drops what is written. PyTorch: copies of
    all variables, `.grad`, buffers, `module.training`, attributes of a person's own modules that are numbers, tensors
    or generators.
    """

    def ready(self, batch: Any) -> bool:
        """Whether the step can run now."""

    def build(self, step: Step, batch: Any) -> None:
        """Makes the variables that the model does not have yet, with the values that they have in its `fit`.

        JAX, PyTorch: by Keras's symbolic build, which is what their `fit` does, less that of the optimizer: some layers
        may yet be frozen.
        """

    def run(self, step: Step, batch: Any, scale: float) -> tuple[list[Array], Facts | None]:
        """What the step returns on the first replica, on the host; and the facts of the run, where `step` was called.

        It is called once, where the backend traces, and what it returned then is computed anew at each run.
        PyTorch: it is called at each run, and the facts are those of the first.
        """

    def everything_kept(self) -> AbstractContextManager[None]:
        """All that a training step changes is put back at the end of the block."""

    def randomness_kept(self) -> AbstractContextManager[None]:
        """The random states that are no variables of the model are put back at the end of the block.

        TensorFlow: those of Keras, Python, numpy and of eager operations. JAX: of Keras, Python and numpy.
        PyTorch: and of torch, on every device.
        """

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
        """On how many replicas a step of the model runs. JAX, PyTorch: 1; a process is on its own."""

    def attached(self, model: Any) -> AbstractContextManager[None]:
        """In the block the variables of a model can be read and written, also in the middle of an epoch.

        TensorFlow, PyTorch: as always. JAX: `fit` has taken their values; they are lent those of `model._jax_state`,
        and what is written to them is gone at the end of the block. `callback.model` would write it to them.
        """

    def stand_in(self, model: Any, begin: Callable[[FirstCall], None]) -> Callable[[], None]:
        """Shows `begin` the first call of the train function of `fit`, once, before it is made.

        TensorFlow: `train_function(iterator)`; the batch is put in front again.
        JAX: `train_function(state, iterator)`; that state is `model._jax_state` while `begin` runs, for `attached`, and
        for Keras where it raises. Where code of the person's own has asked for it, the variables have it again, and it
        is taken anew.
        PyTorch: `train_function(data)`, and `data[0]` is the batch.

        Args:
            model: In its `fit`, before the first call of its train function.
            begin: Gets the call; the train function is called when it returns.

        Returns:
            A function that undoes it; a second call does nothing.
        """

    def follow(self, model: Any, inputs: Any, forward: Callable[[Frame, Any], None]) -> Facts:
        """Traces `forward` on inputs of the shape of `inputs` (tensors, or `KerasTensor`s), and reads the graph.

        JAX: its jaxpr, with the variables attached. PyTorch: it runs, on zeros where there are no tensors.
        """

    def first_batch(self, x: Any, y: Any, sample_weight: Any, size: int) -> Any:
        """The first batch of anything that `fit` takes, as `train_step` would get it; None where there is no data."""

    def first_samples(self, batch: Any, size: int | None) -> Any:
        """The first samples of a batch as `fit` hands it to `train_step`.

        TensorFlow: of the first replica. JAX: the same on every device, where the data is distributed.
        """

    def is_tensor(self, x: Any) -> bool:
        """Whether `x` is a dense tensor of the backend."""

    def shape(self, x: Any) -> tuple[int | None, ...] | None:
        """The shape of a tensor, as far as it is known; None where not even its rank is. JAX, PyTorch: all known."""

    def gather(self, x: Any, rows: npt.NDArray[np.int32]) -> Any:
        """Rows of a tensor by their numbers, none of them negative: one operation."""

    def dense(self, gradient: Any) -> Any:
        """A gradient as one tensor. PyTorch: it is one."""

    def rows_of(self, gradient: Any) -> tuple[Any, int | None] | None:
        """Of a gradient that holds some rows alone: their sums `[rows, units]`, and how many rows there were before.

        None for a dense gradient. The number is None where it is not known.
        JAX: of a table whose rows were taken by Keras's `take`; how many they are is known on the host alone, so what
        is given can be sliced, and no more.
        PyTorch: the rows that were looked up, where the others are zero.
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
            f"{what} runs training steps on {' or '.join(BACKENDS)}, and Keras runs on {backend!r}; "
            f'set KERAS_BACKEND="{BACKENDS[0]}" before keras is imported. '
            "The initializers, gain() and fans() run on any."
        )


def engine() -> Engine:
    """The engine of the backend that Keras runs on."""
    require("An audit")
    found: Engine = importlib.import_module(f"{__name__}.{keras.backend.backend()}")
    return found
