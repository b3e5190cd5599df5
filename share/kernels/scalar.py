"""Floating-point numbers that write LLVM instructions while Python computes with them: scalars, or vectors of them.

Every instruction carries the flag `contract` and no other. numba adds a kernel's own fast-math flags only to
instructions without any, so `reassoc` in the kernel can't cancel a range reduction that was written here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, cast

import numpy as np
from llvmlite import binding as llvm
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

FLAGS = ("contract",)
WORD, SINGLE, DOUBLE = ir.IntType(32), ir.FloatType(), ir.DoubleType()
_ELEMENT: dict[str, Any] = {"f32": types.float32, "f64": types.float64}


def _spread(element: Any, like: Any) -> Any:
    """Give the type of `element`s in as many lanes as the type `like` has."""
    return ir.VectorType(element, like.count) if isinstance(like, ir.VectorType) else element


def _number(kind: Any, value: float) -> Any:
    """Make a constant, the same in all lanes."""
    element = getattr(kind, "element", kind)
    exact: float = float(np.float32(value)) if element == SINGLE else value
    constant = ir.Constant(element, exact)
    return ir.Constant(kind, [constant] * kind.count) if isinstance(kind, ir.VectorType) else constant


def _suffix(kind: Any) -> str:
    """Spell a type as the names of LLVM's intrinsics do."""
    return f"v{kind.count}{_suffix(kind.element)}" if isinstance(kind, ir.VectorType) else str(kind.intrinsic_name)


def _call(builder: Any, name: str, result: Any, arguments: Sequence[Any], flags: Sequence[str] = FLAGS) -> Any:
    """Call a function of the module, declared where it is not yet known."""
    kind = ir.FunctionType(result, [argument.type for argument in arguments])
    function = builder.module.globals.get(name) or ir.Function(builder.module, kind, name)
    return builder.call(function, arguments, fastmath=flags)


@dataclass(frozen=True)
class Word:
    """A 32-bit integer in a register."""

    builder: Any
    value: Any

    def __add__(self, other: Word | int) -> Word:
        return Word(self.builder, self.builder.add(self.value, self._operand(other)))

    def __sub__(self, other: Word | int) -> Word:
        return Word(self.builder, self.builder.sub(self.value, self._operand(other)))

    def __and__(self, other: Word | int) -> Word:
        return Word(self.builder, self.builder.and_(self.value, self._operand(other)))

    def __xor__(self, other: Word | int) -> Word:
        return Word(self.builder, self.builder.xor(self.value, self._operand(other)))

    def __lshift__(self, other: int) -> Word:
        return Word(self.builder, self.builder.shl(self.value, self._operand(other)))

    def __rshift__(self, other: int) -> Word:
        return Word(self.builder, self.builder.ashr(self.value, self._operand(other)))

    def reinterpret(self) -> Scalar:
        """Read the bits as a float32."""
        return Scalar(self.builder, self.builder.bitcast(self.value, _spread(SINGLE, self.value.type)))

    def convert(self) -> Scalar:
        """Convert the integer to float32."""
        return Scalar(self.builder, self.builder.sitofp(self.value, _spread(SINGLE, self.value.type)))

    def has(self, bit: int) -> Condition:
        """Tell whether a bit is set."""
        return Condition(self.builder, self.builder.icmp_unsigned("!=", (self & bit).value, self._operand(0)))

    def _operand(self, other: Word | int) -> Any:
        return other.value if isinstance(other, Word) else _number(self.value.type, other)


@dataclass(frozen=True)
class Condition:
    """The answer to a comparison."""

    builder: Any
    value: Any

    def select(self, yes: Scalar, no: Scalar | float) -> Scalar:
        """Take `yes` where the condition holds, otherwise `no`, without a branch."""
        return Scalar(self.builder, self.builder.select(self.value, yes.value, yes.operand(no)))

    def __and__(self, other: Condition) -> Condition:
        return Condition(self.builder, self.builder.and_(self.value, other.value))

    def __or__(self, other: Condition) -> Condition:
        return Condition(self.builder, self.builder.or_(self.value, other.value))

    def __invert__(self) -> Condition:
        return Condition(self.builder, self.builder.not_(self.value))

    def anywhere(self) -> Any:
        """Give the LLVM value that tells whether the condition holds in any lane."""
        if not isinstance(self.value.type, ir.VectorType):
            return self.value
        name = f"llvm.vector.reduce.or.{_suffix(self.value.type)}"
        return _call(self.builder, name, ir.IntType(1), [self.value], flags=())


