"""The groups that a calibration measures: small graphs that between them exercise every feature of the cost model.

The text is ONNX's own. `R` and `C` are named axes, so that one kernel serves all sizes; where an operator needs sizes
that are known, the columns are 64.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import onnx_ir as ir

from sartor.share.runtime.kernel import FunctionCall
from sartor.share.shapes import infer_shapes
from sartor.tools.fuse.outline import outline, tensor_type
from sartor.tools.fuse.plan import Group

OPSET = 21

Sizes = tuple[tuple[int, int], ...]
ALL: Sizes = ((4, 8), (24, 100), (63, 63), (128, 768), (1024, 1024), (2048, 1024), (2048, 2048))
MOST: Sizes = ((4, 8), (24, 64), (128, 768), (1024, 1024))
ODD: Sizes = ((24, 100), (63, 63), (300, 45), (1000, 7))
LONG: Sizes = ((24, 64), (1000, 64), (16384, 64))
DEAR: Sizes = ((4, 8), (24, 64), (128, 768))
DIVISION: Sizes = ((4, 8), (128, 768), (512, 512))


@dataclass(frozen=True)
class Sample:
    """A group and the sizes (R, C) at which it is measured."""

    name: str
    inputs: str
    body: str
    sizes: Sizes = MOST


X = "float[R, C] x"
XZ = "float[R, C] x, float[R, C] z"
LONGS = "int64[R, C] x, int64[R, C] z"
NORM = "float[R, C] x, float[C] g, float[C] b"
TALL = "float[R, 64] x"

ROTARY = """
a = Slice(x, first, half, last) b = Slice(x, half, whole, last) n = Neg(b)
t = Concat<axis = 1>(n, a) p = Mul(x, c) q = Mul(t, s) y = Add(p, q)
"""


def _chain(inputs: str, operators: str) -> str:
    """Spell binary operators of which each takes the result before and the second input."""
    names = [inputs[0], *(f"v{i}" for i in range(operators.count(" "))), "y"]
    pairs = zip(names[1:], operators.split(), names[:-1], strict=True)
    return " ".join(f"{out} = {operator}({before}, {inputs[1]})" for out, operator, before in pairs)


SUITE = (
    Sample("add", XZ, "y = Add(x, z)", ALL),
    Sample("bias", "float[R, C] x, float[C] b", "y = Add(x, b)"),
    Sample("rows", "float[R, C] x, float[R, 1] b", "y = Mul(x, b)"),
    Sample("chain", XZ, _chain("xz", "Mul Sub Max Mul Add Min"), ALL),
    Sample("light", X, _chain("xx", "Mul Add Mul Add Mul Add Mul Add")),
    Sample("divide", XZ, "a = Abs(x) b = Sqrt(a) y = Div(z, b)"),
    Sample("gelu", X, "y = Gelu(x)", ALL),
    Sample("exp", X, "y = Exp(x)", ALL),
    Sample("gates", XZ, "a = Sigmoid(x) b = Tanh(z) y = Mul(a, b)", ALL),
    Sample("dear", X, "a = Tanh(x) b = Exp(a) c = Sigmoid(b) d = Erf(c) y = Log(d)", DEAR),
    Sample("odd", X, "a = Exp(x) y = ReduceSum<keepdims = 1>(a, last)", ODD),
    Sample("odd_gates", XZ, "a = Tanh(x) b = Sigmoid(z) c = Mul(a, b) y = Softmax(c)", ODD),
    Sample("twice", X, "a = Exp(x) y = Exp(a)"),
    Sample("erf", X, "y = Erf(x)"),
    Sample("tanh", X, "y = Tanh(x)"),
    Sample("sine", X, "y = Sin(x)"),
    Sample("power", XZ, "a = Abs(x) y = Pow(a, z)"),
    Sample("remainder", LONGS, "a = Add(z, two) y = Mod(x, a)", DIVISION),
    Sample("remainders", LONGS, "a = Add(z, two) b = Mod(x, a) c = Add(b, two) y = Mod(z, c)", DIVISION),
    Sample("select", "float[R, C] x, float[R, C] z, bool[R, C] c", "y = Where(c, x, z)"),
    Sample("compare", XZ, "y = Less(x, z)"),
    Sample("half", "float16[R, C] x, float16[R, C] z", "a = Mul(x, z) y = Add(a, z)"),
    Sample("double", "double[R, C] x, double[R, C] z", "a = Mul(x, z) y = Add(a, z)"),
    Sample("bytes", "int8[R, C] x, float[C] s, float[R, C] z", "a = Cast<to = 1>(x) b = Mul(a, s) y = Add(b, z)"),
    Sample("longs", LONGS, "a = Mul(x, z) y = Add(a, z)"),
    Sample("row_sum", X, "y = ReduceSum<keepdims = 1>(x, last)", ALL),
    Sample("row_max", X, "a = Exp(x) y = ReduceMax<keepdims = 1>(a, last)"),
    Sample("column_sum", X, "y = ReduceSum<keepdims = 1>(x, first)", ALL),
    Sample("column_norm", XZ, "a = Add(x, z) m = ReduceMean<keepdims = 1>(a, first) y = Sub(a, m)"),
    Sample("sum", X, "a = Mul(x, x) y = ReduceSum<keepdims = 0>(a)"),
    Sample("softmax", X, "y = Softmax(x)", ALL),
    Sample("mask", XZ, "a = Add(x, z) y = Softmax(a)"),
    Sample("layernorm", NORM, "y = LayerNormalization(x, g, b)", ALL),
    Sample("residual", f"{NORM}, float[R, C] z", "a = Add(x, z) y = LayerNormalization(a, g, b)", ALL),
    Sample("stack", NORM, "a = LayerNormalization(x, g, b) c = Gelu(a) y = Softmax(c)"),
    Sample("transpose", X, "y = Transpose(x)", ALL),
    Sample("tilted", XZ, "a = Transpose(x) b = Transpose(z) c = Mul(a, b) y = Gelu(c)"),
    Sample("turn", "float[R, 48] x", "y = Transpose(x)", LONG),
    Sample("turned_sum", "float[R, 48] x, float[R, 48] z", "a = Transpose(x) b = Transpose(z) y = Add(a, b)", LONG),
    Sample("heads", "float[R, 4, 16] x, float[4, R, 16] z", "a = Transpose<perm = [1, 0, 2]>(x) y = Add(a, z)", LONG),
    Sample("slice", TALL, "a = Slice(x, first, half, last) y = Gelu(a)", LONG),
    Sample("every_second", TALL, "y = Slice(x, first, whole, last, two)", LONG),
    Sample("concat", f"{TALL}, float[R, 64] z", "a = Neg(x) y = Concat<axis = 1>(a, z)", LONG),
    Sample("rotary", f"{TALL}, float[R, 64] c, float[R, 64] s", ROTARY, LONG),
    Sample("short", "float[R, 8] x", "y = Softmax(x)", LONG),
    Sample("embed", "float[1000, C] x, int64[R] i", "a = Gather(x, i) y = Mul(a, a)"),
    Sample("pick", "float[R, 100] x, int64[C] i", "y = Gather<axis = 1>(x, i)", DEAR),
    Sample("pick_exp", "float[R, 100] x, int64[C] i", "a = Gather<axis = 1>(x, i) y = Exp(a)", DEAR),
)  # fmt: skip
"""A few dozen groups; `Walk` counts each feature in several of them, in different proportions."""

_CONSTANTS = {"first": 0, "last": 1, "two": 2, "half": 32, "whole": 64}


def group_of(sample: Sample) -> Group:
    """Outline a sample as a function, as the nodes of a model's group are."""
    return whole_group(sample.name, _parsed(sample))


def whole_group(name: str, model: ir.Model) -> Group:
    """Outline all nodes of a model, whose types are known, as the function of one group."""
    nodes = tuple(node for node in model.graph if node.op_type != "Constant")
    outlined = outline(nodes, model.opset_imports[""])
    types = [None if value is None else tensor_type(value) for value in outlined.inputs]
    outputs = [kind for kind in map(tensor_type, outlined.outputs) if kind is not None]
    assert len(outputs) == len(outlined.outputs), f"{name}: a shape is not inferred"
    call = FunctionCall(outlined.function, tuple(types), tuple(outputs))
    return Group(name, model.graph, nodes, outlined.inputs, outlined.outputs, call)


def _parsed(sample: Sample) -> ir.Model:
    from onnx import parser

    head = f'<ir_version: 10, opset_import: ["" : {OPSET}]> g ({sample.inputs}) => (y)'
    body = "\n".join((*_constants(sample), sample.body))
    model = ir.from_proto(parser.parse_model(f"{head} {{\n{body}\n}}"))
    infer_shapes(model)
    return model


def _constants(sample: Sample) -> Iterator[str]:
    for name, value in _CONSTANTS.items():
        if name in sample.body:
            yield f"{name} = Constant<value = int64[1] {{{value}}}>()"
