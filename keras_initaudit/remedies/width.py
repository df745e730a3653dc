"""How a model grows: its weights beside those of a smaller one of the same kind, and what muP makes of the difference.

Write m_in for how much more inputs one output of a weight sums than in the smaller model, and m_out for how much more
outputs there are. Under the maximal update parametrization (muP) the features of every layer keep their size as the
model gets wider, at the start and after updates. That fixes the start and the rate of each weight:

    a start with independent entries adds up to sqrt(m_in), one that is aligned with the gradient to m_in;
    std     ~  min(1, sqrt(m_out / m_in)) / sqrt(m_in)
    update  ~  1 / m_in                                    for each entry
    dL/dW   ~  1 / m_out                                   for each entry, because the output weights are 1 / width

An optimizer that normalises each entry of the gradient (Adam) has the rate lr / m_in; SGD has lr m_out / m_in. For an
input weight (m_in = 1), a hidden one (m_in = m_out = m), an output weight (m_out = 1) and a vector, such as a bias,
this is table 3 of Yang et al.:

    weight     input    hidden       output     vector
    std        1        1 / sqrt m   1 / m      1
    Adam rate  1        1 / m        1 / m      1
    SGD rate   m        1            1 / m      m

Their table 8 is the same function with a multiplier on the outputs: a weight c W with the start s and the rate r is a
weight W' with the start c s and the rate c r for Adam, c^2 r for SGD (their lemma J.1; Everett et al.). The layers of
Keras have no multiplier, so it is in the weights here. In the same way the attention logits q k / d of muP,
in place of q k / sqrt(d), are made by the query kernel, which takes the factor 1 / sqrt(m_d).

Depth has no rule here. CompleteP (Dey et al. 2025) multiplies each residual branch by 1 / L: in the weights, the last
kernel of a branch starts at 1 / m_L of its size, with the rate lr / m_L under Adam, for m_L times as many branches.
`Place.branches` counts them; what is missing is a pairing of the blocks of a deeper model with those of its base, for
the layers are paired one by one.

Reference:
    Yang et al. 2022, "Tensor Programs V", tables 3 and 8, appendix B, https://arxiv.org/abs/2203.03466; Yang, Simon and
    Bernstein 2023, https://arxiv.org/abs/2310.17813 (the same from spectral norms, for any two shapes); Everett et al.
    2024, https://arxiv.org/abs/2407.05872 (which parametrizations are the same; epsilon).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import keras

from ..layers import catalogue, table
from ..layers.inside import own_weights, with_layers_below

Kind = Literal["input", "hidden", "output", "vector", "fixed"]


@dataclass(frozen=True, eq=False)
class Growth:
    """A weight of a model, and how it has grown since the smaller model.

    Example:
        >>> hidden = Growth(None, None, "kernel", inputs=4.0, outputs=4.0)
        >>> hidden.kind, hidden.start, hidden.rate(normalised=True), hidden.rate(normalised=False)
        ('hidden', 0.5, 0.25, 1.0)
    """

    variable: Any
    smaller: Any
    """The same weight in the smaller model."""
    path: str
    inputs: float = 1.0
    """m_in; 1 of a vector."""
    outputs: float = 1.0
    """m_out."""
    kernel: bool = True
    """Whether inputs are multiplied by it, or looked up in it."""
    multiplier: float = 1.0
    """A constant of the parametrization that the weight holds: 1 / sqrt(m_d) of a query."""

    @property
    def kind(self) -> Kind:
        """The class of the weight: which of its sides grow with the model."""
        if not self.kernel:
            return "vector" if self.outputs != 1.0 else "fixed"
        if self.inputs == 1.0:
            return "input" if self.outputs != 1.0 else "fixed"
        return "hidden" if self.outputs != 1.0 else "output"

    @property
    def start(self) -> float:
        """The standard deviation of the start over that in the smaller model."""
        return self.multiplier * min(1.0, math.sqrt(self.outputs / self.inputs)) / math.sqrt(self.inputs)

    @property
    def gradient(self) -> float:
        """The size of an entry of the gradient over that in the smaller model."""
        return 1.0 / (self.outputs * self.multiplier)

    def rate(self, *, normalised: bool) -> float:
        """The learning rate over that of the smaller model.

        Args:
            normalised: Whether the optimizer normalises each entry of the gradient, as Adam does.
        """
        update = self.multiplier / self.inputs
        return update if normalised else update / self.gradient


def smaller_model(base: Any) -> Any:
    """The model that `base` is, or makes.

    Raises:
        TypeError: When it is neither a model nor a function without arguments that returns one.
        ValueError: When the model is not built.
    """
    model = base() if callable(base) and not isinstance(base, keras.Model) else base
    if not isinstance(model, keras.Model):
        raise TypeError(
            "`base` must be the smaller model, or a function that returns it, as `lambda: build(64)`. "
            f"Received: {base!r}."
        )
    if not model.built or not model.weights:
        raise ValueError(f"The base model {model.name!r} is not built: give it an Input, or call it once.")
    return model


def growths(model: Any, base: Any) -> list[Growth]:
    """Each trainable weight of a model beside the same weight of a smaller one.

    Args:
        model: A built model.
        base: A built model of the same layers with smaller sizes.

    Raises:
        ValueError: When the models differ in more than size; the first difference is named.

    Example:
        >>> def build(width):
        ...     return keras.Sequential([keras.Input((8,)), keras.layers.Dense(width), keras.layers.Dense(width)])
        >>> [(growth.kind, growth.inputs, growth.outputs) for growth in growths(build(64), build(16))]
        [('input', 1.0, 4.0), ('vector', 1.0, 4.0), ('hidden', 4.0, 4.0), ('vector', 1.0, 4.0)]
    """
    pairs = same_layers(model, base)
    queries: dict[int, float] = {}
    for layer, smaller in pairs:
        queries |= _query_multipliers(layer, smaller)
    found: dict[int, Growth] = {}
    for layer, smaller in pairs:
        kernels = {id(getattr(owner, attribute)): name for name, owner, attribute in catalogue.own_kernels(layer)}
        for variable, before in zip(own_weights(layer), own_weights(smaller), strict=True):
            is_kernel = id(variable) in kernels
            growth = Growth(
                variable,
                before,
                variable.path,
                inputs=_summed(layer, variable) / _summed(smaller, before) if is_kernel else 1.0,
                outputs=_units(layer, variable, is_kernel) / _units(smaller, before, is_kernel),
                kernel=is_kernel,
                multiplier=queries.get(id(variable), 1.0),
            )
            found.setdefault(id(variable), growth)
    trainable = {id(variable) for variable in model.trainable_variables}
    return [growth for key, growth in found.items() if key in trainable]


def same_layers(model: Any, other: Any) -> list[tuple[Any, Any]]:
    """Each layer of a model, and of the layers in it, beside the same layer of another model.

    Raises:
        ValueError: When the models differ in more than size; the first difference is named.
    """
    ours, theirs = (list({id(layer): layer for layer in with_layers_below(one)}.values()) for one in (model, other))
    for position, (layer, twin) in enumerate(zip(ours, theirs, strict=False)):
        difference = next(_differences(layer, twin), None)
        if difference is not None:
            name = type(layer).__name__
            raise ValueError(
                f"The models differ in more than size. The first difference is at layer {position}, {name} "
                f"{layer.name!r}: {difference}."
            )
    if len(ours) != len(theirs):
        longer, count = (ours, len(theirs)) if len(ours) > len(theirs) else (theirs, len(ours))
        extra = longer[count]
        raise ValueError(
            f"The models differ in more than size: one has {len(ours)} layers, the other {len(theirs)}. The first "
            f"layer that only one of them has is {type(extra).__name__} {extra.name!r}."
        )
    return list(zip(ours, theirs, strict=True))


# --- what two layers have in common


def _differences(layer: Any, twin: Any) -> Iterator[str]:
    """What differs between two layers, sizes and names aside."""
    if type(layer) is not type(twin):
        yield f"the other is {type(twin).__name__} {twin.name!r}"
        return
    if not isinstance(layer, keras.Model):  # the layers of a model are compared one by one
        ours, theirs = _settings(layer), _settings(twin)
        for key in sorted(ours.keys() | theirs.keys()):
            if ours.get(key) != theirs.get(key):
                yield f"{key} is {ours.get(key)!r}, and {theirs.get(key)!r} in the other"
    shapes = [tuple(variable.shape) for variable in own_weights(layer)]
    others = [tuple(variable.shape) for variable in own_weights(twin)]
    if [len(shape) for shape in shapes] != [len(shape) for shape in others]:
        yield f"its weights have the shapes {shapes}, and {others} in the other"


def _settings(layer: Any) -> dict[str, Any]:
    """The arguments of a layer without its sizes; empty of a layer that does not say them."""
    try:
        config = layer.get_config()
    except Exception:  # a layer of the person's own need not have one
        return {}
    return {key: _sizeless(value) for key, value in config.items() if key != "name"}


def _sizeless(value: Any) -> Any:
    """A setting with a number, or what may stand for one, as None."""
    if isinstance(value, bool | str):
        return value
    if isinstance(value, dict):
        return {key: _sizeless(item) for key, item in value.items() if key not in ("name", "build_config")}
    if isinstance(value, list | tuple):
        return [_sizeless(item) for item in value]
    return None


# --- how much a weight has grown


def _summed(layer: Any, kernel: Any) -> float:
    """How many inputs one output sums; by the shape where the layer's class is not known."""
    try:
        return catalogue.fans(layer, kernel)[0]
    except ValueError:
        return float(math.prod(kernel.shape[:-1]))


def _units(layer: Any, variable: Any, is_kernel: bool) -> float:
    shape = tuple(variable.shape)
    axes = catalogue.unit_axes(layer, variable) if is_kernel else range(len(shape))
    return float(math.prod(shape[axis] for axis in axes))


def _query_multipliers(layer: Any, smaller: Any) -> dict[int, float]:
    """Id of each weight that makes the queries of an attention layer -> 1 / sqrt(m_d), for logits that go as 1 / d."""
    if table.facts(layer).attention is None:
        return {}
    query, before = (dict(catalogue.parts(one)).get("query") for one in (layer, smaller))
    if query is None or before is None:
        return {}
    sizes = [catalogue.known_kernels(one)[0].shape[-1] for one in (query, before)]
    return {id(variable): math.sqrt(sizes[1] / sizes[0]) for variable in own_weights(query)}