@dataclass(frozen=True)
class Scalar:
    """A float32 or float64 in a register; comparisons with NaN are false."""

    builder: Any
    value: Any

    def __add__(self, other: Scalar | float) -> Scalar:
        return self._binary(self.builder.fadd, other)

    def __sub__(self, other: Scalar | float) -> Scalar:
        return self._binary(self.builder.fsub, other)

    def __rsub__(self, other: float) -> Scalar:
        return self.constant(other) - self

    def __mul__(self, other: Scalar | float) -> Scalar:
        return self._binary(self.builder.fmul, other)

    def __truediv__(self, other: Scalar | float) -> Scalar:
        return self._binary(self.builder.fdiv, other)

    def __neg__(self) -> Scalar:
        return Scalar(self.builder, self.builder.fneg(self.value, flags=FLAGS))

    def __abs__(self) -> Scalar:
        return self.call("llvm.fabs")

    def __lt__(self, other: Scalar | float) -> Condition:
        return self._compare("<", other)

    def __gt__(self, other: Scalar | float) -> Condition:
        return self._compare(">", other)

    def equals(self, other: Scalar | float) -> Condition:
        """Compare for equality."""
        return self._compare("==", other)

    def at_most(self, bound: float) -> Scalar:
        """Cut to an upper bound; NaN stays NaN."""
        return (self > bound).select(self.constant(bound), self)

    def at_least(self, bound: float) -> Scalar:
        """Cut to a lower bound; NaN stays NaN."""
        return (self < bound).select(self.constant(bound), self)

    def reinterpret(self) -> Word:
        """Read the bits of a float32 as an integer."""
        return Word(self.builder, self.builder.bitcast(self.value, _spread(WORD, self.value.type)))

    def low_word(self) -> Word:
        """Read the lower half of a float64's bits as an integer."""
        bits = self.builder.bitcast(self.value, _spread(ir.IntType(64), self.value.type))
        return Word(self.builder, self.builder.trunc(bits, _spread(WORD, self.value.type)))

    def constant(self, value: float) -> Scalar:
        """Make a constant of the same type."""
        return Scalar(self.builder, self.operand(value))

    def call(self, name: str, *others: Scalar) -> Scalar:
        """Call an LLVM intrinsic on numbers of one type."""
        return self._function(f"{name}.{_suffix(self.value.type)}", *others)

    def fused(self, factor: Scalar, addend: Scalar) -> Scalar:
        """Multiply and add with one rounding."""
        return self.call("llvm.fma", factor, addend)

    def times_power(self, exponent: Word) -> Scalar:
        """Multiply a float32 by 2^exponent, rounding once where the result is subnormal; exponents in [-252, 254]."""
        if scales_vectors():
            name = f"llvm.ldexp.{_suffix(self.value.type)}.{_suffix(exponent.value.type)}"
            return self._function(name, exponent)
        half = exponent >> 1
        return self * _power_of_two(half) * _power_of_two(exponent - half)

    def widen(self) -> Scalar:
        """Convert a float32 to float64."""
        return Scalar(self.builder, self.builder.fpext(self.value, _spread(DOUBLE, self.value.type)))

    def narrow(self) -> Scalar:
        """Round a float64 to float32."""
        return Scalar(self.builder, self.builder.fptrunc(self.value, _spread(SINGLE, self.value.type)))

    def library(self, name: str, *others: Scalar) -> Scalar:
        """Call a function of the C mathematics library; such a call is not vectorised."""
        return self._function(name, *others)

    def _function(self, name: str, *others: Scalar | Word) -> Scalar:
        arguments = [self.value, *(other.value for other in others)]
        return Scalar(self.builder, _call(self.builder, name, self.value.type, arguments))

    def operand(self, other: Scalar | float) -> Any:
        """Give the LLVM value of an operand; a number takes this one's type."""
        return other.value if isinstance(other, Scalar) else _number(self.value.type, float(other))

    def _binary(self, instruction: Callable[..., Any], other: Scalar | float) -> Scalar:
        return Scalar(self.builder, instruction(self.value, self.operand(other), flags=FLAGS))

    def _compare(self, operator: str, other: Scalar | float) -> Condition:
        answer = self.builder.fcmp_ordered(operator, self.value, self.operand(other), flags=FLAGS)
        return Condition(self.builder, answer)


@cache
def scales_vectors() -> bool:
    """Tell whether this processor scales by powers of two in one instruction (AVX-512), and LLVM makes use of it."""
    return llvm.llvm_version_info >= (22,) and bool(llvm.get_host_cpu_features().get("avx512f", False))


def _power_of_two(exponent: Word) -> Scalar:
    """Give 2^exponent for an exponent in [-126, 127]."""
    return ((exponent + 127) << 23).reinterpret()


def polynomial(x: Scalar, coefficients: tuple[float, ...]) -> Scalar:
    """Evaluate a polynomial by Horner's rule, lowest coefficient first."""
    result = x.constant(coefficients[-1])
    for coefficient in coefficients[-2::-1]:
        result = result * x + coefficient
    return result


def two_chains(x: Scalar, coefficients: tuple[float, ...]) -> Scalar:
    """Evaluate a long polynomial as two of x^2, which are computed side by side."""
    square = x * x
    return polynomial(square, coefficients[1::2]) * x + polynomial(square, coefficients[::2])


def unary(element: str, body: Callable[[Scalar], Scalar]) -> Callable[[float], float]:
    """Make a numba function of one `f32` or `f64` from the instructions that `body` writes."""
    kind = _ELEMENT[element]

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return body(Scalar(builder, arguments[0])).value

    def function(typingctx: Any, x: Any) -> Any:
        return kind(kind), generate

    return cast("Callable[[float], float]", intrinsic(function))


def binary(element: str, body: Callable[[Scalar, Scalar], Scalar]) -> Callable[[float, float], float]:
    """Make a numba function of two `f32` or `f64` from the instructions that `body` writes."""
    kind = _ELEMENT[element]

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return body(Scalar(builder, arguments[0]), Scalar(builder, arguments[1])).value

    def function(typingctx: Any, x: Any, y: Any) -> Any:
        return kind(kind, kind), generate

    return cast("Callable[[float, float], float]", intrinsic(function))
