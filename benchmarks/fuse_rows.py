"""Time softmax and layer normalisation, alone on one thread, over rows of the widths that models have: our kernel and
onnxruntime's own.

The widths are those where kernels differ: shorter than a vector, odd (49 positions of a window, 77 of a text, 197 of an
image), multiples of a vector, and longer than a cache. Each result is first compared with float64.
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
from sartor.tools.fuse.places import PROCESSOR

OPERATORS = {"Softmax": (), "LayerNormalization": ("scale", "shift")}
WIDTHS = (7, 16, 49, 64, 77, 128, 197, 256, 384, 512, 768, 1024, 2048, 4096, 50257)
ELEMENTS, QUICK_ELEMENTS = 1 << 18, 1 << 10
COLUMNS = ("operator", "width", "sartor ns", "onnxruntime ns", "ratio")


@dataclass(frozen=True)
class Result:
    """One operator at one width; sartor is `a` in the race."""

    operator: str
    width: int
    rows: int
    errors: tuple[float, float]
    times: Race

    def as_json(self) -> dict[str, Any]:
        """Return the row of the result file; the race in microseconds a call."""
        return {
            "operator": self.operator,
            "width": self.width,
            "rows": self.rows,
            "errors": dict(zip(("sartor", "onnxruntime"), self.errors, strict=True)),
            "onnxruntime": self.times.as_json(),
        }

    def cells(self) -> tuple[str, ...]:
        """Return the row of the table: the least nanoseconds an element, and the ratio of minima."""
        elements = self.width * self.rows
        ours, stock = (f"{1e3 * timing.minimum / elements:.3f}" for timing in (self.times.a, self.times.b))
        return self.operator, str(self.width), ours, stock, f"{self.times.ratio_min:.2f}"


def model_of(operator: str, width: int) -> onnx.ModelProto:
    """Make a model of one operator over rows of a width."""
    names = ("x", *OPERATORS[operator])
    inputs = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["rows", width] if name == "x" else [width])
        for name in names
    ]
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["rows", width])
    graph = helper.make_graph([helper.make_node(operator, names, ["y"])], "rows", inputs, [output])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def fused_session(model: onnx.ModelProto) -> Any:
    """Fuse a model into one kernel without asking whether it pays, and open it."""
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, "rows.onnx"), Path(folder, "fused.onnx")
        onnx.save(model, source)
        fuse(str(source), str(target), Options(measure=False, verify=False), None)
        session = PROCESSOR.open(target)
    assert len(kernels_of(session)) == 1, "not one kernel"
    return session


def measure(operator: str, width: int, elements: int, seconds: float) -> Result:
    """Check and time one operator at one width; exits on a wrong result."""
    model, rows = model_of(operator, width), max(elements // width, 1)
    rng = np.random.default_rng(0)
    feed = {"x": rng.standard_normal((rows, width)).astype(np.float32)}
    feed |= {name: rng.standard_normal(width).astype(np.float32) for name in OPERATORS[operator]}
    ours = fused_session(model)
    options = stock_options(1)
    stock = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    expected = run_double(model, feed)
    errors = error(ours.run(None, feed), expected), error(stock.run(None, feed), expected)
    for side, found in zip(("sartor", "onnxruntime"), errors, strict=True):
        require_close(f"{operator} {width} by {side}", found)
    times = race(PROCESSOR.runner(ours, feed).call, PROCESSOR.runner(stock, feed).call, seconds)
    return Result(operator, width, rows, errors, times)


def main() -> None:
    """Measure all operators at all widths, or those named."""
    made = parser(__doc__)
    made.add_argument("--only", nargs="*", choices=OPERATORS, help="operators")
    made.add_argument("--seconds", type=float, default=1.0, help="time of one race")
    options = made.parse_args()
    elements, seconds = (QUICK_ELEMENTS, 0.02) if options.quick else (ELEMENTS, options.seconds)
    results = []
    for operator in options.only or OPERATORS:
        for width in WIDTHS:
            results.append(measure(operator, width, elements, seconds))
            print(*results[-1].cells(), file=sys.stderr, flush=True)
    bars = tuple(
        Bar(f"{operator}: geometric mean over onnxruntime", geometric_mean(ratios), bound, True)
        for operator, bound in (("Softmax", 1.0), ("LayerNormalization", 2.0))
        if (ratios := [result.times.ratio_min for result in results if result.operator == operator])
    )
    settings = {"threads": 1, "seconds": seconds, "elements": elements}
    cells, rows = tuple(one.cells() for one in results), tuple(one.as_json() for one in results)
    finish(Outcome("fuse_rows", settings, COLUMNS, cells, rows, bars), options)


if __name__ == "__main__":
    main()
