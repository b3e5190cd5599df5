"""Sessions of torch: onnxruntime's interface, kernels, recorded runs. A recorder for the CPU stands in for CUDA's."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
import torch
from onnx import helper
from tests.kits import runtime_kit as kit
from tests.kits.graph_kit import CpuRecorder

from sartor.share.errors import InputRefusedError
from sartor.share.lowering import FallbackWarning
from sartor.share.lowering.frame import Upload
from sartor.share.runtime import registry
from sartor.share.runtime.device_session import DeviceSession
from sartor.share.runtime.kernel import FunctionCall
from sartor.share.runtime.replay import MOST, Replays, Values
from sartor.share.runtime.watch import Watch

CPU = torch.device("cpu")


class Sum:
    """A kernel for `g_add` that leaves the kit's mark on its result, and reports negative numbers."""

    def run(self, inputs: Sequence[torch.Tensor | None], status: torch.Tensor) -> list[torch.Tensor]:
        """Add two tensors."""
        a, b = inputs
        assert a is not None
        assert b is not None
        status.logical_or_((a < 0).any())
        return [a + b + kit.MARK]


@pytest.fixture(autouse=True)
def executor() -> Iterator[None]:
    """Register the kernel."""

    def make(call: FunctionCall) -> Sum | None:
        return Sum() if call.function.name == "g_add" else None

    registry.register_device(kit.DOMAIN, make)
    yield
    registry.unregister(kit.DOMAIN)


def open_session(proto: onnx.ModelProto, recorder: CpuRecorder | None = None, **options: Any) -> DeviceSession:
    """Open a session on the CPU that records."""
    return DeviceSession(ir.serde.deserialize_model(proto), CPU, recorder or CpuRecorder(), **options)


def stock(proto: onnx.ModelProto) -> onnxruntime.InferenceSession:
    """Return a session of plain onnxruntime."""
    return onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])


def random(seed: int, *shape: int) -> np.ndarray:
    """Return reproducible positive numbers."""
    return np.random.default_rng(seed).uniform(1, 2, shape).astype(np.float32)


def masked() -> onnx.ModelProto:
    """Return a model that makes a mask from a size on the host, y = x * range(n), and picks rows by index."""
    nodes = [
        helper.make_node("Shape", ["x"], ["whole"]),
        helper.make_node("Gather", ["whole", "one"], ["n"], axis=0),
        helper.make_node("Range", ["zero", "n", "one"], ["places"]),
        helper.make_node("Cast", ["places"], ["factors"], to=kit.FLOAT),
        helper.make_node("Mul", ["x", "factors"], ["scaled"]),
        kit.call("g_add", ["scaled", "scaled"], ["y"]),
    ]
    constants = [onnx.numpy_helper.from_array(np.array(value), name) for name, value in (("zero", 0), ("one", 1))]
    return kit.model(nodes, [kit.info("x", ["b", "n"])], [kit.info("y", ["b", "n"])], constants)


def test_replays_follow_the_inputs() -> None:
    session = open_session(masked())
    for seed in range(5):
        x = random(seed, 3, 4)
        np.testing.assert_allclose(session.run(None, {"x": x})[0], 2 * x * np.arange(4) + kit.MARK, rtol=1e-6)
    assert session.graphs == 1
    assert len(session.kernels) == 1


def test_each_combination_of_sizes_is_recorded_when_it_comes_again() -> None:
    session = open_session(masked())
    for turn in range(3):
        for size in (2, 3, 5):
            x = random(turn, 2, size)
            np.testing.assert_allclose(session.run(["y"], {"x": x})[0], 2 * x * np.arange(size) + kit.MARK, rtol=1e-6)
            assert session.graphs == (0 if not turn else 3 if turn > 1 else (2, 3, 5).index(size) + 1)


def test_the_oldest_recording_goes_first() -> None:
    session = open_session(masked())
    for size in range(1, MOST + 3):
        for seed in range(2):
            session.run(None, {"x": random(seed, 1, size)})
    assert session.graphs == MOST


