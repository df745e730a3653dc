"""What Keras's layers are: which weights are kernels, their fans and axes."""
