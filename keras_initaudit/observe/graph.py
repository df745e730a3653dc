"""What stands where in a model, for a start: each kernel, what it feeds, and the residual branches and chains it is in.

The model is looked at as the probe does it: its forward pass is traced, and the graph followed from layer to layer, so
that an addition or an activation written in a model's own `call` is seen. Nothing is computed, and no weight is read.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from typing import Any

import keras

from ..layers import catalogue
from ..theory.gains import activation_name, facts
from . import describe


def places(model: Any, x: Any = None) -> list[Place]:
    """Every kernel of a built model, in the order in which the kernels are called, those that are not called last.

    Args:
        model: A built model.
        x: A batch of its inputs, for a model that does not know their shape.
    """
    return _ordered(model, _look(model, x))


@dataclass(eq=False)
class Place:
    """One kernel of the model, and what is known of its surroundings."""

    path: str
    name: str
    owner: Any
    variable: Any
    activation: Any = None
    """What the kernel feeds: a canonical name, or a function of the person's own that has a gain; else None."""
    branches: int = 1
    """Of the last kernel of an unnormalised residual branch, how many such branches there are; else 1."""
    head: bool = False
    """Whether no kernel comes after it."""
    first: bool = False
    """Whether no kernel comes before it."""
    depth: int = 1
    """Of a kernel in a chain that nothing normalises or leads round: number of such kernels with its activation."""

    @property
    def recurrent(self) -> bool:
        """Whether it feeds a state back."""
        return self.name.endswith("recurrent_kernel")


@dataclass(eq=False)
class Graph:
    """The calls of one forward pass, in order, and which one's output flows into which."""

    layers: list[Any]
    above: list[set[int]]
    """Of each call, the calls whose outputs flow into it without passing another one."""
    raw: dict[int, str] = field(default_factory=dict)
    """Of a call, the activation that is applied to its output outside of any layer."""
    sums: list[tuple[set[int], ...]] = field(default_factory=list)
    """Of each addition, the calls (-1: the inputs) that flow into each of its terms."""

    def below(self, call: int) -> list[int]:
        """The calls that one call's output flows into."""
        return [index for index, sources in enumerate(self.above) if call in sources]

    def ancestors(self, calls: set[int]) -> set[int]:
        """The calls, and all that flows into them from however far."""
        found, todo = set(calls), list(calls)
        while todo:
            call = todo.pop()
            new = (self.above[call] if call >= 0 else set()) - found
            found |= new
            todo += new
        return found


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
_PASSING = ("Identity", "Cast", "Reshape", "BiasAdd", "StopGradient", "EnsureShape")


def _look(model: Any, x: Any) -> Graph:
    """Follows one forward pass through its graph; where it cannot be traced, the layers in their order."""
    if keras.backend.backend() == "tensorflow":
        try:
            return _traced(model, x)
        except Exception as error:  # a model whose call wants more than its inputs, or cannot be traced
            warnings.warn(
                f"the graph of {model.name!r} could not be followed ({type(error).__name__}: {error}); its layers are "
                "taken in their order, and residual branches are not scaled",
                stacklevel=5,
            )
    layers = [layer for layer in model._flatten_layers(include_self=False, recursive=True) if not layer._layers]
    return Graph(layers, [{index - 1} if index else set() for index in range(len(layers))])


def _traced(model: Any, x: Any) -> Graph:
    import tensorflow as tf

    from .taps import Recording

    graph = Graph([], [])
    activations = describe.activations(model)

    def forward(inputs: Any) -> Any:
        recording = Recording(model, tf.compat.v1.get_default_graph(), activations=activations)
        with recording.installed():
            result = model(inputs, training=False)
        calls = recording.calls
        paths = [str(index) for index in range(len(calls))]
        entries = keras.tree.flatten(inputs)
        sources = describe.sources(calls, [("-1", tensor) for tensor in entries], paths)
        graph.layers = [call.layer for call in calls]
        graph.above = [{int(path) for path in above} for above in sources]
        known = {id(tensor): "-1" for tensor in entries}
        known |= {id(call.output): path for call, path in zip(calls, paths, strict=True) if call.output is not None}
        for index, call in enumerate(calls):
            if call.output is not None:
                name = _raw_activation(call.output)
                if name is not None:
                    graph.raw[index] = name
        graph.sums = list(_sums(tf.compat.v1.get_default_graph(), known))
        return result

    spec = x if x is not None else _inputs(model)
    tf.function(forward, autograph=False).get_concrete_function(spec)
    return graph


def _inputs(model: Any) -> Any:
    import tensorflow as tf

    inputs = getattr(model, "_inputs_struct", None)
    if inputs is not None:
        return keras.tree.map_structure(lambda tensor: tf.TensorSpec(tensor.shape, tensor.dtype), inputs)
    if getattr(model, "inputs", None):
        specs = [tf.TensorSpec(tensor.shape, tensor.dtype) for tensor in model.inputs]
        return specs[0] if len(specs) == 1 else specs
    shape = (model.get_build_config() or {}).get("input_shape")
    if shape is None:
        raise ValueError("the shape of its inputs is not known; give x")
    return tf.TensorSpec((None, *shape[1:]), model.compute_dtype)


def _raw_activation(tensor: Any) -> str | None:
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
            if op.type in _PASSING:
                todo.extend(op.outputs)
    return None


