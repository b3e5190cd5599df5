"""Kernels written by hand, functions with other results than theirs, and models that call them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
from numba import carray, cfunc, types
from onnx import TensorProto, helper

from sartor.share.runtime.kernel import FunctionCall, Kernel

DOMAIN = "test.kernels"
FLOAT, FLOAT16, INT64, BOOL = TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.INT64, TensorProto.BOOL
MARK = 1000
"""What the kernels add and the functions' bodies do not."""


def signature(element: Any) -> Any:
    """Return the type of a kernel over tensors of one element type."""
    tensors = types.CPointer(types.CPointer(element))
    sizes = types.CPointer(types.int64)
    return types.int64(tensors, tensors, sizes, types.CPointer(types.int64), types.int64, types.int64)


def _add(inputs: Any, outputs: Any, dims: Any, scratch: Any, begin: int, end: int) -> int:
    """Add two matrices and the mark, row by row."""
    rows, width = dims[0], dims[1]
    if begin == -1:
        if dims[2] != rows or dims[3] != width:
            return 1
        scratch[0], scratch[1], scratch[2], scratch[3], scratch[4] = rows, 0, 12 * rows * width, rows, width
        return 0
    a, b = carray(inputs[0], (rows * width,)), carray(inputs[1], (rows * width,))
    c = carray(outputs[0], (rows * width,))
    for i in range(begin * width, end * width):
        c[i] = a[i] + b[i] + 1000
    return 0


def _rows(inputs: Any, outputs: Any, dims: Any, scratch: Any, begin: int, end: int) -> int:
    """Sum each row in scratch memory, add the mark."""
    rows, width = dims[0], dims[1]
    if begin == -1:
        scratch[0], scratch[1], scratch[2], scratch[3] = rows, 8 * width, 4 * rows * width, rows
        return 0
    x, sums = carray(inputs[0], (rows, width)), carray(outputs[0], (rows,))
    row = carray(scratch, (max(width, 1),))
    for r in range(begin, end):
        total = 0
        for i in range(width):
            row[i] = np.int64(x[r, i])
        for i in range(width):
            total += row[i]
        sums[r] = total + 1000
    return 0


def _both(inputs: Any, outputs: Any, dims: Any, scratch: Any, begin: int, end: int) -> int:
    """Give a vector plus the mark, and its double plus the mark."""
    if begin == -1:
        scratch[0], scratch[1], scratch[2], scratch[3], scratch[4] = dims[0], 0, 12 * dims[0], dims[0], dims[0]
        return 0
    x = carray(inputs[0], (dims[0],))
    more, double = carray(outputs[0], (dims[0],)), carray(outputs[1], (dims[0],))
    for i in range(begin, end):
        more[i] = x[i] + 1000
        double[i] = 2 * x[i] + 1000
    return 0


def _scalar(inputs: Any, outputs: Any, dims: Any, scratch: Any, begin: int, end: int) -> int:
    """Add the mark to a scalar."""
    if begin == -1:
        scratch[0], scratch[1], scratch[2] = 1, 0, 8
        return 0
    carray(outputs[0], (1,))[0] = carray(inputs[0], (1,))[0] + 1000
    return 0


def _negate_half(inputs: Any, outputs: Any, dims: Any, scratch: Any, begin: int, end: int) -> int:
    """Flip the sign bits of half precision numbers."""
    if begin == -1:
        scratch[0], scratch[1], scratch[2], scratch[3] = dims[0], 0, 4 * dims[0], dims[0]
        return 0
    x, y = carray(inputs[0], (dims[0],)), carray(outputs[0], (dims[0],))
    for i in range(begin, end):
        y[i] = x[i] ^ 0x8000
    return 0


def _optional(inputs: Any, outputs: Any, dims: Any, scratch: Any, begin: int, end: int) -> int:
    """Add the mark to a vector whose partner, the first input, is absent."""
    if begin == -1:
        scratch[0], scratch[1], scratch[2], scratch[3] = dims[0], 0, 8 * dims[0], dims[0]
        return 0
    x, y = carray(inputs[1], (dims[0],)), carray(outputs[0], (dims[0],))
    for i in range(begin, end):
        y[i] = x[i] + 1000
    return 0


def _refuse(inputs: Any, outputs: Any, dims: Any, scratch: Any, begin: int, end: int) -> int:
    """Accept no sizes."""
    return 1


def _fail(inputs: Any, outputs: Any, dims: Any, scratch: Any, begin: int, end: int) -> int:
    """Accept all sizes of a vector and give up in the middle."""
    if begin == -1:
        scratch[0], scratch[1], scratch[2], scratch[3] = dims[0], 0, 8 * dims[0], dims[0]
        return 0
    return 1


