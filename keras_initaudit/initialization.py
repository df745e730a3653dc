"""Starts for whole models: which scheme suits an activation, and every weight of a model by the layer that it is in.

An initializer sees a shape. Here the model is seen: the true fans, the activation that a kernel feeds (be it a layer of
its own, behind a normalisation), the residual branches that nothing normalises, the gates, the groups. With data, each
layer is tuned in turn until its pre-activations have the size that its activation wants.

The model is looked at as the probe does it, by following its graph from layer to layer, so that an addition or an
activation written in a model's own `call` is seen. That needs TensorFlow; `recommend` needs any backend.
"""

from __future__ import annotations

import functools
import math
import random
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_initaudit import activations, connections
from keras_initaudit.gains import activation_name, flat_ends, gain, moments
from keras_initaudit.initializers import (
    DeltaOrthogonal,
    GlorotNormal,
    HeNormal,
    LeCunNormal,
    Orthogonal,
    RandomNormal,
    VarianceScaling,
)
from keras_initaudit.initializers.base import mix
from keras_initaudit.initializers.scaling import AxesScheme
from keras_initaudit.tuning import Tuned, tune


def recommend(activation: Any) -> Any:
    """The scheme to use for the kernel in front of an activation, ready to be given to a layer.

    relu and its variants: He, with the exact gain of the activation; tanh, sigmoid, softmax, linear and whatever else
    is flat at both ends: Glorot; selu: LeCun.

    Args:
        activation: A name, a function of `keras.activations`, an activation layer, or any callable; None is linear.

    Returns:
        A new initializer of this package.

    Raises:
        ValueError: When the activation is unknown.

    Example:
        >>> recommend("relu"), recommend("tanh").mode
        (HeNormal(mode='fan_in', gain='relu', truncated=False), 'fan_avg')

    Reference:
        He et al. 2015; Glorot and Bengio 2010; Klambauer et al. 2017.
    """
    name = activation_name(activation)
    if name == "selu":
        return LeCunNormal()
    if name is None or name in activations.NOT_ELEMENTWISE or flat_ends(activation) is not None:
        return GlorotNormal()
    return HeNormal(gain=activation)


def initialize(model: Any, scheme: Any = "auto", *, x: Any = None, seed: int | None = None) -> Any:
    """Starts every trainable kernel and bias of a model again, by what each layer is and where it stands.

    Kernels get the variance that `recommend` means for the activation that they feed, at the true fans; recurrent ones
    one orthogonal matrix a gate; embeddings unit size. The last kernel of a residual branch that nothing normalises is
    scaled by 1 / sqrt(number of such branches). Hidden biases start at zero, forget gates at one. The biases of the
    output layers, normalisations, and frozen weights are left as they are.

    Args:
        model: A built model. It is changed in place.
        scheme: "auto", or an initializer (or its name) for all kernels but the recurrent ones: those that go by the
            fans are given the true ones.
        x: A batch of inputs. With it each layer is tuned in turn to the size that its activation wants, which also
            makes up for correlated data, pooling, and whatever else no formula knows.
        seed: Seed of the whole; each weight's own follows from it and the weight's path. None for a new one.

    Returns:
        The model.

    Raises:
        TypeError: When `model` is no Keras model, or `scheme` no initializer.
        ValueError: When it is not built, and there is no `x` to build it with.

    Example:
        >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(64, "relu"), keras.layers.Dense(1)])
        >>> kernel = initialize(model, seed=1).layers[0].kernel
        >>> round(float(keras.ops.var(kernel)) * 8, 1)
        2.0

    Reference:
        Mishkin and Matas 2016, https://arxiv.org/abs/1511.06422 (LSUV); Zhang et al. 2019 (residual branches).
    """
    if not isinstance(model, keras.Model):
        raise TypeError(f"`model` must be a keras.Model. Received: {model!r} (of type {type(model).__name__}).")
    if isinstance(scheme, str) and scheme == "auto":
        chosen = None
    else:
        chosen = keras.initializers.get(scheme)
        if not isinstance(chosen, keras.initializers.Initializer):
            raise TypeError(f'`scheme` must be "auto", a Keras initializer or its name. Received: {scheme!r}.')
    if isinstance(seed, bool) or not (seed is None or hasattr(seed, "__index__")):
        raise TypeError(f"`seed` must be an integer or None. Received: {seed!r}.")
    if x is not None:
        x = keras.tree.map_structure(ops.convert_to_tensor, x)
        if not model.built:
            model(x)
    if not model.built or not model.weights:
        raise ValueError(
            f"Model {model.name!r} is not built, so that there is nothing to start. Give it an Input, call it once, or "
            "give `x`, a batch of its inputs."
        )
    base = random.randint(0, 2**31 - 1) if seed is None else int(seed)
    starts = _Starts(model, _look(model, x), chosen, base)
    starts.draw()
    if x is not None:
        starts.tune(x)
    return model


