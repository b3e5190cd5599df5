"""Sums of weights by class."""

from __future__ import annotations

import platform
import re
from typing import Any

import numpy as np
import pytest
from tests.kits.numba_kit import assembly

from sartor.tools.prune.kernels import saliency as module
from sartor.tools.prune.kernels.saliency import Part, channel_sums, channel_sums_reference, saliency

SHAPES = [(1,), (63,), (1000,), (5, 1), (63, 1000), (7, 17, 3, 3), (16, 1, 5, 5), (3, 2, 2, 3, 4), (0, 4), (4, 0)]


def drawn(shape: tuple[int, ...], axis: int, count: int = 5) -> Part:
    """Draw a tensor and classes of an axis, some of them none."""
    rng = np.random.default_rng(len(shape))
    classes = rng.integers(-1, count, shape[axis])
    return Part(rng.standard_normal(shape, dtype=np.float32), axis, classes)


@pytest.mark.parametrize("shape", SHAPES)
def test_channel_sums(shape: tuple[int, ...]) -> None:
    for axis in range(len(shape)):
        part = drawn(shape, axis)
        for found, expected in zip(channel_sums(part), channel_sums_reference(part), strict=True):
            assert found.shape == (shape[axis],)
            np.testing.assert_allclose(found, expected, rtol=2e-6)


def test_a_tensor_of_any_strides() -> None:
    weight = np.random.default_rng(0).standard_normal((6, 10, 8), dtype=np.float32).transpose(2, 0, 1)[::2]
    part = Part(weight, 1, np.arange(6))
    for found, expected in zip(channel_sums(part), channel_sums_reference(part), strict=True):
        np.testing.assert_allclose(found, expected, rtol=2e-6)


def test_classes_over_several_tensors() -> None:
    """A unit's producer, bias and consumer after a Flatten to four positions."""
    rng = np.random.default_rng(0)
    producer, bias = rng.standard_normal((6, 3, 3, 3), dtype=np.float32), rng.standard_normal(6, dtype=np.float32)
    consumer = rng.standard_normal((24, 5), dtype=np.float32)
    classes = np.array([0, 1, -1, 2, 3, 4])
    parts = [Part(producer, 0, classes), Part(bias, 0, classes), Part(consumer, 0, np.repeat(classes, 4))]
    found = saliency(parts, 5)
    for j, channel in enumerate([0, 1, 3, 4, 5]):
        rows = slice(4 * channel, 4 * channel + 4)
        squares = np.sum(producer[channel] ** 2) + bias[channel] ** 2 + np.sum(consumer[rows] ** 2)
        magnitudes = np.abs(producer[channel]).sum() + abs(bias[channel])
        magnitudes += np.abs(consumer[rows]).sum()
        assert found.squares[j] == pytest.approx(squares, rel=1e-5)
        assert found.magnitudes[j] == pytest.approx(magnitudes, rel=1e-5)


@pytest.mark.skipif(platform.machine() != "x86_64", reason="names of registers")
@pytest.mark.parametrize("kernel", [module._add_runs, module._add_columns])
def test_loops_are_vectorised(kernel: Any) -> None:
    channel_sums(drawn((3, 40, 9), 1)), channel_sums(drawn((3, 40), 1))
    codes = assembly(kernel)
    assert codes
    assert all(re.search(r"vmul\w+|vfmadd\w+", code) and re.search("[yz]mm", code) for code in codes)
