"""What stays of matrices by pattern and scope."""

from __future__ import annotations

import numpy as np
import pytest

from sartor.share.errors import UsageError
from sartor.tools.sparse_rnn.pattern import Pattern, masks, parse_pattern

RNG = np.random.default_rng(0)
MATRICES = [RNG.standard_normal((4 * 48, 48)) * scale for scale in (1.0, 2.0)]


@pytest.mark.parametrize("text", ["balanced:32", "balanced:16", "unstructured", "row", "block:16x1", "block:4x4"])
def test_patterns_are_parsed(text: str) -> None:
    pattern = parse_pattern(text)
    assert text == ":".join([pattern.kind, *(["x".join(map(str, pattern.size))] if pattern.size else [])])


@pytest.mark.parametrize(
    "text", ["", "dense", "balanced", "balanced:0", "balanced:x", "block:16", "row:3", "block:1x2x3"]
)
def test_others_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="no pattern"):
        parse_pattern(text)


@pytest.mark.parametrize("density", [0.05, 0.1, 0.3, 0.5, 1.0])
@pytest.mark.parametrize("width", [16, 32])
def test_balanced_has_equally_many_in_every_group(density: float, width: int) -> None:
    """Of a last, narrower group, no more."""
    for mask in masks(MATRICES, 4, Pattern("balanced", (width,)), density, "gate"):
        counts = [mask[:, i : i + width].sum(1) for i in range(0, 48, width)]
        for i, count in enumerate(counts):
            assert (count == min(max(round(density * width), 1), 48 - i * width)).all()


@pytest.mark.parametrize("density", [0.1, 0.3])
def test_scopes_share_out_what_stays(density: float) -> None:
    unstructured = Pattern("unstructured")
    gates = masks(MATRICES, 4, unstructured, density, "gate")
    assert all(part.mean() == pytest.approx(density, abs=1e-3) for mask in gates for part in np.split(mask, 4))
    whole = masks(MATRICES, 4, unstructured, density, "matrix")
    assert all(mask.mean() == pytest.approx(density, abs=1e-3) for mask in whole)
    small, large = masks(MATRICES, 4, unstructured, density, "model")
    assert (small.sum() + large.sum()) / small.size / 2 == pytest.approx(density, abs=1e-3)
    assert small.mean() < large.mean()


@pytest.mark.parametrize("pattern", ["balanced:32", "unstructured", "row", "block:16x1"])
def test_the_largest_stay(pattern: str) -> None:
    """Where one weight in ten is far larger than the rest, and a pattern can have them all, they are what stays."""
    matrix = np.full((4 * 16, 64), 1e-3)
    matrix[:, ::10] = 1.0
    (mask,) = masks([matrix], 4, parse_pattern(pattern), 4 / 32, "gate")
    assert mask[:, ::10].all()


def test_blocks_live_or_die_whole() -> None:
    (mask,) = masks(MATRICES[:1], 4, Pattern("block", (16, 1)), 0.25, "matrix")
    blocks = mask.reshape(-1, 16, 48).sum(1)
    assert set(np.unique(blocks)) == {0, 16}