def test_inputs_that_steer_are_part_of_the_sizes() -> None:
    nodes = [helper.make_node("Reshape", ["x", "shape"], ["y"])]
    proto = kit.model(nodes, [kit.info("x", ["n"]), kit.info("shape", [2], kit.INT64)], [kit.info("y", ["a", "b"])])
    session = open_session(proto)
    for seed in range(4):
        x = random(seed, 12)
        for shape in ((3, 4), (2, 6), (4, 3)):
            (y,) = session.run(None, {"x": x, "shape": np.array(shape)})
            np.testing.assert_array_equal(y, x.reshape(shape))


def test_what_waits_for_the_device_is_not_recorded() -> None:
    nodes = [helper.make_node("NonZero", ["x"], ["places"]), helper.make_node("Transpose", ["places"], ["y"])]
    proto = kit.model(nodes, [kit.info("x", ["n"])], [kit.info("y", ["m", "k"], kit.INT64)])
    session = open_session(proto)
    for wanted in (3, 1, 2, 0):
        x = np.zeros(5, np.float32)
        x[:wanted] = 1
        np.testing.assert_array_equal(session.run(None, {"x": x})[0][:, 0], np.arange(wanted))
    assert session.graphs == 0
    assert session.obstacles == ("aten.nonzero.default",)


def test_a_refused_recording_is_told_once_and_runs_all_the_same() -> None:
    class Refusing(CpuRecorder):
        def record(self, run: Any) -> Any:
            raise torch.cuda.OutOfMemoryError("no room\nfor it")

    session = open_session(masked(), Refusing())
    x = random(0, 2, 3)
    session.run(None, {"x": x})
    with pytest.warns(RuntimeWarning, match=r"could not be recorded \(no room\)"):
        session.run(None, {"x": x})
    np.testing.assert_allclose(session.run(None, {"x": x})[0], 2 * x * np.arange(3) + kit.MARK, rtol=1e-6)
    assert (session.graphs, session.obstacles) == (0, ("no room",))


def test_copies_between_host_and_device_are_obstacles() -> None:
    host = torch.zeros(2)
    watch = Watch(lambda tensor: tensor is not host)
    with watch:
        torch.ones(2).copy_(host)
    assert tuple(watch.obstacles) == ("aten.copy_.default",)
    calm = Watch(lambda tensor: tensor is not host)
    with calm, calm.known():
        torch.ones(2).copy_(host)
    assert not calm.obstacles


def test_uploads_are_sent_once_and_never_by_a_replay() -> None:
    """What the host computes for the device is kept by the run that is rehearsed, and read by all replays."""
    recorder = CpuRecorder()

    def forward(feeds: Mapping[str, Any], upload: Upload) -> Values:
        host = torch.arange(feeds["x"].shape[0])
        return {"y": feeds["x"] * upload(host) + upload(host + 1)}

    replays = Replays(forward, recorder)
    for turn in range(5):
        x = torch.full((3,), float(turn))
        outputs, shared = replays.run("key", {"x": x})
        assert outputs["y"].tolist() == [1, 2 + turn, 3 + 2 * turn]
        assert (shared, recorder.uploads) == ((False, 2) if turn == 0 else (True, 4))


def test_tensors_are_the_callers_own() -> None:
    session = open_session(masked())
    found = [session.run_tensors({"x": torch.full((2, 3), float(i))})["y"] for i in range(1, 5)]
    for i, y in enumerate(found, 1):
        np.testing.assert_allclose(y, 2 * i * np.tile(np.arange(3), (2, 1)) + kit.MARK, rtol=1e-6)


def test_a_binding_copies_nothing() -> None:
    session = open_session(masked())
    x = torch.ones(2, 3)
    binding = session.bind({"x": x})
    assert binding.inputs["x"] is x
    y = binding.outputs["y"]
    for factor in (1.0, 5.0):
        x.fill_(factor)
        binding.run()
        np.testing.assert_allclose(y, 2 * factor * np.tile(np.arange(3), (2, 1)) + kit.MARK, rtol=1e-6)


def test_a_binding_of_what_can_not_be_recorded_is_refused() -> None:
    nodes = [helper.make_node("NonZero", ["x"], ["y"])]
    session = open_session(kit.model(nodes, [kit.info("x", ["n"])], [kit.info("y", ["r", "m"], kit.INT64)]))
    with pytest.raises(InputRefusedError, match=r"can't hold aten.nonzero.default. Use run_tensors"):
        session.bind({"x": torch.ones(3)})


