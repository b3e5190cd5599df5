"""Run models whose functions have kernels of ours, inside stock onnxruntime sessions."""
