"""Weight initializers for Keras 3, and an audit that says early, by name and with the remedy, that a start is bad.

The public names are resolved when they are first used (PEP 562): TensorBoard loads this package at its own start to
find the tab, and must pay for neither Keras nor TensorFlow there. The initializers are registered with Keras as soon as
Keras itself is imported, before or after this package, so that a saved model loads without another line.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

import wrapt

if TYPE_CHECKING:  # for editors and type checkers, which do not run `__getattr__`
    from .auditing import audit as audit
    from .callback import BadInitializationError as BadInitializationError, InitAudit as InitAudit
    from .connections import fans as fans
    from .diagnosis import Thresholds as Thresholds
    from .gains import gain as gain
    from .initialization import initialize as initialize, recommend as recommend
    from .initializers import (
        DeltaOrthogonal as DeltaOrthogonal,
        DepthScaled as DepthScaled,
        GlorotNormal as GlorotNormal,
        GlorotUniform as GlorotUniform,
        HeNormal as HeNormal,
        HeUniform as HeUniform,
        ICNR as ICNR,
        Identity as Identity,
        KaimingNormal as KaimingNormal,
        KaimingUniform as KaimingUniform,
        LeCunNormal as LeCunNormal,
        LeCunUniform as LeCunUniform,
        Orthogonal as Orthogonal,
        RandomNormal as RandomNormal,
        RandomUniform as RandomUniform,
        Sparse as Sparse,
        TruncatedNormal as TruncatedNormal,
        VarianceScaling as VarianceScaling,
        XavierNormal as XavierNormal,
        XavierUniform as XavierUniform,
        Zeros as Zeros,
    )
    from .records import Finding as Finding
    from .report import Report as Report

__version__ = "0.1.0"

_INITIALIZERS = (
    "Zeros",
    "RandomNormal",
    "RandomUniform",
    "TruncatedNormal",
    "VarianceScaling",
    "GlorotNormal",
    "GlorotUniform",
    "HeNormal",
    "HeUniform",
    "LeCunNormal",
    "LeCunUniform",
    "Orthogonal",
    "DeltaOrthogonal",
    "Identity",
    "Sparse",
    "ICNR",
    "DepthScaled",
    "XavierNormal",
    "XavierUniform",
    "KaimingNormal",
    "KaimingUniform",
)

_HOME = {
    **dict.fromkeys(_INITIALIZERS, "initializers"),
    "gain": "gains",
    "fans": "connections",
    "recommend": "initialization",
    "initialize": "initialization",
    "InitAudit": "callback",
    "BadInitializationError": "callback",
    "audit": "auditing",
    "Report": "report",
    "Finding": "records",
    "Thresholds": "diagnosis",
}

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
