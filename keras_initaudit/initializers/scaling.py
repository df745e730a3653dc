"""Schemes whose variance follows from the fans of the kernel: VarianceScaling, Glorot, He, LeCun."""

from __future__ import annotations

import math
from typing import Any

import keras

from keras_initaudit.initializers.base import RandomScheme, axes, choice, real, register

from ..theory import (
    gains,  # the module: where it is a program's first import, Keras and so this module come in its midst
)

MODES = ("fan_in", "fan_out", "fan_avg", "fan_sum", "fan_geo_avg")
DISTRIBUTIONS = ("normal", "truncated_normal", "uniform")

# Standard deviation of a unit normal cut at two: sqrt(1 - 4 phi(2) / (2 Phi(2) - 1)).
TRUNCATED_STD = 0.8796256610342398


# EinsumDense, and so every attention layer, gives its axes only to subclasses of Keras's VarianceScaling: it makes a
# new instance from `get_config()` with `seed`, `input_axes` and `output_axes` added.
class AxesScheme(RandomScheme, keras.initializers.VarianceScaling):
    """A scheme that takes the axes of a kernel that are inputs and those that are outputs."""

    def __init__(self, seed: Any, input_axes: Any, output_axes: Any) -> None:
        RandomScheme.__init__(self, seed)
        self.input_axes = axes(input_axes, "input_axes")
        self.output_axes = axes(output_axes, "output_axes")
        if (self.input_axes is None) != (self.output_axes is None):
            raise ValueError(
                "`input_axes` and `output_axes` belong together: give both or neither. "
                f"Received: input_axes={input_axes!r}, output_axes={output_axes!r}."
            )

    def fans(self, shape: tuple[int, ...]) -> tuple[int, int]:
        """fan_in and fan_out of a kernel: from the axes, or from the shape as Keras reads it."""
        if self.input_axes is not None and self.output_axes is not None:
            return size(shape, self.input_axes), size(shape, self.output_axes)
        if len(shape) < 2:
            return (shape[0], shape[0]) if shape else (1, 1)
        field = math.prod(shape[:-2])
        return shape[-2] * field, shape[-1] * field

    def get_config(self) -> dict[str, Any]:
        """The arguments, as JSON can hold them."""
        return {**RandomScheme.get_config(self), "input_axes": self.input_axes, "output_axes": self.output_axes}


def size(shape: tuple[int, ...], chosen: list[int]) -> int:
    """Product of the sizes of the chosen axes; ValueError where the shape has no such axis."""
    if any(not -len(shape) <= axis < len(shape) for axis in chosen):
        raise ValueError(f"`input_axes` and `output_axes` must be axes of the kernel. Received: {chosen} for {shape}.")
    return math.prod(shape[axis] for axis in chosen)


def amount(value: Any) -> tuple[str | float | None, float]:
    """A `gain` argument as (what the config keeps, the number).

    A known activation is kept by its canonical name; any other callable by its number, so that the saved
    model loads without it.
    """
    if value is None:
        return None, 1.0
    if isinstance(value, int | float) and not isinstance(value, bool):
        number = real(value, "gain", above=0.0)
        return number, number
    number = gains.gain(value)
    name = gains.activation_name(value) or "linear"
    try:
        kept = gains.gain(name) == number
    except ValueError:
        kept = False
    return (name if kept else number), number


