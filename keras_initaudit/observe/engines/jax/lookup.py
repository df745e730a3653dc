"""Of the gradient of a table, which is as large as the table, the rows that were looked up in the step."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp


class LookedUp(NamedTuple):
    """The gradient of a table, and what was looked up in it."""

    gradient: Any
    rows: list[Any]
    """Their numbers, of each look-up."""


@jax.tree_util.register_pytree_node_class
class Rows:
    """Rows of a gradient; how many there are is known on the host alone, and so some of them are to be left out there.

    Args:
        values: `[rows, units]`.
        kept: Which of them count.
    """

    def __init__(self, values: Any, kept: Any) -> None:
        self.values, self.kept = values, kept

    def __getitem__(self, key: slice) -> Rows:
        return Rows(self.values[key], self.kept[key])

    def tree_flatten(self) -> tuple[tuple[Any, Any], None]:
        """What JAX takes it for."""
        return (self.values, self.kept), None

    @classmethod
    def tree_unflatten(cls, _: None, children: tuple[Any, Any]) -> Rows:
        """What JAX makes of it."""
        return cls(*children)


def rows_of(gradient: Any) -> tuple[Any, int | None] | None:
    """See `Engine`. Of a table that nothing is done with but to look up; those that were not looked up are zero."""
    if not isinstance(gradient, LookedUp):
        return None
    numbers = jnp.concatenate([jnp.reshape(rows, -1) for rows in gradient.rows]).astype("int32")
    found = jnp.unique(numbers, size=numbers.size, fill_value=-1)
    return Rows(jnp.take(gradient.gradient, found, axis=0, mode="clip"), found >= 0), numbers.size


def dense(gradient: Any) -> Any:
    """See `Engine`."""
    return gradient.gradient if isinstance(gradient, LookedUp) else gradient
