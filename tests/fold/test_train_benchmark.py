"""The benchmark of training runs from end to end, and its published curve is what training does."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from tests.conftest import ROOT
from tests.models.test_benchmarks import run

CLOSE = 0.02
"""Of a loss; what rounds otherwise on other processors grows with every step."""


def test_curves(tmp_path: Path) -> None:
    """Training on what is made up starts as the last published run did."""
    (row,) = run("fold_train", tmp_path, "--only", "synthetic")["rows"]  # type: ignore[misc]
    files = sorted((ROOT / "benchmarks" / "results").glob("fold_train-*.json"))
    rows = [one for path in files for one in json.loads(path.read_text(encoding="utf-8"))["rows"]]
    published = [one["prefix"] for one in rows if one["run"] == "synthetic"][-1]
    assert row["prefix"] == pytest.approx(published[: len(row["prefix"])], rel=CLOSE)
    assert len(row["prefix"]) > 5
    assert row["curve"][-1]["step"] == row["steps"]


@pytest.mark.skipif("SARTOR_DATA" not in os.environ, reason="SARTOR_DATA is not set")
def test_real_chains_are_learned_whole(tmp_path: Path) -> None:
    (row,) = run("fold_train", tmp_path, "--only", "2q2k")["rows"]  # type: ignore[misc]
    assert sorted(row["chains"]) == ["2q2k_A", "2q2k_B"]
    assert all(0 <= one <= 1 for one in row["chains"].values())


def test_trunks(tmp_path: Path) -> None:
    rows = run("fold_trunk", tmp_path)["rows"]
    assert [row["threads"] for row in rows] == [1, 2]  # type: ignore[attr-defined]
    for row in rows:  # type: ignore[attr-defined]
        assert row["kernels"] > 0
        assert row["dispatches_after"] < row["dispatches_before"]
        assert row["error"] < 1e-5
