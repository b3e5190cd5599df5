"""The persistent kernel: weights are loaded into shared memory once, and all steps of a layer are one launch.

Programs share the units of a direction; all gates of a unit are computed by one program. In a step a program

1. takes the hidden state of all units from global memory into shared memory as soon as it is there (`_take`),
2. multiplies: each thread has the weights of a part of a row, a word each, 16 bits of value above 16 bits of place,
   and looks the hidden state of that place up, all lanes in one load (`_multiply`),
3. adds the sums of the threads of a row, the input's part and the bias (`_gather_rows`),
4. applies the cell's arithmetic and gives its units' new state to all others (`_give`).

A GRU that resets before it multiplies does so twice a step. Shared memory is one pool: the hidden state of 16-bit
lanes at its front, whose room partial sums and pre-activations use once it has been read, then the weights.

Letters: N threads, V weights that a thread loads at once, Q look-ups a weight, W words of a look-up, L lanes, R rows
(slots x units). Tensors of units or rows are flat, the lane last.
"""

from __future__ import annotations

from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.ampere import async_copy

from sartor.tools.sparse_rnn.gpu.cells import activate, clipped, gru_inside, lstm
from sartor.tools.sparse_rnn.gpu.sync import MISSING, collect, put, wait

FLAT = gl.constexpr(gl.SwizzledSharedLayout(1, 1, 1, [0]))
ROWS = gl.constexpr(gl.SwizzledSharedLayout(1, 1, 1, [1, 0]))
CHUNK_WORDS = gl.constexpr(32)
"""The 32-bit words of a granule, in which the pool is cut."""

COPIED = gl.constexpr(4)
"""The words that a thread copies at once at the beginning."""

VALUE_BITS, PLACE_BITS = gl.constexpr(-65536), gl.constexpr(65535)


@gluon.constexpr_function
def _line(S, count):
    """Return the layout of a flat tensor with `count` neighbours a thread."""
    return gl.BlockedLayout([count], [32], [S.warps], [0])


@gluon.constexpr_function
def _word_type(lanes):
    return gl.int64 if lanes == 4 else gl.int32


@gluon.jit
def _single(bits, S: gl.constexpr):
    """Return the value of 16 bits that stand in the upper half of int32."""
    if S.values == "bf16":
        x = bits.to(gl.float32, bitcast=True)
    else:
        x = (bits >> 16).to(gl.int16).to(gl.float16, bitcast=True).to(gl.float32)
    return x


