"""Samples of every operator that has a rule: nodes, inputs and weights, most of them with sizes known at run time only.

Types are numpy's; float32 stands for the floating type under test. Named sizes are n and m.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from onnx import NodeProto, helper

Array = np.ndarray[Any, Any]
F, I32, I64, U8, BOOL = np.float32, np.int32, np.int64, np.uint8, np.bool_
FLOATS = (np.float32, np.float64, np.float16)
GIVEN: tuple[Any, ...] = ()
"""The types of the inputs are what they say."""

Inputs = dict[str, tuple[Any, Sequence[int | str]]]


@dataclass(frozen=True)
class Sample:
    """One node with what it needs; `types` are the floating types to try, `low` and `high` bound its random inputs."""

    label: str
    node: NodeProto
    inputs: Inputs
    weights: dict[str, Array] = field(default_factory=dict)
    opset: int = 21
    types: tuple[Any, ...] = FLOATS
    low: float = -4.0
    high: float = 4.0
    special: bool = False

    @property
    def operator(self) -> str:
        """The type of the node."""
        return self.node.op_type


def sample(operator: str, inputs: Inputs, label: str = "", outputs: int = 1, **options: Any) -> Sample:
    """Make a sample; options that Sample does not know are attributes."""
    known = {name: options.pop(name) for name in list(options) if name in Sample.__dataclass_fields__}
    weights = known.pop("weights", {})
    order = options.pop("order", [*inputs, *weights])
    node = helper.make_node(operator, order, [f"y{i}" for i in range(outputs)], **options)
    return Sample(f"{operator}{'-' if label else ''}{label}", node, inputs, weights, **known)


def ints(*numbers: int) -> Array:
    """Return a vector of int64."""
    return np.array(numbers, np.int64)


def _unary() -> list[Sample]:
    x: Inputs = {"x": (F, ["n"])}
    plain = [
        "Neg", "Abs", "Sign", "Floor", "Ceil", "Round", "Exp", "Tanh", "Sigmoid", "Erf", "Sin", "Cos", "Tan", "Atan",
        "Sinh", "Cosh", "Asinh", "Relu", "LeakyRelu", "ThresholdedRelu", "Elu", "Celu", "Selu", "HardSigmoid",
        "HardSwish", "Softplus", "Mish", "Softsign", "Shrink", "Gelu", "Reciprocal", "Identity", "Dropout",
    ]  # fmt: skip
    ranged = {"Sqrt": (0.0, 9.0), "Log": (0.0, 9.0), "Asin": (-1.0, 1.0), "Acos": (-1.0, 1.0), "Acosh": (1.0, 9.0)}
    ranged["Atanh"] = (-0.99, 0.99)
    single = {"Mish": (np.float32, np.float64), "Celu": (np.float32,), "Swish": (np.float32,)}
    out = [sample(name, x, special=True, types=single.get(name, FLOATS)) for name in plain]
    out += [sample(name, x, low=low, high=high, special=True) for name, (low, high) in ranged.items()]
    out += [
        sample("Gelu", x, "tanh", approximate="tanh", special=True),
        sample("Swish", x, opset=24, special=True),
        sample("Swish", x, "alpha", opset=24, alpha=1.5, special=True),
        sample("Celu", x, "alpha", alpha=2.0, types=(F,)),
        sample("Elu", x, "alpha", alpha=0.5),
        sample("LeakyRelu", x, "alpha", alpha=0.3),
        sample("HardSigmoid", x, "alpha", alpha=0.3, beta=0.4),
        sample("Shrink", x, "bias", bias=0.5, lambd=1.5),
        sample("ThresholdedRelu", x, "alpha", alpha=2.0),
        sample("IsNaN", x, special=True),
        sample("IsInf", x, special=True, types=(np.float32, np.float64)),
        sample("IsInf", x, "positive", special=True, detect_negative=0, types=(np.float32,)),
        sample("IsInf", x, "negative", special=True, detect_positive=0, types=(np.float32,)),
        sample("Not", {"x": (BOOL, ["n"])}, types=GIVEN),
        sample("BitwiseNot", {"x": (I32, ["n"])}, types=GIVEN),
        sample("BitwiseNot", {"x": (U8, ["n"])}, "uint8", types=GIVEN),
    ]
    out += [
        sample(name, {"x": (kind, ["n"])}, np.dtype(kind).name, types=GIVEN)
        for name in ("Abs", "Neg", "Sign")
        for kind in (np.int8, I32, I64)
    ]
    return out


def _binary() -> list[Sample]:
    pair: Inputs = {"x": (F, ["n", 5]), "z": (F, [5])}
    column: Inputs = {"x": (F, [3, "n", 1]), "z": (F, ["n", 7])}
    out = [sample(name, pair, special=True) for name in ("Add", "Sub", "Mul", "Div", "Max", "Min", "Less", "Equal")]
    out += [sample(name, column, "column") for name in ("Add", "Greater", "GreaterOrEqual", "LessOrEqual")]
    out += [
        sample(name, {"x": (kind, [3, "n"]), "z": (kind, ["n"])}, np.dtype(kind).name, types=GIVEN)
        for name in ("Add", "Sub", "Mul", "Div", "Max", "Min", "Less", "Equal")
        for kind in (I32, I64, U8, np.int8, np.uint64)
    ]
    out += [
        sample(name, {"x": (BOOL, [3, "n"]), "z": (BOOL, ["n"])}, types=GIVEN) for name in ("And", "Or", "Xor", "Equal")
    ]
    out += [
        sample(name, {"x": (kind, [3, "n"]), "z": (kind, ["n"])}, np.dtype(kind).name, types=GIVEN)
        for name in ("BitwiseAnd", "BitwiseOr", "BitwiseXor")
        for kind in (I32, U8)
    ]
    out += [
        sample("BitShift", {"x": (kind, ["n"]), "z": (kind, ["n"])}, f"{way}-{np.dtype(kind).name}".lower(),
               direction=way, types=GIVEN)
        for way in ("LEFT", "RIGHT")
        for kind in (U8, np.uint64)
    ]  # fmt: skip
    out += [
        sample("Mod", {"x": (kind, [3, "n"]), "z": (kind, ["n"])}, f"{np.dtype(kind).name}-{way}", fmod=way,
               types=GIVEN)
        for way in (0, 1)
        for kind in (I32, I64, U8, np.int8)
    ]  # fmt: skip
    out += [
        sample("Mod", pair, "float", fmod=1),
        sample("Sum", {"x": (F, ["n", 5]), "z": (F, [5]), "w": (F, ["n", 1])}, "three"),
        sample("Sum", {"x": (F, ["n"])}, "one"),
        sample("Max", {"x": (F, ["n", 5]), "z": (F, [5]), "w": (F, ["n", 1])}, "three"),
        sample("Min", {"x": (F, ["n"])}, "one"),
        sample("PRelu", pair),
        sample("Where", {"c": (BOOL, ["n", 1]), "x": (F, ["n", 5]), "z": (F, [5])}),
        sample("Where", {"c": (BOOL, ["n"]), "x": (I64, ["n"]), "z": (I64, ["n"])}, "int64", types=GIVEN),
    ]
    return out


def _powers() -> list[Sample]:
    x: Inputs = {"x": (F, ["n"])}
    out = [
        sample("Pow", x, f"{exponent}".replace(".", "_"), weights={"z": np.array(exponent, F)}, low=0.1)
        for exponent in (2.0, 3.0, 0.5, -1.0, 1.7)
    ]
    out += [
        sample("Pow", {"x": (F, ["n", 5]), "z": (F, [5])}, low=0.1),
        sample("Pow", {"x": (I32, ["n"])}, "int-square", weights={"z": np.array(2, I32)}, types=GIVEN),
        sample("Pow", {"x": (I64, ["n"])}, "int-sixth", weights={"z": np.array(6, I64)}, types=GIVEN),
        sample("Pow", {"x": (F, ["n"])}, "int-exponent", weights={"z": np.array(4, I64)}),
    ]
    return out


def _conversions() -> list[Sample]:
    types = (np.float32, np.float64, np.float16, np.int8, I32, I64, U8, BOOL)
    out = [
        sample("Cast", {"x": (a, ["n"])}, f"{np.dtype(a).name}-{np.dtype(b).name}", types=GIVEN, low=0.0, high=100.0,
               to=helper.np_dtype_to_tensor_dtype(np.dtype(b)))
        for a in types
        for b in types
        if a is not b
    ]  # fmt: skip
    channel: Inputs = {"x": (np.int8, ["n", 6, 5]), "s": (F, [6]), "z": (np.int8, [6])}
    real: Inputs = {"x": (F, ["n", 6, 5]), "s": (F, [6]), "z": (U8, [6])}
    out += [
        sample("CastLike", {"x": (I32, ["n"]), "z": (F, [1])}, types=GIVEN),
        sample("Clip", {"x": (F, ["n"]), "l": (F, []), "h": (F, [])}, low=-1.0),
        sample("Clip", {"x": (F, ["n"])}, "constant", weights={"l": np.array(-1, F), "h": np.array(2, F)}),
        sample("Clip", {"x": (F, ["n"])}, "upper", weights={"h": np.array(2, F)}, order=["x", "", "h"]),
        sample("Clip", {"x": (F, ["n"])}, "attributes", opset=6, min=-1.0, max=2.0),
        sample("Clip", {"x": (I64, ["n"])}, "int64", weights={"l": np.array(2), "h": np.array(5)}, types=GIVEN),
        sample("DequantizeLinear", channel, axis=1, types=(F,)),
        sample("DequantizeLinear", {"x": (U8, ["n"]), "s": (F, [])}, "whole", types=(F,)),
        sample("QuantizeLinear", real, axis=1, types=GIVEN, low=0.5, high=100.0),
        sample("QuantizeLinear", {"x": (F, ["n"]), "s": (F, [])}, "whole", types=GIVEN, low=0.5, high=100.0),
    ]
    return out


def _movement() -> list[Sample]:
    cube: Inputs = {"x": (F, ["n", 6, 8])}
    fixed: Inputs = {"x": (F, [4, 6, 63])}
    top = np.iinfo(np.int64).max
    out = [
        sample("Transpose", cube, "reverse"),
        sample("Transpose", cube, "perm", perm=[1, 0, 2]),
        sample("Transpose", fixed, "static", perm=[0, 2, 1]),
        sample("Reshape", cube, "join", weights={"s": ints(0, -1)}),
        sample("Reshape", cube, "split", weights={"s": ints(-1, 3, 2, 8)}),
        sample("Reshape", cube, "flat", weights={"s": ints(-1)}),
        sample("Reshape", fixed, "regroup", weights={"s": ints(2, 12, 63)}),
        sample("Flatten", cube),
        sample("Flatten", cube, "negative", axis=-1),
        sample("Flatten", fixed, "all", axis=0),
        sample("Squeeze", {"x": (F, ["n", 1, 5, 1])}, weights={"a": ints(1, -1)}),
        sample("Squeeze", {"x": (F, [3, 1, 5])}, "all"),
        sample("Squeeze", {"x": (F, ["n", 1, 5])}, "attribute", opset=11, axes=[1]),
        sample("Unsqueeze", cube, weights={"a": ints(0, -1)}),
        sample("Unsqueeze", cube, "attribute", opset=11, axes=[0, 2]),
        sample("Expand", {"x": (F, ["n", 1, 5])}, weights={"s": ints(1, 7, 1)}),
        sample("Expand", {"x": (F, [5])}, "rank", weights={"s": ints(3, 4, 5)}),
        sample("Slice", fixed, weights={"b": ints(1, 2), "e": ints(4, 60), "a": ints(0, 2)}),
        sample(
            "Slice", fixed, "steps", weights={"b": ints(-1, 60), "e": ints(-top, 3), "a": ints(1, 2), "s": ints(-1, -3)}
        ),
        sample("Slice", fixed, "clamped", weights={"b": ints(-100), "e": ints(100), "a": ints(1)}),
        sample("Slice", fixed, "attributes", opset=9, starts=[1, -3], ends=[top, top], axes=[1, 2]),
        sample("Slice", cube, "last", weights={"b": ints(-1), "e": ints(top), "a": ints(0)}),
        sample("Slice", cube, "reversed", weights={"b": ints(-1), "e": ints(-top), "a": ints(0), "s": ints(-1)}),
        sample("Split", fixed, outputs=3, weights={"s": ints(1, 3, 2)}, axis=1),
        sample("Split", fixed, "equal", outputs=2, num_outputs=2),
        sample("Split", {"x": (F, [7, 5])}, "uneven", outputs=3, num_outputs=3),
        sample("Split", fixed, "attribute", outputs=2, opset=11, split=[20, 43], axis=-1),
        sample("Concat", {"x": (F, ["n", 3, 5]), "z": (F, ["n", 4, 5]), "w": (F, ["n", 1, 5])}, axis=1),
        sample("Concat", {"x": (F, [2, 63]), "z": (F, [3, 63])}, "rows", axis=0),
        sample("Concat", {"x": (F, ["n", 7]), "z": (F, ["n", 9])}, "last", axis=-1),
        sample("Gather", {"x": (F, ["m", 6]), "i": (I64, ["n", 2])}, "rows"),
        sample("Gather", {"x": (F, [6, 5]), "i": (I32, [3])}, "columns", axis=1),
        sample("Gather", fixed, "constant", weights={"i": np.array(-2)}, axis=1),
        sample("Gather", cube, "vector", weights={"i": ints(3)}, axis=2),
        sample("Pad", fixed, weights={"p": ints(1, 0, 2, 0, 3, 0), "v": np.array(1.5, F)}),
        sample("Pad", fixed, "axes", order=["x", "p", "", "a"], weights={"p": ints(1, 2), "a": ints(-1)}),
        sample("Pad", fixed, "attribute", opset=2, pads=[0, 1, 0, 0, 0, 2], value=2.0),
        sample("Trilu", cube),
        sample("Trilu", cube, "lower", weights={"k": np.array(1)}, upper=0),
        sample("Trilu", {"x": (I64, [5, 4])}, "int64", weights={"k": np.array(-1)}, types=GIVEN),
    ]
    return out


def _reductions() -> list[Sample]:
    cube: Inputs = {"x": (F, ["n", 6, "m"])}
    names = ["ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceL1", "ReduceL2"]
    names += ["ReduceSumSquare", "ReduceLogSum", "ReduceLogSumExp"]
    out = [
        sample(name, cube, "last", weights={"a": ints(-1)}, low=0.5 if name in ("ReduceProd", "ReduceLogSum") else -4.0,
               high=1.5 if name == "ReduceProd" else 4.0)
        for name in names
    ]  # fmt: skip
    for label, axes, keep in (("first", (0,), 0), ("ends", (0, 2), 1), ("middle", (1,), 0), ("tail", (1, 2), 1)):
        out += [
            sample(name, cube, label, weights={"a": ints(*axes)}, keepdims=keep, types=(F,))
            for name in ("ReduceSum", "ReduceMax", "ReduceLogSumExp")
        ]
    out += [
        sample("ReduceSum", cube, "all", types=(np.float64,)),
        sample("ReduceSum", cube, "noop", noop_with_empty_axes=1),
        sample("ReduceMean", cube, "attribute", opset=13, axes=[-1], keepdims=0),
        sample("ReduceMax", {"x": (BOOL, ["n", 6])}, "bool", opset=20, weights={"a": ints(1)}, types=GIVEN),
        sample("ReduceMin", {"x": (BOOL, ["n", 6])}, "bool", opset=20, weights={"a": ints(0)}, types=GIVEN),
        sample("GlobalAveragePool", {"x": (F, ["n", 3, 7, "m"])}),
        sample("GlobalMaxPool", {"x": (F, ["n", 3, 7, "m"])}),
    ]
    out += [
        sample(name, {"x": (kind, ["n", 6])}, np.dtype(kind).name, weights={"a": ints(1)}, types=GIVEN)
        for name in ("ReduceSum", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceL1", "ReduceSumSquare")
        for kind in (I32, I64)
    ]
    return out


def _norms() -> list[Sample]:
    rows: Inputs = {"x": (F, ["n", 3, "m"])}
    image: Inputs = {"x": (F, ["n", 6, 5, "m"])}
    gain: Inputs = {"g": (F, ["m"]), "b": (F, ["m"])}
    scale: Inputs = {"g": (F, [6]), "b": (F, [6])}
    state: Inputs = {**scale, "u": (F, [6]), "v": (F, [6])}
    return [
        sample("Softmax", rows),
        sample("Softmax", rows, "middle", axis=1),
        sample("Softmax", rows, "first", axis=0, types=(F,)),
        sample("Softmax", rows, "11", axis=1, opset=11),
        sample("LogSoftmax", rows),
        sample("LogSoftmax", rows, "11", axis=1, opset=11, types=(F,)),
        sample("LayerNormalization", rows | gain),
        sample("LayerNormalization", rows | gain, "statistics", outputs=3, types=(F,)),
        sample("LayerNormalization", {"x": (F, ["n", 3, 63]), "g": (F, [3, 63])}, "two-axes", axis=-2, types=(F,)),
        sample("RMSNormalization", rows | {"g": (F, ["m"])}, opset=23),
        sample("BatchNormalization", image | state, low=0.5, types=(np.float32, np.float64)),
        sample("InstanceNormalization", image | scale),
        sample("GroupNormalization", {"x": (F, [4, 6, 5, 7]), **scale}, num_groups=3, types=(F,)),
        sample("MeanVarianceNormalization", image, opset=13),
        sample("MeanVarianceNormalization", rows, "axes", opset=13, axes=[-1]),
        sample("LpNormalization", rows, axis=-1),
        sample("LpNormalization", rows, "l1", p=1, axis=0),
    ]


SAMPLES = [*_unary(), *_binary(), *_powers(), *_conversions(), *_movement(), *_reductions(), *_norms()]
"""All samples."""
