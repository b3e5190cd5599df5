"""Weights in and out: OpenFold's and AlphaFold's files, safetensors, checkpoints of Lightning."""
