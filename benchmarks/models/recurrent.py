"""Recurrent cells unrolled over time, as TensorFlow 1 wrote them: a product with input and state side by side."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class GRUCell(nn.Module):
    """A GRU (Cho et al. 2014) whose reset gate acts on the state before the product."""

    def __init__(self, inputs: int, units: int) -> None:
        super().__init__()
        self.gates = nn.Linear(inputs + units, 2 * units)
        self.candidate = nn.Linear(inputs + units, units)

    def forward(self, input_BC: Tensor, state_BU: Tensor, score_B1: Tensor | None = None) -> Tensor:
        """Return the next state (B, units); an attention score scales the update gate (AUGRU, DIEN, equation 15)."""
        reset, update = torch.sigmoid(self.gates(torch.cat((input_BC, state_BU), 1))).chunk(2, 1)
        candidate = torch.tanh(self.candidate(torch.cat((input_BC, reset * state_BU), 1)))
        if score_B1 is None:
            return update * state_BU + (1 - update) * candidate
        update = (1 - score_B1) * update
        return update * state_BU + (1 - update) * candidate


class LSTMCell(nn.Module):
    """An LSTM without peepholes, its forget gate biased by 1."""

    def __init__(self, inputs: int, units: int) -> None:
        super().__init__()
        self.gates = nn.Linear(inputs + units, 4 * units)

    def forward(self, input_BC: Tensor, state_BU: Tensor, cell_BU: Tensor) -> tuple[Tensor, Tensor]:
        """Return the next state and cell (B, units)."""
        enter, new, keep, leave = self.gates(torch.cat((input_BC, state_BU), 1)).chunk(4, 1)
        cell_BU = cell_BU * torch.sigmoid(keep + 1) + torch.sigmoid(enter) * torch.tanh(new)
        return torch.tanh(cell_BU) * torch.sigmoid(leave), cell_BU


class BidirectionalLSTM(nn.Module):
    """Two unrolled LSTMs, one of which reads backwards, and a linear layer on both states."""

    def __init__(self, inputs: int, units: int, outputs: int) -> None:
        super().__init__()
        self.units = units
        self.forwards, self.backwards = LSTMCell(inputs, units), LSTMCell(inputs, units)
        self.out = nn.Linear(2 * units, outputs)

    def forward(self, features_BTC: Tensor) -> Tensor:
        """Return the outputs (B, T, outputs)."""
        steps = features_BTC.unbind(1)
        ahead = self._unroll(self.forwards, steps)
        back = self._unroll(self.backwards, steps[::-1])[::-1]
        return self.out(torch.cat((torch.stack(ahead, 1), torch.stack(back, 1)), 2))

    def _unroll(self, cell: LSTMCell, steps: tuple[Tensor, ...]) -> list[Tensor]:
        state = memory = steps[0].new_zeros(steps[0].shape[0], self.units)
        states = []
        for step in steps:
            state, memory = cell(step, state, memory)
            states.append(state)
        return states
