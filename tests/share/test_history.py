"""History: deterministic records, a chain that verifies, and one home in each kind of artifact."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import safetensors.numpy

from sartor import __version__
from sartor.share import history
from sartor.share.artifact import open_hdf5, read_model, read_safetensors_header, write_model
from sartor.share.errors import InputRefusedError
from sartor.share.history import Record, make_record


def record(tool: str = "fuse", previous: str | None = None) -> Record:
    return make_record(
        tool,
        ["/opt/bin/sartor", tool, "/data/in/net.onnx", "-o", "../out.onnx", "--report=/tmp/r.json", "-o/x/y.onnx", "-"],
        ["0" * 64],
        {"beam": 3, "only": ("a", "b"), "atol": 1e-5},
        0,
        previous,
    )


def chain(length: int) -> list[Record]:
    records: list[Record] = []
    for index in range(length):
        records.append(record(f"tool{index}", history.last_id(records)))
    return records


def test_a_record_holds_no_path_time_or_host() -> None:
    made = record()
    assert made.argv == ("sartor", "fuse", "net.onnx", "-o", "out.onnx", "--report=r.json", "-oy.onnx", "-")
    assert (made.tool, made.version, made.seed, made.previous) == ("fuse", __version__, 0, None)
    assert made.parameters == {"beam": 3, "only": ["a", "b"], "atol": 1e-5}
    assert made.id == record().id
    assert len(made.id) == 16
    assert made.id != record("prune").id


def test_the_id_is_that_of_the_canonical_json() -> None:
    fixed = Record("t", "1", ("a",), ("b",), {"z": 1, "y": None}, None, None)
    text = (
        '{"argv":["a"],"input_sha256":["b"],"parameters":{"y":null,"z":1},'
        '"previous":null,"seed":null,"tool":"t","version":"1"}'
    )
    assert fixed.id == hashlib.sha256(text.encode()).hexdigest()[:16]


def test_parameters_must_be_json() -> None:
    for value in (object(), float("nan")):
        with pytest.raises((TypeError, ValueError)):
            make_record("t", [], [], {"a": value}, None, None)


def write_onnx(folder: Path, model: Path, records: list[Record]) -> Path:
    ir = read_model(model).ir
    for each in records:
        history.append_onnx(ir, each)
    write_model(ir, folder / "out.onnx")
    return folder / "out.onnx"


def test_onnx(tmp_path: Path, small_model: Path) -> None:
    records = chain(3)
    path = write_onnx(tmp_path, small_model, records)
    first = path.read_bytes()
    assert history.read_onnx(read_model(path).ir) == records
    assert write_onnx(tmp_path, small_model, chain(3)).read_bytes() == first
    assert history.read_onnx(read_model(small_model).ir) == []


def test_hdf5(tmp_path: Path) -> None:
    records = chain(3)
    contents = []
    for name in ("a.h5", "b.h5"):
        with h5py.File(tmp_path / name, "w") as file:
            file["x"] = np.arange(3)
            for each in records:
                history.append_hdf5(file, each)
        with open_hdf5(tmp_path / name) as file:
            assert history.read_hdf5(file) == records
        contents.append((tmp_path / name).read_bytes())
    assert contents[0] == contents[1]


def test_a_long_history_fits_into_hdf5(tmp_path: Path) -> None:
    big = make_record("t", [], [], {"names": ["x" * 1000] * 500}, None, None)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        history.append_hdf5(file, big)
    with open_hdf5(tmp_path / "a.h5") as file:
        assert history.read_hdf5(file) == [big]


def test_safetensors(tmp_path: Path) -> None:
    metadata: dict[str, str] = {"format": "np"}
    records = chain(2)
    for each in records:
        metadata = history.append_safetensors(metadata, each)
    path = tmp_path / "w.safetensors"
    safetensors.numpy.save_file({"a": np.zeros(2)}, path, metadata=metadata)
    read = read_safetensors_header(path).metadata
    assert read["format"] == "np"
    assert history.read_safetensors(read) == records


def test_run_directory(tmp_path: Path) -> None:
    manifest = tmp_path / "manifest.json"
    manifest.write_text('{"step": 7}')
    records = chain(2)
    for each in records:
        history.append_run_directory(tmp_path, each)
    assert history.read_run_directory(tmp_path) == records
    assert json.loads(manifest.read_text())["step"] == 7
    first = manifest.read_bytes()
    manifest.write_text('{"step": 7}')
    for each in records:
        history.append_run_directory(tmp_path, each)
    assert manifest.read_bytes() == first
    assert [path.name for path in tmp_path.iterdir()] == ["manifest.json"]


def test_a_record_continues_the_chain(small_model: Path) -> None:
    model = read_model(small_model).ir
    history.append_onnx(model, record())
    with pytest.raises(AssertionError, match="must name"):
        history.append_onnx(model, record())


def damage_json(entries: list[dict[str, Any]]) -> str:
    return json.dumps(entries)[:-1]


def damage_list(entries: list[dict[str, Any]]) -> str:
    return json.dumps(entries[0])


def damage_content(entries: list[dict[str, Any]]) -> str:
    entries[1]["seed"] = 9
    return json.dumps(entries)


def damage_fields(entries: list[dict[str, Any]]) -> str:
    del entries[0]["seed"]
    return json.dumps(entries)


def damage_types(entries: list[dict[str, Any]]) -> str:
    entries[0]["argv"] = "sartor"
    return json.dumps(entries)


def damage_order(entries: list[dict[str, Any]]) -> str:
    return json.dumps([entries[0], entries[2]])


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (damage_json, "is not JSON"),
        (damage_list, "is not a list"),
        (damage_content, "has a damaged record at position 2"),
        (damage_fields, "has a damaged record at position 1"),
        (damage_types, "has a damaged record at position 1"),
        (damage_order, "is broken before position 2"),
    ],
)
def test_a_damaged_history_is_refused(damage: Callable[[list[dict[str, Any]]], str], reason: str) -> None:
    metadata: dict[str, str] = {}
    for each in chain(3):
        metadata = history.append_safetensors(metadata, each)
    metadata[history.KEY] = damage(json.loads(metadata[history.KEY]))
    with pytest.raises(InputRefusedError) as caught:
        history.read_safetensors(metadata, "w.safetensors")
    assert str(caught.value) == (f"w.safetensors: the history in it {reason}. Pass --no-history to go on without it")


def test_damage_is_found_in_every_home(tmp_path: Path, small_model: Path) -> None:
    model = read_model(small_model).ir
    model.metadata_props[history.KEY] = "{"
    with pytest.raises(InputRefusedError, match=r"^net\.onnx: the history in it is not JSON\."):
        history.read_onnx(model, "net.onnx")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.attrs[history.KEY] = np.arange(3)
        with pytest.raises(InputRefusedError, match=r"a\.h5: the history in it is not JSON\."):
            history.append_hdf5(file, record())
    (tmp_path / "manifest.json").write_text('{"history": 3}')
    with pytest.raises(InputRefusedError, match="the history in it is not a list"):
        history.append_run_directory(tmp_path, record())
