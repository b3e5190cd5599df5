"""Packing: from coded matrices to what kernels read, never through a dense matrix.

Letters: D directions, G gates, H hidden units, I inputs, V vectors of a block, L lanes, N non-zeros.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sartor.tools.sparse_rnn.encode import Coded, positions
from sartor.tools.sparse_rnn.kernels import words
from sartor.tools.sparse_rnn.kernels.form import Form, Machine, form_of
from sartor.tools.sparse_rnn.oracle import GATES, Cell

Array = NDArray[Any]


@dataclass(frozen=True)
class Tiles:
    """A sparse matrix in tiles: their bytes, numbers of slots [blocks, tiles], and where blocks begin [blocks]."""

    data: NDArray[np.uint8]
    counts: NDArray[np.uint8]
    starts: NDArray[np.int64]
    nonzeros: int
    width: int
    """The places of a slot, V L."""

    @property
    def fill(self) -> float:
        """The share of places in slots that hold a weight."""
        return self.nonzeros / max(self.places, 1)

    @property
    def places(self) -> int:
        """The places in slots."""
        return int(self.counts.sum(dtype=np.int64)) * self.width


@dataclass(frozen=True)
class Packed:
    """A packed layer.

    `input` is W, in tiles or dense [blocks, I, V, L]; bias is [blocks, units, slots, L], peepholes are [blocks, 3,
    units, L].
    """

    hidden: int
    inputs: int
    parts: tuple[Tiles, ...]
    input: Tiles | Array
    bias: Array
    peepholes: Array | None

    @property
    def bytes(self) -> int:
        """The bytes that a call reads of it."""
        sparse = [*self.parts, *([self.input] if isinstance(self.input, Tiles) else [])]
        dense = [self.bias, *([] if isinstance(self.input, Tiles) else [self.input])]
        return sum(one.data.nbytes + one.counts.nbytes for one in sparse) + sum(one.nbytes for one in dense)


def pack(
    cell: Cell, machine: Machine, r: Coded, w: Coded | Array, bias: Array | None, peepholes: Array | None
) -> Packed:
    """Pack a layer of r [D, G H, H], w [D, G H, I], bias [D, 2 G H] and peepholes [D, 3 H] for an instruction set."""
    form, hidden, inputs = form_of(cell), r.shape[2], w.shape[2]
    parts = tuple(
        _tiles(r, form.units, form.gates(part), len(GATES[cell.kind]), machine) for part in range(len(form.parts))
    )
    gates = tuple(range(len(GATES[cell.kind])))
    packed = (
        _tiles(w, form.units, gates, len(gates), machine) if isinstance(w, Coded) else _dense(w, form, hidden, machine)
    )
    return Packed(
        hidden, inputs, parts, packed, _bias(bias, cell, form, hidden, machine),
        None if peepholes is None else _blocks(peepholes.reshape(cell.directions, 3, hidden), form.units, machine),
    )  # fmt: skip


def _tiles(coded: Coded, units: int, gates: tuple[int, ...], total: int, machine: Machine) -> Tiles:
    """Lay out the rows of some gates of a matrix [D, total H, columns]."""
    directions, rows, columns = coded.shape
    hidden, lanes, vectors = rows // total, machine.lanes, units * len(gates)
    blocks, tiles = blocks_of(hidden, units, machine), -(-columns // machine.columns)
    row, column = np.divmod(positions(coded), columns)
    gate = row % rows // hidden
    order = np.full(total, -1)
    order[list(gates)] = range(len(gates))
    stays = (coded.values != 0) & (order[gate] >= 0)
    row, column, gate, values = row[stays], column[stays], gate[stays], coded.values[stays]
    unit, direction, tile = row % hidden, row // rows, column // machine.columns
    key = row * tiles + tile
    in_tile = np.bincount(key, minlength=directions * rows * tiles)
    rank = np.arange(len(key)) - (np.cumsum(in_tile) - in_tile)[key]
    slots = _most(in_tile.reshape(directions, total, hidden, tiles)[:, list(gates)], blocks, units * lanes)
    block = direction * blocks + unit // (units * lanes)
    vector = unit % (units * lanes) // lanes * len(gates) + order[gate]
    size = values.dtype.itemsize
    slot_bytes = vectors * lanes * (size + 1)
    before = (np.cumsum(slots, dtype=np.int64) - slots.ravel()).reshape(slots.shape)
    place = (before[block, tile] + rank) * slot_bytes + vector * lanes * size + unit % lanes * size
    data = np.zeros(int(slots.sum(dtype=np.int64)) * slot_bytes, np.uint8)
    data.view(values.dtype)[place // size] = values
    in_slot = vectors * lanes * size + vector * lanes + unit % lanes
    data[(before[block, tile] + rank) * slot_bytes + in_slot] = column % machine.columns
    counts = slots.astype(np.uint8)
    return Tiles(data, counts, block_starts(counts, slot_bytes), len(values), vectors * lanes)


def blocks_of(hidden: int, units: int, machine: Machine) -> int:
    """Return how many blocks of vectors of units a direction takes."""
    return -(-hidden // (units * machine.lanes))


def block_starts(counts: NDArray[np.uint8], slot_bytes: int) -> NDArray[np.int64]:
    """Return the bytes at which blocks begin, of the numbers of slots [blocks, tiles]."""
    slots = counts.sum(1, dtype=np.int64)
    return np.asarray((np.cumsum(slots) - slots) * slot_bytes)


def _most(in_tile: Array, blocks: int, size: int) -> NDArray[np.int64]:
    """Return the slots [D blocks, tiles] that the longest row of each block and tile [D, gates, H, tiles] takes."""
    directions, gates, hidden, tiles = in_tile.shape
    padded = np.zeros((directions, gates, blocks * size, tiles), np.int64)
    padded[:, :, :hidden] = in_tile
    found = padded.reshape(directions, gates, blocks, size, tiles).max((1, 3))
    return np.asarray(found.reshape(directions * blocks, tiles))


def _blocks(rows: Array, units: int, machine: Machine) -> Array:
    """Lay out [D, K, H, ...] as [D blocks, K, units, L, ...]."""
    directions, kinds, hidden = rows.shape[:3]
    blocks = blocks_of(hidden, units, machine)
    padded = np.zeros((directions, kinds, blocks * units * machine.lanes, *rows.shape[3:]), np.float32)
    padded[:, :, :hidden] = rows
    split = padded.reshape(directions, kinds, blocks, units, machine.lanes, *rows.shape[3:])
    return np.ascontiguousarray(
        split.swapaxes(1, 2).reshape(directions * blocks, kinds, units, machine.lanes, *rows.shape[3:])
    )


def _dense(w: Array, form: Form, hidden: int, machine: Machine) -> Array:
    """Lay out w [D, G H, I] as [D blocks, I, units G, L]."""
    directions, rows, inputs = w.shape
    blocks = _blocks(w.reshape(directions, rows // hidden, hidden, inputs), form.units, machine)
    return np.ascontiguousarray(blocks.transpose(0, 4, 2, 1, 3))


def _bias(bias: Array | None, cell: Cell, form: Form, hidden: int, machine: Machine) -> Array:
    """Lay out what a slot starts from: the bias of W, of R, or their sum."""
    gates = len(GATES[cell.kind])
    both = np.zeros((cell.directions, 2, gates, hidden), np.float32)
    if bias is not None:
        both[:] = bias.reshape(both.shape)
    of: Mapping[str, slice] = {"W": slice(0, 1), "R": slice(1, 2), "WR": slice(0, 2)}
    slots = np.stack([both[:, of[which], gate].sum(1) for which, gate in form.bias], axis=1)
    return np.ascontiguousarray(_blocks(slots, form.units, machine).swapaxes(1, 2))


def record(packed: Packed, machine: Machine, work: int) -> NDArray[np.int64]:
    """Return the words that a kernel finds a layer by; the arrays have to outlive them."""
    found = np.zeros(words.LAYER_WORDS, np.int64)
    tiles = packed.parts[0].counts.shape[1]
    units = packed.bias.shape[1] * machine.lanes
    width = max(tiles * machine.columns, -(-packed.hidden // units) * units) * 4
    found[words.HIDDEN], found[words.INPUT], found[words.BLOCKS] = packed.hidden, packed.inputs, len(packed.bias)
    found[words.TILES], found[words.WIDTH] = tiles, -(-width // words.LINE) * words.LINE
    found[words.BIAS] = packed.bias.ctypes.data
    found[words.PEEPHOLES] = 0 if packed.peepholes is None else packed.peepholes.ctypes.data
    matrices = dict(enumerate(packed.parts, start=1))
    if isinstance(packed.input, Tiles):
        matrices[0] = packed.input
        found[words.INPUT_TILES] = packed.input.counts.shape[1]
    else:
        found[words.DENSE_INPUT] = packed.input.ctypes.data
    for place, matrix in matrices.items():
        first = words.INPUT_MATRIX + place * words.MATRIX_WORDS
        found[first : first + 3] = [one.ctypes.data for one in (matrix.data, matrix.counts, matrix.starts)]
    found[words.BYTES], found[words.WORK] = packed.bytes, work
    return found
