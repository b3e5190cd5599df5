"""Calibration: measure a fixed suite of groups on this machine and fit the cost model to it."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np

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
from sartor.tools.fuse.cost import features, priced
from sartor.tools.fuse.fit import fit, quality
from sartor.tools.fuse.lower import lower
from sartor.tools.fuse.measure import Setting, concrete_shapes, race_group
from sartor.tools.fuse.plan import Group
from sartor.tools.fuse.schedule import Schedule, schedule
from sartor.tools.fuse.score import Light
from sartor.tools.fuse.suite import SUITE, Sample, group_of

SECONDS = 0.08
"""Time spent on one group at one size."""

SEED = 0

Step = Callable[[int], None]
Rates = KernelRates | StockRates


@dataclass(frozen=True)
class Point:
    """A group at one size: what kernel and onnxruntime do in a call, counted, and the microseconds they took."""

    group: str
    sizes: tuple[int, int]
    threads: int
    kernel: KernelRates
    stock: StockRates
    kernel_us: float
    stock_us: float


def calibrate(
    threads: Sequence[int], step: Step, suite: Sequence[Sample] = SUITE, seconds: float = SECONDS
) -> Calibration:
    """Measure the suite with each number of threads, fit coefficients, and keep them for this machine."""
    caches = caches_of()
    points = [point for sample in suite for point in measured(sample, threads, caches, seconds, step)]
    made = fitted(points, caches)
    write_bytes((json.dumps(made.as_json(), indent=1) + "\n").encode(), str(calibration_path()))
    return made


def fitted(points: Sequence[Point], caches: Caches) -> Calibration:
    """Fit both sides of the economics to measurements."""
    kernel_us, stock_us = [point.kernel_us for point in points], [point.stock_us for point in points]
    kernel = KernelRates(**_solve([point.kernel for point in points], kernel_us))
    # Where onnxruntime runs on several threads it divides what it likes.
    alone = [point for point in points if point.threads == 1]
    stock = StockRates(**_solve([point.stock for point in alone], [point.stock_us for point in alone]))
    return Calibration(
        Coefficients(kernel, stock, caches, "calibrated"),
        processor(),
        versions(),
        quality([priced(kernel, point.kernel) for point in points], kernel_us),
        quality([priced(stock, point.stock) for point in points], stock_us),
    )


def _solve(amounts: Sequence[Rates], microseconds: Sequence[float]) -> dict[str, float]:
    rows = np.array([list(asdict(row).values()) for row in amounts], np.float64)
    rates = fit(rows, np.array(microseconds) * 1e3)
    return {name: float(f"{rate:.4g}") for name, rate in zip(names(amounts[0]), rates, strict=True)}


def measured(sample: Sample, threads: Sequence[int], caches: Caches, seconds: float, step: Step) -> list[Point]:
    """Time a group at all of its sizes."""
    group = group_of(sample)
    planned = schedule(lower(group.call.function, group.call.inputs))
    points = [
        _timed(group, planned, sizes, count, caches, seconds)
        for count in threads
        for sizes in sample.sizes
        # Small calls run in one thread anyway.
        if count == 1 or sizes[0] * sizes[1] > 1 << 16
    ]
    step(1)
    return points


def _timed(
    group: Group, planned: Schedule, sizes: tuple[int, int], threads: int, caches: Caches, seconds: float
) -> Point:
    axes = dict(zip(("R", "C"), sizes, strict=True))
    shapes, amounts = concrete_shapes(group, axes), features(planned, axes, threads, caches)
    assert shapes is not None, "the suite names no other axes"
    assert amounts is not None, "the suite names no other axes"
    times = race_group(group, shapes, Setting(axes, threads, SEED), seconds)
    stock = Light(axes, replace(DEFAULTS, caches=caches)).amounts(group.nodes)
    return Point(group.id, sizes, threads, amounts, stock, times["kernel"], times["stock"])
