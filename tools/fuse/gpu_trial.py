"""Running a call's kernels on a device on random inputs, to time them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import onnx_ir as ir

from sartor.share.indices import IndexRange, index_ranges
from sartor.share.lowering.dtypes import torch_type
from sartor.share.runtime.kernel import FunctionCall, TensorType
from sartor.tools.fuse.axes import parse_size
from sartor.tools.fuse.gpu_clock import CudaClock
from sartor.tools.fuse.gpu_launch import Planned, launch
from sartor.tools.fuse.gpu_tune import Trial
from sartor.tools.fuse.gpu_work import number

if TYPE_CHECKING:
    import torch

_SMALL = IndexRange(0, 2)


def trial(call: FunctionCall, axes: Mapping[str, int], device: str) -> Trial:
    """Return what times kernels of a call at given sizes on a CUDA device."""
    import torch

    place = torch.device(device)
    inputs, status = random_tensors(call, axes, place), torch.zeros(1, dtype=torch.int32, device=place)

    def run(planned: Planned) -> None:
        with torch.cuda.device(place):
            launch(planned, inputs, status)

    return Trial(run, CudaClock(place))


def random_tensors(call: FunctionCall, axes: Mapping[str, int], device: torch.device) -> list[torch.Tensor | None]:
    """Draw the inputs of a call: normal floats, fair booleans, indices in their range, other integers 0 or 1."""
    ranges = index_ranges(_model(call), dict(axes))
    return [
        None if kind is None else _draw(kind, ranges.get(f"x{i}", _SMALL), axes, device)
        for i, kind in enumerate(call.inputs)
    ]


def _draw(kind: TensorType, numbers: IndexRange, axes: Mapping[str, int], device: torch.device) -> torch.Tensor:
    import torch

    shape = [number(parse_size(dim), axes) for dim in kind.shape]
    dtype = torch_type(kind.dtype)
    if dtype.is_floating_point:
        return torch.randn(shape, device=device).to(dtype)
    return torch.randint(numbers.low, max(numbers.high, numbers.low + 1), shape, device=device).to(dtype)


def _model(call: FunctionCall) -> ir.Model:
    """Make a model of one call; what is a weight elsewhere is an input."""
    given = [None if kind is None else _value(f"x{i}", kind) for i, kind in enumerate(call.inputs)]
    outputs = [_value(f"y{i}", kind) for i, kind in enumerate(call.outputs)]
    function = call.function
    node = ir.Node(function.domain, function.name, given, outputs=outputs)
    present = [value for value in given if value is not None]
    imports = {**function.opset_imports, function.domain: 1}
    graph = ir.Graph(present, outputs, nodes=[node], opset_imports=imports, name=function.name)
    return ir.Model(graph, ir_version=10, functions=[function])


def _value(name: str, kind: TensorType) -> ir.Value:
    return ir.Value(name=name, type=ir.TensorType(kind.dtype), shape=ir.Shape(kind.shape))
