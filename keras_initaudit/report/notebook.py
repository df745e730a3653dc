"""Whether a report is read in a notebook, and how it is shown there: as HTML, with a text for those who cannot."""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .report import Report


def show(report: Report) -> bool:
    """Shows a report as HTML in the output of the cell that runs; False where no notebook runs.

    A notebook has loaded IPython, and its shell has a kernel; the shell of a terminal has none.
    """
    ipython = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    if getattr(shell, "kernel", None) is None:
        return False
    bundle = {"text/plain": str(report), "text/html": report._repr_html_()}
    importlib.import_module("IPython.display").display(bundle, raw=True)
    return True
