"""`sartor bench`."""

from __future__ import annotations

import json
from pathlib import Path

import onnx
import pytest
from tests.conftest import RunSartor

SOURCE = '<ir_version: 10, opset_import: ["" : 20]> g (float[n, 512] x) => (float[n, 512] y) {{ {body} }}'
SLOW = " ".join(f"t{i + 1} = Sin(t{i})" for i in range(20))


def save(path: Path, body: str) -> Path:
    onnx.save(onnx.parser.parse_model(SOURCE.format(body=body)), path)
    return path


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    return save(tmp_path / "plain.onnx", "y = Neg(x)")


def test_the_document_is_frozen(plain: Path, sartor: RunSartor) -> None:
    done = sartor("bench", plain, "--seconds", "0.1", "--shape", "n=64", "-@", "1", "--json")
    document = json.loads(done.stdout)
    assert (done.returncode, done.stderr) == (0, b"")
    assert list(document) == ["schema", "a_us", "b_us", "ratio_min", "ratio_median"]
    assert document["schema"] == 1
    for side in ("a_us", "b_us"):
        assert list(document[side]) == ["min", "median"]
        assert 0 < document[side]["min"] <= document[side]["median"]
    assert document["ratio_min"] == pytest.approx(document["b_us"]["min"] / document["a_us"]["min"], rel=0.01)


def test_the_ratio_is_reference_over_model(tmp_path: Path, plain: Path, sartor: RunSartor) -> None:
    # Multiplying the chain of sines by zero keeps the result that of the plain model.
    nothing = "zero = Constant<value_float = 0.0>() nought = Mul(t20, zero)"
    chain = f"t0 = Identity(x) {SLOW} {nothing} minus = Neg(x) y = Add(minus, nought)"
    slow = save(tmp_path / "slow.onnx", chain)
    options = ["--seconds", "0.3", "--shape", "n=64", "-@", "1", "--json"]
    assert json.loads(sartor("bench", plain, "--against", slow, *options).stdout)["ratio_min"] > 2
    assert json.loads(sartor("bench", slow, "--against", plain, *options).stdout)["ratio_min"] < 0.5


def test_people_get_a_table_on_stderr(plain: Path, sartor: RunSartor) -> None:
    done = sartor("bench", plain, "--seconds", "0.05")
    lines = done.stderr.decode().splitlines()
    assert (done.returncode, done.stdout, len(lines)) == (0, b"", 4)
    assert "minimum" in lines[0]
    assert lines[1].startswith(f"{plain} (sartor)")
    assert lines[2].startswith(f"{plain} (onnxruntime)")
    assert lines[3].startswith("ratio")


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_no_figure_for_a_model_that_computes_something_else(
    options: list[str], tmp_path: Path, plain: Path, sartor: RunSartor
) -> None:
    other = save(tmp_path / "other.onnx", "y = Abs(x)")
    done = sartor("bench", other, "--against", plain, "--seconds", "0.05", *options)
    assert (done.returncode, done.stdout, done.stderr.count(b"\n")) == (1, b"", 1)
    assert done.stderr.decode().startswith(f"sartor bench: error: {other}: output 'y' is not that of {plain}: ")
