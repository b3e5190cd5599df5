"""The benchmarks run from end to end, check before they time, and keep what they find."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from tests.conftest import ROOT

FOLDER = ROOT / "benchmarks"


def run(script: str, results: Path, *arguments: str, name: str = "") -> dict[str, object]:
    """Run a benchmark's smoke test and return its result file, which has the script's name or one of its own."""
    command = [sys.executable, FOLDER / f"{script}.py", "--quick", "--results", results, *arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    (path,) = results.glob(f"{name or script}-????-??-??.json")
    document: dict[str, object] = json.loads(path.read_text())
    assert list(document) == ["schema", "benchmark", "date", "machine", "settings", "rows", "bars"]
    assert set(document["machine"]) >= {"cpu", "cores", "features", "versions"}  # type: ignore[call-overload]
    assert all(bar["claim"] in done.stdout for bar in document["bars"])  # type: ignore[attr-defined]
    return document


@pytest.mark.skipif(not any(map(shutil.which, ("g++", "c++", "clang++"))), reason="torch.compile needs a C++ compiler")
def test_groups(tmp_path: Path) -> None:
    (row,) = run("fuse_groups", tmp_path, "--only", "bias_gelu")["rows"]  # type: ignore[misc]
    assert row["group"] == "bias_gelu"
    assert max(row["errors"].values()) < 1e-5
    assert row["onnxruntime"]["ratio_min"] > 0
    assert row["torch_compile"]["ratio_min"] > 0


def test_rows(tmp_path: Path) -> None:
    rows = run("fuse_rows", tmp_path, "--only", "Softmax")["rows"]
    assert {row["operator"] for row in rows} == {"Softmax"}  # type: ignore[index, union-attr]
    assert all(row["onnxruntime"]["ratio_min"] > 0 for row in rows)  # type: ignore[index, union-attr]


def test_phases(tmp_path: Path) -> None:
    rows = run("fuse_phases", tmp_path, "--only", "columns", "norm_of_one")["rows"]
    assert [(row["group"], row["threads"]) for row in rows] == [  # type: ignore[attr-defined]
        *(("columns", 1), ("columns", 2), ("norm_of_one", 1), ("norm_of_one", 2)),
    ]
    assert all(max(row["errors"].values()) < 1e-5 for row in rows)  # type: ignore[attr-defined]


@pytest.mark.slow
def test_pruning_quality(tmp_path: Path) -> None:
    rows = run("prune_quality", tmp_path, "--only", "digits")["rows"]
    assert [row["run"] for row in rows] == ["closed form", "searched", "fine-tuned"]  # type: ignore[attr-defined]
    for row in rows:  # type: ignore[attr-defined]
        assert row["after"]["macs"] <= 0.5 * row["before"]["macs"]


@pytest.mark.slow
def test_pruning_refits(tmp_path: Path) -> None:
    rows = run("prune_refit", tmp_path, "--only", "mobilenet_v1")["rows"]
    assert [row["ratio"] for row in rows] == [0.5, 0.3]  # type: ignore[attr-defined]
    assert all(0 < row["twice"] <= 1 and row["episode"] > 0 for row in rows)  # type: ignore[attr-defined]


@pytest.mark.slow
def test_pruning_convergence(tmp_path: Path) -> None:
    outcome = run("prune_convergence", tmp_path, "--only", "mobilenet_v1", name="prune_convergence_mobilenet_v1")
    rows = outcome["rows"]
    assert {(row["arm"], row["start"]) for row in rows} >= {("all", "prior"), ("ddpg", "uniform")}  # type: ignore[attr-defined]
    assert all(len(row["curve"]) == 6 and np.isfinite(row["curve"]).all() for row in rows)  # type: ignore[attr-defined]


def test_elementwise(tmp_path: Path) -> None:
    rows = run("fuse_elementwise", tmp_path, "--only", "Sin", "Pow", "Equal", "BatchNormalization")["rows"]
    assert [(row["operator"], row["variant"]) for row in rows] == [  # type: ignore[attr-defined]
        *(("Sin", ""), ("Pow", ""), ("Pow", "1.7"), ("Pow", "2"), ("Equal", ""), ("BatchNormalization", "")),
    ]
    for row in rows:  # type: ignore[attr-defined]
        assert max(row["errors"].values()) < 1e-5
        assert min(row["onnxruntime"]["ratio_min"], row["torch"]["ratio_min"]) > 0


def test_elementwise_covers_the_rules() -> None:
    from models.elementwise import CASES

    from sartor.tools.fuse.rules import RULES, Kind

    kinds = (Kind.LIGHT, Kind.EXPENSIVE)
    assert {case.operator for case in CASES} == {name for name, rule in RULES.items() if rule.kind in kinds}
    assert len({case.label for case in CASES}) == len(CASES)


def test_cost(tmp_path: Path) -> None:
    rows = run("fuse_cost", tmp_path)["rows"]
    suite, held = ([row for row in rows if row["origin"] == origin] for origin in ("suite", "benchmark"))  # type: ignore
    assert (len(suite) > 10, len(held)) == (True, 10)
    for side in ("kernel", "onnxruntime"):
        assert all(time > 0 for row in (*suite, *held) for time in row[side].values())


@pytest.mark.slow
def test_models(tmp_path: Path) -> None:
    (row,) = run("fuse_models", tmp_path, "--only", "lstm", "--threads", "1")["rows"]  # type: ignore[misc]
    assert (row["model"], row["threads"]) == ("lstm", 1)
    assert row["error"] < 1e-5
    # Which groups are kept is measured, and on a busy machine none may win.
    assert 0 < row["dispatches_after"] <= row["dispatches_before"]


@pytest.mark.slow
@pytest.mark.skipif(not any(map(shutil.which, ("g++", "c++", "clang++"))), reason="torch.compile needs a C++ compiler")
def test_workloads(tmp_path: Path) -> None:
    document = run("fuse_workloads", tmp_path, "--only", "bert", "--threads", "1")
    (row,) = document["rows"]  # type: ignore[misc]
    assert (row["model"], row["threads"]) == ("bert", 1)
    assert row["errors"].keys() < row["times"].keys() == {"onnxruntime", "torch", "torch.compile"}
    assert max(row["error"], *row["errors"].values()) < 1e-5
    assert row["memory_us"]["before"]["min"] > 0
    assert row["limit"] > 1
    claims = [bar["claim"] for bar in document["bars"]]  # type: ignore[attr-defined]
    assert claims[-1] == "non-compute operators left: bert, 1 threads"


@pytest.mark.slow
def test_compile(tmp_path: Path) -> None:
    cold, warm, large = run("fuse_compile", tmp_path)["rows"]  # type: ignore[misc]
    assert warm["seconds"] < cold["seconds"]
    assert 0 < large["anonymous_mib"] < 1024


@pytest.mark.slow
def test_a_model_of_3_gib_fuses_in_less_than_1_gib_of_memory() -> None:
    from fuse_compile import large_row

    row = large_row(3.0)
    assert row["model_mib"] >= 3000
    assert row["anonymous_mib"] < 1024


def test_no_figure_for_a_wrong_result() -> None:
    from _common import require_close

    require_close("right", 1e-6)
    for wrong in (1e-3, float("nan")):
        with pytest.raises(SystemExit, match="wrong: the result is off by"):
            require_close("wrong", wrong)


def test_bars_tell_met_from_not_met() -> None:
    from _common import Bar

    assert [Bar("", value, 1.0, at_least).met for value in (0.9, 1.1) for at_least in (True, False)] == [
        *(False, True),
        *(True, False),
    ]


@pytest.mark.slow
@pytest.mark.parametrize(("part", "only", "name"), [("groups", "rotary", "group"), ("workloads", "llama", "model")])
def test_gpu_suite_without_a_gpu(part: str, only: str, name: str, tmp_path: Path) -> None:
    """The suite's own code runs in Triton's interpreter; its figures mean nothing."""
    command = [sys.executable, FOLDER / "gpu" / "suite.py", "--quick", "--device", "cpu", "--sides", "torch"]
    options = ["--parts", part, "--only", only, "--results", tmp_path]
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    subprocess.run([*command, *options], env=environment, check=True, stdout=subprocess.PIPE)
    (row,) = (json.loads(line) for line in (tmp_path / f"gpu_{part}.jsonl").read_text().splitlines())
    assert row[name] == only
    assert row["errors"].keys() == row["times_us"].keys() == {"sartor", "torch"}
    assert max(row["errors"].values()) < 1e-5
    (path,) = tmp_path.glob(f"gpu_{part}-????-??-??.json")
    assert json.loads(path.read_text())["rows"] == [row]
