"""JAX: the step is traced and compiled once, as that of `fit`.

With less optimization the compiler takes half of the time, and what it makes runs two to four times as long. A trace
writes nothing: the variables are tracers of a `StatelessScope` while it is made, and what they would become is dropped.
The same scope takes what the step of an eager model writes.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import keras
import numpy as np

from ...hooks import replaced
from .. import Array, Facts, Frame, Step
from ..eager import EagerFacts
from ..randomness import keras_seeds_kept, python_states_kept
from ..starting import variables_of_training
from ..undocumented import build_with, layers_built
from .data import on_host
from .frame import JaxFrame, JaxprFacts
from .lookup import Rows
from .state import scope_of, state_of, state_variables, values_kept


class JaxRunner:
    """Runs the step of one model: traced and compiled once, or eagerly where the model does so."""

    def __init__(self, model: Any, *, data_runs_python: bool) -> None:
        self.model = model
        self._data_runs_python = data_runs_python
        self._compiled: Any = None
        self._signature: Any = None
        self._eager_facts: Facts | None = None
        self._generator: Any = None
        self.acts_outside = False
        """Whether the step that was traced calls what is outside of JAX: prints, callbacks."""

    def runs_eagerly(self) -> bool:
        """Whether Keras runs the steps of the model without compiling them."""
        return bool(self.model.run_eagerly or not self.model.jit_compile)

    def ready(self, batch: Any) -> bool:
        """See `Runner`. What `fit` cannot build, it does not train."""
        del batch
        return True

    def build(self, step: Step, batch: Any) -> None:
        """See `Runner`. The optimizer is left for `fit`: some of the layers may yet be frozen."""
        del step
        if not layers_built(self.model):
            with replaced(self.model, "optimizer", None):
                build_with(self.model, batch)

    def run(self, step: Step, batch: Any, scale: float) -> tuple[list[Array], Facts | None]:
        """See `Runner`."""
        state, leaves = state_of(self.model), keras.tree.flatten(batch)
        if self.runs_eagerly():
            return self._run_eagerly(step, batch, state, scale)
        signature = [(x.shape, x.dtype, x.sharding) for x in jax.tree.leaves((state, leaves))]
        facts: JaxprFacts | None = None
        if self._compiled is None or signature != self._signature:
            traced, frame = self._traced(step, batch, state)
            facts = self._facts(traced.jaxpr, frame, leaves)
            self._compiled = traced.lower().compile()
            self._signature = signature
        return _on_host(self._compiled(state, leaves, jnp.float32(scale))), facts

    def _traced(self, step: Step, batch: Any, state: Any) -> tuple[Any, JaxFrame]:
        frames: list[JaxFrame] = []

        def shadow(state: Any, leaves: list[Any], scale: Any) -> list[Any]:
            frames[:] = [JaxFrame(scale, state)]
            with scope_of(self.model, state):
                return step(frames[0], keras.tree.pack_sequence_as(batch, leaves), scale)

        with self.everything_kept():
            traced = jax.jit(shadow).trace(state, keras.tree.flatten(batch), jnp.float32(1.0))
        self.acts_outside = bool(traced.jaxpr.effects)
        return traced, frames[0]

    def _facts(self, jaxpr: Any, frame: JaxFrame, leaves: list[Any]) -> JaxprFacts:
        variables = [v for part in state_variables(self.model) for v in part]
        return JaxprFacts(jaxpr, variables, [len(jax.tree.leaves(leaf)) for leaf in leaves], frame.labelled)

    def _run_eagerly(self, step: Step, batch: Any, state: Any, scale: float) -> tuple[list[Array], Facts]:
        """The step, operation by operation; its facts are those of a trace, where it can be traced."""
        if self._eager_facts is None:
            with contextlib.suppress(Exception):
                traced, frame = self._traced(step, batch, state)
                self._eager_facts = self._facts(traced.jaxpr, frame, keras.tree.flatten(batch))
        frame = JaxFrame(None, state)
        with self.everything_kept(), scope_of(self.model, state):
            tensors = step(frame, batch, jnp.float32(scale))
        return _on_host(tensors), self._eager_facts or EagerFacts(keras.tree.flatten(batch), frame.arguments)

    @contextlib.contextmanager
    def everything_kept(self) -> Iterator[None]:
        """See `Runner`."""
        with self.randomness_kept(), values_kept(variables_of_training(self.model)):
            yield

    @contextlib.contextmanager
    def randomness_kept(self) -> Iterator[None]:
        """See `Runner`."""
        keras_seeds = keras_seeds_kept(self._global_generator, lambda state: values_kept([state]))
        with keras_seeds, python_states_kept(wind_back=not self._data_runs_python):
            yield

    def _global_generator(self) -> Any:
        """The one that stands in for Keras's own."""
        if self._generator is None:
            self._generator = keras.random.SeedGenerator(seed=0, name="initaudit_seed_generator")
        return self._generator

    def sampler(self, tensors: Callable[[], list[Any]]) -> Callable[[], list[Array]]:
        """See `Runner`."""

        def sampled(state: Any) -> list[Any]:
            with scope_of(self.model, state):
                return tensors()

        compiled = jax.jit(sampled)
        return lambda: _on_host(compiled(state_of(self.model)))


def runner(model: Any, *, data_runs_python: bool) -> JaxRunner:
    """See `Engine`."""
    return JaxRunner(model, data_runs_python=data_runs_python)


def _on_host(tensors: Any) -> list[Array]:
    with np.errstate(over="ignore"):  # a float64 past the range of float32 is infinite here
        return [_rows_on_host(x) if isinstance(x, Rows) else _numbers(x) for x in tensors]


def _rows_on_host(rows: Rows) -> Array:
    found: Array = _numbers(rows.values)[on_host(rows.kept)]
    return found


def _numbers(x: Any) -> Array:
    found: Array = on_host(x).astype(np.float32, copy=False)
    return found


# The graph of a forward pass


def follow(model: Any, inputs: Any, forward: Callable[[Frame, Any], None]) -> Facts:
    """See `Engine`."""
    frames: list[JaxFrame] = []
    variables = [*model.trainable_variables, *model.non_trainable_variables]
    leaves = keras.tree.flatten(inputs)

    def traced(values: Any, leaves: list[Any]) -> None:
        first = next(iter(jax.tree.leaves((values, leaves))))
        frames[:] = [JaxFrame(first)]
        with keras.StatelessScope(state_mapping=list(zip(variables, values, strict=True))):
            forward(frames[0], keras.tree.pack_sequence_as(inputs, leaves))

    def spec(leaf: Any) -> Any:
        if not isinstance(leaf, keras.KerasTensor):
            return leaf if leaf is None or hasattr(leaf, "todense") else jnp.asarray(leaf)
        return jax.ShapeDtypeStruct([n or 1 for n in leaf.shape], leaf.dtype)

    jaxpr = jax.make_jaxpr(traced)([v.value for v in variables], [spec(leaf) for leaf in leaves])
    return JaxprFacts(jaxpr, variables, [len(jax.tree.leaves(leaf)) for leaf in leaves], frames[0].labelled)
