"""How much weight classes of channels have, on a GPU: all tensors in one launch.

A program sums some channels of one tensor, taken as [L, C, I], and writes each sum once: no atomics, so that the result
does not depend on the order of programs.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import triton
import triton.language as tl

from sartor.tools.prune.kernels.saliency import lengths
from sartor.tools.prune.kernels.window import Array

BEFORE, CHANNELS, BEHIND = 4, 16, 16
"""Sizes of the tile that a program reads at a time."""

WARPS = 4


@triton.jit
def saliency_kernel(table, owners, sums, total, BEFORE: tl.constexpr, CHANNELS: tl.constexpr, BEHIND: tl.constexpr):
    """Write sums [2, total]: squares and magnitudes of each channel.

    Row t of table [.., 5] has the address of a tensor, its L, C and I, and where its channels begin in sums; row p of
    owners [.., 2] has the tensor of program p and its first channel.
    """
    row = table + tl.load(owners + 2 * tl.program_id(0)) * 5
    weight = tl.load(row).to(tl.pointer_type(tl.float32))
    before, count, behind = tl.load(row + 1), tl.load(row + 2), tl.load(row + 3)
    channel = tl.load(owners + 2 * tl.program_id(0) + 1) + tl.arange(0, CHANNELS)[None, :, None]
    squares = tl.zeros((BEFORE, CHANNELS, BEHIND), tl.float32)
    magnitudes = tl.zeros((BEFORE, CHANNELS, BEHIND), tl.float32)
    for first in range(0, before, BEFORE):
        at = first + tl.arange(0, BEFORE)[:, None, None]
        for start in range(0, behind, BEHIND):
            inner = start + tl.arange(0, BEHIND)[None, None, :]
            inside = (at < before) & (channel < count) & (inner < behind)
            value = tl.load(weight + (at * count + channel) * behind + inner, inside, 0.0)
            squares += value * value
            magnitudes += tl.abs(value)
    place = tl.load(row + 4) + tl.reshape(channel, (CHANNELS,))
    inside = tl.reshape(channel, (CHANNELS,)) < count
    tl.store(sums + place, tl.sum(tl.sum(squares, 2), 0), inside)
    tl.store(sums + total + place, tl.sum(tl.sum(magnitudes, 2), 0), inside)


def gpu_channel_sums(weights: Sequence[torch.Tensor], axes: Sequence[int]) -> list[tuple[Array, Array]]:
    """Sum squares and magnitudes of each channel of an axis of contiguous float32 tensors on one device."""
    shapes = [lengths(tuple(weight.shape), axis) for weight, axis in zip(weights, axes, strict=True)]
    ends = np.cumsum([channels for _, channels, _ in shapes])
    table = [[w.data_ptr(), *shape, end - shape[1]] for w, shape, end in zip(weights, shapes, ends, strict=True)]
    owners = [[t, first] for t, (_, channels, _) in enumerate(shapes) for first in range(0, channels, CHANNELS)]
    device = weights[0].device
    sums = torch.empty(2, int(ends[-1]), device=device)
    described = (torch.tensor(rows, dtype=torch.int64, device=device) for rows in (table, owners))
    tile = {"BEFORE": BEFORE, "CHANNELS": CHANNELS, "BEHIND": BEHIND}
    saliency_kernel[(len(owners),)](*described, sums, int(ends[-1]), **tile, num_warps=WARPS)
    squares, magnitudes = (np.split(found, ends[:-1]) for found in sums.double().cpu().numpy())
    return list(zip(squares, magnitudes, strict=True))
