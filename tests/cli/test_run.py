"""`sartor run`."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from tests.conftest import RunSartor

SOURCE = """
<ir_version: 10, opset_import: ["" : 20]>
scale (float[batch, width] x, int64[width] index) => (float[batch, width] y, float[width, 2] rows)
<float[3, 2] table = {1, 2, 3, 4, 5, 6}>
{ y = Add(x, x)  rows = Gather(table, index) }
"""


@pytest.fixture
def scale(tmp_path: Path) -> Path:
    path = tmp_path / "scale.onnx"
    onnx.save(onnx.parser.parse_model(SOURCE), path)
    return path


def arrays(data: bytes) -> dict[str, Any]:
    with np.load(io.BytesIO(data), allow_pickle=False) as archive:
        return dict(archive)


def test_runs_on_given_inputs(scale: Path, tmp_path: Path, sartor: RunSartor) -> None:
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    np.savez(tmp_path / "in.npz", x=x, index=np.array([2, 0, 1]))
    done = sartor("run", scale, "--input", tmp_path / "in.npz", "-o", tmp_path / "out.npz")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    results = arrays((tmp_path / "out.npz").read_bytes())
    assert list(results) == ["y", "rows"]
    np.testing.assert_array_equal(results["y"], 2 * x)
    np.testing.assert_array_equal(results["rows"], [[5, 6], [1, 2], [3, 4]])


def test_random_inputs_are_seeded_and_the_bytes_repeat(scale: Path, sartor: RunSartor) -> None:
    first, again, other = (sartor("run", scale, "--random", "--seed", seed) for seed in ("1", "1", "2"))
    assert first.returncode == 0
    assert first.stdout == again.stdout != other.stdout


@pytest.mark.parametrize("runtime", ["sartor", "onnxruntime"])
def test_shapes_runtimes_threads_and_stdin(runtime: str, scale: Path, sartor: RunSartor) -> None:
    options = ["--random", "--runtime", runtime, "--shape", "x=4,5", "-@", "1"]
    done = sartor("run", *options, input=scale.read_bytes())
    assert done.returncode == 0, done.stderr
    assert arrays(done.stdout)["y"].shape == (4, 5)
    assert done.stdout == sartor("run", scale, *options).stdout


def test_both_runtimes_agree_on_the_examples(models: Path, sartor: RunSartor) -> None:
    path = models / "encoder.onnx"
    ours, stock = (
        arrays(sartor("run", path, "--random", "--runtime", name).stdout) for name in ("sartor", "onnxruntime")
    )
    np.testing.assert_allclose(ours["hidden"], stock["hidden"], rtol=1e-4, atol=1e-5)
    assert ours.keys() == {output.name for output in onnxruntime.InferenceSession(path).get_outputs()}


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        ([], 2, "the model wants x, index. Give them by --input FILE.npz or draw them by --random"),
        (["--random", "--input", "in.npz"], 2, "--input and --random exclude each other. Leave out one of the two"),
        (["--input", "none.npz"], 65, "none.npz: no such file or directory. Check the path"),
        (["--random", "--shape", "q=1"], 2, "--shape q: no such input or axis. The inputs are x, index"),
    ],
)
def test_wrong_use_is_one_line(
    options: list[str], code: int, message: str, scale: Path, tmp_path: Path, sartor: RunSartor
) -> None:
    done = sartor("run", scale, *options, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (code, b"")
    assert done.stderr.decode() == f"sartor run: error: {message}\n"


def test_inputs_that_the_model_rejects_leave_the_old_output(scale: Path, tmp_path: Path, sartor: RunSartor) -> None:
    out = tmp_path / "out.npz"
    out.write_bytes(b"old")
    np.savez(tmp_path / "in.npz", x=np.ones((2, 3), np.float32), index=np.array([2, 0, 9]))
    done = sartor("run", scale, "--input", tmp_path / "in.npz", "-o", out)
    assert done.returncode == 2
    assert done.stderr.decode().startswith(f"sartor run: error: {scale}: the model can't run with these inputs: ")
    assert done.stderr.count(b"\n") == 1
    assert out.read_bytes() == b"old"


def test_a_missing_device_is_named(scale: Path, sartor: RunSartor) -> None:
    done = sartor("run", scale, "--random", "--device", "cuda:4000")
    assert (done.returncode, done.stdout) == (69, b"")
    assert b"device cuda:4000: this installation can use" in done.stderr
    done = sartor("run", scale, "--random", "--device", "gpu")
    assert (done.returncode, done.stdout) == (2, b"")
    assert b"device gpu: no such device. Use cpu, cuda or cuda:N" in done.stderr


def test_onnxruntime_runs_on_the_cpu_only(scale: Path, sartor: RunSartor) -> None:
    done = sartor("run", scale, "--random", "--runtime", "onnxruntime", "--device", "cuda")
    assert (done.returncode, done.stdout) == (2, b"")
    assert b"device cuda: onnxruntime runs on the CPU only. Use --device cpu" in done.stderr
