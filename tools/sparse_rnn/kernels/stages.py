"""The two kinds of stages: the projection of inputs for a few steps, and a step."""

from __future__ import annotations

from typing import Any

from sartor.tools.sparse_rnn.kernels import words as at
from sartor.tools.sparse_rnn.kernels.cells import pointwise
from sartor.tools.sparse_rnn.kernels.design import Design
from sartor.tools.sparse_rnn.kernels.form import Machine, ValueType
from sartor.tools.sparse_rnn.kernels.layout import block_bytes_of, row_bytes_of, sizes_of
from sartor.tools.sparse_rnn.kernels.memory import clear, compiled, copy, set_word, word
from sartor.tools.sparse_rnn.kernels.product import dense_product, lookup_product


def make_projection(design: Design) -> Any:
    """Make the stage that computes what inputs and biases add to pre-activations of the steps first..last-1."""
    machine, places, columns = design.machine, design.form.input_places, design.machine.columns
    row_bytes, weight_bytes = row_bytes_of(design), len(places) * machine.lanes * 4
    dense, sparse = _dense_rows(machine, places), _lookup_rows(machine, places, design.input_values)
    dense_input, lines, directions = design.dense_input, sizes_of(design).lines, design.cell.directions
    reverse = design.cell.direction == "reverse"

    @compiled
    def list_rows(call: int, direction: int, first: int, last: int, active: int, table: int) -> int:
        """Write the addresses of the inputs of all samples that still run, step by step; return how many."""
        samples, lengths, order = word(call, at.SAMPLES), word(call, at.LENGTHS), word(call, at.ORDER)
        width = word(word(call, at.LAYER), at.INPUT) * 4
        rows = 0
        for now in range(first, last):
            while active > 0 and word(lengths, active - 1) <= now:
                active -= 1
            for place in range(active):
                time = word(lengths, place) - 1 - now if reverse or direction == 1 else now
                set_word(table, rows, word(call, at.X) + (time * samples + word(order, place)) * width)
                rows += 1
        return rows

    @compiled
    def whole_tiles(layer: int, table: int, rows: int, copies: int) -> None:
        """Copy inputs to where whole tiles of them can be read."""
        size, width = word(layer, at.INPUT) * 4, word(layer, at.INPUT_TILES) * columns * 4
        clear(copies, rows * width)
        for row in range(rows):
            copy(copies + row * width, word(table, row), size)

    @compiled
    def multiply(layer: int, block: int, table: int, copies: int, out: int, rows: int) -> None:
        width, tiles = word(layer, at.INPUT), word(layer, at.INPUT_TILES)
        if dense_input:
            weights = word(layer, at.DENSE_INPUT) + block * width * weight_bytes
            dense(weights, width, table, out, row_bytes, rows)
        else:
            data = word(layer, at.INPUT_MATRIX) + word(word(layer, at.INPUT_MATRIX + 2), block)
            counts = word(layer, at.INPUT_MATRIX + 1) + block * tiles
            sparse(data, counts, tiles, copies, tiles * columns * 4, out, row_bytes, rows)

    @compiled
    def project(call: int, begin: int, end: int, first: int, last: int, active: int, scratch: int) -> None:
        layer, table = word(call, at.LAYER), scratch
        each = word(layer, at.BLOCKS) // directions
        copies = scratch + lines(word(call, at.ROWS) * 8)
        rows, listed = 0, -1
        for block in range(begin, end):
            if block // each != listed:
                listed = block // each
                rows = list_rows(call, listed, first, last, active, table)
                if not dense_input:
                    whole_tiles(layer, table, rows, copies)
            out = word(call, at.GATES) + block * word(call, at.ROWS) * row_bytes
            for row in range(rows):
                copy(out + row * row_bytes, word(layer, at.BIAS) + block * row_bytes, row_bytes)
            multiply(layer, block, table, copies, out, rows)

    return project


def make_step(design: Design) -> Any:
    """Make the stage of one step: a part of the recurrent product, the cell, and what goes out."""
    directions, parts = design.cell.directions, len(design.form.parts)
    row_bytes, block_bytes = row_bytes_of(design), block_bytes_of(design)
    first = _recur(design, 0)
    second = first if parts == 1 else _recur(design, 1)
    apply, give_out, clear_rest = _make_cells(design), _make_output(design), _make_rest(design)
    peephole_bytes = 3 * block_bytes if design.peepholes else 0

    @compiled
    def step(call: int, begin: int, end: int, part: int, now: int, base: int, active: int) -> None:
        layer, samples = word(call, at.LAYER), word(call, at.SAMPLES)
        width, each = word(layer, at.WIDTH), word(layer, at.BLOCKS) // directions
        states = word(call, at.STATES)
        leaves = part < parts - 1
        for block in range(begin, end):
            direction, here = block // each, block % each * block_bytes
            rows = direction * samples * width
            before = states + (now & 1) * directions * samples * width + rows
            after = states + (1 - (now & 1)) * directions * samples * width + rows
            reset = word(call, at.RESET) + rows
            out = word(call, at.GATES) + (block * word(call, at.ROWS) + base) * row_bytes
            if part == 0:
                first(layer, block, before, out, active)
            else:
                second(layer, block, reset, out, active)
            weights = word(layer, at.PEEPHOLES) + block * peephole_bytes
            for place in range(active):
                inside = place * width + here
                state = word(call, at.CELLS) + (block * samples + place) * block_bytes
                target = reset + inside if leaves else after + inside
                apply(direction, part, out + place * row_bytes, state, weights, before + inside, target)
                if not leaves:
                    give_out(call, direction, here, now, place, target, state)
            if not leaves:
                clear_rest(call, direction, here, now, active)

    return step


