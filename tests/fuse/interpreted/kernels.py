"""What Triton kernels are made of, what they refuse, and several reductions, phases and parts in one kernel."""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import helper
from tests.kits import fuse_kit as kit
from tests.kits import gpu_kit as gpu

from sartor.tools.fuse import gpu_launch
from sartor.tools.fuse.axes import NotEmittableError
from sartor.tools.fuse.gpu_call import GpuCall
from sartor.tools.fuse.gpu_facts import INTERPRETER
from sartor.tools.fuse.gpu_kernel import GpuKernel, SizesRefusedError, bind, configurations
from sartor.tools.fuse.gpu_schedule import Form
from sartor.tools.fuse.gpu_trial import random_tensors
from sartor.tools.fuse.gpu_tune import Trial, by_clock, ranked
from sartor.tools.fuse.kernel import kernel_source

F = np.float32
Array = np.ndarray[Any, Any]


def node(operator: str, inputs: str, output: str, **attributes: Any) -> Any:
    """Make a node."""
    return helper.make_node(operator, inputs.split(), [output], **attributes)


def axes(*numbers: int) -> Array:
    """Make a vector of axes."""
    return np.array(numbers, np.int64)


CHAINS = {
    "rows then columns": (
        [node("LayerNormalization", "x g", "y"), node("Abs", "y", "z"), node("ReduceMax", "z rows", "w", keepdims=0)],
        ["y", "w"],
    ),
    "columns then rows": (
        [node("Softmax", "x", "y", axis=0), node("ReduceSum", "y columns", "z", keepdims=0)],
        ["y", "z"],
    ),
    "rows and columns": (
        [node("ReduceMean", "x rows", "y", keepdims=0), node("ReduceMin", "x columns", "z", keepdims=0)],
        ["y", "z"],
    ),
    "everything": (
        [node("Mul", "x x", "y"), node("ReduceSum", "y all", "z", keepdims=1), node("Div", "x z", "w")],
        ["w", "z"],
    ),
    "row, column, row": (
        [
            node("Softmax", "x", "y", axis=1),
            node("ReduceMean", "y rows", "z", keepdims=1),
            node("Sub", "y z", "v"),
            node("LayerNormalization", "v g", "w"),
        ],
        ["w"],
    ),
}
WEIGHTS = {"rows": axes(0), "columns": axes(1), "all": axes(0, 1)}


def chain(name: str, shape: tuple[Any, Any]) -> tuple[Any, Any, Any]:
    """Make the model, the function and the call of a chain."""
    nodes, outputs = CHAINS[name]
    read = {value for made in nodes for value in made.input}
    inputs = {"x": (F, shape), "g": (F, shape[1:])}
    proto = kit.model(
        nodes,
        {key: value for key, value in inputs.items() if key in read},
        outputs,
        {key: value for key, value in WEIGHTS.items() if key in read},
    )
    return (proto, *kit.whole(proto))


@pytest.mark.parametrize("sizes", [(1, 1), (63, 5), (5, 63), (40, 130)])
@pytest.mark.parametrize("name", CHAINS)
def test_reductions_over_different_axes(name: str, sizes: tuple[int, int]) -> None:
    """Reductions over several axes in one kernel give what onnxruntime gives, in all compositions."""
    proto, outlined, call = chain(name, ("n", "m"))
    generator = np.random.default_rng(7)
    feed = {"x": generator.uniform(-2, 2, sizes).astype(F), "g": generator.uniform(0.5, 2, sizes[1:]).astype(F)}
    feed = {key: value for key, value in feed.items() if key in {i.name for i in proto.graph.input}}
    session = onnxruntime.InferenceSession(proto.SerializeToString())
    wanted = dict(zip(CHAINS[name][1], session.run(None, feed), strict=True))
    inputs = [{**WEIGHTS, **feed}[str(value.name)] for value in outlined.inputs]
    kernels = gpu.able(gpu.kernels(call), inputs)
    assert {kernel.schedule.form.phased for kernel in kernels} == {False, True}
    for kernel in kernels:
        for value, ours in zip(outlined.outputs, gpu.call(kernel, inputs), strict=True):
            np.testing.assert_allclose(ours, wanted[str(value.name)], rtol=1e-4, atol=2e-6)


@pytest.mark.parametrize("sizes", [(1, 300), (63, 5), (300, 40)])
@pytest.mark.parametrize("name", CHAINS)
def test_programs_share_phases(name: str, sizes: tuple[int, int]) -> None:
    """Three programs leave parts of reductions for each other, more programs than blocks in some phases."""
    proto, outlined, call = chain(name, ("n", "m"))
    generator = np.random.default_rng(8)
    feed = {"x": generator.uniform(-2, 2, sizes).astype(F), "g": generator.uniform(0.5, 2, sizes[1:]).astype(F)}
    feed = {key: value for key, value in feed.items() if key in {i.name for i in proto.graph.input}}
    session = onnxruntime.InferenceSession(proto.SerializeToString())
    wanted = dict(zip(CHAINS[name][1], session.run(None, feed), strict=True))
    inputs = [{**WEIGHTS, **feed}[str(value.name)] for value in outlined.inputs]
    phased = [kernel for kernel in gpu.able(gpu.kernels(call), inputs) if len(kernel.schedule.phases) > 1]
    assert phased
    for kernel in phased:
        for value, ours in zip(outlined.outputs, gpu.call_shared(kernel, inputs, 3), strict=True):
            np.testing.assert_allclose(ours, wanted[str(value.name)], rtol=1e-4, atol=2e-6)


