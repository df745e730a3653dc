"""Starts for whole models: which scheme suits an activation, and every weight of a model by the layer that it is in.

An initializer sees a shape. Here the model is seen: the true fans, the activation that a kernel feeds (be it a layer of
its own, behind a normalisation), the residual branches that nothing normalises, the gates, the groups. With data, each
layer is tuned in turn until its pre-activations have the size that its activation wants.

Following the model's graph needs TensorFlow; on another backend the layers are taken in their order, and residual
branches are not scaled. `recommend` runs on any.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from ..initializers import (
    DeltaOrthogonal,
    GlorotNormal,
    HeNormal,
    LeCunNormal,
    Orthogonal,
    RandomNormal,
    VarianceScaling,
)
from ..initializers.base import fresh_seed, mix
from ..initializers.scaling import AxesScheme
from ..layers import catalogue
from ..observe.graph import Place, places
from ..observe.keras2 import refuse_keras_2
from ..progress import bar
from ..theory.gains import ActivationFacts, Elementwise, activation_name, facts, gain, moments, remembered, resolve
from .tuning import Tuned, tune
from .width import growths, smaller_model


def recommend(activation: Any) -> Any:
    """The scheme to use for the kernel in front of an activation, ready to be given to a layer.

    relu and its variants: He, with the exact gain of the activation; tanh, sigmoid, softmax, linear, and whatever else
    is flat at both ends or has no gain: Glorot; selu: LeCun. It is the rule of thumb, for one layer: more than a few
    sigmoids in a chain need `initialize`, which sees the whole model.

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
    found = facts(activation)
    if name == "selu":
        return LeCunNormal()
    if name is None or found.gain is None or _squashes(found):
        return GlorotNormal()
    return HeNormal(gain=activation)


def _squashes(found: ActivationFacts) -> bool:
    """Whether an activation is flat at both ends and no ReLU with a ceiling."""
    return found.ends is not None and not (found.name or "").startswith("relu")


def initialize(
    model: Any,
    scheme: Any = "auto",
    *,
    x: Any = None,
    seed: int | None = None,
    base: Any = None,
    zero_head: bool = False,
) -> Any:
    """Starts every trainable kernel and bias of a model again, by what each layer is and where it stands.

    Kernels get the variance that `recommend` means for the activation that they feed, at the true fans; in a chain of
    smooth activations that at which it neither fades nor runs away at that depth, and in one of activations such as
    sigmoid, whose mean is not zero, biases that take the mean out again. Recurrent kernels get one orthogonal matrix a
    gate; embeddings unit size; the last layer half of Glorot's size, so that no answer is favoured at first. The last
    kernel of a residual branch that nothing normalises is scaled by 1 / sqrt(number of such branches). Hidden biases
    start at zero, forget gates at one. The biases of the output layers, normalisations, and frozen weights are left as
    they are.

    The scheme "mup" is for a model that is a larger `base`: what was found on the base, the best learning rate above
    all, then holds for the model, which is to be trained with `mup_optimizer`. Where one output of a kernel sums m_in
    times as many inputs as in the base, and there are m_out times as many outputs, the kernel starts with

        std = std that "auto" gives the base * min(1, sqrt(m_out / m_in)) / sqrt(m_in)

    which is 1 for kernels that see the data, 1 / sqrt(m) for hidden and 1 / m for output kernels. Query kernels get
    1 / sqrt(m_d) on top, for attention logits that go as 1 / d: `MultiHeadAttention` and `GroupQueryAttention` have
    such a kernel. `Attention`, and attention in a layer of your own, are left as they are: divide their logits by d.

    Args:
        model: A built model. It is changed in place.
        scheme: "auto", "mup", or an initializer (or its name) for all kernels but the recurrent ones: those that go by
            the fans are given the true ones.
        x: A batch of inputs. With it each layer is tuned in turn to the size that its activation wants, which also
            makes up for correlated data, pooling, and whatever else no formula knows. Not with "mup".
        seed: Seed of the whole; each weight's own follows from it and the weight's path. None for a new one.
        base: With "mup", the smaller model, or a function that returns it. Its sizes count, not its weights.
        zero_head: Whether the last kernels start at zero, so that models of all widths start as the same function.

    Returns:
        The model.

    Raises:
        TypeError: When `model` is no Keras model, `scheme` no initializer, or `base` no model.
        ValueError: When it is not built, and there is no `x` to build it with; when "mup" has no `base`, or another
            scheme one; when the two models differ in more than size.

    Example:
        >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4096, "relu"), keras.layers.Dense(1)])
        >>> kernel = initialize(model, seed=1).layers[0].kernel
        >>> round(float(keras.ops.var(kernel)) * 8, 1)
        2.0

    Reference:
        Mishkin and Matas 2016, https://arxiv.org/abs/1511.06422 (LSUV); Zhang et al. 2019 (residual branches); Yang et
        al. 2022, https://arxiv.org/abs/2203.03466, tables 3 and 8, appendix D (the zero head). `remedies.width`
        derives the rule for "mup".
    """
    refuse_keras_2(model)
    if not isinstance(model, keras.Model):
        raise TypeError(f"`model` must be a keras.Model. Received: {model!r} (of type {type(model).__name__}).")
    grown = isinstance(scheme, str) and scheme == "mup"
    if grown != (base is not None) or (grown and x is not None):
        raise ValueError(
            'scheme="mup" goes with `base`, the smaller model, and without `x`; no other scheme goes with `base`. '
            f"Received: scheme={scheme!r}, base={base!r}, x={'None' if x is None else 'a batch'}."
        )
    if grown or (isinstance(scheme, str) and scheme == "auto"):
        chosen = None
    else:
        chosen = keras.initializers.get(scheme)
        if not isinstance(chosen, keras.initializers.Initializer):
            raise TypeError(f'`scheme` must be "auto", "mup", a Keras initializer or its name. Received: {scheme!r}.')
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
    number = fresh_seed() if seed is None else int(seed)
    starts = _Starts(model, places(model, x), chosen, number)
    if grown:
        starts.grow(smaller_model(base))
    if zero_head:
        starts.factors |= {id(place.variable): 0.0 for place in starts.places if place.head}
    starts.draw()
    if x is not None:
        starts.tune(x)
    return model


