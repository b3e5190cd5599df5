"""The body of a function in torch, dense: what runs where no persistent kernel does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import onnx_ir as ir

from sartor.share.runtime.kernel import FunctionCall
from sartor.tools.sparse_rnn.emit import LEAST_IR_VERSION

if TYPE_CHECKING:
    import torch

    from sartor.share.lowering import Lowered


class Body:
    """A call as a model of its own, lowered to torch when it is first needed."""

    def __init__(self, call: FunctionCall) -> None:
        self._call = call
        self._lowered: dict[torch.device, Lowered] = {}

    def run(self, inputs: Sequence[torch.Tensor | None], device: torch.device) -> list[torch.Tensor]:
        """Compute the outputs on a device."""
        from sartor.share.lowering import lower

        if device not in self._lowered:
            self._lowered[device] = lower(_model(self._call)).to(device).eval()
        fed = {
            f"i{place}": tensor
            for place, tensor in enumerate(inputs)
            if tensor is not None and self._call.constants[place] is None
        }
        return list(self._lowered[device].compute(fed).values())


def _model(call: FunctionCall) -> ir.Model:
    """Return a model that consists of a call."""
    values: list[ir.Value | None] = []
    fed, initializers = [], []
    for place, (kind, constant) in enumerate(zip(call.inputs, call.constants, strict=True)):
        if kind is None:
            values.append(None)
            continue
        value = ir.Value(name=f"i{place}", type=ir.TensorType(kind.dtype), shape=ir.Shape(kind.shape))
        values.append(value)
        if constant is None:
            fed.append(value)
        else:
            value.const_value = ir.tensor(constant.numpy(), name=value.name)
            initializers.append(value)
    outputs = [
        ir.Value(name=f"o{i}", type=ir.TensorType(kind.dtype), shape=ir.Shape(kind.shape))
        for i, kind in enumerate(call.outputs)
    ]
    function = call.function.clone()
    node = ir.Node(function.domain, function.name, values, outputs=outputs)
    opsets = {**function.opset_imports, function.domain: 1}
    graph = ir.Graph(fed, outputs, nodes=[node], initializers=initializers, opset_imports=opsets, name=function.name)
    return ir.Model(graph, ir_version=LEAST_IR_VERSION, functions=[function])
