"""The benchmarks of sparse layers run from end to end, check before they time, and keep what they find."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from tests.models.test_benchmarks import run


def test_sparse_rnn(tmp_path: Path) -> None:
    document = run("sparse_rnn", tmp_path)
    rows = document["rows"]
    assert [row["kind"] for row in rows] == ["LSTM", "GRU", "RNN"]  # type: ignore[attr-defined]
    for row in rows:  # type: ignore[attr-defined]
        assert row["error"] <= 2e-6
        assert all(timed["ratio_min"] > 0 for timed in row["times"].values())
    assert "one thread" in rows[1]["times"]  # type: ignore[index]


def test_quality(tmp_path: Path) -> None:
    document = run("sparse_rnn_quality", tmp_path, "--seeds", "1", "--patterns", "balanced:32")
    assert [row["density"] for row in document["rows"]] == [0.3, 0.1]  # type: ignore[attr-defined]
    for row in document["rows"]:  # type: ignore[attr-defined]
        assert 0 < row["trained"] < row["one_shot"]


def test_opening(tmp_path: Path) -> None:
    (row,) = run("sparse_rnn_open", tmp_path)["rows"]  # type: ignore[misc]
    assert row["opened"]["ratio_min"] > 0
    assert row["pack"] > 0


@pytest.mark.slow
@pytest.mark.skipif("SARTOR_DATA" not in os.environ, reason="SARTOR_DATA is not set")
def test_silero(tmp_path: Path) -> None:
    """A detector with states and a number among its inputs is trained through its branches."""
    half, third, distilled = run("sparse_rnn_silero", tmp_path)["rows"]  # type: ignore[misc]
    assert [row["trained"] for row in (half, third, distilled)] == [False, False, True]
    assert half["mean"] < third["mean"] < 0.1
    assert distilled["mean"] < 0.1
    assert all(row["same"] > 0.9 for row in (half, third, distilled))
