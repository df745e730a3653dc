"""What a run of the step changes on TensorFlow, and how it is put back: variables, and every random state."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator
from typing import Any

import keras
import tensorflow as tf
from tensorflow.python.eager import context as tf_context

from ..undocumented import optimizer_state


@contextlib.contextmanager
def variables_kept(variables: list[Any]) -> Iterator[None]:
    """Puts the values of these TensorFlow variables back, whatever the block did to them.

    A read shares the variable's buffer and a write gives it another one: keeping costs an operation, no copy.
    """
    values = [variable.read_value() for variable in variables]
    try:
        yield
    finally:
        for variable, value in zip(variables, values, strict=True):
            variable.assign(value, read_value=False)


_READS = frozenset({"ReadVariableOp", "ResourceGather", "ResourceGatherNd", "VariableShape", "VarIsInitializedOp"})
"""Operations that take a variable and leave it as it is."""


def written_variables(graph: Any) -> list[Any]:
    """The variables that a traced graph may write: those that it hands to any operation that does more than read."""
    outer = {id(inner): id(handle) for handle, inner in graph.captures}
    written = {
        outer.get(id(tensor))
        for op in graph.get_operations()
        if op.type not in _READS
        for tensor in op.inputs
        if tensor.dtype == tf.resource
    }
    return [variable for variable in graph.variables if id(variable.handle) in written]


def all_variables(model: Any) -> list[Any]:
    """The TensorFlow variables of a model, its metrics and its optimizers, once each."""
    held = [*model.variables, *model.metrics_variables]
    for value in vars(model).values():
        members = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else [value]
        for member in members:
            if isinstance(member, keras.optimizers.Optimizer):
                held.extend(optimizer_state(member) if member.built else member.variables)
    return list({id(v): v.value for v in held if isinstance(v.value, tf.Variable)}.values())


@contextlib.contextmanager
def eager_seeds_kept() -> Iterator[None]:
    """Gives TensorFlow's eager random operations another seed, until the end of the block.

    An operation with a seed keeps its counter in a kernel that it shares with all operations of the same seed: with
    the seeds of the training, the training would find that counter changed.
    """
    context = tf_context.context()
    names = ("_seed", "_rng")
    kept = {name: vars(context)[name] for name in names if name in vars(context)}
    context._seed, context._rng = _AUDIT_SEED, random.Random(_AUDIT_SEED)
    try:
        yield
    finally:
        for name in names:
            vars(context).pop(name, None)
        vars(context).update(kept)


_AUDIT_SEED = 0x1217A0D1
"""A seed that nobody else is likely to use."""
