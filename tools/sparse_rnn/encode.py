"""Sparse matrices as ONNX stores them: gaps of one byte and values, decoded by standard operators.

The non-zeros of a matrix are taken row by row. A gap is how far one lies behind the one before, the first behind the
place before the matrix. Where a gap exceeds a byte, a zero stands in between. Stock onnxruntime decodes constants once,
when a model is loaded.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

Array = NDArray[Any]

FARTHEST = 255
"""The largest gap."""


@dataclass(frozen=True)
class Coded:
    """A matrix of a shape: gaps and values [N], the zeros that fill large gaps among them."""

    shape: tuple[int, ...]
    gaps: NDArray[np.uint8]
    values: Array

    @property
    def bytes(self) -> int:
        """The bytes that it takes."""
        return self.gaps.nbytes + self.values.nbytes


def encode(matrix: Array, mask: NDArray[np.bool_], dtype: Any = np.float16) -> Coded:
    """Code what a mask keeps of a matrix."""
    places = np.flatnonzero(mask)
    gaps = np.diff(places, prepend=-1)
    fillers = (gaps - 1) // FARTHEST
    ends = np.cumsum(fillers + 1) - 1
    coded, values = np.full(int(len(gaps) + fillers.sum()), FARTHEST), np.zeros(int(len(gaps) + fillers.sum()), dtype)
    coded[ends] = gaps - fillers * FARTHEST
    values[ends] = matrix.ravel()[places].astype(dtype)
    return Coded(matrix.shape, coded.astype(np.uint8), values)


def decode(coded: Coded) -> NDArray[np.float32]:
    """Return the whole matrix."""
    whole = np.zeros(int(np.prod(coded.shape)), np.float32)
    whole[positions(coded)] = coded.values
    return whole.reshape(coded.shape)


def positions(coded: Coded) -> NDArray[np.int64]:
    """Return where in the flat matrix gaps lead to [N], fillers included."""
    return np.asarray(np.cumsum(coded.gaps, dtype=np.int64) - 1)


def decoder(gaps: ir.Value, values: ir.Value, shape: Sequence[int]) -> tuple[list[ir.Node], ir.Value]:
    """Return the nodes that decode a matrix, and their result, float32."""
    nodes: list[ir.Node] = []

    def add(operator: str, *inputs: ir.Value, **attributes: Any) -> ir.Value:
        made = [ir.convenience.convert_attribute(name, value) for name, value in attributes.items()]
        node = ir.Node("", operator, inputs, made, outputs=[ir.Value(name=f"{gaps.name}_{len(nodes)}")])
        nodes.append(node)
        return node.outputs[0]

    def constant(array: Array) -> ir.Value:
        return add("Constant", value=ir.tensor(array))

    wide = add("Cast", gaps, to=int(ir.DataType.INT64))
    places = add("Sub", add("CumSum", wide, constant(np.array(0, np.int64))), constant(np.array(1, np.int64)))
    indices = add("Unsqueeze", places, constant(np.array([1], np.int64)))
    size = constant(np.array([int(np.prod(shape))], np.int64))
    zeros = add("ConstantOfShape", size, value=ir.tensor(np.zeros(1, np.float32)))
    filled = add("ScatterND", zeros, indices, add("Cast", values, to=int(ir.DataType.FLOAT)))
    return nodes, add("Reshape", filled, constant(np.array(shape, np.int64)))


def decoded_shape(value: ir.Value) -> tuple[int, ...]:
    """Return the shape that a decoder gives its matrix: what its last node, a Reshape, asks for."""
    node = value.producer()
    assert node is not None
    shape = node.inputs[1]
    assert shape is not None
    made = shape.producer()
    assert made is not None
    return tuple(int(size) for size in made.attributes["value"].as_tensor().numpy())
