"""Torch models with random weights and real structure, and their export to ONNX."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from models.bert import bert
from models.conformer import conformer
from models.convnext import convnext
from models.crnn import crnn
from models.decoder import decoder, llama
from models.dien import dien
from models.encoder import encoder
from models.evoformer import evoformer
from models.example import Example, export_module
from models.lstm import lstm
from models.mobilenet import mobilenet
from models.resnet import resnet
from models.transformer import transformer
from models.unet import unet

__all__ = ["MODELS", "WORKLOADS", "Example", "export", "make"]

Build = Callable[[bool], Example]

WORKLOADS: dict[str, Build] = {
    "bert": bert,
    "transformer": transformer,
    "dien": dien,
    "conformer": conformer,
    "crnn": crnn,
    "evoformer": evoformer,
    "llama": llama,
    "unet": unet,
    "mobilenet": mobilenet,
    "convnext": convnext,
}
"""The kinds of models that papers on fusion measure."""

MODELS: dict[str, Build] = {"encoder": encoder, "resnet": resnet, "lstm": lstm, "decoder": decoder, **WORKLOADS}


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


def _settle(module: nn.Module) -> None:
    """Give normalisations statistics and scales like those of a trained model, and stop training."""
    for part in module.modules():
        if isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d):
            part.running_mean.normal_(0.0, 0.1)
            part.running_var.uniform_(0.5, 1.5)
        norm = isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d | nn.LayerNorm | nn.GroupNorm)
        if norm and part.weight is not None:
            nn.init.uniform_(part.weight, 0.5, 1.5)
            nn.init.normal_(part.bias, 0.0, 0.1)
    module.eval().requires_grad_(False)
