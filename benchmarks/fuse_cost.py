"""Compare predicted with measured times of kernels and of onnxruntime, on one thread: the calibration suite, and groups
as torch.onnx.export makes them, which no coefficient was fitted to.

The suite is measured, coefficients are fitted to it, and both the fitted ones and those that ship predict all groups.
Nothing is written to the cache.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from _common import Bar, Outcome, finish, parser
from models.groups import LARGE, SMALL, TINY, export_group, groups

from sartor.share.artifact import read_model
from sartor.share.shapes import infer_shapes
from sartor.tools.fuse.calibrate import Point, best_fit, measured, point_of
from sartor.tools.fuse.coefficients import DEFAULTS, Coefficients, Quality, caches_of
from sartor.tools.fuse.cost import predicted_us, priced
from sartor.tools.fuse.fit import quality
from sartor.tools.fuse.group import find_groups
from sartor.tools.fuse.inline import inline_functions
from sartor.tools.fuse.options import Selection
from sartor.tools.fuse.score import Light
from sartor.tools.fuse.suite import SUITE

COLUMNS = ("group", "sizes", "kernel us", "fitted", "shipped", "onnxruntime us", "fitted", "shipped")


@dataclass(frozen=True)
class Result:
    """A group at one size: measured microseconds, and those predicted with fitted and with shipped coefficients."""

    origin: str
    sizes: tuple[int, ...]
    point: Point
    kernel: tuple[float, float]
    stock: tuple[float, float]

    def as_json(self) -> dict[str, Any]:
        """Return the row of the result file; times in microseconds."""
        sides = {"kernel": (self.point.kernel_us, self.kernel), "onnxruntime": (self.point.stock_us, self.stock)}
        return {
            "origin": self.origin,
            "group": self.point.group.id,
            "sizes": list(self.sizes),
            **{
                side: {"measured_us": round(us, 3), "fitted_us": round(by[0], 3), "shipped_us": round(by[1], 3)}
                for side, (us, by) in sides.items()
            },
        }

    def cells(self) -> tuple[str, ...]:
        """Return the row of the table."""
        times = (self.point.kernel_us, *self.kernel, self.point.stock_us, *self.stock)
        return (self.point.group.id, "x".join(map(str, self.sizes)), *(f"{time:.1f}" for time in times))


def benchmark_points(shapes: Sequence[tuple[int, int]], seconds: float) -> list[tuple[tuple[int, ...], Point]]:
    """Measure the groups that torch exports; exits where one does not become exactly one kernel."""
    points = []
    with tempfile.TemporaryDirectory() as folder:
        for shape in shapes:
            for one in groups(shape):
                model = read_model(str(export_group(one, Path(folder)))).ir
                inline_functions(model)
                infer_shapes(model)
                found, _ = find_groups(model, frozenset(), Selection())
                if len(found) != 1:
                    sys.exit(f"{one.name}: {len(found)} groups")
                points.append((shape, point_of(replace(found[0], id=one.name), {}, seconds)))
    return points


def result(origin: str, sizes: tuple[int, ...], point: Point, fitted: Coefficients) -> Result:
    """Predict one point with both sets of coefficients."""
    kernel, stock = [], []
    for rates in (fitted, DEFAULTS):
        time = predicted_us(point.planned, point.axes, point.threads, rates)
        assert time is not None, "all sizes are known"
        kernel.append(time)
        stock.append(priced(rates.stock, Light(point.axes, rates.stock, rates.caches).amounts(point.group.nodes)))
    return Result(origin, sizes, point, (kernel[0], kernel[1]), (stock[0], stock[1]))


def bars(results: Sequence[Result]) -> tuple[Bar, ...]:
    """Return the claims about groups that no coefficient was fitted to, with shipped coefficients and fitted ones."""
    held = [one for one in results if one.origin == "benchmark"]
    measured_us = [one.point.kernel_us for one in held]
    out = []
    for i, kind in enumerate(("fitted", "shipped")):
        found: Quality = quality([one.kernel[i] for one in held], measured_us)
        out.append(Bar(f"rank correlation, {kind}", found.rank_correlation, 0.9, True))
        out.append(Bar(f"median relative error, {kind}", found.median_error, 0.35, False))
    return tuple(out)


def main() -> None:
    """Measure the suite and the groups, and predict all of them."""
    made = parser(__doc__)
    made.add_argument("--seconds", type=float, default=0.2, help="time of one race")
    options = made.parse_args()
    suite, shapes, seconds = (
        (SUITE[:4], (TINY,), 0.02) if options.quick else (SUITE, (TINY, SMALL, LARGE), options.seconds)
    )
    points = [point for sample in suite for point in measured(sample, seconds)]
    fitted = best_fit(points, caches_of()).coefficients
    results = [result("suite", tuple(point.axes.values()), point, fitted) for point in points]
    results += [result("benchmark", sizes, point, fitted) for sizes, point in benchmark_points(shapes, seconds)]
    cells, rows = tuple(one.cells() for one in results), tuple(one.as_json() for one in results)
    settings = {"threads": 1, "seconds": seconds, "fitted": asdict(fitted)}
    finish(Outcome("fuse_cost", settings, COLUMNS, cells, rows, bars(results)), options)


if __name__ == "__main__":
    main()
