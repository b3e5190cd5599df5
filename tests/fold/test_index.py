"""What there is to pack: chains that can be used and why others can't, and the files of each in any layout."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.kits.protein_kit import Polymer, mmcif, residues_of, write

from sartor.share.errors import InputRefusedError
from sartor.tools.fold.index import (
    Dropped,
    Entry,
    alignment_folders,
    group_by_sequence,
    index_file,
    structure_files,
)

PEPTIDE = residues_of("MKVLAG")


def index(folder: Path, text: str | bytes, worst: float = 9.0) -> tuple[list[str], list[Dropped]]:
    found = index_file(write(folder, {"1abc.cif": text}) / "1abc.cif", worst)
    return [entry.name for entry in found.entries], list(found.dropped)


def entry(name: str, sequence: str, label: str = "A") -> Entry:
    code, _, author = name.partition("_")
    return Entry(Path(f"{code}.cif"), code, author, label, "1", sequence)


def test_chains_that_can_be_used(tmp_path: Path) -> None:
    assert index(tmp_path, mmcif("1abc", [Polymer("A", PEPTIDE), Polymer("b", PEPTIDE)])) == (["1abc_A", "1abc_b"], [])


@pytest.mark.parametrize(
    ("polymer", "resolution", "reason"),
    [
        (Polymer("B", residues_of("MKV")), "2.0", "it has 3 residues, fewer than 4"),
        (Polymer("B", PEPTIDE, atoms=dict.fromkeys(range(6), ())), "2.0", None),
        (Polymer("b/c", PEPTIDE, "B"), "2.0", "its name has other characters than letters, digits, _ and -"),
        (Polymer("B", PEPTIDE), "?", "its resolution is not told"),
        (Polymer("B", PEPTIDE), "9.5", "its resolution is 9.5 angstroms"),
        (Polymer("B", residues_of("MKAAAAAAAAAAAA")), "2.0", "86% of it is one residue"),
    ],
)
def test_chains_that_cant_be_used(tmp_path: Path, polymer: Polymer, resolution: str, reason: str | None) -> None:
    names, dropped = index(tmp_path, mmcif("1abc", [Polymer("A", PEPTIDE), polymer], resolution=resolution))
    if reason is None:
        # A chain of which nothing was seen is not among those of the model at all.
        assert (names, dropped) == (["1abc_A"], [])
    else:
        assert Dropped("chain", f"1abc_{polymer.author}", reason) in dropped
        assert f"1abc_{polymer.author}" not in names


def test_a_chain_without_alpha_carbons_is_left_out(tmp_path: Path) -> None:
    text = mmcif("1abc", [Polymer("A", PEPTIDE)]).replace(" CA .", " CX .")
    assert index(tmp_path, text) == ([], [Dropped("chain", "1abc_A", "no alpha carbon of it was seen")])


def test_a_damaged_file_is_named_and_so_is_one_without_protein(tmp_path: Path) -> None:
    names, (dropped,) = index(tmp_path, b"HEADER\n")
    assert (names, dropped.kind, dropped.name) == ([], "file", "1abc.cif")
    assert dropped.reason.startswith("it can't be read as mmCIF (")
    strand = Polymer("B", ("DA", "DG", "DC", "DT"), kind="polydeoxyribonucleotide")
    assert index(tmp_path, mmcif("1abc", [strand])) == ([], [Dropped("entry", "1abc", "it has no protein")])


def test_structures_are_found_anywhere_below_a_folder(tmp_path: Path) -> None:
    write(
        tmp_path,
        {"2XYZ.cif": "", "ab/1abc.cif.gz": "", "notes.txt": "", "3def.mmcif": "", ".cif": "", "z/2xyz.cif": ""},
    )
    found, twice = structure_files(tmp_path)
    assert twice == [Dropped("entry", "z/2xyz.cif", "2XYZ.cif is of the same entry")]
    assert [(code, path.name) for code, path in found.items()] == [
        ("1abc", "1abc.cif.gz"), ("2xyz", "2XYZ.cif"), ("3def", "3def.mmcif"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "reason"), [("no", "there is no such folder"), ("", "there are no mmCIF files in it")]
)
def test_a_folder_without_structures_is_refused(tmp_path: Path, name: str, reason: str) -> None:
    with pytest.raises(InputRefusedError) as caught:
        structure_files(tmp_path / name)
    assert caught.value.reason == reason


def test_layouts_of_alignments(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "1abc_A/mgnify_hits.sto": "", "1abc_A/uniref90_hits.a3m": "", "1abc_A/bfd_uniclust_hits.a3m": "",
            "1abc_A/pdb70_hits.hhr": "", "1abc_A/uniprot_hits.sto": "", "1abc_A/hmm_output.sto": "",
            "2xyz_B/a3m/uniref90_hits.a3m": "", "2xyz_B/a3m/other.a3m.gz": "", "2xyz_B/hhr/pdb70_hits.hhr": "",
            "3def_C.a3m": "", "3def_C.hhr": "", "README": "",
        },
    )  # fmt: skip
    found = alignment_folders(tmp_path)
    assert {name: [path.name for path in paths] for name, paths in found.alignments.items()} == {
        "1abc_A": ["uniref90_hits.a3m", "bfd_uniclust_hits.a3m", "mgnify_hits.sto"],
        "2xyz_B": ["uniref90_hits.a3m", "other.a3m.gz"],
        "3def_C": ["3def_C.a3m"],
    }
    assert {name: [path.name for path in paths] for name, paths in found.templates.items()} == {
        "1abc_A": ["pdb70_hits.hhr"], "2xyz_B": ["pdb70_hits.hhr"], "3def_C": ["3def_C.hhr"],
    }  # fmt: skip


def test_chains_of_one_sequence_share_the_files_of_any_of_them(tmp_path: Path) -> None:
    write(tmp_path, {"2XYZ_B/uniref90_hits.a3m": "", "3def_Q/x.hhr": ""})
    entries = [entry("3def_A", "GGHH", "Q"), entry("2xyz_B", "MKVL"), entry("1abc_A", "MKVL")]
    one, two = group_by_sequence(entries, alignment_folders(tmp_path))
    assert [chain.name for chain in one.entries] == ["1abc_A", "2xyz_B"]
    assert [path.name for path in one.alignments] == ["uniref90_hits.a3m"]
    assert [path.name for path in two.templates] == ["x.hhr"]
    assert (two.alignments, [path.name for path in two.inputs]) == ((), ["3def.cif", "x.hhr"])
