"""Clusters: the nearest centre and the first of several, and the shares of classes, as one-hot matrices have them."""

from __future__ import annotations

import numpy as np
import pytest

from sartor.tools.fold.alphabet import encode
from sartor.tools.fold.data.clusters import (
    members_of,
    nearest,
    nearest_reference,
    summarise,
    summarise_reference,
    transposed,
)


def alignment(depth: int, length: int, classes: int = 23) -> np.ndarray:
    """Return rows that agree often, so that there are ties."""
    return np.random.default_rng(depth + length).integers(0, classes, (depth, length), np.uint8)


@pytest.mark.parametrize("depth", [0, 1, 63, 1000, 1025])
@pytest.mark.parametrize("length", [0, 1, 63, 254, 255, 256, 600])
@pytest.mark.parametrize("classes", [3, 23])
def test_the_nearest_centre_is_that_of_one_hot_matrices(depth: int, length: int, classes: int) -> None:
    rows = alignment(depth, length, classes)
    centres = alignment(7, length, classes)
    found = nearest(centres, np.ascontiguousarray(rows.T))
    np.testing.assert_array_equal(found, nearest_reference(centres, rows))


def test_counts_of_equal_residues_do_not_wrap() -> None:
    rows = np.zeros((2, 70_000 // 2), np.uint8)
    centres = np.stack([np.ones(rows.shape[1], np.uint8), rows[0]])
    assert nearest(centres, np.ascontiguousarray(rows.T)).tolist() == [1, 1]


def test_gaps_and_masks_agree_with_nothing_and_unknown_residues_with_their_like() -> None:
    centres = np.stack([encode("----M"), np.full(5, 22, np.uint8), encode("XXKKK")])
    rows = np.stack([encode("----K"), np.full(5, 22, np.uint8), encode("XX---"), encode("----M")])
    assert nearest(centres, np.ascontiguousarray(rows.T)).tolist() == [2, 0, 2, 0]


@pytest.mark.parametrize("crop", [slice(0, 30), slice(3, 4), slice(5, 29)])
@pytest.mark.parametrize("depth", [1, 40, 300])
def test_shares_are_those_of_one_hot_matrices(depth: int, crop: slice) -> None:
    rows, centres = alignment(depth, 30, 22), alignment(5, 30)
    cluster = np.random.default_rng(0).integers(0, 5, depth).astype(np.int32)
    extra = np.flatnonzero(np.random.default_rng(1).random(depth) < 0.7)
    out = np.zeros((5, crop.stop - crop.start, 23), np.float32)
    summarise(centres, rows, extra, cluster, members_of(cluster, extra, 5), crop, out)
    expected = summarise_reference(centres, rows[extra], cluster[extra])[:, crop]
    np.testing.assert_array_equal(out, expected)
    np.testing.assert_allclose(out.sum(-1), 1, atol=1e-5)


@pytest.mark.parametrize("count", [1, 63, 64, 65, 200])
def test_rows_as_columns(count: int) -> None:
    rows = alignment(300, 17)
    chosen = np.random.default_rng(2).permutation(300)[:count]
    taken, columns = transposed(rows, chosen)
    np.testing.assert_array_equal(taken, rows[chosen])
    np.testing.assert_array_equal(columns, rows[chosen].T)
    # A view with other strides is as good.
    assert (transposed(rows[:, ::2], chosen)[1] == rows[chosen, ::2].T).all()
