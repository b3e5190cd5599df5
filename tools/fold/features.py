"""What the model reads, made on the device from a compact sample.

Shapes: B samples, R recycling iterations, S MSA clusters, E extra sequences, T templates, N residues. A compact sample
has R first and small integers; what is returned has R last, one-hot classes and float32, under OpenFold's names.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from sartor.tools.fold import residues
from sartor.tools.fold.geometry.atoms import atom14_truth, layout, pseudo_beta, pseudo_beta_mask
from sartor.tools.fold.geometry.frames import frame_truth
from sartor.tools.fold.geometry.torsions import torsions
from sartor.tools.fold.model.config import ModelConfig

MSA_CLASSES = 23
"""20 residues, unknown, gap, masked."""


def expand(compact: dict[str, Tensor], config: ModelConfig) -> dict[str, Tensor]:
    """Return the features of a batch of compact samples, each with a trailing recycling dimension."""
    recycles = compact["msa"].shape[1]
    fixed = _sequence(compact) | _truth(compact)
    if config.templates:
        fixed |= _templates(compact)
    features = {name: value[..., None].expand(*value.shape, recycles) for name, value in fixed.items()}
    varying = _msa(compact) | _extra_msa(compact)
    return features | {name: value.movedim(1, -1) for name, value in varying.items()}


def _sequence(compact: dict[str, Tensor]) -> dict[str, Tensor]:
    aatype = compact["aatype"].long()
    kinds = one_hot(aatype, residues.KINDS).float()
    return {
        "aatype": aatype,
        "residue_index": compact["residue_index"].long(),
        "seq_length": compact["seq_length"].long(),
        "seq_mask": compact["seq_mask"].float(),
        # The first class marks the boundary of a domain, which a chain has not.
        "target_feat": torch.cat([torch.zeros_like(kinds[..., :1]), kinds], dim=-1),
        **layout(aatype),
    }


def _truth(compact: dict[str, Tensor]) -> dict[str, Tensor]:
    aatype, mask = compact["aatype"].long(), compact["atom_mask"].float()
    positions = compact["positions"].float()
    frames = frame_truth(aatype, positions, mask)
    angles = torsions(aatype, positions, mask)
    return {
        "all_atom_positions": positions,
        "all_atom_mask": mask,
        "resolution": compact["resolution"].float(),
        "is_distillation": compact["is_distillation"].float(),
        "use_clamped_fape": compact["use_clamped_fape"].float(),
        **atom14_truth(aatype, positions, mask),
        **frames,
        "backbone_rigid_tensor": frames["rigidgroups_gt_frames"][..., 0, :, :],
        "backbone_rigid_mask": frames["rigidgroups_gt_exists"][..., 0],
        "chi_angles_sin_cos": angles["torsion_angles_sin_cos"][..., 3:, :],
        "chi_mask": angles["torsion_angles_mask"][..., 3:],
        "pseudo_beta": pseudo_beta(aatype, positions),
        "pseudo_beta_mask": pseudo_beta_mask(aatype, mask),
    }


def _templates(compact: dict[str, Tensor]) -> dict[str, Tensor]:
    aatype, mask = compact["template_aatype"].long(), compact["template_atom_mask"].float()
    positions = compact["template_positions"].float()
    angles = torsions(aatype, positions, mask)
    return {
        "template_aatype": aatype,
        "template_all_atom_positions": positions,
        "template_all_atom_mask": mask,
        "template_mask": compact["template_mask"].float(),
        "template_sum_probs": compact["template_sum_probs"].float(),
        "template_pseudo_beta": pseudo_beta(aatype, positions),
        "template_pseudo_beta_mask": pseudo_beta_mask(aatype, mask),
        **{f"template_{name}": value for name, value in angles.items()},
    }


def _msa(compact: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return features of MSA clusters, R second."""
    counts = compact["deletions"].float()
    parts = [
        one_hot(compact["msa"].long(), MSA_CLASSES).float(),
        counts.clamp(max=1)[..., None],
        squash(counts)[..., None],
        compact["cluster_profile"].float(),
        squash(compact["cluster_deletion_mean"].float())[..., None],
    ]
    rows = compact["msa_row_mask"].float()
    mask = rows[..., None] * compact["seq_mask"].float()[:, None, None]
    return {
        "msa_feat": torch.cat(parts, dim=-1) * mask[..., None],
        "msa_mask": mask,
        "msa_row_mask": rows,
        "true_msa": compact["true_msa"].long(),
        "bert_mask": compact["bert_mask"].float(),
    }


def _extra_msa(compact: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return features of extra sequences, R second."""
    counts, rows = compact["extra_deletions"].float(), compact["extra_row_mask"].float()
    return {
        "extra_msa": compact["extra_msa"].long(),
        "extra_has_deletion": counts.clamp(max=1),
        "extra_deletion_value": squash(counts),
        "extra_msa_row_mask": rows,
        "extra_msa_mask": rows[..., None] * compact["seq_mask"].float()[:, None, None],
    }


def squash(count: Tensor) -> Tensor:
    """Map numbers of deletions to 0 to 1 (table 1: 2/pi arctan(d/3))."""
    return torch.atan(count / 3) * (2 / math.pi)
