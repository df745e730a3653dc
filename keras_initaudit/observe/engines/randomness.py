"""The random states that every backend shares, and that a run of the step must leave: of Keras, Python and numpy."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
from keras.src.backend.common import global_state
from keras.src.random import seed_generator


@contextlib.contextmanager
def keras_seeds_kept(
    make_generator: Callable[[], Any], kept: Callable[[Any], AbstractContextManager[None]]
) -> Iterator[None]:
    """Puts back what Keras draws seeds from: for new layers and initializers, and for operations without a seed.

    The generator of the second kind is made at its first use. Where there is none yet, the training is to make it, at
    the moment in which it would; until the end of the block one of `make_generator` stands in its place.

    Args:
        make_generator: Makes a `keras.random.SeedGenerator`, or gives the one that it has made.
        kept: Puts the value of a Keras variable back at the end of a block.
    """
    private = random.Random()
    private.setstate(random.getstate())
    source = seed_generator.python_random
    own = global_state.get_global_attribute(_GLOBAL_GENERATOR)
    with contextlib.nullcontext() if own is None else kept(own.state):
        try:
            seed_generator.python_random = private
            if own is None:
                global_state.set_global_attribute(_GLOBAL_GENERATOR, make_generator())
            yield
        finally:
            seed_generator.python_random = source
            global_state.set_global_attribute(_GLOBAL_GENERATOR, own)


_GLOBAL_GENERATOR = "global_seed_generator"
"""The name under which Keras keeps it."""


@contextlib.contextmanager
def python_states_kept(*, wind_back: bool) -> Iterator[None]:
    """Puts back the random states of Python and numpy, which the person's own code may draw from in a trace.

    Not where Python functions of the data run beside: they draw from the same states, and would draw the same again.
    """
    states = (random.getstate(), np.random.get_state())
    try:
        yield
    finally:
        if wind_back:
            random.setstate(states[0])
            np.random.set_state(states[1])
