"""What a traced step does with a weight: does it multiply the data, is it looked up, or is it only added to the data.

A layer of a person's own says nothing of its weights. The graph of its step does: a position embedding is added, a
class token is put in front of the data, a table is gathered from, and a kernel is what the data is multiplied by.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

import tensorflow as tf

Use = Literal["kernel", "table", "other"]
"""Multiplied with data; looked up by data; or added to it, put beside it, given out as it is, picked by position."""

_PASSING = frozenset(
    {
        "BroadcastTo",
        "Cast",
        "ExpandDims",
        "Identity",
        "Pad",
        "PadV2",
        "ReadVariableOp",
        "Reshape",
        "Slice",
        "Snapshot",
        "Squeeze",
        "StopGradient",
        "StridedSlice",
        "Tile",
        "Transpose",
    }
)
"""Operations that leave the numbers of a weight as they are."""
_ADDING = frozenset({"Add", "AddN", "AddV2", "BiasAdd", "Concat", "ConcatV2", "Pack", "Select", "SelectV2", "Sub"})
"""A mask token takes the place of the data: it is selected."""
_GATHERING = frozenset({"Gather", "GatherNd", "GatherV2", "ResourceGather", "ResourceGatherNd"})
_PRODUCTS = ("MatMul", "Einsum", "Conv")
_FORGETTING = frozenset({"Rank", "Shape", "ShapeN", "Size", "VarIsInitializedOp", "VariableShape"})
"""Operations in whose results the values do not matter."""


def uses(graph: Any, data: Iterable[Any], outputs: Iterable[Any], weights: Iterable[Any]) -> dict[int, Use]:
    """Id of a weight -> what the step does with it; nothing of a weight that the graph does not show.

    Args:
        graph: The graph of the step, before any statistics are taken.
        data: The tensors of the batch.
        outputs: What the observed layers gave out: what reaches one of these is a signal.
        weights: Keras variables.
    """
    handles = {id(handle): inner for handle, inner in graph.captures}
    wanted = {id(w): handles.get(id(getattr(w.value, "handle", None))) for w in weights}
    if not any(handle is not None for handle in wanted.values()):
        return {}
    dependent = _dependent(graph, data)
    signals = {id(tensor) for tensor in outputs}
    found = {key: _use(handle, dependent, signals) for key, handle in wanted.items() if handle is not None}
    return {key: use for key, use in found.items() if use is not None}


def _dependent(graph: Any, data: Iterable[Any]) -> set[int]:
    """Ids of the operations whose values follow from the data, or from random numbers that take its place."""
    sources = {id(tensor.op) for tensor in data if isinstance(tensor, tf.Tensor)}
    found: set[int] = set()
    for op in graph.get_operations():  # each after those that it takes its inputs from
        if op.type not in _FORGETTING and (
            id(op) in sources or "Random" in op.type or any(id(tensor.op) in found for tensor in op.inputs)
        ):
            found.add(id(op))
    return found


def _use(handle: Any, dependent: set[int], signals: set[int]) -> Use | None:
    seen: set[int] = set()
    todo, evidence = [handle], set[Use]()
    while todo:
        tensor = todo.pop()
        if id(tensor) in signals:
            evidence.add("other")
            continue
        for op in tensor.consumers():
            if id(op) in seen or op.type in _FORGETTING:
                continue
            seen.add(id(op))
            if op.type in _GATHERING and tensor is op.inputs[0]:
                if any(id(index.op) in dependent for index in op.inputs[1:]):
                    evidence.add("table")
                elif _repeats(op):
                    evidence.add("other")
                else:
                    todo += op.outputs
            elif op.type in _PASSING:
                todo += op.outputs
            elif id(op) not in dependent and not any(product in op.type for product in _PRODUCTS):
                todo += op.outputs  # another weight, or what this one makes by itself
            elif op.type in _ADDING:
                evidence.add("other")
            else:
                return "kernel"
    return "table" if "table" in evidence else "other" if evidence else None


def looked_up(tensor: Any) -> bool:
    """Whether nothing is done with the numbers of a tensor but to look something up by them, or to compare them."""
    seen: set[int] = set()
    todo, found = [tensor], False
    while todo:
        current = todo.pop()
        for op in current.consumers():
            if id(op) in seen or op.type in _FORGETTING:
                continue
            seen.add(id(op))
            if op.type == "OneHot" or (op.type in _GATHERING and current is not op.inputs[0]):
                found = True
            elif op.type in _PASSING or all(out.dtype.is_integer for out in op.outputs):
                todo += op.outputs
            elif not all(out.dtype.is_bool for out in op.outputs):
                return False
    return found


def _repeats(op: Any) -> bool:
    """Whether what is gathered, by places that do not follow from the data, is more than what there was."""
    before, after = op.inputs[0].shape.num_elements(), op.outputs[0].shape.num_elements()
    return before is not None and after is not None and after > before