@pytest.mark.parametrize("name", CHAINS)
def test_all_tiles(name: str) -> None:
    """Whatever tiles are chosen, single kernels and shared phases give what onnxruntime gives."""
    proto, outlined, call = chain(name, ("n", "m"))
    generator = np.random.default_rng(9)
    feed = {"x": generator.uniform(-2, 2, (9, 600)).astype(F), "g": generator.uniform(0.5, 2, (600,)).astype(F)}
    feed = {key: value for key, value in feed.items() if key in {i.name for i in proto.graph.input}}
    session = onnxruntime.InferenceSession(proto.SerializeToString())
    wanted = dict(zip(CHAINS[name][1], session.run(None, feed), strict=True))
    inputs = [{**WEIGHTS, **feed}[str(value.name)] for value in outlined.inputs]
    for kernel in gpu.able(gpu.kernels(call), inputs, 1000):
        names = bind(kernel.program, [array.shape for array in inputs])
        tiles = {config.tiles: config for config in configurations(kernel, names)}
        for config in tiles.values():
            found = gpu.call_shared(kernel, inputs, 3, config)
            for value, ours in zip(outlined.outputs, found, strict=True):
                np.testing.assert_allclose(ours, wanted[str(value.name)], rtol=1e-4, atol=2e-6)


def test_barriers_stand_between_phases() -> None:
    """A program that stitches rows to columns has one barrier; one whose task is a row has none."""
    phased = [k for k in gpu.kernels(chain("rows then columns", (64, 32))[2]) if k.schedule.form == Form(True, 2)]
    assert phased[0].source.count("barrier(gate") == 1
    assert all("barrier(gate" not in k.source for k in gpu.kernels(_softmax()) if not k.schedule.form.phased)


def _softmax() -> Any:
    return kit.whole(kit.model([node("Softmax", "x", "y")], {"x": (F, ["n", 5])}, ["y"]))[1]


def _gather() -> tuple[GpuKernel, ...]:
    proto = kit.model([node("Gather", "x i", "y")], {"x": (F, [7, 100]), "i": (np.int64, ["n"])}, ["y"])
    return gpu.kernels(kit.whole(proto)[1])


@pytest.mark.parametrize("index", [-8, 7, 2**40, -(2**40)])
def test_gather_refuses_an_index_out_of_range(index: int) -> None:
    """An index outside the axis is an error, and nothing outside is read."""
    for kernel in _gather():
        x = np.ones((7, 100), F)
        assert gpu.call(kernel, [x, np.array([-7, 6])])[0].shape == (2, 100)
        with pytest.raises(IndexError):
            gpu.call(kernel, [x, np.array([0, index, 1])])


@pytest.mark.parametrize(("first", "second"), [((3, 5), (3, 4)), ((3, 5), (4, 5)), ((3, 6), (3, 6)), ((0, 5), (1, 5))])
def test_other_sizes_are_refused(first: tuple[int, ...], second: tuple[int, ...]) -> None:
    """Sizes that contradict the types that a kernel was written for are refused before anything runs."""
    proto = kit.model([node("Add", "x z", "y")], {"x": (F, ["n", 5]), "z": (F, ["n", 5])}, ["y"])
    for kernel in gpu.kernels(kit.whole(proto)[1]):
        with pytest.raises(SizesRefusedError, match="the sizes are refused"):
            gpu.call(kernel, [np.ones(first, F), np.ones(second, F)])


@pytest.mark.parametrize("shape", [(3, 0), (0, 3), (0, 0)])
@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("operator", ["Sum", "Mean", "Max", "Min", "Prod", "LogSumExp"])
def test_reduction_of_nothing(operator: str, axis: int, shape: tuple[int, int]) -> None:
    """Over a named axis that is empty at run time a reduction gives what onnxruntime gives."""
    nodes = [node("Mul", "x x", "square"), node(f"Reduce{operator}", "square axes", "y", keepdims=1)]
    proto = kit.model(nodes, {"x": (F, ["rows", "columns"])}, ["y"], {"axes": axes(axis)})
    x = np.ones(shape, F)
    (expected,) = onnxruntime.InferenceSession(proto.SerializeToString()).run(None, {"x": x})
    for kernel in gpu.kernels(kit.whole(proto)[1]):
        np.testing.assert_array_equal(gpu.call(kernel, [x])[0], expected, strict=True)


