"""The loader of the tab "Init Audit", which TensorBoard finds through the entry point `tensorboard_plugins`.

TensorBoard waits for this import, and does not start if it fails: so this module imports next to nothing, and an error
in what it loads costs the tab and a line in TensorBoard's log, never TensorBoard.
"""

from __future__ import annotations

import argparse
from typing import Any

from tensorboard.plugins import base_plugin
from tensorboard.util import tb_logging

_logger = tb_logging.get_logger()

_SAMPLES = {"initaudit": 1000, "histograms": 500}
"""Points kept of each tag. TensorBoard's own figure for a plugin that it does not know is 10, and drops audits; the
histograms stand at the figure that TensorBoard has for them, so that only a choice of the user's changes it."""


class InitAuditPlugin(base_plugin.TBLoader):
    """Loads the tab."""

    def fix_flags(self, flags: argparse.Namespace) -> None:
        """Raises the sampling of our tags where the user has not set it (`--samples_per_plugin initaudit=N`)."""
        given = getattr(flags, "samples_per_plugin", None)
        if given is not None:
            for name, samples in _SAMPLES.items():
                given.setdefault(name, samples)

    def load(self, context: base_plugin.TBContext) -> Any:
        """The tab, or None (and one line in the log) where it cannot be made."""
        try:
            from .routes import InitAuditTab

            return InitAuditTab(context)
        except Exception as error:  # any error: TensorBoard must start
            _logger.warning("The tab 'Init Audit' cannot be shown: %s: %s", type(error).__name__, error)
            return None
