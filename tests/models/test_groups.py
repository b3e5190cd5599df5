"""Each group of the benchmark becomes exactly one kernel, and that computes what float64 does."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.models.conftest import error, fused

from sartor.share.runtime import kernels_of, load

NAMES = (
    "bias_gelu",
    "bias_gelu_plain",
    "residual_layernorm",
    "residual_layernorm_plain",
    "gate_rmsnorm_softmax_mul",
    "ln_gelu_ln_softmax",
    "ln_gelu_ln_softmax_plain",
    "masked_softmax",
    "rotary",
    "dequantise_scale_add",
)


@pytest.mark.parametrize("name", NAMES)
def test_a_group_is_one_kernel(name: str, tmp_path: Path) -> None:
    from models.groups import TINY, export_group, groups

    (group,) = [one for one in groups(TINY) if one.name == name]
    plan = fused(export_group(group, tmp_path), tmp_path / "fused.onnx", False, {})
    session = load(tmp_path / "fused.onnx", threads=1)
    assert (len(kernels_of(session)), plan.dispatches_after) == (1, 1)
    feed = {value.name: tensor.numpy() for value, tensor in zip(session.get_inputs(), group.inputs, strict=True)}
    wide = [tensor.double() if tensor.is_floating_point() else tensor for tensor in group.inputs]
    assert error(session.run(None, feed)[0], group.function(*wide).numpy()) < 1e-5
