"""The benchmark of the kernels runs from end to end, checks before it times, and keeps what it finds."""

from __future__ import annotations

from pathlib import Path

from tests.models.test_benchmarks import run


def test_kernels(tmp_path: Path) -> None:
    document = run("prune_kernels", tmp_path)
    rows = document["rows"]
    assert {row["kernel"] for row in rows} == {"gram", "nested", "saliency", "cost", "wall"}  # type: ignore[attr-defined]
    for row in rows:  # type: ignore[attr-defined]
        assert max(row["errors"].values()) < 1e-5
        assert all(row[side]["ratio_min"] > 0 for side in row["errors"] if side != "sartor")
