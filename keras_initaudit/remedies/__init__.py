"""What repairs a start: remedies and how they are applied and proven, and new starts for whole models."""

from .applying import apply

__all__ = ["apply"]
