"""What `fit` feeds to a train function of JAX: its first batch, and the first samples of that."""

from __future__ import annotations

import itertools
import types
from collections.abc import Callable
from typing import Any

import jax
import keras
import numpy as np
from keras.src.trainers.data_adapters.py_dataset_adapter import PyDatasetAdapter

from .. import FirstCall
from ..undocumented import first_of_fit, in_place_of_train_function
from .state import begin_with


def stand_in(model: Any, begin: Callable[[FirstCall], None]) -> Callable[[], None]:
    """See `Engine`."""

    def first(train: Callable[..., Any], state: Any, iterator: Any) -> Any:
        runs_python = _runs_python(iterator)
        batch = next(iterator, None)
        if batch is not None:
            iterator = itertools.chain([batch], iterator)
            call = FirstCall(batch, runs_python, train, iterator)
            state = begin_with(model, state, lambda: begin(call))
        return train(state, iterator)

    return in_place_of_train_function(model, first)


def first_batch(x: Any, y: Any, sample_weight: Any, size: int) -> Any:
    """See `Engine`."""
    return first_of_fit(x, y, sample_weight, size, "get_jax_iterator")


def _runs_python(iterator: Any) -> bool:
    """Whether Python functions may run in threads of their own to make the batches of `fit`'s iterator.

    Of a dataset of another library it is assumed. What a generator holds on to, says what it iterates over.
    """
    while isinstance(iterator, types.GeneratorType) and iterator.gi_frame is not None:
        held = list(iterator.gi_frame.f_locals.values())
        if any(isinstance(value, PyDatasetAdapter) and value.py_dataset.workers > 0 for value in held):
            return True
        if any(type(value).__module__.split(".")[0] in _THREADED for value in held):
            return True
        inner = [value for value in held if isinstance(value, types.GeneratorType) and value is not iterator]
        iterator = inner[0] if inner else None
    return False


_THREADED = ("grain", "tensorflow", "torch")


def first_samples(batch: Any, size: int | None) -> Any:
    """See `Engine`. The same on every device, where the data is distributed."""

    def take(leaf: Any) -> Any:
        if leaf is None:
            return None
        if hasattr(leaf, "todense"):
            return leaf if size is None else leaf[:size]
        leaf = on_host(leaf)
        return placed(leaf if not leaf.ndim or size is None else leaf[:size])

    return keras.tree.map_structure(take, batch)


def on_host(x: Any) -> Any:
    """An array as numpy has it; of one that is spread over processes, all of it."""
    if isinstance(x, jax.Array) and not x.is_fully_addressable:
        if x.is_fully_replicated:
            return np.asarray(x.addressable_data(0))
        from jax.experimental import multihost_utils

        return np.asarray(multihost_utils.process_allgather(x, tiled=True))
    return np.asarray(x)


def placed(x: Any) -> Any:
    """An array on the device, or the same on each of the devices that `keras.distribution` uses."""
    distribution = keras.distribution.distribution()
    if distribution is None:
        return jax.device_put(x)
    mesh = distribution.device_mesh.backend_mesh
    everywhere = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    return jax.make_array_from_callback(x.shape, everywhere, lambda index: x[index])
