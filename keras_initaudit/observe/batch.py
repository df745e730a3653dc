"""The batch that is probed: taken from what `fit` was given, without the training missing it."""

from __future__ import annotations

import functools
import itertools
from typing import Any

import keras
import tensorflow as tf
from keras.src.trainers.data_adapters import get_data_adapter


def take_batch(iterator: Any, count: int) -> tuple[Any, Any]:
    """The next batch of `fit`'s iterator, and an iterator that begins with it again.

    The second one has the element type of the first, so that the model's train function, which is traced for that type,
    is not traced again for it. It holds the next `count` batches alone: what one call of the train function consumes.

    Args:
        iterator: What `fit` hands to `model.train_function`.
        count: `model.steps_per_execution`.

    Returns:
        The batch, None where the iterator has ended; the iterator to use instead.
    """
    if not isinstance(iterator, tf.data.Iterator):  # distributed: its batches live on several devices
        batch = next(iterator, None)
        return batch, iterator if batch is None else itertools.chain([batch], iterator)
    batches: list[Any] = []
    while len(batches) < count and (optional := iterator.get_next_as_optional()).has_value():
        batches.append(optional.get_value())
    if not batches:
        return None, iterator
    datasets = [tf.data.Dataset.from_tensors(batch) for batch in batches]
    joined = functools.reduce(lambda left, right: left.concatenate(right), datasets)
    variant = tf.data.experimental.to_variant(joined)
    return batches[0], iter(tf.data.experimental.from_variant(variant, iterator.element_spec))


def first_batch(x: Any, y: Any = None, sample_weight: Any = None, *, size: int) -> Any:
    """The first batch of anything that `fit` takes, as `train_step` would get it; None where there is no data."""
    adapter = get_data_adapter(x=x, y=y, sample_weight=sample_weight, batch_size=size, shuffle=False)
    adapter.on_epoch_begin()
    try:
        return next(iter(adapter.get_tf_dataset()), None)
    finally:
        adapter.on_epoch_end()


def runs_python(iterator: Any) -> bool:
    """Whether Python functions may run in threads of their own to make the batches of `fit`'s iterator.

    Of a dataset whose functions cannot be looked at, it is assumed.
    """
    datasets: list[Any] = [getattr(iterator, "_dataset", None)]
    try:
        while datasets:
            dataset = datasets.pop()
            for function in dataset._functions():
                graph = function.function.graph.as_graph_def()
                nodes = itertools.chain(graph.node, *(inner.node_def for inner in graph.library.function))
                if any("PyFunc" in node.op for node in nodes):
                    return True
            datasets.extend(dataset._inputs())
    except Exception:  # names that TensorFlow does not document
        return True
    return False


def fixed_batch_size(model: Any) -> int | None:
    """The size of the batches that a built model works with, where it works with one size only and says so."""
    sizes = [tensor.shape[0] for tensor in getattr(model, "inputs", None) or () if tensor.shape]
    for layer in model._flatten_layers():
        if isinstance(layer, keras.layers.RNN) and layer.stateful:
            sizes += [state.shape[0] for state in keras.tree.flatten(layer.states or ())]
    return next((int(size) for size in sizes if size), None)


def first_samples(data: Any, size: int | None) -> Any:
    """The first `size` samples (None: all) of a batch as `fit` hands it to `train_step`; of one replica, if spread."""

    def take(leaf: Any) -> Any:
        if isinstance(leaf, tf.distribute.DistributedValues):
            leaf = leaf.values[0]
        if leaf is None or isinstance(leaf, tf.experimental.Optional):
            return None
        if isinstance(leaf, tf.SparseTensor):
            return leaf if size is None else tf.sparse.slice(leaf, [0] * len(leaf.shape), [size, *leaf.dense_shape[1:]])
        leaf = leaf if isinstance(leaf, tf.RaggedTensor) else tf.convert_to_tensor(leaf)
        return leaf if leaf.shape.rank == 0 or size is None else leaf[:size]

    return keras.tree.map_structure(take, data)


def batch_size(batch: Any) -> int:
    """Number of samples in a batch."""
    sizes = [leaf.shape[0] for leaf in keras.tree.flatten(batch) if isinstance(leaf, tf.Tensor) and leaf.shape.rank]
    return int(sizes[0] or 0) if sizes else 0


def unpack(batch: Any) -> tuple[Any, Any, Any]:
    """(x, y, sample_weight) of a batch; None for what it has not."""
    unpacked: tuple[Any, Any, Any] = keras.utils.unpack_x_y_sample_weight(batch)
    return unpacked