# --- the starts


_HEAD = 0.5
"""Share of Glorot's size that the last layer starts with: behind a deep network, whose features are much alike, the
full size gives logits of 4, and a first loss of three times the uninformed one."""


class _Starts:
    """The weights of one model, drawn and tuned."""

    def __init__(self, model: Any, found: Sequence[Place], scheme: Any, seed: int) -> None:
        self.model = model
        self.scheme = scheme
        self.seed = seed
        self.places = [place for place in found if place.variable.trainable]
        self.factors: dict[int, float] = {}
        """Id of a weight -> what its start is multiplied by."""

    def grow(self, base: Any) -> None:
        """Gives each kernel the size that it has in a smaller model, times what muP makes of its growth."""
        found_in_base = places(base)
        smaller = _Starts(base, found_in_base, self.scheme, self.seed)
        before = {id(place.variable): smaller.size(place) for place in found_in_base}
        growth = {id(found.variable): found for found in growths(self.model, base)}
        for place in self.places:
            found = growth[id(place.variable)]
            self.factors[id(place.variable)] = found.start * before[id(found.smaller)] / self.size(place)
            if catalogue.makes_outputs(place.owner):
                warnings.warn(
                    f"{place.path!r} makes the outputs of the model too, and starts as an input weight: divide what it "
                    f"is multiplied by then by {found.outputs:g}, with a keras.layers.Rescaling in front of it",
                    stacklevel=4,
                )

    def size(self, place: Place) -> float:
        """The root mean square of the start of a kernel: by its law where that is known, else of the numbers drawn."""
        scheme = self._scheme(place)
        if isinstance(scheme, VarianceScaling) and scheme.input_axes == []:
            return math.sqrt(scheme.scale)
        if isinstance(scheme, RandomNormal):
            return float(scheme.stddev)
        drawn = ops.convert_to_numpy(scheme(place.variable.shape, dtype="float32"))
        return float(np.sqrt(np.mean(np.square(drawn, dtype=np.float64))))

    def draw(self) -> None:
        """Every kernel from its scheme, and the biases."""
        centres: dict[int, Any] = {}
        for place in self.places:
            factor = self.factors.get(id(place.variable), 1.0)
            value = self._scheme(place)(place.variable.shape, dtype="float32") * factor
            _assign(place.variable, value)
            if self.scheme is None and not place.first and _uncentred(place):
                # What comes in is the same function's output: its mean is taken out again.
                kernel = ops.convert_to_numpy(value)
                total = kernel.reshape(-1, kernel.shape[-1]).sum(axis=0)
                centres[id(place.owner)] = moments(place.activation, _variance(place))[0] * total
        heads = {id(place.owner) for place in self.places if place.head}
        for owner in {id(place.owner): place.owner for place in self.places}.values():
            bias = getattr(owner, "bias", None)
            if id(owner) in heads or not isinstance(bias, keras.Variable):
                continue
            value = -centres.get(id(owner), 0.0) * np.ones(bias.shape)
            if getattr(owner, "unit_forget_bias", False):
                value[owner.units : 2 * owner.units] = 1.0
            _assign(bias, value)

    def _scheme(self, place: Place) -> Any:
        owner, seed = place.owner, mix(self.seed, place.path)
        gates = max(len(catalogue.gates(owner)), 1)
        if place.recurrent:
            kind = DeltaOrthogonal if len(place.variable.shape) > 2 else Orthogonal
            return kind(blocks=gates, seed=seed)
        if self.scheme is None and place.name == "embeddings":
            tied = catalogue.makes_outputs(owner)
            return RandomNormal(stddev=1.0 / math.sqrt(place.variable.shape[1]) if tied else 1.0, seed=seed)
        try:
            fan_in, fan_out = catalogue.fans(owner, place.name)
        except ValueError as error:
            warnings.warn(f"{error}\nUntil then its fans are read off the shape.", stacklevel=5)
            fan_in, fan_out = VarianceScaling().fans(tuple(place.variable.shape))
        scheme = self.scheme if self.scheme is not None else _suited(place)
        # Of this package, or of Keras; a matrix scheme has the class of Keras's so that it is given its axes.
        if isinstance(scheme, VarianceScaling) or (
            isinstance(scheme, keras.initializers.VarianceScaling) and not isinstance(scheme, AxesScheme)
        ):
            shrunk = _HEAD**-2 if place.head and self.scheme is None else 1.0
            return _scaled(scheme, fan_in, fan_out, place.branches * shrunk, seed)
        config = scheme.get_config()
        given: dict[str, Any] = {"seed": seed} if "seed" in config else {}
        if "input_axes" in config and config["input_axes"] is None:
            given |= dict(zip(("input_axes", "output_axes"), catalogue.kernel_axes(owner, place.variable), strict=True))
        if "blocks" in config and config["blocks"] == 1:
            given["blocks"] = gates if gates > 1 else getattr(owner, "groups", 1)
        return type(scheme).from_config({**config, **given})

    def tune(self, x: Any) -> None:
        """Layer-sequential unit variance: in one forward pass, each layer is scaled before its output goes on."""
        wanted: dict[int, Tuned] = {}
        for place in self.places:
            if place.recurrent:
                continue
            hidden = place.activation is not None and not place.head and len(catalogue.gates(place.owner)) < 2
            target = math.sqrt(operating_variance(place.activation, place.depth)) if hidden else 1.0
            centred = hidden and _squashes(facts(place.activation))
            tuned = Tuned(place.owner, target / math.sqrt(place.branches), centred)
            wanted.setdefault(id(place.owner), tuned).kernels.append(place.variable)
        with bar("Init Audit: initializing layer by layer") as progress:
            tune(self.model, x, list(wanted.values()), progress)


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
        function = resolve(activation)
    except ValueError:
        return 1.0
    if depth <= 2 or function.name == "selu":  # selu keeps its own variance, 1, by construction
        return 1.0
    return _operating_variance(function, depth)


