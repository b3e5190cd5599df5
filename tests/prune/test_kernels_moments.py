"""Gram matrices without the design matrix are those of the design matrix."""

from __future__ import annotations

import functools
import operator
from dataclasses import replace

import numpy as np
import pytest

from sartor.tools.prune.kernels import moments as module
from sartor.tools.prune.kernels.moments import Moments, moments, moments_reference, shift_of
from sartor.tools.prune.kernels.window import DENSE, Window


def square(
    kernel: int,
    stride: int = 1,
    dilation: int = 1,
    pad: int = 0,
    rank: int = 2,
    groups: int = 1,
    transposed: bool = False,
) -> Window:
    """Make a window that is alike along all axes."""
    return Window(*((n,) * rank for n in (kernel, stride, dilation, pad, pad)), groups, transposed)


CASES = {
    "dense": (DENSE, (7, 5)),
    "dense, long": (DENSE, (5000, 3)),
    "one feature": (DENSE, (1000, 1)),
    "dense groups": (replace(DENSE, groups=3), (63, 6)),
    "1x1": (square(1), (3, 10, 5, 7)),
    "1x1, strided": (square(1, stride=2), (3, 10, 5, 7)),
    "1x1, padded": (square(1, pad=1), (3, 10, 5, 7)),
    "3x3": (square(3, pad=1), (5, 9, 6, 8)),
    "3x3, unpadded": (square(3), (5, 9, 6, 8)),
    "3x3 of one position": (square(3, pad=1), (63, 8, 1, 1)),
    "3x3, strided": (square(3, stride=2, pad=1), (4, 9, 7, 8)),
    "3x3, dilated": (square(3, dilation=2, pad=2), (4, 9, 7, 6)),
    "taps beyond the map": (square(3, dilation=3, pad=3), (4, 9, 2, 2)),
    "few channels": (square(3, pad=1), (5, 2, 6, 8)),
    "even kernel": (Window((2, 4), (1, 1), (1, 1), (0, 1), (1, 2)), (3, 8, 5, 7)),
    "groups": (square(3, pad=1, groups=2), (4, 18, 5, 6)),
    "depthwise": (square(3, pad=1, groups=9), (4, 9, 5, 6)),
    "signal": (square(5, pad=2, rank=1), (3, 8, 1000)),
    "long signal": (square(3, dilation=2, pad=2, rank=1), (2, 8, 10000)),
    "volume": (square(2, pad=1, rank=3), (3, 8, 3, 4, 5)),
    "transposed": (square(4, stride=2, pad=1, transposed=True), (3, 8, 4, 5)),
    "transposed, cropped": (square(2, stride=3, pad=2, transposed=True), (3, 8, 4, 5)),
    "transposed groups": (square(3, stride=2, pad=1, groups=2, transposed=True), (3, 16, 4, 5)),
    "no image": (square(3, pad=1), (0, 8, 5, 5)),
}


def activation(shape: tuple[int, ...]) -> np.ndarray:
    """Draw what a ReLU puts out, with one channel dead and one constant where there are several."""
    x = np.maximum(np.random.default_rng(0).standard_normal(shape, dtype=np.float32), 0)
    if shape[1] > 2:
        x[:, 1], x[:, 2] = 0, 3
    return x


def check(found: Moments, expected: Moments) -> None:
    assert found.rows == expected.rows
    assert found.gram.shape == expected.gram.shape
    scale = max(float(np.abs(expected.gram).max(initial=0)), 1e-30)
    np.testing.assert_allclose(found.gram / scale, expected.gram / scale, atol=1e-6)
    np.testing.assert_allclose(found.sums, expected.sums, atol=1e-6 * np.sqrt(scale * max(expected.rows, 1)))
    np.testing.assert_array_equal(found.gram, found.gram.swapaxes(1, 2))


@pytest.mark.parametrize("chunk", [module.CHUNK, 7])
@pytest.mark.parametrize("name", CASES)
def test_moments(name: str, chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CHUNK", chunk)
    window, shape = CASES[name]
    x = activation(shape)
    shift = shift_of(x, window)
    check(moments(x, window, shift), moments_reference(x, window, shift))


def test_a_map_of_any_strides() -> None:
    window = square(3, pad=1)
    x = activation((4, 5, 6, 16)).transpose(0, 3, 1, 2)[:, ::2]
    shift = shift_of(x, window)
    check(moments(x, window, shift), moments_reference(x, window, shift))


def test_batches_add_up() -> None:
    window, x = square(3, pad=1), activation((10, 8, 5, 5))
    shift = shift_of(x[:3], window)
    check(moments(x[:3], window, shift) + moments(x[3:], window, shift), moments_reference(x, window, shift))


def about_mean(found: Moments) -> np.ndarray:
    return (found.gram - found.sums[:, :, None] * found.sums[:, None] / found.rows)[0]


@pytest.mark.parametrize(("window", "shape"), [(DENSE, (1 << 20, 9)), (square(3, pad=1), (4096, 8, 16, 16))])
def test_a_million_rows(window: Window, shape: tuple[int, ...]) -> None:
    """The Gram about the mean, whose elements are the smaller ones, is right to 1e-6."""
    x = activation(shape)
    x[:, 3] = x[:, 3] * 1e-3 + 5
    shift = shift_of(x, window)
    pieces = (moments_reference(part, window, shift) for part in np.array_split(x, 32))
    expected = about_mean(functools.reduce(operator.add, pieces))
    deviation = np.sqrt(np.diagonal(expected)) + 1e-9
    difference = about_mean(moments(x, window, shift)) - expected
    assert np.abs(difference / np.outer(deviation, deviation)).max() < 1e-6


def test_a_shift_has_few_bits_and_is_about_the_mean() -> None:
    x = activation((50, 4, 6, 6))
    shift, mean = shift_of(x, square(3)), x.mean((0, 2, 3))
    np.testing.assert_allclose(shift, mean, rtol=0.07)
    np.testing.assert_array_equal(np.float32(np.float16(shift[0])), shift[0])
    assert not shift_of(x, square(3, transposed=True)).any()
