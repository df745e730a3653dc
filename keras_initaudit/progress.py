"""A bar for what takes longer than two seconds: on a terminal and in a notebook; a file gets nothing of it."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator

Progress = Callable[[int, int], None]
"""Is told what is done, and of how much."""

AFTER = 2.0
"""Seconds after which it shows."""
_BETWEEN = 0.1
"""Seconds between two pictures of it."""
_WIDTH = 30


@contextlib.contextmanager
def bar(what: str) -> Iterator[Progress]:
    """Shows how far something is, on the standard error, and takes it away at the end.

    Args:
        what: What is being done, in a few words.

    Returns:
        A context whose value is told what is done.

    Example:
        >>> with bar("counting") as told:
        ...     for i in range(3):
        ...         told(i + 1, 3)
    """
    stream = sys.stderr
    begun, drawn, width = time.monotonic(), 0.0, 0

    def told(done: int, total: int) -> None:
        nonlocal drawn, width
        now = time.monotonic()
        if now - begun < AFTER or now - drawn < _BETWEEN or not _can_move(stream):
            return
        full = round(_WIDTH * min(done / max(total, 1), 1.0))
        line = f"{what} [{'#' * full}{'.' * (_WIDTH - full)}] {now - begun:.0f} s"
        drawn, width = now, max(width, len(line))
        stream.write(f"\r{line}")
        stream.flush()

    try:
        yield told
    finally:
        if width:
            stream.write(f"\r{' ' * width}\r")
            stream.flush()


def _can_move(stream: object) -> bool:
    """Whether a line that was written can be written over."""
    return bool(getattr(stream, "isatty", lambda: False)()) or "ipykernel" in sys.modules
