"""Proteins that are made up: right geometry, sequences that tell it, alignments that keep to it."""

from __future__ import annotations

import numpy as np
import pytest

from sartor.tools.fold import residues
from sartor.tools.fold.synthetic import LEAST_DISTANCE, LETTERS, Protein, proteins

Made = list[tuple[Protein, np.ndarray, list[str]]]


@pytest.fixture(scope="module")
def made() -> Made:
    return list(proteins(12, 3))


def alphas(atoms: np.ndarray) -> np.ndarray:
    return atoms[:, residues.ATOM37["CA"]]


def test_neighbours_and_turns_of_helices_are_where_textbooks_have_them(made: Made) -> None:
    for protein, atoms, _ in made:
        ca = alphas(atoms)
        assert np.abs(np.linalg.norm(np.diff(ca, axis=0), axis=1) - 3.8).max() < 0.05
        helix = [i for i in range(len(ca) - 4) if protein.kinds[i : i + 5] == "HHHHH"]
        # A turn of 3.6 residues rises 5.4 angstroms.
        assert all(6.0 < np.linalg.norm(ca[i + 4] - ca[i]) < 6.5 for i in helix)
        strand = [i for i in range(len(ca) - 2) if protein.kinds[i : i + 3] == "EEE"]
        assert all(6.2 < np.linalg.norm(ca[i + 2] - ca[i]) < 7.2 for i in strand)


def test_helices_are_right_handed(made: Made) -> None:
    seen = 0
    for protein, atoms, _ in made:
        ca = alphas(atoms)
        for i in range(len(ca) - 3):
            if protein.kinds[i : i + 4] == "HHHH":
                a, b, c = np.diff(ca[i : i + 4], axis=0)
                assert np.dot(np.cross(a, b), c) > 0
                seen += 1
    assert seen > 10


def test_chains_do_not_run_into_themselves(made: Made) -> None:
    for _, atoms, _ in made:
        ca = alphas(atoms)
        apart = np.linalg.norm(ca[:, None] - ca, axis=-1)
        assert apart[np.triu_indices(len(ca), 3)].min() >= LEAST_DISTANCE


def test_letters_tell_kind_and_side(made: Made) -> None:
    sides = [side for kind in LETTERS.values() for side in kind]
    assert len("".join(sides)) == len(set("".join(sides)))
    for protein, _, rows in made:
        assert all(letter in side for letter, side in zip(protein.sequence, protein.letters, strict=True))
        for row in rows:
            aligned = [letter for letter in row if not letter.islower()]
            assert len(aligned) == len(protein.sequence)
            assert all(letter in side or letter == "-" for letter, side in zip(aligned, protein.letters, strict=True))


def test_a_side_of_a_helix_comes_back_every_turn(made: Made) -> None:
    protein = next(one for one, _, _ in made if one.kinds.startswith("H" * 8))
    start = [LETTERS["H"].index(side) for side in protein.letters[:8]]
    assert start == [0, 1, 2, 3, 0, 1, 2, 3]


def test_the_seed_decides(made: Made) -> None:
    again, other = list(proteins(12, 3)), list(proteins(12, 4))
    assert [one.sequence for one, _, _ in again] == [one.sequence for one, _, _ in made]
    assert [one.sequence for one, _, _ in other] != [one.sequence for one, _, _ in made]
