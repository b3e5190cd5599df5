"""Which executor is asked, and for what."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import helper
from tests.kits import runtime_kit as kit

from sartor.share.runtime import kernels_of, load, registry
from sartor.share.runtime.kernel import FunctionCall, Kernel, TensorType
from sartor.share.runtime.select import select_kernels


@pytest.fixture
def asked() -> Iterator[list[FunctionCall]]:
    """Register an executor that takes every call, and return the calls."""
    calls: list[FunctionCall] = []

    def take(call: FunctionCall) -> Kernel:
        calls.append(call)
        return Kernel(kit.DOMAIN, call.function.name, 1, call.inputs, call.outputs, owner=None)

    registry.register(kit.DOMAIN, take)
    yield calls
    registry.unregister(kit.DOMAIN)


def read(proto: onnx.ModelProto) -> ir.Model:
    """Return a model as tools see it."""
    return ir.serde.deserialize_model(proto)


def test_types_are_inferred_where_the_model_has_none(asked: list[FunctionCall]) -> None:
    proto = kit.chain(3)
    assert len(select_kernels(read(proto))) == 1
    matrix = TensorType(ir.DataType.FLOAT, ("rows", "width"))
    assert [(call.inputs, call.outputs) for call in asked] == [((matrix, matrix), (matrix,))]


def test_equal_patterns_of_sizes_ask_once(asked: list[FunctionCall]) -> None:
    nodes = [kit.call("g_both", ["x"], ["a", "b"]), kit.call("g_both", ["y"], ["c", "d"])]
    outputs = [kit.info("b", ["n"]), kit.info("d", ["m"])]
    assert len(select_kernels(read(kit.model(nodes, [kit.info("x", ["n"]), kit.info("y", ["m"])], outputs)))) == 1
    assert len(asked) == 1


def test_unknown_ranks_are_not_asked_for(asked: list[FunctionCall]) -> None:
    nodes = [helper.make_node("Reshape", ["x", "sizes"], ["r"]), kit.call("g_both", ["r"], ["y", "z"])]
    nodes.append(helper.make_node("ReduceSum", ["z"], ["sum"], keepdims=0))
    proto = kit.model(nodes, [kit.info("x", ["n"]), kit.info("sizes", ["k"], kit.INT64)], [kit.info("sum", [])])
    assert select_kernels(read(proto)) == ()
    assert asked == []


def test_functions_that_operators_cannot_stand_for_are_not_asked_for(asked: list[FunctionCall]) -> None:
    attributed = kit.function("attributed", ["x"], ["y"], [helper.make_node("Identity", ["x"], ["y"])])
    attributed.attribute.append("alpha")
    overloaded = [kit.function("overloaded", ["x"], ["y"], [helper.make_node("Abs", ["x"], ["y"])]) for _ in "ab"]
    overloaded[1].overload = "b"
    proto = kit.model([kit.call("g_scalar", ["x"], ["y"])], [kit.info("x", [])], [kit.info("y", [])])
    proto.functions.extend([attributed, *overloaded])
    proto.graph.node.extend([kit.call("attributed", ["x"], ["p"]), kit.call("overloaded", ["x"], ["q"])])
    assert [kernel.name for kernel in select_kernels(read(proto))] == ["g_scalar"]


def test_a_call_that_drops_an_output_runs_the_body(asked: list[FunctionCall]) -> None:
    proto = kit.model([kit.call("g_both", ["x"], ["", "b"])], [kit.info("x", ["n"])], [kit.info("b", ["n"])])
    assert select_kernels(read(proto)) == ()


def test_calls_in_the_body_of_a_refused_function_count() -> None:
    outer = kit.function("outer", ["x"], ["y"], [kit.call("g_add", ["x", "x"], ["y"])])
    nodes = [kit.call("g_add", ["x", "x"], ["y"]), kit.call("outer", ["i"], ["j"])]
    inputs = [kit.info("x", ["b", "n"]), kit.info("i", ["b", "n"], onnx.TensorProto.DOUBLE)]
    outputs = [kit.info("y", ["b", "n"]), kit.info("j", ["b", "n"], onnx.TensorProto.DOUBLE)]
    proto = kit.model(nodes, inputs, outputs, functions=[outer])
    registry.register(kit.DOMAIN, kit.executor)
    session = load(proto.SerializeToString())
    registry.unregister(kit.DOMAIN)
    x = np.ones((2, 3), np.float32)
    y, j = session.run(None, {"x": x, "i": x.astype(np.float64)})
    assert kernels_of(session) == ()
    np.testing.assert_array_equal(y, 2 * x)
    np.testing.assert_array_equal(j, 2 * x)


def test_a_failing_executor_warns_and_leaves_the_body() -> None:
    def fail(call: FunctionCall) -> Kernel:
        raise KeyError("oops")

    registry.register(kit.DOMAIN, fail)
    with pytest.warns(RuntimeWarning, match=r"g_add: no kernel \(KeyError: 'oops'\)"):
        assert select_kernels(read(kit.chain(1))) == ()
    registry.unregister(kit.DOMAIN)


def test_a_kernel_for_another_call_is_not_taken() -> None:
    registry.register(kit.DOMAIN, lambda call: Kernel(kit.DOMAIN, "g_other", 1, call.inputs, call.outputs, None))
    with pytest.warns(RuntimeWarning, match="another call"):
        assert select_kernels(read(kit.chain(1))) == ()
    registry.unregister(kit.DOMAIN)


def test_entry_points_name_executors(monkeypatch: pytest.MonkeyPatch) -> None:
    points = [
        SimpleNamespace(name="other.kernels", value="math:floor"),
        SimpleNamespace(name="bad.kernels", value="no:no"),
    ]
    monkeypatch.setattr("importlib.metadata.entry_points", lambda group: points if group == "sartor.executors" else [])
    registry._entry_points.cache_clear()
    assert registry.executor_for("other.kernels") is not None
    assert registry.executor_for("unheard.of") is None
    with pytest.warns(RuntimeWarning, match="no:no: cannot be imported"):
        assert registry.executor_for("bad.kernels") is None
    registry._entry_points.cache_clear()
    registry._imported.cache_clear()


def test_the_model_of_the_caller_is_left_alone(asked: list[FunctionCall]) -> None:
    outer = kit.function("outer", ["x"], ["y"], [kit.call("g_add", ["x", "x"], ["y"])])
    types = [kit.info("x", ["b", "n"])], [kit.info("z", ["b", "n"])]
    nodes = [kit.call("outer", ["x"], ["y"]), kit.call("g_add", ["y", "y"], ["z"])]
    model = read(kit.model(nodes, *types, functions=[outer]))
    before = ir.serde.serialize_model(model).SerializeToString(deterministic=True)
    select_kernels(model)
    assert ir.serde.serialize_model(model).SerializeToString(deterministic=True) == before
    assert {call.function.name for call in asked} == {"outer", "g_add"}
