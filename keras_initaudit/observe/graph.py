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
from ..layers.inside import held_layers, input_structure, layers_below, with_layers_below
from ..theory.gains import activation_name, facts
from . import describe
from .engines import BACKENDS, Frame, engine
from .taps import Recording


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


def _look(model: Any, x: Any) -> Graph:
    """Follows one forward pass through its graph; where it cannot be traced, the layers in their order."""
    if keras.backend.backend() in BACKENDS:
        try:
            return _traced(model, x)
        except Exception as error:  # a model whose call wants more than its inputs, or cannot be traced
            warnings.warn(
                f"the graph of {model.name!r} could not be followed ({type(error).__name__}: {error}); its layers are "
                "taken in their order, and residual branches are not scaled",
                stacklevel=5,
            )
    layers = [layer for layer in layers_below(model) if not held_layers(layer)]
    return Graph(layers, [{index - 1} if index else set() for index in range(len(layers))])


def _traced(model: Any, x: Any) -> Graph:
    activations = describe.activations(model)
    layers: list[Any] = []

    def forward(frame: Frame, inputs: Any) -> None:
        recording = Recording(model, frame, activations=activations)
        with recording.installed():
            model(inputs, training=False)
        layers[:] = [call.layer for call in recording.calls if call.output is not None]

    inputs = x if x is not None else _inputs(model)
    traced = engine().follow(model, inputs, forward)
    flows = traced.flows(range(len(keras.tree.flatten(inputs))))
    above = [{max(-1, label) for label in flows[i]} for i in range(len(layers))]
    sums = [tuple({max(-1, label) for label in term} for term in terms) for terms in traced.sums()]
    return Graph(layers, above, traced.activations(), sums)


def _inputs(model: Any) -> Any:
    """What stands for the inputs of a model that knows their shape."""
    inputs = input_structure(model)
    if inputs is not None:
        return inputs
    if getattr(model, "inputs", None):
        return model.inputs[0] if len(model.inputs) == 1 else list(model.inputs)
    shape = (model.get_build_config() or {}).get("input_shape")
    if shape is None:
        raise ValueError("the shape of its inputs is not known; give x")
    return keras.KerasTensor((None, *shape[1:]), model.compute_dtype)


def _ordered(model: Any, graph: Graph) -> list[Place]:
    """Every kernel of the model, those that the graph calls first and in its order."""
    names: dict[int, str] = {}
    places: dict[int, Place] = {}
    for layer in with_layers_below(model):
        for name, owner, attribute in catalogue.own_kernels(layer):
            variable = getattr(owner, attribute)
            names[id(variable)] = variable.path
            places.setdefault(id(variable), Place(variable.path, name, owner, variable))
    calls: dict[int, int] = {}
    order: list[int] = []
    for index, layer in enumerate(graph.layers):
        for inner in with_layers_below(layer):
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
        normalised = any(catalogue.normalises(graph.layers[child]) for child in graph.below(call))
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
    if catalogue.is_cell(owner) or facts(own).name is not None:
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
    """The name of an activation; the activation where it has no known name; None for one without a gain."""
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
        normalised = any(catalogue.normalises(graph.layers[call]) for call in branch | set(after))
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
