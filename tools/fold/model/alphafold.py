"""The whole model.

Shapes: B samples, S sequences, N residues, R recycling iterations.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot

from sartor.tools.fold.geometry.atoms import atom37_from_atom14, pseudo_beta
from sartor.tools.fold.model.config import ModelConfig
from sartor.tools.fold.model.evoformer import EvoformerStack, ExtraMSAStack
from sartor.tools.fold.model.heads import MSA_CLASSES, AuxiliaryHeads
from sartor.tools.fold.model.input_embedder import ExtraMSAEmbedder, InputEmbedder
from sartor.tools.fold.model.recycling_embedder import RecyclingEmbedder
from sartor.tools.fold.model.structure_module import StructureModule
from sartor.tools.fold.model.template_embedder import TemplateEmbedder


@dataclass(frozen=True)
class Recycled:
    """What an iteration hands to the next: first MSA row [B, N, c_m], pairs [B, N, N, c_z], atom37 [B, N, 37, 3]."""

    m0: Tensor
    z: Tensor
    positions: Tensor


class AlphaFold(nn.Module):
    """AlphaFold 2, monomer (algorithm 2).

    The trunk computes in bfloat16 where the configuration says so; structure module and heads, like all geometry, in
    the type of the weights, but no less than float32.
    """

    def __init__(self, config: ModelConfig, frame_dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.config = config
        self.input_embedder = InputEmbedder(config)
        self.recycling_embedder = RecyclingEmbedder(config)
        self.template_embedder = TemplateEmbedder(config) if config.templates else None
        self.extra_msa_embedder = ExtraMSAEmbedder(config)
        self.extra_msa_stack = ExtraMSAStack(config)
        self.evoformer = EvoformerStack(config)
        self.structure_module = StructureModule(config, frame_dtype)
        self.aux_heads = AuxiliaryHeads(config)

    def forward(self, batch: dict[str, Tensor], recycles: int | None = None) -> dict[str, Tensor]:
        """Return the last iteration's outputs for a batch as `features.expand` gives it.

        As many iterations run as the batch has, or `recycles` + 1; the last one alone carries gradients.
        """
        iterations = batch["aatype"].shape[-1]
        if recycles is not None:
            assert 0 <= recycles < iterations
            iterations = recycles + 1
        previous = None
        for k in range(iterations):
            inputs = {name: value[..., k] for name, value in batch.items()}
            with torch.set_grad_enabled(torch.is_grad_enabled() and k == iterations - 1):
                outputs, previous = self.iteration(inputs, previous)
        predictions: dict[str, Tensor] = self.aux_heads(outputs, inputs["seq_mask"].to(outputs["single"].dtype))
        return outputs | predictions

    def iteration(self, batch: dict[str, Tensor], previous: Recycled | None) -> tuple[dict[str, Tensor], Recycled]:
        """Return one iteration's outputs without those of the heads, and what the next one reads."""
        m, z = self.trunk(batch, previous)
        wide = self._wide()
        outputs = {"msa": m[0].to(wide), "pair": z.to(wide), "single": m[1].to(wide)}
        aatype, mask = batch["aatype"], batch["seq_mask"].to(wide)
        outputs |= self.structure_module(outputs["single"], outputs["pair"], aatype, mask)
        positions = atom37_from_atom14(
            outputs["sm_positions"][:, -1], batch["residx_atom37_to_atom14"], batch["atom37_atom_exists"]
        )
        outputs["final_atom_positions"] = positions
        outputs["final_atom_mask"] = batch["atom37_atom_exists"]
        outputs["final_affine_tensor"] = outputs["sm_frames"][:, -1]
        return outputs, Recycled(m[0][:, 0], z, positions)

    def trunk(self, batch: dict[str, Tensor], previous: Recycled | None) -> tuple[tuple[Tensor, Tensor], Tensor]:
        """Return the MSA clusters [B, S, N, c_m], the single representation [B, N, c_s], and pairs [B, N, N, c_z]."""
        dtype = torch.bfloat16 if self.config.precision == "bf16" else self._wide()
        seq_mask, msa_mask = batch["seq_mask"].to(dtype), batch["msa_mask"].to(dtype)
        pair_mask = seq_mask[..., :, None] * seq_mask[..., None, :]
        m, z = self.input_embedder(batch["target_feat"].to(dtype), batch["residue_index"], batch["msa_feat"].to(dtype))
        clusters = m.shape[1]
        m, z = self._recycle(m, z, batch["aatype"], previous)
        if self.template_embedder is not None:
            rows, update = self.template_embedder(batch, z, pair_mask)
            m, z = torch.cat([m, rows], dim=1), z + update
            # A template's row counts where its psi is known.
            msa_mask = torch.cat([msa_mask, batch["template_torsion_angles_mask"][..., 2].to(dtype)], dim=1)
        extra = self.extra_msa_embedder(extra_features(batch).to(dtype))
        z = self.extra_msa_stack(extra, z, batch["extra_msa_mask"].to(dtype), pair_mask)
        m, z, s = self.evoformer(m, z, msa_mask, pair_mask)
        return (m[:, :clusters], s), z

    def _recycle(self, m: Tensor, z: Tensor, aatype: Tensor, previous: Recycled | None) -> tuple[Tensor, Tensor]:
        """Add the embedding of the previous iteration, or of zeros, to the first MSA row and the pairs."""
        if previous is None:
            beta = torch.zeros(*aatype.shape, 3, dtype=self._wide(), device=z.device)
            m0, pairs = torch.zeros_like(m[:, 0]), torch.zeros_like(z)
        else:
            beta, m0, pairs = pseudo_beta(aatype, previous.positions), previous.m0, previous.z
        row, update = self.recycling_embedder(m0, pairs, beta)
        return torch.cat([(m[:, 0] + row)[:, None], m[:, 1:]], dim=1), z + update

    def _wide(self) -> torch.dtype:
        """Return the type of what is never computed in bfloat16."""
        return torch.promote_types(self.structure_module.linear_in.weight.dtype, torch.float32)


def extra_features(batch: dict[str, Tensor]) -> Tensor:
    """Return [B, S, N, 25] of the sequences that are no cluster centres (table 1)."""
    deletions = [batch["extra_has_deletion"][..., None], batch["extra_deletion_value"][..., None]]
    kinds = one_hot(batch["extra_msa"].long(), MSA_CLASSES)
    return torch.cat([kinds.to(deletions[0].dtype), *deletions], dim=-1)
