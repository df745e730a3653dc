"""How the words of a finding are put together: the names of layers in a sentence, and what their weights came from."""

from __future__ import annotations

from collections.abc import Sequence

from ..flow import Row
from ..numerals import count as plural
from ..numerals import num, percent


def several(paths: Sequence[str]) -> str:
    """One path, or the first and how many more."""
    return paths[0] if len(paths) == 1 else f"{paths[0]} and {len(paths) - 1} more"


def drawn(rows: Sequence[Row]) -> str:
    """What several kernels were drawn by, as `; all 36 kernels are drawn by RandomNormal(stddev=1)`; else nothing."""
    starts = {(row.info.initializer, _arguments(row)) for row in rows}
    if len(rows) < 3 or len(starts) > 1:
        return ""
    name, arguments = next(iter(starts))
    return "" if name is None else f"; all {len(rows)} kernels are drawn by {name}{arguments}"


def _arguments(row: Row) -> str:
    """The size that an initializer was given, where it was given one."""
    given = ((name, row.info.initializer_config.get(name)) for name in ("stddev", "maxval", "value", "scale", "gain"))
    sizes = ", ".join(f"{name}={num(v)}" for name, v in given if isinstance(v, int | float))
    return f"({sizes})" if sizes else ""


__all__ = ["drawn", "num", "percent", "plural", "several"]
