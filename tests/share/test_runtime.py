"""Sessions with kernels, through the custom-op library and through segments alike."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from onnx import helper, numpy_helper
from tests.kits import runtime_kit as kit

from sartor.share.errors import InputRefusedError, UnavailableError, UsageError
from sartor.share.runtime import kernels_of, library, load, registry
from sartor.share.runtime.kernel import FunctionCall, Kernel
from sartor.share.runtime.segments import SegmentedSession


@pytest.fixture(autouse=True)
def executor() -> Iterator[None]:
    """Register the hand-written kernels."""
    registry.register(kit.DOMAIN, kit.executor)
    yield
    registry.unregister(kit.DOMAIN)


@pytest.fixture(params=["library", "segments"])
def runtime(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Run a test through the library and through segments."""
    name: str = request.param
    monkeypatch.setenv("SARTOR_RUNTIME", name)
    if name == "library" and library.library_path() is None:
        pytest.skip(library.library_status())
    return name


def random(*shape: int) -> np.ndarray:
    """Return reproducible small integers as float32, so that sums are exact."""
    return np.random.default_rng(7).integers(-9, 9, shape).astype(np.float32)


def run(session: Any, **feed: Any) -> list[np.ndarray]:
    """Run a session twice, since the second run may take another path, and return the equal results."""
    first = session.run(None, feed)
    second = session.run(None, feed)
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a, b)
    return list(second)


def stock(proto: onnx.ModelProto) -> onnxruntime.InferenceSession:
    """Return a session of plain onnxruntime."""
    return onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])


def test_a_kernel_overrides_the_body(runtime: str, tmp_path: Path) -> None:
    path = tmp_path / "chain.onnx"
    onnx.save(kit.chain(3), path)
    x, y = random(5, 8), random(5, 8)
    session = load(path)
    assert isinstance(session, SegmentedSession) == (runtime == "segments")
    np.testing.assert_array_equal(run(session, x=x, y=y)[0], x + 3 * y + 3 * kit.MARK)
    np.testing.assert_array_equal(stock(onnx.load(path)).run(None, {"x": x, "y": y})[0], x + 3 * y)
    assert [kernel.name for kernel in kernels_of(session)] == ["g_add"]


@pytest.mark.usefixtures("runtime")
def test_sizes_may_change_between_runs() -> None:
    session = load(kit.chain(2).SerializeToString())
    for shape in [(1, 1), (3, 5), (1000, 63), (3, 5), (0, 4), (2, 0), (3, 5)]:
        x, y = random(*shape), random(*shape)
        np.testing.assert_array_equal(run(session, x=x, y=y)[0], x + 2 * y + 2 * kit.MARK)


@pytest.mark.usefixtures("runtime")
@pytest.mark.parametrize("threads", [1, 2])
def test_results_do_not_depend_on_threads(threads: int) -> None:
    session = load(kit.chain(4).SerializeToString(), threads=threads)
    x, y = random(1021, 333), random(1021, 333)
    np.testing.assert_array_equal(run(session, x=x, y=y)[0], x + 4 * y + 4 * kit.MARK)


@pytest.mark.usefixtures("runtime")
def test_an_output_of_another_rank_and_scratch_memory() -> None:
    proto = kit.model([kit.call("g_rows", ["x"], ["y"])], [kit.info("x", ["b", 64])], [kit.info("y", ["b"])])
    session = load(proto.SerializeToString())
    for rows in (1, 7, 5000):
        x = random(rows, 64)
        np.testing.assert_array_equal(run(session, x=x)[0], x.sum(1) + kit.MARK)


@pytest.mark.usefixtures("runtime")
def test_several_outputs_in_any_order() -> None:
    nodes = [kit.call("g_both", ["x"], ["a", "b"]), helper.make_node("Sub", ["b", "a"], ["c"])]
    proto = kit.model(nodes, [kit.info("x", ["n"])], [kit.info("c", ["n"]), kit.info("a", ["n"])])
    session = load(proto.SerializeToString())
    x = random(11)
    difference, more = run(session, x=x)
    np.testing.assert_array_equal(difference, x)
    np.testing.assert_array_equal(more, x + kit.MARK)
    np.testing.assert_array_equal(session.run(["a"], {"x": x})[0], x + kit.MARK)


@pytest.mark.usefixtures("runtime")
def test_a_scalar() -> None:
    proto = kit.model([kit.call("g_scalar", ["x"], ["y"])], [kit.info("x", [])], [kit.info("y", [])])
    result = run(load(proto.SerializeToString()), x=np.array(2, np.float32))[0]
    assert np.shape(result) == ()
    assert result == 2 + kit.MARK


