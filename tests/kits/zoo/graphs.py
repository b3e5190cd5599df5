"""Quantised networks, which no exporter of torch writes: ONNX graphs with QuantizeLinear and DequantizeLinear."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import numpy_helper
from tests.kits.zoo.entry import IMAGE, Shapes, operators

WIDTHS = (3, 12, 16)
TEXT = """
<ir_version: 8, opset_import: ["" : {opset}]>
quantised (float[{batch}, 3, 32, 32] image) => (float[{batch}, 10] logits)
{{
    entered = Conv<pads = [1, 1, 1, 1], strides = [2, 2]>(image, enter_weight, enter_bias)
    rectified = Relu(entered)
    levels = QuantizeLinear(rectified, before_step, before_zero)
    rounded = DequantizeLinear(levels, before_step, before_zero)
    weight = DequantizeLinear{axis}(weight_levels, weight_step, weight_zero)
    bias = DequantizeLinear{axis}(bias_levels, bias_step)
    middle = Conv<pads = [1, 1, 1, 1], strides = [2, 2]>(rounded, weight, bias)
    again = Relu(middle)
    next_levels = QuantizeLinear(again, after_step, after_zero)
    next = DequantizeLinear(next_levels, after_step, after_zero)
    pooled = GlobalAveragePool(next)
    flat = Flatten(pooled)
    logits = Gemm<transB = 1>(flat, leave_weight, leave_bias)
}}
"""
"""A quantised convolution in the form that onnxruntime's quantiser writes, between two of floating point."""


@dataclass(frozen=True)
class GraphEntry:
    """A network written as a graph: its builder from opset and batch axis, and as in `Entry` the rest."""

    build: Callable[[int, str], onnx.ModelProto]
    operators: frozenset[str]
    opset: int
    oldest: int
    inputs: Shapes
    outputs: tuple[str, ...] = ("logits",)


def by_tensor(opset: int, batch: str) -> onnx.ModelProto:
    """Return the network with one step for all weights of the quantised convolution."""
    return _graph(opset, batch, "", per_channel=False)


def by_channel(opset: int, batch: str) -> onnx.ModelProto:
    """Return the network with a step for each output channel of the quantised convolution."""
    return _graph(opset, batch, "<axis = 0>", per_channel=True)


def _graph(opset: int, batch: str, axis: str, per_channel: bool) -> onnx.ModelProto:
    model = onnx.parser.parse_model(TEXT.format(opset=opset, batch=batch, axis=axis))
    for name, array in _weights(per_channel).items():
        model.graph.initializer.append(numpy_helper.from_array(array, name))
    return model


def _weights(per_channel: bool) -> dict[str, np.ndarray]:
    """Draw weights by the rule of He et al. 2015 and quantise those in the middle to signed bytes around zero."""
    generator = np.random.default_rng(0)
    inputs, middle, outputs = WIDTHS

    def normal(deviation: float, *shape: int) -> np.ndarray:
        return generator.normal(0, deviation, shape).astype(np.float32)

    exact, bias = normal((2 / (9 * middle)) ** 0.5, outputs, middle, 3, 3), normal(0.2, outputs)
    before = np.float32(1 / 32)
    step = np.abs(exact).max(axis=(1, 2, 3) if per_channel else None) / np.float32(127)
    levels = np.rint(exact / step.reshape(-1, 1, 1, 1)).astype(np.int8)
    return {
        "enter_weight": normal((1 / (9 * inputs)) ** 0.5, middle, inputs, 3, 3),
        "enter_bias": normal(0.2, middle),
        "before_step": before,
        "before_zero": np.uint8(0),
        "weight_levels": levels,
        "weight_step": step,
        "weight_zero": np.zeros(step.shape, np.int8),
        "bias_levels": np.rint(bias / (step * before)).astype(np.int32),
        "bias_step": step * before,
        "after_step": np.float32(1 / 32),
        "after_zero": np.uint8(0),
        "leave_weight": normal((2 / outputs) ** 0.5, 10, outputs),
        "leave_bias": normal(0.2, 10),
    }


QUANTISED = operators("QuantizeLinear DequantizeLinear Conv")
GRAPHS = {
    "quantised_tensor": GraphEntry(by_tensor, QUANTISED, 10, 10, {"image": IMAGE}),
    "quantised_channel": GraphEntry(by_channel, QUANTISED, 13, 13, {"image": IMAGE}),
}
