"""BERT-base (Devlin et al. 2018) as torch.onnx.export spells a Hugging Face model, with erf's GELU and the pooler."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.export import Dim

from models.encoder import BASE, LONGEST, SMALL, TYPES, VOCABULARY, Embeddings, Layer, Size
from models.example import Example


def additive(allowed: Tensor, dtype: torch.dtype) -> Tensor:
    """Return 0 where `allowed` is 1 and the lowest number where it is 0, to be added to scores."""
    return (1 - allowed.to(dtype)) * torch.finfo(dtype).min


def gelu(x: Tensor) -> Tensor:
    """Apply GELU, written with erf."""
    return x * 0.5 * (1 + torch.erf(x / math.sqrt(2)))


class Bert(nn.Module):
    """The whole encoder."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.embeddings = Embeddings(size)
        weigh = nn.functional.scaled_dot_product_attention
        self.layers = nn.ModuleList(Layer(size, weigh, gelu) for _ in range(size.layers))
        self.pooler = nn.Linear(size.hidden, size.hidden)

    def forward(self, ids_BS: Tensor, attention_BS: Tensor, types_BS: Tensor) -> tuple[Tensor, Tensor]:
        """Return hidden states (B, S, hidden) and the pooled first one (B, hidden)."""
        hidden_BSC = self.embeddings(ids_BS, types_BS)
        mask_B11S = additive(attention_BS[:, None, None, :], hidden_BSC.dtype)
        for layer in self.layers:
            hidden_BSC = layer(hidden_BSC, mask_B11S)
        return hidden_BSC, torch.tanh(self.pooler(hidden_BSC[:, 0]))


def bert(small: bool) -> Example:
    """Return BERT-base with a smaller vocabulary, or two narrow layers."""
    batch, sequence = Dim("batch", max=64), Dim("sequence", min=2, max=LONGEST)
    ids = torch.randint(VOCABULARY, (2, 24))
    attention = torch.ones_like(ids)
    attention[1, 15:] = 0
    dynamic = {name: {0: batch, 1: sequence} for name in ("ids", "attention", "types")}
    return Example(Bert(SMALL if small else BASE), (ids, attention, torch.randint(TYPES, (2, 24))), dynamic)
