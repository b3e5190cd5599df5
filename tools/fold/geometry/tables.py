"""The tables of residues as tensors on a device."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor


@cache
def _on(table: Callable[[], NDArray[Any]], device: torch.device) -> Tensor:
    # A table made under inference mode could never be saved for a backward pass.
    with torch.inference_mode(False):
        return torch.from_numpy(table().copy()).to(device)


def lookup(table: Callable[[], NDArray[Any]], aatype: Tensor) -> Tensor:
    """Return the rows [*, ...] of a table of `residues` for residues [*]; numbers above 20 count as unknown."""
    rows = _on(table, aatype.device)
    return rows[aatype.long().clamp(max=rows.shape[0] - 1)]


def gather_atoms(positions: Tensor, index: Tensor) -> Tensor:
    """Return positions [*, A, 3] of the atoms that index [*, A] names in positions [*, K, 3]."""
    return torch.gather(positions, -2, index[..., None].expand(*index.shape, 3))