def test_inputs_need_not_be_contiguous() -> None:
    """A view with strides is read as what it is."""
    x = torch.randn(5, 6).t()[:, :5]
    proto = kit.model([node("Softmax", "x", "y")], {"x": (F, ["n", 5])}, ["y"])
    for kernel in gpu.kernels(kit.whole(proto)[1]):
        (found,) = launch(kernel, [x])
        torch.testing.assert_close(found, torch.softmax(x, -1))


def test_packed_kernels() -> None:
    """Kernels of different programs run in one launch, whatever their sizes."""
    soft = next(k for k in gpu.kernels(_softmax()) if len(k.schedule.phases) == 1)
    proto = kit.model([node("Add", "x z", "y")], {"x": (F, ["n", 3]), "z": (F, [3])}, ["y"])
    plus = gpu.kernels(kit.whole(proto)[1])[0]
    x, z, w = torch.randn(3000, 5), torch.randn(1100, 3), torch.randn(3)
    given = [[x], [z, w], _picked()]
    planned = [gpu.planned(one, inputs) for one, inputs in zip((soft, plus, _gather()[0]), given, strict=True)]
    ((first,), (second,), (third,)) = gpu_launch.launch_pack(planned, given, torch.zeros(1, dtype=torch.int32))
    torch.testing.assert_close(first, torch.softmax(x, -1))
    torch.testing.assert_close(second, z + w)
    torch.testing.assert_close(third, _picked()[0][_picked()[1]])


def test_candidates_run_on_random_inputs() -> None:
    """What is timed computes what the call does, with indices in their range, and the choice runs like any other."""
    proto = kit.model(
        [node("Gather", "x i", "u"), node("Where", "c u b", "v"), node("Softmax", "v", "y")],
        {"x": (F, [7, 40]), "i": (np.int64, ["n"]), "c": (np.bool_, ["n", 40]), "b": (F, [40])},
        ["y"],
    )
    outlined, call = kit.whole(proto)
    tensors = random_tensors(call, {"n": 9}, torch.device("cpu"))
    given = {str(value.name): tensor for value, tensor in zip(outlined.inputs, tensors, strict=True)}
    wanted = torch.softmax(torch.where(given["c"], given["x"][given["i"]], given["b"]), -1)
    status = torch.zeros(1, dtype=torch.int32)
    found: list[torch.Tensor] = []

    def run(planned: gpu_launch.Planned) -> None:
        found[:] = gpu_launch.launch(planned, tensors, status)
        torch.testing.assert_close(found[0], wanted)

    choices = ranked(gpu.kernels(call), {"n": 9}, INTERPRETER)
    assert by_clock(choices[::7], Trial(run, HostClock())).planned in [choice.planned for choice in choices]
    assert not status.item()
    (again,) = GpuCall(call).run(tensors, status)
    torch.testing.assert_close(again, wanted)


class HostClock:
    """Times by the host's clock."""

    def time(self, call: Callable[[], object]) -> float:
        """Return the microseconds of a call."""
        started = perf_counter()
        call()
        return (perf_counter() - started) * 1e6


def launch(kernel: GpuKernel, inputs: list[torch.Tensor]) -> list[torch.Tensor]:
    """Run a kernel on tensors as they are."""
    return gpu_launch.launch(gpu.planned(kernel, inputs), inputs, torch.zeros(1, dtype=torch.int32))


def _picked() -> list[torch.Tensor]:
    return [torch.arange(700, dtype=torch.float32).reshape(7, 100), torch.tensor([6, 0, 3])]


def test_bfloat16_is_storage() -> None:
    """Numbers of 16 bits are computed with in float32 and rounded once, where they are stored or cast."""
    nodes = [node("Softmax", "x", "v"), node("Gelu", "v", "w"), node("Cast", "w", "y", to=onnx.TensorProto.FLOAT)]
    proto = kit.model(nodes, {"x": (ml_dtypes.bfloat16, ["n", 63])}, ["w", "y"])
    x = torch.randn(5, 63).bfloat16()
    wanted = torch.nn.functional.gelu(torch.softmax(x.double(), -1))
    for kernel in gpu.kernels(kit.whole(proto)[1]):
        found = {tensor.dtype: tensor for tensor in launch(kernel, [x])}
        torch.testing.assert_close(found[torch.bfloat16], wanted.bfloat16(), rtol=1e-2, atol=1e-6)
        torch.testing.assert_close(found[torch.float32].double(), wanted, rtol=1e-5, atol=1e-7)


def test_numba_has_no_bfloat16() -> None:
    """The other renderer refuses the type by name."""
    proto = kit.model([node("Cast", "x", "y", to=onnx.TensorProto.BFLOAT16)], {"x": (F, ["n"])}, ["y"])
    with pytest.raises(NotEmittableError, match="element type bfloat16 is not known"):
        kernel_source(kit.whole(proto)[1])
