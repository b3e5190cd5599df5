"""Operators that work element by element, those that broadcast among them."""

from __future__ import annotations

from collections.abc import Sequence

from sartor.tools.prune.channels import Axes, Axis
from sartor.tools.prune.rules.registry import Node, rule

UNARY = (
    "Abs", "Acos", "Acosh", "Asin", "Asinh", "Atan", "Atanh", "BitwiseNot", "Cast", "CastLike", "Ceil", "Celu", "Clip",
    "Cos", "Cosh", "Dropout", "Elu", "Erf", "Exp", "Floor", "Gelu", "HardSigmoid", "HardSwish", "Identity", "IsInf",
    "IsNaN", "LeakyRelu", "Log", "Mish", "Neg", "Not", "Reciprocal", "Relu", "Round", "Selu", "Shrink", "Sigmoid",
    "Sign", "Sin", "Sinh", "Softplus", "Softsign", "Sqrt", "Swish", "Tan", "Tanh", "ThresholdedRelu",
)  # fmt: skip

BINARY = (
    "Add", "And", "BitShift", "BitwiseAnd", "BitwiseOr", "BitwiseXor", "Div", "Equal", "Greater", "GreaterOrEqual",
    "Less", "LessOrEqual", "Max", "Mean", "Min", "Mod", "Mul", "Or", "PRelu", "Pow", "Sub", "Sum", "Where", "Xor",
)  # fmt: skip


@rule(*UNARY)
def unary(node: Node) -> None:
    """Every output carries what the data does; bounds and ratios are scalars."""
    for index in range(len(node.node.outputs)):
        node.put(node.axes(0), index)


@rule(*BINARY)
def binary(node: Node) -> None:
    """Align the axes from the last one on."""
    node.put(broadcast(node, node.present))


def broadcast(node: Node, inputs: Sequence[int]) -> Axes:
    """Merge the atoms of inputs that numpy's rules lay over each other."""
    return meet(node, [(node.axes(i), node.sizes(i)) for i in inputs])


def meet(node: Node, operands: Sequence[tuple[Axes, Sequence[int | None]]]) -> Axes:
    """Merge the atoms of axes with their sizes, aligned at the last one."""
    rank = max(len(axes) for axes, _ in operands)
    out: list[Axis] = []
    for back in range(rank, 0, -1):
        here = [(axes[-back], sizes[-back]) for axes, sizes in operands if len(axes) >= back]
        out.append(_meet(node, here))
    return tuple(out)


def _meet(node: Node, here: Sequence[tuple[Axis, int | None]]) -> Axis:
    wide = [labels for labels, size in here if size != 1]
    if wide:
        # One element for all of them stays whatever happens to them.
        node.freeze((labels for labels, size in here if size == 1), "it is spread over other channels")
    else:
        wide = [labels for labels, _ in here]
    result = wide[0]
    for labels in wide[1:]:
        result = node.merge(result, labels, "it meets an operand that keeps its channels")
    if result is None:
        node.freeze(wide, "it meets an operand that keeps its channels")
    return result
