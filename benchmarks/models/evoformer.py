"""One Evoformer block of AlphaFold 2 (Jumper et al. 2021, supplement, algorithm 6) with all of its nine sub-layers.

Axes: N sequences, R or I, J residues, C channels, H heads, D channels of a head; msa (N, R, C), pair (I, J, C).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.export import Dim

from models.bert import additive
from models.example import Example


@dataclass(frozen=True)
class Size:
    """Channels of msa and pair, of the hidden products, and heads."""

    msa: int
    pair: int
    outer: int
    product: int
    msa_heads: int
    pair_heads: int


BASE, SMALL = Size(256, 128, 32, 128, 8, 4), Size(32, 16, 8, 16, 4, 2)


class Attention(nn.Module):
    """Gated attention over the last axis but one, with additive biases (algorithms 7 and 13)."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value = (nn.Linear(channels, channels, bias=False) for _ in range(3))
        self.gate, self.out = nn.Linear(channels, channels), nn.Linear(channels, channels)

    def forward(self, rows_GRC: Tensor, *biases: Tensor) -> Tensor:
        """Return the mixed rows (G, R, C); biases broadcast to scores (G, H, R, R)."""
        query, key, value = (self._split(part(rows_GRC)) for part in (self.query, self.key, self.value))
        scores_GHRR = (query / math.sqrt(query.shape[-1])) @ key.transpose(-1, -2)
        for bias in biases:
            scores_GHRR = scores_GHRR + bias
        mixed_GHRD = torch.softmax(scores_GHRR, dim=-1) @ value
        return self.out(mixed_GHRD.transpose(-2, -3).flatten(-2) * torch.sigmoid(self.gate(rows_GRC)))

    def _split(self, rows_GRC: Tensor) -> Tensor:
        return rows_GRC.unflatten(-1, (self.heads, -1)).transpose(-2, -3)


def mask_bias(mask_GR: Tensor) -> Tensor:
    """Return the bias (G, 1, 1, R) that hides the elements whose mask is 0."""
    return additive(mask_GR, mask_GR.dtype)[:, None, None, :]


class RowAttention(nn.Module):
    """Attention along each sequence, biased by the pairs (algorithm 7)."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.norm, self.pair_norm = nn.LayerNorm(size.msa), nn.LayerNorm(size.pair)
        self.bias = nn.Linear(size.pair, size.msa_heads, bias=False)
        self.attention = Attention(size.msa, size.msa_heads)

    def forward(self, msa_NRC: Tensor, pair_IJC: Tensor, mask_NR: Tensor) -> Tensor:
        """Return the update of the msa."""
        bias_HIJ = self.bias(self.pair_norm(pair_IJC)).permute(2, 0, 1)
        return self.attention(self.norm(msa_NRC), mask_bias(mask_NR), bias_HIJ[None])


class ColumnAttention(nn.Module):
    """Attention along each column of the msa (algorithm 8)."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.norm, self.attention = nn.LayerNorm(size.msa), Attention(size.msa, size.msa_heads)

    def forward(self, msa_NRC: Tensor, mask_NR: Tensor) -> Tensor:
        """Return the update of the msa."""
        columns_RNC = self.norm(msa_NRC.transpose(0, 1))
        return self.attention(columns_RNC, mask_bias(mask_NR.transpose(0, 1))).transpose(0, 1)


class Transition(nn.Module):
    """A feed-forward of fourfold width (algorithms 9 and 15)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.wide, self.narrow = nn.Linear(channels, 4 * channels), nn.Linear(4 * channels, channels)

    def forward(self, hidden: Tensor, mask: Tensor) -> Tensor:
        """Return the update, 0 where the mask is."""
        return self.narrow(torch.relu(self.wide(self.norm(hidden)))) * mask[..., None]


class OuterProductMean(nn.Module):
    """From the msa to the pairs: outer products of two columns, averaged over the sequences (algorithm 10)."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(size.msa)
        self.left, self.right = nn.Linear(size.msa, size.outer), nn.Linear(size.msa, size.outer)
        self.out = nn.Linear(size.outer**2, size.pair)

    def forward(self, msa_NRC: Tensor, mask_NR: Tensor) -> Tensor:
        """Return the update of the pairs."""
        normed, mask_NR1 = self.norm(msa_NRC), mask_NR[..., None]
        left_NIC, right_NJD = self.left(normed) * mask_NR1, self.right(normed) * mask_NR1
        outer_IJCD = torch.einsum("nic,njd->ijcd", left_NIC, right_NJD)
        count_IJ1 = torch.einsum("nic,njc->ijc", mask_NR1, mask_NR1)
        return self.out(outer_IJCD.flatten(-2)) / (1e-3 + count_IJ1)


