"""What the operations of a step on PyTorch say: what flows where, and what weights are for.

PyTorch keeps no graph of a step but for its gradients. A `TorchDispatchMode` sees each operation of ATen, below all
that is written in Python: also those within functions of `torch.nn.functional`, of custom gradients and of `vmap`. Each
tensor that an operation gives out gets a number; what is written in place gets another one, and with it the tensor that
it is a view of. What runs in the backward pass, and for statistics, is left out.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from .. import Use
from ..undocumented import runs_backward


class Operation(NamedTuple):
    """One operation of ATen."""

    name: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    arguments: tuple[Any, ...]
    """Its numbers among the arguments, as the slope of a leaky ReLU."""


class Value(NamedTuple):
    """What a tensor was when it was given out."""

    producer: int | None
    """The number of the operation; None of what was there before."""
    kind: str
    """`float`, `integer` or `bool`."""
    size: int


class Trace(TorchDispatchMode):
    """The operations within a block, in their order."""

    def __init__(self) -> None:
        super().__init__()
        self.operations: list[Operation] = []
        self.values: list[Value] = []
        self._sources: dict[int, int] = {}
        self._held: list[Any] = []  # so that no other tensor gets the id of a source
        self._written: dict[int, int] = {}
        self._paused = False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Makes the operation, and writes it down."""
        del types
        found = func(*args, **(kwargs or {}))
        if self._paused or runs_backward():
            return found
        inputs = tuple(self.number(x) for x in _tensors((*args, *(kwargs or {}).values())))
        outputs = tuple(self._given_out(x, len(self.operations)) for x in _tensors((found,)))
        numbers = tuple(x for x in args if isinstance(x, int | float))
        self.operations.append(Operation(func.overloadpacket.__name__, inputs, outputs, numbers))
        if func.overloadpacket.__name__.endswith("_") and outputs:
            self._write(inputs[0], outputs[0])
        return found

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """What is computed in the block is not written down."""
        before, self._paused = self._paused, True
        try:
            yield
        finally:
            self._paused = before

    def number(self, tensor: Any) -> int:
        """That of a tensor as it is now."""
        number = self._sources.get(id(tensor))
        if number is None:
            number = getattr(tensor, _NUMBER, None)
        if number is None or number >= len(self.values):  # that of another trace
            number = self._sources[id(tensor)] = self._new(tensor, None)
            self._held.append(tensor)
        return self._written.get(number, number)

    def _given_out(self, tensor: Any, operation: int) -> int:
        number = self._new(tensor, operation)
        if id(tensor) in self._sources:
            self._sources[id(tensor)] = number
        else:
            setattr(tensor, _NUMBER, number)
        return number

    def _new(self, tensor: Any, producer: int | None) -> int:
        kind = "float" if tensor.dtype.is_floating_point else "bool" if tensor.dtype == torch.bool else "integer"
        self.values.append(Value(producer, kind, tensor.numel()))
        return len(self.values) - 1

    def _write(self, before: int, after: int) -> None:
        """What `before` is a view of has other numbers now, which follow from `after` as well."""
        producer = self.values[before].producer
        while producer is not None and self.operations[producer].name in _VIEWING:
            base = self.operations[producer].inputs[0]
            self._written[base] = after
            producer = self.values[base].producer

    def consumers(self) -> dict[int, list[int]]:
        """Number of a tensor -> the operations that take it."""
        found: dict[int, list[int]] = {}
        for i, operation in enumerate(self.operations):
            for number in dict.fromkeys(operation.inputs):
                found.setdefault(number, []).append(i)
        return found


_NUMBER = "initaudit_number"
"""The attribute by which a tensor is known."""


