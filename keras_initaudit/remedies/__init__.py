"""What repairs a start: remedies and how they are applied and tried, and new starts for whole models."""

from .applying import apply

__all__ = ["apply"]
