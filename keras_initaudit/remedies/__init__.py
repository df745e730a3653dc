"""What repairs a start: how a remedy is applied and proven, and new starts for whole models."""