def _make_cells(design: Design) -> Any:
    """Make the pointwise part of any direction and part."""
    parts, directions = len(design.form.parts), design.cell.directions
    cells = [
        [pointwise(design.machine, design.cell, direction, design.peepholes, part) for part in range(parts)]
        for direction in range(directions)
    ]
    forward_first, forward_last = cells[0][0], cells[0][-1]
    backward_first, backward_last = cells[-1][0], cells[-1][-1]

    @compiled
    def apply(direction: int, part: int, gates: int, state: int, weights: int, before: int, after: int) -> None:
        if direction == 0:
            if part == 0:
                forward_first(gates, state, weights, before, after)
            else:
                forward_last(gates, state, weights, before, after)
        elif part == 0:
            backward_first(gates, state, weights, before, after)
        else:
            backward_last(gates, state, weights, before, after)

    return apply


def _make_output(design: Design) -> Any:
    directions, reverse, block_bytes = (
        design.cell.directions,
        design.cell.direction == "reverse",
        block_bytes_of(design),
    )

    @compiled
    def give_out(call: int, direction: int, here: int, now: int, place: int, hidden: int, state: int) -> None:
        """Copy a block of a sample's state to the outputs; `here` is how far into the state it lies."""
        samples, total = word(call, at.SAMPLES), word(word(call, at.LAYER), at.HIDDEN) * 4
        size, sample = min(block_bytes, total - here), word(word(call, at.ORDER), place)
        last = word(word(call, at.LENGTHS), place) - 1
        if word(call, at.Y) != 0:
            time = last - now if reverse or direction == 1 else now
            copy(word(call, at.Y) + ((time * directions + direction) * samples + sample) * total + here, hidden, size)
        if now == last:
            target = (direction * samples + sample) * total + here
            if word(call, at.LAST_HIDDEN) != 0:
                copy(word(call, at.LAST_HIDDEN) + target, hidden, size)
            if word(call, at.LAST_CELL) != 0:
                copy(word(call, at.LAST_CELL) + target, state, size)

    return give_out


def _make_rest(design: Design) -> Any:
    directions, block_bytes = design.cell.directions, block_bytes_of(design)

    @compiled
    def clear_rest(call: int, direction: int, here: int, now: int, active: int) -> None:
        """Fill the outputs of samples that have ended with zeros."""
        samples, total = word(call, at.SAMPLES), word(word(call, at.LAYER), at.HIDDEN) * 4
        if word(call, at.Y) != 0:
            for place in range(active, samples):
                row = (now * directions + direction) * samples + word(word(call, at.ORDER), place)
                clear(word(call, at.Y) + row * total + here, min(block_bytes, total - here))

    return clear_rest


def _recur(design: Design, part: int) -> Any:
    """Make the product of a block of a part of R with the states of all running samples."""
    row_bytes, matrix = row_bytes_of(design), at.MATRICES + part * at.MATRIX_WORDS
    look_up = _lookup_rows(design.machine, design.form.places(part), design.values)

    @compiled
    def recur(layer: int, block: int, states: int, out: int, rows: int) -> None:
        tiles = word(layer, at.TILES)
        data = word(layer, matrix) + word(word(layer, matrix + 2), block)
        look_up(
            data, word(layer, matrix + 1) + block * tiles, tiles, states, word(layer, at.WIDTH), out, row_bytes, rows
        )

    return recur


def _lookup_rows(machine: Machine, places: tuple[int, ...], values: ValueType) -> Any:
    """Make the product of a sparse block with any number of samples."""
    sizes = machine.lookup_rows(len(places))
    most = sizes[0]
    at_once = {rows: lookup_product(machine, places, rows, values) for rows in sizes}
    whole, one = at_once[most], at_once[1]
    three, two = at_once.get(3, one), at_once.get(2, one)

    @compiled
    def products(data: int, counts: int, tiles: int, x: int, x_step: int, out: int, out_step: int, rows: int) -> None:
        row = 0
        while rows - row >= most:
            whole(data, counts, tiles, x + row * x_step, x_step, out + row * out_step, out_step)
            row += most
        if rows - row == 3:
            three(data, counts, tiles, x + row * x_step, x_step, out + row * out_step, out_step)
        elif rows - row == 2:
            two(data, counts, tiles, x + row * x_step, x_step, out + row * out_step, out_step)
        elif rows - row == 1:
            one(data, counts, tiles, x + row * x_step, x_step, out + row * out_step, out_step)

    return products


def _dense_rows(machine: Machine, places: tuple[int, ...]) -> Any:
    """Make the product of a dense block with any number of rows."""
    most = machine.dense_rows(len(places))
    some = max(most // 2, 1)
    at_once = {rows: dense_product(machine, places, rows) for rows in {most, some, 1}}
    whole, part, one = at_once[most], at_once[some], at_once[1]

    @compiled
    def products(block: int, columns: int, table: int, out: int, out_step: int, rows: int) -> None:
        row = 0
        while rows - row >= most:
            whole(block, columns, table + row * 8, out + row * out_step, out_step)
            row += most
        while rows - row >= some:
            part(block, columns, table + row * 8, out + row * out_step, out_step)
            row += some
        while rows - row >= 1:
            one(block, columns, table + row * 8, out + row * out_step, out_step)
            row += 1

    return products
