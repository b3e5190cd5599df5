"""The benchmark of recurrences on GPUs, without one: what it compares with, and what is said of ours."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

SUITE = Path(__file__).resolve().parents[3] / "benchmarks" / "gpu" / "suite.py"


def test_without_a_gpu_the_others_are_checked(tmp_path: Path) -> None:
    command = [sys.executable, SUITE, "--quick", "--device", "cpu", "--parts", "sparse_rnn", "--results", tmp_path]
    subprocess.run(command, check=True, capture_output=True)
    row, largest = (json.loads(line) for line in (tmp_path / "gpu_sparse_rnn.jsonl").read_text().splitlines())
    assert row["refused"] == "no GPU"
    assert row["errors"].keys() == row["times_us"].keys() == {"cuDNN", "GEMM a step", "cuSPARSE"}
    assert max(row["errors"].values()) < 1e-5
    assert largest["hidden"]["batch 4, 30%"] == 2376
