"""Five torch models with random weights and real structure, and their export to ONNX."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

from models.decoder import decoder
from models.encoder import encoder
from models.example import Example, export_module
from models.lstm import lstm
from models.mobilenet import mobilenet
from models.resnet import resnet

__all__ = ["MODELS", "Example", "decoder", "encoder", "export", "lstm", "make", "mobilenet", "resnet"]

MODELS: dict[str, Callable[[bool], Example]] = {
    "encoder": encoder,
    "resnet": resnet,
    "mobilenet": mobilenet,
    "lstm": lstm,
    "decoder": decoder,
}


def make(name: str, small: bool = False) -> Example:
    """Build a model with seeded weights, the same on every call; `small` has few layers of little width."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        example = MODELS[name](small)
        _settle(example.module)
    return example


def export(name: str, folder: Path, small: bool = False) -> Path:
    """Write a model into `folder` as torch.onnx.export makes it and return its path."""
    example = make(name, small)
    path = folder / f"{name}.onnx"
    export_module(example.module, example.inputs, path, list(example.dynamic_shapes), example.dynamic_shapes)
    return path


def _settle(module: torch.nn.Module) -> None:
    """Give normalisations statistics and scales like those of a trained model, and stop training."""
    for part in module.modules():
        if isinstance(part, torch.nn.BatchNorm2d):
            part.running_mean.normal_(0.0, 0.1)
            part.running_var.uniform_(0.5, 1.5)
        if isinstance(part, torch.nn.BatchNorm2d | torch.nn.LayerNorm):
            torch.nn.init.uniform_(part.weight, 0.5, 1.5)
            torch.nn.init.normal_(part.bias, 0.0, 0.1)
    module.eval().requires_grad_(False)
