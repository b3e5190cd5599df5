"""Fused models in a session of torch, with their groups as Triton kernels, against stock onnxruntime."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
import torch
from tests.kits import gpu_kit

from sartor.share.inputs import random_inputs, resolve_shapes
from sartor.share.runtime.device_session import DeviceSession
from sartor.tools.fuse.fuse import fuse
from sartor.tools.fuse.options import Options

ROOT = Path(__file__).resolve().parents[3]
QUICK = ("bert", "dien", "llama", "convnext")
SLOW = ("transformer", "conformer", "crnn", "evoformer", "unet", "mobilenet")

Exporter = Callable[[str], Path]


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Exporter]:
    """Return a function that exports the small variant of a workload."""
    folder = tmp_path_factory.mktemp("exports")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / "benchmarks")
        from models import export

        yield cache(lambda name: export(name, folder, small=True))
    for name in [name for name in sys.modules if name.split(".")[0] == "models"]:
        del sys.modules[name]


def check(source: Path, target: Path) -> None:
    """Fuse a model and compare the session with stock onnxruntime on two draws of inputs."""
    plan = fuse(str(source), str(target), Options(device="cuda", measure=False, verify=False), None)
    functions = {group.call.function.name for group in plan.kept}
    model = ir.load(target)
    session = DeviceSession(model, torch.device("cpu"), None)
    assert len(session.kernels) >= len(functions) > 0
    stock = onnxruntime.InferenceSession(source, providers=["CPUExecutionProvider"])
    shapes = resolve_shapes(list(model.graph.inputs), {})
    for seed in (0, 1):
        feed = random_inputs(model, shapes.inputs, [seed])
        for ours, theirs in zip(session.run(None, feed), stock.run(None, feed), strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=2e-4 * max(np.abs(theirs).max(), 1e-3))


@pytest.mark.parametrize("name", QUICK)
def test_workload(exported: Exporter, name: str, tmp_path: Path) -> None:
    """Every group of the model runs as a Triton kernel."""
    check(exported(name), tmp_path / "fused.onnx")


@pytest.mark.slow
@pytest.mark.parametrize("name", SLOW)
def test_workload_slowly(exported: Exporter, name: str, tmp_path: Path) -> None:
    """The same for the larger ones."""
    check(exported(name), tmp_path / "fused.onnx")


def test_kernels_are_poisoned() -> None:
    """Outputs of kernels start as NaN here, so that what is not written is seen."""
    assert torch.isnan(gpu_kit.poisoned((3,), torch.float32, torch.device("cpu"))).all()
