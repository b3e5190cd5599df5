"""The cheap check: agrees with reading, costs no weights, and knows run directories."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import safetensors.numpy

from sartor.share.artifact import Kind, identify, quickcheck, read_manifest
from sartor.share.errors import InputRefusedError


def test_intact_models(small_model: Path) -> None:
    assert quickcheck(small_model) is None


def test_intact_external_models(external_model: Callable[..., Path]) -> None:
    assert quickcheck(external_model()) is None
    assert quickcheck(external_model(offset=None, length=None)) is None


def test_reasons(tmp_path: Path, small_model: Path, external_model: Callable[..., Path]) -> None:
    data = small_model.read_bytes()
    small_model.write_bytes(data[:-1])
    assert quickcheck(small_model) == f"the model is cut short, {len(data) - 1} bytes of at least {len(data)} are here"
    small_model.write_bytes(b"\x08\x0a\x12\x01a")
    assert quickcheck(small_model) == "the model has no graph"
    assert quickcheck(external_model(length="12")) == "tensor 'weight' declares 256 bytes and its external data 12"
    path = external_model()
    os.truncate(tmp_path / "net.data", 255)
    assert quickcheck(path) == "tensor 'weight' needs 256 bytes of its data file 'net.data', which has 255"
    (tmp_path / "net.data").unlink()
    assert quickcheck(path) == "tensor 'weight' needs the data file 'net.data', which is not there"
    assert quickcheck(tmp_path / "none") == "there is no such file"
    (tmp_path / "empty").touch()
    assert quickcheck(tmp_path / "empty") == "this is an empty file, not an ONNX model"


def edit_raw(model: onnx.ModelProto) -> str:
    model.graph.initializer[0].raw_data = bytes(200)
    return "tensor 'weight' declares 256 bytes and holds 200"


def edit_entries(model: onnx.ModelProto) -> str:
    model.graph.initializer[1].dims[0] = 7
    return "tensor 'bias' declares 7 entries and holds 1"


def edit_packed_numbers(model: onnx.ModelProto) -> str:
    model.graph.initializer.add(name="n", data_type=onnx.TensorProto.INT64, dims=[4], int64_data=[-1, 1 << 40, 0])
    return "tensor 'n' declares 4 entries and holds 3"


def edit_strings(model: onnx.ModelProto) -> str:
    model.graph.initializer.add(name="s", data_type=onnx.TensorProto.STRING, dims=[3], string_data=[b"a", b"b"])
    return "tensor 's' declares 3 entries and holds 2"


def edit_negative(model: onnx.ModelProto) -> str:
    model.graph.initializer[1].dims[0] = -3
    return "tensor 'bias' has a negative size, -3"


def edit_opset(model: onnx.ModelProto) -> str:
    del model.opset_import[:]
    return "the model imports no operator set"


@pytest.mark.parametrize("edit", [edit_raw, edit_entries, edit_packed_numbers, edit_strings, edit_negative, edit_opset])
def test_contradictions(edit: Callable[[onnx.ModelProto], str], tmp_path: Path, small_proto: onnx.ModelProto) -> None:
    reason = edit(small_proto)
    path = tmp_path / "net.onnx"
    path.write_bytes(small_proto.SerializeToString())
    assert quickcheck(path) == reason


def test_weights_are_not_read(monkeypatch: pytest.MonkeyPatch, model_of_size: Callable[[str, int, int], Path]) -> None:
    path = model_of_size("net.onnx", 4, 1)
    read: list[int] = []
    pread = os.pread

    def counted(descriptor: int, size: int, offset: int) -> bytes:
        read.append(size)
        return pread(descriptor, size, offset)

    monkeypatch.setattr("os.pread", counted)
    assert quickcheck(path) is None
    assert 0 < sum(read) < 5_000


def test_run_directories(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text('{"history": []}')
    safetensors.numpy.save_file({"a": np.zeros(2)}, tmp_path / "w.safetensors")
    assert identify(tmp_path) is Kind.RUN_DIRECTORY
    assert quickcheck(tmp_path) is None
    os.truncate(tmp_path / "w.safetensors", 75)
    reason = quickcheck(tmp_path)
    assert reason is not None
    assert reason.startswith("w.safetensors: the file is cut short, 75 bytes of ")
    for content, expected in (("[", "the manifest is not JSON"), ("[]", "the manifest is not a JSON object")):
        (tmp_path / "manifest.json").write_text(content)
        assert quickcheck(tmp_path) == expected
        with pytest.raises(InputRefusedError, match=expected):
            read_manifest(tmp_path)
