"""Calibration: measure a fixed suite of groups on this machine and fit the cost model to it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np

from sartor.share import console
from sartor.share.artifact import write_bytes
from sartor.tools.fuse.coefficients import (
    DEFAULTS,
    Caches,
    Calibration,
    Coefficients,
    KernelRates,
    StockRates,
    caches_of,
    calibration_path,
    names,
    processor,
    versions,
)
from sartor.tools.fuse.composition import schedules
from sartor.tools.fuse.cost import features, priced
from sartor.tools.fuse.fit import fit, quality
from sartor.tools.fuse.lower import lower
from sartor.tools.fuse.measure import Setting, concrete_shapes, race_group
from sartor.tools.fuse.places import PROCESSOR
from sartor.tools.fuse.plan import Group
from sartor.tools.fuse.schedule import Schedule
from sartor.tools.fuse.score import Light
from sartor.tools.fuse.suite import SUITE, Sample, group_of

SECONDS = 0.08
"""Time spent on one group at one size."""

SEED = 0

L3_SHARES = (1.0, 0.5, 0.25)
"""How much of the last cache may be ours."""

Rates = KernelRates | StockRates


@dataclass(frozen=True)
class Point:
    """What a group at one size took: microseconds as a kernel and in onnxruntime."""

    group: Group
    planned: tuple[Schedule, ...]
    axes: Mapping[str, int]
    threads: int
    kernel_us: float
    stock_us: float


def calibrate(suite: Sequence[Sample] = SUITE, seconds: float = SECONDS) -> Calibration:
    """Measure the suite, fit coefficients, and keep them for this machine.

    Raises WriteError where the cache can't be written.
    """
    points: list[Point] = []
    with console.progress("measuring groups", len(suite)) as step:
        for sample in suite:
            points += measured(sample, seconds)
            step(1)
    made = best_fit(points, caches_of())
    write_bytes((json.dumps(made.as_json(), indent=1) + "\n").encode(), calibration_path())
    return made


def measured(sample: Sample, seconds: float = SECONDS) -> list[Point]:
    """Time a group of the suite at all of its sizes, on one thread."""
    group = group_of(sample)
    return [point_of(group, dict(zip(("R", "C"), sizes, strict=True)), seconds) for sizes in sample.sizes]


def point_of(group: Group, axes: Mapping[str, int], seconds: float = SECONDS) -> Point:
    """Time a group on one thread; `axes` gives the sizes of all named axes."""
    shapes = concrete_shapes(group, axes)
    assert shapes is not None, "a size is missing"
    times = race_group(group, shapes, Setting(axes, PROCESSOR, SEED), seconds)
    planned = schedules(lower(group.call.function, group.call.inputs))
    return Point(group, planned, axes, 1, times["kernel"], times["stock"])


def best_fit(points: Sequence[Point], caches: Caches) -> Calibration:
    """Fit coefficients, with as much of the last cache as explains the measurements best.

    Virtual machines see the cache of a whole processor, and share it.
    """
    fits = [fitted(points, replace(caches, l3=int(caches.l3 * share))) for share in L3_SHARES]
    return min(fits, key=lambda made: made.quality.mean_error)


def fitted(points: Sequence[Point], caches: Caches) -> Calibration:
    """Fit the rates of kernels and of onnxruntime to measurements."""
    kernel_us, stock_us = [point.kernel_us for point in points], [point.stock_us for point in points]
    counted = [features(point.planned, point.axes, point.threads, caches) for point in points]
    kernels = [amounts for amounts in counted if amounts is not None]
    stocks = [Light(point.axes, caches=caches).amounts(point.group.nodes) for point in points]
    kernel = KernelRates(**_solve(kernels, kernel_us, DEFAULTS.kernel))
    stock = StockRates(**_solve(stocks, stock_us, DEFAULTS.stock))
    return Calibration(
        Coefficients(kernel, stock, caches, "calibrated"),
        processor(),
        versions(),
        quality([priced(kernel, amounts) for amounts in kernels], kernel_us),
        quality([priced(stock, amounts) for amounts in stocks], stock_us),
    )


def _solve(amounts: Sequence[Rates], microseconds: Sequence[float], known: Rates) -> dict[str, float]:
    """Fit rates; what no measurement tells stays as it is known."""
    rows = np.array([list(asdict(row).values()) for row in amounts], np.float64)
    rates = fit(rows, np.array(microseconds) * 1e3)
    pairs = zip(names(known), rates, np.abs(rows).sum(axis=0), strict=True)
    return {name: float(f"{rate:.4g}") if told > 0 else getattr(known, name) for name, rate, told in pairs}
