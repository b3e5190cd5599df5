"""Outputs, losses and gradients are those of the public MLPerf HPC OpenFold reference, in float64.

The reference keeps rigid frames in float32, as we do: forward every bit agrees, and gradients that pass through frames
agree to the rounding of float32.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from tests.kits.fold_kit import as_double, named_gradients
from torch import Tensor

from sartor.tools.fold.losses.total import loss
from sartor.tools.fold.losses.violation import find_violations
from sartor.tools.fold.model.alphafold import AlphaFold
from sartor.tools.fold.model.config import LossConfig, ModelConfig, StackConfig, StructureConfig, TemplateConfig

EXACT = 1e-9
FRAMES = 1e-7
ZERO = 1e-12
"""Gradients that are zero but for rounding, such as that of a bias which softmax cannot see."""

Golden = dict[str, NDArray[Any]]


@pytest.fixture(scope="module")
def golden(data: Path) -> Golden:
    with np.load(data / "fold" / "golden_small.npz") as archive:
        return {name: archive[name] for name in archive.files}


@pytest.fixture(scope="module")
def model(golden: Golden) -> AlphaFold:
    config = ModelConfig(
        c_m=64,
        c_e=32,
        c_z=32,
        c_t=32,
        c_s=48,
        template=TemplateConfig(blocks=2),
        extra=StackConfig(blocks=2, attention=8),
        evoformer=StackConfig(blocks=2),
        structure=StructureConfig(blocks=2),
    )
    model = AlphaFold(config).double().eval()
    model.load_state_dict(section(golden, "weight/"))
    return model


@pytest.fixture(scope="module")
def batch(golden: Golden) -> dict[str, Tensor]:
    return as_double(section(golden, "batch/"))


@pytest.fixture(scope="module")
def outputs(model: AlphaFold, batch: dict[str, Tensor]) -> dict[str, Tensor]:
    return model(batch)


def section(golden: Golden, prefix: str) -> dict[str, Tensor]:
    return {name[len(prefix) :]: torch.from_numpy(value) for name, value in golden.items() if name.startswith(prefix)}


def distance(value: Tensor, expected: Tensor) -> float:
    return float((value.detach().double() - expected.double()).abs().max() / expected.abs().max().clamp(min=1e-300))


def test_outputs(golden: Golden, outputs: dict[str, Tensor]) -> None:
    expected = {k: v for k, v in section(golden, "out/").items() if not k.startswith("violations/")}
    assert expected.keys() == outputs.keys()
    # The reference's centres of bins are float32.
    limits = {"plddt": 1e-8}
    far = {name: distance(outputs[name], value) for name, value in expected.items()}
    assert {name: error for name, error in far.items() if error > limits.get(name, EXACT)} == {}


def test_losses(golden: Golden, outputs: dict[str, Tensor], batch: dict[str, Tensor]) -> None:
    total, terms = loss(outputs, batch, LossConfig())
    _, violated = loss(outputs, batch, LossConfig(violation=1.0))
    terms["violation"] = violated["violation"]
    expected = section(golden, "loss/")
    assert expected.keys() == terms.keys()
    assert {name: e for name, value in expected.items() if (e := distance(terms[name].mean(), value)) > EXACT} == {}
    assert distance(total, expected["scaled_weighted_total_loss"]) < EXACT


def test_violations(golden: Golden, outputs: dict[str, Tensor], batch: dict[str, Tensor]) -> None:
    last = {name: value[..., -1] for name, value in batch.items()}
    found = find_violations(last, outputs["sm_positions"][:, -1], 12.0, 1.5)
    ours = {
        # The reference's ideal lengths are float32.
        "between_residues/bonds_c_n_loss_mean": (found.bonds.c_n, 1e-8),
        "between_residues/angles_ca_c_n_loss_mean": (found.bonds.ca_c_n, EXACT),
        "between_residues/angles_c_n_ca_loss_mean": (found.bonds.c_n_ca, EXACT),
        "between_residues/connections_per_residue_loss_sum": (found.bonds.by_residue, EXACT),
        "between_residues/connections_per_residue_violation_mask": (found.bonds.violates, EXACT),
        "between_residues/clashes_per_atom_loss_sum": (found.between.by_atom, EXACT),
        "between_residues/clashes_per_atom_clash_mask": (found.between.violates, EXACT),
        "within_residues/per_atom_loss_sum": (found.within.by_atom, EXACT),
        "within_residues/per_atom_violations": (found.within.violates, EXACT),
        "total_per_residue_violations_mask": (found.residues, EXACT),
    }
    expected = section(golden, "out/violations/")
    far = {name: (distance(value, expected[name]), limit) for name, (value, limit) in ours.items()}
    assert {name: pair for name, pair in far.items() if pair[0] > pair[1]} == {}


def test_gradients(golden: Golden, model: AlphaFold, batch: dict[str, Tensor]) -> None:
    model.zero_grad()
    loss(model(batch), batch, LossConfig())[0].backward()
    gradients, norms = named_gradients(model), section(golden, "gradnorm/")
    assert gradients.keys() == norms.keys()
    assert len(norms) == 580
    wrong = {k: v for k, v in norms.items() if (gradients[k].norm() - v).abs() > FRAMES * v + ZERO}
    assert wrong == {}
    whole = section(golden, "grad/")
    assert [k for k, v in whole.items() if (gradients[k] - v).abs().max() > FRAMES * v.abs().max() + ZERO] == []
