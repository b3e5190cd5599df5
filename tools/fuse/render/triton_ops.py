"""The Triton expressions of the scalar operators in `ops.SCALARS`, one row each, by the same names.

`{0}`, `{1}`, ... are the operands, `{t}` is the short name of their compute type. Names such as `rint_f32` are defined
in `triton_helpers.py`; those of `FORMULAS` are written into the kernel from the formulas of `share/kernels/vecmath.py`.
"""

from __future__ import annotations

import math

from sartor.tools.fuse import ops
from sartor.tools.fuse.program import Value

TYPES: dict[str, str] = {
    "f16": "tl.float16", "bf16": "tl.bfloat16", "f32": "tl.float32", "f64": "tl.float64", "b1": "tl.int1",
    "i8": "tl.int8", "i16": "tl.int16", "i32": "tl.int32", "i64": "tl.int64",
    "u8": "tl.uint8", "u16": "tl.uint16", "u32": "tl.uint32", "u64": "tl.uint64",
}  # fmt: skip
"""Triton's names of the element types."""

FORMULAS = ("exp", "log", "log1p", "tanh", "sigmoid", "erf", "gelu", "silu", "softplus")
"""Functions whose float32 form is a polynomial."""

DOUBLE = ("tan", "asin", "acos", "atan", "sinh", "cosh", "asinh", "acosh", "atanh")
"""Functions that are rare, and computed in float64."""

_NAN = "propagate_nan=tl.PropagateNan.ALL"
_SHARED = {
    "add": "{0} + {1}", "sub": "{0} - {1}", "mul": "{0} * {1}", "accumulate": "{0} + {1}", "multiply_up": "{0} * {1}",
    "maximum": f"tl.maximum({{0}}, {{1}}, {_NAN})", "minimum": f"tl.minimum({{0}}, {{1}}, {_NAN})",
    "abs": "tl.abs({0})", "equal": "{0} == {1}", "less": "{0} < {1}", "less_equal": "{0} <= {1}",
}  # fmt: skip

FLOATING: dict[str, str] = {
    **_SHARED,
    "div": "div_{t}({0}, {1})", "neg": "-{0}", "floor": "tl.floor({0})", "ceil": "tl.ceil({0})",
    "rint": "rint_{t}({0})", "sqrt": "sqrt_{t}({0})", "sign": "sign({0})", "isnan": "{0} != {0}",
    "peak": "tl.maximum({0}, {1})",
    "sin": "tl.sin({0})", "cos": "tl.cos({0})", "fmod": "fmod_f64({0}, {1})", "pow": "pow_f64({0}, {1})",
    **{name: f"{name}_{{t}}({{0}})" for name in FORMULAS},
    **{name: f"{name}_f64({{0}})" for name in DOUBLE},
}  # fmt: skip
"""Expressions on floating-point operands; those of `*_f64` take float32 through float64."""

INTEGRAL: dict[str, str] = {
    **_SHARED,
    "div": "{0} // {1}", "neg": "-{0}", "floor": "{0}", "ceil": "{0}", "rint": "{0}", "sign": "sign_integer({0})",
    "and": "{0} & {1}", "or": "{0} | {1}", "xor": "{0} ^ {1}", "not": "~{0}", "invert": "~{0}",
    "shift_left": "shift_left({0}, {1}, {bits})", "shift_right": "shift_right({0}, {1}, {bits})",
    "modulo": "floor_mod({0}, {1})", "fmod": "{0} % {1}", "pow": "int_pow({0}, {1})",
}  # fmt: skip
"""Expressions on integers and bool; `//` and `%` of Triton round towards zero, as those of C and ONNX do."""


def scalar_expression(op: str, kind: str, operands: list[str]) -> str:
    """Spell the scalar operator `op` on operands of a compute type.

    Raises KeyError where the operator does not exist for the type.
    """
    row = (FLOATING if kind[0] == "f" else INTEGRAL)[op]
    if kind == "f32" and "_f64(" in row:
        wide = [f"{operand}.to(tl.float64)" for operand in operands]
        return f"{row.format(*wide)}.to(tl.float32)"
    return row.format(*operands, t=kind, bits=kind[1:])


def literal(value: float | int | bool, kind: str) -> str:
    """Spell a constant of a compute type."""
    text = repr(value)
    if isinstance(value, float) and not math.isfinite(value):
        text = f'float("{value}")'
    return f"tl.full((), {text}, {TYPES[kind]})"


def neutral(op: str, kind: str) -> str:
    """Spell the number that a reduction starts from."""
    number = ops.neutral(op, kind)
    return repr(number) if math.isfinite(number) else f'float("{number}")'


def conversion(source: Value, target: Value, text: str) -> str:
    """Spell a cast; small integers are reached through a wider one, as C compilers do."""
    have, want = ops.compute_type(source.dtype), ops.compute_type(target.dtype)
    memory = ops.STORAGE[target.dtype].memory
    if memory != want:
        return f"{text}.to(tl.float32).to({TYPES[memory]}).to({TYPES[want]})"
    if want == "b1":
        return f"{text} != 0"
    if have[0] == "f" and want in ("i8", "i16", "u8", "u16"):
        return f"{text}.to(tl.int32).to({TYPES[want]})"
    if have[0] == "f" and want == "u32":
        return f"{text}.to(tl.int64).to(tl.uint32)"
    return f"{text}.to({TYPES[want]})"
