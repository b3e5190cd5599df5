"""The sum of all losses.

Shapes: B samples.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sartor.tools.fold.losses.averages import trusted
from sartor.tools.fold.losses.chi import angle_norm, chi_error
from sartor.tools.fold.losses.distogram import distogram_loss
from sartor.tools.fold.losses.fape import backbone_fape, sidechain_fape
from sartor.tools.fold.losses.lddt import plddt_loss
from sartor.tools.fold.losses.masked_msa import masked_msa_loss
from sartor.tools.fold.losses.rename import rename
from sartor.tools.fold.losses.resolved import resolved_loss
from sartor.tools.fold.losses.tm import tm_loss
from sartor.tools.fold.losses.violation import find_violations, violation_loss
from sartor.tools.fold.model.config import LossConfig

TM_LARGEST_ERROR = 31.0


def loss(outputs: dict[str, Tensor], batch: dict[str, Tensor], config: LossConfig) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the scaled total, a mean over samples, and every term, detached, one number a sample [B].

    `batch` is what the model read, with a trailing recycling dimension whose last entry counts. The total of a sample
    is times the square root of its length, at most the crop's (section 1.9). Nothing here hides a loss that is not
    finite: look at the terms for the sample that it comes from.
    """
    last = {name: value[..., -1] for name, value in batch.items()}
    terms = _structure(outputs, last, config) | _predictions(outputs, last) | _confidences(outputs, last, config)
    weights = _weights(config)
    # A head's loss of weight zero stays in the sum, so that every parameter has a gradient.
    total = torch.stack([weights[name] * term for name, term in terms.items()]).sum(dim=0)
    scale = last["seq_length"].float().clamp(max=config.crop_size).sqrt()
    terms |= {"weighted_total_loss": total, "scaled_weighted_total_loss": scale * total}
    return (scale * total).mean(), {name: term.detach() for name, term in terms.items()}


def _weights(config: LossConfig) -> dict[str, float]:
    return {
        "fape": config.fape,
        "supervised_chi": config.supervised_chi,
        "distogram": config.distogram,
        "masked_msa": config.masked_msa,
        "plddt_loss": config.plddt,
        "experimentally_resolved": config.experimentally_resolved,
        "violation": config.violation,
        "tm": config.tm,
    }


def _structure(outputs: dict[str, Tensor], batch: dict[str, Tensor], config: LossConfig) -> dict[str, Tensor]:
    """Return the losses of positions, torsions and violations."""
    atoms = outputs["sm_positions"][:, -1]
    clamped = batch["use_clamped_fape"]
    frames, mask = batch["backbone_rigid_tensor"], batch["backbone_rigid_mask"]
    backbone = backbone_fape(outputs["sm_frames"], frames, mask, clamped)
    with torch.no_grad():
        renamed = rename(batch, atoms)
    sidechain = sidechain_fape(outputs["sm_sidechain_frames"][:, -1], atoms, batch, renamed)
    chi = chi_error(outputs["sm_angles"], batch["chi_angles_sin_cos"], batch["chi_mask"], batch["aatype"])
    norm = angle_norm(outputs["sm_unnormalized_angles"], batch["seq_mask"])
    losses = {
        "fape": config.fape_backbone * backbone + config.fape_sidechain * sidechain,
        "supervised_chi": config.chi * chi + config.angle_norm * norm,
    }
    if config.violation:
        found = find_violations(batch, atoms, config.violation_tolerance, config.clash_tolerance)
        losses["violation"] = violation_loss(found, batch["atom14_atom_exists"])
    return losses


def _predictions(outputs: dict[str, Tensor], batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the losses of the distogram and the masked MSA."""
    beta, mask = batch["pseudo_beta"], batch["pseudo_beta_mask"]
    return {
        "distogram": distogram_loss(outputs["distogram_logits"], beta, mask),
        "masked_msa": masked_msa_loss(outputs["masked_msa_logits"], batch["true_msa"], batch["bert_mask"]),
    }


def _confidences(outputs: dict[str, Tensor], batch: dict[str, Tensor], config: LossConfig) -> dict[str, Tensor]:
    """Return the losses of heads that judge, zero for structures whose resolution is out of range."""
    truth, mask = batch["all_atom_positions"], batch["all_atom_mask"]
    counts = trusted(batch["resolution"], config.min_resolution, config.max_resolution)
    plddt = plddt_loss(outputs["lddt_logits"], outputs["final_atom_positions"], truth, mask)
    resolved = resolved_loss(outputs["experimentally_resolved_logits"], batch["atom37_atom_exists"], mask)
    losses = {"plddt_loss": counts * plddt, "experimentally_resolved": counts * resolved}
    if "tm_logits" in outputs:
        frames, frame_mask = batch["backbone_rigid_tensor"], batch["backbone_rigid_mask"]
        final = outputs["final_affine_tensor"]
        losses["tm"] = counts * tm_loss(outputs["tm_logits"], final, frames, frame_mask, TM_LARGEST_ERROR)
    return losses
