"""`sartor quickcheck`."""

from __future__ import annotations

from pathlib import Path

from tests.conftest import RunSartor


def test_intact_files_are_silent(models: Path, sartor: RunSartor) -> None:
    done = sartor("quickcheck", models / "encoder.onnx", models / "cnn.onnx")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_every_bad_file_is_named_in_order(models: Path, tmp_path: Path, sartor: RunSartor) -> None:
    cut, empty = tmp_path / "cut.onnx", tmp_path / "empty.onnx"
    whole = (models / "cnn.onnx").read_bytes()
    cut.write_bytes(whole[: len(whole) // 2])
    empty.write_bytes(b"")
    done = sartor("quickcheck", cut, models / "cnn.onnx", empty, tmp_path / "absent.onnx")
    lines = done.stderr.decode().splitlines()
    assert (done.returncode, done.stdout, len(lines)) == (65, b"", 3)
    assert lines[0].startswith(f"sartor quickcheck: error: {cut}: the model is cut short")
    assert lines[1].startswith(f"sartor quickcheck: error: {empty}: this is an empty file")
    assert lines[2] == f"sartor quickcheck: error: {tmp_path}/absent.onnx: there is no such file"


def test_no_file_is_wrong_use(sartor: RunSartor) -> None:
    assert sartor("quickcheck").returncode == 2
