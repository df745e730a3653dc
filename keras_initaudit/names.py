"""Names of layers in a few columns, cut so that the rows of a table stay distinguishable. Standard library only."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Callable, Sequence

LEAST = 8
"""The smallest number of columns that names can be cut to."""
_WORD = re.compile(r"\d+|[A-Z]*[^\W\d_A-Z]+|[A-Z]+|[\W_]")
"""Numbers, words (`VeryLong` is two) and single separators: all characters of a name, in order."""
_LOOSE = "_- "
"""Separators that go where one letter of each word is too much."""


def shortened(names: Sequence[str], width: int, mark: str = "...") -> list[str]:
    """The names within `width` columns, in their order: names that differ stay different.

    A name that fits stays as it is. Of a longer one, the leading folders that all names share become `mark`, or go,
    and each word keeps its first letters, those behind the last `/` twice as many; numbers stay whole. Where this does
    not tell names apart they keep both ends, or one end; what is still alike is numbered.

    Args:
        names: The names of all the rows that are shown together.
        width: The most columns of a name, at least `LEAST`.
        mark: What stands for characters that are left out.

    Raises:
        ValueError: `width` is below `LEAST`.

    Example:
        >>> shortened(["transformer_layer_0/self_attention/query", "transformer_layer_1/self_attention/key"], 23)
        ['tra_lay_0/sel_att/query', 'tra_lay_1/sel_att/key']
    """
    if width < LEAST:
        raise ValueError(f"width must be at least {LEAST}, got {width}")
    short = {name: name for name in names if len(name) <= width}
    long = [name for name in dict.fromkeys(names) if name not in short]
    room, folders = width - len(mark), _shared_folders(names)
    ways: Sequence[Callable[[list[str]], list[str]]] = (
        lambda left: _by_words(left, folders, width, f"{mark}/"),
        lambda left: _by_words(left, folders, width, ""),
        lambda left: [name[: room // 3] + mark + name[room // 3 - room :] for name in left],
        lambda left: [mark + name[-room:] for name in left],
        lambda left: [name[:room] + mark for name in left],
    )
    for cut in ways:
        left = [name for name in long if name not in short]
        made = dict(zip(left, cut(left), strict=True))
        times = Counter([*made.values(), *short.values()])
        short |= {name: text for name, text in made.items() if times[text] == 1 and len(text) <= width}
    numbered, used = itertools.count(1), set(short.values())
    for name in long:
        while name not in short:
            end = f"~{next(numbered)}"
            text = name[: width - len(end)] + end
            if text not in used:
                short[name] = text
    return [short[name] for name in names]


def _shared_folders(names: Sequence[str]) -> str:
    """The leading folders that all names have in common, with the `/` behind each."""
    if len(set(names)) < 2:
        return ""
    folders = [name.split("/")[:-1] for name in names]
    alike = itertools.takewhile(lambda parts: len(set(parts)) == 1, zip(*folders, strict=False))
    return "".join(f"{parts[0]}/" for parts in alike)


def _by_words(names: Sequence[str], folders: str, width: int, start: str) -> list[str]:
    """Each name by the first letters of its words; longer than `width` where one letter of each is too much.

    `start` takes the place of the folders, where it is shorter.
    """
    if len(folders) <= len(start):
        start = folders = ""
    rests = [name[len(folders) :] for name in names]
    room = width - len(start)
    words = [_words(rest, room) for rest in rests]
    most = [_most_letters(each, room) for each in words]
    usual = sorted(most)[len(most) // 4] if most else 0  # so that most rows cut the same word in the same way
    made = (
        rest if len(rest) <= room else _written(each, min(letters, usual), room)
        for rest, each, letters in zip(rests, words, most, strict=True)
    )
    return [start + text for text in made]


def _words(name: str, room: int) -> list[str]:
    words = _WORD.findall(name)
    return words if sum(_kept(words, 1)) <= room else [word for word in words if word not in _LOOSE]


def _most_letters(words: Sequence[str], room: int) -> int:
    """The most letters of each word with which the name fits; at least 1."""
    fitting = itertools.takewhile(lambda letters: sum(_kept(words, letters)) <= room, range(2, room + 1))
    return max(fitting, default=1)


def _kept(words: Sequence[str], letters: int) -> list[int]:
    """How many characters of each word are kept: twice as many of those behind the last `/`, and whole numbers."""
    end = max((i for i, word in enumerate(words) if word == "/"), default=len(words))
    return [
        len(word) if word.isdigit() else min(len(word), 2 * letters if i > end else letters)
        for i, word in enumerate(words)
    ]


def _written(words: Sequence[str], letters: int, room: int) -> str:
    """The name with so many letters of each word; what is left of the room goes to its last words."""
    kept = _kept(words, letters)
    for i in reversed(range(len(words))):
        if words[i] == "/":
            break
        kept[i] += max(0, min(len(words[i]) - kept[i], room - sum(kept)))
    return "".join(word[:size] for word, size in zip(words, kept, strict=True))
