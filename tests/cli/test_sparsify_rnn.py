"""`sartor sparsify-rnn` as users run it."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from safetensors.torch import load, save
from tests.conftest import RunSartor
from torch import nn

NAME = "recurrent.onnx"


@pytest.fixture
def folder(models: Path, tmp_path: Path) -> Path:
    """Return a folder with a recurrent network."""
    (tmp_path / NAME).write_bytes((models / NAME).read_bytes())
    return tmp_path


def outputs(path: Path) -> list[np.ndarray]:
    """Run a model in stock onnxruntime."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    x = np.random.default_rng(0).standard_normal((12, 2, 32)).astype(np.float32)
    return list(session.run(None, {"features": x}))


def test_a_smaller_model_that_runs_anywhere(sartor: RunSartor, folder: Path) -> None:
    done = sartor("sparsify-rnn", NAME, "-o", "sparse.onnx", "--report", "r.json", cwd=folder)
    assert (done.returncode, done.stdout) == (0, b""), done.stderr
    report = json.loads((folder / "r.json").read_text())
    assert (report["schema"], report["tool"]) == (1, "sparsify-rnn")
    for matrix in report["matrices"]:
        assert matrix["bytes_after"] < matrix["bytes_before"] / 2
        assert all(gate["density"] == pytest.approx(0.5) for gate in matrix["gates"])
    onnx.checker.check_model(onnx.load(folder / "sparse.onnx"), full_check=True)
    assert (folder / "sparse.onnx").stat().st_size < (folder / NAME).stat().st_size
    for ours, theirs in zip(outputs(folder / "sparse.onnx"), outputs(folder / NAME), strict=True):
        assert ours.shape == theirs.shape
        assert np.corrcoef(ours.ravel(), theirs.ravel())[0, 1] > 0.9


def test_every_weight_kept_in_float32_is_the_model(sartor: RunSartor, folder: Path) -> None:
    arguments = ["--density", "1", "--values", "fp32", "--also-input"]
    assert sartor("sparsify-rnn", NAME, *arguments, "-o", "whole.onnx", cwd=folder).returncode == 0
    for ours, theirs in zip(outputs(folder / "whole.onnx"), outputs(folder / NAME), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-6)


def test_a_pipe_and_the_record(sartor: RunSartor, folder: Path) -> None:
    sparse = sartor("sparsify-rnn", "--density", "0.3", cwd=folder, input=(folder / NAME).read_bytes())
    assert b"change the outputs much" in sparse.stderr
    fused = sartor("fuse", "--no-measure", cwd=folder, input=sparse.stdout)
    assert fused.returncode == 0, fused.stderr
    properties = {one.key: one.value for one in onnx.load_from_string(fused.stdout).metadata_props}
    assert [one["tool"] for one in json.loads(properties["sartor.history"])] == ["sparsify-rnn", "fuse"]


def test_the_same_command_gives_the_same_bytes(sartor: RunSartor, folder: Path) -> None:
    made = [sartor("sparsify-rnn", NAME, cwd=folder).stdout for _ in "ab"]
    assert made[0]
    assert made[0] == made[1]


@pytest.mark.parametrize("pattern", ["balanced:16", "unstructured", "row", "block:16x1"])
@pytest.mark.parametrize("scope", ["gate", "matrix", "model"])
def test_what_would_be_done(pattern: str, scope: str, sartor: RunSartor, folder: Path) -> None:
    done = sartor("sparsify-rnn", NAME, "--pattern", pattern, "--scope", scope, "--dry-run", "--json", cwd=folder)
    matrices = json.loads(done.stdout)["matrices"]
    mean = np.mean([gate["density"] for matrix in matrices for gate in matrix["gates"]])
    assert mean == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ([NAME, "--density", "0"], 2, "--density: 0 is no share"),
        ([NAME, "--pattern", "random"], 2, "no pattern 'random'"),
        ([NAME, "--nodes", "decoder*"], 1, "no recurrent layer can be made sparse"),
        (["missing.onnx"], 65, "missing.onnx"),
    ],
)
def test_bad_input(arguments: list[str], code: int, message: str, sartor: RunSartor, folder: Path) -> None:
    before = sorted(path.name for path in folder.iterdir())
    done = sartor("sparsify-rnn", *arguments, "-o", "sparse.onnx", cwd=folder)
    assert done.returncode == code, done.stderr
    assert message in done.stderr.decode().strip().splitlines()[-1]
    assert sorted(path.name for path in folder.iterdir()) == before


