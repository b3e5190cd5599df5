"""The auxiliary heads and what is read from their logits.

Shapes: S sequences, N residues, B bins.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sartor.tools.fold import residues
from sartor.tools.fold.model.config import HeadsConfig, ModelConfig
from sartor.tools.fold.model.layer_norm import LayerNorm
from sartor.tools.fold.model.linear import Linear

MSA_CLASSES = 23
_SMALLEST_TM_LENGTH = 19


def plddt(logits: Tensor) -> Tensor:
    """Return the predicted lDDT-CA [*, N], 0 to 100, from logits [*, N, B] (algorithm 29)."""
    bins = logits.shape[-1]
    centres = (torch.arange(bins, dtype=logits.dtype, device=logits.device) + 0.5) / bins
    return 100 * (torch.softmax(logits, dim=-1) * centres).sum(dim=-1)


def error_centres(bins: int, largest: float, like: Tensor) -> Tensor:
    """Return the centres [B] of bins of aligned error in angstroms; the last one is open."""
    step = largest / (bins - 2)
    return (torch.arange(bins, dtype=like.dtype, device=like.device) + 0.5) * step


def aligned_error(logits: Tensor, largest: float) -> Tensor:
    """Return the expected aligned error [*, N, N] in angstroms from logits [*, N, N, B]."""
    return (torch.softmax(logits, dim=-1) * error_centres(logits.shape[-1], largest, logits)).sum(dim=-1)


def predicted_tm(logits: Tensor, mask: Tensor, largest: float) -> Tensor:
    """Return the predicted TM score [*] from logits [*, N, N, B] and mask [*, N] (section 1.9.7, equation 40)."""
    length = mask.sum(dim=-1).clamp(min=_SMALLEST_TM_LENGTH)[..., None]
    scale = 1.24 * (length - 15) ** (1 / 3) - 1.8  # [*, 1]
    score = 1 / (1 + (error_centres(logits.shape[-1], largest, logits) / scale) ** 2)  # [*, B]
    expected = (torch.softmax(logits, dim=-1) * score[..., None, None, :]).sum(dim=-1)  # [*, N, N]
    mean = (expected * mask[..., None, :]).sum(dim=-1) / mask.sum(dim=-1, keepdim=True).clamp(min=1)
    return (mean * mask).amax(dim=-1)


class PLDDTHead(nn.Module):
    """Confidence of a residue (algorithm 29)."""

    def __init__(self, c_s: int, config: HeadsConfig) -> None:
        super().__init__()
        self.layer_norm = LayerNorm(c_s)
        self.linear_1 = Linear(c_s, config.plddt_channels, init="relu")
        self.linear_2 = Linear(config.plddt_channels, config.plddt_channels, init="relu")
        self.linear_3 = Linear(config.plddt_channels, config.plddt_bins, init="final")

    def forward(self, s: Tensor) -> Tensor:
        """Map [*, N, c_s] to logits [*, N, B]."""
        hidden = torch.relu(self.linear_1(self.layer_norm(s)))
        logits: Tensor = self.linear_3(torch.relu(self.linear_2(hidden)))
        return logits


class LinearHead(nn.Module):
    """A head of one linear layer: masked MSA (1.9.9), experimentally resolved (1.9.10), aligned error (1.9.7)."""

    def __init__(self, c_in: int, classes: int) -> None:
        super().__init__()
        self.linear = Linear(c_in, classes, init="final")

    def forward(self, x: Tensor) -> Tensor:
        """Map [*, c] to logits [*, classes]."""
        logits: Tensor = self.linear(x)
        return logits


class DistogramHead(LinearHead):
    """Distances of pairs, symmetric (section 1.9.8)."""

    def forward(self, x: Tensor) -> Tensor:
        """Map [*, N, N, c_z] to logits [*, N, N, B]."""
        logits = super().forward(x)
        return logits + logits.transpose(-2, -3)


class AuxiliaryHeads(nn.Module):
    """All heads beside the structure module."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        heads = config.heads
        self.largest_error = heads.tm_max_bin
        self.plddt = PLDDTHead(config.c_s, heads)
        self.distogram = DistogramHead(config.c_z, heads.distogram_bins)
        self.masked_msa = LinearHead(config.c_m, MSA_CLASSES)
        self.experimentally_resolved = LinearHead(config.c_s, len(residues.ATOMS37))
        self.tm = LinearHead(config.c_z, heads.tm_bins) if heads.tm else None

    def forward(self, outputs: dict[str, Tensor], mask: Tensor) -> dict[str, Tensor]:
        """Return the logits, and scores read from them; mask [*, N]."""
        lddt = self.plddt(outputs["sm_single"])
        results = {
            "lddt_logits": lddt,
            "plddt": plddt(lddt),
            "distogram_logits": self.distogram(outputs["pair"]),
            "masked_msa_logits": self.masked_msa(outputs["msa"]),
            "experimentally_resolved_logits": self.experimentally_resolved(outputs["single"]),
        }
        if self.tm is not None:
            logits = self.tm(outputs["pair"])
            results["tm_logits"] = logits
            results["predicted_tm_score"] = predicted_tm(logits, mask, self.largest_error)
            results["predicted_aligned_error"] = aligned_error(logits, self.largest_error)
        return results
