"""Every refusal of a model by its exact line."""

from __future__ import annotations

import gzip
import io
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import onnx
import pytest
import safetensors.numpy
import torch
from onnx import TensorProto, helper

from sartor.share.artifact import Kind, identify, read_model
from sartor.share.errors import InputRefusedError, UsageError

AGAIN = "Download, copy or export it again"
NEWER = "Install a newer onnx, or export the model for an older version"
MOVE = "Copy the data file next to the model and export or rewrite the model"


def refusal(path: Path | str) -> str:
    """Return the refusal's line without the folder; the exit code is always 65."""
    with pytest.raises(InputRefusedError) as caught:
        read_model(path)
    assert caught.value.exit_code == 65
    assert "\n" not in str(caught.value)
    return str(caught.value).replace(f"{os.path.dirname(path)}/", "", 1)


def npz_bytes() -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, a=np.zeros(2))
    return buffer.getvalue()


def npy_bytes() -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.zeros(2))
    return buffer.getvalue()


def zip_bytes() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("net.onnx", b"x")
    return buffer.getvalue()


def torch_bytes() -> bytes:
    buffer = io.BytesIO()
    torch.save({"w": torch.zeros(2)}, buffer)
    return buffer.getvalue()


def hdf5_bytes() -> bytes:
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        file["x"] = np.zeros(2)
    return buffer.getvalue()


LOOKALIKES = {
    "empty": (
        lambda: b"",
        Kind.EMPTY,
        "an empty file",
        "The command that should have written it probably failed; make it again",
    ),
    "lfs": (
        lambda: b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n",
        Kind.GIT_LFS,
        "a git-lfs pointer",
        "Fetch the file itself with `git lfs pull`",
    ),
    "html": (
        lambda: b"\n<!DOCTYPE html><html><body>404</body></html>",
        Kind.HTML,
        "an HTML page",
        "The download probably failed; download the file again",
    ),
    "torch": (torch_bytes, Kind.TORCH, "a PyTorch archive", "Export the model with torch.onnx.export"),
    "npz": (npz_bytes, Kind.NPZ, "a NumPy .npz archive", "Name an ONNX model"),
    "npy": (npy_bytes, Kind.NPY, "a NumPy .npy array", "Name an ONNX model"),
    "zip": (zip_bytes, Kind.ZIP, "a zip archive", "Unpack it and name the file inside"),
    "pickle": (
        lambda: pickle.dumps({"a": 1}),
        Kind.PICKLE,
        "a Python pickle",
        "Pickles can run code and are never loaded; export the model as ONNX",
    ),
    "old pickle": (
        lambda: pickle.dumps({"a": 1}, protocol=0),
        Kind.PICKLE,
        "a Python pickle",
        "Pickles can run code and are never loaded; export the model as ONNX",
    ),
    "gzip": (lambda: gzip.compress(b"x" * 99), Kind.COMPRESSED, "a compressed file", "Decompress it first"),
    "hdf5": (hdf5_bytes, Kind.HDF5, "an HDF5 file", "Name an ONNX model"),
    "safetensors": (
        lambda: safetensors.numpy.save({"a": np.zeros(2)}),
        Kind.SAFETENSORS,
        "a safetensors file",
        "Name an ONNX model",
    ),
    "tflite": (
        lambda: b"\x1c\x00\x00\x00TFL3" + bytes(64),
        Kind.TFLITE,
        "a TensorFlow Lite model",
        "Convert it with tf2onnx",
    ),
    "ort": (
        lambda: b"\x1c\x00\x00\x00ORTM" + bytes(64),
        Kind.ORT,
        "an onnxruntime .ort model",
        "Name the .onnx file that it was made from",
    ),
    "json": (lambda: b'{"a": 1}', Kind.JSON, "a JSON document", "Name an ONNX model"),
    "section": (lambda: b"[build-system]\n", Kind.TEXT, "a text file", "Name an ONNX model"),
    "text": (lambda: "ein Wörterbuch\n".encode(), Kind.TEXT, "a text file", "Name an ONNX model"),
    "long text": (
        lambda: "aö".encode() * 3000,
        Kind.TEXT,
        "a text file",
        "Name an ONNX model",
    ),
    "random": (
        lambda: np.random.default_rng(1).bytes(5000),
        Kind.UNKNOWN,
        "data of an unknown kind",
        "Name an ONNX model",
    ),
}


