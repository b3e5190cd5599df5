"""The sparse product: weights and the hidden state in shared memory, sums of threads into shared memory.

Letters: N threads, V weights that a thread loads at once, Q look-ups a weight, W words of a look-up, L lanes.
"""

from __future__ import annotations

from triton.experimental import gluon
from triton.experimental.gluon import language as gl

from sartor.tools.sparse_rnn.gpu.views import CHUNK_WORDS, FLAT, PLACE_BITS, VALUE_BITS, line


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
    w = tile.load(line(S, tile.shape[0] // S.threads))
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
def multiply(weights, lookup, sums, PART: gl.constexpr, S: gl.constexpr):
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
