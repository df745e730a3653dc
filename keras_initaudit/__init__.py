"""Weight initializers for Keras 3, and an audit that finds a bad start early: which layer, by how much, the remedy.

    model.fit(x, y, callbacks=[InitAudit()])       a verdict before the first update, and a log for TensorBoard
    report = audit(model, x, y)                    the same without a fit
    report.raise_for_verdict("warning")            for a test of your own
    initialize(model, x=x)                         a new start of every layer, tuned on a batch
    Dense(64, "relu", kernel_initializer=HeNormal())
    gain("gelu"), fans(layer), recommend("tanh")   what the initializers go by
    critical_point("tanh"), depth_scale(...)       how deep a plain network can be

The command line is `keras-initaudit --help`; `keras_initaudit.remedies.apply` does to a model what a finding says.
"""

from __future__ import annotations

import importlib
from typing import Any

import wrapt

__version__ = "0.2.0"

# A public name is imported when it is first used (PEP 562): TensorBoard loads this package when it starts, to find the
# tab, and must import neither Keras nor TensorFlow for it. The initializers are registered with Keras as soon as Keras
# itself is imported, before or after this package, so that a saved model loads without another line.
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
