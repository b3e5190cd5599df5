"""Bond lengths and bounds fit the ideal positions of residues."""

from __future__ import annotations

import math

import numpy as np
import pytest

from sartor.tools.fold import residues, stereochemistry
from sartor.tools.fold.stereochemistry import distance_bounds, distances


@pytest.mark.parametrize("residue", residues.NAMES)
def test_ideal_positions_keep_to_bonds(residue: str) -> None:
    """Two atoms of a group lie where tables of bonds, made independently, say, to a few deviations."""
    number = residues.INDEX[residue]
    names, group = residues.atoms_of(residue), residues.atom14_group()[number]
    at = residues.atom14_ideal()[number].astype(float)
    checked = 0
    for (a, b), (mean, deviation) in distances(residue).items():
        i, j = names.index(a), names.index(b)
        if group[i] == group[j]:
            assert abs(math.dist(at[i], at[j]) - mean) < 4 * deviation, (a, b)
            checked += 1
    assert checked >= 3


def test_law_of_cosines() -> None:
    """N-CA-C of alanine: 1.459, 1.525, 111 degrees."""
    expected = math.sqrt(1.459**2 + 1.525**2 - 2 * 1.459 * 1.525 * math.cos(math.radians(111.0)))
    assert distances("ALA")["N", "C"][0] == pytest.approx(expected)


def test_every_atom_is_bonded() -> None:
    for residue in residues.NAMES:
        bonded = {name for pair in distances(residue) for name in pair}
        assert bonded == set(residues.atoms_of(residue))


def test_bounds_are_symmetric_and_contain_the_means() -> None:
    low, high = distance_bounds(1.5, 12.0)
    assert np.array_equal(low, low.transpose(0, 2, 1))
    assert np.array_equal(high, high.transpose(0, 2, 1))
    number, names = residues.INDEX["LYS"], residues.atoms_of("LYS")
    place = number, names.index("CE"), names.index("NZ")
    assert low[place] < 1.486 < high[place]
    assert low[number, 0, len(names) - 1] == pytest.approx(2 * residues.RADII["N"] - 1.5)
    assert not low[20].any()
    assert stereochemistry.PEPTIDE_LENGTH[0] < stereochemistry.PEPTIDE_LENGTH_PROLINE[0]