def test_an_index_out_of_range_is_found_when_results_are_read() -> None:
    session = open_session(masked())
    for _ in range(3):
        session.run(None, {"x": random(0, 2, 3)})
        with pytest.raises(InputRefusedError, match="outside the axis"):
            session.run(None, {"x": -random(0, 2, 3)})
    session.run_tensors({"x": -torch.ones(2, 3)})
    with pytest.raises(InputRefusedError, match="outside the axis"):
        session.check()
    session.check()


def test_skipped_functions_run_their_bodies() -> None:
    session = open_session(masked(), skip=frozenset({"g_add"}))
    assert session.kernels == ()
    x = random(0, 2, 3)
    np.testing.assert_allclose(session.run(None, {"x": x})[0], 2 * x * np.arange(3), rtol=1e-6)


def test_a_failing_executor_costs_speed_only() -> None:
    def broken(call: FunctionCall) -> None:
        raise KeyError("nothing")

    registry.register_device(kit.DOMAIN, broken)
    with pytest.warns(RuntimeWarning, match="g_add: no kernel"):
        session = open_session(masked())
    x = random(0, 2, 3)
    np.testing.assert_allclose(session.run(None, {"x": x})[0], 2 * x * np.arange(3), rtol=1e-6)


def test_metadata_is_that_of_onnxruntime() -> None:
    proto = masked()
    proto.producer_name = "kit"
    helper.set_model_props(proto, {"key": "value"})
    ours, theirs = open_session(proto), stock(proto)
    for a, b in zip(ours.get_inputs() + ours.get_outputs(), theirs.get_inputs() + theirs.get_outputs(), strict=True):
        assert (a.name, a.type, a.shape) == (b.name, b.type, b.shape)
    assert ours.get_modelmeta().custom_metadata_map == theirs.get_modelmeta().custom_metadata_map
    assert ours.get_overridable_initializers() == []
    assert ours.get_providers()[-1] == "CPUExecutionProvider"


def test_bad_feeds_are_refused() -> None:
    session = open_session(kit.chain(1, 2, 3))
    good = random(0, 2, 3)
    with pytest.raises(ValueError, match="y"):
        session.run(None, {"x": good})
    with pytest.raises(ValueError, match="nope"):
        session.run(["nope"], {"x": good, "y": good})
    for bad in (random(0, 3, 3), random(0, 6), good.astype(np.float64)):
        with pytest.raises(onnxruntime.capi.onnxruntime_pybind11_state.InvalidArgument):
            session.run(None, {"x": bad, "y": good})
        with pytest.raises(onnxruntime.capi.onnxruntime_pybind11_state.InvalidArgument):
            session.run_tensors({"x": torch.from_numpy(bad), "y": torch.from_numpy(good)})


def test_strings_and_unknown_operators_run_in_onnxruntime() -> None:
    nodes = [helper.make_node("StringConcat", ["a", "b"], ["y"])]
    text = onnx.TensorProto.STRING
    proto = kit.model(nodes, [kit.info("a", ["n"], text), kit.info("b", ["n"], text)], [kit.info("y", ["n"], text)])
    session = open_session(proto)
    assert [one.type for one in session.get_inputs()] == ["tensor(string)"] * 2
    feed = {"a": np.array(["x", "y"], object), "b": np.array(["1", "2"], object)}
    with pytest.warns(FallbackWarning, match="StringConcat"):
        assert session.run(None, feed)[0].tolist() == ["x1", "y2"]
    assert session.run(None, feed)[0].tolist() == ["x1", "y2"]
    assert session.graphs == 0


def test_threads_take_turns() -> None:
    session = open_session(masked())
    results: dict[int, np.ndarray] = {}

    def work(seed: int) -> None:
        for _ in range(5):
            results[seed] = session.run(None, {"x": random(seed, 2, 3)})[0]

    workers = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    for seed in range(4):
        wanted = 2 * random(seed, 2, 3) * np.arange(3) + kit.MARK
        np.testing.assert_allclose(results[seed], wanted, rtol=1e-6)
