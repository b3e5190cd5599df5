"""What a trained model gives: structures as mmCIF, and the trunk as ONNX."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import gemmi
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from safetensors.torch import save_file
from tests.kits import fold_run_kit as kit

from sartor.share import history
from sartor.tools.fold.store import open_shards
from sartor.tools.fold.train import train
from sartor.tools.fold.weights_file import open_model

SARTOR = Path(sys.executable).with_name("sartor")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with shards, weights and a trunk."""
    folder = tmp_path_factory.mktemp("trained")
    shards = kit.make_shards(folder)
    asked = kit.options(shards, folder / "run", weights=str(folder / "w.safetensors"), trunk=str(folder / "trunk.onnx"))
    train(kit.make_settings(folder, steps=2), asked, ["x"])
    return folder


def predict(folder: Path, *more: str) -> subprocess.CompletedProcess[str]:
    arguments = [folder / "w.safetensors", folder / "shards", "-o", folder / "out", "-@", "1", *more]
    return subprocess.run([SARTOR, "fold-predict", *arguments], capture_output=True, text=True)


def test_structures_are_written_with_confidence(trained: Path) -> None:
    done = predict(trained, "--json", "--recycles", "1")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)["chains"]
    assert [one["chain"] for one in found] == ["s000_A", "s001_A"]
    shards = open_shards(trained / "shards")
    for position, one in enumerate(found):
        structure = gemmi.read_structure(str(trained / "out" / one["file"]))
        (chain,) = structure[0]
        stored = shards.load(position)
        assert len(chain) == stored.length
        sequence = gemmi.one_letter_code([residue.name for residue in chain])
        assert sequence == gemmi.one_letter_code(structure.entities[0].full_sequence)
        plddt = [residue[0].b_iso for residue in chain]
        assert np.mean(plddt) == pytest.approx(one["plddt"], abs=0.02)
        assert 0 <= one["lddt_ca"] <= 1


def test_weights_of_others_need_a_preset(trained: Path, tmp_path: Path) -> None:
    save_file({"a": torch.ones(1)}, tmp_path / "w.safetensors")
    done = subprocess.run(
        [SARTOR, "fold-predict", tmp_path / "w.safetensors", trained / "shards", "-o", tmp_path / "out"],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 2
    assert "these weights do not tell their settings. Give --preset, or --config" in done.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("rows", "residues"), [(4, 16), (3, 21)])
def test_the_trunk_runs_in_onnxruntime_at_any_size(trained: Path, rows: int, residues: int) -> None:
    onnx.checker.check_model(str(trained / "trunk.onnx"), full_check=True)
    session = onnxruntime.InferenceSession(trained / "trunk.onnx", providers=["CPUExecutionProvider"])
    model, _ = open_model(str(trained / "w.safetensors"), None, None, torch.device("cpu"))
    torch.manual_seed(0)
    msa, pair = torch.randn(1, rows, residues, 8), torch.randn(1, residues, residues, 8)
    mask = (torch.rand(1, residues) < 0.8).float()
    masks = mask[:, None].expand(1, rows, residues).contiguous(), mask[:, :, None] * mask[:, None, :]
    with torch.no_grad():
        wanted = model.evoformer(msa, pair, *masks)
    feed = dict(
        zip(("msa", "pair", "msa_mask", "pair_mask"), (one[0].numpy() for one in (msa, pair, *masks)), strict=True)
    )
    for mine, theirs in zip(session.run(None, feed), wanted, strict=True):
        np.testing.assert_allclose(mine, theirs[0], atol=2e-5)


def test_the_trunk_tells_its_history(trained: Path) -> None:
    import onnx_ir as ir

    (record,) = history.read_onnx(ir.load(trained / "trunk.onnx"))
    assert record.tool == "fold-train"