@functools.cache
def compiled(function: Callable[..., int], element: Any) -> Any:
    """Return the machine code of a kernel for one element type."""
    return cfunc(signature(element))(function)


KERNELS: dict[tuple[str, int], tuple[Callable[..., int], Any]] = {
    ("g_add", FLOAT): (_add, types.float32),
    ("g_add", INT64): (_add, types.int64),
    ("g_rows", FLOAT): (_rows, types.float32),
    ("g_both", FLOAT): (_both, types.float32),
    ("g_scalar", FLOAT): (_scalar, types.float32),
    ("g_half", FLOAT16): (_negate_half, types.uint16),
    ("g_optional", FLOAT): (_optional, types.float32),
    ("g_refuse", FLOAT): (_refuse, types.float32),
    ("g_fail", FLOAT): (_fail, types.float32),
}


def executor(call: FunctionCall) -> Kernel | None:
    """Return the hand-written kernel for a call, if there is one for its last input's element type."""
    last = call.inputs[-1]
    found = KERNELS.get((call.function.name, int(last.dtype))) if last is not None else None
    if found is None or (call.function.name == "g_optional" and call.inputs[0] is not None):
        return None
    code = compiled(*found)
    return Kernel(DOMAIN, call.function.name, code.address, call.inputs, call.outputs, owner=code)


def function(
    name: str, inputs: Sequence[str], outputs: Sequence[str], nodes: Sequence[onnx.NodeProto]
) -> onnx.FunctionProto:
    """Return a function of the test domain."""
    imports = [helper.make_opsetid("", 20), helper.make_opsetid(DOMAIN, 1)]
    return helper.make_function(DOMAIN, name, inputs, outputs, nodes, imports)


def _simple(name: str, operator: str, inputs: Sequence[str] = ("x",)) -> onnx.FunctionProto:
    """Return a function of one node."""
    return function(name, inputs, ["y"], [helper.make_node(operator, inputs, ["y"])])


FUNCTIONS = {
    "g_add": _simple("g_add", "Add", ("a", "b")),
    "g_scalar": _simple("g_scalar", "Identity"),
    "g_half": _simple("g_half", "Identity"),
    "g_refuse": _simple("g_refuse", "Identity"),
    "g_fail": _simple("g_fail", "Identity"),
    "g_optional": function("g_optional", ["w", "x"], ["y"], [helper.make_node("Identity", ["x"], ["y"])]),
    "g_rows": function(
        "g_rows",
        ["x"],
        ["y"],
        [
            helper.make_node("Constant", [], ["axes"], value_ints=[1]),
            helper.make_node("ReduceSum", ["x", "axes"], ["y"], keepdims=0),
        ],
    ),
    "g_both": function(
        "g_both",
        ["x"],
        ["y", "z"],
        [helper.make_node("Identity", ["x"], ["y"]), helper.make_node("Add", ["x", "x"], ["z"])],
    ),
}


def call(name: str, inputs: Sequence[str], outputs: Sequence[str]) -> onnx.NodeProto:
    """Return a call of a function of the test domain."""
    return helper.make_node(name, inputs, outputs, domain=DOMAIN)


def info(name: str, shape: Sequence[int | str | None] | None, element: int = FLOAT) -> onnx.ValueInfoProto:
    """Return the type of a graph's input or output."""
    return helper.make_tensor_value_info(name, element, shape)


def model(
    nodes: Sequence[onnx.NodeProto],
    inputs: Sequence[onnx.ValueInfoProto],
    outputs: Sequence[onnx.ValueInfoProto],
    initializers: Sequence[onnx.TensorProto] = (),
    functions: Sequence[onnx.FunctionProto] = (),
) -> onnx.ModelProto:
    """Return a checked model with the functions that its nodes call, and those given."""
    graph = helper.make_graph(nodes, "graph", inputs, outputs, initializers)
    imports = [helper.make_opsetid("", 20), helper.make_opsetid(DOMAIN, 1)]
    named = {f.name: f for f in functions}
    complete = helper.make_model(
        graph, opset_imports=imports, functions=[*{**FUNCTIONS, **named}.values()], ir_version=10
    )
    onnx.checker.check_model(complete)
    return complete


def chain(length: int, rows: int | str = "rows", width: int | str = "width") -> onnx.ModelProto:
    """Return a model of `length` additions of y, one after the other, without the types between."""
    names = ["x", *(f"t{i}" for i in range(1, length)), "z"]
    nodes = [call("g_add", [names[i], "y"], [names[i + 1]]) for i in range(length)]
    return model(nodes, [info("x", [rows, width]), info("y", [rows, width])], [info("z", [rows, width])])