@gluon.jit
def _lane(words, J: gl.constexpr, S: gl.constexpr):
    """Return lane J of words as float32."""
    half = (words >> (32 * (J // 2))).to(gl.int32)
    if J % 2 == 0:
        bits = half << 16
    else:
        bits = half & VALUE_BITS
    return _single(bits, S)


@gluon.jit
def _products(tile, a0, a1, a2, a3, lookup, S: gl.constexpr):
    """Add the products of a tile of weights [N V] to the sums [N V Q, W] of the lanes of a word."""
    w = tile.load(_line(S, tile.shape[0] // S.threads))
    V: gl.constexpr = tile.shape[0]
    Q: gl.constexpr = S.planes
    pair: gl.constexpr = gl.BlockedLayout([V // S.threads, Q], [32, 1], [S.warps, 1], [1, 0])
    split: gl.constexpr = gl.BlockedLayout([V // S.threads * Q, S.plane_words], [32, 1], [S.warps, 1], [1, 0])
    q = gl.arange(0, Q, gl.SliceLayout(0, pair))
    w = gl.expand_dims(gl.convert_layout(w, gl.SliceLayout(1, pair)), 1)
    place = (w & PLACE_BITS) + gl.expand_dims(q * S.places, 0)
    value = _single(w & VALUE_BITS, S) + gl.zeros([V, Q], gl.float32, pair)
    place = gl.expand_dims(gl.convert_layout(place.reshape([V * Q]), gl.SliceLayout(1, split)), 1)
    value = gl.expand_dims(gl.convert_layout(value.reshape([V * Q]), gl.SliceLayout(1, split)), 1)
    found = lookup.gather(place + gl.zeros([V * Q, S.plane_words], gl.int32, split), 0)
    a0 += value * _lane(found, 0, S)
    a1 += value * _lane(found, 1, S)
    if S.word_lanes == 4:
        a2 += value * _lane(found, 2, S)
        a3 += value * _lane(found, 3, S)
    return a0, a1, a2, a3


@gluon.jit
def _summed(a, b, COUNT: gl.constexpr, S: gl.constexpr):
    """Add the sums of a thread: a [N V Q, W] of vectors and b [N Q, W] of what is left; [N Q W]."""
    N: gl.constexpr = S.threads
    Q: gl.constexpr = S.planes
    split = gl.sum(a.reshape([N, COUNT, Q * S.plane_words]), axis=1).reshape([N * Q * S.plane_words])
    rest = gl.convert_layout(b.reshape([N * Q * S.plane_words]), split.type.layout)
    return split + rest


@gluon.jit
def _multiply(weights, lookup, sums, PART: gl.constexpr, S: gl.constexpr):
    """Multiply a part of the weights with the hidden state and leave the sums of threads in shared memory."""
    N: gl.constexpr = S.threads
    V: gl.constexpr = S.vector
    Q: gl.constexpr = S.planes
    K: gl.constexpr = S.parts[PART].depth
    wide: gl.constexpr = gl.BlockedLayout([V * Q, S.plane_words], [32, 1], [S.warps, 1], [1, 0])
    narrow: gl.constexpr = gl.BlockedLayout([Q, S.plane_words], [32, 1], [S.warps, 1], [1, 0])
    a0 = gl.zeros([N * V * Q, S.plane_words], gl.float32, wide)
    b0 = gl.zeros([N * Q, S.plane_words], gl.float32, narrow)
    a1, a2, a3, b1, b2, b3 = a0, a0, a0, b0, b0, b0
    if K >= V:
        vectors = weights.slice(0, K // V * V * N // CHUNK_WORDS).reinterpret(gl.int32, [K // V, N * V], FLAT)
        UNROLLED: gl.constexpr = S.unrolled
        for k in range(K // V // UNROLLED):
            for u in gl.static_range(UNROLLED):
                a0, a1, a2, a3 = _products(vectors.index(k * UNROLLED + u), a0, a1, a2, a3, lookup, S)
        REST: gl.constexpr = K // V % UNROLLED
        for k in gl.static_range(REST):
            a0, a1, a2, a3 = _products(vectors.index(K // V - REST + k), a0, a1, a2, a3, lookup, S)
    if K % V:
        rest = weights.slice(K // V * V * N // CHUNK_WORDS, K % V * N // CHUNK_WORDS)
        rest = rest.reinterpret(gl.int32, [K % V, N], FLAT)
        SINGLE: gl.constexpr = K % V
        for k in gl.static_range(SINGLE):
            b0, b1, b2, b3 = _products(rest.index(k), b0, b1, b2, b3, lookup, S)
    found = gl.join(_summed(a0, b0, V, S), _summed(a1, b1, V, S))
    if S.word_lanes == 4:
        found = gl.join(found, gl.join(_summed(a2, b2, V, S), _summed(a3, b3, V, S)))
    _leave(found, sums, S)


@gluon.jit
def _leave(found, sums, S: gl.constexpr):
    """Store sums [N Q W, 2] or [N Q W, 2, 2], lanes of a word last, so that the threads of a lane are side by side."""
    N: gl.constexpr = S.threads
    found = found.reshape([N * S.lanes])
    i = gl.arange(0, N * S.lanes, found.type.layout)
    lane = i % S.lanes
    if S.word_lanes == 4:
        # Two joins: the last axis is the outer join, of lanes 0 and 1 with 2 and 3.
        lane = lane // 4 * 4 + lane % 2 * 2 + lane // 2 % 2
    # All have read the hidden state, whose room the sums take.
    sums.scatter(found, lane * (N + S.padding) + i // S.lanes, 0)


@gluon.jit
def _take(state, exchange, exchanged, thread, status, patience, S: gl.constexpr):
    """Bring the hidden state of exchange number `exchanged` into shared memory; the others have written it."""
    N: gl.constexpr = S.threads
    TOTAL: gl.constexpr = S.exchange_words
    COUNT: gl.constexpr = (TOTAL + N - 1) // N
    KIND: gl.constexpr = _word_type(S.word_lanes)
    A_PLANE: gl.constexpr = S.hidden * S.plane_words
    source = exchange + exchanged % S.buffers * TOTAL + thread
    if S.sync == "lamport":
        found = collect(source, thread, status, patience, COUNT, TOTAL, KIND)
    # All have read the pre-activations of the step before, in whose room this is written.
    gl.barrier()
    for i in gl.static_range(COUNT):
        at = thread + i * N
        if S.sync == "lamport":
            words = found[i]
        else:
            words = gl.load(source + i * N, mask=at < TOTAL, other=0, volatile=True)
        # What lies beyond goes where zeros are anyway.
        place = gl.where(at < TOTAL, at // A_PLANE * (S.places * S.plane_words) + at % A_PLANE, S.zero * S.plane_words)
        put(state, place, words)
    if S.overwrites_zeros:
        A_PLANE_OF_ZEROS: gl.constexpr = S.zero_words // S.planes
        plane, word = thread // A_PLANE_OF_ZEROS % S.planes, thread % A_PLANE_OF_ZEROS
        put(state, (plane * S.places + S.zero) * S.plane_words + word, (thread * 0).to(KIND))
    gl.barrier()


@gluon.jit
def _await(arrivals, exchanged, thread, status, patience, S: gl.constexpr):
    """Wait until all programs have given exchange number `exchanged`, not before the second (Lamport: in `_take`)."""
    if S.sync == "counter":
        mine = ((thread == 0) & (exchanged > 0)).to(gl.int32)
        wait(arrivals + exchanged + thread * 0, thread * 0 + S.programs, mine, status, patience)
    if S.sync == "flags":
        ROUNDS: gl.constexpr = (S.programs + S.threads - 1) // S.threads
        for i in gl.static_range(ROUNDS):
            program = thread + i * S.threads
            mine = ((program < S.programs) & (exchanged > 0)).to(gl.int32)
            flag = arrivals + exchanged % 2 * S.programs + gl.minimum(program, S.programs - 1)
            wait(flag, thread * 0 + exchanged, mine, status, patience)
    if S.sync != "lamport":
        gl.barrier()


@gluon.jit
def _announce(arrivals, exchanged, program, S: gl.constexpr):
    """Tell all programs that this one has given exchange number `exchanged`."""
    if S.sync != "lamport":
        gl.barrier()
    if S.sync == "counter":
        gl.atomic_add(arrivals + exchanged, 1, sem="release", scope="gpu")
    if S.sync == "flags":
        gl.atomic_xchg(arrivals + exchanged % 2 * S.programs + program, exchanged, sem="release", scope="gpu")


@gluon.jit
def _packed(x, S: gl.constexpr):
    """Return states [U L] as words of two lanes [U L / 2]."""
    if S.values == "bf16":
        bits = x.to(gl.bfloat16).to(gl.int16, bitcast=True).to(gl.int32) & PLACE_BITS
    else:
        bits = x.to(gl.float16).to(gl.int16, bitcast=True).to(gl.int32) & PLACE_BITS
    odd = gl.arange(0, S.units * S.lanes, x.type.layout) % 2
    words = gl.sum((bits << (16 * odd)).reshape([S.units * S.lanes // 2, 2]), axis=1)
    # Plus zero in place of what says that a word is missing.
    return gl.where(words == MISSING, 0, words)


@gluon.jit
def _own_words(exchange, exchanged, first, count, layout: gl.constexpr, S: gl.constexpr):
    """Return pointers to the 32-bit words of a program's units in an exchange, and which exist."""
    A_PLANE: gl.constexpr = S.plane_lanes // 2
    i = gl.arange(0, S.units * S.lanes // 2, layout)
    unit, word = i // (S.lanes // 2), i % (S.lanes // 2)
    buffer = exchanged % S.buffers * (S.planes * S.hidden * A_PLANE)
    at = buffer + (word // A_PLANE * S.hidden + first + unit) * A_PLANE + word % A_PLANE
    return exchange.to(gl.pointer_type(gl.int32), bitcast=True) + at, unit < count


@gluon.jit
def _give(x, exchange, exchanged, first, count, S: gl.constexpr):
    """Write the states [U L] of a program's units for all programs."""
    words = _packed(x, S)
    pointers, exists = _own_words(exchange, exchanged, first, count, words.type.layout, S)
    if S.sync == "lamport":
        # Who sees these words sees the marks of `_clear` too.
        gl.atomic_store(pointers, words, mask=exists, sem="release", scope="gpu")
    else:
        gl.atomic_store(pointers, words, mask=exists, sem="relaxed", scope="gpu")


@gluon.jit
def _clear(exchange, exchanged, first, count, S: gl.constexpr):
    """Mark the own words of the exchange after next as missing: all have read what its buffer held."""
    if S.sync == "lamport":
        layout: gl.constexpr = _line(S, 1)
        pointers, exists = _own_words(exchange, exchanged + 2, first, count, layout, S)
        missing = gl.full([S.units * S.lanes // 2], MISSING, gl.int32, layout)
        gl.atomic_store(pointers, missing, mask=exists, sem="relaxed", scope="gpu")


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
    i = gl.arange(0, S.parts[PART].slots * S.units * S.lanes, _line(S, 1)) // S.lanes
    return gl.load(pointer + (program * S.slots + S.parts[PART].first) * S.units + i)


@gluon.jit
def _inputs(projected, step, length, reverse, direction, first, count, samples, PART: gl.constexpr, S: gl.constexpr):
    """Load the input's part of pre-activations [R L] of a step, 0 for samples that have ended."""
    i = gl.arange(0, S.parts[PART].slots * S.units * S.lanes, _line(S, 1))
    slot = S.parts[PART].first + i // (S.units * S.lanes)
    unit, sample = i // S.lanes % S.units, i % S.lanes
    row = (_time(step, length, reverse).to(gl.int64) * samples + sample) * S.directions + direction
    at = (row * S.input_slots + slot) * S.hidden + first + unit
    return gl.load(projected + at, mask=(step < length) & (unit < count) & (slot < S.input_slots), other=0.0)


@gluon.jit
def _lengths(lengths, samples, COUNT: gl.constexpr, S: gl.constexpr):
    """Load the lengths of the samples of elements whose lane comes last, 0 for lanes without a sample."""
    sample = gl.arange(0, COUNT, _line(S, 1)) % S.lanes
    return gl.load(lengths + sample, mask=sample < samples, other=0)


@gluon.jit
def _time(step, length, reverse):
    """Return the time that each sample is at in a step."""
    return gl.where(reverse != 0, length - 1 - step, step)


@gluon.jit
def _slot(gates, SLOT: gl.constexpr, S: gl.constexpr):
    """Load the pre-activations [U L] of a slot."""
    return gates.index(SLOT).load(_line(S, 1))


@gluon.jit
def _peephole(pointer, program, WHICH: gl.constexpr, S: gl.constexpr):
    """Load peepholes [U L] from [programs, 3, U]; 0 for cells without."""
    i = gl.arange(0, S.units * S.lanes, _line(S, 1))
    if S.peepholes:
        found = gl.load(pointer + (program * 3 + WHICH) * S.units + i // S.lanes)
    else:
        found = gl.zeros([S.units * S.lanes], gl.float32, _line(S, 1))
    return found


@gluon.jit
def _pre_activations(
    pool, exchange, arrivals, exchanged, base, begin, threads, first, count, status, patience,
    FIRST_CHUNK: gl.constexpr, PART: gl.constexpr, S: gl.constexpr,
):  # fmt: skip
    """Take a hidden state and leave the pre-activations of a part in shared memory; returns where, [slots, U L]."""
    N: gl.constexpr = S.threads
    thread = gl.arange(0, N, _line(S, 1))
    state = pool.reinterpret(_word_type(S.word_lanes), [S.view_bytes // (S.word_lanes * 2)], FLAT)
    LOOKUPS: gl.constexpr = S.view_bytes // S.unit_bytes
    lookup = pool.reinterpret(_word_type(S.word_lanes), [LOOKUPS, S.plane_words], ROWS)
    sums = pool.reinterpret(gl.float32, [S.view_bytes // 4], FLAT)
    _await(arrivals, exchanged, thread, status, patience, S)
    _take(state, exchange, exchanged, thread, status, patience, S)
    _clear(exchange, exchanged, first, count, S)
    weights = pool.slice(FIRST_CHUNK, S.parts[PART].depth * N // CHUNK_WORDS)
    _multiply(weights, lookup, sums, PART, S)
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
    thread = gl.arange(0, N, _line(S, 1))
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
            i = gl.arange(0, N * COPIED, _line(S, COPIED))
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
    i = gl.arange(0, UL, _line(S, 1))
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
            _give(reset * hidden, exchange, exchanged + 1, first, count, S)
            _announce(arrivals, exchanged + 1, own, S)
            gates = _pre_activations(
                pool, exchange, arrivals, exchanged + 1, base, begin1, threads1, first, count, status, patience,
                SECOND, 1, S,
            )  # fmt: skip
            candidate = activate(clipped(_slot(gates, 2, S), S), S.activations[1])
            new = (1.0 - update) * candidate + update * hidden
        active = step < length
        hidden = gl.where(active, new, hidden)
        cell = gl.where(active, new_cell, cell)
        _give(hidden, exchange, exchanged + len(S.parts), first, count, S)
        _announce(arrivals, exchanged + len(S.parts), own, S)
        row = (_time(step, length, reverse).to(gl.int64) * S.directions + direction) * samples + sample
        gl.store(y + row * S.hidden + place, hidden, mask=exists & active)
    ran = length > 0
    gl.store(last_hidden + at, gl.where(ran, hidden, 0.0), mask=exists)
    gl.store(last_cell + at, gl.where(ran, cell, 0.0), mask=exists)
