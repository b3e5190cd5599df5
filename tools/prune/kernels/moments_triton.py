"""Gram matrices and cross products of what a layer reads, on a GPU, straight from the feature map.

A symmetric rank-k update with an implicit design matrix: a program owns a tile of the Gram matrix on or below the
diagonal and gathers what its columns read for some rows at a time. Products are float32 over at most FLUSH rows and
are then added to float64. Tensor cores would miss 1e-6, because they cut their sums off instead of rounding them
(Ootomo and Yokota 2022). Rows are split among programs where there are fewer tiles than a GPU runs at a time; each
part has a matrix of its own, so the result does not depend on the order of programs.

Letters: N images, C channels, G groups, R rows, K columns of a group, O outputs of a group, S parts of the rows.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import triton
import triton.language as tl

from sartor.tools.prune.kernels.cross import Cross
from sartor.tools.prune.kernels.moments import Moments
from sartor.tools.prune.kernels.window import Array, Window, output_shape, sliding

RANK = 3
"""Most spatial axes that a map may have; one with fewer gets axes of length one in front."""

BLOCK = 64
"""Columns of a tile."""

STEP = 16
"""Rows of the design matrix that are gathered at a time."""

FLUSH = 2048
"""Rows of a float32 product."""

WARPS = 8
"""Warps of a program: half as many spill."""

PROGRAMS = 4
"""Programs to have for each processor."""


@triton.jit
def _geometry(geometry):
    """Load sizes of the map, of the output, strides of the map, and steps between outputs."""
    sizes = tl.load(geometry), tl.load(geometry + 1), tl.load(geometry + 2)
    outputs = tl.load(geometry + 3), tl.load(geometry + 4), tl.load(geometry + 5)
    strides = tl.load(geometry + 6), tl.load(geometry + 7), tl.load(geometry + 8), tl.load(geometry + 9)
    steps = tl.load(geometry + 10), tl.load(geometry + 11), tl.load(geometry + 12)
    return sizes, outputs, strides, steps


@triton.jit
def _columns(table, shift, group, first, count, BLOCK: tl.constexpr):
    """Load what columns [BLOCK, 1] of a group read: how far from the output's place, packed distances, a shift."""
    column = first + tl.arange(0, BLOCK)[:, None]
    inside = column < count
    offset = tl.load(table + group * 2 * count + column, inside, 0)
    distances = tl.load(table + (group * 2 + 1) * count + column, inside, 0)
    return offset, distances, tl.load(shift + group * count + column, inside, 0.0)


@triton.jit
def _gather(x, geometry, columns, row, last):
    """Gather what columns [K, 1] read for rows [1, R], less their shift; zero beyond the last row."""
    sizes, outputs, strides, steps = geometry
    offset, distances, shift = columns
    area = outputs[1] * outputs[2]
    image, position = row // (outputs[0] * area), row % (outputs[0] * area)
    depth, height = position // area * steps[0], position % area // outputs[2] * steps[1]
    width = position % outputs[2] * steps[2]
    place = image.to(tl.int64) * strides[0] + depth * strides[1] + height * strides[2] + width * strides[3]
    z = depth + (distances >> 24)
    y = height + ((distances << 8) >> 20)
    w = width + ((distances << 20) >> 20)
    inside = (z >= 0) & (z < sizes[0]) & (y >= 0) & (y < sizes[1]) & (w >= 0) & (w < sizes[2])
    return tl.where(row < last, tl.load(x + place + offset, inside & (row < last), 0.0) - shift, 0.0)


