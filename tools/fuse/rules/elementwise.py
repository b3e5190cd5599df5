"""Element-wise operators: arithmetic, comparison, logic, activations, conversions."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import reduce as fold

import onnx_ir as ir

from sartor.tools.fuse import ops
from sartor.tools.fuse.axes import NotEmittableError
from sartor.tools.fuse.program import Value
from sartor.tools.fuse.rules.registry import RULES, Kind, Node, Rule, rule
from sartor.tools.fuse.tracer import apply, cast, const, is_power, reindex, where

D = ir.DataType

_DIRECT = {
    "Sub": "sub", "Mul": "mul", "Div": "div", "Add": "add", "Neg": "neg", "Abs": "abs", "Sign": "sign",
    "Floor": "floor", "Ceil": "ceil", "Round": "rint", "Sqrt": "sqrt", "Exp": "exp", "Log": "log", "Tanh": "tanh",
    "Sigmoid": "sigmoid", "Softplus": "softplus", "Erf": "erf", "Sin": "sin", "Cos": "cos", "Tan": "tan",
    "Asin": "asin", "Acos": "acos", "Atan": "atan", "Sinh": "sinh", "Cosh": "cosh", "Asinh": "asinh",
    "Acosh": "acosh", "Atanh": "atanh",
    "Equal": "equal", "Less": "less", "LessOrEqual": "less_equal", "And": "and", "Or": "or", "Xor": "xor", "Not": "not",
    "IsNaN": "isnan", "BitwiseAnd": "and", "BitwiseOr": "or", "BitwiseXor": "xor", "BitwiseNot": "invert",
}  # fmt: skip
"""Operators that are one scalar operator with the operands in order."""


def _kind(scalar: str) -> Kind:
    return Kind.EXPENSIVE if ops.SCALARS[scalar].kind is ops.Class.EXPENSIVE else Kind.LIGHT


def _direct(scalar: str) -> Callable[[Node], Value]:
    return lambda node: apply(scalar, *node.args())


RULES.update({name: Rule(_kind(scalar), _direct(scalar)) for name, scalar in _DIRECT.items()})


def _variadic(name: str, scalar: str) -> None:
    RULES[name] = Rule(Kind.LIGHT, lambda node: fold(lambda a, b: apply(scalar, a, b), node.args()))


_variadic("Max", "maximum")
_variadic("Min", "minimum")
_variadic("Sum", "add")


def like(number: float, value: Value) -> Value:
    """Make a constant of a value's type."""
    return const(number if value.dtype in ops.FLOATING else int(number), value.dtype)


def reciprocal(x: Value) -> Value:
    """Return 1 / x."""
    return apply("div", like(1, x), x)


def relu(x: Value) -> Value:
    """Return max(x, 0), keeping NaN."""
    return apply("maximum", x, like(0, x))


def positive(x: Value) -> Value:
    """Return x > 0."""
    return apply("less", like(0, x), x)


def mish(x: Value) -> Value:
    """Return x tanh(log(1 + e)) = x n / (n + 2) for e = exp(x) and n = e (e + 2); beyond 20 it is x to the last bit."""
    e = apply("exp", apply("minimum", x, like(20, x)))
    n = apply("mul", e, apply("add", e, like(2, x)))
    return apply("mul", x, apply("div", n, apply("add", n, like(2, x))))


def tanh_gelu(x: Value) -> Value:
    """Return the tanh form of GELU, which is x * sigmoid(1.702...): 0.5 x (1 + tanh(s)) = x sigmoid(2 s)."""
    cube = apply("mul", apply("mul", x, x), x)
    inner = apply("add", x, apply("mul", like(0.044715, x), cube))
    return apply("mul", x, apply("sigmoid", apply("mul", like(2 * math.sqrt(2 / math.pi), x), inner)))


@rule("Greater", "GreaterOrEqual", kind=Kind.LIGHT)
def greater(node: Node) -> Value:
    """Swap the operands of a comparison."""
    return apply("less" if node.node.op_type == "Greater" else "less_equal", node.arg(1), node.arg(0))


@rule("Reciprocal", kind=Kind.LIGHT)
def _reciprocal(node: Node) -> Value:
    return reciprocal(node.arg(0))


@rule("Identity", "Dropout", kind=Kind.MOVEMENT)
def identity(node: Node) -> Value:
    """Pass the input through (Dropout at inference, without its mask)."""
    if len([out for out in node.node.outputs if out.name]) > 1 or node.has(2):
        raise NotEmittableError("a dropout with a mask or in training mode")
    return node.arg(0)


