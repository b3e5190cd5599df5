"""Run one node in onnxruntime on the CPU: for operators and attributes that have no rule in torch."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnx_ir as ir
import torch
from onnx import helper

from sartor.share.errors import InputRefusedError
from sartor.share.lowering.dtypes import from_numpy, to_numpy
from sartor.share.lowering.registry import Op, Value

if TYPE_CHECKING:
    import onnxruntime

    from sartor.share.lowering.frame import Frame

_IR_VERSION = 10


class FallbackWarning(RuntimeWarning):
    """An operator runs in onnxruntime on the CPU, and passes no gradients."""


@dataclass
class Fallback:
    """One node with the sessions that run it, one for each combination of input types."""

    op: Op
    versions: Mapping[str, int]
    sessions: dict[tuple[str, ...], onnxruntime.InferenceSession] = field(default_factory=dict)

    def run(self, frame: Frame, inputs: Sequence[Value], reason: Exception | None = None) -> Value:
        """Return the outputs on the frame's device; raises InputRefusedError where onnxruntime fails as well."""
        arrays = [self._array(index, value) for index, value in enumerate(inputs)]
        kinds = tuple("" if array is None else _kind(array) for array in arrays)
        feeds = {f"i{index}": array for index, array in enumerate(arrays) if array is not None}
        first = not self.sessions
        try:
            if kinds not in self.sessions:
                self.sessions[kinds] = self._open(arrays)
            results = self.sessions[kinds].run(None, feeds)
        # The exceptions of onnxruntime have no base class of their own.
        except Exception as error:
            raise self._refusal(reason, error) from error
        if first:
            self._warn(reason)
        values = iter(results)
        return tuple(_value(next(values), frame.device) if out.name else None for out in self.op.node.outputs)

    def _warn(self, reason: Exception | None) -> None:
        why = f" ({reason})" if reason is not None else ""
        text = f"{self.op.node.op_type}{why} runs in onnxruntime on the CPU and passes no gradients"
        warnings.warn(text, FallbackWarning, stacklevel=2)

    def _refusal(self, reason: Exception | None, error: Exception) -> InputRefusedError:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        why = str(reason or "there is no rule for it")
        name = ":".join(part for part in (self.op.node.domain, self.op.node.op_type) if part)
        return InputRefusedError(f"neither torch ({why}) nor onnxruntime ({lines[0]}) runs the operator", subject=name)

    def _array(self, index: int, value: Value) -> Any:
        if isinstance(value, list):
            return [to_numpy(item) for item in value]
        dtype = self.op.input_type(index)
        return to_numpy(value, dtype) if isinstance(value, torch.Tensor) else value

    def _open(self, arrays: Sequence[Any]) -> onnxruntime.InferenceSession:
        """Return a session of a model that holds the node alone."""
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        options.intra_op_num_threads = torch.get_num_threads()
        content = self._model(arrays).SerializeToString()
        return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"], enable_fallback=False)

    def _model(self, arrays: Sequence[Any]) -> onnx.ModelProto:
        node = ir.serde.serialize_node(self.op.node)
        names = [f"o{index}" if out.name else "" for index, out in enumerate(self.op.node.outputs)]
        del node.input[:], node.output[:]
        node.input.extend("" if array is None else f"i{index}" for index, array in enumerate(arrays))
        node.output.extend(names)
        inputs = [_information(f"i{index}", array) for index, array in enumerate(arrays) if array is not None]
        outputs = [onnx.ValueInfoProto(name=name) for name in names if name]
        graph = helper.make_graph([node], "node", inputs, outputs)
        imports = [helper.make_opsetid(domain, version) for domain, version in self.versions.items()]
        return helper.make_model(graph, opset_imports=imports, ir_version=_IR_VERSION)


def _kind(array: Any) -> str:
    return f"sequence of {_kind(array[0]) if array else 'float32'}" if isinstance(array, list) else str(array.dtype)


def _information(name: str, array: Any) -> onnx.ValueInfoProto:
    """Return the type of an input as onnxruntime wants it; sizes stay open."""
    if isinstance(array, list):
        element = helper.np_dtype_to_tensor_dtype(array[0].dtype) if array else onnx.TensorProto.FLOAT
        return helper.make_tensor_sequence_value_info(name, element, None)
    return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), [None] * array.ndim)


def _value(result: Any, device: torch.device) -> Value:
    """Return what onnxruntime gave as tensors on a device; strings stay arrays."""
    if isinstance(result, list):
        return [_value(item, device) for item in result]
    if isinstance(result, np.ndarray) and result.dtype.kind not in "OUS":
        return from_numpy(result).to(device)
    return result
