"""The groups of the benchmarks as Triton kernels, against torch in float64."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from tests.kits import fuse_kit as kit
from tests.kits import gpu_kit as gpu

ROOT = Path(__file__).resolve().parents[3]
NAMES = (
    "bias_gelu", "bias_gelu_plain", "residual_layernorm", "residual_layernorm_plain", "gate_rmsnorm_softmax_mul",
    "ln_gelu_ln_softmax", "ln_gelu_ln_softmax_plain", "masked_softmax", "rotary", "dequantise_scale_add",
)  # fmt: skip


@pytest.fixture(scope="module")
def groups() -> Iterator[Any]:
    """Import the groups, which lie outside the package."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / "benchmarks")
        from models import groups as module

        yield module
    sys.modules.pop("models", None)


@pytest.mark.parametrize("name", NAMES)
def test_group(groups: Any, name: str, tmp_path: Path) -> None:
    """All compositions of a group compute what its function does."""
    (group,) = (group for group in groups.groups(groups.TINY) if group.name == name)
    outlined, call = kit.whole(onnx.load(groups.export_group(group, tmp_path)))
    given = {f"x{i}": tensor for i, tensor in enumerate(group.inputs)}
    inputs = [given[str(value.name)].numpy() for value in outlined.inputs]
    wide = [tensor.double() if tensor.is_floating_point() else tensor for tensor in group.inputs]
    wanted = group.function(*wide)
    assert wanted.dtype == torch.float64
    kernels = gpu.able(gpu.kernels(call), inputs)
    assert kernels
    for kernel in kernels:
        (ours,) = gpu.call(kernel, inputs)
        np.testing.assert_allclose(ours, wanted.numpy(), rtol=2e-5, atol=2e-6)