@pytest.mark.parametrize("case", LOOKALIKES)
def test_what_is_not_onnx_is_refused_by_what_it_is(case: str, tmp_path: Path) -> None:
    make, kind, title, remedy = LOOKALIKES[case]
    path = tmp_path / "net.onnx"
    path.write_bytes(make())
    assert refusal(path) == f"net.onnx: this is {title}, not an ONNX model. {remedy}"
    assert identify(path) is kind


def test_files_that_are_none_are_refused(tmp_path: Path) -> None:
    assert refusal(tmp_path / "no.onnx") == "no.onnx: there is no such file. Check the name and the current folder"
    (tmp_path / "folder").mkdir()
    assert refusal(tmp_path / "folder") == "folder: this is a folder, not an ONNX model. Name a file"
    (tmp_path / "folder" / "manifest.json").write_text("{}")
    assert refusal(tmp_path / "folder") == "folder: this is a run directory, not an ONNX model. Name an ONNX model"
    assert refusal("/dev/zero") == "zero: this is a device, not a file. Name a file"
    with pytest.raises(InputRefusedError, match=r"^'a\\x00b': no file can have this name\. Check the name$"):
        read_model("a\0b")


def test_a_good_model_is_read(small_model: Path) -> None:
    model = read_model(small_model)
    assert identify(small_model) is Kind.ONNX
    assert (model.source, model.path, model.data_files) == (str(small_model), small_model, ())
    assert [node.op_type for node in model.ir.graph] == ["MatMul", "Twice", "Add", "Constant", "If"]


def edit_no_graph(model: onnx.ModelProto) -> None:
    model.ClearField("graph")


def edit_ir_version(model: onnx.ModelProto) -> None:
    model.ir_version = onnx.IR_VERSION + 1


def edit_no_ir_version(model: onnx.ModelProto) -> None:
    model.ClearField("ir_version")


def edit_opset(model: onnx.ModelProto) -> None:
    model.opset_import[0].version = onnx.defs.onnx_opset_version() + 1


def edit_function_opset(model: onnx.ModelProto) -> None:
    model.functions[0].opset_import[0].version = 99


def edit_zero_opset(model: onnx.ModelProto) -> None:
    model.opset_import[0].version = 0


def edit_no_opset(model: onnx.ModelProto) -> None:
    del model.opset_import[:]


def edit_training(model: onnx.ModelProto) -> None:
    model.training_info.add().algorithm.name = "a"


def edit_sparse(model: onnx.ModelProto) -> None:
    model.graph.sparse_initializer.add().dims.append(3)


def edit_twice_defined(model: onnx.ModelProto) -> None:
    model.graph.node[2].output[0] = "m"


def edit_output_shadows_weight(model: onnx.ModelProto) -> None:
    model.graph.node[2].output[0] = "weight"


def edit_two_initialisers(model: onnx.ModelProto) -> None:
    model.graph.initializer[1].name = "weight"


def edit_unnamed_initialiser(model: onnx.ModelProto) -> None:
    model.graph.initializer[1].name = ""


def edit_unknown_input(model: onnx.ModelProto) -> None:
    model.graph.node[2].input[0] = "nowhere"


def edit_unknown_input_in_branch(model: onnx.ModelProto) -> None:
    model.graph.node[4].attribute[0].g.node[0].input[0] = "nowhere"


def edit_unknown_output(model: onnx.ModelProto) -> None:
    model.graph.output[0].name = "no\nwhere"


def edit_circle(model: onnx.ModelProto) -> None:
    model.graph.node[0].input[0] = "h"


def edit_function_twice(model: onnx.ModelProto) -> None:
    model.functions.add().CopyFrom(model.functions[0])


def edit_function_input(model: onnx.ModelProto) -> None:
    model.functions[0].node[0].input[0] = "c"


def edit_negative_size(model: onnx.ModelProto) -> None:
    model.graph.initializer[0].dims[0] = -8


def edit_huge_size(model: onnx.ModelProto) -> None:
    model.graph.initializer[0].dims.extend([1 << 62] * 40)


def edit_huge_empty_size(model: onnx.ModelProto) -> None:
    model.graph.initializer[0].dims.extend([0, 1 << 62, 1 << 62])


def edit_many_axes(model: onnx.ModelProto) -> None:
    model.graph.initializer[0].dims.extend([1] * 70)


def edit_raw_size(model: onnx.ModelProto) -> None:
    model.graph.initializer[0].raw_data = bytes(200)


