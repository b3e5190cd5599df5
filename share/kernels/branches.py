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

from sartor.share.kernels.scalar import FLAGS, Condition, Scalar

WIDTHS = (4, 8, 16)
"""Lanes of the variants."""

Body = Callable[..., Scalar]
_KEPT = "llvm.compiler.used"
"""The global that keeps functions nobody calls yet."""


def branching(name: str, rare: Callable[..., Condition], usual: Body, unusual: Body) -> Body:
    """Make a function of float32 that takes the unusual path where `rare` holds for any lane.

    Its name is that of the functions of LLVM, and has to be unique.
    """

    def body(*arguments: Scalar) -> Scalar:
        builder = arguments[0].builder
        function = builder.module.globals.get(name) or _define_all(builder.module, len(arguments))
        return Scalar(builder, builder.call(function, [one.value for one in arguments], fastmath=FLAGS))

    def _define_all(module: Any, arity: int) -> Any:
        element = ir.FloatType()
        scalar = _define(module, name, [element] * arity)
        variants = [_define(module, f"{name}.v{width}", [ir.VectorType(element, width)] * arity) for width in WIDTHS]
        mangled = [f"_ZGV_LLVM_N{n}{'v' * arity}_{name}({one.name})" for n, one in zip(WIDTHS, variants, strict=True)]
        # llvmlite's own `add` knows no attributes with values.
        set.add(scalar.attributes, f'"vector-function-abi-variant"="{",".join(mangled)}"')
        _keep(module, [scalar, *variants])
        return scalar

    def _define(module: Any, symbol: str, kinds: list[Any]) -> Any:
        function = ir.Function(module, ir.FunctionType(kinds[0], kinds), symbol)
        function.linkage = "internal"
        function.attributes.add("noinline")
        builder = ir.IRBuilder(function.append_basic_block())
        arguments = [Scalar(builder, one) for one in function.args]
        with builder.if_else(rare(*arguments).anywhere(), likely=False) as (then, otherwise):
            with then:
                builder.ret(unusual(*arguments).value)
            with otherwise:
                builder.ret(usual(*arguments).value)
        builder.unreachable()
        return function

    return body


def _keep(module: Any, functions: list[Any]) -> None:
    """Keep functions from being removed, and from being changed with their calls, before loops are vectorised."""
    pointer = ir.IntType(8).as_pointer()
    kept = [function.bitcast(pointer) for function in functions]
    if _KEPT in module.globals:
        kept = [*module.globals.pop(_KEPT).initializer.constant, *kept]
    kind = ir.ArrayType(pointer, len(kept))
    used = ir.GlobalVariable(module, kind, _KEPT)
    used.linkage, used.section = "appending", "llvm.metadata"
    used.initializer = ir.Constant(kind, kept)
