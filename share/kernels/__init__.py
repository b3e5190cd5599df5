"""Scalar mathematics that generated CPU kernels inline."""
