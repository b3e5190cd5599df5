"""How hidden states go from each program to all others, through global memory.

Letters: N threads, U units, L lanes.
"""

from __future__ import annotations

from triton.experimental import gluon
from triton.experimental.gluon import language as gl

from sartor.tools.sparse_rnn.gpu.sync import MISSING, collect, put, wait
from sartor.tools.sparse_rnn.gpu.views import PLACE_BITS, line, word_type


@gluon.jit
def take(state, exchange, exchanged, thread, status, patience, S: gl.constexpr):
    """Bring the hidden state of exchange number `exchanged` into shared memory; the others have written it."""
    N: gl.constexpr = S.threads
    TOTAL: gl.constexpr = S.exchange_words
    COUNT: gl.constexpr = (TOTAL + N - 1) // N
    KIND: gl.constexpr = word_type(S.word_lanes)
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
def wait_for(arrivals, exchanged, thread, status, patience, S: gl.constexpr):
    """Wait until all programs have given exchange number `exchanged`, not before the second (Lamport: in `take`)."""
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
def announce(arrivals, exchanged, program, S: gl.constexpr):
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
def give(x, exchange, exchanged, first, count, S: gl.constexpr):
    """Write the states [U L] of a program's units for all programs."""
    words = _packed(x, S)
    pointers, exists = _own_words(exchange, exchanged, first, count, words.type.layout, S)
    if S.sync == "lamport":
        # Who sees these words sees the marks of `clear` too.
        gl.atomic_store(pointers, words, mask=exists, sem="release", scope="gpu")
    else:
        gl.atomic_store(pointers, words, mask=exists, sem="relaxed", scope="gpu")


@gluon.jit
def clear(exchange, exchanged, first, count, S: gl.constexpr):
    """Mark the own words of the exchange after next as missing: all have read what its buffer held."""
    if S.sync == "lamport":
        layout: gl.constexpr = line(S, 1)
        pointers, exists = _own_words(exchange, exchanged + 2, first, count, layout, S)
        missing = gl.full([S.units * S.lanes // 2], MISSING, gl.int32, layout)
        gl.atomic_store(pointers, missing, mask=exists, sem="relaxed", scope="gpu")
