"""Kernels of several phases: against numpy in float64, in whatever order tasks run, on one thread and on two."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper
from tests.fuse.test_random_chains import build, check
from tests.kits import fuse_kit as kit
from tests.kits.random_chains import random_chain

from sartor.share.runtime import kernels_of, library, load
from sartor.tools.fuse import composition, phases
from sartor.tools.fuse.axes import NotEmittableError
from sartor.tools.fuse.fuse import fuse
from sartor.tools.fuse.kernel import kernel_schedules
from sartor.tools.fuse.layout import Layout
from sartor.tools.fuse.lower import lower
from sartor.tools.fuse.options import Options
from sartor.tools.fuse.steps import steps_of

Array = np.ndarray[Any, Any]
Feed = Mapping[str, Array]
F, H, LONG = np.float32, np.float16, np.int64
node = helper.make_node


def standard(x: Array, axes: tuple[int, ...]) -> Array:
    """Return x with mean 0 and variance 1."""
    centred = x - x.mean(axes, keepdims=True)
    return np.asarray(centred / np.sqrt((centred**2).mean(axes, keepdims=True) + 1e-5))


def softmax(x: Array, axes: tuple[int, ...]) -> Array:
    """Return exp(x) / sum(exp(x))."""
    power = np.exp(x - x.max(axes, keepdims=True))
    return np.asarray(power / power.sum(axes, keepdims=True))


def along(values: Array) -> Array:
    """Lay a vector of channels along axis 1 of four."""
    return values.reshape(1, -1, 1, 1)


@dataclass(frozen=True)
class Case:
    """A graph, what it is in numpy, its phases and slices, and the sizes that it is tried at."""

    nodes: Sequence[onnx.NodeProto]
    inputs: dict[str, tuple[Any, list[int | str]]]
    outputs: tuple[str, ...]
    numpy: Any
    phases: int
    sizes: tuple[dict[str, int], ...]
    slices: str = "1"
    weights: dict[str, Array] = field(default_factory=dict)

    @property
    def model(self) -> onnx.ModelProto:
        """The graph as a model."""
        made: onnx.ModelProto = kit.model(self.nodes, self.inputs, self.outputs, self.weights)
        return made

    def feed(self, sizes: Mapping[str, int]) -> dict[str, Array]:
        """Draw inputs."""
        draw = np.random.default_rng(7)
        shapes = {name: [sizes.get(str(dim), dim) for dim in shape] for name, (_, shape) in self.inputs.items()}
        return {
            name: (4 * draw.standard_normal(shapes[name])).astype(dtype) for name, (dtype, _) in self.inputs.items()
        }

    def expected(self, feed: Feed) -> list[Array]:
        """Compute the outputs in float64."""
        wide = {name: array.astype(np.float64) if array.dtype != LONG else array for name, array in feed.items()}
        with warnings.catch_warnings(action="ignore"):
            found = self.numpy(**wide)
        return list(found) if isinstance(found, tuple) else [found]


VECTOR = ({"n": 1}, {"n": 100}, {"n": 8192}, {"n": 70001})
IMAGE = ({"n": 1, "h": 1, "w": 1}, {"n": 1, "h": 83, "w": 97}, {"n": 2, "h": 3, "w": 200}, {"n": 3, "h": 0, "w": 5})
ROWS = ({"n": 1}, {"n": 31}, {"n": 33}, {"n": 1000})
FIRST = {"first": np.array([0])}
EACH = {"each": np.array([0, 2, 3])}
SCALES = {"g": (F, [6]), "b": (F, [6])}

CASES = {
    "mean": Case(
        [node("ReduceMean", ["x"], ["m"], keepdims=0), node("Sub", ["x", "m"], ["y"])],
        {"x": (F, ["n"])}, ("y", "m"), lambda x: (x - x.mean(), x.mean()), 3, VECTOR,
    ),
    "sums": Case(
        [node("ReduceSum", ["x"], ["s"], keepdims=0), node("Mul", ["x", "s"], ["p"]), node("Less", ["p", "x"], ["y"])],
        {"x": (LONG, ["n"])}, ("y", "s"), lambda x: (x * x.sum() < x, x.sum()), 3, (*VECTOR, {"n": 0}),
    ),
    "half": Case(
        [node("ReduceMean", ["x"], ["m"], keepdims=0), node("Sub", ["x", "m"], ["y"])],
        {"x": (H, ["n"])}, ("y",), lambda x: x - x.mean(), 3, VECTOR,
    ),
    "whole_softmax": Case(
        [node("Flatten", ["x"], ["f"], axis=0), node("Softmax", ["f"], ["y"]), node("ReduceMax", ["y"], ["m"])],
        {"x": (F, ["n", 7])}, ("y", "m"),
        lambda x: (softmax(x.reshape(1, -1), (1,)), softmax(x.reshape(1, -1), (1,)).max(keepdims=True)), 6, ROWS,
    ),
    "whole_norm": Case(
        [node("GroupNormalization", ["x", "g", "b"], ["y"], num_groups=1)],
        {"x": (F, [1, 6, "h", "w"]), **SCALES}, ("y",),
        lambda x, g, b: standard(x, (1, 2, 3)) * along(g) + along(b), 5, IMAGE[:2],
    ),
    "norm_of_samples": Case(
        [node("GroupNormalization", ["x", "g", "b"], ["y"], num_groups=1)],
        {"x": (F, ["n", 6, "h", "w"]), **SCALES}, ("y",),
        lambda x, g, b: standard(x, (1, 2, 3)) * along(g) + along(b), 5, IMAGE, "n",
    ),
    "few_groups": Case(
        [node("GroupNormalization", ["x", "g", "b"], ["y"], num_groups=3)],
        {"x": (F, ["n", 6, "h", "w"]), **SCALES}, ("y",),
        lambda x, g, b: standard(x.reshape(len(x), 3, -1), (2,)).reshape(x.shape) * along(g) + along(b),
        5, IMAGE, "3*n",
    ),
    "few_instances": Case(
        [node("InstanceNormalization", ["x", "g", "b"], ["y"])],
        {"x": (F, [1, 2, 64, 1100]), "g": (F, [2]), "b": (F, [2])}, ("y",),
        lambda x, g, b: standard(x, (2, 3)) * along(g) + along(b), 5, ({},), "2",
    ),
    "channels": Case(
        [
            node("ReduceMean", ["x", "each"], ["m"]), node("Sub", ["x", "m"], ["d"]), node("Mul", ["d", "d"], ["q"]),
            node("ReduceMean", ["q", "each"], ["v"]), node("Sqrt", ["v"], ["s"]), node("Div", ["d", "s"], ["y"]),
        ],
        {"x": (F, ["n", 3, "h", "w"])}, ("y", "m", "v"),
        lambda x: (
            (x - x.mean((0, 2, 3), keepdims=True)) / x.std((0, 2, 3), keepdims=True),
            x.mean((0, 2, 3), keepdims=True), x.var((0, 2, 3), keepdims=True),
        ), 5, IMAGE[1:3], "1", EACH,
    ),
    "columns_to_rows": Case(
        [node("ReduceMean", ["x", "first"], ["m"]), node("Sub", ["x", "m"], ["d"]), node("Softmax", ["d"], ["y"])],
        {"x": (F, ["n", 48])}, ("y",), lambda x: softmax(x - x.mean(0), (1,)), 3, ROWS, "1", FIRST,
    ),
    "columns": Case(
        [node("ReduceMean", ["x", "first"], ["m"]), node("Sub", ["x", "m"], ["y"])],
        {"x": (F, [1000, 300])}, ("y", "m"), lambda x: (x - x.mean(0), x.mean(0, keepdims=True)), 3, ({},), "1", FIRST,
    ),
    "scale_by_peak": Case(
        [
            node("LayerNormalization", ["x", "g", "b"], ["l"]), node("Abs", ["l"], ["a"]),
            node("ReduceMax", ["a"], ["m"], keepdims=0), node("Div", ["l", "m"], ["y"]),
        ],
        {"x": (F, ["n", 48]), "g": (F, [48]), "b": (F, [48])}, ("y", "m", "l"),
        lambda x, g, b: (
            (standard(x, (1,)) * g + b) / np.abs(standard(x, (1,)) * g + b).max(),
            np.abs(standard(x, (1,)) * g + b).max(), standard(x, (1,)) * g + b,
        ), 3, ROWS,
    ),
    "dear": Case(
        [node("Gelu", ["x"], ["e"]), node("ReduceSum", ["e"], ["s"], keepdims=0), node("Add", ["e", "s"], ["y"]),
         node("Sub", ["s", "e"], ["z"])],
        {"x": (F, ["n"])}, ("y", "z"), lambda x: (gelu(x).sum() + gelu(x), gelu(x).sum() - gelu(x)), 3, VECTOR,
    ),
}  # fmt: skip


def gelu(x: Array) -> Array:
    """Return x times the normal distribution function of x."""
    from math import erf

    return np.asarray(x * (1 + np.vectorize(erf)(x / np.sqrt(2))) / 2)


@pytest.mark.parametrize(("case", "sizes"), [(name, sizes) for name, case in CASES.items() for sizes in case.sizes])
def test_kernel(case: str, sizes: dict[str, int]) -> None:
    """A kernel gives what float64 does, and the same bits in whatever ranges and order the tasks of a phase run."""
    one = CASES[case]
    outlined, call = kit.whole(one.model)
    planned = kernel_schedules(call)[1]
    assert (composition.phase_count(planned), composition.composition(planned)) == (one.phases, "global")
    assert str(composition.slices(planned)) == one.slices
    feed, kernel = one.feed(sizes), kit.compiled(call)
    given = [{**one.weights, **feed}[str(value.name)] for value in outlined.inputs]
    found = kit.call(kernel, given)
    order = [one.outputs.index(str(value.name)) for value in outlined.outputs]
    for ours, place in zip(found, order, strict=True):
        assert_close(ours, one.expected(feed)[place])
    for seed in (1, 2):
        again = kit.call(kernel, given, seed)
        assert [array.tobytes() for array in again] == [array.tobytes() for array in found]


def assert_close(ours: Array, wanted: Array) -> None:
    """Compare with float64; integers and booleans are equal."""
    assert ours.shape == np.shape(wanted)
    if ours.dtype in (LONG, np.bool_):
        np.testing.assert_array_equal(ours, wanted)
    elif ours.size:
        # What float64 makes of an empty or constant tensor, onnxruntime does not: there the mean is 0.
        scale = np.abs(np.nan_to_num(wanted)).max() + (ours.dtype == H)
        tolerance = 2e-3 if ours.dtype == H else 1e-5
        np.testing.assert_allclose(ours, np.nan_to_num(wanted), atol=tolerance * scale, rtol=0)


def opened(model: onnx.ModelProto, folder: Path, threads: int) -> Any:
    """Open a session in which one kernel of ours runs the whole of a model."""
    source, target = folder / "source.onnx", folder / "fused.onnx"
    onnx.save(model, source)
    fuse(str(source), str(target), Options(measure=False, verify=False), None)
    session = load(target, threads=threads)
    assert [kernel.phases > 1 for kernel in kernels_of(session)] == [True]
    return session


@pytest.mark.parametrize("case", ["mean", "norm_of_samples", "few_groups", "columns_to_rows", "scale_by_peak"])
def test_threads(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One thread and two, with the library and without it, give the same bits."""
    if library.library_path() is None:
        pytest.skip(library.library_status())
    one, bits = CASES[case], set()
    feed = one.feed({"n": 70001} if case == "mean" else {"n": 3 if "h" in str(one.inputs) else 3000, "h": 99, "w": 301})
    for runtime in ("library", "segments"):
        monkeypatch.setenv("SARTOR_RUNTIME", runtime)
        for threads in (1, 2):
            session = opened(one.model, tmp_path, threads)
            for _ in range(3):
                outputs = session.run(None, feed)
                bits.add(tuple(array.tobytes() for array in outputs))
    assert len(bits) == 1
    for ours, wanted in zip(outputs, one.expected(feed), strict=True):
        assert_close(ours, wanted)


