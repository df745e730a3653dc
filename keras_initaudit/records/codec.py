"""The JSON form of the records, both ways: what JSON lacks is text, and the type of each field says what comes back."""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import numbers
from collections.abc import Mapping
from dataclasses import fields
from typing import Any, get_args, get_origin, get_type_hints

from .remedies import REMEDIES, Remedy


def to_jsonable(value: Any) -> Any:
    """`value` as JSON can hold it: dataclasses as dicts, tuples as lists, numbers that JSON lacks as text.

    NaN and the infinities become "NaN", "Infinity" and "-Infinity": every JSON reader takes those, not every one
    the bare words. The functions `*_from_json` turn them back; so does `number`, one at a time.
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        of_several = {"type": type(value).__name__} if isinstance(value, Remedy) else {}
        return of_several | {f.name: to_jsonable(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): to_jsonable(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [to_jsonable(item) for item in value]
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, numbers.Integral):  # numpy's too
        return int(value)
    if isinstance(value, numbers.Real):
        value = float(value)
        if math.isfinite(value):
            return value
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return str(value)


def number(value: Any) -> float:
    """The float behind what `to_jsonable` wrote: its text forms of NaN and infinity included."""
    return float(value)


def dumps(value: Any) -> str:
    """`value` as one line of standard JSON."""
    return json.dumps(to_jsonable(value), allow_nan=False)


def record(kind: Any, data: Mapping[str, Any]) -> Any:
    """A dataclass of the class `kind` from its JSON form, each field by its annotation; TypeError where it is none."""
    if not isinstance(data, Mapping):
        raise TypeError(f"{kind.__name__}: expected an object, got {type(data).__name__}")
    hints = _hints(kind)
    return kind(**{name: _decoded(hint, data[name]) for name, hint in hints.items() if name in data})


@functools.cache
def _hints(kind: Any) -> dict[str, Any]:
    return get_type_hints(kind)


def _decoded(hint: Any, value: Any) -> Any:
    """The value of a field that is annotated with `hint`, from what `to_jsonable` wrote for it."""
    parts = get_args(hint)
    if type(None) in parts:  # `X | None`
        return None if value is None else _decoded(next(part for part in parts if part is not type(None)), value)
    if hint is Remedy:  # of a later version's own there is the code still
        return record(REMEDIES[value["type"]], value) if value.get("type") in REMEDIES else None
    if dataclasses.is_dataclass(hint):
        return record(hint, value)
    if get_origin(hint) is tuple:
        if not isinstance(value, list | tuple):
            raise TypeError(f"expected a list, got {value!r}")
        kinds = parts[:1] * len(value) if parts[-1] is Ellipsis else parts
        return tuple(_decoded(kind, item) for kind, item in zip(kinds, value, strict=True))
    if hint is Any or parts[-1:] == (Any,):
        return _plain(value)
    if get_origin(hint) is Mapping:
        return {key: _decoded(parts[1], item) for key, item in value.items()}
    if hint is float:
        return value if isinstance(value, int | float) else number(value)
    if isinstance(hint, type) and not isinstance(value, hint):
        raise TypeError(f"expected {hint.__name__}, got {value!r}")
    return value


_NUMBERS = ("NaN", "Infinity", "-Infinity")
_NAMES = ("rule", "layer", "layers", "affected")
"""Keys of `Finding.evidence` that hold names alone: a layer may be called "NaN"."""


def _plain(value: Any) -> Any:
    """A value of no known type: the texts that stand for numbers are turned back, except where only names can be."""
    if isinstance(value, Mapping):
        return {key: item if key in _NAMES else _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return number(value) if isinstance(value, str) and value in _NUMBERS else value
