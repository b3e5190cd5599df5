"""Templates: which hits count for which chain, and that their residues land where the alignment says."""

from __future__ import annotations

import numpy as np
import pytest

from sartor.tools.fold.alphabet import GAP, decode, encode
from sartor.tools.fold.parse.hhr import Hit
from sartor.tools.fold.parse.mmcif import Structure
from sartor.tools.fold.templates import Found, Viewer, find_templates, latest_for

QUERY = "MKVLAGHTWYRSPDEQNCIF" * 2
TEMPLATE = "GGSHTWYRSPDEQNCIFMKVLGG"
ALIGNED = Hit("2xyz", "A", 9.0, QUERY[6:24], "HTWYRSPDEQNCIFMKVL", 6, 3)


def structure(sequence: str = TEMPLATE, date: str = "2000-01-01", code: str = "2xyz") -> Structure:
    """Return a structure whose atoms tell the number of their residue."""
    positions = np.zeros((len(sequence), 37, 3), np.float32)
    positions += np.arange(len(sequence), dtype=np.float32)[:, None, None]
    return Structure(code, "A", "A", "1", sequence, positions, np.ones((len(sequence), 37), bool), 2.0, date)


def find(
    *hits: Hit, found: Structure | str | None = None, viewers: tuple[Viewer, ...] = (Viewer("1abc", ""),)
) -> Found:
    return find_templates(hits, encode(QUERY), viewers, lambda _code, _chain: found or structure(), 20)


def test_residues_land_on_their_places() -> None:
    found = find(ALIGNED)
    templates = found.templates
    assert decode(templates.aatype[0]) == "-" * 6 + "HTWYRSPDEQNCIFMKVL" + "-" * 16
    assert templates.positions[0, 6:24, 1, 0].tolist() == list(range(3, 21))
    assert templates.mask[0].all(1).tolist() == [6 <= place < 24 for place in range(40)]
    assert (templates.names, templates.sum_probs.tolist(), found.chosen, found.left_out) == (
        ("2xyz_A",), [9.0], ((0,),), {},
    )  # fmt: skip


def test_gaps_on_either_side_are_stepped_over() -> None:
    hit = Hit("2xyz", "A", 9.0, "HTWY--RSPDEQNCIF", "HTWYRSPDEQ--NCIF", 6, 3)
    found = find(hit, found=structure("GGSHTWYRSPDEQNCIF"))
    assert decode(found.templates.aatype[0])[6:20] == "HTWYPDEQ--NCIF"


def test_a_hit_is_found_again_in_a_structure_that_is_numbered_otherwise() -> None:
    assert find(ALIGNED, found=structure("AAAAA" + TEMPLATE)).templates.positions[0, 6, 1, 0] == 8


def test_a_hit_is_realigned_to_a_structure_that_differs_a_little() -> None:
    changed = TEMPLATE.replace("RSPDE", "RSPE")
    templates = find(ALIGNED, found=structure("AAAA" + changed)).templates
    assert decode(templates.aatype[0])[6:24] == "HTWYRSP-EQNCIFMKVL"
    assert templates.aatype[0][13] == GAP
    assert templates.positions[0, 14, 1, 0] == templates.positions[0, 12, 1, 0] + 1


@pytest.mark.parametrize(
    ("hit", "found", "viewer", "reason"),
    [
        (ALIGNED, structure(), Viewer("2xyz", ""), "it is of the same entry"),
        (ALIGNED, "its structure is not in the folder", Viewer("1abc", ""), "its structure is not in the folder"),
        (ALIGNED, structure(date="2020-01-02"), Viewer("1abc", "2020-01-01"), "it was released too late"),
        (ALIGNED, structure(date=""), Viewer("1abc", "2020-01-01"), "the date of its release is not told"),
        (ALIGNED, structure("ACDEFGHIKLMNPQRSTVWY"), Viewer("1abc", ""), "its structure has another sequence"),
        (Hit("2xyz", "A", 1, "MKVL", "MRVL", 0, 0), "", Viewer("1abc", ""), "it covers too little of the chain"),
        (Hit("2xyz", "A", 1, "MKVLAG", "HTWYRS", 0, 3), "", Viewer("1abc", ""), "it is too short"),
        (Hit("2xyz", "A", 1, QUERY, QUERY, 0, 0), "", Viewer("1abc", ""), "it is a piece of the chain itself"),
    ],
)  # fmt: skip
def test_what_is_no_template(hit: Hit, found: Structure | str, viewer: Viewer, reason: str) -> None:
    result = find(hit, found=found, viewers=(viewer,))
    assert (result.chosen, dict(result.left_out), len(result.templates.names)) == (((),), {reason: 1}, 0)
    assert result.templates.positions.shape == (0, 40, 37, 3)


def test_a_template_without_atoms_is_none() -> None:
    empty = structure()
    empty.seen[:] = False
    assert find(ALIGNED, found=empty).left_out == {"no atom of it was seen": 1}


def test_chains_of_one_sequence_see_what_each_may() -> None:
    hits = [Hit(code, "A", sums, ALIGNED.query, ALIGNED.template, 6, 3)
            for code, sums in (("1abc", 1.0), ("2new", 3.0), ("3old", 2.0), ("4old", 4.0))]  # fmt: skip
    dates = {"2new": "2019-01-01"}
    viewers = (Viewer("1abc", "2010-01-01"), Viewer("5new", "2020-01-01"))
    found = find_templates(
        hits, encode(QUERY), viewers, lambda code, _: structure(date=dates.get(code, "2000-01-01"), code=code), 2
    )
    assert found.templates.names == ("4old_A", "2new_A", "3old_A")
    assert found.chosen == ((0, 2), (0, 1))
    assert found.left_out == {}


@pytest.mark.parametrize(
    ("released", "latest", "expected"),
    [
        ("2020-03-01", "", "2020-01-01"),
        ("2020-03-01", "2019-05-05", "2019-05-05"),
        ("2020-03-01", "2021-01-01", "2020-01-01"),
        ("", "2021-01-01", "2021-01-01"),
        ("", "", ""),
    ],
)
def test_the_last_date_of_templates(released: str, latest: str, expected: str) -> None:
    assert latest_for(released, latest) == expected
