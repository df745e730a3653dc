"""The function `fans`, under the path where the package's table of public names looks for it.

A module and a function of one name would take each other's place in the package, depending on which is imported first.
So this path holds the function itself, in every order of imports; what is behind it stands in `connections`.
"""

import sys
from typing import Any

from keras_initaudit.connections import fans

_function: Any = fans
_function.fans = fans
sys.modules[__name__] = _function
