"""The kernel of a layer: all steps in one call, by one thread or a team, with the weights of a block kept in its cache.

The work of a call is a row of stages: for every few steps the projection of their inputs, then the steps themselves. A
stage is done in chunks of blocks. Every member of a team goes through all stages and claims chunks, its own before
others, and waits until those of the stage are done: where a thread comes late, or never, others have done its part.
So the team needs no threads of its own, and a thread keeps to the same weights from step to step.

Samples are sorted from long to short, so that those still running are always the first.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sartor.tools.sparse_rnn.kernels import words as at
from sartor.tools.sparse_rnn.kernels.design import Design
from sartor.tools.sparse_rnn.kernels.layout import block_bytes_of, sizes_of
from sartor.tools.sparse_rnn.kernels.memory import (
    address_of,
    claim,
    clear,
    compiled,
    copy,
    count,
    counted,
    length,
    pause,
    set_word,
    word,
)
from sartor.tools.sparse_rnn.kernels.stages import make_projection, make_step


def make_kernel(design: Design) -> Callable[..., int]:
    """Return the kernel as a function for numba."""
    p = design.places
    inputs_, outputs_, x_dims, x_ = p.inputs, p.outputs, p.x_dims, p.x
    y_, last_hidden_, last_cell_ = p.y, p.last_hidden, p.last_cell
    plan, setup, work = _plan(design), _setup(design), _work(design)

    def kernel(inputs: Any, outputs: Any, dims: Any, scratch: Any, begin: int, end: int) -> Any:
        layer = address_of(inputs[inputs_])
        steps, samples = dims[x_dims], dims[x_dims + 1]
        if begin < 0:
            return plan(layer, steps, samples, dims[x_dims + 2], address_of(scratch))
        call = address_of(outputs[outputs_])
        failed = 0
        if begin == 0:
            set_word(call, at.X, address_of(inputs[x_]))
            set_word(call, at.Y, address_of(outputs[y_]) if y_ >= 0 else 0)
            set_word(call, at.LAST_HIDDEN, address_of(outputs[last_hidden_]) if last_hidden_ >= 0 else 0)
            set_word(call, at.LAST_CELL, address_of(outputs[last_cell_]) if last_cell_ >= 0 else 0)
            failed = setup(call, layer, steps, samples, inputs)
        for member in range(max(begin, 1), end):
            work(call, member - 1, address_of(scratch))
        return failed

    return kernel


def _plan(design: Design) -> Any:
    sizes = sizes_of(design)
    layout, private, team = sizes.layout, sizes.private, sizes.team
    p, directions = design.places, design.cell.directions
    kinds = ((p.y, 0), (p.last_hidden, 1), (p.last_cell, 1))
    outputs = tuple(kind for _, kind in sorted(one for one in kinds if one[0] >= 0))

    @compiled
    def plan(layer: int, steps: int, samples: int, width: int, answer: int) -> int:
        """Answer the plan query (share/runtime/kernel.py): a phase that sets up, one of the team."""
        if width != word(layer, at.INPUT):
            return 1
        hidden = word(layer, at.HIDDEN)
        set_word(layer, at.THREADS, word(answer, 0))
        members = team(layer, samples)
        set_word(answer, 0, 1 + members)
        set_word(answer, 1, private(layer, steps, samples))
        moved = word(layer, at.BYTES) + steps * samples * (width + hidden * directions) * 4
        set_word(answer, 2, moved)
        place = 3
        for kind in outputs:
            if kind == 0:
                set_word(answer, place, steps)
                place += 1
            set_word(answer, place, directions)
            set_word(answer, place + 1, samples)
            set_word(answer, place + 2, hidden)
            place += 3
        facts = (layout(0, layer, steps, samples), 1, 1, 0, members, steps * samples * word(layer, at.WORK))
        for fact in facts:
            set_word(answer, place, fact)
            place += 1
        return 0

    return plan


def _setup(design: Design) -> Any:
    layout = sizes_of(design).layout
    p, directions = design.places, design.cell.directions
    lengths_, hidden_, cell_ = p.lengths, p.hidden, p.cell
    block_bytes = block_bytes_of(design)

    @compiled
    def sort(call: int, lengths: int) -> bool:
        """Order samples from long to short; tell whether all lengths are valid."""
        steps, samples = word(call, at.STEPS), word(call, at.SAMPLES)
        order, sorted_ = word(call, at.ORDER), word(call, at.LENGTHS)
        for sample in range(samples):
            size = length(lengths, sample) if lengths != 0 else steps
            if size < 0 or size > steps:
                return False
            place = sample
            while place > 0 and word(sorted_, place - 1) < size:
                set_word(sorted_, place, word(sorted_, place - 1))
                set_word(order, place, word(order, place - 1))
                place -= 1
            set_word(sorted_, place, size)
            set_word(order, place, sample)
        return True

    @compiled
    def begin_states(call: int, layer: int, initial: int) -> None:
        samples, hidden, width = word(call, at.SAMPLES), word(layer, at.HIDDEN), word(layer, at.WIDTH)
        order, states = word(call, at.ORDER), word(call, at.STATES)
        clear(states, 2 * directions * samples * width)
        if initial != 0:
            for direction in range(directions):
                for place in range(samples):
                    source = initial + (direction * samples + word(order, place)) * hidden * 4
                    copy(states + (direction * samples + place) * width, source, hidden * 4)

    @compiled
    def begin_cells(call: int, layer: int, initial: int) -> None:
        samples, hidden, blocks = word(call, at.SAMPLES), word(layer, at.HIDDEN), word(layer, at.BLOCKS) // directions
        order, cells = word(call, at.ORDER), word(call, at.CELLS)
        clear(cells, word(layer, at.BLOCKS) * samples * block_bytes)
        if initial != 0:
            for direction in range(directions):
                for block in range(blocks):
                    here = block * block_bytes
                    size = min(block_bytes, hidden * 4 - here)
                    for place in range(samples):
                        source = initial + (direction * samples + word(order, place)) * hidden * 4 + here
                        copy(cells + ((direction * blocks + block) * samples + place) * block_bytes, source, size)

    @compiled
    def setup(call: int, layer: int, steps: int, samples: int, inputs: Any) -> int:
        """Prepare a call; a length out of range makes it one of no steps that failed."""
        layout(call, layer, steps, samples)
        clear(word(call, at.CLAIMS), word(call, at.CHUNKS) * at.LINE)
        clear(word(call, at.DONE), at.LINE)
        if not sort(call, address_of(inputs[lengths_]) if lengths_ >= 0 else 0):
            set_word(call, at.STEPS, 0)
            return 1
        begin_states(call, layer, address_of(inputs[hidden_]) if hidden_ >= 0 else 0)
        begin_cells(call, layer, address_of(inputs[cell_]) if cell_ >= 0 else 0)
        hidden = word(layer, at.HIDDEN) * 4
        for place in range(samples):
            if word(word(call, at.LENGTHS), place) == 0:
                for direction in range(directions):
                    here = (direction * samples + word(word(call, at.ORDER), place)) * hidden
                    if word(call, at.LAST_HIDDEN) != 0:
                        clear(word(call, at.LAST_HIDDEN) + here, hidden)
                    if word(call, at.LAST_CELL) != 0:
                        clear(word(call, at.LAST_CELL) + here, hidden)
        return 0

    return setup


def _work(design: Design) -> Any:
    project, step = make_projection(design), make_step(design)
    parts = len(design.form.parts)

    @compiled
    def chunk_of(call: int, member: int, turn: int) -> Any:
        """Return the chunk that a member tries in its turn: its own forwards, then others' backwards."""
        chunks, team = word(call, at.CHUNKS), word(call, at.TEAM)
        first, last = member * chunks // team, (member + 1) * chunks // team
        own = last - first
        return first + turn if turn < own else (first - 1 - (turn - own)) % chunks

    @compiled
    def run(call: int, chunk: int, part: int, first: int, last: int, base: int, active: int, scratch: int) -> None:
        blocks, chunks = word(word(call, at.LAYER), at.BLOCKS), word(call, at.CHUNKS)
        begin, end = chunk * blocks // chunks, (chunk + 1) * blocks // chunks
        if part < 0:
            project(call, begin, end, first, last, active, scratch)
        else:
            step(call, begin, end, part, first, base, active)

    @compiled
    def stage(
        call: int, number: int, member: int, part: int, first: int, last: int, base: int, active: int, scratch: int
    ) -> None:
        """Do what is left of a stage and wait for the rest."""
        chunks = word(call, at.CHUNKS)
        if word(call, at.TEAM) == 1:
            run(call, 0, part, first, last, base, active, scratch)
            return
        done, target = word(call, at.DONE), (number + 1) * chunks
        if counted(done) < target:
            for turn in range(chunks):
                chunk = chunk_of(call, member, turn)
                if claim(word(call, at.CLAIMS) + chunk * at.LINE, number):
                    run(call, chunk, part, first, last, base, active, scratch)
                    count(done)
        turn = 0
        while counted(done) < target:
            pause(turn)
            turn += 1

    @compiled
    def work(call: int, member: int, scratch: int) -> None:
        steps, samples, span = word(call, at.STEPS), word(call, at.SAMPLES), word(call, at.SPAN)
        lengths = word(call, at.LENGTHS)
        number, active = 0, samples
        for first in range(0, steps, span):
            last = min(first + span, steps)
            while active > 0 and word(lengths, active - 1) <= first:
                active -= 1
            stage(call, number, member, -1, first, last, 0, active, scratch)
            number += 1
            base = 0
            for now in range(first, last):
                while active > 0 and word(lengths, active - 1) <= now:
                    active -= 1
                for part in range(parts):
                    stage(call, number, member, part, now, now + 1, base, active, scratch)
                    number += 1
                base += active

    return work
