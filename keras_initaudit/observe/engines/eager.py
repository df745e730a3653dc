"""The facts of a run that leaves no graph behind."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from . import Use


class EagerFacts:
    """What is known of eager tensors, which have no past: what each layer gave, and what it was called with."""

    def __init__(self, leaves: Sequence[Any], taps: Mapping[int, tuple[Any, Sequence[Any]]]) -> None:
        self._leaves, self._taps = leaves, taps

    def flows(self, leaves: Collection[int]) -> dict[int, tuple[int, ...]]:
        """See `Facts`. Of a layer that has cast its data first, and so cannot be known, the leaves of their shape."""
        known = {id(self._leaves[k]): -1 - k for k in leaves}
        known |= {id(output): label for label, (output, _) in self._taps.items()}
        found = {}
        for label, (_, arguments) in self._taps.items():
            labels = [known[id(x)] for x in arguments if id(x) in known]
            shapes = [x.shape for x in arguments]
            labels = labels or [-1 - k for k in leaves if self._leaves[k].shape in shapes]
            found[label] = tuple(dict.fromkeys(reversed(labels)))
        return found

    def uses(self, weights: Sequence[Any]) -> dict[int, Use]:
        """See `Facts`."""
        del weights
        return {}

    def looked_up(self, leaf: int) -> bool:
        """See `Facts`."""
        del leaf
        return False

    def unreached(self) -> set[int]:
        """See `Facts`."""
        return set()

    def activations(self) -> dict[int, str]:
        """See `Facts`."""
        return {}

    def sums(self) -> list[tuple[set[int], ...]]:
        """See `Facts`."""
        return []
