"""Ask the executors for the kernels that replace calls in a session of torch."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING

import onnx_ir as ir

from sartor.share.runtime import registry
from sartor.share.runtime.calls import function_call, typed_model
from sartor.share.runtime.kernel import DeviceKernel, FunctionCall

if TYPE_CHECKING:
    import torch

    from sartor.share.lowering import Lowered

_Key = tuple[object, ...]
_Implementation = Callable[..., "tuple[torch.Tensor, ...]"]


class DeviceCalls:
    """Makes the callables of a model's calls, one kernel for all calls of equal types; `found` are the kernels so far.

    `status` is the word on the device that all kernels share (kernel.py).
    """

    def __init__(self, status: torch.Tensor) -> None:
        self.status = status
        self._memo: dict[_Key, DeviceKernel | None] = {}

    @property
    def found(self) -> tuple[DeviceKernel, ...]:
        """The distinct kernels."""
        return tuple(kernel for kernel in self._memo.values() if kernel is not None)

    def implementation(self, node: ir.Node, function: ir.Function) -> _Implementation | None:
        """Return what runs a call, or None where the function's body must."""
        call = function_call(node, function)
        if call is None:
            return None
        key = (*function.identifier()[:2], call.inputs, call.outputs)
        if key not in self._memo:
            self._memo[key] = _ask(call)
        kernel = self._memo[key]
        return None if kernel is None else lambda *inputs: tuple(kernel.run(inputs, self.status))


def lower_with_kernels(model: ir.Model, calls: DeviceCalls, skip: frozenset[str]) -> Lowered:
    """Lower a model to torch with kernels for the calls that have some, but for the functions named in `skip`."""
    from sartor.share.lowering import lower

    wanted = frozenset(
        ident
        for ident, function in model.functions.items()
        if ident[1] not in skip and not function.attributes and registry.device_executor_for(ident[0]) is not None
    )
    return lower(typed_model(model, wanted), {ident[:2]: calls.implementation for ident in wanted})


def _ask(call: FunctionCall) -> DeviceKernel | None:
    """Call the executor of the function's domain; a failing one costs speed, not the session."""
    executor = registry.device_executor_for(call.function.domain)
    assert executor is not None
    try:
        return executor(call)
    except Exception as error:
        warnings.warn(f"{call.function.name}: no kernel ({type(error).__name__}: {error})", RuntimeWarning, 2)
        return None
