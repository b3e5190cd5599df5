"""What generated kernels call: memory access without aliasing, selections, roundings, C-like integer arithmetic.

Every tensor of a kernel has a number, and every load and store carries LLVM's `alias.scope` and `noalias` metadata with
it, so that the vectoriser needs no run-time overlap checks (it gives up when it would need many).
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

from sartor.share.kernels import circular, hyperbolic, power, vecmath
from sartor.share.kernels.scalar import Scalar, binary, unary

MAX_TENSORS = 64
"""The most inputs, outputs and buffers that one kernel may have."""

COMPUTE: dict[str, Any] = {
    "f32": np.float32, "f64": np.float64, "i8": np.int8, "i16": np.int16, "i32": np.int32, "i64": np.int64,
    "u8": np.uint8, "u16": np.uint16, "u32": np.uint32, "u64": np.uint64, "b1": bool,
}  # fmt: skip

_NUMBA = {name: getattr(types, np.dtype(kind).name) for name, kind in COMPUTE.items() if name != "b1"}
_NUMBA["b1"] = types.boolean
_WIDTH = {"8": ir.IntType(8), "16": ir.IntType(16), "32": ir.IntType(32), "64": ir.IntType(64)}


_ARITHMETIC: dict[str, Callable[[Scalar, Scalar], Scalar]] = {
    "add": operator.add, "sub": operator.sub, "mul": operator.mul, "div": operator.truediv,
}  # fmt: skip
"""Free of the kernel's fast-math flags, or `(x + y) - x` would become y, and infinities with it."""


def _memory_type(name: str) -> ir.Type:
    floats = {"f16": ir.HalfType(), "f32": ir.FloatType(), "f64": ir.DoubleType(), "b1": ir.IntType(8)}
    return floats.get(name) or _WIDTH[name[1:]]


def _compute_type(name: str) -> Any:
    return types.float32 if name == "f16" else _NUMBA[name]


def _mark(builder: Any, instruction: Any, number: int) -> None:
    """Say that this access touches tensor `number` and no other."""
    module = builder.module
    domain = module.add_metadata(["sartor"])
    scopes = [module.add_metadata([f"tensor {i}", domain]) for i in range(MAX_TENSORS)]
    instruction.set_metadata("alias.scope", module.add_metadata([scopes[number]]))
    instruction.set_metadata("noalias", module.add_metadata(scopes[:number] + scopes[number + 1 :]))


def _element(builder: Any, pointer: Any, index: Any, element: ir.Type) -> Any:
    return builder.gep(builder.bitcast(pointer, element.as_pointer()), [index], inbounds=True)


def _make_load(name: str) -> Any:
    element, result = _memory_type(name), _compute_type(name)

    def load(typingctx: Any, pointer: Any, index: Any, number: Any) -> Any:
        def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
            value = builder.load(_element(builder, arguments[0], arguments[1], element))
            _mark(builder, value, number.literal_value)
            if name == "f16":
                return builder.fpext(value, ir.FloatType())
            return builder.icmp_unsigned("!=", value, element(0)) if name == "b1" else value

        return result(pointer, types.int64, number), generate

    return intrinsic(prefer_literal=True)(load)