@register
class VarianceScaling(AxesScheme):
    """Weights whose variance is scale * gain^2 / n, n being one of the fans.

    n is fan_in, fan_out, their mean (fan_avg), sum (fan_sum) or geometric mean (fan_geo_avg). Fans of a dense kernel
    (in, out) and of a convolution's (..., in, out) are read from the shape; of others say the axes, whose sizes are
    multiplied, or use `keras_initaudit.initialize`, which knows the layer.

    Args:
        scale: Factor on the variance, above 0.
        mode: Which n.
        distribution: "normal" (not truncated; Keras's "untruncated_normal" is the same), "truncated_normal" (at two
            standard deviations, the variance kept) or "uniform" (within sqrt(3) standard deviations).
        gain: An activation (name, layer or callable), whose exact gain is taken, a number, or None for 1.
        seed: Integer, `keras.random.SeedGenerator`, or None for new numbers at each call.
        input_axes: Axes of the kernel that are summed over; None to go by the shape.
        output_axes: Axes of the kernel that make the outputs; None to go by the shape.

    Example:
        >>> round(VarianceScaling(mode="fan_in", gain="gelu").variance((256, 256)) * 256, 4)
        2.3517

    Reference:
        He et al. 2015, equations 10 and 14; Glorot and Bengio 2010, equation 12.
    """

    def __init__(
        self,
        scale: float = 1.0,
        mode: str = "fan_in",
        distribution: str = "normal",
        gain: Any = None,
        seed: Any = None,
        input_axes: Any = None,
        output_axes: Any = None,
    ) -> None:
        super().__init__(seed, input_axes, output_axes)
        self.scale = real(scale, "scale", above=0.0)
        self.mode = choice(mode, "mode", MODES)
        if distribution == "untruncated_normal":
            distribution = "normal"
        self.distribution = choice(distribution, "distribution", DISTRIBUTIONS)
        self.gain, self._gain = amount(gain)

    def variance(self, shape: tuple[int, ...]) -> float:
        """Variance of the weights of a kernel of that shape."""
        fan_in, fan_out = self.fans(tuple(shape))
        n = {
            "fan_in": float(fan_in),
            "fan_out": float(fan_out),
            "fan_avg": 0.5 * (fan_in + fan_out),
            "fan_sum": float(fan_in + fan_out),
            "fan_geo_avg": math.sqrt(fan_in * fan_out),
        }[self.mode]
        # An empty kernel has no fan and no weights.
        return self.scale * self._gain**2 / (n or 1.0)

    def _values(self, shape: tuple[int, ...], dtype: str) -> Any:
        std = math.sqrt(self.variance(shape))
        seed = self.next_seed()
        if self.distribution == "uniform":
            limit = math.sqrt(3.0) * std
            return keras.random.uniform(shape, -limit, limit, dtype=dtype, seed=seed)
        if self.distribution == "truncated_normal":
            return keras.random.truncated_normal(shape, 0.0, std / TRUNCATED_STD, dtype=dtype, seed=seed)
        return keras.random.normal(shape, 0.0, std, dtype=dtype, seed=seed)

    def get_config(self) -> dict[str, Any]:
        """The arguments, as JSON can hold them."""
        return {
            "scale": self.scale,
            "mode": self.mode,
            "distribution": self.distribution,
            "gain": self.gain,
            **super().get_config(),
        }


class _Named(VarianceScaling):
    """A named scheme: only `mode`, `gain` and `truncated` can be chosen."""

    _choices: tuple[str, ...] = ()

    def get_config(self) -> dict[str, Any]:
        """The arguments, as JSON can hold them."""
        config = super().get_config()
        for fixed in ("scale", "distribution"):
            del config[fixed]
        if "truncated" in self._choices:
            config["truncated"] = self.distribution == "truncated_normal"
        return config


def _normal(truncated: Any) -> str:
    if not isinstance(truncated, bool):
        raise ValueError(f"`truncated` must be True or False. Received: {truncated!r}.")
    return "truncated_normal" if truncated else "normal"


class _NormalScheme(_Named):
    _choices = ("truncated",)


@register
class GlorotNormal(_NormalScheme):
    """Glorot (Xavier) normal: W ~ N(0, gain^2 * 2 / (fan_in + fan_out)). For tanh, sigmoid and linear layers.

    Args:
        truncated: Cut at two standard deviations as Keras does, at the same variance.
        mode: "fan_avg"; "fan_sum" halves the variance, the form N(0, 1 / (fan_in + fan_out)) of some older code.
        gain: An activation (name, layer or callable), a number, or None for 1.
        seed: Integer, `keras.random.SeedGenerator`, or None for new numbers at each call.
        input_axes: Axes of the kernel that are summed over; None to go by the shape.
        output_axes: Axes of the kernel that make the outputs; None to go by the shape.

    Example:
        >>> round(GlorotNormal().variance((3, 2)), 3), round(GlorotNormal(mode="fan_sum").variance((3, 2)), 3)
        (0.4, 0.2)

    Reference:
        Glorot and Bengio 2010, equation 12, https://proceedings.mlr.press/v9/glorot10a.html.
    """

    def __init__(
        self,
        truncated: bool = False,
        mode: str = "fan_avg",
        gain: Any = None,
        seed: Any = None,
        input_axes: Any = None,
        output_axes: Any = None,
    ) -> None:
        super().__init__(1.0, mode, _normal(truncated), gain, seed, input_axes, output_axes)


@register
class GlorotUniform(_Named):
    """Glorot (Xavier) uniform: W ~ U(-l, l), l = gain * sqrt(6 / (fan_in + fan_out)). Keras's own default.

    Args:
        mode: "fan_avg"; "fan_sum" halves the variance.
        gain: An activation (name, layer or callable), a number, or None for 1.
        seed: Integer, `keras.random.SeedGenerator`, or None for new numbers at each call.
        input_axes: Axes of the kernel that are summed over; None to go by the shape.
        output_axes: Axes of the kernel that make the outputs; None to go by the shape.

    Example:
        >>> round(GlorotUniform().variance((3, 2)), 3)
        0.4

    Reference:
        Glorot and Bengio 2010, equation 16, https://proceedings.mlr.press/v9/glorot10a.html.
    """

    def __init__(
        self, mode: str = "fan_avg", gain: Any = None, seed: Any = None, input_axes: Any = None, output_axes: Any = None
    ) -> None:
        super().__init__(1.0, mode, "uniform", gain, seed, input_axes, output_axes)