# --- what stands where


@dataclass(eq=False)
class _Place:
    """One kernel of the model, and what is known of its surroundings."""

    path: str
    name: str
    owner: Any
    variable: Any
    activation: Any = None
    """What the kernel feeds; None where that is linear."""
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
        return self.name.endswith("recurrent_kernel")


@dataclass(eq=False)
class _Graph:
    """The calls of one forward pass, in order, and which one's output flows into which."""

    layers: list[Any]
    above: list[set[int]]
    """Of each call, the calls whose outputs flow into it without passing another one."""
    raw: dict[int, str] = field(default_factory=dict)
    """Of a call, the activation that is applied to its output outside of any layer."""
    sums: list[tuple[set[int], ...]] = field(default_factory=list)
    """Of each addition, the calls (-1: the inputs) that flow into each of its terms."""

    def below(self, call: int) -> list[int]:
        return [index for index, sources in enumerate(self.above) if call in sources]

    def ancestors(self, calls: set[int]) -> set[int]:
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


def _look(model: Any, x: Any) -> _Graph:
    """Follows one forward pass through its graph; where it cannot be traced, the layers in their order."""
    if keras.backend.backend() == "tensorflow":
        try:
            return _traced(model, x)
        except Exception as error:  # a model whose call wants more than its inputs, or cannot be traced
            warnings.warn(
                f"the graph of {model.name!r} could not be followed ({type(error).__name__}: {error}); its layers are "
                "taken in their order, and residual branches are not scaled",
                stacklevel=4,
            )
    layers = [layer for layer in model._flatten_layers(include_self=False, recursive=True) if not layer._layers]
    return _Graph(layers, [{index - 1} if index else set() for index in range(len(layers))])


def _traced(model: Any, x: Any) -> _Graph:
    import tensorflow as tf

    from keras_initaudit import describe
    from keras_initaudit.recording import Recording

    graph = _Graph([], [])

    def forward(inputs: Any) -> Any:
        recording = Recording(model, tf.compat.v1.get_default_graph())
        with recording.installed():
            result = model(inputs, training=False)
        calls = recording.calls
        paths = [str(index) for index in range(len(calls))]
        known = {id(tensor): "-1" for tensor in keras.tree.flatten(inputs)}
        sources = describe.sources(calls, known, paths)
        graph.layers = [call.layer for call in calls]
        graph.above = [{int(path) for path in above} for above in sources]
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


def _places(model: Any, graph: _Graph) -> list[_Place]:
    """Every kernel of the model, those that the graph calls first and in its order."""
    names: dict[int, str] = {}
    places: dict[int, _Place] = {}
    for layer in model._flatten_layers():
        for name, owner, attribute in connections.own_kernels(layer):
            variable = getattr(owner, attribute)
            names[id(variable)] = variable.path
            places.setdefault(id(variable), _Place(variable.path, name, owner, variable))
    calls: dict[int, int] = {}
    order: list[int] = []
    for index, layer in enumerate(graph.layers):
        for inner in layer._flatten_layers():
            for _, owner, attribute in connections.own_kernels(inner):
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


def _count_chains(graph: _Graph, called: list[tuple[int, _Place]]) -> None:
    bypassed: set[int] = set()
    for terms in graph.sums:
        ancestry = [graph.ancestors(term) for term in terms]
        bypassed |= {call for one in ancestry for call in one if not all(call in other for other in ancestry)}
    chains: dict[str | None, list[_Place]] = {}
    for call, place in called:
        normalised = any(_normalises(graph.layers[child]) for child in graph.below(call))
        if not (place.recurrent or place.head or normalised or call in bypassed):
            chains.setdefault(activation_name(place.activation), []).append(place)
    for chain in chains.values():
        for place in chain:
            place.depth = len(chain)


