"""What a jaxpr says of the step that was traced into it: what flows where, and what weights are for.

Functions within it (`jit`, `custom_jvp_call`, `remat`) are read as if their operations stood in their place; loops and
conditions stay one operation each. It is read and never run; nothing here imports JAX.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from .. import Use

TAP = "initaudit-tap:"
"""Beginning of the name that a tap gives to its tensor; its label follows."""
GRADIENT = "initaudit-gradient:"
"""The same for the gradient of a weight; its number follows."""


class Tensor:
    """A value of a jaxpr, what it is made by and what takes it."""

    __slots__ = ("consumers", "maker", "shape", "type")

    def __init__(self, aval: Any) -> None:
        self.shape: tuple[int, ...] = tuple(getattr(aval, "shape", ()))
        self.type = str(getattr(aval, "dtype", ""))
        self.maker: Operation | None = None
        self.consumers: list[Operation] = []


class Operation(NamedTuple):
    """A primitive, with its inputs; None for a number that stands in the jaxpr."""

    kind: str
    inputs: tuple[Tensor | None, ...]
    outputs: tuple[Tensor, ...]
    params: dict[str, Any]
    numbers: tuple[Any, ...]
    """Of each input the number that it is; None of a tensor."""

    def __hash__(self) -> int:
        return id(self)

    def __eq__(self, other: object) -> bool:
        return self is other


class Function(NamedTuple):
    """A function with a name that is called with a tensor: `relu`, `_one_hot`."""

    name: str
    inputs: tuple[Tensor | None, ...]
    numbers: tuple[Any, ...]


class Graph:
    """All operations of a jaxpr, each after those that it takes its inputs from.

    Args:
        jaxpr: A closed one.
    """

    def __init__(self, jaxpr: Any) -> None:
        self.operations: list[Operation] = []
        self.functions: list[Function] = []
        self.taps: dict[int, Operation] = {}
        """Label of each tap -> the operation that names it."""
        self.gradients: dict[int, Operation] = {}
        known: dict[Any, Tensor] = {}
        self.inputs = [known.setdefault(v, Tensor(v.aval)) for v in jaxpr.jaxpr.invars]
        self._read(jaxpr.jaxpr, known)

    def _read(self, jaxpr: Any, known: dict[Any, Tensor]) -> None:
        for constant in jaxpr.constvars:
            known.setdefault(constant, Tensor(constant.aval))
        for eqn in jaxpr.eqns:
            inputs = tuple(None if hasattr(v, "val") else known[v] for v in eqn.invars)
            numbers = tuple(getattr(v, "val", None) for v in eqn.invars)
            inner = _inner(eqn)
            if inner is not None:
                self.functions.append(Function(str(eqn.params.get("name", "")), inputs, numbers))
                self._inline(eqn, inner, inputs, known)
                continue
            outputs = tuple(Tensor(v.aval) for v in eqn.outvars)
            operation = Operation(eqn.primitive.name, inputs, outputs, eqn.params, numbers)
            known.update(zip(eqn.outvars, outputs, strict=True))
            for tensor in outputs:
                tensor.maker = operation
            for tensor in {id(t): t for t in inputs if t is not None}.values():
                tensor.consumers.append(operation)
            self.operations.append(operation)
            if operation.kind == "name":
                label = operation.params["name"]
                for prefix, named in ((TAP, self.taps), (GRADIENT, self.gradients)):
                    if label.startswith(prefix):
                        named[int(label.removeprefix(prefix))] = operation

    def _inline(self, eqn: Any, inner: Any, inputs: Sequence[Tensor | None], known: dict[Any, Tensor]) -> None:
        jaxpr = getattr(inner, "jaxpr", inner)
        within: dict[Any, Tensor] = {}
        for variable, tensor in zip(jaxpr.invars, inputs, strict=True):
            within[variable] = Tensor(variable.aval) if tensor is None else tensor
        self._read(jaxpr, within)
        for outer, variable in zip(eqn.outvars, jaxpr.outvars, strict=True):
            known[outer] = Tensor(outer.aval) if hasattr(variable, "val") else within[variable]

    def depending(self, sources: Iterable[Tensor]) -> set[int]:
        """Ids of the operations whose values follow from these tensors, or from random numbers."""
        from_sources = {id(tensor) for tensor in sources}
        found: set[int] = set()
        for operation in self.operations:
            if operation.kind.startswith("random") or any(
                id(tensor) in from_sources or (tensor.maker is not None and id(tensor.maker) in found)
                for tensor in operation.inputs
                if tensor is not None
            ):
                found.add(id(operation))
        return found


def _inner(eqn: Any) -> Any:
    """The jaxpr of a function that is called once, with the inputs of its call."""
    if eqn.primitive.name not in _CALLS:
        return None
    found = next((eqn.params[name] for name in ("jaxpr", "call_jaxpr", "fun_jaxpr") if name in eqn.params), None)
    jaxpr = getattr(found, "jaxpr", found)
    return found if jaxpr is not None and len(jaxpr.invars) == len(eqn.invars) else None


_CALLS = frozenset(
    {
        "closed_call",
        "core_call",
        "checkpoint",
        "custom_jvp_call",
        "custom_vjp_call",
        "custom_vjp_call_jaxpr",
        "jit",
        "pjit",
        "remat",
        "remat2",
    }
)


# What flows where


def flows(graph: Graph, leaves: dict[int, Tensor]) -> dict[int, tuple[int, ...]]:
    """Label of each tap -> labels of the taps and leaves that flow into it without passing another one.

    Not along a mask, which no signal flows through.
    """
    known = {id(tensor): label for label, tensor in leaves.items()}
    known |= {id(operation.outputs[0]): label for label, operation in graph.taps.items()}
    found = {label: set(_above(operation.inputs[0], known)) for label, operation in graph.taps.items()}
    # In the order of the calls, the data first: the names of the nearest come last.
    return {label: tuple(sorted(sources, key=lambda x: (x >= 0, abs(x)))) for label, sources in found.items()}


def _above(tensor: Tensor | None, known: dict[int, int], *, masks: bool = False) -> Iterator[int]:
    todo, visited = [tensor], set[int]()
    while todo:
        current = todo.pop()
        if current is None:
            continue
        if id(current) in known:
            yield known[id(current)]
        elif current.maker is not None and id(current.maker) not in visited:
            visited.add(id(current.maker))
            todo.extend(x for x in current.maker.inputs if x is not None and (masks or x.type != "bool"))


def sums(graph: Graph, leaves: dict[int, Tensor]) -> Iterator[tuple[set[int], ...]]:
    """The additions whose terms all come from the inputs or from taps."""
    known = {id(tensor): label for label, tensor in leaves.items()}
    known |= {id(operation.outputs[0]): label for label, operation in graph.taps.items()}
    for operation in graph.operations:
        if operation.kind in ("add", "add_any") and "float" in operation.outputs[0].type:
            terms = tuple(set(_above(tensor, known, masks=True)) for tensor in operation.inputs)
            if len(terms) > 1 and all(terms):
                yield terms


def unreached(graph: Graph) -> set[int]:
    """The numbers of the gradients that depend on nothing: zeros of a weight that the loss does not reach."""
    depending = graph.depending(graph.inputs)
    return {number for number, operation in graph.gradients.items() if id(operation) not in depending}


# What a weight is for

_PASSING = frozenset(
    {
        "broadcast_in_dim",
        "convert_element_type",
        "copy",
        "copy_p",
        "expand_dims",
        "name",
        "optimization_barrier",
        "pad",
        "reduce_precision",
        "reshape",
        "rev",
        "sharding_constraint",
        "slice",
        "squeeze",
        "stop_gradient",
        "transpose",
    }
)
"""Operations that leave the numbers of a weight as they are."""
_ADDING = frozenset({"add", "add_any", "concatenate", "select_n", "sub"})
"""A mask token takes the place of the data: it is selected."""
_GATHERING = frozenset({"dynamic_slice", "gather"})
_PRODUCTS = frozenset({"conv_general_dilated", "dot_general"})


def uses(graph: Graph, data: Iterable[Tensor], outputs: Iterable[Tensor], weights: dict[int, Tensor]) -> dict[int, Use]:
    """Id of a weight -> what the step does with it; nothing of a weight that the graph does not show.

    Args:
        graph: That of the step.
        data: The tensors of the batch.
        outputs: What the observed layers gave out: what reaches one of these is a signal.
        weights: Id of a weight -> its tensor.
    """
    dependent = graph.depending(data)
    signals = {id(tensor) for tensor in outputs}
    found = {key: _use(tensor, dependent, signals) for key, tensor in weights.items()}
    return {key: use for key, use in found.items() if use is not None}


def _use(weight: Tensor, dependent: set[int], signals: set[int]) -> Use | None:
    seen: set[int] = set()
    todo, evidence = [weight], set[Use]()
    while todo:
        tensor = todo.pop()
        if id(tensor) in signals:
            evidence.add("other")
            continue
        for op in tensor.consumers:
            if id(op) in seen:
                continue
            seen.add(id(op))
            if op.kind in _GATHERING and tensor is op.inputs[0]:
                if any(x is not None and x.maker is not None and id(x.maker) in dependent for x in op.inputs[1:]):
                    evidence.add("table")
                elif math.prod(op.outputs[0].shape) > math.prod(tensor.shape):
                    evidence.add("other")  # what there is, several times, at places that do not follow from the data
                else:
                    todo += op.outputs
            elif op.kind in _PASSING:
                todo += op.outputs
            elif id(op) not in dependent and op.kind not in _PRODUCTS:
                todo += op.outputs  # another weight, or what this one makes by itself
            elif op.kind in _ADDING:
                evidence.add("other")
            else:
                return "kernel"
    return "table" if "table" in evidence else "other" if evidence else None


def looked_up(graph: Graph, leaf: Tensor) -> bool:
    """Whether the numbers of a leaf are only used to look something up by them, or are compared."""
    seen: set[int] = set()
    todo, found = [leaf], False
    while todo:
        current = todo.pop()
        found = found or any(f.name.endswith("one_hot") and current in f.inputs for f in graph.functions)
        for op in current.consumers:
            if id(op) in seen:
                continue
            seen.add(id(op))
            if op.kind in _GATHERING and current is not op.inputs[0]:
                found = True
            elif op.kind.startswith("scatter") and len(op.inputs) > 1 and current is op.inputs[1]:
                continue  # the gradient of the table
            elif op.kind in _PASSING or all("int" in out.type for out in op.outputs):
                todo += op.outputs
            elif not all(out.type == "bool" for out in op.outputs):
                return False
    return found


# Activations outside of layers

_NAMED = {
    "elu": "elu",
    "relu": "relu",
    "relu6": "relu6",
    "selu": "selu",
    "silu": "silu",
    "soft_sign": "softsign",
    "softplus": "softplus",
}
_KEEPING = frozenset({"broadcast_in_dim", "convert_element_type", "name", "reshape", "stop_gradient"})


def activations(graph: Graph) -> dict[int, str]:
    """Label of a tap -> the activation that an operation outside of any layer applies to it."""
    called: dict[int, list[Function]] = {}
    for function in graph.functions:
        for tensor in function.inputs:
            if tensor is not None:
                called.setdefault(id(tensor), []).append(function)
    found = {label: _raw(operation.outputs[0], called) for label, operation in graph.taps.items()}
    return {label: name for label, name in found.items() if name is not None}


def _raw(tensor: Tensor, called: dict[int, list[Function]]) -> str | None:
    todo = [tensor]
    while todo:
        current = todo.pop()
        for function in called.get(id(current), ()):
            if function.name in _NAMED:
                return _NAMED[function.name]
            if function.name == "leaky_relu":
                return f"leaky_relu({float(function.numbers[1]):.6g})"
        for op in current.consumers:
            read = _READ.get(op.kind)
            name = None if read is None else read(op, current)
            if name is not None:
                return name
            if op.kind in _KEEPING:
                todo += op.outputs
    return None


def _of_maximum(op: Operation, tensor: Tensor) -> str | None:
    other = op.numbers[1] if op.inputs[0] is tensor else op.numbers[0]
    return "relu" if other is not None and getattr(other, "size", 1) == 1 and float(other) == 0.0 else None


def _of_logistic(op: Operation, tensor: Tensor) -> str:
    gated = any(other.kind == "mul" and tensor in other.inputs for other in op.outputs[0].consumers)
    return "silu" if gated else "sigmoid"


_READ: dict[str, Callable[[Operation, Tensor], str | None]] = {
    "tanh": lambda *_: "tanh",
    "max": _of_maximum,
    "logistic": _of_logistic,
}


def leaves_of(graph: Graph, first: int, sizes: Collection[int]) -> list[list[Tensor]]:
    """The inputs from `first` on, in groups of these sizes."""
    found, place = [], first
    for size in sizes:
        found.append(graph.inputs[place : place + size])
        place += size
    return found
