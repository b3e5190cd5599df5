"""The benchmark of samples runs from end to end and checks before it times."""

from __future__ import annotations

from pathlib import Path

from tests.models.test_benchmarks import run


def test_features(tmp_path: Path) -> None:
    document = run("fold_features", tmp_path)
    rows = document["rows"]
    assert [row["work"] for row in rows] == ["sample"] * 8 + ["kernel"] * 2 + ["packing"]  # type: ignore[attr-defined]
    assert all(row["milliseconds"] > 0 for row in rows)  # type: ignore[attr-defined]
    assert len(document["bars"]) == 5  # type: ignore[arg-type]