@pytest.mark.usefixtures("runtime")
def test_half_precision() -> None:
    types = [kit.info("x", ["n"], kit.FLOAT16)], [kit.info("y", ["n"], kit.FLOAT16)]
    session = load(kit.model([kit.call("g_half", ["x"], ["y"])], *types).SerializeToString())
    x = np.array([1.5, -2, 0], np.float16)
    np.testing.assert_array_equal(run(session, x=x)[0], -x)


@pytest.mark.usefixtures("runtime")
def test_one_function_called_with_two_element_types() -> None:
    inputs = [kit.info("x", ["b", "n"]), kit.info("i", ["b", "n"], kit.INT64)]
    outputs = [kit.info("y", ["b", "n"]), kit.info("j", ["b", "n"], kit.INT64)]
    nodes = [kit.call("g_add", ["x", "x"], ["y"]), kit.call("g_add", ["i", "i"], ["j"])]
    session = load(kit.model(nodes, inputs, outputs).SerializeToString())
    x, i = random(2, 3), np.arange(6).reshape(2, 3)
    y, j = run(session, x=x, i=i)
    np.testing.assert_array_equal(y, 2 * x + kit.MARK)
    np.testing.assert_array_equal(j, 2 * i + kit.MARK)
    assert len(kernels_of(session)) == 2


@pytest.mark.usefixtures("runtime")
def test_a_function_without_kernels_for_all_calls_runs_its_body() -> None:
    inputs = [kit.info("x", ["b", "n"]), kit.info("d", ["b", "n"], onnx.TensorProto.DOUBLE)]
    outputs = [kit.info("y", ["b", "n"]), kit.info("e", ["b", "n"], onnx.TensorProto.DOUBLE)]
    nodes = [kit.call("g_add", ["x", "x"], ["y"]), kit.call("g_add", ["d", "d"], ["e"])]
    session = load(kit.model(nodes, inputs, outputs).SerializeToString())
    x = random(2, 3)
    assert kernels_of(session) == ()
    np.testing.assert_array_equal(run(session, x=x, d=x.astype(np.float64))[0], 2 * x)


@pytest.mark.usefixtures("runtime")
def test_an_absent_optional_input() -> None:
    proto = kit.model([kit.call("g_optional", ["", "x"], ["y"])], [kit.info("x", ["n"])], [kit.info("y", ["n"])])
    session = load(proto.SerializeToString())
    np.testing.assert_array_equal(run(session, x=random(4))[0], random(4) + kit.MARK)
    assert kernels_of(session)[0].inputs[0] is None


def test_a_call_in_a_nested_graph(runtime: str) -> None:
    then = helper.make_graph([kit.call("g_add", ["x", "one"], ["a"])], "then", [], [kit.info("a", [2, 3])])
    other = helper.make_graph([helper.make_node("Identity", ["x"], ["b"])], "else", [], [kit.info("b", [2, 3])])
    nodes = [
        kit.call("g_add", ["x", "x"], ["double"]),
        helper.make_node("If", ["flag"], ["y"], then_branch=then, else_branch=other),
        helper.make_node("Add", ["y", "double"], ["z"]),
    ]
    one = numpy_helper.from_array(np.ones((2, 3), np.float32), "one")
    proto = kit.model(nodes, [kit.info("x", [2, 3]), kit.info("flag", [], kit.BOOL)], [kit.info("z", [2, 3])], [one])
    session = load(proto.SerializeToString())
    x = random(2, 3)
    inner = 0 if runtime == "segments" else kit.MARK
    np.testing.assert_array_equal(run(session, x=x, flag=np.array(True))[0], 3 * x + 1 + kit.MARK + inner)
    np.testing.assert_array_equal(run(session, x=x, flag=np.array(False))[0], 3 * x + kit.MARK)


def test_a_call_hidden_in_a_function_without_kernels(runtime: str) -> None:
    outer = kit.function("outer", ["x"], ["y"], [kit.call("g_add", ["x", "x"], ["y"])])
    proto = kit.model(
        [kit.call("outer", ["x"], ["y"])], [kit.info("x", [2, 3])], [kit.info("y", [2, 3])], functions=[outer]
    )
    x = random(2, 3)
    inner = 0 if runtime == "segments" else kit.MARK
    np.testing.assert_array_equal(run(load(proto.SerializeToString()), x=x)[0], 2 * x + inner)


