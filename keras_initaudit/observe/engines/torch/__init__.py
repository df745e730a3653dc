"""PyTorch: the functions of the engine.

`step` runs the step, on a `frame` whose operations `graph` reads; `state` puts back what it changes; `data` feeds it;
`training` makes real updates.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from .data import first_batch as first_batch
from .data import first_samples as first_samples
from .data import stand_in as stand_in
from .frame import ROWS
from .step import TorchRunner
from .step import follow as follow
from .step import replicas as replicas
from .step import runner as runner
from .training import TorchUpdates


def attached(model: Any) -> contextlib.AbstractContextManager[None]:
    """See `Engine`."""
    del model
    return contextlib.nullcontext()


def is_tensor(x: Any) -> bool:
    """See `Engine`."""
    return isinstance(x, torch.Tensor)


def shape(x: Any) -> tuple[int | None, ...] | None:
    """See `Engine`."""
    return tuple(x.shape)


def gather(x: Any, rows: npt.NDArray[np.int32]) -> Any:
    """See `Engine`."""
    return x[torch.as_tensor(rows, dtype=torch.long, device=x.device)]


def dense(gradient: Any) -> Any:
    """See `Engine`."""
    return gradient


def rows_of(gradient: Any) -> tuple[Any, int | None] | None:
    """See `Engine`. Of a table that is nothing but looked up, these rows, in the order in which they were first."""
    looked_up = getattr(gradient, ROWS, None)
    if looked_up is None:
        return None
    every = np.concatenate([rows.detach().cpu().numpy().ravel() for rows in looked_up])
    _, first = np.unique(every, return_index=True)
    values = gather(gradient, every[np.sort(first)])
    if int(torch.count_nonzero(gradient)) > int(torch.count_nonzero(values)):
        return None
    return values, len(every)


def updates(runner: TorchRunner, batch: Any, train: Callable[[Any], Any] | None, iterator: Any) -> TorchUpdates:
    """See `Engine`."""
    del iterator
    return TorchUpdates(runner, batch, in_fit=train is not None)
