"""From the MSA to pairs: the mean over sequences of outer products.

Shapes: S sequences, N residues, C width of either factor.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sartor.tools.fold.model.layer_norm import LayerNorm
from sartor.tools.fold.model.linear import JointLinear, Linear, Part, split_on_export

_EPS = 1e-3


def outer_products(a: Tensor, b: Tensor) -> Tensor:
    """Return the sum over sequences [*, N, N, C * C] of outer products of a and b [*, S, N, C]."""
    return torch.einsum("...sic,...sjd->...ijcd", a, b).flatten(-2)


class OuterProductMean(nn.Module):
    """Outer product mean (algorithm 10)."""

    def __init__(self, c_m: int, c_z: int, width: int) -> None:
        super().__init__()
        self.layer_norm = LayerNorm(c_m)
        self.linear_12 = JointLinear(c_m, [Part("linear_1", width), Part("linear_2", width)])
        self.linear_out = Linear(width**2, c_z, init="final")
        split_on_export(self, "linear_12")

    def forward(self, m: Tensor, mask: Tensor) -> Tensor:
        """Return the update [*, N, N, c_z] of pairs from m [*, S, N, c_m]; mask [*, S, N]."""
        a, b = (part * mask[..., None] for part in self.linear_12(self.layer_norm(m)))
        # Numbers of sequences have more digits than bfloat16.
        wide = mask.to(torch.promote_types(mask.dtype, torch.float32))
        count = torch.einsum("...si,...sj->...ij", wide, wide)[..., None]
        update: Tensor = self.linear_out(outer_products(a, b)) / (count + _EPS)
        return update.to(m.dtype)
