"""How programs wait for one another: loops in PTX that each thread makes for itself, and that always end.

A wait ends when what it waits for is there; when another program has given up, which the status word tells; or after
`patience` nanoseconds, when it sets the status word itself. After that nothing waits any more, so that all programs run
through their steps and end. The host reads the status word.
"""

from __future__ import annotations

from triton.experimental import gluon
from triton.experimental.gluon import language as gl

from sartor.share.runtime.kernel import STALLED
from sartor.tools.sparse_rnn.gpu import operands

MISSING = gl.constexpr(operands.MISSING)

TRIES = 64
"""How often a loop looks before it looks at the clock."""


@gluon.constexpr_function
def _loop(loads: list[str], ready: list[str], status: str, patience: str) -> str:
    """Return a loop in PTX that loads until the predicate `ready` holds."""
    lines = (
        "{", ".reg .pred ready, more;", ".reg .b32 low, high, tries, told;", ".reg .b64 now, limit;",
        "mov.u32 tries, 0;", "mov.u64 limit, 0;",
        "AGAIN:", *loads, *ready, "@ready bra DONE;",
        "add.u32 tries, tries, 1;", f"rem.u32 told, tries, {TRIES};", "setp.ne.u32 more, told, 0;", "@more bra AGAIN;",
        f"ld.relaxed.gpu.global.u32 told, [{status}];", "setp.ne.u32 more, told, 0;", "@more bra DONE;",
        "mov.u64 now, %globaltimer;", "setp.eq.u64 more, limit, 0;", f"@more add.u64 limit, now, {patience};",
        "setp.lt.u64 more, now, limit;", "@more bra AGAIN;",
        f"st.relaxed.gpu.global.u32 [{status}], {STALLED};",
        "DONE:", "}",
    )  # fmt: skip
    return "\n".join(lines)


@gluon.constexpr_function
def _arrival() -> str:
    """Return the code that waits until the word behind $1 is $2, in threads where $3 is not 0."""
    loads = ["setp.ne.u32 more, $3, 0;", "mov.u32 $0, $2;", "@more ld.acquire.gpu.global.u32 $0, [$1];"]
    return str(_loop(loads, ["setp.eq.u32 ready, $0, $2;"], "$4", "$5"))


@gluon.constexpr_function
def _collection(count: int, bits: int, stride: int, rest: int) -> str:
    """Return the code that loads `count` words, `stride` bytes apart, all at once, until no half is missing.

    Threads from `rest` on have no last word: theirs is 0.
    """
    pointer, thread, status, patience = (f"${count + i}" for i in range(4))
    loads = [f"ld.relaxed.gpu.global.b{bits} ${i}, [{pointer}+{i * stride}];" for i in range(count)]
    loads[-1:] = [f"setp.lt.u32 more, {thread}, {rest};", f"mov.b{bits} ${count - 1}, 0;", f"@more {loads[-1]}"]
    ready = ["setp.eq.u32 ready, tries, tries;"]
    for i in range(count):
        halves = [f"mov.b64 {{low, high}}, ${i};"] if bits == 64 else [f"mov.b32 low, ${i};"]
        ready += halves
        ready += [f"setp.ne.and.b32 ready, {half}, {MISSING.value}, ready;" for half in ("low", "high")[: bits // 32]]
    return str(_loop(loads, ready, status, patience))


@gluon.constexpr_function
def _repeated(kind, count):
    return (kind,) * count


@gluon.constexpr_function
def _constraints(count: int, bits: int) -> str:
    return ",".join(["=&l" if bits == 64 else "=&r"] * count + ["l", "r", "l", "l"])


@gluon.jit
def wait(pointers, expected, mine, status, patience):
    """Wait until the int32 behind each pointer is `expected`, in threads where `mine` is not 0; [N] each."""
    code: gl.constexpr = _arrival()
    gl.inline_asm(code, "=&r,l,r,r,l,l", [pointers, expected, mine, status, patience], mine.type, False)


@gluon.jit
def collect(pointers, thread, status, patience, COUNT: gl.constexpr, TOTAL: gl.constexpr, KIND: gl.constexpr):
    """Return, as a tuple, the words of each thread that have all arrived: TOTAL words, N apart."""
    N: gl.constexpr = thread.shape[0]
    BITS: gl.constexpr = KIND.primitive_bitwidth
    code: gl.constexpr = _collection(COUNT, BITS, N * BITS // 8, TOTAL - N * (COUNT - 1))
    constraints: gl.constexpr = _constraints(COUNT, BITS)
    kinds: gl.constexpr = _repeated(thread.to(KIND).type, COUNT)
    return gl.inline_asm(code, constraints, [pointers, thread, status, patience], kinds, False)


@gluon.constexpr_function
def _storage(bits: int) -> str:
    """Return the code that stores $2 at place $1 of shared memory from $0 on."""
    scaled = f"mad.lo.u32 at, $1, {bits // 8}, $0;"
    return "\n".join(("{", ".reg .b32 at;", scaled, f"st.shared.b{bits} [at], $2;", "}"))


@gluon.jit
def put(memory, place, words):
    """Store words in shared memory; the barriers before and after are the caller's, so that several need only one."""
    BITS: gl.constexpr = words.dtype.primitive_bitwidth
    code: gl.constexpr = _storage(BITS)
    constraints: gl.constexpr = "r,r,l" if BITS == 64 else "r,r,r"
    gl.inline_asm(code, constraints, [memory, place, words], (), False)
