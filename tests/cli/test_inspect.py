"""`sartor inspect`."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import onnx
import pytest
from safetensors.numpy import save_file
from tests.conftest import RunSartor

from sartor.share import history

SOURCE = """
<ir_version: 10, opset_import: ["" : 20, "sartor.fuse" : 1]>
g (float[batch, 4] x, seq(float[n]) s) => (float[batch, 2] y, float z)
{
  h = sartor.fuse.g_0123456789ab(x)
  k = sartor.fuse.g_0123456789ab(h)
  y = MatMul(k, w)
  at = Constant<value_int = 0>()
  z = SequenceAt(s, at)
}
<domain: "sartor.fuse", opset_import: ["" : 20]>
g_0123456789ab (a) => (c) { b = Exp(a)  d = Neg(b)  c = Neg(d) }
"""


def fused(path: Path, sources: str = '["exp_1", "neg_1"]') -> Path:
    proto = onnx.parser.parse_model(SOURCE)
    weights = np.array([[0, 1], [0, 0], [2, 3], [-0.0, 4]], np.float32)
    proto.graph.initializer.append(onnx.numpy_helper.from_array(weights, "w"))
    proto.graph.initializer.append(onnx.numpy_helper.from_array(np.zeros(6, np.float32), "bias"))
    proto.graph.node[0].metadata_props.add(key="sartor.sources", value=sources)
    proto.metadata_props.add(key=history.KEY, value=history_text())
    onnx.save(proto, path)
    return path


def record() -> history.Record:
    return history.make_record("fuse", ["in.onnx"], ["0" * 64], {"measure": True}, None, None)


def history_text() -> str:
    return history.append_safetensors({}, record())[history.KEY]


def facts(sartor: RunSartor, path: Path) -> Any:
    done = sartor("inspect", path, "--json")
    assert (done.returncode, done.stderr) == (0, b"")
    return json.loads(done.stdout)


def test_the_document_of_a_model_is_frozen(tmp_path: Path, sartor: RunSartor) -> None:
    sparse = {"name": "w", "elements": 8, "zeros": 4, "fraction": 0.5}
    document = facts(sartor, fused(tmp_path / "fused.onnx"))
    assert document.pop("history") == [
        {
            "id": record().id,
            "tool": "fuse",
            "version": record().version,
            "argv": ["in.onnx"],
            "input_sha256": ["0" * 64],
            "parameters": {"measure": True},
            "seed": None,
            "previous": None,
        }
    ]
    assert document == {
        "schema": 1,
        "kind": "onnx",
        "inputs": [
            {"name": "x", "type": "float32", "shape": ["batch", 4]},
            {"name": "s", "type": "sequence(float32)", "shape": ["n"]},
        ],
        "outputs": [
            {"name": "y", "type": "float32", "shape": ["batch", 2]},
            {"name": "z", "type": "float32", "shape": []},
        ],
        "operators": {"sartor.fuse::g_0123456789ab": 2, "Constant": 1, "MatMul": 1, "SequenceAt": 1},
        "groups": [
            {
                "name": "g_0123456789ab",
                "domain": "sartor.fuse",
                "calls": 2,
                "nodes": 3,
                "operators": {"Neg": 2, "Exp": 1},
                "sources": ["exp_1", "neg_1"],
            }
        ],
        "sparsity": {"elements": 14, "zeros": 10, "fraction": 0.714286, "sparsest": [sparse]},
        "densities": [],
        "tensors": [],
        "attributes": {},
    }


def test_people_get_text_on_stdout(tmp_path: Path, sartor: RunSartor) -> None:
    done = sartor("inspect", fused(tmp_path / "fused.onnx"))
    text = done.stdout.decode()
    assert (done.returncode, done.stderr) == (0, b"")
    assert "\x1b" not in text
    for part in ("kind     onnx", "[batch, 4]", "sartor.fuse::g_0123456789ab", "2xNeg 1xExp", "50.00%", record().id):
        assert part in text


def test_a_terminal_gets_tables_without_what_a_name_could_steer(tmp_path: Path) -> None:
    text = '<ir_version: 10, opset_import: ["" : 20]> g (float[n] x) => (float[n] y) { y = Neg(x) }'
    proto = onnx.parser.parse_model(text)
    proto.graph.input[0].name = proto.graph.node[0].input[0] = "[red]x\x1b[2J"
    onnx.save(proto, tmp_path / "odd.onnx")
    shown = on_terminal(Path(sys.executable).with_name("sartor"), "inspect", tmp_path / "odd.onnx")
    assert b"\x1b[2J" not in shown
    assert b"[red]x" in shown
    assert "─".encode() in shown


def on_terminal(*command: str | Path) -> bytes:
    """Return what a command writes to a terminal of its own."""
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "120"}
    with subprocess.Popen(command, stdout=theirs, stdin=subprocess.DEVNULL, env=environment):
        os.close(theirs)
        pieces: list[bytes] = []
        while piece := read_terminal(ours):
            pieces.append(piece)
    os.close(ours)
    return b"".join(pieces)


def read_terminal(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 65536)
    # Linux reports the end of a terminal as an error.
    except OSError:
        return b""


def test_hdf5_safetensors_and_run_directories(tmp_path: Path, sartor: RunSartor) -> None:
    with h5py.File(tmp_path / "d.h5", "w") as file:
        file["train/x"] = np.zeros((4, 3), np.float32)
        history.append_hdf5(file, record())
    save_file({"w": np.zeros((2, 2), np.float16)}, tmp_path / "w.safetensors", history.append_safetensors({}, record()))
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "manifest.json").write_text(json.dumps({"files": {}, "history": []}))
    expected = {
        "d.h5": ("hdf5", [{"name": "train/x", "type": "float32", "shape": [4, 3]}], 1),
        "w.safetensors": ("safetensors", [{"name": "w", "type": "F16", "shape": [2, 2]}], 1),
        "run": ("run-directory", [], 0),
    }
    for name, (kind, tensors, records) in expected.items():
        document = facts(sartor, tmp_path / name)
        assert (document["kind"], document["tensors"], len(document["history"])) == (kind, tensors, records)
        assert (document["inputs"], document["operators"], document["sparsity"]) == ([], {}, None)


def test_densities_of_sparse_layers(models: Path, tmp_path: Path, sartor: RunSartor) -> None:
    """The document has what the report of sparsify-rnn has; people see a map."""
    target = tmp_path / "sparse.onnx"
    made = sartor("sparsify-rnn", models / "recurrent.onnx", "--density", "0.25", "-o", target, "--json")
    found = facts(sartor, target)["densities"]
    assert [list(one) for one in found] == [
        ["layer", "kind", "matrix", "direction", "rows", "columns", "density", "gates"]
    ] * len(found)
    for one, told in zip(found, json.loads(made.stdout)["matrices"], strict=True):
        assert [one[name] for name in ("layer", "kind", "direction")] == [
            told[name] for name in ("layer", "kind", "direction")
        ]
        for gate, other in zip(one["gates"], told["gates"], strict=True):
            assert (gate["gate"], gate["density"]) == (other["gate"], pytest.approx(other["density"]))
            assert all(0 <= cell <= 1 for row in gate["map"] for cell in row)
    shown = on_terminal(Path(sys.executable).with_name("sartor"), "inspect", target).decode()
    plain = sartor("inspect", target).stdout.decode()
    for text in (shown, plain):
        assert "densities" in text
        assert "25.00%" in text
        assert "▂" in text


def test_external_weights_are_counted(tmp_path: Path, sartor: RunSartor) -> None:
    values = np.ones((3000, 1000), np.float32)
    values[::4] = 0
    text = '<ir_version: 10, opset_import: ["" : 20]> g (float[n] x) => (float[n] y) { y = Neg(x) }'
    proto = onnx.parser.parse_model(text)
    proto.graph.initializer.append(onnx.numpy_helper.from_array(values, "w"))
    onnx.save(proto, tmp_path / "m.onnx", save_as_external_data=True, location="m.data")
    assert facts(sartor, tmp_path / "m.onnx")["sparsity"]["sparsest"] == [
        {"name": "w", "elements": 3_000_000, "zeros": 750_000, "fraction": 0.25}
    ]


@pytest.mark.parametrize("sources", ["nonsense", "{}", "[1]"])
def test_damaged_sources_are_refused(sources: str, tmp_path: Path, sartor: RunSartor) -> None:
    done = sartor("inspect", fused(tmp_path / "fused.onnx", sources))
    assert (done.returncode, done.stdout, done.stderr.count(b"\n")) == (65, b"", 1)
    assert b"is no list of names. Fuse the model again" in done.stderr


def test_standard_input_and_other_files(tmp_path: Path, sartor: RunSartor) -> None:
    data = fused(tmp_path / "fused.onnx").read_bytes()
    assert json.loads(sartor("inspect", "-", "--json", input=data).stdout)["kind"] == "onnx"
    (tmp_path / "x.html").write_text("<!DOCTYPE html><html></html>")
    done = sartor("inspect", tmp_path / "x.html")
    assert (done.returncode, done.stdout, done.stderr.count(b"\n")) == (65, b"", 1)
