"""What `fit` feeds to a train function of PyTorch: its first batch, and the first samples of that."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any

import keras
import torch

from .. import FirstCall
from ..undocumented import first_of_fit, in_place_of_train_function
from .state import torch_states_kept


def stand_in(model: Any, begin: Callable[[FirstCall], None]) -> Callable[[], None]:
    """See `Engine`. Whether Python makes batches beside cannot be asked of them; that takes a thread."""

    def first(train: Callable[..., Any], data: Any) -> Any:
        begin(FirstCall(data[0], threading.active_count() > 1, train, data))
        return train(data)

    return in_place_of_train_function(model, first)


def first_batch(x: Any, y: Any, sample_weight: Any, size: int) -> Any:
    """See `Engine`. A loader of PyTorch draws for its workers and its order, which it is to draw again."""
    with torch_states_kept(), _generators_kept(x):
        return first_of_fit(x, y, sample_weight, size, "get_torch_dataloader")


@contextlib.contextmanager
def _generators_kept(loader: Any) -> Iterator[None]:
    """Puts back the generators of a loader and of its sampler."""
    held = [getattr(part, "generator", None) for part in (loader, getattr(loader, "sampler", None))]
    states = [(one, one.get_state()) for one in held if isinstance(one, torch.Generator)]
    try:
        yield
    finally:
        for generator, state in states:
            generator.set_state(state)


def first_samples(batch: Any, size: int | None) -> Any:
    """See `Engine`."""

    def take(leaf: Any) -> Any:
        if leaf is None:
            return None
        leaf = keras.ops.convert_to_tensor(leaf)
        return leaf if leaf.ndim == 0 or size is None else leaf[:size]

    return keras.tree.map_structure(take, batch)
