"""The scalar operators that kernels are made of: class, result type, cost and expression, one row each.

An expression is Python source for numba. `{0}`, `{1}`, ... are the operands, `{t}` is the short name of the operands'
compute type (f32, f64, i32, ...); names such as `exp_f32` are defined in `render/intrinsics.py` and
`share/kernels/`. Costs are those of vectorised float32 code on one AVX-512 core, in cache; the cost model scales them
by rates that are measured, so that only ratios matter. What is not vectorised costs `LIBRARY` or `DIVISION` instead.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum

import onnx_ir as ir

D = ir.DataType


class Class(Enum):
    """What an operator costs, in the sense of FusionStitching section 3.2."""

    LIGHT = "light element-wise"
    EXPENSIVE = "expensive element-wise"


class Result(Enum):
    """The element type of a scalar operator's result."""

    SAME = "the operands' type"
    BOOL = "bool"


@dataclass(frozen=True)
class Scalar:
    """One scalar operator; an empty expression means that the type family has none."""

    name: str
    floating: str
    integral: str = ""
    result: Result = Result.SAME
    kind: Class = Class.LIGHT
    cost: float = 0.03


@dataclass(frozen=True)
class Storage:
    """How an element type is loaded, computed with and stored."""

    memory: str
    compute: str
    size: int


STORAGE: dict[ir.DataType, Storage] = {
    D.FLOAT: Storage("f32", "f32", 4),
    D.DOUBLE: Storage("f64", "f64", 8),
    D.FLOAT16: Storage("f16", "f32", 2),
    D.BFLOAT16: Storage("bf16", "f32", 2),
    D.INT8: Storage("i8", "i8", 1),
    D.INT16: Storage("i16", "i16", 2),
    D.INT32: Storage("i32", "i32", 4),
    D.INT64: Storage("i64", "i64", 8),
    D.UINT8: Storage("u8", "u8", 1),
    D.UINT16: Storage("u16", "u16", 2),
    D.UINT32: Storage("u32", "u32", 4),
    D.UINT64: Storage("u64", "u64", 8),
    D.BOOL: Storage("b1", "b1", 1),
}
"""The element types that kernels know; float16 and bfloat16 are storage only and compute in float32."""

CPU_STORAGE = STORAGE.keys() - {D.BFLOAT16}
"""Those that kernels of numba know."""

FLOATING = frozenset({D.FLOAT, D.DOUBLE, D.FLOAT16, D.BFLOAT16})


def _light(name: str, floating: str, integral: str = "", result: Result = Result.SAME, cost: float = 0.03) -> Scalar:
    return Scalar(name, floating, integral, result, Class.LIGHT, cost)


def _both(name: str, expression: str, result: Result = Result.SAME) -> Scalar:
    return Scalar(name, expression, expression, result)


def _expensive(name: str, cost: float, floating: str = "", integral: str = "") -> Scalar:
    return Scalar(name, floating or f"{name}_{{t}}({{0}})", integral, Result.SAME, Class.EXPENSIVE, cost)


_SIGN = "{t}({t}({0} > {t}(0)) - {t}({0} < {t}(0)))"

