"""Schemes of a fixed scale, which no shape changes: Zeros, RandomNormal, TruncatedNormal, RandomUniform."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from keras_initaudit.initializers.base import RandomScheme, Scheme, real, register


@register
class Zeros(Scheme):
    """All weights 0: right for biases; a kernel of zeros keeps all units of a layer alike.

    Example:
        >>> keras.ops.convert_to_numpy(Zeros()((2,)))
        array([0., 0.], dtype=float32)
    """

    def _values(self, shape: tuple[int, ...], dtype: str) -> Any:
        return ops.zeros(shape, dtype=dtype)


class _Located(RandomScheme):
    """A law with a mean."""

    def __init__(self, mean: float, stddev: float, seed: Any) -> None:
        super().__init__(seed)
        self.mean = real(mean, "mean")
        self.stddev = real(stddev, "stddev", least=0.0)

    def get_config(self) -> dict[str, Any]:
        """The arguments, as JSON can hold them."""
        return {"mean": self.mean, "stddev": self.stddev, **super().get_config()}


@register
class RandomNormal(_Located):
    """Normal weights of a fixed scale: W ~ N(mean, stddev^2).

    Args:
        mean: Mean.
        stddev: Standard deviation, at least 0.
        seed: Integer, `keras.random.SeedGenerator`, or None for new numbers at each call.

    Example:
        >>> round(float(keras.ops.std(RandomNormal(stddev=0.1, seed=1)((200, 200)))), 4)
        0.1002
    """

    def __init__(self, mean: float = 0.0, stddev: float = 0.05, seed: Any = None) -> None:
        super().__init__(mean, stddev, seed)

    def _values(self, shape: tuple[int, ...], dtype: str) -> Any:
        return keras.random.normal(shape, self.mean, self.stddev, dtype=dtype, seed=self.next_seed())


@register
class TruncatedNormal(_Located):
    """Normal weights of which those beyond two `stddev` from the mean are drawn again.

    As in Keras, `stddev` is that of the normal law before the cut; what is drawn has 0.8796 of it.

    Args:
        mean: Mean.
        stddev: Standard deviation before the cut, at least 0.
        seed: Integer, `keras.random.SeedGenerator`, or None for new numbers at each call.

    Example:
        >>> bool(np.abs(TruncatedNormal(stddev=0.5, seed=0)((64, 64))).max() <= 1.0)
        True
    """

    def __init__(self, mean: float = 0.0, stddev: float = 0.05, seed: Any = None) -> None:
        super().__init__(mean, stddev, seed)

    def _values(self, shape: tuple[int, ...], dtype: str) -> Any:
        return keras.random.truncated_normal(shape, self.mean, self.stddev, dtype=dtype, seed=self.next_seed())


@register
class RandomUniform(RandomScheme):
    """Uniform weights of a fixed scale: W ~ U(minval, maxval).

    Args:
        minval: Lower bound.
        maxval: Upper bound, at least `minval`.
        seed: Integer, `keras.random.SeedGenerator`, or None for new numbers at each call.

    Example:
        >>> weights = np.array(RandomUniform(-0.1, 0.3, seed=0)((64, 64)))
        >>> bool(-0.1 <= weights.min() < 0.0 < 0.2 < weights.max() <= 0.3)
        True
    """

    def __init__(self, minval: float = -0.05, maxval: float = 0.05, seed: Any = None) -> None:
        super().__init__(seed)
        self.minval = real(minval, "minval")
        self.maxval = real(maxval, "maxval", least=self.minval)

    def _values(self, shape: tuple[int, ...], dtype: str) -> Any:
        return keras.random.uniform(shape, self.minval, self.maxval, dtype=dtype, seed=self.next_seed())

    def get_config(self) -> dict[str, Any]:
        """The arguments, as JSON can hold them."""
        return {"minval": self.minval, "maxval": self.maxval, **super().get_config()}
