"""The persistent kernel: weights are loaded into shared memory once, and all steps of a layer are one launch.

Programs share the units of a direction; all gates of a unit are computed by one program. In a step a program

1. takes the hidden state of all units from global memory into shared memory as soon as it is there (`take`),
2. multiplies: each thread has the weights of a part of a row, a word each, 16 bits of value above 16 bits of place,
   and looks the hidden state of that place up, all lanes in one load (`multiply`),
3. adds the sums of the threads of a row, the input's part and the bias (`_gather_rows`),
4. applies the cell's arithmetic and gives its units' new state to all others (`give`).

A GRU that resets before it multiplies does so twice a step. Shared memory is one pool: the hidden state of 16-bit
lanes at its front, whose room partial sums and pre-activations use once it has been read, then the weights.

Letters: N threads, K weights of a thread, U units, L lanes, R rows (slots x units). Tensors of units or rows are flat,
the lane last.
"""

from __future__ import annotations

from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.ampere import async_copy

from sartor.tools.sparse_rnn.gpu.cells import activate, clipped, gru_inside, lstm
from sartor.tools.sparse_rnn.gpu.exchange import announce, clear, give, take, wait_for
from sartor.tools.sparse_rnn.gpu.product import multiply
from sartor.tools.sparse_rnn.gpu.views import CHUNK_WORDS, FLAT, ROWS, line, word_type

COPIED = gl.constexpr(4)
"""The words that a thread copies at once at the beginning."""


@gluon.jit
def _gather_rows(sums, base, begin, threads, PART: gl.constexpr, S: gl.constexpr):
    """Return the pre-activations [R L] of a part: `base` and the sums of `threads` threads from `begin`."""
    lane = gl.arange(0, base.shape[0], base.type.layout) % S.lanes
    MOST: gl.constexpr = S.parts[PART].most
    for i in gl.static_range(MOST):
        thread = gl.minimum(begin + i, S.threads - 1)
        found = sums.gather(lane * (S.threads + S.padding) + thread, 0)
        base += gl.where(i < threads, found, 0.0)
    return base


@gluon.jit
def _rows(pointer, program, PART: gl.constexpr, S: gl.constexpr):
    """Load what a program has for each row of a part, [R L], from [programs, slots, U] at its first slot."""
    i = gl.arange(0, S.parts[PART].slots * S.units * S.lanes, line(S, 1)) // S.lanes
    return gl.load(pointer + (program * S.slots + S.parts[PART].first) * S.units + i)


@gluon.jit
def _inputs(projected, step, length, reverse, direction, first, count, samples, PART: gl.constexpr, S: gl.constexpr):
    """Load the input's part of pre-activations [R L] of a step, 0 for samples that have ended."""
    i = gl.arange(0, S.parts[PART].slots * S.units * S.lanes, line(S, 1))
    slot = S.parts[PART].first + i // (S.units * S.lanes)
    unit, sample = i // S.lanes % S.units, i % S.lanes
    row = (_time(step, length, reverse).to(gl.int64) * samples + sample) * S.directions + direction
    at = (row * S.input_slots + slot) * S.hidden + first + unit
    return gl.load(projected + at, mask=(step < length) & (unit < count) & (slot < S.input_slots), other=0.0)


@gluon.jit
def _lengths(lengths, samples, COUNT: gl.constexpr, S: gl.constexpr):
    """Load the lengths of the samples of elements whose lane comes last, 0 for lanes without a sample."""
    sample = gl.arange(0, COUNT, line(S, 1)) % S.lanes
    return gl.load(lengths + sample, mask=sample < samples, other=0)


@gluon.jit
def _time(step, length, reverse):
    """Return the time that each sample is at in a step."""
    return gl.where(reverse != 0, length - 1 - step, step)


@gluon.jit
def _slot(gates, SLOT: gl.constexpr, S: gl.constexpr):
    """Load the pre-activations [U L] of a slot."""
    return gates.index(SLOT).load(line(S, 1))


