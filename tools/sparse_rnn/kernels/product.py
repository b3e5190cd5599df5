"""Products of a block's weights with vectors of samples, added to its pre-activations.

Sparse weights come in tiles of `columns` columns. A tile is a number of slots; a slot has, for each of V vectors of
units, L values and L columns within the tile, of one byte each. The columns of a sample stand in registers and are
looked up there, so that a slot costs a load, a look-up and a multiply-add for V L weights.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir

from sartor.tools.sparse_rnn.kernels.form import Machine, ValueType
from sartor.tools.sparse_rnn.kernels.vector import BYTE, HALF, LONG, SINGLE, WORD, Writer, instruction, size_of

_VALUES = {"f16": HALF, "f32": SINGLE}


def slot_bytes(vectors: int, machine: Machine, values: ValueType) -> int:
    """Return the bytes of a slot."""
    return vectors * machine.lanes * (size_of(_VALUES[values]) + 1)


def lookup_product(machine: Machine, places: tuple[int, ...], rows: int, values: ValueType) -> Any:
    """Make the product of a sparse block with `rows` samples.

    The function takes the addresses of tiles, of their numbers of slots (one byte each), the number of tiles, the
    address of the first sample [tiles * columns] and the bytes to the next, the address of the first pre-activations,
    to which it adds, and the bytes to the next.
    """
    lanes, width = machine.lanes, size_of(SINGLE)

    def body(w: Writer, data: Any, counts: Any, tiles: Any, x: Any, x_step: Any, out: Any, out_step: Any) -> None:
        samples = [w.at(x, w.builder.mul(x_step, LONG(row))) for row in range(rows)]
        sums = [w.at(out, w.builder.mul(out_step, LONG(row))) for row in range(rows)]
        kind = ir.VectorType(SINGLE, lanes)
        targets = [w.at(base, place * lanes * width) for base in sums for place in places]

        def tile(turn: Any, carried: list[Any]) -> list[Any]:
            here = w.scaled(turn, machine.columns * width)
            tables = [_table(w, machine, w.at(sample, here)) for sample in samples]
            slots = w.builder.zext(w.load(w.at(counts, turn), BYTE), LONG)
            return w.repeat(slots, carried, lambda _, values_: slot(tables, values_))

        def slot(tables: list[Any], carried: list[Any]) -> list[Any]:
            data, *totals = carried
            for vector in range(len(places)):
                weights, columns = _slot(w, machine, values, len(places), vector, data)
                for row, table in enumerate(tables):
                    index = row * len(places) + vector
                    totals[index] = w.multiply_add(weights, _look_up(w, machine, table, columns), totals[index])
            return [w.at(data, slot_bytes(len(places), machine, values)), *totals]

        _, *totals = w.repeat(tiles, [data, *(w.load(target, kind) for target in targets)], tile)
        for total, target in zip(totals, targets, strict=True):
            w.store(total, target)

    return instruction(7, body)


def _slot(w: Writer, machine: Machine, values: ValueType, vectors: int, vector: int, data: Any) -> tuple[Any, Any]:
    """Load values and columns of one vector of a slot."""
    lanes, element = machine.lanes, _VALUES[values]
    value = w.load(w.at(data, vector * lanes * size_of(element)), ir.VectorType(element, lanes))
    if values == "f16":
        value = w.builder.fpext(value, ir.VectorType(SINGLE, lanes))
    columns = w.load(w.at(data, vectors * lanes * size_of(element) + vector * lanes), ir.VectorType(BYTE, lanes))
    return value, w.builder.zext(columns, ir.VectorType(WORD, lanes))


def _table(w: Writer, machine: Machine, address: Any) -> Any:
    """Load the columns of a sample that a tile reaches; the portable look-up reads them from memory."""
    if machine.name == "portable":
        return address
    kind = ir.VectorType(SINGLE, machine.lanes)
    return [w.load(w.at(address, offset * 4), kind) for offset in range(0, machine.columns, machine.lanes)]


def _look_up(w: Writer, machine: Machine, table: Any, columns: Any) -> Any:
    kind = ir.VectorType(SINGLE, machine.lanes)
    if machine.name == "avx512":
        return w.call("llvm.x86.avx512.vpermi2var.ps.512", kind, [table[0], columns, table[1]])
    if machine.name == "avx2":
        return w.call("llvm.x86.avx2.permps", kind, [table[0], columns])
    found = ir.Constant(kind, ir.Undefined)
    for lane in range(machine.lanes):
        column = w.builder.zext(w.builder.extract_element(columns, WORD(lane)), LONG)
        found = w.builder.insert_element(found, w.load(w.at(table, w.scaled(column, 4)), SINGLE), WORD(lane))
    return found


def dense_product(machine: Machine, places: tuple[int, ...], rows: int) -> Any:
    """Make the product of a dense block [columns, V, L] with `rows` samples.

    The function takes the address of the block, the number of columns, the address of the samples' addresses, that of
    the first pre-activations, to which it adds, and the bytes to the next.
    """
    lanes, vectors = machine.lanes, len(places)
    kind = ir.VectorType(SINGLE, lanes)

    def body(w: Writer, block: Any, columns: Any, table: Any, out: Any, out_step: Any) -> None:
        samples = [w.load(w.at(table, row * 8), LONG) for row in range(rows)]
        sums = [w.at(out, w.builder.mul(out_step, LONG(row))) for row in range(rows)]
        targets = [w.at(base, place * lanes * 4) for base in sums for place in places]

        def column(turn: Any, totals: list[Any]) -> list[Any]:
            here = w.at(block, w.scaled(turn, vectors * lanes * 4))
            weights = [w.load(w.at(here, vector * lanes * 4), kind) for vector in range(vectors)]
            for row, sample in enumerate(samples):
                x = w.spread(w.load(w.at(sample, w.scaled(turn, 4)), SINGLE), lanes)
                for vector, weight in enumerate(weights):
                    index = row * vectors + vector
                    totals[index] = w.multiply_add(weight, x, totals[index])
            return totals

        totals = w.repeat(columns, [w.load(target, kind) for target in targets], column)
        for total, target in zip(totals, targets, strict=True):
            w.store(total, target)

    return instruction(5, body)
