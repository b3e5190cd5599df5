"""Time groups that reduce over a whole tensor or over long columns, on one thread and on two: our kernels, whose work
is cut into phases with a barrier between them, and onnxruntime's.

Each result is first compared with float64.
"""

from __future__ import annotations

import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from _common import Bar, Outcome, error, finish, geometric_mean, parser, require_close
from onnx import TensorProto, helper

from sartor.share.double import run_double
from sartor.share.runtime import kernels_of, stock_options
from sartor.share.timing import Race, race
from sartor.tools.fuse.fuse import fuse
from sartor.tools.fuse.options import Options
from sartor.tools.fuse.places import Processor

COLUMNS = ("group", "threads", "sartor us", "onnxruntime us", "ratio")
node = helper.make_node


@dataclass(frozen=True)
class Group:
    """Nodes from `x` of a shape to `y`."""

    nodes: tuple[onnx.NodeProto, ...]
    shape: tuple[int, ...]
    quick: tuple[int, ...]
    weights: tuple[tuple[str, int], ...] = ()


_STANDARD = (
    node("ReduceMean", ["x", "axis"], ["mean"]),
    node("Sub", ["x", "mean"], ["centred"]),
    node("Mul", ["centred", "centred"], ["square"]),
    node("ReduceMean", ["square", "axis"], ["variance"]),
    node("Sqrt", ["variance"], ["deviation"]),
    node("Div", ["centred", "deviation"], ["y"]),
)

GROUPS = {
    "vocabulary": Group((node("Softmax", ["x"], ["y"]),), (1, 250002), (1, 300)),
    "norm_of_one": Group(
        (node("GroupNormalization", ["x", "g", "b"], ["y"], num_groups=1),),
        (1, 64, 128, 128), (1, 64, 4, 4), (("g", 64), ("b", 64)),
    ),
    "norm_then_amax": Group(
        (
            node("LayerNormalization", ["x", "g", "b"], ["n"]),
            node("Abs", ["n"], ["size"]),
            node("ReduceMax", ["size"], ["amax"], keepdims=0),
            node("Div", ["n", "amax"], ["y"]),
        ),
        (512, 768), (8, 768), (("g", 768), ("b", 768)),
    ),
    "columns": Group(_STANDARD, (65536, 64), (64, 64)),
    "squeeze_excite": Group(
        (
            node("GlobalAveragePool", ["x"], ["mean"]),
            node("Sigmoid", ["mean"], ["gate"]),
            node("Mul", ["x", "gate"], ["y"]),
        ),
        (1, 8, 512, 512), (1, 8, 4, 4),
    ),
}  # fmt: skip
"""A softmax over all words, a norm over all channels of one image, quantisation behind a norm, the norm of a batch, and
the gate of a few large channels."""


@dataclass(frozen=True)
class Result:
    """One group on so many threads; sartor is `a` in the race."""

    group: str
    threads: int
    errors: tuple[float, float]
    times: Race

    def as_json(self) -> dict[str, Any]:
        """Return the row of the result file; the race in microseconds a call."""
        return {
            "group": self.group,
            "shape": GROUPS[self.group].shape,
            "threads": self.threads,
            "errors": dict(zip(("sartor", "onnxruntime"), self.errors, strict=True)),
            "onnxruntime": self.times.as_json(),
        }

    def cells(self) -> tuple[str, ...]:
        """Return the row of the table: least microseconds, and the ratio of minima."""
        ours, stock = (f"{timing.minimum:.1f}" for timing in (self.times.a, self.times.b))
        return self.group, str(self.threads), ours, stock, f"{self.times.ratio_min:.2f}"


def model_of(group: Group, shape: tuple[int, ...]) -> onnx.ModelProto:
    """Make the model of a group."""
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)]
    inputs += [helper.make_tensor_value_info(name, TensorProto.FLOAT, [size]) for name, size in group.weights]
    axis = helper.make_tensor("axis", TensorProto.INT64, [1], [0])
    named = {name for one in group.nodes for name in one.input}
    constants = [axis] if "axis" in named else []
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)
    graph = helper.make_graph(group.nodes, "group", inputs, [output], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def measure(name: str, threads: int, quick: bool, seconds: float) -> Result:
    """Check and time one group; exits on a wrong result."""
    group, place = GROUPS[name], Processor(threads)
    shape = group.quick if quick else group.shape
    model, rng = model_of(group, shape), np.random.default_rng(0)
    feed = {"x": rng.standard_normal(shape).astype(np.float32)}
    feed |= {name: rng.standard_normal(size).astype(np.float32) for name, size in group.weights}
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, "group.onnx"), Path(folder, "fused.onnx")
        onnx.save(model, source)
        fuse(str(source), str(target), Options(measure=False, verify=False), None)
        ours = place.open(target)
    assert len(kernels_of(ours)) == 1, "not one kernel"
    stock = onnxruntime.InferenceSession(
        model.SerializeToString(), stock_options(threads), providers=["CPUExecutionProvider"]
    )
    expected = run_double(model, feed)
    errors = error(ours.run(None, feed), expected), error(stock.run(None, feed), expected)
    for side, found in zip(("sartor", "onnxruntime"), errors, strict=True):
        require_close(f"{name} by {side}", found)
    times = race(place.runner(ours, feed).call, place.runner(stock, feed).call, seconds)
    return Result(name, threads, errors, times)


def main() -> None:
    """Measure all groups on one thread and on two, or those named."""
    made = parser(__doc__)
    made.add_argument("--only", nargs="*", choices=GROUPS, help="groups")
    made.add_argument("--seconds", type=float, default=2.0, help="time of one race")
    options = made.parse_args()
    seconds, results = 0.02 if options.quick else options.seconds, []
    for name in options.only or GROUPS:
        for threads in (1, 2):
            results.append(measure(name, threads, options.quick, seconds))
            print(*results[-1].cells(), file=sys.stderr, flush=True)
    bars = tuple(
        Bar(f"geometric mean over onnxruntime, {threads} threads", geometric_mean(ratios), 1.5, True)
        for threads in (1, 2)
        if (ratios := [result.times.ratio_min for result in results if result.threads == threads])
    )
    cells, rows = tuple(one.cells() for one in results), tuple(one.as_json() for one in results)
    finish(Outcome("fuse_phases", {"seconds": seconds}, COLUMNS, cells, rows, bars), options)


if __name__ == "__main__":
    main()