@gluon.jit
def _peephole(pointer, program, WHICH: gl.constexpr, S: gl.constexpr):
    """Load peepholes [U L] from [programs, 3, U]; 0 for cells without."""
    i = gl.arange(0, S.units * S.lanes, line(S, 1))
    if S.peepholes:
        found = gl.load(pointer + (program * 3 + WHICH) * S.units + i // S.lanes)
    else:
        found = gl.zeros([S.units * S.lanes], gl.float32, line(S, 1))
    return found


@gluon.jit
def _pre_activations(
    pool, exchange, arrivals, exchanged, base, begin, threads, first, count, status, patience,
    FIRST_CHUNK: gl.constexpr, PART: gl.constexpr, S: gl.constexpr,
):  # fmt: skip
    """Take a hidden state and leave the pre-activations of a part in shared memory; returns where, [slots, U L]."""
    N: gl.constexpr = S.threads
    thread = gl.arange(0, N, line(S, 1))
    state = pool.reinterpret(word_type(S.word_lanes), [S.view_bytes // (S.word_lanes * 2)], FLAT)
    LOOKUPS: gl.constexpr = S.view_bytes // S.unit_bytes
    lookup = pool.reinterpret(word_type(S.word_lanes), [LOOKUPS, S.plane_words], ROWS)
    sums = pool.reinterpret(gl.float32, [S.view_bytes // 4], FLAT)
    wait_for(arrivals, exchanged, thread, status, patience, S)
    take(state, exchange, exchanged, thread, status, patience, S)
    clear(exchange, exchanged, first, count, S)
    weights = pool.slice(FIRST_CHUNK, S.parts[PART].depth * N // CHUNK_WORDS)
    multiply(weights, lookup, sums, PART, S)
    rows = _gather_rows(sums, base, begin, threads, PART, S)
    A_SLOT: gl.constexpr = S.units * S.lanes * 4 // 128
    own = pool.slice(S.partial_bytes // 128 + S.parts[PART].first * A_SLOT, S.parts[PART].slots * A_SLOT)
    own.reinterpret(gl.float32, [S.parts[PART].slots * S.units * S.lanes], FLAT).store(rows)
    gates = pool.slice(S.partial_bytes // 128, S.slots * A_SLOT)
    return gates.reinterpret(gl.float32, [S.slots, S.units * S.lanes], FLAT)


@gluon.jit
def _load_weights(pool, weights, program, S: gl.constexpr):
    """Bring all weights of a program into shared memory, behind the hidden state, all of which is cleared."""
    N: gl.constexpr = S.threads
    thread = gl.arange(0, N, line(S, 1))
    STATE: gl.constexpr = S.state_bytes // 4
    state = pool.reinterpret(gl.int32, [S.view_bytes // 4], FLAT)
    for first in range(0, STATE, N):
        state.scatter(thread * 0, gl.minimum(first + thread, STATE - 1), 0)
    WHOLE: gl.constexpr = S.depth // COPIED
    REST: gl.constexpr = S.depth % COPIED
    source = weights + program.to(gl.int64) * (S.depth * N)
    if WHOLE:
        held = pool.slice(S.state_bytes // 128, WHOLE * COPIED * N // CHUNK_WORDS)
        held = held.reinterpret(gl.int32, [WHOLE, N * COPIED], FLAT)
        for k in range(WHOLE):
            i = gl.arange(0, N * COPIED, line(S, COPIED))
            async_copy.async_load(held.index(k), source + k * (N * COPIED) + i)
    if REST:
        left = pool.slice(S.state_bytes // 128 + WHOLE * COPIED * N // CHUNK_WORDS, REST * N // CHUNK_WORDS)
        left = left.reinterpret(gl.int32, [REST, N], FLAT)
        for k in range(REST):
            async_copy.async_load(left.index(k), source + (WHOLE * COPIED + k) * N + thread)
    async_copy.commit_group()
    async_copy.wait_group(0)


@gluon.jit
def recurrence(
    weights, begins, threads, bias, peepholes, places, projected, lengths, initial_hidden, initial_cell,
    exchange, arrivals, y, last_hidden, last_cell, status, steps, samples, patience, S: gl.constexpr,
):  # fmt: skip
    """Run all steps of the directions of a layer.

    With P programs of all directions, D directions, B samples, T steps, G gates, H hidden units in the order of places:

    - int32 weights [P, K N], begins and threads [P, slots, U], the first thread of a row and how many it has
    - fp32 bias [P, slots, U], peepholes [P, 3, U], int32 places [P, U], the unit of ONNX at each place
    - fp32 projected [T, B, D, G, H], int32 lengths [B], fp32 initial and last states [D, B, H] in ONNX's order
    - exchange [D, buffers, words] of 16-bit lanes, the first buffer filled; int32 arrivals, all 0
    - fp32 y [T, D, B, H], which is 0 where samples have ended; int32 status [1]
    """
    program = gl.program_id(0)
    direction = program // S.programs
    own = program % S.programs
    first = own * S.hidden // S.programs
    count = (own + 1) * S.hidden // S.programs - first
    exchange += direction * (S.buffers * S.exchange_words)
    if S.sync == "counter":
        arrivals += direction * (steps * len(S.parts) + 1)
    else:
        arrivals += direction * (2 * S.programs)
    reverse = S.reverse[0]
    if S.directions == 2:
        reverse = gl.where(direction == 1, S.reverse[1], S.reverse[0])
    pool = gl.allocate_shared_memory(gl.int32, [S.shared_bytes // 128, CHUNK_WORDS], FLAT)
    _load_weights(pool, weights, program, S)

    UL: gl.constexpr = S.units * S.lanes
    i = gl.arange(0, UL, line(S, 1))
    unit, sample = i // S.lanes, i % S.lanes
    exists = (unit < count) & (sample < samples)
    place = gl.load(places + program * S.units + unit)
    at = (direction * samples + sample) * S.hidden + place
    hidden = gl.load(initial_hidden + at, mask=exists, other=0.0)
    cell = gl.load(initial_cell + at, mask=exists, other=0.0)
    peep_i, peep_o = _peephole(peepholes, program, 0, S), _peephole(peepholes, program, 1, S)
    peep_f = _peephole(peepholes, program, 2, S)
    bias0, begin0, threads0 = _rows(bias, program, 0, S), _rows(begins, program, 0, S), _rows(threads, program, 0, S)
    length, length0 = _lengths(lengths, samples, UL, S), _lengths(lengths, samples, S.parts[0].slots * UL, S)
    if len(S.parts) == 2:
        length1 = _lengths(lengths, samples, S.parts[1].slots * UL, S)
        bias1, begin1 = _rows(bias, program, 1, S), _rows(begins, program, 1, S)
        threads1 = _rows(threads, program, 1, S)
    SECOND: gl.constexpr = S.state_bytes // 128 + S.parts[0].depth * S.threads // CHUNK_WORDS

    for step in range(steps):
        base = bias0 + _inputs(projected, step, length0, reverse, direction, first, count, samples, 0, S)
        exchanged = step * len(S.parts)
        gates = _pre_activations(
            pool, exchange, arrivals, exchanged, base, begin0, threads0, first, count, status, patience,
            S.state_bytes // 128, 0, S,
        )  # fmt: skip
        new_cell = cell
        if S.kind == "LSTM":
            new, new_cell = lstm(
                _slot(gates, 0, S), _slot(gates, 1, S), _slot(gates, 2, S), _slot(gates, 3, S), cell,
                peep_i, peep_o, peep_f, S,
            )  # fmt: skip
        elif S.kind == "RNN":
            new = activate(clipped(_slot(gates, 0, S), S), S.activations[0])
        elif S.linear_before_reset:
            new = gru_inside(
                _slot(gates, 0, S), _slot(gates, 1, S), _slot(gates, 2, S), _slot(gates, 3, S), hidden, S
            )  # fmt: skip
        else:
            base = bias1 + _inputs(projected, step, length1, reverse, direction, first, count, samples, 1, S)
            update = activate(clipped(_slot(gates, 0, S), S), S.activations[0])
            reset = activate(clipped(_slot(gates, 1, S), S), S.activations[0])
            give(reset * hidden, exchange, exchanged + 1, first, count, S)
            announce(arrivals, exchanged + 1, own, S)
            gates = _pre_activations(
                pool, exchange, arrivals, exchanged + 1, base, begin1, threads1, first, count, status, patience,
                SECOND, 1, S,
            )  # fmt: skip
            candidate = activate(clipped(_slot(gates, 2, S), S), S.activations[1])
            new = (1.0 - update) * candidate + update * hidden
        active = step < length
        hidden = gl.where(active, new, hidden)
        cell = gl.where(active, new_cell, cell)
        give(hidden, exchange, exchanged + len(S.parts), first, count, S)
        announce(arrivals, exchanged + len(S.parts), own, S)
        row = (_time(step, length, reverse).to(gl.int64) * S.directions + direction) * samples + sample
        gl.store(y + row * S.hidden + place, hidden, mask=exists & active)
    ran = length > 0
    gl.store(last_hidden + at, gl.where(ran, hidden, 0.0), mask=exists)
    gl.store(last_cell + at, gl.where(ran, cell, 0.0), mask=exists)
