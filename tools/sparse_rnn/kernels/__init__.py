"""Kernels of sparse recurrent layers on processors: packed weights, their products, cells, and the loop over time."""
