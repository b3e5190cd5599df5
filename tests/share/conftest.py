"""Small artifacts that the tests of share write, damage and read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper


def make_proto(weight: np.ndarray | None = None) -> onnx.ModelProto:
    """Make a model with two initialisers, a constant, an If with two branches, and a function."""
    weight = np.arange(64, dtype=np.float32).reshape(8, 8) if weight is None else weight
    branches = {
        f"{name}_branch": helper.make_graph(
            [helper.make_node(operator, ["h"], [f"{name}_out"])],
            name,
            [],
            [helper.make_tensor_value_info(f"{name}_out", TensorProto.FLOAT, ["n", weight.shape[1]])],
        )
        for name, operator in (("then", "Relu"), ("else", "Neg"))
    }
    nodes = [
        helper.make_node("MatMul", ["x", "weight"], ["m"], name="matmul"),
        helper.make_node("Twice", ["m"], ["t"], domain="example"),
        helper.make_node("Add", ["t", "bias"], ["h"], name="add"),
        helper.make_node("Constant", [], ["flag"], value=numpy_helper.from_array(np.array(True))),
        helper.make_node("If", ["flag"], ["y"], name="choice", **branches),
    ]
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("example", 1)]
    twice = helper.make_function("example", "Twice", ["a"], ["b"], [helper.make_node("Add", ["a", "a"], ["b"])], opsets)
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", weight.shape[0]])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", weight.shape[1]])],
        [
            numpy_helper.from_array(weight, "weight"),
            helper.make_tensor("bias", TensorProto.FLOAT, [1], [0.5]),
        ],
    )
    return helper.make_model(graph, opset_imports=opsets, functions=[twice], ir_version=10)


@pytest.fixture
def small_proto() -> onnx.ModelProto:
    """Return a small model to change and save."""
    return make_proto()


@pytest.fixture
def small_model(tmp_path: Path, small_proto: onnx.ModelProto) -> Path:
    """Return the path of a small model without external data."""
    path = tmp_path / "net.onnx"
    path.write_bytes(small_proto.SerializeToString())
    return path


@pytest.fixture
def external_model(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that saves a model whose weight lies in `net.data`, with entries of external data changed."""

    def save(data: bytes | None = None, **entries: str | None) -> Path:
        proto = make_proto()
        weight = proto.graph.initializer[0]
        content = bytes(weight.raw_data)
        if data is None or data:
            (tmp_path / "net.data").write_bytes(content if data is None else data)
        weight.ClearField("raw_data")
        weight.data_location = TensorProto.EXTERNAL
        given = {"location": "net.data", "offset": "0", "length": str(len(content))} | entries
        for key, value in given.items():
            if value is not None:
                weight.external_data.add(key=key, value=value)
        path = tmp_path / "net.onnx"
        path.write_bytes(proto.SerializeToString())
        return path

    return save


@pytest.fixture
def model_of_size(tmp_path: Path) -> Callable[[str, int, int], Path]:
    """Return a function that saves a model with a weight of about `megabytes` filled with `value`."""

    def save(name: str, megabytes: int, value: int) -> Path:
        rows = megabytes * (1 << 20) // (4 * 1024)
        path = tmp_path / name
        path.write_bytes(make_proto(np.full((rows, 1024), value, np.float32)).SerializeToString())
        return path

    return save
