"""What kernels refuse, what they are made of, and that they need nothing but themselves."""

from __future__ import annotations

import re
import subprocess
import sys
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
from onnx import helper
from tests.kits import fuse_kit as kit

from sartor.share.runtime.kernel import FunctionCall, TensorType
from sartor.tools.fuse.compile import assembly, compile_object
from sartor.tools.fuse.kernel import kernel_for_call, kernel_source
from sartor.tools.fuse.rules import RULES, Kind

F = np.float32
NODES = {
    "softmax": ("Softmax", ["x"], {}),
    "layernorm": ("LayerNormalization", ["x", "g", "b"], {}),
    "gelu": ("Gelu", ["x"], {}),
}
OPERANDS = {"x": (F, ["n", 768]), "g": (F, [768]), "b": (F, [768])}


def one_node(operator: str, inputs: dict[str, tuple[Any, list[int | str]]], **attributes: Any) -> FunctionCall:
    """Make the call of a function of one node."""
    node = helper.make_node(operator, list(inputs), ["y"], **attributes)
    call: FunctionCall = kit.whole(kit.model([node], inputs, ["y"], opset=24 if operator == "Swish" else 21))[1]
    return call


@pytest.mark.parametrize("index", [-8, 7, 2**40, -(2**40)])
def test_gather_refuses_an_index_out_of_range(index: int) -> None:
    """An index outside the axis is an error, not a crash."""
    kernel = kit.compiled(one_node("Gather", {"x": (F, [7, 100]), "i": (np.int64, ["n"])}))
    x = np.ones((7, 100), F)
    assert kit.call(kernel, [x, np.array([-7, 6])])[0].shape == (2, 100)
    with pytest.raises(kit.KernelFailedError, match="a task failed"):
        kit.call(kernel, [x, np.array([0, index, 1])])


@pytest.mark.parametrize(("first", "second"), [((3, 5), (3, 4)), ((3, 5), (4, 5)), ((3, 6), (3, 6)), ((0, 5), (1, 5))])
def test_plan_refuses_other_sizes(first: tuple[int, ...], second: tuple[int, ...]) -> None:
    """Sizes that contradict the types that a kernel was compiled for are refused before anything is read."""
    kernel = kit.compiled(one_node("Add", {"x": (F, ["n", 5]), "z": (F, ["n", 5])}))
    with pytest.raises(kit.KernelFailedError, match="the sizes are refused"):
        kit.call(kernel, [np.ones(first, F), np.ones(second, F)])


def test_empty_batch() -> None:
    """Where every output is empty there is nothing to do."""
    kernel = kit.compiled(one_node("Softmax", {"x": (F, ["n", 5])}))
    assert kit.call(kernel, [np.ones((0, 5), F)])[0].shape == (0, 5)


