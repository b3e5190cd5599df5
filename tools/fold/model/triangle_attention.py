"""Triangle attention."""

from __future__ import annotations

from torch import Tensor, nn

from sartor.tools.fold.model.attention import GatedSelfAttention
from sartor.tools.fold.model.layer_norm import LayerNorm
from sartor.tools.fold.model.linear import Linear


class TriangleAttention(nn.Module):
    """Triangular gated self-attention around the starting (algorithm 13) or the ending node (algorithm 14)."""

    def __init__(self, c_z: int, width: int, heads: int, starting: bool) -> None:
        super().__init__()
        self.starting = starting
        self.layer_norm = LayerNorm(c_z)
        self.linear = Linear(c_z, heads, bias=False)
        self.mha = GatedSelfAttention(c_z, width, heads)

    def forward(self, z: Tensor, mask: Tensor) -> Tensor:
        """Return the update of z [*, N, N, c_z]; mask [*, N, N]."""
        if not self.starting:
            z, mask = z.transpose(-2, -3), mask.mT
        z = self.layer_norm(z)
        bias = self.linear(z).movedim(-1, -3)  # [*, H, N, N]
        update: Tensor = self.mha(z, mask, bias)
        return update if self.starting else update.transpose(-2, -3)
