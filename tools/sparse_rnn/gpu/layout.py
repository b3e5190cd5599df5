"""Packing for GPUs: which program and thread has which weight, and the arrays that a launch reads.

Letters: D directions, G gates, H hidden units, P programs of all directions of a launch, N threads, K slots, U units.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from sartor.tools.sparse_rnn.encode import Coded
from sartor.tools.sparse_rnn.gpu.banks import Conflicts, conflicts
from sartor.tools.sparse_rnn.gpu.order import Order, arrange
from sartor.tools.sparse_rnn.gpu.shape import Part, Shape, Values
from sartor.tools.sparse_rnn.kernels.form import form_of
from sartor.tools.sparse_rnn.oracle import GATES, Cell
from sartor.tools.sparse_rnn.pattern import WIDTHS

Array = NDArray[Any]


MOST_SHARING = 32
"""The most threads that share a row: their sums are added one after the other."""


@dataclass(frozen=True)
class Entries:
    """The non-zeros of r [D, G H, H], in order: indices and values."""

    direction: Array
    gate: Array
    unit: Array
    column: Array
    value: Array
    hidden: int

    def of(self, keep: Array | slice) -> Entries:
        """Return those that a mask, indices or a slice tell."""
        return Entries(
            self.direction[keep], self.gate[keep], self.unit[keep], self.column[keep], self.value[keep], self.hidden
        )


@dataclass(frozen=True)
class Packed:
    """What a launch reads, as `recurrence` has it; `units` [H] are those of ONNX in the order of places.

    `reads` are those of look-ups in shared memory.
    """

    shape: Shape
    weights: NDArray[np.int32]
    begins: NDArray[np.int32]
    threads: NDArray[np.int32]
    bias: NDArray[np.float32]
    peepholes: NDArray[np.float32]
    places: NDArray[np.int32]
    units: NDArray[np.int64]
    order: Order
    reads: Conflicts


def entries_of(r: Coded, gates: int) -> Entries:
    """Return the non-zeros of a coded matrix [D, G H, H], without making it dense."""
    _, rows, hidden = r.shape
    flat = np.cumsum(r.gaps, dtype=np.int64) - 1
    stays = r.values != 0
    row, column = np.divmod(flat[stays], hidden)
    direction, row = np.divmod(row, rows)
    assert rows == gates * hidden
    return Entries(direction, row // hidden, row % hidden, column, r.values[stays], hidden)


def places_of(entries: Entries, banks: int) -> tuple[Array, bool]:
    """Return a place [H] for each unit, and whether every row then has equally many weights in each bank.

    Where groups of columns have equally many weights in a row, as `balanced` patterns have, and are a multiple of the
    banks, the units of a group lie in one bank: group after group, bank after bank.
    """
    hidden = entries.hidden
    for width in WIDTHS:
        if hidden % (width * banks):
            continue
        group, inside = np.divmod(np.arange(hidden), width)
        places = (group // banks * width + inside) * banks + group % banks
        if _is_even(entries, places % banks, banks):
            return places, True
    return np.arange(hidden), False


def _is_even(entries: Entries, bank: Array, banks: int) -> bool:
    row = (entries.direction * (entries.gate.max(initial=0) + 1) + entries.gate) * entries.hidden + entries.unit
    counts = np.bincount(row * banks + bank[entries.column], minlength=(row.max(initial=0) + 1) * banks)
    counts = counts.reshape(-1, banks)
    return bool((counts == counts[:, :1]).all())


def row_counts(entries: Entries, cell: Cell, places: Array, directions: tuple[int, ...], programs: int) -> list[Array]:
    """Return, a part, the weights of each row [P, rows of a program], 0 for rows that a program lacks."""
    found = []
    bounds = np.arange(programs + 1) * entries.hidden // programs
    width = int(np.diff(bounds).max())
    for part in form_of(cell).parts:
        counts = np.zeros((len(directions), programs, len(part), width), np.int64)
        for i, direction in enumerate(directions):
            for j, (gate, _) in enumerate(part):
                mine = entries.unit[(entries.direction == direction) & (entries.gate == gate)]
                of_place = np.bincount(places[mine], minlength=entries.hidden)
                for program in range(programs):
                    one = of_place[bounds[program] : bounds[program + 1]]
                    counts[i, program, j, : len(one)] = one
        found.append(counts.reshape(len(directions) * programs, -1))
    return found


def depth_for(counts: Array, threads: int) -> int | None:
    """Return the least K at which the rows of each program [P, rows] find threads enough; None with too many rows."""
    if (counts > 0).sum(1).max() > threads:
        return None
    high = max(int(counts.max(initial=0)), 1)
    low = -(-high // MOST_SHARING)
    while low < high:
        middle = (low + high) // 2
        fits = (-(-counts // middle)).sum(1).max() <= threads
        low, high = (low, middle) if fits else (middle + 1, high)
    return low


def most_threads(counts: Array, depth: int) -> int:
    """Return the most threads that a row has at K slots, at least one."""
    return max(int(-(-counts.max(initial=0) // depth)), 1)


def pack(
    shape: Shape, entries: Entries, cell: Cell, places: Array, order: Order, directions: tuple[int, ...],
    bias: Array | None, peepholes: Array | None,
) -> Packed:  # fmt: skip
    """Pack the weights of some directions for a shape; bias is [D, 2 G H], peepholes [D, 3 H]."""
    programs = shape.directions * shape.programs
    units = np.argsort(places)
    words = np.zeros((programs, shape.depth * shape.threads), np.int32)
    begins, threads = (np.zeros((programs, shape.slots, shape.units), np.int32) for _ in range(2))
    reads = Conflicts(0, 0)
    mine = [_by_place(entries.of(entries.direction == direction), places) for direction in directions]
    where = [places[one.unit] for one in mine]
    for program in range(programs):
        index, own = divmod(program, shape.programs)
        first = shape.first_unit(own)
        bounds = np.searchsorted(where[index], [first, shape.first_unit(own + 1)])
        inside = mine[index].of(slice(*bounds))
        before = 0
        for part, gates in zip(shape.parts, form_of(cell).parts, strict=True):
            slots, values, rows = _part(shape, part, dict(gates), inside, places, first, order)
            begin, count = rows
            begins[program, part.first : part.first + part.slots] = begin
            threads[program, part.first : part.first + part.slots] = count
            size = part.depth * shape.threads
            words[program, before : before + size] = _words(shape, slots, values)
            found = conflicts(slots.T, shape.unit_bytes)
            reads = Conflicts(reads.reads + found.reads, reads.ideal + found.ideal)
            before += size
    return Packed(
        shape, words, begins, threads, _slot_biases(shape, cell, bias, units, directions),
        _peepholes(shape, peepholes, units, directions), _by_program(shape, units[None], 1)[:, 0].astype(np.int32),
        units, order, reads,
    )  # fmt: skip


def _by_place(entries: Entries, places: Array) -> Entries:
    """Return non-zeros row after row, in the order of places."""
    return entries.of(np.argsort(places[entries.unit], kind="stable"))


def _part(
    shape: Shape, part: Part, slot_of: dict[int, int], inside: Entries, places: Array, first: int, order: Order
) -> tuple[Array, Array, tuple[Array, Array]]:
    """Arrange the weights of a part of a program: places and values [N, K], and the threads of rows."""
    belongs = inside.of(np.isin(inside.gate, list(slot_of)))
    slot = np.array([slot_of.get(gate, 0) for gate in range(max(slot_of) + 1)])[belongs.gate] - part.first
    row = slot * shape.units + places[belongs.unit] - first
    by = np.argsort(row, kind="stable")
    counts = np.bincount(row, minlength=part.slots * shape.units)
    starts = np.r_[0, np.cumsum(counts)]
    needed = -(-counts // part.depth)
    begins = np.r_[0, np.cumsum(needed)]
    column, value = places[belongs.column[by]], belongs.value[by]
    chosen = arrange(order, starts, begins, column, shape.threads, part.depth, shape.banks)
    some = np.maximum(chosen, 0)
    held = np.append(column, 0)[some] if len(column) else some
    slots = np.where(chosen >= 0, held, shape.zero - 1 - chosen)
    values = np.where(chosen >= 0, np.append(value, 0)[some] if len(value) else 0, 0)
    grid = (part.slots, shape.units)
    return slots, values, (begins[:-1].reshape(grid), needed.reshape(grid))


def _words(shape: Shape, slots: Array, values: Array) -> Array:
    """Return places and values [N, K] as the words that threads load: runs of V slots, then single ones."""
    words = (bits_of(values, shape.values).astype(np.uint32) << 16 | slots.astype(np.uint32)).view(np.int32)
    whole = words.shape[1] // shape.vector * shape.vector
    vectors = words[:, :whole].reshape(shape.threads, -1, shape.vector).transpose(1, 0, 2)
    return np.concatenate([vectors.ravel(), words[:, whole:].T.ravel()])


def bits_of(values: Array, kind: Values) -> NDArray[np.uint16]:
    """Round values to 16 bits and return these."""
    dtype = np.float16 if kind == "fp16" else ml_dtypes.bfloat16
    return np.ascontiguousarray(values.astype(np.float32).astype(dtype)).view(np.uint16)


def _by_program(shape: Shape, rows: Array, kinds: int) -> Array:
    """Lay out [directions x kinds, H], in the order of places, as [P, kinds, U]."""
    split = rows.reshape(-1, kinds, shape.hidden)
    directions = len(split)
    found = np.zeros((shape.directions, shape.programs, kinds, shape.units), rows.dtype)
    for program in range(shape.programs):
        first, last = shape.first_unit(program), shape.first_unit(program + 1)
        found[:, program, :, : last - first] = split[:, :, first:last] if directions > 1 else split[0, :, first:last]
    return found.reshape(shape.directions * shape.programs, kinds, shape.units)


def _slot_biases(
    shape: Shape, cell: Cell, bias: Array | None, units: Array, directions: tuple[int, ...]
) -> NDArray[np.float32]:
    """Lay out what a slot starts from: the bias of W, of R, or their sum."""
    gates = len(GATES[cell.kind])
    both = np.zeros((len(directions), 2, gates, shape.hidden), np.float32)
    if bias is not None:
        both[:] = bias[list(directions)].reshape(both.shape)
    of = {"W": slice(0, 1), "R": slice(1, 2), "WR": slice(0, 2)}
    slots = np.stack([both[:, of[which], gate].sum(1) for which, gate in form_of(cell).bias], axis=1)
    return _by_program(shape, np.ascontiguousarray(slots[..., units]).reshape(-1, shape.hidden), shape.slots)


def _peepholes(shape: Shape, peepholes: Array | None, units: Array, directions: tuple[int, ...]) -> NDArray[np.float32]:
    held = np.zeros((len(directions), 3, shape.hidden), np.float32)
    if peepholes is not None:
        held[:] = peepholes[list(directions)].reshape(held.shape)
    return _by_program(shape, held[..., units].reshape(-1, shape.hidden), 3)
