"""Attributes of one instance, exchanged for a while: the one way of hooking into models.

Knows neither Keras nor TensorFlow, so that whatever watches a model, on any backend, does it in the same way.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any


@contextlib.contextmanager
def replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    """Sets an attribute of this one instance for the length of a block."""
    put_back = replace(owner, **{name: value})
    try:
        yield
    finally:
        put_back()


def replace(owner: Any, **attributes: Any) -> Callable[[], None]:
    """Sets attributes of this one instance, past the trackers of Keras, in the order in which they are given.

    Returns:
        A function that puts back what was there, last first, of those that nobody else has set since; a second call
        does nothing.
    """
    own, missing = vars(owner), object()
    before = {name: own.get(name, missing) for name in attributes}
    for name, value in attributes.items():
        object.__setattr__(owner, name, value)

    def put_back() -> None:
        for name in reversed(attributes):
            if own.get(name, missing) is not attributes[name]:
                continue
            if before[name] is missing:
                object.__delattr__(owner, name)
            else:
                object.__setattr__(owner, name, before[name])

    return put_back
