"""What an Evoformer block and a block of the template stack do to pairs."""

from __future__ import annotations

from torch import Tensor, nn

from sartor.tools.fold.model.config import PairConfig
from sartor.tools.fold.model.dropout import COLUMNS, ROWS, dropout_add
from sartor.tools.fold.model.transition import Transition
from sartor.tools.fold.model.triangle_attention import TriangleAttention
from sartor.tools.fold.model.triangle_multiplication import TriangleMultiplication


class PairStack(nn.Module):
    """Updates of pairs (algorithm 6, lines 6 to 10); with `attention_first` those of templates (algorithm 16)."""

    def __init__(self, c_z: int, config: PairConfig, attention_first: bool = False) -> None:
        super().__init__()
        self.dropout, self.attention_first = config.dropout, attention_first
        self.tri_mul_out = TriangleMultiplication(c_z, config.multiplication, outgoing=True)
        self.tri_mul_in = TriangleMultiplication(c_z, config.multiplication, outgoing=False)
        self.tri_att_start = TriangleAttention(c_z, config.attention, config.heads, starting=True)
        self.tri_att_end = TriangleAttention(c_z, config.attention, config.heads, starting=False)
        self.pair_transition = Transition(c_z, config.transition)

    def forward(self, z: Tensor, mask: Tensor) -> Tensor:
        """Return updated pairs z [*, N, N, c_z]; mask [*, N, N]."""
        if self.attention_first:
            z = self._multiplications(self._attentions(z, mask), mask)
        else:
            z = self._attentions(self._multiplications(z, mask), mask)
        update: Tensor = self.pair_transition(z)
        return z + update

    def _multiplications(self, z: Tensor, mask: Tensor) -> Tensor:
        z = dropout_add(z, self.tri_mul_out(z, mask), self.dropout, ROWS, self.training)
        return dropout_add(z, self.tri_mul_in(z, mask), self.dropout, ROWS, self.training)

    def _attentions(self, z: Tensor, mask: Tensor) -> Tensor:
        z = dropout_add(z, self.tri_att_start(z, mask), self.dropout, ROWS, self.training)
        return dropout_add(z, self.tri_att_end(z, mask), self.dropout, COLUMNS, self.training)