@pytest.mark.usefixtures("runtime")
def test_stock_nodes_before_between_and_after() -> None:
    nodes = [
        helper.make_node("Relu", ["x"], ["r"]),
        kit.call("g_add", ["r", "w"], ["s"]),
        helper.make_node("MatMul", ["s", "m"], ["p"]),
        kit.call("g_rows", ["p"], ["q"]),
        helper.make_node("Neg", ["q"], ["y"]),
        helper.make_node("Shape", ["s"], ["sizes"]),
    ]
    w, m = random(4, 4), np.eye(4, 3, dtype=np.float32)
    constants = [numpy_helper.from_array(w, "w"), numpy_helper.from_array(m, "m")]
    outputs = [kit.info("y", ["b"]), kit.info("sizes", [2], kit.INT64), kit.info("s", ["b", 4])]
    session = load(kit.model(nodes, [kit.info("x", ["b", 4])], outputs, constants).SerializeToString())
    x = random(4, 4)
    s = np.maximum(x, 0) + w + kit.MARK
    y, sizes, between = run(session, x=x)
    np.testing.assert_array_equal(y, -((s @ m).sum(1) + kit.MARK))
    np.testing.assert_array_equal(sizes, [4, 4])
    np.testing.assert_array_equal(between, s)


@pytest.mark.usefixtures("runtime")
def test_sizes_that_depend_on_the_data() -> None:
    nodes = [
        helper.make_node("NonZero", ["x"], ["n"]),
        kit.call("g_add", ["n", "n"], ["m"]),
        helper.make_node("Neg", ["m"], ["y"]),
    ]
    proto = kit.model(nodes, [kit.info("x", ["k"])], [kit.info("y", [1, "m"], kit.INT64)])
    session = load(proto.SerializeToString())
    for values in ([1, 0, 2], [0, 0, 5], [1, 1, 1], [0, 0, 0]):
        x = np.array(values, np.float32)
        np.testing.assert_array_equal(run(session, x=x)[0], -2 * np.nonzero(x)[0][None] - kit.MARK)


@pytest.mark.usefixtures("runtime")
@pytest.mark.parametrize(
    ("name", "reason"), [("g_refuse", "no kernel fits these sizes"), ("g_fail", "the kernel gave up")]
)
def test_a_kernel_that_refuses_is_an_error(name: str, reason: str) -> None:
    proto = kit.model([kit.call(name, ["x"], ["y"])], [kit.info("x", ["n"])], [kit.info("y", ["n"])])
    session = load(proto.SerializeToString())
    for size in (3, 100_000):
        with pytest.raises(Exception, match=f"sartor: {name}: {reason}"):
            session.run(None, {"x": random(size)})


@pytest.mark.usefixtures("runtime")
def test_kernels_for_fixed_sizes_are_tried_first() -> None:
    asked: list[FunctionCall] = []

    def fixed_first(call: FunctionCall) -> Kernel | None:
        asked.append(call)
        fixed = all(type_ is not None and isinstance(type_.shape[0], int) for type_ in call.inputs)
        code = kit.compiled(kit._refuse, kit.types.float32) if fixed else kit.compiled(kit._add, kit.types.float32)
        return Kernel(kit.DOMAIN, "g_add", code.address, call.inputs, call.outputs, owner=code)

    registry.register(kit.DOMAIN, fixed_first)
    nodes = [kit.call("g_add", ["x", "x"], ["y"]), kit.call("g_add", ["c", "c"], ["d"])]
    inputs, outputs = [kit.info("x", ["n", 3]), kit.info("c", [2, 3])], [kit.info("y", ["n", 3]), kit.info("d", [2, 3])]
    session = load(kit.model(nodes, inputs, outputs).SerializeToString())
    assert len(asked) == 2
    assert [kernel.inputs[0].shape[0] for kernel in kernels_of(session) if kernel.inputs[0]] == [2, "n"]
    for result in run(session, x=random(2, 3), c=random(2, 3)):
        np.testing.assert_array_equal(result, 2 * random(2, 3) + kit.MARK)


