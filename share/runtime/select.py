"""Ask the executors for the kernels of a model."""

from __future__ import annotations

import warnings
from dataclasses import replace

import onnx_ir as ir

from sartor.share.packs import Packs
from sartor.share.runtime import registry
from sartor.share.runtime.calls import Identifier, call_nodes, find_calls
from sartor.share.runtime.kernel import Dim, FunctionCall, Kernel, TensorType

Signature = tuple[object, ...]
_Memo = dict[tuple[Identifier, Signature], Kernel | None]


def select_kernels(
    model: ir.Model, skip: frozenset[str] = frozenset(), packs: Packs | None = None
) -> tuple[Kernel, ...]:
    """Return the kernels for the calls in a model, but for those of the functions named in `skip`.

    A function has kernels for all of its calls or for none, because a registered operator hides the function's body.
    """
    wanted = frozenset(ident for ident in _overridable(model) if ident[1] not in skip)
    memo: _Memo = {}
    while wanted:
        chosen = {ident: _kernels(ident, calls, memo, packs) for ident, calls in find_calls(model, wanted).items()}
        refused = frozenset(ident for ident, kernels in chosen.items() if not kernels)
        # The body of a refused function is run, so the calls in it count too.
        if not any(any(call_nodes(model.functions[ident], wanted - refused)) for ident in refused):
            return tuple(kernel for kernels in chosen.values() for kernel in kernels)
        wanted -= refused
    return ()


def _overridable(model: ir.Model) -> frozenset[Identifier]:
    """Return the functions of domains with an executor; operators know no overloads or attributes."""
    names = [ident[:2] for ident in model.functions]
    return frozenset(
        ident
        for ident, function in model.functions.items()
        if names.count(ident[:2]) == 1 and not function.attributes and registry.executor_for(ident[0]) is not None
    )


def _kernels(
    ident: Identifier, calls: list[FunctionCall | None], memo: _Memo, packs: Packs | None
) -> tuple[Kernel, ...]:
    """Return the distinct kernels for all calls of one function, or none; those for fixed sizes come first."""
    kernels: dict[Signature, Kernel] = {}
    for call in calls:
        if call is None:
            return ()
        signature = _signature(call)
        if (ident, signature) not in memo:
            memo[ident, signature] = _ask(replace(call, packs=packs))
        kernel = memo[ident, signature]
        if kernel is None or (kernel.state is not None and not _same_constants(calls)):
            return ()
        kernels[signature] = kernel
    return tuple(sorted(kernels.values(), key=_free_sizes))


def _same_constants(calls: list[FunctionCall | None]) -> bool:
    """Tell whether all calls have the constants of the first."""
    first, *others = (() if call is None else call.constants for call in calls)
    return all(len(one) == len(first) and all(map(_same, one, first)) for one in others)


def _same(a: ir.TensorProtocol | None, b: ir.TensorProtocol | None) -> bool:
    if a is None or b is None or a is b:
        return a is b
    return (a.dtype, tuple(a.shape)) == (b.dtype, tuple(b.shape)) and a.tobytes() == b.tobytes()


def _ask(call: FunctionCall) -> Kernel | None:
    """Call the executor of the function's domain; a failing one costs speed, not the session."""
    executor = registry.executor_for(call.function.domain)
    assert executor is not None
    try:
        kernel = executor(call)
    except Exception as error:
        warnings.warn(f"{call.function.name}: no kernel ({type(error).__name__}: {error})", RuntimeWarning, 2)
        return None
    if kernel is None or _matches(kernel, call):
        return kernel
    warnings.warn(f"{call.function.name}: the executor's kernel is for another call", RuntimeWarning, 2)
    return None


def _matches(kernel: Kernel, call: FunctionCall) -> bool:
    """Tell whether a kernel is for this function, these element types and these ranks."""
    same_name = (kernel.domain, kernel.name) == (call.function.domain, call.function.name)
    return same_name and _kinds(kernel.inputs + kernel.outputs) == _kinds(call.inputs + call.outputs)


def _kinds(types: tuple[TensorType | None, ...]) -> list[tuple[ir.DataType, int] | None]:
    """Return element types and ranks."""
    return [None if type_ is None else (type_.dtype, type_.rank) for type_ in types]


def _signature(call: FunctionCall) -> Signature:
    """Return the types with the names of sizes replaced by the order in which they appear."""
    names: dict[Dim, str] = {}
    return tuple(
        None if type_ is None else (type_.dtype, tuple(_canonical(dim, names) for dim in type_.shape))
        for type_ in (*call.inputs, *call.outputs)
    )


def _canonical(dim: Dim, names: dict[Dim, str]) -> Dim:
    """Return a number or None as it is and a name by the order of its appearance."""
    return names.setdefault(dim, f"d{len(names)}") if isinstance(dim, str) else dim


def _free_sizes(kernel: Kernel) -> int:
    """Count the sizes that a kernel leaves open."""
    types = (*kernel.inputs, *kernel.outputs)
    return sum(not isinstance(dim, int) for type_ in types if type_ is not None for dim in type_.shape)
