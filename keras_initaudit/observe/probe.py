"""One shadow step: a model's own `train_step` on a small fixed batch, everything recorded, nothing changed.

The step is run beside the training, never within it: reading an intermediate of the real step would stop the compiler
from fusing it, and the numbers of the training would change. What the shadow step writes (batch-norm averages, metrics,
random seeds, and the weights themselves where `train_step` is the user's own) is put back, whatever happens.

What comes back are thinned samples of the tensors, and their statistics are taken outside. How the step is run, and
what must be put back, is for the engine of the backend.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import keras
import numpy as np
from keras import ops

from ..records import NAN, Histogram, LayerInfo, LossKind, OutputsMean, Snapshot, Statistics
from ..theory import gains
from . import describe, duplicates, losses, measures, movement
from .batch import batch_size, first_samples, fixed_batch_size, unpack
from .engines import Array, Frame, UnobservableError, Updates, engine
from .engines.undocumented import scheduled_rates
from .rows import Key, Row, Samples, as_columns, rows_of, samples_of, statistics_of
from .taps import Recording, optimizers, scales_loss

_LOSS: Key = ("loss", 0, "loss")
_PENALTY: Key = ("loss", 0, "penalty")
_ONE_NUMBER = {
    "entropy": ("attention_entropy", measures.entropy),
    "logits": ("attention_logit_max", measures.largest),
    "time": ("backward_time_log10", measures.time_log10),
}
"""What a sample is for -> the one column that it fills, and its number."""
_HISTOGRAM_OF = {"weight": "weights", "activation": "activations", "gradient": "gradients"}


@dataclasses.dataclass(eq=False)
class _Layout:
    """What the tensors that a shadow step returns are."""

    rows: list[Row]
    keys: list[Key]
    """Of each tensor, the sample that it is."""
    scaled: bool
    """Whether the gradients are those of a scaled loss."""
    optimizers: dict[int, Any]
    """id of a weight -> the optimizer that it is given to."""

    def parts(self, tensors: Mapping[Key, Array]) -> Iterator[tuple[int, Row, str, Array]]:
        """Number of a row, the row, and prefix and tensor of each of its samples that this run has."""
        for i, row in enumerate(self.rows):
            for prefix, key in row.samples.items():
                if key in tensors:
                    yield i, row, prefix, tensors[key]


class Probe:
    """Takes snapshots of a compiled model, always on the same batch, and leaves no trace on it.

    Args:
        model: A compiled `keras.Model`. One that is not built is built by the first
            `measure`, as its `fit` would.
        batch: What `train_step` takes: `(x,)`, `(x, y)` or `(x, y, sample_weight)`, of tensors, or what `fit` hands to
            it.
        size: Number of its samples to use; a model that works with batches of one size only gets the whole batch.
            None for all of them.
        histograms: Whether snapshots carry histograms.
        data_runs_python: Whether Python functions of the data may run beside, in threads of their own: the random
            states of Python and numpy are theirs then, and are not put back.

    Raises:
        UnobservableError: By `measure`, where the training step hides its gradients in a nested loop or condition.
    """

    def __init__(
        self,
        model: Any,
        batch: Any,
        *,
        size: int | None = None,
        histograms: bool = True,
        data_runs_python: bool = False,
    ) -> None:
        self.model = model
        self._whole_batch = first_samples(batch, None)
        self.batch = self._whole_batch if size is None else first_samples(batch, size)
        self.histograms = histograms
        self._runner = engine().runner(model, data_runs_python=data_runs_python)
        self._activations: dict[tuple[int, str], gains.ActivationFacts] | None = None
        self._layout: _Layout | None = None
        self._recorded: tuple[Recording, Samples] | None = None
        self._layers: tuple[LayerInfo, ...] | None = None
        self.kernels: list[tuple[int, Any]] = []
        self.marked: list[Any] | None = None
        self._marked_states: dict[int, movement.State] = {}
        self._baseline: float | None = None
        self._constant: float | None = None
        self._loss_kind: LossKind = ""
        self._outputs_mean: OutputsMean = ""
        self._least_target: float | None = None
        self._peak_rate: float | None = None
        self._sample_kernels: Any = None
        self._scale: float | None = None

    def ready(self) -> bool:
        """Whether the shadow step can run now: an eager model must be built, which not every one can be beforehand."""
        return self._runner.ready(self._whole_batch)

    def mark(self) -> None:
        """Remembers the weights, so that the next snapshot can tell by how much one update has changed them."""
        if self._layers is not None:
            self.marked = self._kernel_samples()
            self._marked_states = self._optimizer_states()

    def measure(self, step: int, *, updates: int = 1) -> Snapshot:
        """The snapshot of the model as it is.

        Args:
            step: Number of updates that were made so far.
            updates: Number of them since `mark`; the update ratio is that of one of them.

        Returns:
            A snapshot whose `layers` are the same at each call.
        """
        tensors = self._run_scaled()
        layout = self._layout
        assert layout is not None
        if self._layers is None:
            self._describe(layout, tensors)
        values: list[dict[str, float]] = [{} for _ in layout.rows]
        histograms: dict[str, dict[str, Histogram]] = {}
        for i, row, prefix, tensor in layout.parts(tensors):
            if prefix in _ONE_NUMBER:
                column, measured = _ONE_NUMBER[prefix]
                values[i][column] = measured(tensor)
                continue
            if prefix == "passed" or prefix.startswith("scale "):
                continue
            if prefix in ("backward", "gradient") and layout.scaled:
                tensor = tensor / np.float32(self._scale)
            values[i] |= statistics_of(row, prefix, tensor)
            if self.histograms and prefix in _HISTOGRAM_OF and row.info.role in ("layer", "weight"):
                counted = measures.histogram(tensor)
                if counted is not None:
                    histograms.setdefault(_HISTOGRAM_OF[prefix], {})[row.info.path] = counted
        weights = {i: tensor for i, _, prefix, tensor in layout.parts(tensors) if prefix == "weight"}
        for i, columns in self._movement(weights, updates):
            values[i] |= columns
        for i, row in enumerate(layout.rows):
            kinds = ("passed", "backward", "preactivation")
            if row.ends is not None and all(row.samples.get(kind) in tensors for kind in kinds):
                passed, backward, before = (tensors[row.samples[kind]] for kind in kinds)
                values[i]["activation_saturated"] = measures.blocked(passed, backward, before, row.ends)
        assert self._layers is not None
        return Snapshot(
            step=step,
            layers=self._layers,
            statistics=tuple(Statistics(**row) for row in values),
            loss=float(tensors[_LOSS]),
            baseline_loss=self._baseline,
            constant_loss=None if self._constant is None else self._constant + float(tensors[_PENALTY]),
            batch_size=batch_size(self.batch),
            histograms=histograms,
            optimizer=_kind(self._optimizer),
            learning_rate=_number(self._optimizer, "learning_rate"),
            peak_rate=self._peak_rate,
            momentum=_number(self._optimizer, "momentum") or 0.0,
            loss_kind=self._loss_kind,
            least_target=self._least_target,
            outputs_mean=self._outputs_mean,
        )

    def duplicates(self) -> dict[str, str]:
        """Row path -> path of an earlier row whose kernel has the same units, as the weights are now."""
        rows = [] if self._layout is None else self._layout.rows
        return duplicates.repeated({r.info.path: (r.owner, r.variable) for r in rows if r.variable is not None})

    def updates(self, batch: Any, train: Any = None, iterator: Any = None) -> Updates:
        """Real updates of the model on a batch, after which everything is put back; see `Engine.updates`."""
        return engine().updates(self._runner, batch, train, iterator)

    @contextlib.contextmanager
    def everything_kept(self) -> Iterator[None]:
        """Puts back all that a training step changes, weights and optimizers included, at the end of the block."""
        with self._runner.everything_kept():
            yield

    @contextlib.contextmanager
    def randomness_kept(self) -> Iterator[None]:
        """Puts back every random state that is no variable of the model, at the end of the block."""
        with self._runner.randomness_kept():
            yield

    @property
    def _optimizer(self) -> Any:
        """The first one that the training step uses: a step of the person's own may leave the compiled one alone."""
        used = self._layout.optimizers.values() if self._layout is not None else ()
        return next(iter((*used, *optimizers(self.model))), None)

    def _describe(self, layout: _Layout, tensors: dict[Key, Array]) -> None:
        weights = {row.info.path: row.variable for row in layout.rows if row.variable is not None}
        repeated = self.duplicates()
        zeros: dict[int, tuple[str, ...]] = {}
        for i, _, prefix, tensor in layout.parts(tensors):
            if prefix.startswith("scale ") and not tensor[0].any() and tensor[1].any():
                zeros[i] = (*zeros.get(i, ()), prefix.removeprefix("scale "))
        self._layers = tuple(
            dataclasses.replace(row.info, duplicate_of=repeated.get(row.info.path), zero_scales=zeros.get(i, ()))
            for i, row in enumerate(layout.rows)
        )
        self.kernels = [(i, weights[row.info.path]) for i, row in enumerate(layout.rows) if row.info.path in weights]
        _, y, sample_weight = unpack(self.batch)
        self._loss_kind = losses.loss_kind(self.model)
        self._outputs_mean = losses.outputs_mean(self.model)
        self._least_target = losses.least_target(y)
        self._baseline = losses.baseline_loss(self.model, y, sample_weight)
        self._constant = losses.constant_loss(self.model, y, sample_weight)
        self._peak_rate = max(scheduled_rates(self._optimizer), default=None)

    # The run

    def _run_scaled(self) -> dict[Key, Array]:
        """A shadow step, with a loss scale that its float16 gradients survive, as the optimizer would find one."""
        if self._scale is None:
            scaling = [optimizer for optimizer in optimizers(self.model) if scales_loss(optimizer)]
            self._scale = float(scaling[0].scale_loss(ops.convert_to_tensor(1.0))) if scaling else 1.0
        tensors = self._run()
        while self._scale > 1.0 and self._overflows(tensors):
            self._scale = max(1.0, self._scale / 16.0)
            tensors = self._run()
        return tensors

    def _overflows(self, tensors: dict[Key, Array]) -> bool:
        assert self._layout is not None
        broken = {prefix for _, _, prefix, tensor in self._layout.parts(tensors) if not np.isfinite(tensor).all()}
        return bool(broken & {"backward", "gradient"}) and not broken & {"activation", "preactivation"}

    def _run(self) -> dict[Key, Array]:
        """One shadow step: the thinned tensors, and the loss."""
        assert self._scale is not None
        if self._activations is None:
            self._runner.build(self._train, self._whole_batch)
            if fixed_batch_size(self.model) is not None:
                self.batch = self._whole_batch
            with self.everything_kept():
                self._activations = describe.activations(self.model)
        try:
            return self._run_on(self.batch)
        except UnobservableError:
            raise
        except Exception:
            # A size may stand in the code of the model, where nothing tells it beforehand.
            if self._layers is not None or batch_size(self.batch) == batch_size(self._whole_batch):
                raise
            self.batch = self._whole_batch
            return self._run_on(self.batch)

    def _run_on(self, batch: Any) -> dict[Key, Array]:
        assert self._scale is not None
        tensors, facts = self._runner.run(self._step, batch, self._scale)
        recorded, self._recorded = self._recorded, None
        if facts is not None:
            assert recorded is not None
            recording, samples = recorded
            with self._runner.randomness_kept():
                rows = list(rows_of(recording, samples, batch, facts))
            self._layout = _Layout(rows, [*samples.tensors], recording.scaled, recording.applied)
        assert self._layout is not None
        # A step that is not traced may do something else each time: less about its weights, but not with its layers.
        keys = self._layout.keys if recorded is None else [*recorded[1].tensors]
        if _of_calls(keys) != _of_calls(self._layout.keys):
            raise UnobservableError("the model's own training step does not call its layers as it did at first")
        return dict(zip(keys, tensors, strict=True))

    def _recording(self, frame: Frame, scale: Any) -> Recording:
        scaled = any(scales_loss(optimizer) for optimizer in optimizers(self.model))
        return Recording(self.model, frame, scale=scale if scaled else None, activations=self._activations or {})

    def _train(self, frame: Frame, batch: Any, scale: Any) -> list[Any]:
        """The model's own step, of which nothing is kept."""
        with self._recording(frame, scale).installed():
            frame.train(self.model, batch)
        return []

    def _step(self, frame: Frame, batch: Any, scale: Any) -> list[Any]:
        """The model's own step; the thinned tensors, and the loss; nothing but on the first replica."""
        recording = self._recording(frame, scale)
        with recording.installed():
            frame.train(self.model, batch)
        if not frame.first_replica():
            return []
        samples = samples_of(recording, batch)
        known = recording.loss is not None
        samples.tensors[_LOSS] = ops.mean(ops.cast(recording.loss, "float32")) if known else ops.convert_to_tensor(NAN)
        samples.tensors[_PENALTY] = ops.convert_to_tensor(0.0 if recording.penalty is None else recording.penalty)
        self._recorded = recording, samples
        return list(samples.tensors.values())

    # The change of the weights

    def _kernel_samples(self) -> list[Array]:
        if self._sample_kernels is None:
            assert self._layout is not None
            rows = [row for row in self._layout.rows if row.variable is not None]
            self._sample_kernels = self._runner.sampler(
                lambda: [as_columns(row.owner, row.variable, ops.convert_to_tensor(row.variable)) for row in rows]
            )
        found: list[Array] = self._sample_kernels()
        return found

    def _optimizer_states(self) -> dict[int, movement.State]:
        used = {id(o): o for o in self._layout.optimizers.values()} if self._layout is not None else {}
        return {key: (iterations(o), _number(o, "learning_rate")) for key, o in used.items()}

    def _movement(self, weights: dict[int, Array], updates: int) -> Iterator[tuple[int, dict[str, float]]]:
        """Row and columns of each kernel that is marked; `weights` holds the samples of them as they are now."""
        before, self.marked = self.marked, None
        layout, states = self._layout, self._optimizer_states()
        assert layout is not None
        updated = {key for key, old in self._marked_states.items() if movement.was_updated(old, states[key])}
        for (i, kernel), old in zip(self.kernels, before or (), strict=False):
            if not kernel.trainable:
                continue
            yield i, {"update_log10": movement.update_log10(old, weights[i], updates)}
            # Of what is gathered only the rows that were looked up move; float64 does not survive the cast of a sample.
            compared = "gradient" in layout.rows[i].matrices and kernel.dtype != "float64"
            if compared and id(layout.optimizers.get(id(kernel))) in updated:
                yield i, {"update_zero": movement.unchanged(old, weights[i])}


def _of_calls(keys: list[Key]) -> list[Key]:
    return [key for key in keys if key[2] == "activation"]


def updates_made(model: Any) -> int:
    """Updates that the model's optimizer has made so far; 0 where it has none."""
    optimizer = next(iter(optimizers(model)), None)
    return 0 if optimizer is None else iterations(optimizer)


def iterations(optimizer: Any) -> int:
    """Updates that an optimizer has made, on one replica or several."""
    return int(keras.ops.convert_to_numpy(keras.ops.copy(optimizer.iterations)))


def _inner(optimizer: Any) -> Any:
    """The optimizer; of one that scales the loss, the one within."""
    return getattr(optimizer, "inner_optimizer", optimizer)


def _kind(optimizer: Any) -> str:
    return "" if optimizer is None else type(_inner(optimizer)).__name__


def _number(optimizer: Any, name: str) -> float | None:
    """A setting of the optimizer."""
    try:
        return float(getattr(_inner(optimizer), name))
    except (TypeError, ValueError, AttributeError):
        return None
