"""Ctrl-C waits until the model is in a state that can be put back."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def deferred() -> Iterator[Callable[[], None]]:
    """Within the block an interrupt is raised where the block asks for it, or at its end; a second one at once.

    Python raises it between any two instructions otherwise, also between those that put weights back.

    Yields:
        A function that raises the interrupt that has come, if any.
    """
    handler = signal.getsignal(signal.SIGINT)
    if not callable(handler) or threading.current_thread() is not threading.main_thread():
        yield lambda: None
        return
    waiting: list[tuple[int, object]] = []

    def note(number: int, frame: object) -> None:
        signal.signal(signal.SIGINT, handler)
        waiting.append((number, frame))

    def ask() -> None:
        if waiting:
            handler(*waiting.pop())  # type: ignore[arg-type]  # Python's own raises KeyboardInterrupt

    signal.signal(signal.SIGINT, note)
    try:
        yield ask
    finally:
        signal.signal(signal.SIGINT, handler)
    ask()
