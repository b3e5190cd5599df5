"""Nested least squares give for each number of columns what a solution from scratch gives."""

from __future__ import annotations

import numpy as np
import pytest

from sartor.tools.prune.kernels.nested import (
    cholesky,
    forward,
    inverse_of_transpose,
    weights_of_first,
    weights_reference,
)  # fmt: skip


def system(groups: int, columns: int, outputs: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(columns)
    design = rng.standard_normal((groups, 2 * columns + 3, columns))
    gram = design.swapaxes(1, 2) @ design
    return gram, gram @ rng.standard_normal((groups, columns, outputs))


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 63, 5), (2, 63, 1), (3, 20, 33), (1, 250, 7)])
def test_all_counts(shape: tuple[int, int, int]) -> None:
    gram, right = system(*shape)
    factor = cholesky(gram)
    solved = forward(factor, right)
    counts = [count for count in (1, 2, 3, 7, 20, 63, 64, 200, 250) if count <= shape[1]]
    for count in counts:
        expected = weights_reference(gram, right, count)
        np.testing.assert_allclose(weights_of_first(factor, solved, count), expected, rtol=1e-7, atol=1e-9)


def test_no_columns_have_no_weights() -> None:
    gram, right = system(2, 5, 3)
    factor = cholesky(gram)
    assert weights_of_first(factor, forward(factor, right), 0).shape == (2, 0, 3)


@pytest.mark.parametrize("size", [1, 2, 63, 96, 97, 300])
def test_inverse(size: int) -> None:
    factor = cholesky(system(2, size, 1)[0])
    found = inverse_of_transpose(factor)
    np.testing.assert_allclose(found @ factor.swapaxes(1, 2), np.broadcast_to(np.eye(size), factor.shape), atol=1e-10)
    assert not np.tril(found, -1).any()


def test_squares_of_what_is_solved_are_what_is_explained() -> None:
    rng = np.random.default_rng(0)
    design, target = rng.standard_normal((100, 12)), rng.standard_normal((100, 4))
    factor = cholesky((design.T @ design)[None])
    solved = forward(factor, (design.T @ target)[None])[0]
    for count in range(1, 13):
        _, left, *_ = np.linalg.lstsq(design[:, :count], target)
        assert np.sum(target**2) - np.sum(solved[:count] ** 2) == pytest.approx(left.sum())
