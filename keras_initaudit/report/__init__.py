"""The report of an audit: text, markdown, HTML with a picture, and JSON."""

from __future__ import annotations

from .report import SCHEMA, VERSION, BadInitializationError, Report
from .svg import BAND

__all__ = ["BAND", "SCHEMA", "VERSION", "BadInitializationError", "Report"]
