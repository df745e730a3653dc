"""The colours of a report: those of the page in its two themes, which `tensorboard/static/style.css` must repeat."""

from __future__ import annotations

from collections.abc import Mapping

LIGHT: Mapping[str, str] = {
    "surface": "#ffffff",
    "text": "#1d2733",
    "muted": "#596675",
    "line": "#dbe1e7",
    "bad": "#c9252d",
    "warning": "#a86200",
    "healthy": "#177245",
    "note": "#4a5568",
    "activation": "#1d5fd1",
    "backward": "#c2410c",
}
DARK: Mapping[str, str] = {
    "surface": "#2f3338",
    "text": "#eceff2",
    "muted": "#b6c0ca",
    "line": "#454b52",
    "bad": "#ff7b72",
    "warning": "#f2b24c",
    "healthy": "#5fd39a",
    "note": "#a8b3c4",
    "activation": "#7fb2ff",
    "backward": "#ff9d5c",
}
_DARK_PAGES = ('[data-jp-theme-light="false"]', "body.vscode-dark", "html[theme=dark]")
_LIGHT_PAGES = ('[data-jp-theme-light="true"]', "body.vscode-light", "html[theme=light]")
"""How JupyterLab, Visual Studio Code and Colab say their theme. Elsewhere the browser's own preference counts."""


def colour(name: str) -> str:
    """A colour for an attribute or a style: that of the theme within a report, the light one elsewhere."""
    return f"var(--ia-{name}, {LIGHT[name]})"


def themes() -> str:
    """The rules of a style sheet that give a report the colours of the page that it stands in."""
    light, dark = (";".join(f"--ia-{name}:{value}" for name, value in theme.items()) for theme in (LIGHT, DARK))
    within = [", ".join(f"{page} .initaudit" for page in pages) for pages in (_LIGHT_PAGES, _DARK_PAGES)]
    return (
        f".initaudit{{{light}}}@media (prefers-color-scheme: dark){{.initaudit{{{dark}}}}}"
        f"{within[0]}{{{light}}}{within[1]}{{{dark}}}"
    )


SIGNAL, GRADIENT = colour("activation"), colour("backward")
"""Of the two curves of a depth profile."""
REMEDIED, AS_IS = SIGNAL, GRADIENT
"""Of the two curves of a trial."""
