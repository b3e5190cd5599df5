"""Stockholm: columns are those where the query has a residue; what is damaged is refused by the name of the row."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.kits.protein_kit import sto

from sartor.share.errors import InputRefusedError
from sartor.tools.fold.alphabet import decode
from sartor.tools.fold.parse.alignment import Alignment
from sartor.tools.fold.parse.sto import parse_sto

ROWS = {"query": "--MK-VL.", "a/1-9": "AAMKGV-G", "b": ".-m.GgVL"}


def texts(alignment: Alignment) -> list[str]:
    return [decode(row) for row in alignment.rows]


@pytest.mark.parametrize("block", [1, 3, 100])
def test_columns_are_those_of_the_query(block: int) -> None:
    found = parse_sto(sto(ROWS, block), "x.sto")
    assert texts(found) == ["MKVL", "MKV-", "M-GV"]
    cut = found.deletions
    assert list(zip(cut.rows.tolist(), cut.columns.tolist(), cut.counts.tolist(), strict=True)) == [
        (1, 0, 2), (1, 2, 1), (2, 2, 1),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "x.sto: it is not in Stockholm format. Give a file that begins with # STOCKHOLM 1.0"),
        (b">q\nMK\n", "x.sto: it is not in Stockholm format. Give a file that begins with # STOCKHOLM 1.0"),
        (b"# STOCKHOLM 1.0\n//\n", "x.sto: it has no sequences. Give an alignment"),
        (b"# STOCKHOLM 1.0\nq MK\n", "x.sto: it ends before its last line, //. Copy it again"),
        (sto({"q": "MKVL", "row_b": "MKV"}),
         "x.sto: row row_b has 3 columns, the first row has 4. Rows of an alignment have equal columns"),
        (sto({"q": "MKVL", "b": "MK?L"}),
         "x.sto: row b has the byte '?', which is no residue. Give an alignment of proteins"),
    ],
)  # fmt: skip
def test_what_is_damaged_is_refused_by_name(data: bytes, message: str) -> None:
    with pytest.raises(InputRefusedError) as caught:
        parse_sto(data, "x.sto")
    assert str(caught.value) == message


def test_a_real_alignment(data: Path) -> None:
    path = data / "fold" / "alignments" / "2q2k_A" / "mgnify_hits.sto"
    found = parse_sto(path.read_bytes(), path.name)
    assert found.rows.shape == (7, 70)
    assert texts(found)[0].startswith("MGSSHHHHHHSSGLVPGSHMDKKET")
    assert texts(found)[6].count("-") == 41