def _activation(graph: _Graph, call: int, owner: Any, name: str, with_kernel: set[int]) -> Any:
    """What is applied to a layer's output: its own activation, or the first one on the way to the next kernel."""
    own = getattr(owner, "activation", None)
    if name == "depthwise_kernel":
        return None  # of a separable convolution: the pointwise kernel follows at once
    if owner.__class__.__name__.endswith("Cell") or (own is not None and activation_name(own) is not None):
        return own
    seen, todo = {call}, [call]
    while todo:
        current = todo.pop(0)
        children = [child for child in graph.below(current) if child not in seen and child not in with_kernel]
        for child in children:
            if activation_name(graph.layers[child]) is not None:
                return graph.layers[child]
        if current in graph.raw:
            return graph.raw[current]
        seen |= set(children)
        todo += children
    return None


def _branch_ends(graph: _Graph, with_kernel: set[int]) -> dict[int, int]:
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
        normalised = any(_normalises(graph.layers[call]) for call in branch | set(after))
        if not max(depth) or min(depth) == max(depth) or normalised:
            continue
        last = [call for call in branch & with_kernel if not set(_all_below(graph, call)) & branch & with_kernel]
        ends.append(set(last))
    return {call: len(ends) for last in ends for call in last}


def _all_below(graph: _Graph, call: int) -> set[int]:
    found: set[int] = set()
    todo = [call]
    while todo:
        new = set(graph.below(todo.pop())) - found
        found |= new
        todo += new
    return found


# --- the starts


class _Starts:
    """The weights of one model, drawn and tuned."""

    def __init__(self, model: Any, graph: _Graph, scheme: Any, seed: int) -> None:
        self.model = model
        self.scheme = scheme
        self.seed = seed
        self.places = [place for place in _places(model, graph) if place.variable.trainable]

    def draw(self) -> None:
        """Every kernel from its scheme, and the biases."""
        for place in self.places:
            _assign(place.variable, self._scheme(place)(place.variable.shape, dtype="float32"))
        heads = {id(place.owner) for place in self.places if place.head}
        for owner in {id(place.owner): place.owner for place in self.places}.values():
            bias = getattr(owner, "bias", None)
            if id(owner) in heads or not isinstance(bias, keras.Variable):
                continue
            value = np.zeros(bias.shape)
            if getattr(owner, "unit_forget_bias", False):
                value[owner.units : 2 * owner.units] = 1.0
            _assign(bias, value)

    def _scheme(self, place: _Place) -> Any:
        owner, seed = place.owner, mix(self.seed, place.path)
        gates = _gates(owner)
        if place.recurrent:
            kind = DeltaOrthogonal if len(place.variable.shape) > 2 else Orthogonal
            return kind(blocks=gates, seed=seed)
        if self.scheme is None and place.name == "embeddings":
            tied = getattr(owner, "tie_weights", False)  # such a table is also the last layer's kernel
            return RandomNormal(stddev=1.0 / math.sqrt(place.variable.shape[1]) if tied else 1.0, seed=seed)
        try:
            fan_in, fan_out = connections.fans(owner, place.name)
        except ValueError as error:
            warnings.warn(f"{error}\nUntil then its fans are read off the shape.", stacklevel=5)
            fan_in, fan_out = VarianceScaling().fans(tuple(place.variable.shape))
        scheme = self.scheme if self.scheme is not None else _suited(place)
        # Ours, or Keras's own; a matrix scheme is of Keras's class only to be told its axes.
        if isinstance(scheme, VarianceScaling) or (
            isinstance(scheme, keras.initializers.VarianceScaling) and not isinstance(scheme, AxesScheme)
        ):
            return _scaled(scheme, fan_in, fan_out, place.branches, seed)
        config = scheme.get_config()
        told: dict[str, Any] = {"seed": seed} if "seed" in config else {}
        if "input_axes" in config and config["input_axes"] is None:
            told |= dict(zip(("input_axes", "output_axes"), _axes(owner, place.variable.shape), strict=True))
        if "blocks" in config and config["blocks"] == 1:
            told["blocks"] = gates if gates > 1 else getattr(owner, "groups", 1)
        return type(scheme).from_config({**config, **told})

    def tune(self, x: Any) -> None:
        """Layer-sequential unit variance: in one forward pass, each layer is scaled before its output goes on."""
        wanted: dict[int, Tuned] = {}
        for place in self.places:
            if place.recurrent:
                continue
            hidden = place.activation is not None and not place.head and _gates(place.owner) == 1
            target = math.sqrt(operating_variance(place.activation, place.depth)) if hidden else 1.0
            centred = hidden and flat_ends(place.activation) is not None
            tuned = Tuned(place.owner, target / math.sqrt(place.branches), centred)
            wanted.setdefault(id(place.owner), tuned).kernels.append(place.variable)
        tune(self.model, x, list(wanted.values()))


