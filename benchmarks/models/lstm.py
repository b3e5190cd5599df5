"""Two LSTM layers over embedded tokens and a classifier on their mean."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.export import Dim

from models.example import Example

VOCABULARY, CLASSES = 4096, 10


class Classifier(nn.Module):
    """Embedding, LSTM, LayerNorm, mean over time, two linear layers."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.token = nn.Embedding(VOCABULARY, hidden)
        self.recurrent = nn.LSTM(hidden, hidden, num_layers=2, batch_first=True)
        self.norm = nn.LayerNorm(hidden)
        self.head = nn.Sequential(nn.Linear(hidden, hidden), nn.Tanh(), nn.Linear(hidden, CLASSES))

    def forward(self, ids_BS: Tensor) -> Tensor:
        """Return log-probabilities (B, classes) of token ids (B, S)."""
        states_BSC, _ = self.recurrent(self.token(ids_BS))
        return torch.log_softmax(self.head(self.norm(states_BSC).mean(1)), dim=-1)


def lstm(small: bool) -> Example:
    """Return a classifier of width 512, or a narrow one."""
    batch, sequence = Dim("batch", max=64), Dim("sequence", min=2, max=4096)
    ids = torch.randint(VOCABULARY, (2, 24))
    return Example(Classifier(32 if small else 512), (ids,), {"ids": {0: batch, 1: sequence}})