@triton.jit
def gram_kernel(
    x, geometry, table, shift, gram, sums, rows, count,
    BLOCK: tl.constexpr, STEP: tl.constexpr, FLUSH: tl.constexpr,
):  # fmt: skip
    """Add a tile of gram [S, G, K, K], and if it is on the diagonal of sums [S, G, K], over a part of the rows."""
    tiles = tl.cdiv(count, BLOCK)
    i, j = tl.program_id(0) // tiles, tl.program_id(0) % tiles
    if j > i:
        return
    group, part = tl.program_id(1), tl.program_id(2)
    shape = _geometry(geometry)
    left = _columns(table, shift, group, i * BLOCK, count, BLOCK)
    right = _columns(table, shift, group, j * BLOCK, count, BLOCK)
    matrix = (part * tl.num_programs(1) + group).to(tl.int64) * count
    down, across = i * BLOCK + tl.arange(0, BLOCK), j * BLOCK + tl.arange(0, BLOCK)
    place = (matrix + down[:, None]) * count + across[None, :]
    wanted = (down[:, None] < count) & (across[None, :] < count)
    each = tl.cdiv(tl.cdiv(rows, tl.num_programs(2)), STEP) * STEP
    for begin in range(part * each, tl.minimum(part * each + each, rows), FLUSH):
        last = tl.minimum(begin + FLUSH, tl.minimum(part * each + each, rows))
        product = tl.zeros((BLOCK, BLOCK), tl.float32)
        total = tl.zeros((BLOCK,), tl.float32)
        for first in range(begin, last, STEP):
            row = first + tl.arange(0, STEP)[None, :]
            a = _gather(x, shape, left, row, last)
            b = _gather(x, shape, right, row, last)
            product = tl.dot(a, tl.trans(b), product, input_precision="ieee")
            total += tl.sum(a, 1)
        tl.store(gram + place, tl.load(gram + place, wanted) + product.to(tl.float64), wanted)
        if i == j:
            at = sums + matrix + down
            tl.store(at, tl.load(at, down < count) + total.to(tl.float64), down < count)