# A chain of 64 gelu or silu layers, 64 wide, learns the digits when a layer drifts by 1.0016 at most, and not at 1.008
# or 1.03 (Adam, 100 updates); a chain of 8 does at 1.1. Between them the limit goes with the square of the depth.
_DRIFT = 6.4


def operating_variance(activation: Any, depth: int) -> float:
    """The variance of the pre-activations at which a chain of `depth` layers neither explodes nor runs away.

    At variance q the weights that keep q have sigma_w^2 = q / Var[phi(sqrt(q) z)]; a layer then multiplies the squared
    gradient by chi = sigma_w^2 E[phi'^2], and a deviation of q by dV/dq. Both tend to 1 for small q, where any smooth
    activation is linear. The largest q up to 1 is taken at which neither exceeds 1 + 6.4 / depth^2: 1 for ReLU at any
    depth and for most at a few layers, 0.001 for gelu at 64 layers.

    Args:
        activation: As `gain` takes it; what has no gain has the variance 1.
        depth: Number of layers of the chain.

    Reference:
        Schoenholz et al. 2017 (chi); Roberts, Yaida and Hanin 2022, section 5.3 (why gelu and silu run away).
    """
    try:
        function = activations.resolve(activation)
    except ValueError:
        return 1.0
    if depth <= 2 or function.name == "selu":  # selu keeps its own variance, 1, by construction
        return 1.0
    if not function.known:
        return _operating_variance(function, depth)
    return _cached_variance(function.name, depth)


@functools.lru_cache(maxsize=256)
def _cached_variance(name: str, depth: int) -> float:
    return _operating_variance(activations.resolve(name), depth)


def _operating_variance(function: activations.Elementwise, depth: int) -> float:
    def power(q: float) -> float:
        mean, square, _ = moments(function, q)
        return square - mean * mean

    for q in 2.0 ** np.arange(0.0, -14.0, -0.5):
        scale = q / power(q)
        chi = scale * moments(function, q)[2]
        growth = scale * (power(1.05 * q) - power(0.95 * q)) / (0.1 * q)
        if max(chi, growth) <= 1.0 + _DRIFT / depth**2:
            return float(q)
    return 1.0  # a kink at zero keeps chi above 1 at any scale: nothing is gained by a small one


def _suited(place: _Place) -> Any:
    """The recommended scheme; for a long chain of smooth activations, at the variance where it stays put."""
    scheme = recommend(place.activation)
    if not isinstance(scheme, HeNormal):
        return scheme
    q = operating_variance(place.activation, place.depth)
    if q == 1.0:
        return scheme
    # The first one brings data of unit size down to q, the others keep it there.
    return VarianceScaling(scale=q if place.first else q / moments(place.activation, q)[1])


def _scaled(scheme: Any, fan_in: float, fan_out: float, branches: int, seed: int) -> Any:
    """A variance-scaling scheme with the fans said, and no shape asked."""
    n = {
        "fan_in": fan_in,
        "fan_out": fan_out,
        "fan_avg": 0.5 * (fan_in + fan_out),
        "fan_sum": fan_in + fan_out,
        "fan_geo_avg": math.sqrt(fan_in * fan_out),
    }[scheme.mode]
    factor = (
        gain(scheme.gain) if isinstance(getattr(scheme, "gain", None), str) else getattr(scheme, "gain", None) or 1.0
    )
    return VarianceScaling(
        scale=scheme.scale * factor**2 / max(n, 1e-9) / branches,
        distribution=scheme.distribution,
        seed=seed,
        input_axes=[],
        output_axes=[],
    )


def _gates(owner: Any) -> int:
    kinds = ("LSTMCell", "ConvLSTMCell"), ("GRUCell",)
    names = {kind.__name__ for kind in type(owner).__mro__}
    return 4 if names & set(kinds[0]) else 3 if names & set(kinds[1]) else 1


def _axes(owner: Any, shape: Sequence[int]) -> tuple[list[int] | None, list[int] | None]:
    """Axes of a kernel as a matrix scheme takes them, where the shape alone would mislead it."""
    rank, kinds = len(shape), keras.layers
    field = list(range(rank - 2))
    if isinstance(owner, kinds.EinsumDense):
        return connections.kernel_axes(owner)
    if "Transpose" in type(owner).__name__:
        return [*field, rank - 1], [*field, rank - 2]
    if "Depthwise" in type(owner).__name__:
        return field, [*field, rank - 1]
    return None, None


def _assign(variable: Any, value: Any) -> None:
    variable.assign(ops.cast(value, variable.dtype))