def _sums(graph: Any, known: dict[int, str]) -> Any:
    """The additions of a graph whose terms all come from the inputs or from layers."""

    def origins(tensor: Any) -> set[int]:
        found, todo, seen = set(), [tensor], set()
        while todo:
            current = todo.pop()
            if id(current) in known:
                found.add(int(known[id(current)]))
            elif id(current.op) not in seen:
                seen.add(id(current.op))
                todo.extend(current.op.inputs)
        return found

    for op in graph.get_operations():
        if op.type in ("AddV2", "AddN", "Add") and op.outputs[0].dtype.is_floating:
            terms = tuple(origins(tensor) for tensor in op.inputs)
            if len(terms) > 1 and all(terms):
                yield terms


_NORMALISING = (
    "BatchNormalization",
    "LayerNormalization",
    "GroupNormalization",
    "RMSNormalization",
    "UnitNormalization",
)


def _normalises(layer: Any) -> bool:
    return type(layer).__name__ in _NORMALISING or "Normalization" in type(layer).__name__


def _ordered(model: Any, graph: Graph) -> list[Place]:
    """Every kernel of the model, those that the graph calls first and in its order."""
    names: dict[int, str] = {}
    places: dict[int, Place] = {}
    for layer in model._flatten_layers():
        for name, owner, attribute in catalogue.own_kernels(layer):
            variable = getattr(owner, attribute)
            names[id(variable)] = variable.path
            places.setdefault(id(variable), Place(variable.path, name, owner, variable))
    calls: dict[int, int] = {}
    order: list[int] = []
    for index, layer in enumerate(graph.layers):
        for inner in layer._flatten_layers():
            for _, owner, attribute in catalogue.own_kernels(inner):
                key = id(getattr(owner, attribute))
                if key not in calls:
                    calls[key] = index
                    order.append(key)
    last = _branch_ends(graph, {calls[key] for key in order})
    with_kernel = set(calls.values())
    for key in order:
        place, call = places[key], calls[key]
        place.activation = _activation(graph, call, place.owner, place.name, with_kernel)
        place.branches = last.get(call, 1)
        below = set(graph.below(call))
        reached = set(below)
        while below:
            below = {child for call in below for child in graph.below(call)} - reached
            reached |= below
        place.head = not reached & with_kernel
        place.first = not (graph.ancestors({call}) - {call}) & with_kernel
    _count_chains(graph, [(calls[key], places[key]) for key in order])
    return [places[key] for key in order] + [place for key, place in places.items() if key not in calls]


def _count_chains(graph: Graph, called: list[tuple[int, Place]]) -> None:
    bypassed: set[int] = set()
    for terms in graph.sums:
        ancestry = [graph.ancestors(term) for term in terms]
        bypassed |= {call for one in ancestry for call in one if not all(call in other for other in ancestry)}
    chains: dict[str | None, list[Place]] = {}
    for call, place in called:
        normalised = any(_normalises(graph.layers[child]) for child in graph.below(call))
        if not (place.recurrent or place.head or normalised or call in bypassed):
            chains.setdefault(activation_name(place.activation), []).append(place)
    for chain in chains.values():
        for place in chain:
            place.depth = len(chain)


def _activation(graph: Graph, call: int, owner: Any, name: str, with_kernel: set[int]) -> Any:
    """What is applied to a layer's output: its own activation, or the first one on the way to the next kernel."""
    own = getattr(owner, "activation", None)
    if name == "depthwise_kernel":
        return None  # of a separable convolution: the pointwise kernel follows at once
    if owner.__class__.__name__.endswith("Cell") or facts(own).name is not None:
        return _with_gain(own)
    seen, todo = {call}, [call]
    while todo:
        current = todo.pop(0)
        children = [child for child in graph.below(current) if child not in seen and child not in with_kernel]
        for child in children:
            if facts(graph.layers[child]).name is not None:
                return _with_gain(graph.layers[child])
        if current in graph.raw:
            return graph.raw[current]
        seen |= set(children)
        todo += children
    return None


def _with_gain(activation: Any) -> Any:
    """The name of an activation; itself where no name says what it is; None for one without a gain, as for linear."""
    found = facts(activation)
    return found.name if found.known else activation if found.gain is not None and found.name is not None else None


def _branch_ends(graph: Graph, with_kernel: set[int]) -> dict[int, int]:
    """The last kernel call of each residual branch that nothing normalises -> the number of these branches."""
    ends: list[set[int]] = []
    for terms in graph.sums:
        ancestry = [graph.ancestors(term) for term in terms]
        common = set.intersection(*ancestry)
        if not common:
            continue
        # The branch is the term with the most kernels of its own; the skip connection has none, or a projection.
        own = [{call for call in ancestors - common if call >= 0} for ancestors in ancestry]
        depth = [len(calls & with_kernel) for calls in own]
        branch = own[depth.index(max(depth))]
        sum_of = set().union(*terms)
        after = [call for call, above in enumerate(graph.above) if above >= sum_of]
        # An addition that is a layer is a call itself.
        after += [child for call in after if call not in with_kernel for child in graph.below(call)]
        normalised = any(_normalises(graph.layers[call]) for call in branch | set(after))
        if not max(depth) or min(depth) == max(depth) or normalised:
            continue
        last = [call for call in branch & with_kernel if not set(_all_below(graph, call)) & branch & with_kernel]
        ends.append(set(last))
    return {call: len(ends) for last in ends for call in last}


def _all_below(graph: Graph, call: int) -> set[int]:
    found: set[int] = set()
    todo = [call]
    while todo:
        new = set(graph.below(todo.pop())) - found
        found |= new
        todo += new
    return found
