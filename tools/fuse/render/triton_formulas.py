"""The formulas of `share/kernels/vecmath.py` as Triton source: the same polynomials on either processor.

The classes stand in for those of `share/kernels/scalar.py`: a formula computes with them, and they write statements.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from sartor.share.kernels import vecmath

_CALLS = {"llvm.fabs": "tl.abs", "llvm.fma": "tl.fma", "llvm.sqrt": "tl.sqrt_rn"}


@dataclass(frozen=True)
class _Term:
    """A value in a variable of the function being written."""

    lines: list[str]
    name: str

    def held(self, text: str) -> str:
        """Write a statement and name its result."""
        name = f"t{len(self.lines)}"
        self.lines.append(f"{name} = {text}")
        return name


@dataclass(frozen=True)
class _Word(_Term):
    """A 32-bit integer."""

    def _binary(self, operator: str, other: _Word | int) -> _Word:
        text = other.name if isinstance(other, _Word) else str(other)
        return _Word(self.lines, self.held(f"{self.name} {operator} {text}"))

    def __add__(self, other: _Word | int) -> _Word:
        return self._binary("+", other)

    def __sub__(self, other: _Word | int) -> _Word:
        return self._binary("-", other)

    def __and__(self, other: _Word | int) -> _Word:
        return self._binary("&", other)

    def __lshift__(self, other: int) -> _Word:
        return self._binary("<<", other)

    def __rshift__(self, other: int) -> _Word:
        return self._binary(">>", other)

    def reinterpret(self) -> _Real:
        """Read the bits as a float32."""
        return _Real(self.lines, self.held(f"{self.name}.to(tl.float32, bitcast=True)"))

    def convert(self) -> _Real:
        """Convert the integer to float32."""
        return _Real(self.lines, self.held(f"{self.name}.to(tl.float32)"))


@dataclass(frozen=True)
class _Condition(_Term):
    """The answer to a comparison."""

    def select(self, yes: _Real, no: _Real | float) -> _Real:
        """Take `yes` where the condition holds, otherwise `no`."""
        return _Real(self.lines, self.held(f"tl.where({self.name}, {yes.name}, {spelled(no)})"))


@dataclass(frozen=True)
class _Real(_Term):
    """A float32."""

    def _binary(self, operator: str, other: _Real | float) -> _Real:
        return _Real(self.lines, self.held(f"{self.name} {operator} {spelled(other)}"))

    def __add__(self, other: _Real | float) -> _Real:
        return self._binary("+", other)

    def __sub__(self, other: _Real | float) -> _Real:
        return self._binary("-", other)

    def __mul__(self, other: _Real | float) -> _Real:
        return self._binary("*", other)

    def __truediv__(self, other: _Real | float) -> _Real:
        return _Real(self.lines, self.held(f"tl.div_rn({self.name}, {spelled(other)})"))

    def __neg__(self) -> _Real:
        return _Real(self.lines, self.held(f"-{self.name}"))

    def __abs__(self) -> _Real:
        return self.call("llvm.fabs")

    def __lt__(self, other: _Real | float) -> _Condition:
        return _Condition(self.lines, self.held(f"{self.name} < {spelled(other)}"))

    def __gt__(self, other: _Real | float) -> _Condition:
        return _Condition(self.lines, self.held(f"{self.name} > {spelled(other)}"))

    def equals(self, other: _Real | float) -> _Condition:
        """Compare for equality."""
        return _Condition(self.lines, self.held(f"{self.name} == {spelled(other)}"))

    def at_most(self, bound: float) -> _Real:
        """Cut to an upper bound; NaN stays NaN."""
        return (self > bound).select(self.constant(bound), self)

    def at_least(self, bound: float) -> _Real:
        """Cut to a lower bound; NaN stays NaN."""
        return (self < bound).select(self.constant(bound), self)

    def constant(self, value: float) -> _Real:
        """Make a constant."""
        return _Real(self.lines, spelled(value))

    def reinterpret(self) -> _Word:
        """Read the bits as an integer."""
        return _Word(self.lines, self.held(f"{self.name}.to(tl.int32, bitcast=True)"))

    def call(self, name: str, *others: _Real) -> _Real:
        """Call what Triton has for an LLVM intrinsic."""
        operands = ", ".join([self.name, *(other.name for other in others)])
        return _Real(self.lines, self.held(f"{_CALLS[name]}({operands})"))

    def fused(self, factor: _Real, addend: _Real) -> _Real:
        """Multiply and add with one rounding."""
        return self.call("llvm.fma", factor, addend)

    def times_power(self, exponent: _Word) -> _Real:
        """Multiply by 2^exponent in two steps, because the power alone may be out of range."""
        half = exponent >> 1
        first, second = ((((power + 127) << 23).reinterpret()) for power in (half, exponent - half))
        return self * first * second


def spelled(value: _Real | float) -> str:
    """Name a value, or spell a number as float32 has it."""
    if isinstance(value, _Real):
        return value.name
    number = float(np.float32(value))
    return repr(number) if np.isfinite(number) else f'float("{number}")'


@cache
def formula(name: str) -> str:
    """Write a formula of float32, such as exp_f32, as a function of Triton."""
    body: Callable[[Any], Any] = vecmath.FORMULAS[name]
    lines: list[str] = []
    result = body(_Real(lines, "x"))
    text = [f"    {line}" for line in [*lines, f"return {spelled(result)}"]]
    return "\n".join(["@triton.jit", f"def {name}(x):", *text]) + "\n"
