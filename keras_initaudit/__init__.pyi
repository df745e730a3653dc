# Made from the table in __init__.py: REWRITE_STUB=1 pytest tests/test_architecture.py
from .auditing import audit as audit
from .callback import InitAudit as InitAudit
from .coordinates import coordinate_check as coordinate_check
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
from .remedies.mup import mup_optimizer as mup_optimizer
from .report import BadInitializationError as BadInitializationError
from .report import Report as Report
from .theory.chaos import critical_point as critical_point
from .theory.chaos import depth_scale as depth_scale
from .theory.gains import gain as gain

__version__: str
__all__: list[str]
