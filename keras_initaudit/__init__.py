"""Weight initializers for Keras 3, and an audit that finds a bad start early: which layer, by how much, the remedy.

A public name is imported when it is first used (PEP 562): TensorBoard loads this package when it starts, to find the
tab, and must import neither Keras nor TensorFlow for it. The initializers are registered with Keras as soon as Keras
itself is imported, before or after this package, so that a saved model loads without another line.
"""

from __future__ import annotations

import importlib
from typing import Any

import wrapt

__version__ = "0.1.0"

_PUBLIC = {
    "auditing": ("audit",),
    "callback": ("InitAudit",),
    "coordinates": ("coordinate_check",),
    "diagnosis": ("Thresholds",),
    "initializers": (
        "ICNR",
        "DeltaOrthogonal",
        "DepthScaled",
        "GlorotNormal",
        "GlorotUniform",
        "HeNormal",
        "HeUniform",
        "Identity",
        "KaimingNormal",
        "KaimingUniform",
        "LeCunNormal",
        "LeCunUniform",
        "Orthogonal",
        "RandomNormal",
        "RandomUniform",
        "Sparse",
        "TruncatedNormal",
        "VarianceScaling",
        "XavierNormal",
        "XavierUniform",
        "Zeros",
    ),
    "layers.catalogue": ("fans",),
    "records": ("Finding",),
    "remedies.initialization": ("initialize", "recommend"),
    "remedies.mup": ("mup_optimizer",),
    "report": ("BadInitializationError", "Report"),
    "theory.chaos": ("critical_point", "depth_scale"),
    "theory.gains": ("gain",),
}
"""Module -> its public names. Type checkers do not run `__getattr__`: they read `__init__.pyi`, which
`REWRITE_STUB=1 pytest tests/test_architecture.py` makes from this table."""
_HOME = {name: module for module, names in _PUBLIC.items() for name in names}

__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it has {', '.join(__all__)}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*__all__, "__version__"]


@wrapt.when_imported("keras")
def _register(_keras: Any) -> None:
    importlib.import_module(f"{__name__}.initializers")
    importlib.import_module(f"{__name__}.optimizers")
