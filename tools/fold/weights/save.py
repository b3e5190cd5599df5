"""Writing weights under OpenFold's names."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from sartor.share.artifact import write_bytes, write_tensors


def tensors_of(model: nn.Module) -> dict[str, Tensor]:
    """Return a model's weights on the CPU, each in memory of its own."""
    return {name: tensor.detach().cpu().clone() for name, tensor in sorted(model.state_dict().items())}


def write_safetensors(model: nn.Module, target: str | Path, metadata: Mapping[str, str]) -> None:
    """Write a model as safetensors, atomically; `metadata` may hold its history."""
    write_tensors(tensors_of(model), target, metadata)


def write_pt(model: nn.Module, target: str | Path) -> None:
    """Write a model as a state dict that OpenFold loads, atomically."""
    buffer = io.BytesIO()
    torch.save(tensors_of(model), buffer)
    write_bytes(buffer.getvalue(), target)