@rule("Relu", kind=Kind.LIGHT)
def _relu(node: Node) -> Value:
    return relu(node.arg(0))


@rule("LeakyRelu", "ThresholdedRelu", "PRelu", kind=Kind.LIGHT)
def leaky(node: Node) -> Value:
    """Bend the identity at zero, or cut it below a threshold."""
    x = node.arg(0)
    if node.node.op_type == "ThresholdedRelu":
        return where(apply("less", like(node.attr("alpha", 1.0), x), x), x, like(0, x))
    slope = node.arg(1) if node.node.op_type == "PRelu" else like(node.attr("alpha", 0.01), x)
    return where(apply("less", x, like(0, x)), apply("mul", slope, x), x)


@rule("Elu", "Celu", "Selu", kind=Kind.EXPENSIVE)
def elu(node: Node) -> Value:
    """Bend the identity below zero by an exponential."""
    x, op = node.arg(0), node.node.op_type
    alpha = node.attr("alpha", 1.67326319217681884765625 if op == "Selu" else 1.0)
    inner = apply("div", x, like(alpha, x)) if op == "Celu" else x
    low = apply("mul", like(alpha, x), apply("sub", apply("exp", apply("minimum", inner, like(0, x))), like(1, x)))
    bent = where(positive(x), x, low)
    return apply("mul", like(node.attr("gamma", 1.05070102214813232421875), x), bent) if op == "Selu" else bent


@rule("HardSigmoid", "HardSwish", kind=Kind.LIGHT)
def hard_sigmoid(node: Node) -> Value:
    """Clip a line to 0..1; HardSwish multiplies it by x."""
    x, swish = node.arg(0), node.node.op_type == "HardSwish"
    slope, offset = node.attr("alpha", 1 / 6 if swish else 0.2), node.attr("beta", 0.5)
    line = apply("add", apply("mul", like(slope, x), x), like(offset, x))
    clipped = apply("maximum", apply("minimum", line, like(1, x)), like(0, x))
    return apply("mul", x, clipped) if swish else clipped


@rule("Mish", kind=Kind.EXPENSIVE)
def _mish(node: Node) -> Value:
    return mish(node.arg(0))


@rule("Softsign", kind=Kind.LIGHT)
def softsign(node: Node) -> Value:
    """Return x / (1 + |x|)."""
    x = node.arg(0)
    return apply("div", x, apply("add", like(1, x), apply("abs", x)))


@rule("Shrink", kind=Kind.LIGHT)
def shrink(node: Node) -> Value:
    """Pull values towards zero by a bias, and small ones to zero."""
    x = node.arg(0)
    bias, limit = like(node.attr("bias", 0.0), x), like(node.attr("lambd", 0.5), x)
    low, high = apply("less", x, apply("neg", limit)), apply("less", limit, x)
    return where(low, apply("add", x, bias), where(high, apply("sub", x, bias), like(0, x)))


@rule("Gelu", kind=Kind.EXPENSIVE)
def gelu(node: Node) -> Value:
    """Return GELU in its exact or tanh form."""
    x = node.arg(0)
    return tanh_gelu(x) if node.attr("approximate", "none") == "tanh" else apply("gelu", x)


@rule("Swish", kind=Kind.EXPENSIVE)
def swish(node: Node) -> Value:
    """Return x * sigmoid(alpha * x)."""
    x = node.arg(0)
    alpha = node.attr("alpha", 1.0)
    return apply("silu", x) if alpha == 1 else apply("mul", x, apply("sigmoid", apply("mul", like(alpha, x), x)))


@rule("Pow", kind=Kind.EXPENSIVE)
def power(node: Node) -> Value:
    """Return x to the power y; small constant exponents become products and roots."""
    x, y = node.arg(0), node.arg(1)
    square = apply("mul", x, x) if x.dtype in ops.STORAGE else x
    if is_power(y, 2):
        return square
    if is_power(y, 3):
        return apply("mul", square, x)
    if x.dtype in ops.FLOATING and is_power(y, 0.5):
        return apply("sqrt", x)
    if x.dtype in ops.FLOATING and is_power(y, -1):
        return reciprocal(x)
    if x.dtype in ops.FLOATING:
        return apply("pow", x, cast(y, x.dtype))
    if y.dtype in ops.FLOATING:
        return cast(apply("pow", cast(x, D.DOUBLE), cast(y, D.DOUBLE)), x.dtype)
    return apply("pow", x, cast(y, x.dtype))


