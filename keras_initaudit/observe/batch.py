"""The batch that is looked at: the first samples of what `fit` is given."""

from __future__ import annotations

from typing import Any

import keras

from ..layers.inside import with_layers_below
from .engines import engine


def first_batch(x: Any, y: Any = None, sample_weight: Any = None, *, size: int) -> Any:
    """The first batch of anything that `fit` takes, as `train_step` would get it; None where there is no data."""
    return engine().first_batch(x, y, sample_weight, size)


def first_samples(batch: Any, size: int | None) -> Any:
    """The first `size` samples (None: all) of a batch as `fit` hands it to `train_step`; of one replica, if spread."""
    return engine().first_samples(batch, size)


def fixed_batch_size(model: Any) -> int | None:
    """The size of the batches that a built model works with, where it works with one size only and says so."""
    sizes = [tensor.shape[0] for tensor in getattr(model, "inputs", None) or () if tensor.shape]
    for layer in with_layers_below(model):
        if isinstance(layer, keras.layers.RNN) and layer.stateful:
            sizes += [state.shape[0] for state in keras.tree.flatten(layer.states or ())]
    return next((int(size) for size in sizes if size), None)


def batch_size(batch: Any) -> int:
    """Number of samples in a batch."""
    sizes = [leaf.shape[0] for leaf in keras.tree.flatten(batch) if engine().is_tensor(leaf) and len(leaf.shape)]
    return int(sizes[0] or 0) if sizes else 0


def unpack(batch: Any) -> tuple[Any, Any, Any]:
    """(x, y, sample_weight) of a batch; None for what it has not."""
    unpacked: tuple[Any, Any, Any] = keras.utils.unpack_x_y_sample_weight(batch)
    return unpacked