def test_training_towards_the_original(sartor: RunSartor, folder: Path, models: Path) -> None:
    (folder / "sequences.h5").write_bytes((models / "sequences.h5").read_bytes())
    trained = ["--data", "sequences.h5", "--distill", "--epochs", "3", "--lr", "0.003", "--density", "0.3"]
    done = sartor("sparsify-rnn", NAME, *trained, "-o", "sparse.onnx", "--report", "r.json", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert b"change the outputs much" not in done.stderr
    results = json.loads((folder / "r.json").read_text())["results"]
    assert (results["metric"], results["before"], len(results["losses"])) == ("likeness", 1.0, 3)
    assert results["after"] < 1
    assert f"likeness 1.0000 -> {results['after']:.4f}".encode() in done.stderr
    properties = {one.key: one.value for one in onnx.load(folder / "sparse.onnx").metadata_props}
    (record,) = json.loads(properties["sartor.history"])
    assert (record["parameters"]["epochs"], record["parameters"]["rate"], len(record["input_sha256"])) == (3, 0.003, 2)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--distill"], 2, b"--distill: there are no samples. Give --data FILE too"),
        (["--data", "sequences.h5", "--lr", "2"], 2, b"--lr: 2 is no rate"),
        (["--data", "sequences.h5"], 65, b"it has no labels train/y"),
        (["--data", "images.h5", "--distill"], 65, b"images.h5"),
        (["--data", "missing.h5", "--distill"], 65, b"missing.h5"),
    ],
)
def test_training_that_cannot_be(
    sartor: RunSartor, folder: Path, models: Path, arguments: list[str], code: int, message: bytes
) -> None:
    for name in ("sequences.h5", "images.h5"):
        (folder / name).write_bytes((models / name).read_bytes())
    done = sartor("sparsify-rnn", NAME, *arguments, "-o", "sparse.onnx", cwd=folder)
    assert (done.returncode, message in done.stderr) == (code, True), done.stderr
    assert not (folder / "sparse.onnx").exists()


def test_a_pack_beside_the_model(sartor: RunSartor, folder: Path) -> None:
    """What a pack saves changes no result; its history is the model's."""
    made = sartor("sparsify-rnn", NAME, "-o", "sparse.onnx", "--pack", "sparse.h5", cwd=folder)
    assert (made.returncode, made.stdout) == (0, b""), made.stderr
    for name, options in (("a.npz", []), ("b.npz", ["--pack", "sparse.h5"])):
        done = sartor("run", "sparse.onnx", "--random", *options, "-o", name, cwd=folder)
        assert (done.returncode, done.stderr) == (0, b"")
    with np.load(folder / "a.npz") as a, np.load(folder / "b.npz") as b:
        assert all(np.array_equal(a[name], b[name]) for name in a.files)
    document = json.loads(sartor("inspect", "sparse.h5", "--json", cwd=folder).stdout)
    model = json.loads(sartor("inspect", "sparse.onnx", "--json", cwd=folder).stdout)
    assert document["attributes"]["kind"] == "packed constants"
    assert document["attributes"]["entries"] == len(model["groups"])
    assert {one["name"].partition("/")[0] for one in document["tensors"]} == {one["name"] for one in model["groups"]}
    assert document["history"] == model["history"] != []
    for command in (["verify", "--against", "sparse.onnx"], ["bench", "--seconds", "0.1"]):
        assert sartor(*command, "sparse.onnx", "--pack", "sparse.h5", cwd=folder).returncode == 0


