"""Time every element-wise operator that `sartor fuse` has a rule for, alone on 256k elements and on one thread: its
kernel, onnxruntime's own, and eager torch's.

The model of each operator is one node, which becomes one kernel whether or not `sartor fuse` would keep it; torch runs
what the model is lowered to (docs/lowering.md). Every side is compared with float64 first. Then sartor is timed call by
call in turn with each of the others; the overhead of a call, some microseconds on all sides, is part of the figures.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import torch
from _common import Bar, Outcome, error, finish, geometric_mean, parser, require_close
from models.elementwise import CASES, Case

from sartor.share.double import run_double
from sartor.share.lowering import lower
from sartor.share.lowering.dtypes import from_numpy
from sartor.share.runtime import stock_options
from sartor.share.shapes import infer_shapes
from sartor.share.timing import Race, race
from sartor.tools.fuse.measure import group_model
from sartor.tools.fuse.places import PROCESSOR
from sartor.tools.fuse.suite import whole_group

Call = Callable[[], object]
COLUMNS = ("operator", "sartor ns", "onnxruntime ns", "ratio", "torch ns", "ratio")
ROWS, QUICK_ROWS = 512, 4
SIDES = ("sartor", "onnxruntime", "torch")


@dataclass(frozen=True)
class Sides:
    """The three sides ready to be called, and their errors against float64 in the same order."""

    sartor: Call
    onnxruntime: Call
    torch: Call
    errors: tuple[float, ...]


@dataclass(frozen=True)
class Result:
    """One operator; sartor is `a` in both races."""

    case: Case
    elements: int
    errors: tuple[float, ...]
    stock: Race
    eager: Race

    def as_json(self) -> dict[str, Any]:
        """Return the row of the result file; races in microseconds a call."""
        return {
            "operator": self.case.operator,
            "variant": self.case.variant,
            "elements": self.elements,
            "errors": dict(zip(SIDES, self.errors, strict=True)),
            "onnxruntime": self.stock.as_json(),
            "torch": self.eager.as_json(),
        }

    def cells(self) -> tuple[str, ...]:
        """Return the row of the table: the least nanoseconds an element, and ratios of minima."""
        ours, stock, eager = (
            f"{1e3 * timing.minimum / self.elements:.3f}" for timing in (self.stock.a, self.stock.b, self.eager.b)
        )
        return (self.case.label, ours, stock, f"{self.stock.ratio_min:.2f}", eager, f"{self.eager.ratio_min:.2f}")


def measure(case: Case, rows: int, seconds: float) -> Result:
    """Check and time one operator; exits when a side computes something else."""
    sides = prepare(case, rows)
    for side, found in zip(SIDES, sides.errors, strict=True):
        require_close(f"{case.label} by {side}", found)
    stock, eager = (race(sides.sartor, other, seconds) for other in (sides.onnxruntime, sides.torch))
    return Result(case, case.feed(rows)["x0"].size, sides.errors, stock, eager)


def prepare(case: Case, rows: int) -> Sides:
    """Compile and lower one operator; exits where it has no kernel."""
    model, feed = case.model(rows), case.feed(rows)
    fused = PROCESSOR.open(group_model(whole_group(case.operator, typed(case.model(rows)))))
    if PROCESSOR.kernels(fused) != 1:
        sys.exit(f"{case.label}: no kernel")
    options = stock_options(1)
    stock = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    named = dict(zip((value.name for value in fused.get_inputs()), feed.values(), strict=True))
    eager = in_torch(model, feed)
    outputs = (fused.run(None, named), stock.run(None, feed), [eager().numpy()])
    expected = run_double(model, feed)
    errors = tuple(error(output, expected) for output in outputs)
    return Sides(PROCESSOR.runner(fused, named).call, PROCESSOR.runner(stock, feed).call, eager, errors)


def typed(model: onnx.ModelProto) -> ir.Model:
    """Return a model with the types of its values."""
    made = ir.from_proto(model)
    infer_shapes(made)
    return made


def in_torch(model: onnx.ModelProto, feed: Mapping[str, np.ndarray]) -> Callable[[], torch.Tensor]:
    """Return a call of what a model is lowered to."""
    lowered = lower(ir.from_proto(model)).eval()
    tensors = {name: from_numpy(array) for name, array in feed.items()}
    return lambda: lowered(**tensors)["y"]


def bars(results: list[Result]) -> tuple[Bar, ...]:
    """Return the claims about the ratios of minima."""
    stock, eager = ([getattr(result, side).ratio_min for result in results] for side in ("stock", "eager"))
    return (
        Bar("geometric mean over onnxruntime", geometric_mean(stock), 2.5, True),
        Bar("geometric mean over torch", geometric_mean(eager), 2.5, True),
        Bar("slowest against onnxruntime", min(stock), 0.75, True),
    )


def main() -> None:
    """Measure all operators, or those named."""
    made = parser(__doc__)
    made.add_argument("--only", nargs="*", help="operators")
    made.add_argument("--seconds", type=float, default=1.0, help="time of one race")
    options = made.parse_args()
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    rows, seconds = (QUICK_ROWS, 0.02) if options.quick else (ROWS, options.seconds)
    results = []
    for case in CASES:
        if not options.only or case.operator in options.only:
            results.append(measure(case, rows, seconds))
            print(*results[-1].cells(), file=sys.stderr, flush=True)
    cells = tuple(result.cells() for result in results)
    settings = {"threads": 1, "seconds": seconds, "rows": rows}
    found = tuple(result.as_json() for result in results)
    finish(Outcome("fuse_elementwise", settings, COLUMNS, cells, found, bars(results)), options)


if __name__ == "__main__":
    main()
