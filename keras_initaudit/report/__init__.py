"""What a person reads: one report in its forms, text, markdown, HTML with a picture, and JSON."""

from __future__ import annotations

from .report import SCHEMA, VERSION, BadInitializationError, Report

__all__ = ["SCHEMA", "VERSION", "BadInitializationError", "Report"]