def _make_store(name: str) -> Any:
    element, operand = _memory_type(name), _compute_type(name)

    def store(typingctx: Any, pointer: Any, index: Any, value: Any, number: Any) -> Any:
        def generate(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
            number_ = arguments[2]
            if name == "f16":
                number_ = builder.fptrunc(number_, element)
            if name == "b1":
                number_ = builder.zext(number_, element)
            written = builder.store(number_, _element(builder, arguments[0], arguments[1], element))
            _mark(builder, written, number.literal_value)
            return context.get_dummy_value()

        return types.none(pointer, types.int64, operand, number), generate

    return intrinsic(prefer_literal=True)(store)


@intrinsic
def advance(typingctx: Any, pointer: Any, count: Any) -> Any:
    """Move a pointer by a number of bytes."""

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.gep(arguments[0], [arguments[1]], inbounds=True)

    return pointer(pointer, types.int64), generate


@intrinsic
def select(typingctx: Any, condition: Any, yes: Any, no: Any) -> Any:
    """Choose without a branch; both operands have one type."""

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.select(*arguments)

    return yes(types.boolean, yes, yes), generate


@intrinsic
def round_f16(typingctx: Any, x: Any) -> Any:
    """Round a float32 to float16 and back."""

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.fpext(builder.fptrunc(arguments[0], ir.HalfType()), ir.FloatType())

    return types.float32(types.float32), generate


@njit(error_model="numpy")
def trunc_div(x: Any, y: Any) -> Any:
    """Divide integers towards zero, as C and ONNX do."""
    quotient = x // y
    return quotient + 1 if quotient < 0 and quotient * y != x else quotient


@njit(error_model="numpy")
def trunc_mod(x: Any, y: Any) -> Any:
    """Return the remainder with the sign of the dividend."""
    return x - trunc_div(x, y) * y


@njit(error_model="numpy")
def int_pow(x: Any, y: Any) -> Any:
    """Raise an integer to a non-negative power; negative powers give 0, or +-1 for a base of +-1."""
    if y < 0:
        return x * 0 + (1 if x == 1 else (1 - 2 * (y & 1) if x == -1 else 0))
    result, base, rest = x * 0 + 1, x, y
    while rest > 0:
        if rest & 1:
            result = result * base
        base, rest = base * base, rest >> 1
    return result


def _make_shift(name: str, left: bool) -> Any:
    """Make a shift by any amount: out of range, as a negative one is, no bit but the sign's copies stays."""
    element, result = _memory_type(name), _compute_type(name)
    signed, width = name[0] == "i", int(name[1:])

    def shift(typingctx: Any, x: Any, count: Any) -> Any:
        def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
            inside = builder.icmp_unsigned("<", arguments[1], element(width))
            count_ = builder.select(inside, arguments[1], element(width - 1))
            if signed and not left:
                return builder.ashr(arguments[0], count_)
            shifted = builder.shl(arguments[0], count_) if left else builder.lshr(arguments[0], count_)
            return builder.select(inside, shifted, element(0))

        return result(result, result), generate

    return intrinsic(shift)


def _make_peak(element: str) -> Any:
    """Make a maximum that is undefined where an operand is NaN."""
    kind, operand = _NUMBA[element], _memory_type(element)

    def peak(typingctx: Any, x: Any, y: Any) -> Any:
        def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
            declared = ir.FunctionType(operand, [operand, operand])
            function = builder.module.declare_intrinsic("llvm.maxnum", [operand], declared)
            return builder.call(function, arguments, fastmath=("nnan", "nsz"))

        return kind(kind, kind), generate

    return intrinsic(peak)


def _make_settle(element: str) -> Any:
    """Make the function that gives an undefined value some number, the same for all that read it.

    It is an empty piece of assembly: LLVM would move its own instruction `freeze` into the loop, before every fold.
    """
    kind, operand = _NUMBA[element], _memory_type(element)
    word = _WIDTH[element[1:]]

    def settle(typingctx: Any, x: Any) -> Any:
        def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
            bits = builder.bitcast(arguments[0], word)
            return builder.bitcast(builder.asm(ir.FunctionType(word, [word]), "", "=r,0", [bits], False), operand)

        return kind(kind), generate

    return intrinsic(settle)


def _rounding(name: str, intrinsic_name: str, element: str) -> Any:
    def body(x: Any) -> Any:
        return x.call(intrinsic_name)

    body.__name__ = name
    return unary(element, body)


def namespace() -> dict[str, Any]:
    """Return every name that a generated kernel may use."""
    out: dict[str, Any] = {"inf": math.inf, "nan": math.nan, **COMPUTE}
    out.update({f"load_{name}": _make_load(name) for name in (*COMPUTE, "f16")})
    out.update({f"store_{name}": _make_store(name) for name in (*COMPUTE, "f16")})
    for name in ("fabs", "floor", "ceil", "rint", "sqrt"):
        out.update({f"{name}_{element}": _rounding(name, f"llvm.{name}", element) for element in ("f32", "f64")})
    for element in ("f32", "f64"):
        out.update({f"{name}_{element}": binary(element, body) for name, body in _ARITHMETIC.items()})
        out[f"neg_{element}"] = unary(element, operator.neg)
        out |= {f"peak_{element}": _make_peak(element), f"settle_{element}": _make_settle(element)}
    for name in COMPUTE:
        if name[0] in "iu":
            out.update({f"shift_left_{name}": _make_shift(name, True), f"shift_right_{name}": _make_shift(name, False)})
    helpers: tuple[Callable[..., Any], ...] = (advance, select, round_f16, trunc_div, trunc_mod, int_pow)
    out.update(
        {getattr(helper, "__name__", helper._name if hasattr(helper, "_name") else ""): helper for helper in helpers}
    )
    for family in (vecmath, circular, hyperbolic, power):
        out.update({name: value for name, value in vars(family).items() if name.endswith(("_f32", "_f64"))})
    return out
