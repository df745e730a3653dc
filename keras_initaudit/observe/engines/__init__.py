"""observe/engines."""