_ROWS = (
    _light("add", "add_{t}({0}, {1})", "{0} + {1}"),
    _light("sub", "sub_{t}({0}, {1})", "{0} - {1}"),
    _light("mul", "mul_{t}({0}, {1})", "{0} * {1}"),
    _light("div", "div_{t}({0}, {1})", "trunc_div({0}, {1})", cost=0.1),
    _light("neg", "neg_{t}({0})", "-{0}"),
    _both("accumulate", "{0} + {1}"),
    _both("multiply_up", "{0} * {1}"),
    _light("abs", "fabs_{t}({0})", "abs({0})"),
    _light("maximum", "max_{t}({0}, {1})", "max({0}, {1})"),
    _light("minimum", "min_{t}({0}, {1})", "min({0}, {1})"),
    _light("peak", "peak_{t}({0}, {1})"),
    _light("floor", "floor_{t}({0})", "{0}"),
    _light("ceil", "ceil_{t}({0})", "{0}"),
    _light("rint", "rint_{t}({0})", "{0}"),
    _light("sqrt", "sqrt_{t}({0})", cost=0.2),
    _light("sign", f"select({{0}} != {{0}}, {{0}}, {_SIGN})", _SIGN),
    _both("equal", "{0} == {1}", Result.BOOL),
    _both("less", "{0} < {1}", Result.BOOL),
    _both("less_equal", "{0} <= {1}", Result.BOOL),
    _light("isnan", "{0} != {0}", result=Result.BOOL),
    _both("and", "{0} & {1}"),
    _both("or", "{0} | {1}"),
    _both("xor", "{0} ^ {1}"),
    _light("not", "", "not {0}", Result.BOOL),
    _light("invert", "", "~{0}"),
    _light("shift_left", "", "shift_left_{t}({0}, {1})"),
    _light("shift_right", "", "shift_right_{t}({0}, {1})"),
    _light("modulo", "", "{0} % {1}"),
    _light("fmod", "fmod_{t}({0}, {1})", "trunc_mod({0}, {1})", cost=0.6),
    _expensive("exp", 0.25),
    _expensive("log", 0.5),
    _expensive("log1p", 0.5),
    _expensive("tanh", 0.25),
    _expensive("sigmoid", 0.45),
    _expensive("erf", 0.3),
    _expensive("gelu", 0.9),
    _expensive("silu", 0.45),
    _expensive("softplus", 0.8),
    _expensive("sin", 0.5),
    _expensive("cos", 0.5),
    _expensive("tan", 0.5),
    _expensive("asin", 0.25),
    _expensive("acos", 0.35),
    _expensive("atan", 0.45),
    _expensive("sinh", 0.45),
    _expensive("cosh", 0.3),
    _expensive("asinh", 2.0),
    _expensive("acosh", 1.7),
    _expensive("atanh", 1.3),
    _expensive("pow", 2.3, "pow_{t}({0}, {1})", "int_pow({0}, {1})"),
)

SCALARS: dict[str, Scalar] = {row.name: row for row in _ROWS}
"""Every scalar operator but `where` and `cast`, whose operands have types of their own."""

REDUCTIONS: dict[str, str] = {
    "sum": "accumulate", "prod": "multiply_up", "max": "maximum", "min": "minimum", "peak": "peak",
}  # fmt: skip
"""The scalar operator with which a reduction folds a new element into its accumulator.

Those of sum and prod may be reassociated, which vectorises them; `add` and `mul` are IEEE but for contraction. `peak`
is a maximum that may be any number where an element is NaN, which spares a comparison for each element. It is for
expressions that are NaN whatever it gives, such as a softmax, where exp(NaN - peak) is a part of the sum.
"""

WHERE_COST, CAST_COST = 0.04, 0.03

LIBRARY, DIVISION = 20.0, 4.0
"""Costs of what LLVM does not vectorise: a function of the C library, integer division."""

_DIVIDING = frozenset({"div", "modulo", "fmod", "pow"})
"""Operators that divide integers or loop over their bits."""


def unvectorised_cost(op: str, dtype: ir.DataType) -> float:
    """Return what an operator costs on operands of a type where LLVM does not vectorise it, and 0 where it does."""
    if dtype == D.DOUBLE:
        return LIBRARY if SCALARS[op].kind is Class.EXPENSIVE or op == "fmod" else 0.0
    return DIVISION if op in _DIVIDING and dtype not in FLOATING else 0.0


def neutral(op: str, kind: str) -> float:
    """Return the number that leaves every other as it is in a reduction of a compute type."""
    if op in ("sum", "prod"):
        number = int(op == "prod")
        return float(number) if kind[0] == "f" else number
    highest = op == "min"
    if kind[0] == "f":
        return math.inf if highest else -math.inf
    bits = int(kind[1:]) - (kind[0] == "i")
    return (1 << bits) - 1 if highest else -(1 << bits) * (kind[0] == "i")


def compute_type(dtype: ir.DataType) -> str:
    """Name the type that values of `dtype` are computed in (f32 for float16)."""
    return STORAGE[dtype].compute


def scalar_expression(op: str, dtype: ir.DataType, operands: list[str]) -> str:
    """Spell the scalar operator `op` on operands of type `dtype`.

    Raises KeyError where the operator does not exist for the type.
    """
    row = SCALARS[op]
    template = row.floating if dtype in FLOATING else row.integral
    if not template:
        raise KeyError(f"{op} of {dtype.name.lower()}")
    return template.format(*operands, t=compute_type(dtype))