def _tensors(values: Any) -> Iterator[Any]:
    for value in values:
        if isinstance(value, torch.Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from _tensors(value)


_VIEWING = frozenset(
    {
        "alias",
        "as_strided",
        "detach",
        "expand",
        "permute",
        "select",
        "slice",
        "squeeze",
        "t",
        "transpose",
        "unsqueeze",
        "view",
    }
)
_PASSING = _VIEWING | {
    "_to_copy",
    "_unsafe_view",
    "clone",
    "constant_pad_nd",
    "contiguous",
    "copy",
    "lift_fresh",
    "repeat",
}
"""Operations that leave the numbers of a weight as they are."""
_ADDING = frozenset({"add", "add_", "cat", "stack", "sub", "sub_", "where"})
"""A mask token takes the place of the data: it is selected."""
_GATHERING = frozenset({"embedding", "gather", "index", "index_select", "take"})
_ENCODING = frozenset({"scatter", "scatter_"})
"""`one_hot` writes a one where an integer says."""
_PRODUCTS = ("mm", "bmm", "addmm", "baddbmm", "addbmm", "mv", "dot", "conv", "attention")
_WITH_BIAS = {"addmm": 0, "baddbmm": 0, "addmv": 0, "convolution": 2}
"""Products that add something as well -> which of their inputs that is."""
_FORGETTING = frozenset({"empty_like", "full_like", "new_empty", "new_full", "new_ones", "new_zeros", "ones_like"})
_FORGETTING |= {"zeros_like", "rand_like", "randn_like", "bernoulli"}
"""Operations in whose results the values do not matter."""
_RANDOM = ("rand", "normal", "uniform", "bernoulli", "dropout", "multinomial")


class Reading:
    """Questions to a trace that is over."""

    def __init__(self, trace: Trace) -> None:
        self._operations, self._values = trace.operations, trace.values
        self._consumers = trace.consumers()

    def above(self, number: int, known: dict[int, int]) -> Iterator[int]:
        """The known tensors that flow into one without passing another; not along a mask."""
        todo, visited = [number], set[int]()
        while todo:
            current = todo.pop()
            producer = self._values[current].producer
            if current in known:
                yield known[current]
            elif producer is not None and producer not in visited:
                visited.add(producer)
                todo.extend(n for n in self._operations[producer].inputs if self._values[n].kind != "bool")

    def uses(self, data: Sequence[int], outputs: Collection[int], weights: dict[int, int]) -> dict[int, Use]:
        """Id of a weight -> what the step does with it; nothing of a weight that it does not touch.

        Args:
            data: The tensors of the batch.
            outputs: What the observed layers gave out: what reaches one of these is a signal.
            weights: Id of a weight -> the number of its tensor.
        """
        dependent = self._dependent(set(data))
        found = {key: self._use(number, dependent, outputs) for key, number in weights.items()}
        return {key: use for key, use in found.items() if use is not None}

    def _dependent(self, data: set[int]) -> set[int]:
        """The tensors whose values follow from the data, or from random numbers that take its place."""
        found = set(data)
        for operation in self._operations:
            random = any(part in operation.name for part in _RANDOM)
            if random or (operation.name not in _FORGETTING and not found.isdisjoint(operation.inputs)):
                found.update(operation.outputs)
        return found

    def _use(self, weight: int, dependent: set[int], outputs: Collection[int]) -> Use | None:
        seen: set[int] = set()
        todo, evidence = [weight], set[Use]()
        while todo:
            number = todo.pop()
            if number in outputs:
                evidence.add("other")
                continue
            for i in self._consumers.get(number, ()):
                operation = self._operations[i]
                if i in seen or operation.name in _FORGETTING:
                    continue
                seen.add(i)
                if operation.name in _GATHERING and number == operation.inputs[0]:
                    if not dependent.isdisjoint(operation.inputs[1:]):
                        evidence.add("table")
                    elif self._values[operation.outputs[0]].size > self._values[number].size:
                        evidence.add("other")
                    else:
                        todo += operation.outputs
                elif operation.name in _PASSING or operation.name.startswith(("split", "unbind", "chunk")):
                    todo += operation.outputs
                elif self._adds(operation, number):
                    if dependent.isdisjoint(operation.outputs):
                        todo += operation.outputs
                    else:
                        evidence.add("other")
                elif any(product in operation.name for product in _PRODUCTS):
                    return "kernel"
                elif dependent.isdisjoint(operation.outputs):
                    todo += operation.outputs  # another weight, or what this one makes by itself
                else:
                    return "kernel"
        return "table" if "table" in evidence else "other" if evidence else None

    def _adds(self, operation: Operation, number: int) -> bool:
        bias = _WITH_BIAS.get(operation.name)
        if bias is None:
            return operation.name in _ADDING
        return operation.inputs.index(number) == bias and operation.inputs.count(number) == 1

    def looked_up(self, number: int) -> bool:
        """Whether the numbers of a tensor are used only to look something up by them, or to compare them."""
        todo, seen, found = [number], set[int](), False
        while todo:
            current = todo.pop()
            for i in self._consumers.get(current, ()):
                operation = self._operations[i]
                if i in seen or operation.name in _FORGETTING:
                    continue
                seen.add(i)
                kinds = {self._values[n].kind for n in operation.outputs}
                if operation.name in _GATHERING | _ENCODING and current != operation.inputs[0]:
                    found = True
                elif operation.name in _PASSING or kinds == {"integer"}:
                    todo += operation.outputs
                elif kinds - {"bool"}:  # what is read out as a number of Python leaves no tensor
                    return False
        return found

    def activation(self, number: int) -> str | None:
        """The activation that an operation outside of any layer applies to a tensor."""
        todo = [number]
        while todo:
            for i in self._consumers.get(todo.pop(), ()):
                operation = self._operations[i]
                if operation.name == "sigmoid" and self._multiplied(number, operation.outputs[0]):
                    return "silu"  # x * sigmoid(x)
                if operation.name == "leaky_relu":
                    return f"leaky_relu({_after(operation, 0, 0.01):.6g})"
                if operation.name == "elu":
                    return "elu" if _after(operation, 1, 1.0) == 1.0 else "selu"
                if operation.name == "hardtanh" and operation.arguments == (0.0, 6.0):
                    return "relu6"
                if operation.name in _ACTIVATIONS:
                    return operation.name
                if operation.name in _KEEPING or self._adds_a_bias(operation):
                    todo.extend(operation.outputs)
        return None

    def _multiplied(self, left: int, right: int) -> bool:
        return any(
            self._operations[i].name == "mul" and right in self._operations[i].inputs for i in self._consumers[left]
        )

    def _adds_a_bias(self, operation: Operation) -> bool:
        """Whether something that was there before is added."""
        return operation.name == "add" and any(self._values[n].producer is None for n in operation.inputs)

    def sums(self, known: dict[int, int]) -> Iterator[tuple[set[int], ...]]:
        """The additions whose terms all come from the inputs or from taps."""
        for operation in self._operations:
            if operation.name in ("add", "add_") and self._values[operation.outputs[0]].kind == "float":
                terms = tuple(self._origins(number, known) for number in operation.inputs)
                if len(terms) > 1 and all(terms):
                    yield terms

    def _origins(self, number: int, known: dict[int, int]) -> set[int]:
        found, todo, seen = set[int](), [number], set[int]()
        while todo:
            current = todo.pop()
            producer = self._values[current].producer
            if current in known:
                found.add(known[current])
            elif producer is not None and producer not in seen:
                seen.add(producer)
                todo.extend(self._operations[producer].inputs)
        return found


_ACTIVATIONS = frozenset({"relu", "sigmoid", "silu", "softplus", "tanh"})
_KEEPING = frozenset({"_to_copy", "_unsafe_view", "alias", "clone", "detach", "view"})


def _after(operation: Operation, place: int, default: float) -> float:
    """A number among the arguments, which are left out where they are the default."""
    return float(operation.arguments[place]) if len(operation.arguments) > place else default
