"""Compact samples become what the model reads."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from tests.kits.fold_kit import compact_sample
from torch import Tensor

from sartor.tools.fold.features import expand, squash
from sartor.tools.fold.model.config import ModelConfig

B, N, R, S, E, T = 2, 9, 3, 4, 5, 2
SHAPES = {
    "aatype": (N,),
    "residue_index": (N,),
    "seq_length": (),
    "seq_mask": (N,),
    "target_feat": (N, 22),
    "atom14_atom_exists": (N, 14),
    "residx_atom14_to_atom37": (N, 14),
    "residx_atom37_to_atom14": (N, 37),
    "atom37_atom_exists": (N, 37),
    "all_atom_positions": (N, 37, 3),
    "all_atom_mask": (N, 37),
    "resolution": (),
    "is_distillation": (),
    "use_clamped_fape": (),
    "atom14_gt_exists": (N, 14),
    "atom14_gt_positions": (N, 14, 3),
    "atom14_alt_gt_positions": (N, 14, 3),
    "atom14_alt_gt_exists": (N, 14),
    "atom14_atom_is_ambiguous": (N, 14),
    "rigidgroups_gt_frames": (N, 8, 4, 4),
    "rigidgroups_gt_exists": (N, 8),
    "rigidgroups_group_exists": (N, 8),
    "rigidgroups_group_is_ambiguous": (N, 8),
    "rigidgroups_alt_gt_frames": (N, 8, 4, 4),
    "backbone_rigid_tensor": (N, 4, 4),
    "backbone_rigid_mask": (N,),
    "chi_angles_sin_cos": (N, 4, 2),
    "chi_mask": (N, 4),
    "pseudo_beta": (N, 3),
    "pseudo_beta_mask": (N,),
    "template_aatype": (T, N),
    "template_all_atom_positions": (T, N, 37, 3),
    "template_all_atom_mask": (T, N, 37),
    "template_mask": (T,),
    "template_sum_probs": (T, 1),
    "template_pseudo_beta": (T, N, 3),
    "template_pseudo_beta_mask": (T, N),
    "template_torsion_angles_sin_cos": (T, N, 7, 2),
    "template_alt_torsion_angles_sin_cos": (T, N, 7, 2),
    "template_torsion_angles_mask": (T, N, 7),
    "msa_feat": (S, N, 49),
    "msa_mask": (S, N),
    "msa_row_mask": (S,),
    "true_msa": (S, N),
    "bert_mask": (S, N),
    "extra_msa": (E, N),
    "extra_has_deletion": (E, N),
    "extra_deletion_value": (E, N),
    "extra_msa_row_mask": (E,),
    "extra_msa_mask": (E, N),
}
"""OpenFold's features without the batch's first and the recycling's last dimension."""


@pytest.fixture(scope="module")
def compact() -> dict[str, Tensor]:
    return compact_sample(length=N, recycles=R, samples=B)


@pytest.fixture(scope="module")
def features(compact: dict[str, Tensor]) -> dict[str, Tensor]:
    return expand(compact, ModelConfig.tiny())


def test_names_and_shapes(features: dict[str, Tensor]) -> None:
    assert {name: tuple(value.shape) for name, value in features.items()} == {
        name: (B, *shape, R) for name, shape in SHAPES.items()
    }
    assert {value.dtype for value in features.values()} == {torch.float32, torch.int64}


def test_msa_features(compact: dict[str, Tensor], features: dict[str, Tensor]) -> None:
    b, row, i, r = 1, 2, 4, 2
    found = features["msa_feat"][b, row, i, :, r]
    letter, count = int(compact["msa"][b, r, row, i]), int(compact["deletions"][b, r, row, i])
    assert found[:23].tolist() == [float(k == letter) for k in range(23)]
    assert found[23] == min(count, 1)
    assert found[24] == squash(torch.tensor(float(count)))
    assert torch.equal(found[25:48], compact["cluster_profile"][b, r, row, i])
    assert found[48] == squash(compact["cluster_deletion_mean"][b, r, row, i])
    assert squash(torch.tensor([0.0, 3.0])).tolist() == [0.0, pytest.approx(0.5)]


def test_target_features(compact: dict[str, Tensor], features: dict[str, Tensor]) -> None:
    found = features["target_feat"][..., 0]
    assert not found[..., 0].any()
    assert torch.equal(found[..., 1:].argmax(dim=-1), compact["aatype"].long())


def test_masks_combine_rows_and_residues(features: dict[str, Tensor]) -> None:
    mask = features["msa_mask"][0, ..., 0]
    assert mask[:3, :-1].all()
    assert not mask[3].any()
    assert not mask[:, -1].any()
    assert not features["msa_feat"][0, 3].any()


def test_what_a_structure_lacks_is_masked(compact: dict[str, Tensor], features: dict[str, Tensor]) -> None:
    atoms = compact["atom_mask"].bool()
    backbone = atoms[..., 0] & atoms[..., 1] & atoms[..., 2]
    assert torch.equal(features["backbone_rigid_mask"][..., 0] > 0, backbone)
    assert 0 < backbone.sum() < backbone.numel()
    assert not features["chi_mask"][:, -1].any()


def test_models_without_templates_get_none(compact: dict[str, Tensor]) -> None:
    found = expand(compact, replace(ModelConfig.tiny(), templates=False))
    assert found.keys() == {name for name in SHAPES if not name.startswith("template_")}
