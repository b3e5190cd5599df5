"""a3m: columns, insertions and gaps; rows that are not as long as the first, and foreign bytes, are refused by name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tests.kits.protein_kit import a3m

from sartor.share.errors import InputRefusedError
from sartor.tools.fold.alphabet import decode
from sartor.tools.fold.parse.a3m import parse_a3m
from sartor.tools.fold.parse.alignment import MOST_DELETED, Alignment


def texts(alignment: Alignment) -> list[str]:
    return [decode(row) for row in alignment.rows]


def deletions(alignment: Alignment) -> list[tuple[int, int, int]]:
    cut = alignment.deletions
    return list(zip(cut.rows.tolist(), cut.columns.tolist(), cut.counts.tolist(), strict=True))


def test_columns_insertions_and_gaps() -> None:
    found = parse_a3m(a3m({"query": "MKVL", "a": "aM-bcVL", "b": "--VLdef", "c": "MK..Vl-"}), "x.a3m")
    assert texts(found) == ["MKVL", "M-VL", "--VL", "MKV-"]
    # What stands behind the last column counts for none, and dots only fill.
    assert deletions(found) == [(1, 0, 1), (1, 2, 2), (3, 3, 1)]


def test_letters_of_several_residues_are_read_as_hhblits_does() -> None:
    assert texts(parse_a3m(a3m({"q": "BJOUXZ"}), "x.a3m")) == ["DXXCXE"]


@pytest.mark.parametrize(
    "data",
    [
        b">q\r\nMK\r\nVL\r\n>a\r\nMKV-\r\n",
        b"#4\t1\n>q\nMKVL\n>a > b\nMKV-",
        b"\n\n>q\n\nMKVL\n\n>a\nMK\n\nV-\n\0",
    ],
)
def test_lines_may_end_and_break_anyhow(data: bytes) -> None:
    assert texts(parse_a3m(data, "x.a3m")) == ["MKVL", "MKV-"]


def test_a_very_long_insertion_is_cut() -> None:
    found = parse_a3m(a3m({"q": "MK", "a": "M" + "g" * 70_000 + "K"}), "x.a3m")
    assert deletions(found) == [(1, 1, MOST_DELETED)]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "x.a3m: it has no sequences. Give an alignment in a3m"),
        (b">q\n>a\n", "x.a3m: it has no sequences. Give an alignment in a3m"),
        (b"MKVL\n", "x.a3m: it has no sequences. Give an alignment in a3m"),
        (a3m({"q": "MKVL", "UniRef90_1 n=2": "MKV"}),
         "x.a3m: row 2 (UniRef90_1) has 3 columns, the first row has 4. Rows of an alignment have equal columns"),
        (a3m({"q": "MKVL", "a": "MKVLL", "b": "MKVL"}),
         "x.a3m: row 2 (a) has 5 columns, the first row has 4. Rows of an alignment have equal columns"),
        (b">q\nMKVL\n>\nMK",
         "x.a3m: row 2 has 2 columns, the first row has 4. Rows of an alignment have equal columns"),
        (a3m({"q": "MKVL", "a": "MK1L"}),
         "x.a3m: row 2 (a) has the byte '1', which is no residue. Give an alignment of proteins in a3m"),
        (b">q\n" + b"M" * 100_000 + b"\n" + b">\n" * 100_000,
         "x.a3m: row 2 has 0 columns, the first row has 100000. Rows of an alignment have equal columns"),
        (b">q\nMK\xffL\n",
         "x.a3m: row 1 (q) has the byte '\u00ff', which is no residue. Give an alignment of proteins in a3m"),
    ],
)  # fmt: skip
def test_what_is_damaged_is_refused_by_name(data: bytes, message: str) -> None:
    with pytest.raises(InputRefusedError) as caught:
        parse_a3m(data, "x.a3m")
    assert str(caught.value) == message


def test_a_real_alignment(data: Path) -> None:
    folder = data / "fold" / "alignments"
    found = parse_a3m((folder / "721p_A" / "uniref90_hits.a3m").read_bytes(), "x.a3m")
    assert found.rows.shape == (15_953, 166)
    assert texts(found)[0].startswith("MTEYKLVVVGAGGVGKSALTIQL")
    assert np.bincount(found.rows.ravel())[22:].sum() == 0
