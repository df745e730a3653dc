"""What `fit` feeds to a train function of TensorFlow: its first batch, and the first samples of that."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from .. import FirstCall
from ..undocumented import first_of_fit, in_place_of_train_function, updates_per_call


def stand_in(model: Any, begin: Callable[[FirstCall], None]) -> Callable[[], None]:
    """See `Engine`."""

    def first(train: Callable[..., Any], iterator: Any) -> Any:
        runs_python = _runs_python(iterator)
        batch, iterator = _take_batch(iterator, updates_per_call(model))
        if batch is not None:
            begin(FirstCall(batch, runs_python, train, iterator))
        return train(iterator)

    return in_place_of_train_function(model, first)


def _take_batch(iterator: Any, count: int) -> tuple[Any, Any]:
    """The next batch of `fit`'s iterator, None at its end, and an iterator that begins with it again.

    The second iterator has the element type of the first, so that the model's train function, which is traced for that
    type, is not traced again for it. It holds the next `count` batches alone: what one call of the train function
    consumes.

    Args:
        iterator: What `fit` hands to `model.train_function`.
        count: How many batches one call of the train function consumes.
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


def first_batch(x: Any, y: Any, sample_weight: Any, size: int) -> Any:
    """See `Engine`."""
    return first_of_fit(x, y, sample_weight, size, "get_tf_dataset")


def _runs_python(iterator: Any) -> bool:
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


def first_samples(batch: Any, size: int | None) -> Any:
    """See `Engine`. Of the first replica, where the batch is spread over several."""

    def take(leaf: Any) -> Any:
        if isinstance(leaf, tf.distribute.DistributedValues):
            leaf = leaf.values[0]
        if leaf is None or isinstance(leaf, tf.experimental.Optional):
            return None
        if isinstance(leaf, tf.SparseTensor):
            return leaf if size is None else tf.sparse.slice(leaf, [0] * len(leaf.shape), [size, *leaf.dense_shape[1:]])
        leaf = leaf if isinstance(leaf, tf.RaggedTensor) else tf.convert_to_tensor(leaf)
        return leaf if leaf.shape.rank == 0 or size is None else leaf[:size]

    return keras.tree.map_structure(take, batch)
