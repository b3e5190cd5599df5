"""Predictions against measurements, on groups that no coefficient was fitted to."""

from __future__ import annotations

import pytest


@pytest.mark.slow
def test_shipped_coefficients_rank_the_groups_of_the_benchmark() -> None:
    from fuse_cost import benchmark_points
    from models.groups import LARGE, SMALL, TINY

    from sartor.tools.fuse.cost import predicted_us
    from sartor.tools.fuse.fit import quality

    points = [point for _, point in benchmark_points((TINY, SMALL, LARGE), 0.1)]
    predicted = [predicted_us(point.planned, point.axes, point.threads) or 0.0 for point in points]
    found = quality(predicted, [point.kernel_us for point in points])
    for point, time in zip(points, predicted, strict=True):
        print(f"{point.group.id:28} measured {point.kernel_us:9.1f} us, predicted {time:9.1f} us")
    print(found)
    assert len(points) == 30
    assert found.rank_correlation >= 0.8
