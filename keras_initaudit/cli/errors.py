"""What ends a command."""

from __future__ import annotations


class CommandError(Exception):
    """Ends a command with status 2: its text says what was wrong and how to correct it."""