@register
class HeNormal(_NormalScheme):
    """He (Kaiming) normal: W ~ N(0, gain^2 / fan_in), for ReLU N(0, 2 / fan_in). For ReLU and its variants.

    Args:
        truncated: Cut at two standard deviations as Keras does, at the same variance.
        mode: "fan_in" keeps the size of the activations, "fan_out" that of the gradients.
        gain: An activation (name, layer or callable) or a number; `"gelu"` takes gelu's exact gain.
        seed: Integer, `keras.random.SeedGenerator`, or None for new numbers at each call.
        input_axes: Axes of the kernel that are summed over; None to go by the shape.
        output_axes: Axes of the kernel that make the outputs; None to go by the shape.

    Example:
        >>> round(HeNormal().variance((3, 2)), 3)
        0.667

    Reference:
        He et al. 2015, equation 10, https://arxiv.org/abs/1502.01852.
    """

    def __init__(
        self,
        truncated: bool = False,
        mode: str = "fan_in",
        gain: Any = "relu",
        seed: Any = None,
        input_axes: Any = None,
        output_axes: Any = None,
    ) -> None:
        super().__init__(1.0, mode, _normal(truncated), gain, seed, input_axes, output_axes)


@register
class HeUniform(_Named):
    """He (Kaiming) uniform: W ~ U(-l, l), l = gain * sqrt(3 / fan_in), for ReLU sqrt(6 / fan_in).

    Args:
        mode: "fan_in" keeps the size of the activations, "fan_out" that of the gradients.
        gain: An activation (name, layer or callable) or a number.
        seed: Integer, `keras.random.SeedGenerator`, or None for new numbers at each call.
        input_axes: Axes of the kernel that are summed over; None to go by the shape.
        output_axes: Axes of the kernel that make the outputs; None to go by the shape.

    Example:
        >>> round(HeUniform().variance((3, 2)), 3)
        0.667

    Reference:
        He et al. 2015, equation 10, https://arxiv.org/abs/1502.01852.
    """

    def __init__(
        self,
        mode: str = "fan_in",
        gain: Any = "relu",
        seed: Any = None,
        input_axes: Any = None,
        output_axes: Any = None,
    ) -> None:
        super().__init__(1.0, mode, "uniform", gain, seed, input_axes, output_axes)


@register
class LeCunNormal(_NormalScheme):
    """LeCun normal: W ~ N(0, gain^2 / fan_in) with gain 1. For selu, which keeps a unit normal signal as it is.

    Args:
        truncated: Cut at two standard deviations as Keras does, at the same variance.
        gain: An activation (name, layer or callable), a number, or None for 1.
        seed: Integer, `keras.random.SeedGenerator`, or None for new numbers at each call.
        input_axes: Axes of the kernel that are summed over; None to go by the shape.
        output_axes: Axes of the kernel that make the outputs; None to go by the shape.

    Example:
        >>> round(LeCunNormal().variance((3, 2)), 3)
        0.333

    Reference:
        LeCun et al. 1998, Efficient BackProp, equation 16; Klambauer et al. 2017, https://arxiv.org/abs/1706.02515.
    """

    def __init__(
        self,
        truncated: bool = False,
        gain: Any = None,
        seed: Any = None,
        input_axes: Any = None,
        output_axes: Any = None,
    ) -> None:
        super().__init__(1.0, "fan_in", _normal(truncated), gain, seed, input_axes, output_axes)

    def get_config(self) -> dict[str, Any]:
        """The arguments, as JSON can hold them."""
        config = super().get_config()
        del config["mode"]
        return config


@register
class LeCunUniform(_Named):
    """LeCun uniform: W ~ U(-l, l), l = gain * sqrt(3 / fan_in) with gain 1.

    Args:
        gain: An activation (name, layer or callable), a number, or None for 1.
        seed: Integer, `keras.random.SeedGenerator`, or None for new numbers at each call.
        input_axes: Axes of the kernel that are summed over; None to go by the shape.
        output_axes: Axes of the kernel that make the outputs; None to go by the shape.

    Example:
        >>> round(LeCunUniform().variance((3, 2)), 3)
        0.333

    Reference:
        LeCun et al. 1998, Efficient BackProp, equation 16.
    """

    def __init__(self, gain: Any = None, seed: Any = None, input_axes: Any = None, output_axes: Any = None) -> None:
        super().__init__(1.0, "fan_in", "uniform", gain, seed, input_axes, output_axes)

    def get_config(self) -> dict[str, Any]:
        """The arguments, as JSON can hold them."""
        config = super().get_config()
        del config["mode"]
        return config


XavierNormal, XavierUniform = GlorotNormal, GlorotUniform
KaimingNormal, KaimingUniform = HeNormal, HeUniform
