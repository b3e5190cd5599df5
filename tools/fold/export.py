"""The Evoformer of a trained model as ONNX, so that the other tools and any runtime can take it."""

from __future__ import annotations

from torch import Tensor, nn

from sartor.tools.fold.model.alphafold import AlphaFold


class Trunk(nn.Module):
    """The Evoformer stack of a model as one function of four tensors."""

    def __init__(self, model: AlphaFold) -> None:
        super().__init__()
        self.stack = model.evoformer

    def forward(self, msa: Tensor, pair: Tensor, msa_mask: Tensor, pair_mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return msa (S, N, c_m), pair (N, N, c_z) and single (N, c_s) after all blocks."""
        return self.stack(msa, pair, msa_mask, pair_mask)
