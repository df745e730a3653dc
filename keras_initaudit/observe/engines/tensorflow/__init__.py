"""TensorFlow: the functions of the engine.

`step` runs the step, on a `frame`; `state` puts back what it changes; `data` feeds it; `training` makes real updates.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from .data import first_batch as first_batch
from .data import first_samples as first_samples
from .data import stand_in as stand_in
from .step import GraphRunner
from .step import follow as follow
from .step import replicas as replicas
from .step import runner as runner
from .training import GraphUpdates


def attached(model: Any) -> contextlib.AbstractContextManager[None]:
    """See `Engine`."""
    del model
    return contextlib.nullcontext()


def is_tensor(x: Any) -> bool:
    """See `Engine`."""
    return isinstance(x, tf.Tensor)


def shape(x: Any) -> tuple[int | None, ...] | None:
    """See `Engine`."""
    return None if x.shape.rank is None else tuple(x.shape.as_list())


def gather(x: Any, rows: npt.NDArray[np.int32]) -> Any:
    """See `Engine`."""
    return tf.gather(x, rows)


def dense(gradient: Any) -> Any:
    """See `Engine`."""
    return tf.convert_to_tensor(gradient)


def rows_of(gradient: Any) -> tuple[Any, int | None] | None:
    """See `Engine`. Of a table, the rows that the batch looked up; those that it did not look up are zero."""
    if not isinstance(gradient, tf.IndexedSlices):
        return None
    _, places = tf.unique(tf.reshape(gradient.indices, [-1]))
    values = tf.reshape(gradient.values, [-1, gradient.values.shape[-1]])
    return tf.math.unsorted_segment_sum(values, places, tf.reduce_max(places) + 1), gradient.values.shape[0]


def updates(runner: GraphRunner, batch: Any, train: Callable[[Any], Any] | None, iterator: Any) -> GraphUpdates:
    """See `Engine`."""
    return GraphUpdates(runner, batch, train, iterator)