@remembered
def _operating_variance(function: Elementwise, depth: int) -> float:
    def power(q: float) -> float:
        mean, square, _ = moments(function, q)
        return square - mean * mean

    for q in 2.0 ** np.arange(0.0, -14.0, -0.5):
        with np.errstate(divide="ignore", invalid="ignore"):  # a function may be zero wherever a small q reaches
            scale = q / power(q)
            chi = scale * moments(function, q)[2]
            growth = scale * (power(1.05 * q) - power(0.95 * q)) / (0.1 * q)
        if max(chi, growth) <= 1.0 + _DRIFT / depth**2:
            return float(q)
    return 1.0  # a kink at zero keeps chi above 1 at any scale: nothing is gained by a small one


def _suited(place: Place) -> Any:
    """The recommended scheme; for a long chain of smooth activations, at the variance where it stays put."""
    scheme = recommend(place.activation)
    q = _variance(place)
    uncentred = _uncentred(place)
    if not uncentred and (q == 1.0 or not isinstance(scheme, HeNormal)):
        return scheme
    mean, square, _ = moments(place.activation, q)
    # The first one brings data of unit size down to q, the others keep it there.
    scale = q if place.first else q / (square - mean * mean if uncentred else square)
    rows, columns = place.variable.shape[0], place.variable.shape[-1]
    if len(place.variable.shape) == 2:
        # Where the activation is nearly linear, only the weights make the size of the signal wander: these do not.
        return Orthogonal(gain=math.sqrt(scale * max(1.0, columns / rows)))
    return VarianceScaling(scale=scale)


def _variance(place: Place) -> float:
    return operating_variance(place.activation, place.depth)


def _uncentred(place: Place) -> bool:
    """Whether a kernel is in a chain of functions such as sigmoid, whose mean would soon be all that is passed on."""
    if place.depth <= 2 or place.name != "kernel" or not _squashes(facts(place.activation)):
        return False
    return getattr(place.owner, "use_bias", False) and abs(moments(place.activation)[0]) > 0.01


def _scaled(scheme: Any, fan_in: float, fan_out: float, branches: float, seed: int) -> Any:
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


def _assign(variable: Any, value: Any) -> None:
    variable.assign(ops.cast(value, variable.dtype))
