"""Alignments stacked: equal rows once, the first of them, with their own deletions; only for the chain they are of."""

from __future__ import annotations

import pytest
from tests.kits.protein_kit import a3m

from sartor.share.errors import InputRefusedError
from sartor.tools.fold.alphabet import decode, encode
from sartor.tools.fold.parse.a3m import parse_a3m
from sartor.tools.fold.parse.alignment import Alignment, alone, for_query, stack


def parsed(**rows: str) -> Alignment:
    return parse_a3m(a3m(rows), "x.a3m")


def test_of_equal_rows_the_first_stays() -> None:
    one = parsed(q="MKVL", a="MgK-L", b="M-VL")
    two = parsed(q="MKVL", c="MKcccVL", d="M-ddVL", e="LLaLL")
    found = stack([one, two])
    assert [decode(row) for row in found.rows] == ["MKVL", "MK-L", "M-VL", "LLLL"]
    cut = found.deletions
    assert (cut.rows.tolist(), cut.columns.tolist(), cut.counts.tolist()) == ([1, 3], [1, 2], [1, 1])


def test_alone() -> None:
    found = alone(encode("MKVL"))
    assert [decode(row) for row in found.rows] == ["MKVL"]
    assert not len(found.deletions.rows)


def test_the_chain_itself_is_the_first_row() -> None:
    found = for_query(parsed(q="MXVU", a="MKVL"), encode("MKXX"), "x.a3m")
    assert [decode(row) for row in found.rows] == ["MKXX", "MKVL"]


@pytest.mark.parametrize(
    ("sequence", "reason"),
    [
        ("MKV", "its first row has 4 residues, the chain has 3"),
        ("MKLL", "its first row differs from the chain at residue 3"),
    ],
)
def test_the_alignment_of_another_chain_is_refused(sequence: str, reason: str) -> None:
    with pytest.raises(InputRefusedError) as caught:
        for_query(parsed(q="MKVL", a="MKVL"), encode(sequence), "x.a3m")
    assert str(caught.value) == f"x.a3m: {reason}. Give the alignment of this chain"
