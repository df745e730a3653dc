"""Schemes that wrap another one: ICNR for sub-pixel convolutions, DepthScaled for residual branches."""

from __future__ import annotations

import math
from typing import Any

import keras
from keras import ops

from keras_initaudit.initializers.base import RandomScheme, Scheme, choice, register, whole
from keras_initaudit.initializers.scaling import AxesScheme, GlorotNormal, HeNormal

ORDERS = ("depth_to_space", "pixel_shuffle")
FORMS = ("fixup", "t_fixup_encoder", "t_fixup_decoder", "sqrt")


def wrapped(initializer: Any) -> Any:
    """The initializer behind an instance, a name or a config; ValueError where there is none."""
    found = keras.initializers.get(initializer)
    if not isinstance(found, keras.initializers.Initializer):
        raise ValueError(
            f"`initializer` must be a Keras initializer, its name or its config. Received: {initializer!r}."
        )
    return found


@register
class ICNR(Scheme):
    """A sub-pixel convolution that starts as nearest-neighbour upsampling of a plain one: no checkerboard.

    The scale^2 filters that become the pixels of one block (scale^n in n dimensions) start as copies of one filter,
    which `initializer` draws.

    Args:
        initializer: The scheme of the plain convolution; HeNormal by default.
        scale: The upsampling factor of each dimension.
        order: How the channels become pixels: "depth_to_space" as `tf.nn.depth_to_space` (blocks outermost), or
            "pixel_shuffle" as PyTorch (blocks innermost).

    Example:
        >>> kernel = ICNR(scale=2)((3, 3, 8, 12))
        >>> float(keras.ops.max(keras.ops.abs(kernel[..., 0:3] - kernel[..., 3:6])))
        0.0

    Reference:
        Aitken et al. 2017, section 2, https://arxiv.org/abs/1707.02937.
    """

    def __init__(self, initializer: Any = None, scale: int = 2, order: str = "depth_to_space") -> None:
        self.initializer = HeNormal() if initializer is None else wrapped(initializer)
        self.scale = whole(scale, "scale")
        self.order = choice(order, "order", ORDERS)

    def _values(self, shape: tuple[int, ...], dtype: str) -> Any:
        if len(shape) < 2:  # of a bias the number of dimensions is not known; a block of equal biases is its own matter
            return self.initializer(shape, dtype=dtype)
        copies = self.scale ** max(len(shape) - 2, 1)
        if shape[-1] % copies:
            raise ValueError(
                f"`scale` {self.scale} makes blocks of {copies} pixels, which must divide the filters of the kernel. "
                f"Received: a kernel of shape {shape}."
            )
        base = self.initializer((*shape[:-1], shape[-1] // copies), dtype=dtype)
        if self.order == "pixel_shuffle":
            return ops.repeat(base, copies, axis=-1)
        return ops.tile(base, (1,) * (len(shape) - 1) + (copies,))

    def get_config(self) -> dict[str, Any]:
        """The arguments, as JSON can hold them."""
        inner = keras.initializers.serialize(self.initializer)
        return {"initializer": inner, "scale": self.scale, "order": self.order}


@register
class DepthScaled(AxesScheme):
    """Another scheme, made smaller by the depth of a residual network, so that it trains without normalisation.

    Each branch adds to the stream; scaled by depth^-1/2 or less, all of them together add as much as one. The factor is
        fixup: depth^(-1 / (2 layers - 2)), for all but the last layer of each branch, which starts at `Zeros`;
        t_fixup_encoder: 0.67 depth^(-1/4), for the value, output and feed-forward kernels of a transformer's encoder;
        t_fixup_decoder: (9 depth)^(-1/4), for those of its decoder, and for the embeddings;
        sqrt: depth^(-1/2), for the last layer of each branch (or for its only one).

    Args:
        depth: Number of residual branches, of transformer layers for the T-Fixup forms.
        form: Which of the above.
        layers: Number of weight layers in a branch, at least 2; for "fixup" alone.
        initializer: The scheme to scale; HeNormal by default, GlorotNormal for the T-Fixup forms.
        seed: Seed for that scheme in place of its own.
        input_axes: Axes of the kernel that are summed over, handed to that scheme.
        output_axes: Axes of the kernel that make the outputs, handed to that scheme.

    Example:
        >>> DepthScaled(depth=16).factor, DepthScaled(depth=16, layers=3).factor
        (0.25, 0.5)

    Reference:
        Zhang et al. 2019, section 3, https://arxiv.org/abs/1901.09321 (Fixup); Huang et al. 2020, section 3.2,
        https://proceedings.mlr.press/v119/huang20f.html (T-Fixup); Radford et al. 2019, section 2.3 (square root).
    """

    def __init__(
        self,
        depth: int,
        form: str = "fixup",
        layers: int = 2,
        initializer: Any = None,
        seed: Any = None,
        input_axes: Any = None,
        output_axes: Any = None,
    ) -> None:
        RandomScheme.__init__(self, seed)
        self.depth = whole(depth, "depth")
        self.form = choice(form, "form", FORMS)
        self.layers = whole(layers, "layers", least=2)
        inner = wrapped(initializer) if initializer is not None else HeNormal() if "t_" not in form else GlorotNormal()
        AxesScheme.__init__(self, seed, input_axes, output_axes)
        # An inner scheme that has neither takes the seed and the axes that EinsumDense hands to this one.
        given = {"seed": seed} if seed is not None else {}
        if self.input_axes is not None and getattr(inner, "input_axes", ()) is None:
            given |= {"input_axes": self.input_axes, "output_axes": self.output_axes}
        config = inner.get_config()
        given = {key: value for key, value in given.items() if key in config}
        self.initializer = type(inner).from_config({**config, **given}) if given else inner

    @property
    def seed(self) -> Any:
        """Seed of the next draw: that of the wrapped scheme where it has one."""
        return getattr(self.initializer, "seed", None) if self._init_seed is None else self._init_seed

    @property
    def factor(self) -> float:
        """What the wrapped scheme is multiplied by."""
        if self.form == "fixup":
            return math.pow(self.depth, -1.0 / (2 * self.layers - 2))
        if self.form == "sqrt":
            return math.pow(self.depth, -0.5)
        return 0.67 * math.pow(self.depth, -0.25) if self.form == "t_fixup_encoder" else math.pow(9 * self.depth, -0.25)

    def _values(self, shape: tuple[int, ...], dtype: str) -> Any:
        return self.factor * self.initializer(shape, dtype=dtype)

    def get_config(self) -> dict[str, Any]:
        """The arguments, as JSON can hold them."""
        own = {name: getattr(self, name) for name in ("depth", "form", "layers")}
        return {**own, "initializer": keras.initializers.serialize(self.initializer), **super().get_config()}