@pytest.mark.usefixtures("runtime")
def test_external_data(tmp_path: Path) -> None:
    weight = numpy_helper.from_array(random(64, 64), "w")
    nodes = [kit.call("g_add", ["x", "w"], ["s"]), helper.make_node("MatMul", ["s", "w"], ["y"])]
    proto = kit.model(nodes, [kit.info("x", [64, 64])], [kit.info("y", [64, 64])], [weight])
    path = tmp_path / "model.onnx"
    onnx.save(proto, path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    x = random(64, 64)
    expected = (x + random(64, 64) + kit.MARK) @ random(64, 64)
    for source in (path, str(path), ir.load(path)):
        session = load(source)
        assert len(kernels_of(session)) == 1
        np.testing.assert_allclose(run(session, x=x)[0], expected, rtol=1e-6)


@pytest.mark.usefixtures("runtime")
def test_sessions_in_many_threads() -> None:
    proto = kit.chain(3).SerializeToString()
    x, y = random(200, 300), random(200, 300)
    wrong: list[int] = []

    def work(seed: int) -> None:
        session = load(proto, threads=1 + seed % 2)
        for _ in range(5):
            if not np.array_equal(session.run(None, {"x": x + seed, "y": y})[0], x + seed + 3 * y + 3 * kit.MARK):
                wrong.append(seed)

    workers = [threading.Thread(target=work, args=(seed,)) for seed in range(6)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert wrong == []


@pytest.mark.usefixtures("runtime")
def test_one_session_in_many_threads() -> None:
    session = load(kit.chain(3).SerializeToString(), threads=2)
    results: dict[int, np.ndarray] = {}

    def work(seed: int) -> None:
        for _ in range(10):
            x = random(100 + seed % 2, 200) + seed
            results[seed] = session.run(None, {"x": x, "y": x})[0]

    workers = [threading.Thread(target=work, args=(seed,)) for seed in range(6)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    for seed in range(6):
        np.testing.assert_array_equal(results[seed], 4 * (random(100 + seed % 2, 200) + seed) + 3 * kit.MARK)


@pytest.mark.usefixtures("runtime")
def test_metadata_is_that_of_onnxruntime() -> None:
    proto = kit.chain(1)
    proto.producer_name, proto.graph.doc_string = "kit", "about"
    helper.set_model_props(proto, {"key": "value"})
    ours, theirs = load(proto.SerializeToString()), stock(proto)
    for a, b in zip(ours.get_inputs() + ours.get_outputs(), theirs.get_inputs() + theirs.get_outputs(), strict=True):
        assert (a.name, a.type, a.shape) == (b.name, b.type, b.shape)
    for field in ("producer_name", "graph_name", "domain", "description", "graph_description", "custom_metadata_map"):
        assert getattr(ours.get_modelmeta(), field) == getattr(theirs.get_modelmeta(), field)
    assert ours.get_providers() == theirs.get_providers()


@pytest.mark.usefixtures("runtime")
def test_bad_feeds_are_refused() -> None:
    session = load(kit.chain(1, 2, 3).SerializeToString())
    with pytest.raises(ValueError, match="y"):
        session.run(None, {"x": random(2, 3)})
    for bad in (random(3, 3), random(6), random(2, 3).astype(np.float64)):
        with pytest.raises(onnxruntime.capi.onnxruntime_pybind11_state.InvalidArgument):
            session.run(None, {"x": bad, "y": random(2, 3)})


@pytest.mark.usefixtures("runtime")
def test_skipped_functions_run_their_bodies() -> None:
    nodes = [kit.call("g_add", ["x", "x"], ["s"]), kit.call("g_rows", ["s"], ["y"])]
    proto = kit.model(nodes, [kit.info("x", ["b", "n"])], [kit.info("y", ["b"])])
    session = load(proto.SerializeToString(), skip=frozenset({"g_add"}))
    assert [kernel.name for kernel in kernels_of(session)] == ["g_rows"]
    np.testing.assert_array_equal(run(session, x=random(3, 4))[0], 2 * random(3, 4).sum(1) + kit.MARK)


@pytest.mark.usefixtures("runtime")
def test_the_callers_hook_sees_the_options() -> None:
    seen: list[int] = []
    nodes = [helper.make_node("Relu", ["x"], ["r"]), kit.call("g_add", ["r", "r"], ["y"])]
    proto = kit.model(nodes, [kit.info("x", [2, 3])], [kit.info("y", [2, 3])])
    load(proto.SerializeToString(), threads=2, session_options=lambda o: seen.append(o.intra_op_num_threads))
    assert seen == [2]


def test_errors_name_what_is_wrong(tmp_path: Path) -> None:
    model = kit.chain(1).SerializeToString()
    with pytest.raises(UnavailableError, match="device cuda"):
        load(model, device="cuda")
    with pytest.raises(UsageError, match="device tpu"):
        load(model, device="tpu")
    with pytest.raises(UsageError, match="threads 0"):
        load(model, threads=0)
    broken = kit.chain(1)
    broken.graph.node[0].op_type = "Nope"
    with pytest.raises(InputRefusedError, match="onnxruntime refuses it"):
        load(broken.SerializeToString())
