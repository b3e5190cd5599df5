"""Planning for a GPU: other element types, other kernels, other costs; without the device."""

from __future__ import annotations

import json
import re
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import helper
from tests.conftest import RunSartor
from tests.kits import fuse_kit as kit

from sartor.tools.fuse.axes import NotEmittableError
from sartor.tools.fuse.fuse import fuse
from sartor.tools.fuse.options import Options
from sartor.tools.fuse.places import PROCESSOR, Graphics, place_for
from sartor.tools.fuse.plan import Plan
from sartor.tools.fuse.report import as_text

GPU = Graphics("cuda")


def chain(dtype: object, width: int = 64) -> onnx.ModelProto:
    """Return the model softmax(gelu(x) + x) over the last axis."""
    nodes = [
        helper.make_node("Gelu", ["x"], ["g"]),
        helper.make_node("Add", ["g", "x"], ["s"]),
        helper.make_node("Softmax", ["s"], ["y"]),
    ]
    return kit.model(nodes, {"x": (dtype, ["n", width])}, ["y"])


def planned(proto: onnx.ModelProto, folder: Path, device: str) -> Plan:
    """Plan and fuse a model without running a kernel."""
    onnx.save(proto, folder / "model.onnx")
    options = Options(device=device, measure=False, verify=False, shapes={"n": (4096,)})
    return fuse(str(folder / "model.onnx"), str(folder / f"{device}.onnx"), options, None)


def test_a_gpu_takes_types_that_the_processor_does_not(tmp_path: Path) -> None:
    proto = chain(ml_dtypes.bfloat16)
    assert not planned(proto, tmp_path, "cpu").kept
    plan = planned(proto, tmp_path, "cuda")
    assert [len(group.nodes) for group in plan.kept] == [3]
    text = as_text(plan)
    assert "  kernel predicted " in text
    assert re.search(r"^  \d+ programs of \d+ warps?, tiles \d+x64: \d+ registers, .* waves \(compiled\)$", text, re.M)
    assert plan.coefficients == "data sheet"
    onnx.checker.check_model(onnx.load(tmp_path / "cuda.onnx"), full_check=True)


def test_costs_grow_with_sizes_and_name_the_composition() -> None:
    call = kit.whole(chain(np.float32))[1]
    times = [GPU.cost(call, {"n": n}) for n in (1, 4096, 1 << 20)]
    assert [cost.composition for cost in times] == ["warp", "block", "block"]
    assert times[0].predicted_us < times[1].predicted_us < times[2].predicted_us  # type: ignore[operator]
    # A read and a write of 256 MiB at the 3.35 TB/s of the data sheet; the instructions of gelu and exp take longer.
    assert 1 < times[2].predicted_us / (2 * (1 << 20) * 64 * 4 / 3.35e6) < 1.5  # type: ignore[operator]
    assert GPU.cost(call, {}).predicted_us is None
    assert GPU.cost(call, {}, unknown=4096) == times[1]


def test_settled_kernels_are_compiled() -> None:
    """What a plan says of a kernel is that of its machine code."""
    call = kit.whole(chain(np.float32))[1]
    settled, guessed = GPU.settle(call, {"n": 4096}), GPU.cost(call, {"n": 4096})
    (launch,), (guess,) = settled.launches, guessed.launches
    assert (launch.chosen, guess.chosen) == ("compiled", "predicted")
    assert settled.composition == launch.composition
    assert settled.predicted_us == pytest.approx(guessed.predicted_us, rel=0.5)
    assert launch.waves == pytest.approx(launch.programs / launch.occupancy / 132)
    assert launch.occupancy * launch.warps <= 64
    assert (launch.spills, launch.measured_us) == (0, None)
    assert GPU.settle(call, {}).launches == ()
    assert PROCESSOR.settle(call, {"n": 4096}) == PROCESSOR.cost(call, {"n": 4096})


def test_places_name_the_code_of_a_call() -> None:
    first, second = (kit.whole(chain(np.float32, width))[1] for width in (64, 65))
    for place in (PROCESSOR, GPU):
        assert place.identity(first) == place.identity(kit.whole(chain(np.float32))[1]) != place.identity(second)
    with pytest.raises(NotEmittableError):
        PROCESSOR.identity(kit.whole(chain(ml_dtypes.bfloat16))[1])


def test_place_of_a_device() -> None:
    assert place_for("cpu", 3, False).facts[0] == 3
    assert place_for("cuda:1", 3, False).device == "cuda:1"


def test_the_command_plans_without_the_gpu(root: Path, tmp_path: Path, sartor: RunSartor) -> None:
    onnx.save(chain(ml_dtypes.bfloat16), tmp_path / "model.onnx")
    options = ["--device", "cuda:4000", "-o", tmp_path / "fused.onnx"]
    done = sartor("fuse", tmp_path / "model.onnx", *options)
    assert (done.returncode, (tmp_path / "fused.onnx").exists()) == (69, False)
    assert b"device cuda:4000: this installation can use" in done.stderr
    done = sartor("fuse", tmp_path / "model.onnx", *options, "--no-measure", "--no-verify", "--json")
    assert done.returncode == 0, done.stderr
    (group,) = json.loads(done.stdout)["groups"]
    (launch,) = group["launches"]
    described = (root / "docs" / "json.md").read_text(encoding="utf-8").replace("`, `", "` | `")
    assert [key for key in launch if f"| `{key}` |" not in described] == []
    assert launch["chosen"] == "compiled"
    assert 0 < launch["registers"] < 255
    assert len(onnx.load(tmp_path / "fused.onnx").functions) == 1
    library = ["--no-measure", "--no-verify", "--emit-library", tmp_path / "l.so"]
    done = sartor("fuse", tmp_path / "model.onnx", *options, *library)
    assert done.returncode == 2
    assert b"--emit-library holds kernels for the CPU. Leave out --device" in done.stderr