@rule("Mod", kind=Kind.LIGHT)
def modulo(node: Node) -> Value:
    """Return the remainder with the divisor's sign, or with fmod=1 the dividend's."""
    return apply("fmod" if node.attr("fmod", 0) else "modulo", node.arg(0), node.arg(1))


@rule("BitShift", kind=Kind.LIGHT)
def bit_shift(node: Node) -> Value:
    """Shift bits left or right."""
    return apply(f"shift_{node.attr('direction', '').lower()}", node.arg(0), node.arg(1))


@rule("Clip", kind=Kind.LIGHT)
def clip(node: Node) -> Value:
    """Limit values to a range; bounds are attributes before opset 11."""
    x = node.arg(0)
    low = node.arg(1) if node.has(1) else node.attr("min", None)
    high = node.arg(2) if node.has(2) else node.attr("max", None)
    if low is not None:
        x = apply("maximum", x, low if isinstance(low, Value) else like(low, x))
    if high is not None:
        x = apply("minimum", x, high if isinstance(high, Value) else like(high, x))
    return x


@rule("Where", kind=Kind.LIGHT)
def _where(node: Node) -> Value:
    return where(node.arg(0), node.arg(1), node.arg(2))


@rule("Cast", "CastLike", kind=Kind.LIGHT)
def _cast(node: Node) -> Value:
    x = node.arg(0)
    target = node.arg(1).dtype if node.node.op_type == "CastLike" else D(node.attr("to", 1))
    if target == D.BOOL and x.dtype != D.BOOL:
        return apply("not", apply("equal", x, like(0, x)))
    return cast(x, target)


@rule("IsInf", kind=Kind.LIGHT)
def is_inf(node: Node) -> Value:
    """Find infinities of either or one sign."""
    x = node.arg(0)
    up, down = (apply("equal", x, like(s * math.inf, x)) for s in (1, -1))
    if not node.attr("detect_positive", 1):
        up = apply("and", down, apply("not", down))
    if not node.attr("detect_negative", 1):
        down = apply("and", up, apply("not", up))
    return apply("or", up, down)


_RANGES = {D.INT8: (-128, 127), D.UINT8: (0, 255), D.INT16: (-32768, 32767), D.UINT16: (0, 65535)}
"""The range to which quantisation saturates."""


def _along(node: Node, index: int, x: Value) -> Value:
    """Lay a per-axis scale or zero point along its axis of x."""
    value = node.arg(index)
    if not value.axes or len(value.axes) != 1 or not value.axes[0]:
        return reindex(value, ())
    if node.attr("block_size", 0):
        raise NotEmittableError("blocked quantisation")
    after = len(x.axes) - 1 - node.attr("axis", 1) % len(x.axes)
    return reindex(value, (value.axes[0], *((),) * after))


@rule("DequantizeLinear", kind=Kind.LIGHT)
def dequantize(node: Node) -> Value:
    """Return (x - zero point) * scale."""
    x, scale = node.arg(0), _along(node, 1, node.arg(0))
    number = cast(x, D.FLOAT)
    if node.has(2):
        number = apply("sub", number, cast(_along(node, 2, x), D.FLOAT))
    return cast(apply("mul", number, cast(scale, D.FLOAT)), scale.dtype)


@rule("QuantizeLinear", kind=Kind.LIGHT)
def quantize(node: Node) -> Value:
    """Return x / scale, rounded half to even, shifted and saturated."""
    x, scale = node.arg(0), _along(node, 1, node.arg(0))
    zero = _along(node, 2, x) if node.has(2) else const(0, D.UINT8)
    if zero.dtype not in _RANGES or node.attr("output_dtype", 0) not in (0, zero.dtype.value):
        raise NotEmittableError(f"quantisation to {zero.dtype.name.lower()}")
    scaled = apply("rint", apply("div", cast(x, D.FLOAT), cast(scale, D.FLOAT)))
    shifted = apply("add", scaled, cast(zero, D.FLOAT))
    low, high = _RANGES[zero.dtype]
    clipped = apply("minimum", apply("maximum", shifted, like(low, shifted)), like(high, shifted))
    return cast(clipped, zero.dtype)
