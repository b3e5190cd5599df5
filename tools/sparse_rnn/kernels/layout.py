"""What a call needs of memory, and how many threads share it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from sartor.tools.sparse_rnn.kernels import words as at
from sartor.tools.sparse_rnn.kernels.design import Design
from sartor.tools.sparse_rnn.kernels.memory import compiled, set_word, word

SPAN_ROWS = 48
"""About how many rows are projected at once: enough to use what is loaded of W, few enough to stay in cache."""

CHUNKS_A_MEMBER = 4
NANOSECONDS_A_MEMBER = 6000
"""The least work of a step for each member of a team; waiting for each other costs about one."""


def row_bytes_of(design: Design) -> int:
    """Return the bytes of the pre-activations of a sample in a block."""
    return design.form.units * design.form.slots * design.machine.lanes * 4


def block_bytes_of(design: Design) -> int:
    """Return the bytes of the state of a sample in a block."""
    return design.form.units * design.machine.lanes * 4


def sizes_of(design: Design) -> SimpleNamespace:
    """Return the functions that tell the bytes of things."""
    row_bytes, block_bytes, columns = row_bytes_of(design), block_bytes_of(design), design.machine.columns
    directions, parts = design.cell.directions, len(design.form.parts)
    dense_input = design.dense_input

    @compiled
    def span(steps: int, samples: int) -> int:
        return max(min(steps, SPAN_ROWS // max(samples, 1)), 1)

    @compiled
    def team(layer: int, samples: int) -> Any:
        useful = min(word(layer, at.WORK) * samples // NANOSECONDS_A_MEMBER, word(layer, at.BLOCKS))
        return max(min(useful, word(layer, at.THREADS)), 1)

    @compiled
    def lines(size: int) -> int:
        return (size + 63) // 64 * 64

    @compiled
    def layout(call: int, layer: int, steps: int, samples: int) -> int:
        """Set the addresses of a call; return where they end."""
        rows = span(steps, samples) * samples
        members = team(layer, samples)
        chunks = min(word(layer, at.BLOCKS), members * CHUNKS_A_MEMBER) if members > 1 else 1
        states = directions * samples * word(layer, at.WIDTH)
        end = call + at.CALL_BYTES
        values = (
            (at.ORDER, samples * 8),
            (at.LENGTHS, samples * 8),
            (at.STATES, states * 2),
            (at.CELLS, word(layer, at.BLOCKS) * samples * block_bytes),
            (at.RESET, states if parts > 1 else 0),
            (at.GATES, word(layer, at.BLOCKS) * rows * row_bytes),
            (at.CLAIMS, chunks * at.LINE),
            (at.DONE, at.LINE),
        )
        for place, size in values:
            if call != 0:
                set_word(call, place, end)
            end += lines(size)
        if call != 0:
            set_word(call, at.LAYER, layer)
            set_word(call, at.STEPS, steps)
            set_word(call, at.SAMPLES, samples)
            set_word(call, at.TEAM, members)
            set_word(call, at.CHUNKS, chunks)
            set_word(call, at.SPAN, span(steps, samples))
            set_word(call, at.ROWS, rows)
        return end

    @compiled
    def private(layer: int, steps: int, samples: int) -> Any:
        """Return the bytes of scratch: addresses of rows, and copies of inputs in whole tiles."""
        rows = span(steps, samples) * samples
        copies = 0 if dense_input else rows * word(layer, at.INPUT_TILES) * columns * 4
        return lines(rows * 8) + copies

    return SimpleNamespace(span=span, team=team, lines=lines, layout=layout, private=private)
