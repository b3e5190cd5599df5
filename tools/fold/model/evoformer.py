"""Evoformer blocks and the two stacks of them.

Shapes: S sequences, N residues.
"""

from __future__ import annotations

from torch import Tensor, nn

from sartor.tools.fold.model.checkpointing import run
from sartor.tools.fold.model.config import ModelConfig, StackConfig
from sartor.tools.fold.model.dropout import ROWS, dropout_add
from sartor.tools.fold.model.linear import Linear
from sartor.tools.fold.model.msa_attention import ColumnAttention, GlobalColumnAttention, RowAttention
from sartor.tools.fold.model.outer_product_mean import OuterProductMean
from sartor.tools.fold.model.pair_stack import PairStack
from sartor.tools.fold.model.transition import Transition


class EvoformerBlock(nn.Module):
    """A block of the Evoformer (algorithm 6), or with `extra` of the extra-MSA stack (algorithm 18).

    With `opm_first` the outer product mean comes before all else, as in AlphaFold-Multimer.
    """

    def __init__(self, c_m: int, c_z: int, config: StackConfig, extra: bool, opm_first: bool) -> None:
        super().__init__()
        self.dropout, self.opm_first = config.dropout, opm_first
        column = GlobalColumnAttention if extra else ColumnAttention
        self.msa_att_row = RowAttention(c_m, c_z, config.attention, config.heads)
        self.msa_att_col = column(c_m, config.attention, config.heads)
        self.msa_transition = Transition(c_m, config.transition)
        self.outer_product_mean = OuterProductMean(c_m, c_z, config.outer_product)
        self.pair_stack = PairStack(c_z, config.pair)

    def forward(self, m: Tensor, z: Tensor, msa_mask: Tensor, pair_mask: Tensor) -> tuple[Tensor, Tensor]:
        """Return updated m [*, S, N, c_m] and z [*, N, N, c_z]; masks [*, S, N] and [*, N, N]."""
        if self.opm_first:
            z = z + self.outer_product_mean(m, msa_mask)
        m = dropout_add(m, self.msa_att_row(m, z, msa_mask), self.dropout, ROWS, self.training)
        m = m + self.msa_att_col(m, msa_mask)
        m = m + self.msa_transition(m)
        if not self.opm_first:
            z = z + self.outer_product_mean(m, msa_mask)
        return m, self.pair_stack(z, pair_mask)


class ExtraMSAStack(nn.Module):
    """The stack that reads the sequences which are no cluster centres (algorithm 18)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.checkpointing = config.checkpointing
        self.blocks = nn.ModuleList(
            EvoformerBlock(config.c_e, config.c_z, config.extra, extra=True, opm_first=config.opm_first)
            for _ in range(config.extra.blocks)
        )

    def forward(self, m: Tensor, z: Tensor, msa_mask: Tensor, pair_mask: Tensor) -> Tensor:
        """Return updated pairs z [*, N, N, c_z] from extra sequences m [*, S, N, c_e]."""
        for block in self.blocks:
            m, z = run(block, self.checkpointing, m, z, msa_mask, pair_mask)
        return z


class EvoformerStack(nn.Module):
    """The Evoformer (algorithm 6)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.checkpointing = config.checkpointing
        self.blocks = nn.ModuleList(
            EvoformerBlock(config.c_m, config.c_z, config.evoformer, extra=False, opm_first=config.opm_first)
            for _ in range(config.evoformer.blocks)
        )
        self.linear = Linear(config.c_m, config.c_s)

    def forward(self, m: Tensor, z: Tensor, msa_mask: Tensor, pair_mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return updated m [*, S, N, c_m] and z [*, N, N, c_z], and the single representation [*, N, c_s]."""
        for block in self.blocks:
            m, z = run(block, self.checkpointing, m, z, msa_mask, pair_mask)
        return m, z, self.linear(m[..., 0, :, :])
