"""Element-wise operators: arithmetic, comparison, logic, bits, activations, conversions."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import onnx_ir as ir
import torch
from torch import Tensor
from torch.nn import functional as F

from sartor.share.lowering import unsigned
from sartor.share.lowering.casting import cast
from sartor.share.lowering.dtypes import onnx_type, torch_type
from sartor.share.lowering.registry import NotLoweredError, Op, Place, rows, rule
from sartor.share.lowering.unsigned import UNSIGNED, ordered, signed

_SELU_ALPHA, _SELU_GAMMA = 1.67326319217681884765625, 1.05070102214813232421875
_small = functools.partial(rule, place=Place.FOLLOWS, scalars=True)


def sign(x: Tensor) -> Tensor:
    """Return -1, 0 or 1; NaN stays."""
    if x.dtype in UNSIGNED:
        return torch.ne(x, 0).to(x.dtype)
    if not x.is_floating_point():
        return torch.sign(x)
    return torch.where(x.isnan(), x, torch.sign(x))


rows(
    {
        "Abs": lambda x: x if x.dtype in UNSIGNED else torch.abs(x), "Neg": torch.neg, "Sign": sign,
        "Floor": torch.floor, "Ceil": torch.ceil, "Round": torch.round, "Sqrt": torch.sqrt, "Exp": torch.exp,
        "Log": torch.log, "Tanh": torch.tanh, "Sigmoid": torch.sigmoid, "Erf": torch.erf,
        "Reciprocal": torch.reciprocal, "Sin": torch.sin, "Cos": torch.cos, "Tan": torch.tan, "Asin": torch.asin,
        "Acos": torch.acos, "Atan": torch.atan, "Sinh": torch.sinh, "Cosh": torch.cosh, "Asinh": torch.asinh,
        "Acosh": torch.acosh, "Atanh": torch.atanh, "Relu": torch.relu, "Softsign": F.softsign, "Mish": F.mish,
        "HardSwish": F.hardswish, "IsNaN": lambda x: torch.isnan(x.float()),
        "Add": signed(torch.add), "Sub": signed(torch.sub), "Mul": signed(torch.mul),
        "Less": ordered(torch.lt), "LessOrEqual": ordered(torch.le), "Greater": ordered(torch.gt),
        "GreaterOrEqual": ordered(torch.ge), "Equal": signed(torch.eq),
        "And": torch.logical_and, "Or": torch.logical_or, "Xor": torch.logical_xor, "Not": torch.logical_not,
        "BitwiseAnd": torch.bitwise_and, "BitwiseOr": torch.bitwise_or, "BitwiseXor": torch.bitwise_xor,
        "BitwiseNot": signed(torch.bitwise_not), "Where": torch.where,
        "Max": lambda *xs: functools.reduce(ordered(torch.maximum), xs),
        "Min": lambda *xs: functools.reduce(ordered(torch.minimum), xs),
        "Sum": lambda *xs: functools.reduce(torch.add, xs),
        "Mean": lambda *xs: functools.reduce(torch.add, xs) / len(xs),
    },
    place=Place.FOLLOWS,
    scalars=True,
)  # fmt: skip


def unary(name: str, function: Callable[[Op, Tensor], Tensor]) -> None:
    """Register an operator of one input and some attributes."""
    rule(name, place=Place.FOLLOWS)(function)


unary("Elu", lambda op, x: F.elu(x, op.attr("alpha", 1.0)))
unary("LeakyRelu", lambda op, x: F.leaky_relu(x, op.attr("alpha", 0.01)))
unary("ThresholdedRelu", lambda op, x: F.threshold(x, op.attr("alpha", 1.0), 0.0))
unary("Celu", lambda op, x: F.celu(x, op.attr("alpha", 1.0)))
unary("Gelu", lambda op, x: F.gelu(x, approximate=op.attr("approximate", "none")))
unary("HardSigmoid", lambda op, x: (op.attr("alpha", 0.2) * x + op.attr("beta", 0.5)).clamp(0, 1))
unary("Swish", lambda op, x: x * torch.sigmoid(op.attr("alpha", 1.0) * x))


@_small("Div")
def divide(_op: Op, a: Tensor, b: Tensor) -> Tensor:
    """Divide; integers are cut towards zero."""
    if a.is_floating_point():
        return a / b
    return unsigned.divide(a, b)


@_small("Mod")
def modulo(op: Op, a: Tensor, b: Tensor) -> Tensor:
    """Return the remainder with the sign of the divisor, or of the dividend where `fmod` says so."""
    if a.dtype in UNSIGNED or not op.attr("fmod", 0):
        return unsigned.modulo(a, b)
    return torch.fmod(a, b)


@_small("Pow")
def power(_op: Op, base: Tensor, exponent: Tensor) -> Tensor:
    """Raise to a power in the type of the base."""
    if base.dtype is exponent.dtype:
        return signed(torch.pow)(base, exponent)
    if base.is_floating_point():
        return torch.pow(base, exponent.to(base.dtype))
    return torch.pow(base.double(), exponent.double()).to(base.dtype)


@_small("BitShift")
def shift(op: Op, x: Tensor, amount: Tensor) -> Tensor:
    """Shift the bits of unsigned integers."""
    right = op.attr("direction") == "RIGHT"
    return unsigned.shift_right(x, amount) if right else signed(torch.bitwise_left_shift)(x, amount)


@_small("Clip")
def clip(op: Op, x: Tensor, low: Tensor | None = None, high: Tensor | None = None) -> Tensor:
    """Clamp; NaN stays, and the upper bound wins over the lower one."""
    if op.version < 11:
        return x.clamp(op.attr("min", -math.inf), op.attr("max", math.inf))
    if low is not None:
        x = ordered(torch.maximum)(x, low)
    return x if high is None else ordered(torch.minimum)(x, high)


@_small("SwiGLU")
def gated_swish(op: Op, gate: Tensor, x: Tensor) -> Tensor:
    """Multiply by the swish of a gate."""
    return gate * torch.sigmoid(op.attr("alpha", 1.0) * gate) * x


@_small("PRelu")
def prelu(_op: Op, x: Tensor, slope: Tensor) -> Tensor:
    """Scale what is negative."""
    return torch.where(x < 0, x * slope, x)


@rule("Selu", place=Place.FOLLOWS)
def selu(op: Op, x: Tensor) -> Tensor:
    """Bend the identity below zero by an exponential, and scale."""
    alpha, gamma = op.attr("alpha", _SELU_ALPHA), op.attr("gamma", _SELU_GAMMA)
    return torch.mul(F.elu(x, alpha), gamma)


@rule("Softplus", place=Place.FOLLOWS)
def softplus(_op: Op, x: Tensor) -> Tensor:
    """Return log(1 + exp(x)) without overflow."""
    return torch.relu(x) + torch.log1p(torch.exp(-x.abs()))


@rule("Shrink", place=Place.FOLLOWS)
def shrink(op: Op, x: Tensor) -> Tensor:
    """Move numbers towards zero, and those near it to zero."""
    bias, border = op.attr("bias", 0.0), op.attr("lambd", 0.5)
    kept = torch.where(x < -border, x + bias, torch.where(x > border, x - bias, torch.zeros_like(x)))
    return kept.to(x.dtype)


@rule("IsInf", place=Place.FOLLOWS)
def is_infinite(op: Op, x: Tensor) -> Tensor:
    """Tell which numbers are infinite, of the signs that are asked for."""
    wide, none = x.float() if x.element_size() < 4 else x, torch.zeros_like(x, dtype=torch.bool)
    positive = torch.isposinf(wide) if op.attr("detect_positive", 1) else none
    return positive | (torch.isneginf(wide) if op.attr("detect_negative", 1) else none)


@_small("Cast")
def cast_to(op: Op, x: Tensor) -> Tensor:
    """Convert to the type that an attribute names."""
    return cast(x, ir.DataType(op.attr("to")), bool(op.attr("saturate", 1)), op.attr("round_mode", "up"))


@_small("CastLike")
def cast_like(op: Op, x: Tensor, like: Tensor) -> Tensor:
    """Convert to the type of the second input."""
    return cast(x, op.input_type(1) or onnx_type(like), bool(op.attr("saturate", 1)), op.attr("round_mode", "up"))


@rule("BitCast", place=Place.FOLLOWS)
def bit_cast(op: Op, x: Tensor) -> Tensor:
    """Read the same bits as another type of the same size."""
    return x.view(torch_type(op.attr("to")))


@rule("Identity", "Dropout", host=(1, 2), place=Place.FOLLOWS, scalars=True)
def identity(
    op: Op, x: Tensor, ratio: Tensor | None = None, training: Tensor | None = None
) -> Tensor | tuple[Tensor, ...]:
    """Pass the input through, and a mask of what Dropout keeps; raises NotLoweredError where it draws numbers."""
    drawing = training is not None and bool(training) and (ratio is None or float(ratio) > 0)
    if drawing or (op.node.op_type == "Dropout" and op.version < 7 and not op.attr("is_test", 0)):
        raise NotLoweredError("random numbers")
    if not op.wants(1):
        return x
    mask = torch.ones_like(x, dtype=torch.bool if op.version >= 10 else x.dtype)
    return x, mask
