"""Findings that a person accepts: `ignore=("duplicate-kernels", "no-gradient:ema/*")`, by rule and by layer.

An entry is the slug of a rule, which ignores all that it finds, or `rule:pattern`, which ignores what it finds at the
layers whose path matches the pattern (`*` matches any text, slashes too; `?` one character; `[ab]` one of them).
A finding over several layers is ignored only if each of them matches one of the patterns. Needs no Keras.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Sequence
from typing import Any

from ..records import Finding
from . import RULES


def checked_ignore(ignore: Any) -> tuple[str, ...]:
    """`ignore` as a tuple of entries.

    Raises:
        TypeError: It is no sequence of texts; one text alone is none.
        ValueError: An entry names no rule, or has an empty pattern.
    """
    if isinstance(ignore, str) or not isinstance(ignore, Iterable):
        raise TypeError(
            f'ignore must be a list of rules, as ["duplicate-kernels", "no-gradient:ema/*"], got {ignore!r}'
        )
    entries = tuple(ignore)
    known = [rule.slug for rule in RULES]
    for entry in entries:
        if not isinstance(entry, str):
            raise TypeError(f'ignore must hold texts, as "no-gradient:ema/*", got {entry!r} in it')
        rule, colon, pattern = entry.partition(":")
        if rule not in known:
            raise ValueError(f"ignore: no rule is named {rule!r}; there are {', '.join(sorted(known))}")
        if colon and not pattern:
            raise ValueError(f"ignore: {entry!r} has no pattern behind its colon; {rule!r} alone is for every layer")
    return entries


def split(findings: Sequence[Finding], ignore: Sequence[str]) -> tuple[tuple[Finding, ...], tuple[Finding, ...]]:
    """The findings that count, and those that `ignore` names; the consequences of a finding go with it.

    Args:
        findings: Of one audit.
        ignore: What `checked_ignore` returns.

    Example:
        >>> found = [Finding("no-gradient", "bad", "ema/dense", ""), Finding("dead-units", "bad", "dense", "")]
        >>> [[finding.rule for finding in part] for part in split(found, ["no-gradient:ema/*"])]
        [['dead-units'], ['no-gradient']]
    """
    ignored = [_is_ignored(finding, ignore) for finding in findings]
    counted = tuple(finding for finding, out in zip(findings, ignored, strict=True) if not out)
    return counted, tuple(finding for finding, out in zip(findings, ignored, strict=True) if out)


def _is_ignored(finding: Finding, ignore: Sequence[str]) -> bool:
    patterns = [
        pattern or "*" for rule, _, pattern in (entry.partition(":") for entry in ignore) if rule == finding.rule
    ]
    places = finding.evidence.get("affected") or [finding.layer or ""]  # a finding about the whole model has no path
    return all(any(fnmatch.fnmatchcase(place, pattern) for pattern in patterns) for place in places)
