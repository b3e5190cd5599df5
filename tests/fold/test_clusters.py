"""Sizes of clusters: from a file, by chain or by entity, or from equal sequences."""

from __future__ import annotations

from pathlib import Path

import pytest

from sartor.share.errors import InputRefusedError
from sartor.tools.fold.clusters import cluster_sizes, read_clusters

CHAINS = [("1abc_A", "1abc_1", "MKVL"), ("1abc_B", "1abc_2", "MKVL"), ("2xyz_A", "2xyz_1", "GG")]


def test_equal_sequences_are_a_cluster() -> None:
    assert cluster_sizes(CHAINS, {}) == {"1abc_A": 2, "1abc_B": 2, "2xyz_A": 1}


def test_a_file_tells_clusters_by_chain_or_by_entity(tmp_path: Path) -> None:
    path = tmp_path / "clusters.txt"
    path.write_text("1ABC_A 3DEF_C 4GHI_a\n\n2XYZ_1\t5JKL_1 2XYZ_1\n")
    told = read_clusters(path)
    assert told == {"1abc_A": 3, "3def_C": 3, "4ghi_a": 3, "2xyz_1": 2, "5jkl_1": 2}
    assert cluster_sizes(CHAINS, told) == {"1abc_A": 3, "1abc_B": 2, "2xyz_A": 2}


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"1abc_A 2xyz_A\n3def_A 1ABC_A\n", "line 2 has 1abc_A, which is in an earlier cluster too"),
        (b"\xff\xfe\x00", "it can't be read (it is no text)"),
        (None, "it can't be read (no such file or directory)"),
    ],
)
def test_what_is_damaged_is_refused(tmp_path: Path, content: bytes | None, reason: str) -> None:
    path = tmp_path / "clusters.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputRefusedError, match=r"clusters\.txt") as caught:
        read_clusters(path)
    assert caught.value.reason == reason
