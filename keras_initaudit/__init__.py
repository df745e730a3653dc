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
    from .callback import InitAudit as InitAudit
    from .diagnosis import Thresholds as Thresholds
    from .initializers import ICNR as ICNR
    from .initializers import DeltaOrthogonal as DeltaOrthogonal
    from .initializers import DepthScaled as DepthScaled
    from .initializers import GlorotNormal as GlorotNormal
    from .initializers import GlorotUniform as GlorotUniform
    from .initializers import HeNormal as HeNormal
    from .initializers import HeUniform as HeUniform
    from .initializers import Identity as Identity
    from .initializers import KaimingNormal as KaimingNormal
    from .initializers import KaimingUniform as KaimingUniform
    from .initializers import LeCunNormal as LeCunNormal
    from .initializers import LeCunUniform as LeCunUniform
    from .initializers import Orthogonal as Orthogonal
    from .initializers import RandomNormal as RandomNormal
    from .initializers import RandomUniform as RandomUniform
    from .initializers import Sparse as Sparse
    from .initializers import TruncatedNormal as TruncatedNormal
    from .initializers import VarianceScaling as VarianceScaling
    from .initializers import XavierNormal as XavierNormal
    from .initializers import XavierUniform as XavierUniform
    from .initializers import Zeros as Zeros
    from .layers.catalogue import fans as fans
    from .records import Finding as Finding
    from .remedies.initialization import initialize as initialize
    from .remedies.initialization import recommend as recommend
    from .report import BadInitializationError as BadInitializationError
    from .report import Report as Report
    from .theory.chaos import critical_point as critical_point
    from .theory.chaos import depth_scale as depth_scale
    from .theory.gains import gain as gain

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
    "gain": "theory.gains",
    "critical_point": "theory.chaos",
    "depth_scale": "theory.chaos",
    "fans": "layers.catalogue",
    "recommend": "remedies.initialization",
    "initialize": "remedies.initialization",
    "InitAudit": "callback",
    "BadInitializationError": "report",
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
