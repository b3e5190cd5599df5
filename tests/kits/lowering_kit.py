"""The lowering behind onnxruntime's interface, and what its tests share."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from onnx import TensorProto, helper
from tests.kits import backend_kit

from sartor.share.lowering import FallbackWarning, Lowered, lower
from sartor.share.lowering.dtypes import from_numpy, to_numpy


@dataclass(frozen=True)
class Named:
    """An input or output as a session tells it."""

    name: str


class LoweredSession:
    """A lowered model with the methods of a session that the node tests call."""

    def __init__(self, model: ir.Model) -> None:
        self.types = [value.dtype for value in model.graph.outputs]
        self.lowered = lower(model)

    def get_inputs(self) -> list[Named]:
        """Return the inputs."""
        return [Named(name) for name in self.lowered.input_names]

    def run(self, _names: None, feeds: dict[str, Any]) -> list[Any]:
        """Return all outputs as arrays."""
        outputs = self.lowered(**{name: tensors(value) for name, value in feeds.items()})
        return [arrays(value, dtype) for value, dtype in zip(outputs.values(), self.types, strict=True)]


def tensors(value: Any) -> Any:
    """Turn arrays into tensors, within sequences too; strings stay."""
    if isinstance(value, list):
        return [tensors(item) for item in value]
    numeric = isinstance(value, np.ndarray) and value.dtype.kind not in "OUS"
    return from_numpy(value) if numeric else value


def arrays(value: Any, dtype: ir.DataType | None = None) -> Any:
    """Turn tensors into arrays, within sequences too."""
    if isinstance(value, list):
        return [arrays(item) for item in value]
    return to_numpy(value, dtype) if isinstance(value, torch.Tensor) else value


def fault(name: str, allow_fallback: bool = False) -> str:
    """Say why a node test does not pass in torch, or return nothing."""
    case = backend_kit.cases()[name]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore" if allow_fallback else "error", FallbackWarning)
            backend_kit.check(case, LoweredSession(ir.serde.deserialize_model(case.model)))
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return ""


def make_model(nodes: list[Any], inputs: list[Any], outputs: list[Any], **options: Any) -> ir.Model:
    """Return a model of opset 21; inputs and outputs are (name, type, shape)."""
    constants = options.pop("initializer", {})
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info(*value) for value in inputs],
        [helper.make_tensor_value_info(*value) for value in outputs],
        [helper.make_tensor(name, *tensor_of(array)) for name, array in constants.items()],
    )
    options.setdefault("opset_imports", [helper.make_opsetid("", 21)])
    return ir.serde.deserialize_model(helper.make_model(graph, ir_version=10, **options))


def tensor_of(array: np.ndarray) -> tuple[int, tuple[int, ...], Any]:
    """Return the type, shape and elements of an array."""
    return helper.np_dtype_to_tensor_dtype(array.dtype), array.shape, array.reshape(-1)


def lowered(nodes: list[Any], inputs: list[Any], outputs: list[Any], **options: Any) -> Lowered:
    """Return a lowered model of these nodes."""
    return lower(make_model(nodes, inputs, outputs, **options))


FLOAT, INT64, BOOL = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL
