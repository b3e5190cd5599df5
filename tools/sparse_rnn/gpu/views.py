"""How the kernel's tensors lie in registers and in shared memory."""

from __future__ import annotations

from triton.experimental import gluon
from triton.experimental.gluon import language as gl

FLAT = gl.constexpr(gl.SwizzledSharedLayout(1, 1, 1, [0]))
ROWS = gl.constexpr(gl.SwizzledSharedLayout(1, 1, 1, [1, 0]))
CHUNK_WORDS = gl.constexpr(32)
"""The 32-bit words of a granule, in which shared memory is cut."""

VALUE_BITS, PLACE_BITS = gl.constexpr(-65536), gl.constexpr(65535)


@gluon.constexpr_function
def line(S, count):
    """Return the layout of a flat tensor with `count` neighbours a thread."""
    return gl.BlockedLayout([count], [32], [S.warps], [0])


@gluon.constexpr_function
def word_type(lanes):
    return gl.int64 if lanes == 4 else gl.int32
