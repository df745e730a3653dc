"""What a graph of TensorFlow says of the step that was traced into it: what flows where, and what weights are for.

A layer of a person's own says nothing of itself. The graph of its step does: a position embedding is added, a class
token is put in front of the data, a table is gathered from, and a kernel is what the data is multiplied by. The graph
is read and never run; nothing here imports TensorFlow.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from .. import Use

# What a weight is for

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


def uses(
    operations: Sequence[Any],
    captures: Iterable[Any],
    data: Iterable[Any],
    outputs: Iterable[Any],
    weights: Iterable[Any],
) -> dict[int, Use]:
    """Id of a weight -> what the step does with it; nothing of a weight that the graph does not show.

    Args:
        operations: Those of the step, each after those that it takes its inputs from, without those of statistics.
        captures: Pairs of what the graph of the step takes from outside, and the tensor for it in the graph.
        data: The tensors of the batch.
        outputs: What the observed layers gave out: what reaches one of these is a signal.
        weights: Keras variables.
    """
    handles = {id(handle): inner for handle, inner in captures}
    wanted = {id(w): handles.get(id(getattr(w.value, "handle", None))) for w in weights}
    if not any(handle is not None for handle in wanted.values()):
        return {}
    dependent = _dependent(operations, data)
    signals, step = {id(tensor) for tensor in outputs}, {id(op) for op in operations}
    found = {key: _use(handle, dependent, signals, step) for key, handle in wanted.items() if handle is not None}
    return {key: use for key, use in found.items() if use is not None}


def _dependent(operations: Iterable[Any], data: Iterable[Any]) -> set[int]:
    """Ids of the operations whose values follow from the data, or from random numbers that take its place."""
    sources = {id(tensor.op) for tensor in data if hasattr(tensor, "op")}
    found: set[int] = set()
    for op in operations:
        if op.type not in _FORGETTING and (
            id(op) in sources or "Random" in op.type or any(id(tensor.op) in found for tensor in op.inputs)
        ):
            found.add(id(op))
    return found


def _use(handle: Any, dependent: set[int], signals: set[int], step: set[int]) -> Use | None:
    seen: set[int] = set()
    todo, evidence = [handle], set[Use]()
    while todo:
        tensor = todo.pop()
        if id(tensor) in signals:
            evidence.add("other")
            continue
        for op in tensor.consumers():
            if id(op) in seen or id(op) not in step or op.type in _FORGETTING:
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


def looked_up(tensor: Any, operations: Iterable[Any]) -> bool:
    """Whether these operations use the numbers of a tensor only to look something up by them, or to compare them."""
    seen, step = set[int](), {id(op) for op in operations}
    todo, found = [tensor], False
    while todo:
        current = todo.pop()
        for op in current.consumers():
            if id(op) in seen or id(op) not in step or op.type in _FORGETTING:
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


# What flows where


def above(tensor: Any, known: dict[int, int]) -> Iterator[int]:
    """The known tensors that flow into one without passing another; not along a mask, which no signal flows through."""
    todo, visited = [tensor], set()
    while todo:
        current = todo.pop()
        if id(current) in known:
            yield known[id(current)]
        elif id(current.op) not in visited:
            visited.add(id(current.op))
            todo.extend(x for x in current.op.inputs if x.dtype.name != "bool")


def attention_weights(graph: Any, start: int, inner: Sequence[range]) -> Any:
    """What a softmax gives out that values are multiplied by, as a matrix; see `Frame.attention`."""
    for number, op in enumerate(graph.get_operations()[start:], start):
        if op.type == "Softmax" and not any(number in calls for calls in inner) and _weighs(op.outputs[0]):
            return op.outputs[0]
    return None


_WEIGHING = frozenset({"Cast", "Identity", "Reshape", "Transpose", "Mul", "SelectV2"})
"""Operations between attention weights and the values that they weigh: dropout and changes of shape."""


def _weighs(weights: Any) -> bool:
    if weights.shape.rank not in (3, 4):
        return False
    todo = [weights]
    while todo:
        for op in todo.pop().consumers():
            if op.type.startswith("BatchMatMul") or op.type in ("Einsum", "XlaEinsum"):
                return True
            if op.type in _WEIGHING:
                todo.extend(op.outputs)
    return False


_RAW = {
    "Relu": "relu",
    "Relu6": "relu6",
    "Elu": "elu",
    "Selu": "selu",
    "Tanh": "tanh",
    "Sigmoid": "sigmoid",
    "Softplus": "softplus",
    "Softsign": "softsign",
}
_KEEPING = ("Identity", "Cast", "Reshape", "BiasAdd", "StopGradient", "EnsureShape")


def raw_activation(tensor: Any) -> str | None:
    """The activation that an operation outside of any layer applies to a tensor."""
    todo = [tensor]
    while todo:
        for op in todo.pop().consumers():
            if op.type == "Sigmoid" and any(
                other.type == "Mul" and op.outputs[0] in list(other.inputs) for other in tensor.consumers()
            ):
                return "silu"  # x * sigmoid(x)
            if op.type == "LeakyRelu":
                return f"leaky_relu({op.get_attr('alpha'):.6g})"
            if op.type in _RAW:
                return _RAW[op.type]
            if op.type in _KEEPING:
                todo.extend(op.outputs)
    return None


def sums(operations: Iterable[Any], known: dict[int, int]) -> Iterator[tuple[set[int], ...]]:
    """The additions whose terms all come from the inputs or from taps."""

    def origins(tensor: Any) -> set[int]:
        found, todo, seen = set(), [tensor], set()
        while todo:
            current = todo.pop()
            if id(current) in known:
                found.add(known[id(current)])
            elif id(current.op) not in seen:
                seen.add(id(current.op))
                todo.extend(current.op.inputs)
        return found

    for op in operations:
        if op.type in ("AddV2", "AddN", "Add") and op.outputs[0].dtype.is_floating:
            terms = tuple(origins(tensor) for tensor in op.inputs)
            if len(terms) > 1 and all(terms):
                yield terms
