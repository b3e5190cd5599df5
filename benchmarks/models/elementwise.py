"""Every element-wise operator that `sartor fuse` has a rule for, as a model of one node with inputs in its domain."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

Array = np.ndarray[Any, Any]
COLUMNS = 512
OPSET, OPSET_OF_SWISH = 21, 24


@dataclass(frozen=True)
class Draw:
    """How an input is drawn: uniformly from [low, high), with `special` numbers in one column of 16."""

    dtype: Any = np.float32
    low: float = -4.0
    high: float = 4.0
    special: tuple[float, ...] = ()

    def array(self, generator: np.random.Generator, rows: int) -> Array:
        """Draw a tensor (rows, COLUMNS)."""
        shape, kind = (rows, COLUMNS), np.dtype(self.dtype).kind
        if kind != "f":
            return generator.integers(int(self.low), int(self.high), shape).astype(self.dtype)
        drawn = generator.uniform(self.low, self.high, shape).astype(self.dtype)
        for i, number in enumerate(self.special):
            drawn[:, i::16] = number
        return drawn


X = Draw()
POSITIVE = Draw(low=0.1)
ANGLE = Draw(low=-100.0, high=100.0)
INTEGER, DIGIT = Draw(np.int32, 1, 1000), Draw(np.int32, 0, 10)
BYTE = Draw(np.uint8, 0, 8)
BOOL = Draw(np.bool_, 0, 2)


@dataclass(frozen=True)
class Case:
    """One operator with its inputs, constant inputs behind them, and attributes."""

    operator: str
    inputs: tuple[Draw, ...] = (X,)
    weights: tuple[Array, ...] = ()
    attributes: Mapping[str, Any] = field(default_factory=dict)
    variant: str = ""

    @property
    def label(self) -> str:
        """The operator, and what tells this case from another of it."""
        return f"{self.operator} {self.variant}".strip()

    def model(self, rows: int) -> onnx.ModelProto:
        """Make a model of this node over tensors (rows, COLUMNS)."""
        names = [f"x{i}" for i in range(len(self.inputs))]
        weights = [numpy_helper.from_array(array, f"w{i}") for i, array in enumerate(self.weights)]
        operands = [*names, *(tensor.name for tensor in weights)]
        values = [
            helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(np.dtype(one.dtype)), [rows, COLUMNS])
            for name, one in zip(names, self.inputs, strict=True)
        ]
        node = helper.make_node(self.operator, operands, ["y"], **self.attributes)
        graph = helper.make_graph([node], self.operator, values, [onnx.ValueInfoProto(name="y")], weights)
        opset = OPSET_OF_SWISH if self.operator == "Swish" else OPSET
        made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
        return onnx.shape_inference.infer_shapes(made)

    def feed(self, rows: int) -> dict[str, Array]:
        """Draw the inputs, the same on every call."""
        generator = np.random.default_rng(5)
        return {f"x{i}": one.array(generator, rows) for i, one in enumerate(self.inputs)}


def _each(names: str, *inputs: Draw) -> tuple[Case, ...]:
    return tuple(Case(name, inputs) for name in names.split())


def _one(number: float, dtype: Any = np.float32) -> Array:
    return np.array(number, dtype)


def _channels(low: float) -> Array:
    return np.linspace(low, 2, COLUMNS, dtype=np.float32)


CASES = (
    *_each("Abs Ceil Floor HardSigmoid HardSwish LeakyRelu Neg Relu Round Shrink Sign", X),
    *_each("Softsign ThresholdedRelu Celu Elu Erf Exp Gelu Mish Selu Sigmoid Softplus Swish Tanh", X),
    *_each("Sinh Cosh Asinh", X),
    *_each("IsInf IsNaN", Draw(special=(np.inf, -np.inf, np.nan))),
    *_each("Sin Cos Tan Atan", ANGLE),
    *_each("Asin Acos Atanh", Draw(low=-0.99, high=0.99)),
    Case("Acosh", (Draw(low=1.0, high=9.0),)),
    *_each("Log Reciprocal Sqrt", POSITIVE),
    *_each("Add Sub Mul Max Min Sum PRelu Less LessOrEqual Greater GreaterOrEqual", X, X),
    Case("Div", (X, POSITIVE)),
    Case("Pow", (POSITIVE, X)),
    Case("Pow", (POSITIVE,), (_one(1.7),), variant="1.7"),
    Case("Pow", (X,), (_one(2.0),), variant="2"),
    Case("Mod", (X, POSITIVE), attributes={"fmod": 1}, variant="fmod"),
    *_each("Mod BitwiseAnd BitwiseOr BitwiseXor", INTEGER, INTEGER),
    Case("BitwiseNot", (INTEGER,)),
    Case("Equal", (DIGIT, DIGIT)),
    Case("BitShift", (BYTE, BYTE), attributes={"direction": "LEFT"}),
    *_each("And Or Xor", BOOL, BOOL),
    Case("Not", (BOOL,)),
    Case("Where", (BOOL, X, X)),
    Case("Clip", (X,), (_one(-1), _one(2))),
    Case("Cast", (INTEGER,), attributes={"to": onnx.TensorProto.FLOAT}),
    Case("CastLike", (INTEGER, X)),
    Case("DequantizeLinear", (BYTE,), (_one(0.25), _one(3, np.uint8))),
    Case("QuantizeLinear", (POSITIVE,), (_one(0.25), _one(3, np.uint8))),
    Case("BatchNormalization", (X,), (_channels(0.5), _channels(-1), _channels(-2), _channels(0.1))),
)
"""One case of every light and expensive operator of the rules, more where kernels differ."""