@triton.jit
def cross_kernel(
    x, geometry, table, shift, y, y_shift, cross, rows, count, outputs, positions,
    BLOCK: tl.constexpr, STEP: tl.constexpr, FLUSH: tl.constexpr,
):  # fmt: skip
    """Add a tile of cross [S, G, K, O] over a part of the rows; y [N, G, O, P] is contiguous."""
    tiles = tl.cdiv(outputs, BLOCK)
    i, j = tl.program_id(0) // tiles, tl.program_id(0) % tiles
    group, part = tl.program_id(1), tl.program_id(2)
    shape = _geometry(geometry)
    left = _columns(table, shift, group, i * BLOCK, count, BLOCK)
    down, across = i * BLOCK + tl.arange(0, BLOCK), j * BLOCK + tl.arange(0, BLOCK)
    place = ((part * tl.num_programs(1) + group).to(tl.int64) * count + down[:, None]) * outputs + across[None, :]
    wanted = (down[:, None] < count) & (across[None, :] < outputs)
    output = across[:, None]
    offset = tl.load(y_shift + group * outputs + output, output < outputs, 0.0)
    each = tl.cdiv(tl.cdiv(rows, tl.num_programs(2)), STEP) * STEP
    for begin in range(part * each, tl.minimum(part * each + each, rows), FLUSH):
        last = tl.minimum(begin + FLUSH, tl.minimum(part * each + each, rows))
        product = tl.zeros((BLOCK, BLOCK), tl.float32)
        for first in range(begin, last, STEP):
            row = first + tl.arange(0, STEP)[None, :]
            a = _gather(x, shape, left, row, last)
            channel = (row // positions).to(tl.int64) * tl.num_programs(1) * outputs + group * outputs + output
            inside = (output < outputs) & (row < last)
            b = tl.load(y + channel * positions + row % positions, inside, 0.0) - offset
            product = tl.dot(a, tl.trans(tl.where(inside, b, 0.0)), product, input_precision="ieee")
        tl.store(cross + place, tl.load(cross + place, wanted) + product.to(tl.float64), wanted)


@dataclass(frozen=True)
class _Read:
    """A map and what the kernels need to know of it: see `_geometry` and `_columns`; rows of the design matrix."""

    x: torch.Tensor
    geometry: torch.Tensor
    table: torch.Tensor
    shift: torch.Tensor
    rows: int


def gpu_moments(x: torch.Tensor, window: Window, shift: Array) -> Moments:
    """Sum over the rows of the design matrix of a float32 map [N, C, *spatial], at most three spatial axes."""
    read = _read(x, window, shift)
    groups, columns = read.shift.shape
    block = _block(columns)
    tiles = -(-columns // block)
    parts = _parts(read, tiles * (tiles + 1) // 2 * groups)
    gram = _zeros(x, parts, groups, columns, columns)
    sums = _zeros(x, parts, groups, columns)
    _launch(gram_kernel, (tiles * tiles, groups, parts), read, (gram, sums, read.rows, columns), block)
    lower = gram.sum(0).tril()
    whole = lower + lower.tril(-1).mT
    return Moments(read.rows, shift, whole.cpu().numpy(), sums.sum(0).cpu().numpy())


def gpu_cross(x: torch.Tensor, y: torch.Tensor, window: Window, shift: Array, target_shift: Array) -> Cross:
    """Sum over the rows of the design matrix of a float32 map and a target [N, G O, *output]; shifts as on the CPU."""
    read = _read(x, window, shift)
    groups, outputs = target_shift.shape
    columns, positions = read.shift.shape[1], math.prod(y.shape[2:])
    block = _block(max(columns, outputs))
    grid = -(-columns // block) * -(-outputs // block)
    parts = _parts(read, grid * groups)
    products = _zeros(x, parts, groups, columns, outputs)
    offset = torch.as_tensor(target_shift, dtype=torch.float32, device=x.device)
    given = (y.contiguous(), offset, products, read.rows, columns, outputs, positions)
    _launch(cross_kernel, (grid, groups, parts), read, given, block)
    less = y.double().reshape(len(y), groups, outputs, positions) - offset.double()[:, :, None]
    sums, energy = less.sum((0, 3)), less.square().sum((0, 2, 3))
    return Cross(read.rows, target_shift, *(found.cpu().numpy() for found in (products.sum(0), sums, energy)))


def _read(x: torch.Tensor, window: Window, shift: Array) -> _Read:
    slide = sliding(window)
    x = _with_zeros(x, slide.insert)
    spatial = tuple(x.shape[2:])
    missing = RANK - len(spatial)
    assert missing >= 0, "a map of more than three spatial axes"
    padded = tuple(b + n + e for b, n, e in zip(slide.begin, spatial, slide.end, strict=True))
    output = output_shape(padded, slide)
    ones, zeros = (1,) * missing, (0,) * missing
    shapes = (*ones, *spatial), (*ones, *output), (x.stride(0), *zeros, *x.stride()[2:]), (*ones, *slide.stride)
    distances_TA = np.array([[*zeros, *o] for o in slide.offsets]) - np.array([*zeros, *slide.begin])
    offsets_T = distances_TA @ np.array([*zeros, *x.stride()[2:]])
    channels_GC = (np.arange(x.shape[1]) * x.stride(1)).reshape(window.groups, -1, 1)
    offsets_GK = (channels_GC + offsets_T).reshape(window.groups, -1)
    packed_GK = np.broadcast_to(np.tile(_packed(distances_TA), channels_GC.shape[1]), offsets_GK.shape)
    table_G2K = np.stack([offsets_GK, packed_GK], 1)
    by_column = np.repeat(np.float32(shift).reshape(window.groups, -1), window.taps, 1)
    arrays = np.concatenate(shapes).astype(np.int32), table_G2K.astype(np.int32), by_column
    geometry, table, offset = (torch.tensor(values, device=x.device) for values in arrays)
    return _Read(x, geometry, table, offset, len(x) * math.prod(output))


def _with_zeros(x: torch.Tensor, insert: tuple[int, ...]) -> torch.Tensor:
    """Insert the zeros of a transposed window."""
    if set(insert) <= {1}:
        return x
    made = x.new_zeros(*x.shape[:2], *(i * (n - 1) + 1 for i, n in zip(insert, x.shape[2:], strict=True)))
    made[:, :, *(slice(None, None, i) for i in insert)] = x
    return made


def _packed(distances_TA: Array) -> Array:
    """Pack three distances into 8, 12 and 12 bits of an integer."""
    assert np.all((distances_TA >= [-128, -2048, -2048]) & (distances_TA <= [127, 2047, 2047])), "taps too far apart"
    depth, height, width = distances_TA.T
    return np.asarray((depth << 24) | (height & 0xFFF) << 12 | width & 0xFFF)


def _zeros(x: torch.Tensor, *shape: int) -> torch.Tensor:
    return torch.zeros(shape, dtype=torch.float64, device=x.device)


def _block(columns: int) -> int:
    return min(BLOCK, max(16, int(triton.next_power_of_2(columns))))


def _parts(read: _Read, programs: int) -> int:
    """Split rows so that each processor of the GPU has a few programs, but never below one product's rows."""
    wanted = PROGRAMS * processors(read.x.device) // max(programs, 1)
    return max(1, min(wanted, -(-read.rows // FLUSH)))


def processors(device: torch.device) -> int:
    """Count the multiprocessors of a device; the interpreter is one."""
    return int(torch.cuda.get_device_properties(device).multi_processor_count) if device.type == "cuda" else 1


def _launch(kernel: Any, grid: tuple[int, int, int], read: _Read, given: tuple[Any, ...], block: int) -> None:
    kernel[grid](
        read.x, read.geometry, read.table, read.shift, *given,
        BLOCK=block, STEP=STEP, FLUSH=FLUSH, num_warps=WARPS, num_stages=1,
    )  # fmt: skip
