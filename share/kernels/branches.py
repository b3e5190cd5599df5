"""Functions with a path that few arguments need, which a whole vector branches around.

A loop with a branch is not vectorised, and computing both paths to choose between them costs what the dear one does.
So such a function is a function of LLVM, with a variant for each width of vectors. The vectoriser finds the variants
by the attribute `vector-function-abi-variant` and calls them; each asks whether any of its lanes is rare, and does for
all of them what that one needs. The rare path therefore has to be right for every argument.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir

from sartor.share.kernels.scalar import FLAGS, SINGLE, Condition, Scalar

WIDTHS = (4, 8, 16)
"""Lanes of the variants."""

Body = Callable[..., Scalar]


def branching(name: str, rare: Callable[..., Condition], usual: Body, unusual: Body) -> Body:
    """Make a function of float32 that takes the unusual path where `rare` holds for any lane.

    Functions of LLVM have this name, which has to be unique.
    """

    def body(*arguments: Scalar) -> Scalar:
        builder = arguments[0].builder
        function = builder.module.globals.get(name) or _define_all(builder.module, len(arguments))
        return Scalar(builder, builder.call(function, [one.value for one in arguments], fastmath=FLAGS))

    def _define_all(module: Any, arity: int) -> Any:
        mangled = []
        for width in WIDTHS:
            variant = _define(module, f"{name}_v{width}", [ir.VectorType(SINGLE, width)] * arity)
            mangled.append(f"_ZGV_LLVM_N{width}{'v' * arity}_{name}({variant.name})")
        function = _define(module, name, [SINGLE] * arity)
        _add(function, f'"vector-function-abi-variant"="{",".join(mangled)}"')
        return function

    def _define(module: Any, symbol: str, kinds: list[Any]) -> Any:
        function = ir.Function(module, ir.FunctionType(kinds[0], kinds), symbol)
        # It stays before anybody calls it, and LLVM neither inlines it nor changes its arguments.
        function.linkage = "weak_odr"
        _add(function, "noinline", "nounwind", "willreturn", "memory(none)")
        builder = ir.IRBuilder(function.append_basic_block())
        arguments = [Scalar(builder, one) for one in function.args]
        with builder.if_then(rare(*arguments).anywhere(), likely=False):
            builder.ret(unusual(*arguments).value)
        builder.ret(usual(*arguments).value)
        return function

    return body


def _add(function: Any, *attributes: str) -> None:
    """Add attributes, of which llvmlite's own `add` refuses those that it doesn't know."""
    for attribute in attributes:
        set.add(function.attributes, attribute)
