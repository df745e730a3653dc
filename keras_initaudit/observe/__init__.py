"""One shadow step of a model, and the snapshot that it leaves."""
