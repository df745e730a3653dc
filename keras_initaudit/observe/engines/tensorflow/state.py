"""What a run of the step changes on TensorFlow, and how it is put back: variables, and every random state."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator
from typing import Any

import tensorflow as tf
from tensorflow.python.eager import context as tf_context

from ..starting import variables_of_training


@contextlib.contextmanager
def variables_kept(variables: list[Any]) -> Iterator[None]:
    """Puts the values of these TensorFlow variables back, on every replica, whatever the block did to them.

    A read shares the variable's buffer and a write gives it another one: keeping costs an operation, no copy.
    """
    held = [part for variable in variables for part in components(variable)]
    values = [read(part) for part in held]
    try:
        yield
    finally:
        for part, value in zip(held, values, strict=True):
            write(part, value)


def read(variable: Any) -> Any:
    """The value of a TensorFlow variable, of which there may be thousands: its own method takes four times as long."""
    return tf.raw_ops.ReadVariableOp(resource=variable.handle, dtype=variable.dtype)


def write(variable: Any, value: Any) -> None:
    """Gives a TensorFlow variable a value; see `read`."""
    tf.raw_ops.AssignVariableOp(resource=variable.handle, value=value)


def components(variable: Any) -> list[Any]:
    """The variable on each replica."""
    return list(variable.values) if isinstance(variable, tf.distribute.DistributedValues) else [variable]


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
    held = [variable.value for variable in variables_of_training(model)]
    return [value for value in held if isinstance(value, tf.Variable)]


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
