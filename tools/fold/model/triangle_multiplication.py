"""Triangle multiplication.

Shapes: N residues, C width inside.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sartor.tools.fold.model.layer_norm import LayerNorm
from sartor.tools.fold.model.linear import JointLinear, Linear, Part, split_on_export


def combine(a: Tensor, b: Tensor, outgoing: bool) -> Tensor:
    """Return the sum over k [*, N, N, C] of a_ik b_jk (outgoing) or a_ki b_kj, a and b [*, N, N, C]."""
    a, b = a.movedim(-1, -3), b.movedim(-1, -3)  # [*, C, N, N]
    product = torch.matmul(a, b.mT) if outgoing else torch.matmul(a.mT, b)
    return product.movedim(-3, -1)


class TriangleMultiplication(nn.Module):
    """Triangular multiplicative update with outgoing (algorithm 11) or incoming edges (algorithm 12)."""

    def __init__(self, c_z: int, width: int, outgoing: bool) -> None:
        super().__init__()
        self.outgoing = outgoing
        parts = [
            Part("linear_a_p", width),
            Part("linear_a_g", width, init="gating"),
            Part("linear_b_p", width),
            Part("linear_b_g", width, init="gating"),
            Part("linear_g", c_z, init="gating"),
        ]
        self.layer_norm_in = LayerNorm(c_z)
        self.linear_abg = JointLinear(c_z, parts)
        self.layer_norm_out = LayerNorm(width)
        self.linear_z = Linear(width, c_z, init="final")
        split_on_export(self, "linear_abg")

    def forward(self, z: Tensor, mask: Tensor) -> Tensor:
        """Return the update of z [*, N, N, c_z]; mask [*, N, N]."""
        a, a_gate, b, b_gate, gate = self.linear_abg(self.layer_norm_in(z))
        keep = mask[..., None]
        product = combine(torch.sigmoid(a_gate) * keep * a, torch.sigmoid(b_gate) * keep * b, self.outgoing)
        update: Tensor = self.linear_z(self.layer_norm_out(product))
        return update * torch.sigmoid(gate)
