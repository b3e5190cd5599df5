"""The real models of SARTOR_DATA: fused they are valid, compute the same, and pass `sartor verify`."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnx
import pytest
from tests.conftest import RunSartor
from tests.models.conftest import check_results, fused

from sartor.share.artifact import read_model
from sartor.share.double import run_double
from sartor.share.inputs import random_inputs

DATA = os.environ.get("SARTOR_DATA")
PATHS = sorted(Path(DATA).rglob("*.onnx")) if DATA else []
SHAPES = {"silero_vad_16k_op15": {"sequence": (576,)}}
BYTES = 256


def draw(path: Path, shapes: dict[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """Return random inputs; any byte for the one classifier of bytes."""
    feed = random_inputs(read_model(str(path)).ir, shapes, [1])
    if "bytes" in feed:
        feed["bytes"] = np.random.default_rng(1).integers(0, BYTES, feed["bytes"].shape, dtype=np.int32)
    return feed


@pytest.mark.skipif(not PATHS, reason="SARTOR_DATA names no folder of real models")
@pytest.mark.parametrize("measure", [False, True], ids=["unmeasured", "measured"])
@pytest.mark.parametrize("path", PATHS, ids=[path.stem for path in PATHS])
def test_a_real_model_fuses(path: Path, measure: bool, tmp_path: Path, sartor: RunSartor) -> None:
    shapes, target = SHAPES.get(path.stem, {}), tmp_path / "fused.onnx"
    plan = fused(path, target, measure, shapes)
    assert measure or plan.kept
    feed = draw(path, shapes)
    check_results(path, target, feed, run_double(onnx.load(path), feed))
    sizes = [f"--shape={name}={','.join(map(str, size))}" for name, size in shapes.items()]
    done = sartor("verify", target, "--against", path, *sizes)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
