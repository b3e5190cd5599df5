"""A model of any size: matrix products with memory-intensive operators between them, written without holding it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper

LAYERS = 12
SCALES = ("ones", "zeros")


def write_large(path: Path, gibibytes: float) -> Path:
    """Write a model with random weights of about this size in an external file beside it; return its path."""
    width = 64 * round(math.sqrt(gibibytes * 2**30 / (4 * LAYERS)) / 64)
    data = path.with_suffix(".data")
    draw = np.random.default_rng(5)
    with data.open("wb") as file:
        for _ in range(LAYERS):
            (draw.standard_normal((width, width), np.float32) / math.sqrt(width)).tofile(file)
    path.write_bytes(_model(width, data.name).SerializeToString())
    return path


def _model(width: int, data: str) -> onnx.ModelProto:
    weights = [_external(f"w{layer}", width, layer, data) for layer in range(LAYERS)]
    vectors = [
        helper.make_tensor(name, TensorProto.FLOAT, [width], np.full(width, value, np.float32).tobytes(), raw=True)
        for name, value in zip(SCALES, (1, 0), strict=True)
    ]
    nodes = [node for layer in range(LAYERS) for node in _layer(layer)]
    ends = [helper.make_tensor_value_info(f"h{i}", TensorProto.FLOAT, ["rows", width]) for i in (0, LAYERS)]
    graph = helper.make_graph(nodes, "large", ends[:1], ends[1:], [*weights, *vectors])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def _external(name: str, width: int, index: int, data: str) -> onnx.TensorProto:
    tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=[width, width])
    tensor.data_location = TensorProto.EXTERNAL
    length = 4 * width * width
    for key, value in (("location", data), ("offset", str(index * length)), ("length", str(length))):
        tensor.external_data.add(key=key, value=value)
    return tensor


def _layer(index: int) -> Iterator[onnx.NodeProto]:
    """Yield h' = LayerNorm(h + GELU(h W + b)) with GELU in tanh's form."""
    yield helper.make_node("MatMul", [f"h{index}", f"w{index}"], [f"m{index}"], name=f"product{index}")
    yield helper.make_node("Add", [f"m{index}", "zeros"], [f"b{index}"], name=f"bias{index}")
    yield helper.make_node("Gelu", [f"b{index}"], [f"g{index}"], name=f"gelu{index}", approximate="tanh")
    yield helper.make_node("Add", [f"h{index}", f"g{index}"], [f"r{index}"], name=f"residual{index}")
    inputs = [f"r{index}", *SCALES]
    yield helper.make_node("LayerNormalization", inputs, [f"h{index + 1}"], name=f"norm{index}", axis=-1)
