"""mmCIF: the sequence of the experiment and the atoms that were seen, whatever an entry lacks or has twice."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
from tests.kits.protein_kit import Atom, Polymer, mmcif, place_of, residues_of, write

from sartor.share.errors import InputRefusedError
from sartor.tools.fold.parse.mmcif import ATOMS, Structure, read_mmcif

PLACE = {name: place for place, name in enumerate(ATOMS)}
PEPTIDE = residues_of("MKVLAG")


def read(folder: Path, text: str | bytes, name: str = "1abc.cif") -> list[Structure]:
    return read_mmcif(write(folder, {name: text}) / name)


def test_what_a_chain_is(tmp_path: Path) -> None:
    (found,) = read(tmp_path, mmcif("1abc", [Polymer("A", PEPTIDE)]))
    assert (found.code, found.author, found.label, found.entity) == ("1abc", "A", "A", "1")
    assert (found.name, found.sequence, found.resolution, found.date) == ("1abc_A", "MKVLAG", 2.0, "2020-02-01")
    assert found.seen.sum() == 6 * 5
    assert found.seen[:, [PLACE[name] for name in ("N", "CA", "C", "O", "CB")]].all()
    np.testing.assert_allclose(found.positions[4, PLACE["O"]], place_of(4, 3), atol=1e-4)
    assert not found.positions[~found.seen].any()


def test_names_of_chains_by_authors_and_by_the_archive(tmp_path: Path) -> None:
    found = read(tmp_path, mmcif("1abc", [Polymer("X", PEPTIDE, "A"), Polymer("A", residues_of("GGHH"), "B")]))
    assert [(one.name, one.label, one.entity, one.sequence) for one in found] == [
        ("1abc_X", "A", "1", "MKVLAG"), ("1abc_A", "B", "2", "GGHH"),
    ]  # fmt: skip


def test_residues_that_were_not_seen_have_places(tmp_path: Path) -> None:
    (found,) = read(tmp_path, mmcif("1abc", [Polymer("A", PEPTIDE, unseen=(0, 1, 3, 5))]))
    assert found.sequence == "MKVLAG"
    assert found.seen.any(1).tolist() == [False, False, True, False, True, False]
    np.testing.assert_allclose(found.positions[4, PLACE["CA"]], place_of(4, 1), atol=1e-4)


def test_the_first_of_several_models_counts(tmp_path: Path) -> None:
    (found,) = read(tmp_path, mmcif("1abc", [Polymer("A", PEPTIDE)], models=3))
    assert found.seen.sum() == 6 * 5
    assert found.positions[..., 2].max() == 0


def test_modified_residues_are_read_as_their_parents(tmp_path: Path) -> None:
    odd = {0: (Atom("N", (1, 1, 1)), Atom("CA", (2, 2, 2)), Atom("SE", (3, 3, 3)))}
    (found,) = read(tmp_path, mmcif("1abc", [Polymer("A", ("MSE", "SEP", "UNK", "SEC", "GLY"), atoms=odd)]))
    assert found.sequence == "MSXXG"
    assert found.positions[0, PLACE["SD"]].tolist() == [3, 3, 3]
    assert np.flatnonzero(found.seen[0]).tolist() == sorted(PLACE[name] for name in ("N", "CA", "SD"))


def test_of_several_places_of_an_atom_the_likeliest_counts(tmp_path: Path) -> None:
    odd = {1: (Atom("CA", (1, 1, 1), "A", 0.3), Atom("CA", (2, 2, 2), "B", 0.5), Atom("CA", (3, 3, 3), "C", 0.2))}
    (found,) = read(tmp_path, mmcif("1abc", [Polymer("A", PEPTIDE, atoms=odd)]))
    assert found.positions[1, PLACE["CA"]].tolist() == [2, 2, 2]


@pytest.mark.parametrize("swapped", [False, True])
def test_the_nearer_nitrogen_of_arginine_is_the_first(tmp_path: Path, swapped: bool) -> None:
    near, far = (0.0, 0.0, 2.0), (0.0, 0.0, 3.0)
    odd = {0: (Atom("CD", (0, 0, 0)), Atom("NH1", far if swapped else near), Atom("NH2", near if swapped else far))}
    (found,) = read(tmp_path, mmcif("1abc", [Polymer("A", residues_of("RGGA"), atoms=odd)]))
    assert found.positions[0, PLACE["NH1"]].tolist() == [0, 0, 2]
    assert found.positions[0, PLACE["NH2"]].tolist() == [0, 0, 3]


def test_what_is_no_protein_is_left_aside(tmp_path: Path) -> None:
    strand = Polymer("B", ("DA", "DG", "DC", "DT"), kind="polydeoxyribonucleotide")
    assert [one.name for one in read(tmp_path, mmcif("1abc", [strand, Polymer("A", PEPTIDE)]))] == ["1abc_A"]


def test_without_a_sequence_it_is_that_of_what_was_seen(tmp_path: Path) -> None:
    (found,) = read(tmp_path, mmcif("1abc", [Polymer("A", PEPTIDE, unseen=(2,))], sequences=False))
    assert found.sequence == "MKLAG"
    assert found.seen.any(1).all()


@pytest.mark.parametrize(("told", "expected"), [("?", 0.0), (".", 0.0), ("3.25", 3.25)])
def test_resolution(tmp_path: Path, told: str, expected: float) -> None:
    (found,) = read(tmp_path, mmcif("1abc", [Polymer("A", PEPTIDE)], resolution=told))
    assert found.resolution == expected


@pytest.mark.parametrize(
    ("told", "expected"), [("?", "2023-03-03"), ("2020-13-45", "2023-03-03"), ("May", "2023-03-03")]
)
def test_dates_that_are_none_do_not_count(tmp_path: Path, told: str, expected: str) -> None:
    (found,) = read(tmp_path, mmcif("1abc", [Polymer("A", PEPTIDE)], released=told))
    assert found.date == expected


def test_atoms_without_a_place_were_not_seen(tmp_path: Path) -> None:
    text = mmcif("1abc", [Polymer("A", PEPTIDE)]).replace("3.800 1.500 0.000", "? 1.500 0.000")
    (found,) = read(tmp_path, text)
    assert found.seen.sum() == 6 * 5 - 1
    assert np.isfinite(found.positions).all()


def test_compressed(tmp_path: Path) -> None:
    (found,) = read(tmp_path, gzip.compress(mmcif("1ABC", [Polymer("A", PEPTIDE)]).encode()), "1ABC.cif.gz")
    assert (found.name, found.sequence) == ("1abc_A", "MKVLAG")


WHOLE = mmcif("1abc", [Polymer("A", PEPTIDE)])


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("1abc.cif", b"", "it can't be read as mmCIF"),
        ("1abc.cif", b"HEADER    HYDROLASE\nATOM  1\n", "it can't be read as mmCIF"),
        ("1abc.cif", bytes(range(256)) * 9, "it can't be read as mmCIF"),
        ("1abc.cif", WHOLE.encode()[: len(WHOLE) - 60], "it can't be read as mmCIF"),
        ("1abc.cif.gz", gzip.compress(WHOLE.encode())[:-20], "it can't be read as mmCIF"),
        ("1abc.cif.gz", WHOLE.encode()[:10], "it can't be read as mmCIF"),
        ("1abc.cif", b"data_1ABC\n_entry.id 1ABC\n", "it has no coordinates"),
    ],
)
def test_what_is_damaged_is_refused_by_name(tmp_path: Path, name: str, content: bytes, reason: str) -> None:
    with pytest.raises(InputRefusedError) as caught:
        read(tmp_path, content, name)
    assert str(caught.value).startswith(f"{name}: {reason}")
    assert "\n" not in str(caught.value)


def test_real_entries(data: Path) -> None:
    folder = data / "fold" / "mmcif"
    one, two = read_mmcif(folder / "2q2k.cif")
    assert (one.name, one.label, two.name, two.label) == ("2q2k_A", "B", "2q2k_B", "C")
    assert one.sequence.startswith("MGSSHHHHHHSSGLVPGSHMDKKET")
    assert not one.seen[:20].any()
    assert (one.resolution, one.date) == (3.0, "2008-02-05")
    # A file of predictions, whose sequences are in another table, and ligands in the chain.
    ras, _ = read_mmcif(folder / "721p.cif")
    assert len(ras.sequence) == 166
    assert ras.seen[:, 1].all()
