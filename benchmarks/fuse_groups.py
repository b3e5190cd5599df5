"""Time groups of memory-intensive operators on one thread: fused by sartor, in onnxruntime, and by torch.compile.

Every side gets the same inputs in place, and allocates its output. Each group is first compared with the same
computation in float64, then timed call by call in turn: sartor against onnxruntime, sartor against torch.compile.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from _common import Bar, Outcome, error, finish, geometric_mean, parser, require_close
from models.groups import LARGE, SMALL, TINY, Group, Shape, export_group, groups

from sartor.share.runtime import kernels_of, load, stock_options
from sartor.share.timing import Race, race
from sartor.tools.fuse.fuse import fuse
from sartor.tools.fuse.options import Options
from sartor.tools.fuse.places import PROCESSOR

Call = Callable[[], object]
COLUMNS = ("group", "size", "sartor us", "onnxruntime us", "ratio", "torch.compile us", "ratio")


@dataclass(frozen=True)
class Sides:
    """The three sides ready to be called, and their errors against float64 in the same order."""

    sartor: Call
    onnxruntime: Call
    torch: Call
    errors: tuple[float, float, float]


@dataclass(frozen=True)
class Result:
    """One group at one size; sartor is `a` in both races."""

    group: str
    shape: Shape
    errors: tuple[float, float, float]
    stock: Race
    inductor: Race

    def as_json(self) -> dict[str, Any]:
        """Return the row of the result file; times in microseconds."""
        return {
            "group": self.group,
            "shape": list(self.shape),
            "errors": dict(zip(("sartor", "onnxruntime", "torch"), self.errors, strict=True)),
            "onnxruntime": self.stock.as_json(),
            "torch_compile": self.inductor.as_json(),
        }

    def cells(self) -> tuple[str, ...]:
        """Return the row of the table: minima and ratios of minima."""
        size = "x".join(map(str, self.shape))
        times = (f"{self.stock.a.minimum:.1f}", f"{self.stock.b.minimum:.1f}", f"{self.stock.ratio_min:.2f}")
        return (self.group, size, *times, f"{self.inductor.b.minimum:.1f}", f"{self.inductor.ratio_min:.2f}")


def measure(group: Group, shape: Shape, seconds: float) -> Result:
    """Check and time one group; exits when a side computes something else."""
    with tempfile.TemporaryDirectory() as folder:
        sides = prepare(group, Path(folder))
    for side, found in zip(("sartor", "onnxruntime", "torch.compile"), sides.errors, strict=True):
        require_close(f"{group.name} {shape} {side}", found)
    stock, inductor = (race(sides.sartor, other, seconds) for other in (sides.onnxruntime, sides.torch))
    return Result(group.name, shape, sides.errors, stock, inductor)


def prepare(group: Group, folder: Path) -> Sides:
    """Export, fuse and compile one group; exits where it does not become exactly one kernel."""
    source, target = export_group(group, folder), folder / "fused.onnx"
    plan = fuse(str(source), str(target), Options(measure=False, threads=1), None)
    fused = load(target, threads=1)
    if len(kernels_of(fused)) != 1 or plan.dispatches_after != 1:
        sys.exit(f"{group.name}: {len(kernels_of(fused))} kernels and {plan.dispatches_after} operators are left")
    stock = onnxruntime.InferenceSession(source, stock_options(1), providers=["CPUExecutionProvider"])
    feed = {name.name: tensor.numpy() for name, tensor in zip(stock.get_inputs(), group.inputs, strict=True)}
    compiled = compile_torch(group)
    expected = [reference(group)]
    outputs = (fused.run(None, feed), stock.run(None, feed), [compiled().numpy()])
    errors = tuple(error(output, expected) for output in outputs)
    return Sides(PROCESSOR.runner(fused, feed).call, PROCESSOR.runner(stock, feed).call, compiled, errors)


def compile_torch(group: Group) -> Callable[[], torch.Tensor]:
    """Compile a group with inductor, for exactly these sizes."""
    torch.compiler.reset()
    compiled = torch.compile(group.function, dynamic=False)
    return lambda: compiled(*group.inputs)


def reference(group: Group) -> np.ndarray:
    """Compute a group in float64."""
    inputs = [tensor.double() if tensor.is_floating_point() else tensor for tensor in group.inputs]
    return group.function(*inputs).numpy()


def bars(results: list[Result]) -> tuple[Bar, ...]:
    """Return the claims about the ratios of minima."""
    stock, inductor = ([getattr(result, side).ratio_min for result in results] for side in ("stock", "inductor"))
    return (
        Bar("geometric mean over onnxruntime", geometric_mean(stock), 1.8, True),
        Bar("geometric mean over torch.compile", geometric_mean(inductor), 1.4, True),
        Bar("slowest against onnxruntime", min(stock), 1.0, True),
        Bar("slowest against torch.compile", min(inductor), 1.0, True),
    )


def main() -> None:
    """Measure all groups, or those named, at both sizes."""
    made = parser(__doc__)
    made.add_argument("--only", nargs="*", help="names of groups")
    made.add_argument("--seconds", type=float, default=2.0, help="time of one race")
    options = made.parse_args()
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    shapes, seconds = ((TINY,), 0.05) if options.quick else ((SMALL, LARGE), options.seconds)
    results = []
    for shape in shapes:
        for group in groups(shape):
            if not options.only or group.name in options.only:
                results.append(measure(group, shape, seconds))
                print(*results[-1].cells(), file=sys.stderr, flush=True)
    cells = tuple(result.cells() for result in results)
    rows = tuple(result.as_json() for result in results)
    finish(Outcome("fuse_groups", {"threads": 1, "seconds": seconds}, COLUMNS, cells, rows, bars(results)), options)


if __name__ == "__main__":
    main()
