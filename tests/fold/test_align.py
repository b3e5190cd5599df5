"""A sequence found again in another: as high a score as a plain recursion reaches, and sensible places."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from sartor.tools.fold.align import EXTEND, MATCH, MISMATCH, OPEN, align
from sartor.tools.fold.alphabet import encode


def best_score(part: str, whole: str) -> int:
    """Return the best score of all alignments, by trying them."""

    @cache
    def best(i: int, j: int, state: int) -> int:
        """Return the best score of the first i and j residues whose last column is of a state."""
        if state == 0:
            if i == 0:
                return 0
            if j == 0:
                return -10_000
            score = MATCH if part[i - 1] == whole[j - 1] else MISMATCH
            return score + max(best(i - 1, j - 1, before) for before in range(3))
        back = (i, j - 1) if state == 1 else (i - 1, j)
        if i == 0 or min(back) < 0:
            return -10_000
        return max(best(*back, 0) + OPEN, best(*back, state) + EXTEND)

    return max(best(len(part), j, state) for j in range(len(whole) + 1) for state in range(3))


def score_of(part: str, whole: str, where: list[int]) -> int:
    """Return the score of an alignment by its places."""
    score, gap, last = 0, 0, None
    for residue, place in zip(part, where, strict=True):
        if place < 0:
            score += EXTEND if gap else OPEN
            gap = 1
            continue
        if last is not None and place - last > 1:
            score += OPEN + EXTEND * (place - last - 2)
        gap, last = 0, place
        score += MATCH if residue == whole[place] else MISMATCH
    return score


@pytest.mark.parametrize(
    ("part", "whole", "expected"),
    [
        ("MKVL", "GGMKVLGG", [2, 3, 4, 5]),
        ("MKVLAGHTWY", "MKVLAHTWY", [0, 1, 2, 3, 4, -1, 5, 6, 7, 8]),
        ("MKVLAGHTWY", "MKVLAGPPPHTWY", [0, 1, 2, 3, 4, 5, 9, 10, 11, 12]),
        ("MKRLA", "MKVLA", [0, 1, 2, 3, 4]),
        ("", "MKVL", []),
    ],
)
def test_places(part: str, whole: str, expected: list[int]) -> None:
    assert align(encode(part), encode(whole)).tolist() == expected


@pytest.mark.parametrize("seed", range(40))
def test_no_alignment_is_better(seed: int) -> None:
    random = np.random.default_rng(seed)
    whole = "".join(random.choice(list("MKV"), random.integers(1, 14)))
    part = "".join(letter for letter in whole if random.random() < 0.8)
    part = "".join(random.choice(list("MKV")) if random.random() < 0.2 else letter for letter in part)
    where = align(encode(part), encode(whole)).tolist()
    found = [place for place in where if place >= 0]
    assert found == sorted(set(found))
    # Gaps on both sides of one place are told by no list of places, and never pay with these scores.
    assert score_of(part, whole, where) == best_score(part, whole)
