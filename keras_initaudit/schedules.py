"""At which steps `InitAudit` audits."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import Any

_DENSE = (1, 2, 5)


def default_schedule(step: int) -> bool:
    """0, 1, 2, 5, 10, 20, 50, 100, ...: dense where an initialization shows, sparse where it no longer matters."""
    while step and step % 10 == 0:
        step //= 10
    return step in (0, *_DENSE)


def checked_schedule(schedule: Any) -> Any:
    """`schedule` as it was given; the steps of what can be read once only, as a tuple."""
    if isinstance(schedule, bool | str) or not (
        schedule is None or isinstance(schedule, int | Iterable) or callable(schedule)
    ):
        raise TypeError(f"schedule must be None, an integer, steps or a function of a step, got {schedule!r}")
    if isinstance(schedule, int):
        if schedule < 1:
            raise ValueError(f"schedule must be at least 1 where it is an integer, got {schedule}")
        return schedule
    if schedule is None or callable(schedule):
        return schedule
    steps = schedule if isinstance(schedule, Collection) else tuple(schedule)
    wrong = [step for step in steps if isinstance(step, bool) or not isinstance(step, int) or step < 0]
    if wrong:
        raise ValueError(f"schedule must hold steps, integers from 0; got {wrong[0]!r} in it")
    return steps


def is_due(schedule: Any) -> Callable[[int], bool]:
    """Whether a step is one to audit at, for what `checked_schedule` has let through."""
    if schedule is None:
        return default_schedule
    if isinstance(schedule, int):
        return lambda step: step % schedule == 0
    if callable(schedule):
        return lambda step: bool(schedule(step))
    steps = frozenset(schedule)
    return lambda step: step in steps
