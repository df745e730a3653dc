"""From what was measured to what is wrong: `diagnose(snapshots)` gives findings, worst first, each cause once.

Every rule is a pure function of one snapshot and the thresholds; `RULES` is the table of them, in the order from cause
to consequence. Only standard library and the records are needed, so that a log is judged again in any process, with
other thresholds, without Keras.
"""

from __future__ import annotations

from .causes import diagnose
from .rule import Rule
from .rules import RULES
from .thresholds import Thresholds

__all__ = ["RULES", "Rule", "Thresholds", "diagnose"]
