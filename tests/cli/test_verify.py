"""`sartor verify`."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from tests.conftest import RunSartor

SOURCE = """
<ir_version: 10, opset_import: ["" : 20]>
g (float[n, 4] {x}) => (float[n, 4] y, float[n, 4] {z}) <float[1] c = {{ {c} }}>
{{ y = Mul({x}, c)  {z} = Neg({x}) }}
"""


def save(path: Path, c: float = 2.0, x: str = "x", z: str = "z") -> Path:
    onnx.save(onnx.parser.parse_model(SOURCE.format(c=c, x=x, z=z)), path)
    return path


@pytest.fixture
def reference(tmp_path: Path) -> Path:
    return save(tmp_path / "b.onnx")


def test_equal_models_are_silent(reference: Path, tmp_path: Path, sartor: RunSartor) -> None:
    done = sartor("verify", save(tmp_path / "a.onnx", 2.0000001), "--against", reference)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_a_difference_names_the_worst_output(reference: Path, tmp_path: Path, sartor: RunSartor) -> None:
    done = sartor("verify", save(tmp_path / "a.onnx", 2.5), "--against", "b.onnx", cwd=tmp_path)
    line = done.stderr.decode()
    assert (done.returncode, done.stdout, line.count("\n")) == (1, b"", 1)
    assert line.startswith(
        f"sartor verify: error: {tmp_path}/a.onnx: output 'y' is not that of b.onnx: 4 of 4 elements"
    )
    assert line.endswith("See all outputs with `sartor verify --json`\n")


def test_the_document_is_frozen(reference: Path, tmp_path: Path, sartor: RunSartor) -> None:
    good = sartor("verify", reference, "--against", reference, "--json")
    exact = {"max_abs": 0.0, "max_rel": 0.0, "sqnr_db": None}
    assert good.returncode == 0
    assert json.loads(good.stdout) == {
        "schema": 1,
        "ok": True,
        "outputs": [{"name": "y", **exact}, {"name": "z", **exact}],
    }
    bad = sartor("verify", save(tmp_path / "a.onnx", 2.002), "--against", reference, "--json")
    document = json.loads(bad.stdout)
    assert (bad.returncode, list(document), document["ok"]) == (1, ["schema", "ok", "outputs"], False)
    assert list(document["outputs"][0]) == ["name", "max_abs", "max_rel", "sqnr_db"]
    assert document["outputs"][0]["max_rel"] == pytest.approx(1e-3, rel=1e-3)
    assert document["outputs"][0]["sqnr_db"] == pytest.approx(60, abs=0.1)
    assert document["outputs"][1] == {"name": "z", **exact}


def test_tolerances_samples_and_inputs_are_used(reference: Path, tmp_path: Path, sartor: RunSartor) -> None:
    near = save(tmp_path / "a.onnx", 2.002)
    assert sartor("verify", near, "--against", reference, "--rtol", "0.01").returncode == 0
    assert sartor("verify", near, "--against", reference, "--atol", "0.1", "--samples", "1").returncode == 0
    np.savez(tmp_path / "zero.npz", x=np.zeros((3, 4), np.float32))
    assert sartor("verify", near, "--against", reference, "--input", tmp_path / "zero.npz").returncode == 0
    both = sartor("verify", near, "--against", reference, "--input", tmp_path / "zero.npz", "--shape", "n=2")
    assert (both.returncode, both.stderr) == (
        2,
        b"sartor verify: error: --shape is for random inputs, not for those of a file. Leave out one of the two\n",
    )


def test_more_samples_find_what_one_may_miss(tmp_path: Path, sartor: RunSartor) -> None:
    # Wrong only for inputs below -2: rare in one sample, sure in many.
    text = '<ir_version: 10, opset_import: ["" : 20]> g (float[2] x) => (float[2] y) {{ y = {node} }}'
    onnx.save(
        onnx.parser.parse_model(text.format(node="Clip(x, low)").replace("{ y", "<float low = {-2}> { y")),
        tmp_path / "a.onnx",
    )
    onnx.save(onnx.parser.parse_model(text.format(node="Identity(x)")), tmp_path / "b.onnx")
    codes = [
        sartor("verify", tmp_path / "a.onnx", "--against", tmp_path / "b.onnx", "--samples", n).returncode
        for n in ("1", "400")
    ]
    assert codes == [0, 1]


def test_other_interfaces_are_differences(reference: Path, tmp_path: Path, sartor: RunSartor) -> None:
    inputs = sartor("verify", save(tmp_path / "a.onnx", x="q"), "--against", reference)
    assert inputs.returncode == 1
    assert b"output 'y' is not that of" in inputs.stderr
    assert b"the inputs are q instead of x" in inputs.stderr
    outputs = sartor("verify", save(tmp_path / "a.onnx", z="w"), "--against", reference, "--json")
    missing = {"max_abs": None, "max_rel": None, "sqnr_db": None}
    assert outputs.returncode == 1
    assert json.loads(outputs.stdout)["outputs"][1:] == [{"name": "z", **missing}, {"name": "w", **missing}]


def test_either_side_may_be_standard_input(reference: Path, sartor: RunSartor) -> None:
    data = reference.read_bytes()
    assert sartor("verify", "-", "--against", reference, input=data).returncode == 0
    assert sartor("verify", reference, "--against", "-", input=data).returncode == 0
    both = sartor("verify", "-", "--against", "-", input=data)
    assert both.stderr == b"sartor verify: error: both models can't come from standard input. Name one of the files\n"
    assert both.returncode == 2


def test_an_unreadable_model_is_refused(reference: Path, tmp_path: Path, sartor: RunSartor) -> None:
    (tmp_path / "cut.onnx").write_bytes(reference.read_bytes()[:60])
    done = sartor("verify", tmp_path / "cut.onnx", "--against", reference)
    assert (done.returncode, done.stdout, done.stderr.count(b"\n")) == (65, b"", 1)


def test_a_model_that_onnxruntime_refuses_is_named(tmp_path: Path, reference: Path, sartor: RunSartor) -> None:
    text = (
        '<ir_version: 10, opset_import: ["" : 20, "nowhere": 1]> g (float[n] x) => (float[n] y) { y = nowhere.Op(x) }'
    )
    onnx.save(onnx.parser.parse_model(text), tmp_path / "odd.onnx")
    done = sartor("verify", reference, "--against", tmp_path / "odd.onnx")
    assert (done.returncode, done.stderr.count(b"\n")) == (65, 1)
    assert done.stderr.decode().startswith(f"sartor verify: error: {tmp_path}/odd.onnx: onnxruntime does not load it: ")