def edit_entry_count(model: onnx.ModelProto) -> None:
    model.graph.initializer[1].dims[0] = 1 << 40


def edit_entry_field(model: onnx.ModelProto) -> None:
    model.graph.initializer[1].double_data.append(1.0)


def edit_element_type(model: onnx.ModelProto) -> None:
    model.graph.initializer[0].data_type = 77


def edit_raw_strings(model: onnx.ModelProto) -> None:
    model.graph.initializer[0].data_type = TensorProto.STRING


def edit_constant(model: onnx.ModelProto) -> None:
    model.graph.node[3].attribute[0].t.dims.append(5)


def edit_sparse_constant(model: onnx.ModelProto) -> None:
    values = helper.make_tensor("v", TensorProto.FLOAT, [1], [1.0])
    indices = helper.make_tensor("i", TensorProto.INT64, [1], [0])
    sparse = helper.make_sparse_tensor(values, indices, [4])
    model.graph.node[3].attribute[0].CopyFrom(helper.make_attribute("sparse_value", sparse))


def edit_input_type(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.elem_type = 77


def edit_no_text(model: onnx.ModelProto) -> None:
    model.graph.node[0].MergeFromString(b"\x22\x01\xff")


def edit_untyped_attribute(model: onnx.ModelProto) -> None:
    model.graph.node[3].attribute[0].type = onnx.AttributeProto.UNDEFINED


def edit_mistyped_attribute(model: onnx.ModelProto) -> None:
    model.graph.node[3].attribute[0].type = onnx.AttributeProto.GRAPH


CONTRADICTIONS: dict[Callable[[onnx.ModelProto], None], str] = {
    edit_no_graph: f"the model has no graph. {AGAIN}",
    edit_ir_version: f"the model has IR version {onnx.IR_VERSION + 1}; "
    f"the newest that we know is {onnx.IR_VERSION}. {NEWER}",
    edit_no_ir_version: f"the model has no IR version. {AGAIN}",
    edit_opset: f"the model uses opset {onnx.defs.onnx_opset_version() + 1}; "
    f"the newest that we know is {onnx.defs.onnx_opset_version()}. {NEWER}",
    edit_function_opset: f"the model uses opset 99; the newest that we know is "
    f"{onnx.defs.onnx_opset_version()}. {NEWER}",
    edit_zero_opset: f"the model uses opset 0. {AGAIN}",
    edit_no_opset: f"the model imports no operator set. {AGAIN}",
    edit_training: "the model carries training information, which we would lose. Export it for inference",
    edit_sparse: "the model stores sparse tensors, which we can't read. Store them dense",
    edit_twice_defined: f"the name 'm' is defined twice. {AGAIN}",
    edit_output_shadows_weight: f"the name 'weight' is defined twice. {AGAIN}",
    edit_two_initialisers: f"the name 'weight' is defined twice. {AGAIN}",
    edit_unnamed_initialiser: f"a value has no name. {AGAIN}",
    edit_unknown_input: f"node 'add' (Add) reads 'nowhere', which nothing defines. {AGAIN}",
    edit_unknown_input_in_branch: f"node 'Neg' reads 'nowhere', which nothing defines. {AGAIN}",
    edit_unknown_output: f"the output 'no\\nwhere' is produced by nothing. {AGAIN}",
    edit_circle: f"node 'matmul' (MatMul) depends on its own result. {AGAIN}",
    edit_function_twice: f"function 'Twice' is defined twice. {AGAIN}",
    edit_function_input: f"node 'Add' reads 'c', which nothing defines. {AGAIN}",
    edit_negative_size: f"tensor 'weight' has a negative size, -8. {AGAIN}",
    edit_huge_size: f"tensor 'weight' declares more numbers than any file can hold. {AGAIN}",
    edit_huge_empty_size: f"tensor 'weight' declares more numbers than any file can hold. {AGAIN}",
    edit_many_axes: f"tensor 'weight' has 72 axes. {AGAIN}",
    edit_raw_size: f"tensor 'weight' declares 256 bytes and holds 200. {AGAIN}",
    edit_entry_count: f"tensor 'bias' declares 1,099,511,627,776 entries and holds 1. {AGAIN}",
    edit_entry_field: f"tensor 'bias' keeps its numbers in a field of another type. {AGAIN}",
    edit_element_type: f"tensor 'weight' has the unknown element type 77. {AGAIN}",
    edit_raw_strings: f"tensor 'weight' keeps strings as raw data. {AGAIN}",
    edit_constant: f"tensor '' declares 5 bytes and holds 1. {AGAIN}",
    edit_sparse_constant: "the model stores sparse tensors, which we can't read. Store them dense",
    edit_untyped_attribute: f"attribute 'value' of node 'Constant' has no value of its type. {AGAIN}",
    edit_mistyped_attribute: f"attribute 'value' of node 'Constant' has no value of its type. {AGAIN}",
    edit_input_type: f"the model can't be understood (77 is not a valid DataType). {AGAIN}",
    edit_no_text: f"the model is damaged, a name in it is not text. {AGAIN}",
}


@pytest.mark.parametrize("edit", CONTRADICTIONS, ids=lambda edit: edit.__name__)
def test_a_model_that_contradicts_itself_is_refused(
    edit: Callable[[onnx.ModelProto], None], tmp_path: Path, small_proto: onnx.ModelProto
) -> None:
    edit(small_proto)
    path = tmp_path / "net.onnx"
    path.write_bytes(small_proto.SerializeToString())
    assert refusal(path) == f"net.onnx: {CONTRADICTIONS[edit]}"


def test_unknown_domains_and_unordered_nodes_are_fine(tmp_path: Path, small_proto: onnx.ModelProto) -> None:
    small_proto.opset_import.add(domain="com.example.other", version=900)
    nodes = list(small_proto.graph.node)
    del small_proto.graph.node[:]
    small_proto.graph.node.extend([nodes[4], *nodes[:4]])
    path = tmp_path / "net.onnx"
    path.write_bytes(small_proto.SerializeToString())
    assert len(read_model(path).ir.graph) == 5


def test_a_repeated_graph_output_is_read(tmp_path: Path, small_proto: onnx.ModelProto) -> None:
    small_proto.graph.output.add().CopyFrom(small_proto.graph.output[0])
    path = tmp_path / "net.onnx"
    path.write_bytes(small_proto.SerializeToString())
    assert [value.name for value in read_model(path).ir.graph.outputs] == ["y", "y"]


@pytest.mark.parametrize(
    ("dtype", "field", "count", "entries"),
    [
        (TensorProto.INT4, "int32_data", 5, [1, 2, 3]),
        (TensorProto.UINT2, "int32_data", 5, [1, 2]),
        (TensorProto.COMPLEX64, "float_data", 2, [1, 2, 3, 4]),
        (TensorProto.COMPLEX128, "double_data", 1, [1, 2]),
        (TensorProto.FLOAT16, "int32_data", 2, [0, 1]),
        (TensorProto.BOOL, "int32_data", 2, [0, 1]),
        (TensorProto.UINT32, "uint64_data", 2, [0, 1]),
        (TensorProto.STRING, "string_data", 2, [b"a", b"b"]),
    ],
)
def test_entries_are_counted_by_element_type(
    dtype: int, field: str, count: int, entries: list[object], tmp_path: Path, small_proto: onnx.ModelProto
) -> None:
    tensor = small_proto.graph.initializer.add(name="extra", data_type=dtype, dims=[count])
    getattr(tensor, field).extend(entries)
    path = tmp_path / "net.onnx"
    path.write_bytes(small_proto.SerializeToString())
    read_model(path)
    getattr(tensor, field).append(entries[0])
    path.write_bytes(small_proto.SerializeToString())
    assert (
        refusal(path)
        == f"net.onnx: tensor 'extra' declares {len(entries)} entries and holds {len(entries) + 1}. {AGAIN}"
    )


EXTERNAL = {
    "absolute": ({"location": "/etc/passwd"}, f"names its data file '/etc/passwd' as an absolute path. {MOVE}"),
    "windows": ({"location": "C:\\w.data"}, f"names its data file 'C:\\\\w.data' as an absolute path. {MOVE}"),
    "parent": ({"location": "../w.data"}, f"names its data file '../w.data' outside the model's folder. {MOVE}"),
    "inner parent": ({"location": "a/../w"}, f"names its data file 'a/../w' outside the model's folder. {MOVE}"),
    "empty": ({"location": ""}, f"names its data file '' without a file name. {MOVE}"),
    "absent": ({"location": None}, f"names its data file '' without a file name. {MOVE}"),
    "nul": ({"location": "a\0b"}, f"names its data file 'a\\x00b' without a file name. {MOVE}"),
    "missing": ({"location": "no.data"}, "needs the data file 'no.data', which is not there. Put it next to the model"),
    "length": ({"length": "128"}, f"declares 256 bytes and its external data 128. {AGAIN}"),
    "beyond": ({"offset": "4"}, f"needs 260 bytes of its data file 'net.data', which has 256. {AGAIN}"),
    "negative": ({"offset": "-4"}, f"has the external data offset '-4', which is not a size. {AGAIN}"),
    "no number": ({"length": "many"}, f"has the external data length 'many', which is not a size. {AGAIN}"),
}


@pytest.mark.parametrize("case", EXTERNAL)
def test_external_data_is_refused(case: str, external_model: Callable[..., Path]) -> None:
    entries, reason = EXTERNAL[case]
    assert refusal(external_model(**entries)) == f"net.onnx: tensor 'weight' {reason}"


def test_external_data_through_links_is_refused(tmp_path: Path, external_model: Callable[..., Path]) -> None:
    path = external_model()
    (tmp_path / "net.data").rename(tmp_path / "other.data")
    (tmp_path / "net.data").symlink_to("other.data")
    assert refusal(path) == (
        "net.onnx: tensor 'weight' reaches its data file 'net.data' through a symbolic link. "
        "Replace the link by the file itself"
    )
    (tmp_path / "net.data").unlink()
    os.link(tmp_path / "other.data", tmp_path / "net.data")
    assert refusal(path) == (
        "net.onnx: tensor 'weight' needs the data file 'net.data', which has 2 hard links. "
        "Replace it by a copy of its own"
    )


def test_external_data_in_a_linked_folder_is_refused(tmp_path: Path, external_model: Callable[..., Path]) -> None:
    path = external_model(location="sub/net.data")
    (tmp_path / "real").mkdir()
    (tmp_path / "net.data").rename(tmp_path / "real" / "net.data")
    (tmp_path / "sub").symlink_to("real")
    assert "through a symbolic link" in refusal(path)
    (tmp_path / "sub").unlink()
    (tmp_path / "real").rename(tmp_path / "sub")
    assert read_model(path).data_files == (tmp_path / "sub" / "net.data",)


def test_external_data_that_is_a_folder_is_refused(tmp_path: Path, external_model: Callable[..., Path]) -> None:
    (tmp_path / "folder").mkdir()
    path = external_model(location="folder")
    assert refusal(path) == (f"net.onnx: tensor 'weight' needs the data file 'folder', which is not a file. {AGAIN}")


class FakeInput(io.TextIOWrapper):
    """Standard input with given bytes, a terminal or not."""

    def __init__(self, data: bytes, terminal: bool = False) -> None:
        super().__init__(io.BytesIO(data))
        self._terminal = terminal

    def isatty(self) -> bool:
        return self._terminal


def test_standard_input(
    monkeypatch: pytest.MonkeyPatch, small_model: Path, external_model: Callable[..., Path]
) -> None:
    monkeypatch.setattr("sys.stdin", FakeInput(small_model.read_bytes()))
    model = read_model("-")
    assert (model.source, model.path) == ("-", None)
    assert model.sha256 == read_model(small_model).sha256
    monkeypatch.setattr("sys.stdin", FakeInput(external_model().read_bytes()))
    assert refusal("-") == (
        "standard input: the model keeps its data in external files, which a pipe can't carry. Name the model's file"
    )
    monkeypatch.setattr("sys.stdin", None)
    assert refusal("-") == "standard input: it is closed. Pipe a model in, or name a file"


def test_a_terminal_is_no_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", FakeInput(b"", terminal=True))
    with pytest.raises(UsageError, match=r"^standard input: it is a terminal\. Pipe a model in, or name a file$"):
        read_model("-")


def test_a_pipe_is_read_whole(tmp_path: Path, small_model: Path) -> None:
    reader, writer = os.pipe()
    os.write(writer, small_model.read_bytes())
    os.close(writer)
    assert len(read_model(f"/dev/fd/{reader}").ir.graph) == 5
    os.close(reader)


def test_a_model_above_two_gigabytes_is_refused_unread(small_model: Path) -> None:
    os.truncate(small_model, 1 << 31)
    assert refusal(small_model) == (
        "net.onnx: the model is larger than 2 GiB, which no ONNX file can be. Export it with external data"
    )


def test_the_digest_covers_the_data_files(tmp_path: Path, external_model: Callable[..., Path]) -> None:
    first = read_model(external_model()).sha256
    assert first == read_model(tmp_path / "net.onnx").sha256
    assert first != read_model(external_model(data=bytes(256))).sha256
