"""Deep Interest Evolution Network (Zhou et al. 2019) with the widths of its public code, unrolled over the history."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.export import Dim

from models.example import Example
from models.recurrent import GRUCell


@dataclass(frozen=True)
class Size:
    """The widths of the network, the length of the history, and how many users, items and categories there are."""

    embedding: int
    steps: int
    attention: tuple[int, int]
    head: tuple[int, int]
    rows: tuple[int, int, int]

    @property
    def hidden(self) -> int:
        """The width of an item with its category, and of the recurrent states."""
        return 2 * self.embedding


BASE = Size(18, 100, (80, 40), (200, 80), (65536, 65536, 1601))
SMALL = Size(4, 3, (8, 4), (16, 8), (64, 64, 8))


class Dice(nn.Module):
    """A rectifier whose bend moves with the statistics of its input (Zhou et al. 2018, equation 3)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(width, eps=1e-3, affine=False)
        self.slope = nn.Parameter(torch.empty(width).normal_(0.0, 0.1))

    def forward(self, x_BC: Tensor) -> Tensor:
        """Return the activated values (B, C)."""
        share = torch.sigmoid(self.norm(x_BC))
        return self.slope * (1 - share) * x_BC + share * x_BC


class Relevance(nn.Module):
    """Attention scores of an item over the interests, by a small network on both, their difference and product."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        width, (wide, narrow) = size.hidden, size.attention
        self.query = nn.Sequential(nn.Linear(width, width), nn.PReLU(width))
        self.score = nn.Sequential(
            nn.Linear(4 * width, wide), nn.Sigmoid(), nn.Linear(wide, narrow), nn.Sigmoid(), nn.Linear(narrow, 1)
        )

    def forward(self, item_BC: Tensor, interests_BTC: Tensor, mask_BT: Tensor) -> Tensor:
        """Return the scores (B, T), which add up to 1 over the steps of the history."""
        query_BTC = self.query(item_BC)[:, None].expand_as(interests_BTC)
        parts = (query_BTC, interests_BTC, query_BTC - interests_BTC, query_BTC * interests_BTC)
        scores_BT = self.score(torch.cat(parts, 2)).squeeze(2)
        return torch.softmax(torch.where(mask_BT, scores_BT, float(1 - 2**32)), dim=1)


class Dien(nn.Module):
    """The whole network as it answers requests, without the auxiliary loss of its training."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.user, self.item, self.category = (nn.Embedding(rows, size.embedding) for rows in size.rows)
        self.extractor, self.evolution = (GRUCell(size.hidden, size.hidden) for _ in range(2))
        self.relevance = Relevance(size)
        inputs, (wide, narrow) = size.embedding + 4 * size.hidden, size.head
        self.head = nn.Sequential(
            nn.BatchNorm1d(inputs, eps=1e-3),
            *(nn.Linear(inputs, wide), Dice(wide)),
            *(nn.Linear(wide, narrow), Dice(narrow)),
            nn.Linear(narrow, 2),
        )

    def forward(
        self,
        user_B: Tensor,
        item_B: Tensor,
        category_B: Tensor,
        items_BT: Tensor,
        categories_BT: Tensor,
        history_BT: Tensor,
    ) -> Tensor:
        """Return the probabilities (B, 2) of no click and a click; `history` is 0 for padding."""
        mask_BT = history_BT == 1
        item_BC = torch.cat((self.item(item_B), self.category(category_B)), 1)
        items_BTC = torch.cat((self.item(items_BT), self.category(categories_BT)), 2)
        interests = self._unroll(self.extractor, items_BTC.unbind(1), mask_BT)
        interests_BTC = torch.stack(interests, 1)
        scores_BT = self.relevance(item_BC, interests_BTC, mask_BT)
        last_BC = self._unroll(self.evolution, interests, mask_BT, scores_BT)[-1]
        total_BC = items_BTC.sum(1)
        features = torch.cat((self.user(user_B), item_BC, total_BC, item_BC * total_BC, last_BC), 1)
        return torch.softmax(self.head(features), dim=1) + 1e-8

    def _unroll(
        self, cell: GRUCell, steps: tuple[Tensor, ...], mask_BT: Tensor, scores_BT: Tensor | None = None
    ) -> tuple[Tensor, ...]:
        """Run a cell step by step; where a history is padded the state stays as it is."""
        state_BC, states = torch.zeros_like(steps[0]), []
        for index, step_BC in enumerate(steps):
            score_B1 = None if scores_BT is None else scores_BT[:, index, None]
            state_BC = torch.where(mask_BT[:, index, None], cell(step_BC, state_BC, score_B1), state_BC)
            states.append(state_BC)
        return tuple(states)


def dien(small: bool) -> Example:
    """Return the network for histories of 100 items, or a small one for histories of 3."""
    size, batch = SMALL if small else BASE, Dim("batch", max=1024)
    users, items, categories = size.rows
    single = [torch.randint(rows, (2,)) for rows in (users, items, categories)]
    several = [torch.randint(rows, (2, size.steps)) for rows in (items, categories, 2)]
    names = ("user", "item", "category", "items", "categories", "history")
    return Example(Dien(size), (*single, *several), {name: {0: batch} for name in names})
