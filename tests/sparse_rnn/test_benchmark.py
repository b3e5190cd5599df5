"""The benchmark of sparse layers runs from end to end, checks before it times, and keeps what it finds."""

from __future__ import annotations

from pathlib import Path

from tests.models.test_benchmarks import run


def test_sparse_rnn(tmp_path: Path) -> None:
    document = run("sparse_rnn", tmp_path)
    rows = document["rows"]
    assert [row["kind"] for row in rows] == ["LSTM", "GRU", "RNN"]  # type: ignore[attr-defined]
    for row in rows:  # type: ignore[attr-defined]
        assert row["error"] <= 2e-6
        assert all(timed["ratio_min"] > 0 for timed in row["times"].values())
    assert "one thread" in rows[1]["times"]  # type: ignore[index]
