"""The folder of a run and its event file, which are new for each writer; and what is said where they cannot be."""

from __future__ import annotations

import itertools
import os
import re
import socket
import time
from pathlib import Path
from typing import BinaryIO

from tensorboard.compat.proto import event_pb2

_SERIAL = itertools.count()


class LogError(OSError):
    """The log cannot be written; the message names the folder and how to choose another."""


def log_error(folder: Path, error: OSError) -> LogError:
    """The error for a folder or a file that cannot be made or written."""
    return LogError(
        f"the log cannot be written into {str(folder)!r} ({error.strerror or error}); "
        "give log_dir= a folder that can be written"
    )


def head() -> event_pb2.Event:
    """The first event of a file."""
    event = event_pb2.Event(wall_time=time.time(), file_version="brain.Event:2")
    event.source_metadata.writer = "keras_initaudit"
    return event


def claim(log_dir: str | os.PathLike[str]) -> tuple[Path, BinaryIO]:
    """Makes the run folder and its event file, in the first of `log_dir`, `log_dir-2`, ... that holds no log.

    The lock closes the moment between the look and the making: of two writers only one can create it. The name of the
    file is new each time, because a TensorBoard that is running goes on in the middle of a file that it knows.

    Raises:
        LogError: where one cannot be made.
    """
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+:/", os.fspath(log_dir)):
        raise LogError(
            f"the log is written into local folders only, not into {os.fspath(log_dir)!r}: "
            "give log_dir= a local folder, and copy it where it is wanted"
        )
    wanted = Path(log_dir)
    try:
        return next(made for attempt in itertools.count(1) if (made := _attempt(wanted, attempt)))
    except OSError as error:
        raise log_error(wanted, error) from error


def _attempt(wanted: Path, number: int) -> tuple[Path, BinaryIO] | None:
    """The file in the folder of that number; None where a log is, or is being made, in it."""
    folder = wanted if number == 1 else wanted.with_name(f"{wanted.name}-{number}")
    folder.mkdir(parents=True, exist_ok=True)
    lock = folder / ".initaudit.lock"
    try:
        os.close(os.open(lock, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
    except FileExistsError:
        return None
    try:
        if any("tfevents" in name for name in os.listdir(folder)):
            return None
        host = socket.gethostname()
        name = f"events.out.tfevents.{int(time.time()):010d}.{host}.{os.getpid()}.{next(_SERIAL)}.initaudit"
        path = folder / name
        return path, open(path, "xb", buffering=0)
    finally:
        lock.unlink(missing_ok=True)
