"""Masks: how many residues are hidden, and what they become."""

from __future__ import annotations

import numpy as np

from sartor.tools.fold.alphabet import GAP, MASKED, UNKNOWN
from sartor.tools.fold.data.config import DataConfig
from sartor.tools.fold.data.masking import mask_rows, unknown_residues, unknown_rows

CONFIG = DataConfig()


def test_residues_are_hidden_as_often_as_the_paper_says() -> None:
    rows = np.full((400, 100), 7, np.uint8)
    # In this column the profile knows one residue alone, that no other draw gives.
    profile = np.zeros((100, 22), np.float32)
    profile[:, GAP] = 1
    seen, hidden = mask_rows(rows, profile, CONFIG, 1, 2)
    assert abs(hidden.mean() - 0.15) < 0.006
    assert (seen[hidden == 0] == 7).all()
    shares = np.bincount(seen[hidden == 1], minlength=23) / hidden.sum()
    assert abs(shares[MASKED] - 0.7) < 0.02
    assert abs(shares[GAP] - 0.1) < 0.015
    # It stays, or is drawn by chance among all.
    assert abs(shares[7] - 0.105) < 0.015
    assert abs(shares[:20].sum() - 0.2) < 0.02
    assert shares[UNKNOWN] == 0


def test_the_profile_is_followed() -> None:
    rows = np.full((2000, 3), 0, np.uint8)
    profile = np.zeros((3, 22), np.float32)
    profile[0, [3, 5]], profile[1, 4], profile[2, [0, GAP]] = (0.25, 0.75), 1, (0.5, 0.5)
    config = DataConfig(masked=1.0, masked_uniform=0.0, masked_profile=1.0, masked_same=0.0)
    seen, hidden = mask_rows(rows, profile, config, 1, 2)
    assert hidden.all()
    shares = [np.bincount(seen[:, column], minlength=22) / 2000 for column in range(3)]
    np.testing.assert_allclose(shares, profile, atol=0.04)


def test_some_residues_become_unknown_but_no_gaps() -> None:
    rows = np.tile(np.array([3, GAP, UNKNOWN], np.uint8), (4000, 1))
    found = unknown_rows(rows, 0.25, 1)
    assert abs((found[:, 0] == UNKNOWN).mean() - 0.25) < 0.03
    assert set(found[:, 0]) == {3, UNKNOWN}
    assert (found[:, 1:] == rows[:, 1:]).all()
    residues = unknown_residues(rows[:, 0], 0.25, 1)
    assert abs((residues == UNKNOWN).mean() - 0.25) < 0.03
    assert not np.array_equal(residues, found[:, 0])