@pytest.mark.parametrize("operator", ["Softmax", "LogSoftmax"])
@pytest.mark.parametrize("shape", [(9, 5), (9, 77), (9, 300)])
@pytest.mark.parametrize("axis", [0, 1])
def test_softmax_of_special_numbers(operator: str, shape: tuple[int, int], axis: int) -> None:
    """A NaN or an infinity makes its row NaN, a row of nothing but -inf too; -inf among numbers weighs nothing."""
    x = np.random.default_rng(0).standard_normal(shape).astype(F)
    rows = x if axis == 1 else x.T
    for row, values in enumerate([(np.nan,), (-np.nan, np.inf), (np.inf,), (-np.inf,), (-np.inf, np.nan)]):
        rows[row, [(7 * row + 3 * i) % rows.shape[1] for i in range(len(values))]] = values
    if len(rows) > 6:
        rows[5:7] = [-np.inf], [np.nan]
    wide = x.astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        power = np.exp(wide - wide.max(axis, keepdims=True))
        expected = power / power.sum(axis, keepdims=True)
        expected = np.log(expected) if operator == "LogSoftmax" else expected
    kernel = kit.compiled(one_node(operator, {"x": (F, list(shape))}, axis=axis))
    np.testing.assert_allclose(kit.call(kernel, [x])[0], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("shape", [(3, 0), (0, 3), (0, 0)])
@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize(
    "operator",
    [f"Reduce{name}" for name in ["Sum", "Mean", "Max", "Min", "Prod", "L1", "L2", "LogSum", "LogSumExp", "SumSquare"]],
)
def test_reduction_of_nothing(operator: str, axis: int, shape: tuple[int, int]) -> None:
    """Over a named axis that is empty at run time a reduction gives what onnxruntime gives."""
    nodes = [
        helper.make_node("Mul", ["x", "x"], ["square"]),
        helper.make_node(operator, ["square", "axes"], ["y"], keepdims=1),
    ]
    axes = {"axes": np.array([axis], np.int64)}
    proto = kit.model(nodes, {"x": (F, ["rows", "columns"])}, ["y"], axes)
    x = np.ones(shape, F)
    (expected,) = onnxruntime.InferenceSession(proto.SerializeToString()).run(None, {"x": x})
    (found,) = kit.call(kit.compiled(kit.whole(proto)[1]), [x])
    np.testing.assert_array_equal(found, expected, strict=True)


def test_the_last_of_nothing_is_refused() -> None:
    """A kernel that reads the last element of a named axis refuses an empty one."""
    nodes = [helper.make_node("Gather", ["x", "last"], ["z"], axis=0), helper.make_node("Neg", ["z"], ["y"])]
    proto = kit.model(nodes, {"x": (F, ["n", 4])}, ["y"], {"last": np.array(-1, np.int64)})
    kernel = kit.compiled(kit.whole(proto)[1])
    np.testing.assert_array_equal(kit.call(kernel, [np.arange(8, dtype=F).reshape(2, 4)])[0], -np.arange(4, 8))
    with pytest.raises(kit.KernelFailedError, match="the sizes are refused"):
        kit.call(kernel, [np.ones((0, 4), F)])


@pytest.mark.parametrize("sizes", [(3, 4), (0, 4), (5, 0), (100, 33), (1, 1)])
def test_packed_parts(sizes: tuple[int, int]) -> None:
    """Parts of a kernel that share no value keep their own tasks, whatever their shapes; each may be empty alone."""
    nodes = [
        helper.make_node("Add", ["a", "w"], ["biased"]),
        helper.make_node("Transpose", ["biased"], ["turned"], perm=[1, 0]),
        helper.make_node("Softmax", ["c"], ["soft"]),
        helper.make_node("ReduceSum", ["d", "axes"], ["total"], keepdims=1),
        helper.make_node("Exp", ["total"], ["raised"]),
    ]
    inputs = {"a": (F, ["n", 7]), "w": (F, [7]), "c": (F, ["n", 70]), "d": (F, ["m", 5])}
    proto = kit.model(nodes, inputs, ["turned", "soft", "raised"], {"axes": np.array([0], np.int64)})
    generator, named = np.random.default_rng(1), dict(zip("nm", sizes, strict=True))
    feed = {
        name: generator.standard_normal([named.get(str(dim), dim) for dim in shape]).astype(F)
        for name, (_, shape) in inputs.items()
    }
    expected = onnxruntime.InferenceSession(proto.SerializeToString()).run(None, feed)
    outlined, call = kit.whole(proto)
    # The sum over named rows is shared among tasks: its parts are added up in a second phase.
    assert kernel_source(call)[1].count("for task in range") == 4
    found = kit.call(kit.compiled(call), [feed[str(value.name)] for value in outlined.inputs])
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


def _call(*shapes: tuple[int | str, ...]) -> FunctionCall:
    """Make the call of x + z with types that no model declares, such as 12*batch."""
    function = one_node("Add", {"x": (F, ["n", 5]), "z": (F, ["n", 5])}).function
    types = tuple(TensorType(ir.DataType.FLOAT, shape) for shape in shapes)
    return FunctionCall(function, types, types[:1])


def test_plan_solves_a_multiple() -> None:
    """A name that is known only as 12*batch is a twelfth of the size; another remainder is refused."""
    kernel = kit.compiled(_call(("12*batch", 5), ("12*batch", 5)))
    x = np.arange(120, dtype=F).reshape(24, 5)
    np.testing.assert_array_equal(kit.call(kernel, [x, x])[0], x + x)
    with pytest.raises(kit.KernelFailedError, match="the sizes are refused"):
        kit.call(kernel, [x[:23], x[:23]])


def test_plan_solves_a_product() -> None:
    """Of batch*rows and batch, rows is known."""
    kernel = kit.compiled(_call(("batch*rows", "batch"), ("batch*rows", "batch")))
    x = np.arange(18, dtype=F).reshape(6, 3)
    np.testing.assert_array_equal(kit.call(kernel, [x, x])[0], x + x)


def test_no_kernel_for_an_opaque_output() -> None:
    """A function that holds an operator without a rule has no kernel, and that is no error."""
    assert kernel_for_call(one_node("NonZero", {"x": (F, ["n", 5])})) is None


@pytest.mark.parametrize("name", NODES)
def test_vectorised_without_alias_checks(name: str) -> None:
    """Kernels use the whole width of the machine, and no run-time test for overlapping tensors guards a scalar copy."""
    operator, inputs, attributes = NODES[name]
    _, source = kernel_source(one_node(operator, {i: OPERANDS[i] for i in inputs}, **attributes))
    text = assembly(source)
    assert re.search(r"[yz]mm\d", text)
    assert re.search(r"v(fmadd\w+|mul|add)ps", text)
    assert "vector.memcheck" not in text


def test_no_run_time_checks_in_ir() -> None:
    """Loops are not versioned: every access carries its scope."""
    from sartor.tools.fuse.compile import llvm_ir

    _, source = kernel_source(one_node("LayerNormalization", {name: OPERANDS[name] for name in ("x", "g", "b")}))
    text = llvm_ir(source)
    assert "vector.body" in text
    assert "vector.memcheck" not in text


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("name", [*sorted(n for n, one in RULES.items() if one.kind is Kind.EXPENSIVE), "Mod"])
def test_no_kernel_calls_the_c_library(name: str, dtype: Any) -> None:
    """What is computed in float32 is vectorised, and calls nothing but what it brings along."""
    pair = {"x": (dtype, ["n", 768]), "z": (dtype, ["n", 768])}
    inputs = pair if name in ("Pow", "Mod") else {"x": pair["x"]}
    text = assembly(kernel_source(one_node(name, inputs, **({"fmod": 1} if name == "Mod" else {})))[1])
    called = set(re.findall(r"^\s+callq?\s+\*?([\w.$]+)", text, re.MULTILINE))
    defined = set(re.findall(r"^([\w.$]+):", text, re.MULTILINE))
    assert called <= defined, called - defined
    assert re.search(r"[yz]mm\d", text)


RELOAD = """
import ctypes, sys
import numpy as np
from sartor.share.cache import get
from sartor.share.kernels.machine import link, object_code
address, owner = link(object_code(sys.argv[1], get(sys.argv[1])))
function = ctypes.CFUNCTYPE(ctypes.c_int64, *[ctypes.c_void_p] * 4, ctypes.c_int64, ctypes.c_int64)(address)
x, y, dims = np.full(100, 0.5), np.zeros(100), np.array([100])
pointers = [(ctypes.c_void_p * 1)(array.ctypes.data) for array in (x, y)]
assert function(*pointers, dims.ctypes.data, None, 0, 1) == 0
assert "numba" not in sys.modules
print(y[99])
"""


def test_cached_kernel_needs_no_numba() -> None:
    """A process that never imports numba runs a kernel from the cache, the C library's functions included."""
    from sartor.tools.fuse.compile import object_name

    _, source = kernel_source(one_node("Sin", {"x": (np.float64, ["n"])}))
    compile_object(source)
    done = subprocess.run([sys.executable, "-c", RELOAD, object_name(source)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) == pytest.approx(np.sin(0.5), rel=1e-15)
