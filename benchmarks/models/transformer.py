"""The big Transformer for WMT translation (Vaswani et al. 2017, table 3), its decoder fed with the whole target."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.export import Dim

from models.bert import additive
from models.encoder import Attention, Layer, Size
from models.example import Example

LONGEST = 1024
BIG, SMALL = Size(6, 1024, 16), Size(1, 64, 4)
VOCABULARY, FEW = 32000, 512


def sinusoids(start: int, stop: int, hidden: int) -> Tensor:
    """Return the encodings (stop - start, hidden) of positions (section 3.5): sines, then cosines."""
    rates = 10000 ** (-torch.arange(0, hidden, 2) / hidden)
    angles = torch.outer(torch.arange(start, stop), rates)
    return torch.cat((angles.sin(), angles.cos()), dim=1)


class DecoderLayer(nn.Module):
    """Causal self-attention, attention to the source, and feed-forward; LayerNorm behind each residual."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.layer = Layer(size, activation=torch.relu)
        self.cross, self.norm = Attention(size), nn.LayerNorm(size.hidden)

    def forward(self, hidden_BTC: Tensor, mask_B1TT: Tensor, memory_BSC: Tensor, mask_B11S: Tensor) -> Tensor:
        """Return the next hidden states (B, T, hidden)."""
        hidden_BTC = self.layer.attend(hidden_BTC, mask_B1TT)
        hidden_BTC = self.norm(hidden_BTC + self.cross(hidden_BTC, mask_B11S, memory_BSC))
        return self.layer.feed(hidden_BTC)


class Transformer(nn.Module):
    """The whole model, with as many layers on each side; source, target and logits share one embedding."""

    positions: Tensor

    def __init__(self, size: Size, vocabulary: int) -> None:
        super().__init__()
        self.token = nn.Embedding(vocabulary, size.hidden)
        nn.init.normal_(self.token.weight, 0.0, size.hidden**-0.5)
        self.register_buffer("positions", sinusoids(0, LONGEST, size.hidden))
        self.encoder = nn.ModuleList(Layer(size, activation=torch.relu) for _ in range(size.layers))
        self.decoder = nn.ModuleList(DecoderLayer(size) for _ in range(size.layers))

    def forward(self, source_BS: Tensor, source_mask_BS: Tensor, target_BT: Tensor, target_mask_BT: Tensor) -> Tensor:
        """Return the log-probabilities (B, T, vocabulary) of the next tokens; masks are 0 for padding."""
        memory_BSC = self._embed(source_BS)
        mask_B11S = additive(source_mask_BS[:, None, None, :], memory_BSC.dtype)
        for layer in self.encoder:
            memory_BSC = layer(memory_BSC, mask_B11S)
        length = target_BT.shape[1]
        causal_TT = torch.ones(length, length, dtype=target_mask_BT.dtype, device=target_BT.device).tril()
        mask_B1TT = additive(causal_TT * target_mask_BT[:, None, None, :], memory_BSC.dtype)
        hidden_BTC = self._embed(target_BT)
        for layer in self.decoder:
            hidden_BTC = layer(hidden_BTC, mask_B1TT, memory_BSC, mask_B11S)
        return torch.log_softmax(nn.functional.linear(hidden_BTC, self.token.weight), dim=-1)

    def _embed(self, ids_BS: Tensor) -> Tensor:
        scaled_BSC = self.token(ids_BS) * math.sqrt(self.positions.shape[1])
        return scaled_BSC + self.positions[: ids_BS.shape[1]]


def transformer(small: bool) -> Example:
    """Return the big Transformer with a vocabulary of 32000, or a narrow layer on each side."""
    batch = Dim("batch", max=64)
    source, target = Dim("source", min=2, max=LONGEST), Dim("target", min=2, max=LONGEST)
    vocabulary = FEW if small else VOCABULARY
    inputs = [torch.randint(high, (2, length)) for length in (24, 20) for high in (vocabulary, 2)]
    names = ("source_ids", "source_mask", "target_ids", "target_mask")
    dynamic = {name: {0: batch, 1: target if name.startswith("target") else source} for name in names}
    return Example(Transformer(SMALL if small else BIG, vocabulary), tuple(inputs), dynamic)
