"""Run models whose functions have kernels of ours, inside stock onnxruntime sessions."""

from __future__ import annotations

from sartor.share.runtime.session import kernels_of, load, stock_options

__all__ = ["kernels_of", "load", "stock_options"]
