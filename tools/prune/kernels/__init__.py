"""The kernels of channel pruning, one family a file, each with its plain reference beside it."""
