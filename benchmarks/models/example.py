"""What a model comes with, and how it becomes ONNX."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch


@dataclass(frozen=True)
class Example:
    """A torch module, inputs to trace it with, and the names of its dynamic axes by input."""

    module: torch.nn.Module
    inputs: tuple[torch.Tensor, ...]
    dynamic_shapes: dict[str, dict[int, Any]]


def export_module(
    module: torch.nn.Module,
    inputs: tuple[torch.Tensor, ...],
    path: Path,
    names: Sequence[str],
    dynamic: dict[str, dict[int, Any]] | None = None,
) -> None:
    """Write a module as torch.onnx.export makes it; without `dynamic` all sizes are those of the inputs."""
    # The exporter logs that torchvision is missing, once for each of its operators.
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module,
            inputs,
            path,
            dynamo=True,
            dynamic_shapes=None if dynamic is None else tuple(dynamic.values()),
            input_names=names,
            output_names=["output"],
            external_data=False,
            verbose=False,
        )