class TriangleProduct(nn.Module):
    """Update of an edge by the two others of its triangles (algorithms 11 and 12)."""

    def __init__(self, size: Size, outgoing: bool) -> None:
        super().__init__()
        self.equation = "ikc,jkc->ijc" if outgoing else "kic,kjc->ijc"
        self.norm, self.inner_norm = nn.LayerNorm(size.pair), nn.LayerNorm(size.product)
        self.left, self.left_gate, self.right, self.right_gate = (nn.Linear(size.pair, size.product) for _ in range(4))
        self.gate, self.out = nn.Linear(size.pair, size.pair), nn.Linear(size.product, size.pair)

    def forward(self, pair_IJC: Tensor, mask_IJ: Tensor) -> Tensor:
        """Return the update of the pairs."""
        normed, mask_IJ1 = self.norm(pair_IJC), mask_IJ[..., None]
        left = mask_IJ1 * torch.sigmoid(self.left_gate(normed)) * self.left(normed)
        right = mask_IJ1 * torch.sigmoid(self.right_gate(normed)) * self.right(normed)
        product_IJC = torch.einsum(self.equation, left, right)
        return self.out(self.inner_norm(product_IJC)) * torch.sigmoid(self.gate(normed))


class TriangleAttention(nn.Module):
    """Attention of an edge to those that share its start, or its end (algorithms 13 and 14)."""

    def __init__(self, size: Size, starting: bool) -> None:
        super().__init__()
        self.starting = starting
        self.norm = nn.LayerNorm(size.pair)
        self.bias = nn.Linear(size.pair, size.pair_heads, bias=False)
        self.attention = Attention(size.pair, size.pair_heads)

    def forward(self, pair_IJC: Tensor, mask_IJ: Tensor) -> Tensor:
        """Return the update of the pairs."""
        if not self.starting:
            pair_IJC, mask_IJ = pair_IJC.transpose(0, 1), mask_IJ.transpose(0, 1)
        normed = self.norm(pair_IJC)
        bias_1HIJ = self.bias(normed).permute(2, 0, 1)[None]
        update_IJC = self.attention(normed, mask_bias(mask_IJ), bias_1HIJ)
        return update_IJC if self.starting else update_IJC.transpose(0, 1)


class Evoformer(nn.Module):
    """The whole block, without the dropout of training."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.row, self.column, self.transition = RowAttention(size), ColumnAttention(size), Transition(size.msa)
        self.outer = OuterProductMean(size)
        self.products = nn.ModuleList(TriangleProduct(size, outgoing) for outgoing in (True, False))
        self.attentions = nn.ModuleList(TriangleAttention(size, starting) for starting in (True, False))
        self.pair_transition = Transition(size.pair)

    def forward(
        self, msa_NRC: Tensor, pair_IJC: Tensor, msa_mask_NR: Tensor, pair_mask_IJ: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return the next msa and pairs; masks are 0 for padding."""
        mask_NR, mask_IJ = msa_mask_NR.to(msa_NRC.dtype), pair_mask_IJ.to(pair_IJC.dtype)
        msa_NRC = msa_NRC + self.row(msa_NRC, pair_IJC, mask_NR)
        msa_NRC = msa_NRC + self.column(msa_NRC, mask_NR)
        msa_NRC = msa_NRC + self.transition(msa_NRC, mask_NR)
        pair_IJC = pair_IJC + self.outer(msa_NRC, mask_NR)
        for part in (*self.products, *self.attentions, self.pair_transition):
            pair_IJC = pair_IJC + part(pair_IJC, mask_IJ)
        return msa_NRC, pair_IJC


def evoformer(small: bool) -> Example:
    """Return a block of AlphaFold's widths, or a narrow one."""
    size, sequences, residues = SMALL if small else BASE, 6, 10
    axes = {0: Dim("sequences", min=2, max=5120), 1: Dim("residues", min=2, max=2048)}
    pairs = {0: axes[1], 1: axes[1]}
    msa, pair = torch.randn(sequences, residues, size.msa), torch.randn(residues, residues, size.pair)
    masks = torch.ones(sequences, residues, dtype=torch.int64), torch.ones(residues, residues, dtype=torch.int64)
    dynamic = {"msa": axes, "pair": pairs, "msa_mask": axes, "pair_mask": pairs}
    return Example(Evoformer(size), (msa, pair, *masks), dynamic)
