"""What a model comes with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch


@dataclass(frozen=True)
class Example:
    """A torch module, inputs to trace it with, and the names of its dynamic axes by input."""

    module: torch.nn.Module
    inputs: tuple[torch.Tensor, ...]
    dynamic_shapes: dict[str, dict[int, Any]]