@pytest.fixture
def cut_everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut every program into phases where that is possible, with blocks so short that loops have several."""
    monkeypatch.setattr(composition, "_is_lonely", lambda planned: True)
    monkeypatch.setattr(composition, "_is_small", lambda layout: False)
    for name, value in (("BLOCK", 6), ("LEAST_ROWS", 2), ("ROUND", 4), ("UNKNOWN", 3)):
        monkeypatch.setattr(phases, name, value)


@pytest.mark.usefixtures("cut_everywhere")
@pytest.mark.parametrize("seed", range(40))
def test_chain(seed: int) -> None:
    """A kernel of a random chain in phases computes what the chain does, or there is none."""
    if not check(seed):
        pytest.skip("no kernel")


@pytest.mark.usefixtures("cut_everywhere")
def test_most_chains_have_phases() -> None:
    """Without this, kernels of one phase would pass."""
    found = []
    for seed in range(40):
        chain, outputs = random_chain(seed)
        with suppress(NotEmittableError):
            planned = kernel_schedules(kit.whole(build(chain, outputs, F))[1])[1]
            found.append(composition.phase_count(planned))
    assert sum(count > 1 for count in found) > len(found) / 2
    assert max(found) > 4


@pytest.mark.parametrize(
    ("operator", "shape", "attributes"),
    [
        ("LayerNormalization", ["n", 768], {}),
        ("LayerNormalization", ["n", "s", 768], {}),
        ("Softmax", ["b", 12, "s", "s"], {}),
        ("Softmax", ["n", 50257], {}),
        ("Softmax", ["n", "m"], {"axis": 0}),
        ("Softmax", [40, 1000], {"axis": 1}),
        ("GroupNormalization", ["n", 768, "h", "w"], {"num_groups": 32}),
        ("Sigmoid", ["n"], {}),
        ("GroupNormalization", [1, 768, 4, 4], {"num_groups": 1}),
    ],
)
def test_one_phase_is_enough(operator: str, shape: list[int | str], attributes: dict[str, int]) -> None:
    """Where there are tasks for many threads, or too little to do, a kernel stays what it was."""
    operands: dict[str, tuple[Any, list[int | str]]] = {"x": (F, shape)}
    if "Normalization" in operator:
        operands |= {name: (F, [768]) for name in ("g", "b")}
    call = kit.whole(kit.model([node(operator, list(operands), ["y"], **attributes)], operands, ["y"]))[1]
    planned = kernel_schedules(call)[1]
    assert (composition.phase_count(planned), len(planned)) == (1, 1)


def test_steps_are_as_few_as_can_be() -> None:
    """The maximum over rows joins the step of the column mean or of the sum behind it; rows lie further outside."""
    call = kit.whole(CASES["columns_to_rows"].model)[1]
    steps = steps_of(Layout(lower(call.function, call.inputs)))
    assert [(len(step.roots), step.seed and str(step.seed.size)) for step in steps] == [(1, "n"), (0, None), (3, "n")]
    assert [step.parts == step.roots for step in steps] == [True, True, False]


def test_what_is_kept_lives_in_an_output() -> None:
    """The exponentials of a softmax pass between phases through its output, not through memory of their own."""
    call = kit.whole(kit.model([node("Softmax", ["x"], ["y"])], {"x": (F, ["n"])}, ["y"]))[1]
    _, planned = kernel_schedules(call)
    assert [one.layout.program.positions for one in planned] == [(1,), (2,), (0, 3), (4,), (0,)]
