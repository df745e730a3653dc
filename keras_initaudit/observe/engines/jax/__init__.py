"""JAX: the functions of the engine.

`step` runs the step, on a `frame`, and reads its `graph`; `state` puts back what it changes; `data` feeds it;
`training` makes real updates.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt

from .data import first_batch as first_batch
from .data import first_samples as first_samples
from .data import stand_in as stand_in
from .lookup import dense as dense
from .lookup import rows_of as rows_of
from .state import attached as attached
from .step import JaxRunner
from .step import follow as follow
from .step import runner as runner
from .training import JaxUpdates


def replicas(model: Any) -> int:
    """See `Engine`."""
    del model
    return 1


def is_tensor(x: Any) -> bool:
    """See `Engine`."""
    return isinstance(x, jax.Array)


def shape(x: Any) -> tuple[int | None, ...] | None:
    """See `Engine`."""
    return tuple(x.shape)


def gather(x: Any, rows: npt.NDArray[np.int32]) -> Any:
    """See `Engine`."""
    return jnp.take(x, rows, axis=0, mode="clip")


def updates(runner: JaxRunner, batch: Any, train: Callable[[Any], Any] | None, iterator: Any) -> JaxUpdates:
    """See `Engine`."""
    return JaxUpdates(runner, batch, train, iterator)
