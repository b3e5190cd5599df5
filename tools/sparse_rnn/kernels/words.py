"""The words of two records in memory: what is packed of a layer, and what one call works on. An index each.

A matrix in tiles is three words: addresses of its tiles, of their numbers of slots [blocks, tiles] and of the bytes
[blocks] at which those of a block begin. Blocks are counted over all directions.
"""

from __future__ import annotations

# Of a packed layer: sizes, then addresses.
HIDDEN, INPUT, BLOCKS = 0, 1, 2
TILES, INPUT_TILES, WIDTH = 4, 5, 6
"""Tiles a row of R and of W, and the bytes of a sample's hidden state, whole tiles and blocks."""
BIAS, PEEPHOLES, DENSE_INPUT = 7, 8, 9
"""[blocks, units, slots, L], [blocks, 3, units, L], [blocks, I, V, L]; 0 where there is none."""
INPUT_MATRIX, MATRICES, MATRIX_WORDS = 10, 13, 3
"""W in tiles, then the parts of R."""
BYTES, WORK, THREADS = 19, 20, 21
"""Bytes of all weights, nanoseconds of a step of one sample, and threads of the session."""
LAYER_WORDS = 22

# Of a call.
LAYER, STEPS, SAMPLES, TEAM, CHUNKS, SPAN, ROWS = 0, 1, 2, 3, 4, 5, 6
"""`SPAN` steps are projected at once, `ROWS` rows of pre-activations have room."""
X, Y, LAST_HIDDEN, LAST_CELL = 7, 8, 9, 10
ORDER, LENGTHS, STATES, CELLS, RESET, GATES, CLAIMS, DONE = 11, 12, 13, 14, 15, 16, 17, 18
"""Samples from the longest to the shortest, their lengths, then states: two of [D, B, width], [blocks, B, units, L],
[D, B, width], pre-activations [blocks, rows, units, slots, L], a line of cache for each chunk, and the chunks done."""
CALL_BYTES = 192
LINE = 64
