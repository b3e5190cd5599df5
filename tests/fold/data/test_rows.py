"""Rows left out in blocks, and drawn as clusters."""

from __future__ import annotations

import numpy as np
import pytest

from sartor.tools.fold.data.config import DataConfig
from sartor.tools.fold.data.deletions import add, dense, starts_of
from sartor.tools.fold.data.profile import profile_of, profile_reference
from sartor.tools.fold.data.rows import draw_clusters, kept_rows
from sartor.tools.fold.parse.alignment import sparse

CONFIG = DataConfig(clusters=8)


@pytest.mark.parametrize("depth", [1, 2, 3, 10, 1000])
def test_the_first_row_stays_and_blocks_go(depth: int) -> None:
    for step in range(50):
        kept = kept_rows(depth, CONFIG, 0, step)
        assert kept[0] == 0
        gone = np.setdiff1d(np.arange(1, depth), kept)
        if depth >= 10:
            # One to five blocks of three tenths, which may overlap or end with the alignment.
            assert 1 <= len(gone) <= depth - 1
            assert np.count_nonzero(np.diff(gone) > 1) <= CONFIG.deleted_blocks - 1


def test_how_many_rows_stay_is_as_likely_as_the_algorithm_has_it() -> None:
    shares = [len(kept_rows(1000, CONFIG, 1, step)) / 1000 for step in range(2000)]
    # A row late enough is spared by a block with chance 0.7, an early one with more.
    early = np.minimum(np.arange(1, 1001), 300) / 1000
    assert abs(np.mean(shares) - np.mean((1 - early) ** 5)) < 0.01


def test_clusters_are_the_first_row_and_others_at_random() -> None:
    centres, others = draw_clusters(100, CONFIG, 0, 1)
    assert centres[0] == 0
    assert len(centres) == 8
    assert sorted([*centres, *others]) == list(range(100))
    assert len({tuple(draw_clusters(100, CONFIG, 0, step)[0]) for step in range(20)}) == 20
    centres, others = draw_clusters(5, CONFIG, 0, 1)
    assert (sorted(centres), list(others)) == ([0, 1, 2, 3, 4], [])


@pytest.mark.parametrize("depth", [1, 63, 1000])
def test_profiles_are_those_of_one_hot_matrices(depth: int) -> None:
    rows = np.random.default_rng(depth).integers(0, 22, (depth, 17), np.uint8)
    np.testing.assert_array_equal(profile_of(rows), profile_reference(rows))
    np.testing.assert_array_equal(profile_of(rows[:, ::2]), profile_reference(rows[:, ::2]))


@pytest.mark.parametrize("density", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("crop", [slice(0, 20), slice(7, 13)])
def test_deletions_of_chosen_rows_and_sums_over_clusters(density: float, crop: slice) -> None:
    random = np.random.default_rng(3)
    whole = np.where(random.random((50, 20)) < density, random.integers(1, 1000, (50, 20)), 0).astype(np.uint16)
    cut, chosen = sparse(whole), random.permutation(50)[:31]
    starts, width = starts_of(cut, 50), crop.stop - crop.start
    out = np.zeros((31, width), np.uint16)
    dense(cut, starts, chosen, crop, out)
    np.testing.assert_array_equal(out, whole[chosen, crop])
    cluster = random.integers(0, 4, 31).astype(np.int32)
    sums = np.zeros((4, width), np.float32)
    add(cut, starts, chosen, cluster, crop, sums)
    np.testing.assert_array_equal(sums, np.eye(4, dtype=np.float32)[cluster].T @ whole[chosen, crop].astype(np.float32))
