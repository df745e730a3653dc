"""What every scheme shares: seeds, precision, layout, registration, checks of arguments.

Seeds. An integer gives the same numbers at each call with the same shape, as in Keras. A `keras.random.SeedGenerator`
gives new ones at each call. None gives new ones at each call too, so that one instance may serve many layers; they
follow from `keras.utils.set_random_seed`. (Keras itself repeats an unseeded instance's numbers.) The scheme is mixed
into the seed: two schemes with one seed are independent, where Keras's would be multiples of each other.

Precision. Numbers are drawn in float32 (float64 for float64) and rounded once: a draw in bfloat16 has a biased mean.

Imports keras and numpy only, so that the initializers run on every backend.
"""

from __future__ import annotations

import hashlib
import json
import math
import sys
from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

PACKAGE = "keras_initaudit"

register = keras.saving.register_keras_serializable(package=PACKAGE)


class Scheme(keras.initializers.Initializer):
    """An initializer of this package: the call sees to shape, dtype and layout, `_values` to the numbers."""

    def __call__(self, shape: Sequence[int], dtype: Any = None, layout: Any = None) -> Any:
        """The initial value of a weight.

        Args:
            shape: Its shape.
            dtype: Its dtype; `keras.config.floatx()` by default.
            layout: On JAX, a `keras.distribution.TensorLayout` or sharding that the value is laid out by.

        Returns:
            A tensor of that shape, dtype and layout.
        """
        shape = tuple(int(size) for size in shape)
        dtype = keras.backend.standardize_dtype(dtype or keras.config.floatx())
        value = self._values(shape, "float64" if dtype == "float64" else "float32")
        value = ops.cast(value, dtype)
        return value if layout is None else _laid_out(value, layout)

    def _values(self, shape: tuple[int, ...], dtype: str) -> Any:
        """The weights in float32 or float64."""
        raise NotImplementedError

    def __repr__(self) -> str:
        arguments = ", ".join(f"{name}={value!r}" for name, value in self.get_config().items() if value is not None)
        return f"{type(self).__name__}({arguments})"


class RandomScheme(Scheme):
    """A scheme that draws numbers."""

    def __init__(self, seed: Any = None) -> None:
        if isinstance(seed, dict):
            seed = keras.saving.deserialize_keras_object(seed)
        if isinstance(seed, bool) or not (seed is None or hasattr(seed, "__index__") or _is_generator(seed)):
            raise ValueError(
                "`seed` must be an integer, a `keras.random.SeedGenerator` or None. "
                f"Received: {seed!r} (of type {type(seed).__name__})."
            )
        self._init_seed = seed if seed is None or _is_generator(seed) else int(seed)
        # From Python's own generator, as Keras does, so that `keras.utils.set_random_seed` rules it.
        self._origin = fresh_seed() if seed is None else None
        self._draws = 0

    @property
    def seed(self) -> Any:
        """Seed of the next draw: the given one, or of an unseeded scheme a new integer each time it is asked for.

        EinsumDense, and so every attention layer, makes its own copy of an initializer with this seed.
        """
        if self._init_seed is not None:
            return self._init_seed
        self._draws += 1
        return mix(self._origin, f"draw {self._draws}")

    def next_seed(self, part: str = "") -> Any:
        """What to hand to `keras.random` for one draw: the seed with the scheme and the part mixed in."""
        config = {key: value for key, value in self.get_config().items() if key not in _NO_LAW}
        law = json.dumps([type(self).__name__, config, part], sort_keys=True, default=str)
        seed = self.seed
        return _Mixed(seed, law) if _is_generator(seed) else mix(seed, law)

    def get_config(self) -> dict[str, Any]:
        """The arguments, as JSON can hold them."""
        seed = self._init_seed
        return {"seed": keras.saving.serialize_keras_object(seed) if _is_generator(seed) else seed}


def _laid_out(value: Any, layout: Any) -> Any:
    if type(getattr(layout, "mesh", None)).__name__ == "AbstractMesh":
        # Keras initializes a variable inside of JAX's explicit-sharding mode, on a mesh without devices, for which its
        # own `distribute_tensor` is not made. Who hands over such a layout has imported JAX.
        return sys.modules["jax"].sharding.reshard(value, layout)
    return keras.distribution.distribute_tensor(value, layout)


_NO_LAW = ("seed", "input_axes", "output_axes")  # what does not change which law the numbers follow


def mix(seed: Any, text: str) -> int:
    """An integer seed that follows from `seed` and `text`: the same in every process, unrelated for another text."""
    return int.from_bytes(hashlib.blake2b(f"{seed}/{text}".encode(), digest_size=4).digest(), "big") >> 1


def _is_generator(seed: Any) -> bool:
    return isinstance(seed, keras.random.SeedGenerator)


def fresh_seed() -> int:
    """A seed from where Keras itself draws those of its initializers: `keras.utils.set_random_seed` decides it."""
    return int(keras.initializers.RandomUniform().seed)


class _Mixed(keras.random.SeedGenerator):
    """Another generator's states with a constant mixed in, by operations that a compiled function can trace."""

    def __init__(self, generator: Any, text: str) -> None:
        self.generator = generator  # not the parent's constructor: it has no state
        self.constant = mix(0, text)

    def next(self, ordered: bool = True) -> Any:
        state = self.generator.next(ordered)
        return ops.bitwise_xor(state, ops.convert_to_tensor([self.constant, 0], dtype=state.dtype))


def real(value: Any, name: str, *, above: float = -math.inf, least: float = -math.inf) -> float:
    """`value` as a finite float; ValueError that names the argument otherwise."""
    try:
        number = math.nan if isinstance(value, bool | str) else float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not (math.isfinite(number) and number > above and number >= least):
        bound = f" above {above:g}" if above > -math.inf else f" of at least {least:g}" if least > -math.inf else ""
        raise ValueError(f"`{name}` must be a finite number{bound}. Received: {value!r}.")
    return number


def whole(value: Any, name: str, least: int = 1) -> int:
    """`value` as an integer; ValueError that names the argument otherwise."""
    if isinstance(value, bool) or not hasattr(value, "__index__") or int(value) < least:
        raise ValueError(f"`{name}` must be an integer of at least {least}. Received: {value!r}.")
    return int(value)


def choice(value: Any, name: str, allowed: Sequence[str]) -> str:
    """`value` if it is one of `allowed`; ValueError that names the argument otherwise."""
    if not isinstance(value, str) or value not in allowed:
        raise ValueError(f"`{name}` must be one of {', '.join(map(repr, allowed))}. Received: {value!r}.")
    return value


def axes(value: Any, name: str) -> list[int] | None:
    """`value` as a list of distinct integers, or None."""
    if value is None:
        return None
    wrong = f"`{name}` must be a list of distinct integer axes, as [0], or None. Received: {value!r}."
    try:
        found = [whole(axis, name, least=-64) for axis in value]
    except (TypeError, ValueError) as error:
        raise ValueError(wrong) from error
    if len(set(found)) != len(found):
        raise ValueError(wrong)
    return found
