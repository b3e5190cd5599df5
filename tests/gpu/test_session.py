"""Sessions on a real GPU: kernels, recorded runs, tensors, refusals."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import helper
from tests.kits import fuse_kit as kit

import sartor
from sartor.share.errors import InputRefusedError
from sartor.share.runtime.device_session import DeviceSession
from sartor.tools.fuse.fuse import fuse
from sartor.tools.fuse.options import Options

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]
F = np.float32


def opened(proto: onnx.ModelProto, folder: Path) -> DeviceSession:
    """Fuse a model without measuring and open it on the GPU."""
    onnx.save(proto, folder / "model.onnx")
    plan = fuse(str(folder / "model.onnx"), str(folder / "fused.onnx"), Options(measure=False), None)
    assert plan.kept
    return sartor.load(folder / "fused.onnx", device="cuda")


def chain() -> onnx.ModelProto:
    """Return the model softmax(gelu(x) + bias) over the last axis."""
    nodes = [
        helper.make_node("Gelu", ["x"], ["g"]),
        helper.make_node("Add", ["g", "bias"], ["s"]),
        helper.make_node("Softmax", ["s"], ["y"]),
    ]
    return kit.model(nodes, {"x": (F, ["n", 77])}, ["y"], {"bias": np.linspace(-1, 1, 77, dtype=F)})


def picked() -> onnx.ModelProto:
    """Return the model x[i] + 1."""
    nodes = [helper.make_node("Gather", ["x", "i"], ["g"]), helper.make_node("Add", ["g", "one"], ["y"])]
    inputs = {"x": (F, [7, 100]), "i": (np.int64, ["n", 3])}
    return kit.model(nodes, inputs, ["y"], {"one": np.array(1, F)})


def wanted(x: torch.Tensor) -> torch.Tensor:
    """Compute the chain in float64."""
    return torch.softmax(torch.nn.functional.gelu(x.double()) + torch.linspace(-1, 1, 77, dtype=torch.float64), -1)


def test_arrays_and_replays(tmp_path: Path) -> None:
    session = opened(chain(), tmp_path)
    assert len(session.kernels) == 1
    for seed in range(6):
        x = torch.randn(1000 if seed % 2 else 3, 77, generator=torch.Generator().manual_seed(seed))
        (y,) = session.run(None, {"x": x.numpy()})
        np.testing.assert_allclose(y, wanted(x), rtol=2e-5, atol=2e-6)
    assert (session.graphs, session.obstacles) == (2, ())


def test_tensors_and_bindings(tmp_path: Path) -> None:
    session = opened(chain(), tmp_path)
    x = torch.randn(50, 77)
    found = [session.run_tensors({"x": (i * x).cuda()})["y"] for i in range(4)]
    for i, y in enumerate(found):
        torch.testing.assert_close(y.cpu().double(), wanted(i * x), rtol=2e-5, atol=2e-6)
    held = x.cuda()
    binding = session.bind({"x": held})
    for factor in (1.0, 2.0):
        held.copy_(factor * x)
        binding.run()
        torch.testing.assert_close(binding.outputs["y"].cpu().double(), wanted(factor * x), rtol=2e-5, atol=2e-6)


def test_measured_choices_are_remembered(tmp_path: Path) -> None:
    onnx.save(chain(), tmp_path / "model.onnx")
    options = Options(device="cuda", verify=False, shapes={"n": (1000,)})
    for _ in range(2):
        plan = fuse(str(tmp_path / "model.onnx"), str(tmp_path / "fused.onnx"), options, None)
        (launch,) = plan.verdicts[0].group.launches
        assert (launch.chosen, launch.spills) == ("measured", 0)
        assert launch.measured_us is not None
        assert launch.measured_us > 0
    session = opened(chain(), tmp_path)
    x = torch.randn(1000, 77)
    np.testing.assert_allclose(session.run(None, {"x": x.numpy()})[0], wanted(x), rtol=2e-5, atol=2e-6)


def test_an_index_out_of_range_is_found(tmp_path: Path) -> None:
    session = opened(picked(), tmp_path)
    x = np.ones((7, 100), F)
    for _ in range(4):
        np.testing.assert_array_equal(session.run(None, {"x": x, "i": np.array([[0, 6, -7]])})[0], 2)
        with pytest.raises(InputRefusedError, match="outside the axis"):
            session.run(None, {"x": x, "i": np.array([[0, 7, 0]])})


def test_what_the_device_has_to_be_asked_for_runs_without_a_graph() -> None:
    proto = kit.model([helper.make_node("NonZero", ["x"], ["y"])], {"x": (F, ["n"])}, ["y"])
    session = sartor.load(proto.SerializeToString(), device="cuda")
    for count in (1, 3, 2):
        x = np.zeros(4, F)
        x[:count] = 1
        np.testing.assert_array_equal(session.run(None, {"x": x})[0], [np.arange(count)])
    assert (session.graphs, session.obstacles) == (0, ("aten.nonzero.default",))
