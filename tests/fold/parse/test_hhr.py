"""hhr: which residues of the query are aligned to which of the template, over lines of any width."""

from __future__ import annotations

import pytest
from tests.kits.protein_kit import Hit, hhr

from sartor.share.errors import InputRefusedError
from sartor.tools.fold.parse.hhr import parse_hhr

FIRST = Hit("1ABC_A", "MKV--LAGH", "MRVGG-AGH", 7.5, query_start=3, template_start=11)
SECOND = Hit("2xyz_BB", "AGHK", "AGHK", 3.25)


@pytest.mark.parametrize("width", [1, 4, 80])
def test_hits(width: int) -> None:
    one, two = parse_hhr(hhr([FIRST, SECOND], width), "x.hhr")
    assert (one.code, one.chain, one.name, one.sum_probs) == ("1abc", "A", "1abc_A", 7.5)
    assert (one.query, one.template, one.query_start, one.template_start) == ("MKV--LAGH", "MRVGG-AGH", 2, 10)
    assert one.letters == "MRVGGAGH"
    assert one.pairs() == [(2, 0), (3, 1), (4, 2), (6, 5), (7, 6), (8, 7)]
    assert (two.name, two.pairs()) == ("2xyz_BB", [(0, 0), (1, 1), (2, 2), (3, 3)])


def test_no_hits() -> None:
    assert parse_hhr(hhr([]), "x.hhr") == []


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "x.hhr: it is not in hhr format. Give what HHsearch writes with -o"),
        (b">q\nMK\n", "x.hhr: it is not in hhr format. Give what HHsearch writes with -o"),
        (hhr([SECOND, FIRST])[:-250], "x.hhr: hit 2 in it is damaged. Run HHsearch again"),
        (hhr([SECOND]).replace(b"Sum_probs", b"Sum"), "x.hhr: hit 1 in it is damaged. Run HHsearch again"),
        (hhr([Hit("1abc_A", "MK", "MK", query_start=0)]), "x.hhr: hit 1 in it is damaged. Run HHsearch again"),
        (hhr([Hit("nocode", "MK", "MK")]), "x.hhr: hit 1 in it is damaged. Run HHsearch again"),
    ],
)
def test_what_is_damaged_is_refused(data: bytes, message: str) -> None:
    with pytest.raises(InputRefusedError) as caught:
        parse_hhr(data, "x.hhr")
    assert str(caught.value) == message