def test_a_pack_alone_goes_down_a_pipe(sartor: RunSartor, folder: Path) -> None:
    done = sartor("sparsify-rnn", NAME, "-o", "sparse.onnx", "--pack", "-", "--no-history", cwd=folder)
    assert done.stdout.startswith(b"\x89HDF")
    both = sartor("sparsify-rnn", NAME, "--pack", "-", cwd=folder)
    assert (both.returncode, both.stdout) == (2, b"")
    assert b"can't share stdout" in both.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["sparsify-rnn", NAME, "--dry-run", "--pack", "p.h5"], 2, "--pack: a dry run packs nothing"),
        (["run", NAME, "--random", "--pack", "sequences.h5"], 65, "sequences.h5: this is no pack of a model"),
        (["run", NAME, "--random", "--pack", NAME], 65, f"{NAME}: this is an ONNX model, not an HDF5 file"),
        (["run", NAME, "--random", "--pack", "missing.h5"], 65, "missing.h5"),
        (["run", NAME, "--random", "--runtime", "onnxruntime", "--pack", "p.h5"], 2, "--pack p.h5: packed weights are"),
        (["run", NAME, "--random", "--pack", "pack.h5"], 0, "pack.h5: it is left aside, nothing in it is of this"),
    ],
)
def test_packs_that_do_not_do(
    arguments: list[str], code: int, message: str, sartor: RunSartor, folder: Path, models: Path
) -> None:
    (folder / "sequences.h5").write_bytes((models / "sequences.h5").read_bytes())
    if "pack.h5" in arguments:
        assert sartor("sparsify-rnn", NAME, "-o", "sparse.onnx", "--pack", "pack.h5", cwd=folder).returncode == 0
    done = sartor(*arguments, cwd=folder)
    assert (done.returncode, message in done.stderr.decode()) == (code, True), done.stderr
    assert not (folder / "p.h5").exists()


def state_dict(dtype: torch.dtype) -> bytes:
    """Return the state dict of an LSTM as safetensors."""
    torch.manual_seed(0)
    return save({name: tensor.to(dtype) for name, tensor in nn.LSTM(5, 32).state_dict().items()})


def test_state_dicts_come_down_a_pipe(sartor: RunSartor, tmp_path: Path) -> None:
    data = state_dict(torch.float32)
    (tmp_path / "w.safetensors").write_bytes(data)
    piped = sartor("sparsify-rnn", "-", "--no-history", "-o", "piped.onnx", input=data, cwd=tmp_path)
    assert (piped.returncode, piped.stdout) == (0, b""), piped.stderr
    assert sartor("sparsify-rnn", "w.safetensors", "--no-history", "-o", "named.onnx", cwd=tmp_path).returncode == 0
    assert (tmp_path / "piped.onnx").read_bytes() == (tmp_path / "named.onnx").read_bytes()
    archive = io.BytesIO()
    torch.save(load(data), archive)
    done = sartor("sparsify-rnn", "--no-history", input=archive.getvalue(), cwd=tmp_path)
    assert done.stdout == (tmp_path / "piped.onnx").read_bytes(), done.stderr


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", b"standard input: this is an empty file, not an ONNX model"),
        (b"some text that is no model", b"standard input: this is a text file, not an ONNX model"),
        (state_dict(torch.float32)[:-8], b"standard input: the file is cut short, 20,256 bytes"),
        (save({"weight": torch.zeros(3)}), b"standard input: it has no recurrent layer"),
    ],
)
def test_pipes_of_something_else_are_refused(data: bytes, reason: bytes, sartor: RunSartor, tmp_path: Path) -> None:
    done = sartor("sparsify-rnn", "-o", "sparse.onnx", input=data, cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr.count(b"\n")) == (65, b"", 1)
    assert reason in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_double_precision_is_rounded_with_notice(sartor: RunSartor, tmp_path: Path) -> None:
    (tmp_path / "w.safetensors").write_bytes(state_dict(torch.float64))
    done = sartor("sparsify-rnn", "w.safetensors", "-o", "s.onnx", "--report", "r.json", cwd=tmp_path)
    assert done.returncode == 0
    told = "its float64 tensors are rounded to float32: 'bias_hh_l0', 'bias_ih_l0', 'weight_hh_l0', 'weight_ih_l0'"
    assert f"sartor sparsify-rnn: warning: w.safetensors: {told}\n".encode() in done.stderr
    assert json.loads((tmp_path / "r.json").read_text())["notes"] == [told]
    (tmp_path / "w.safetensors").write_bytes(state_dict(torch.float16))
    narrow = sartor("sparsify-rnn", "w.safetensors", "-o", "s.onnx", "--json", cwd=tmp_path)
    assert b"warning" not in narrow.stderr
    assert json.loads(narrow.stdout)["notes"] == []
