"""Blocks whose insides may be computed again in the backward pass."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint


def run(block: nn.Module, checkpointing: bool, *inputs: Any) -> Any:
    """Call a block; with `checkpointing` only its inputs are kept for the backward pass."""
    if checkpointing and torch.is_grad_enabled():
        return checkpoint(block, *inputs, use_reentrant=False)
    return block(*inputs)
