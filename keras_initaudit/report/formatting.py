"""Names and sentences of a report as text: for a terminal of 80 columns, and as markdown.

Layer names are untrusted text: what goes into markdown is escaped here. Standard library only.
"""

from __future__ import annotations

import html
import re
import textwrap

from .svg import clean

WIDTH = 80


def sentence(text: str, name: str = "") -> str:
    """`text` with a capital at its beginning, but where the name begins it, and a full stop at its end."""
    text = text.strip()
    first = text[:1] if name and text.startswith(name) else text[:1].upper()
    return first + text[1:] + ("." if text and not text.endswith(".") else "")


def wrap(text: str, indent: str) -> list[str]:
    """Lines of a terminal, each indented."""
    return textwrap.wrap(
        text, WIDTH, initial_indent=indent, subsequent_indent=indent or "  ", break_on_hyphens=False
    ) or [indent]


def shorten(text: str, width: int) -> str:
    """`text` within `width` columns: its end is cut off."""
    return text if len(text) <= width else text[: width - 3] + "..."


def escape_md(text: str) -> str:
    """Untrusted text as markdown, shown as it is."""
    return re.sub(r"([\\`*_{}\[\]()#+!|~])", r"\\\1", html.escape(clean(text), quote=False))


def code_md(text: str | None) -> str:
    """A code span that no back-quote or table bar in the name can leave."""
    name = html.escape(clean(text), quote=False).replace("|", "&#124;").replace("`", "&#96;")
    for mark in ("*", "_", "[", "]", "\\", "~", "!"):
        name = name.replace(mark, f"&#{ord(mark)};")
    return f"<code>{name}</code>"


def fence(code: str) -> str:
    """The back-quotes around a block of `code`: more than it holds in a row."""
    longest = max((len(run) for run in re.findall(r"`+", code)), default=0)
    return "`" * max(3, longest + 1)
