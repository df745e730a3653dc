"""`replaced`: an attribute of one instance, exchanged for the length of a block: the one way of hooking into models.

Knows neither Keras nor TensorFlow, so that whatever watches a model, on any backend, does it in the same way.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any


@contextlib.contextmanager
def replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    """Sets an attribute of this one instance, past the trackers of Keras, and puts back what was there."""
    own = vars(owner)
    missing = object()
    before = own.get(name, missing)
    object.__setattr__(owner, name, value)
    try:
        yield
    finally:
        if before is missing:
            object.__delattr__(owner, name)
        else:
            object.__setattr__(owner, name, before)
