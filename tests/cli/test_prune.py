"""`sartor prune` as users run it."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import onnx
import pytest
from tests.conftest import RunSartor

COMMON = ["--flops", "0.5", "-@", "1"]


@pytest.fixture
def folder(models: Path, tmp_path: Path) -> Path:
    """Return a folder with a network and its data."""
    shutil.copy(models / "cnn.onnx", tmp_path / "net.onnx")
    shutil.copy(models / "images.h5", tmp_path)
    return tmp_path


def prune(sartor: RunSartor, folder: Path, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    """Prune `net.onnx` with its data."""
    return sartor("prune", "net.onnx", "--data", "images.h5", *COMMON, *arguments, cwd=folder)


def test_the_closed_form_alone(sartor: RunSartor, folder: Path) -> None:
    done = prune(sartor, folder, "--episodes", "0", "-o", "small.onnx", "--report", "r.json")
    assert (done.returncode, done.stdout) == (0, b"")
    report = json.loads((folder / "r.json").read_text())
    assert (report["schema"], report["tool"], report["evaluated"]) == (1, "prune", 1)
    assert report["after"]["macs"] <= 0.5 * report["before"]["macs"]
    assert report["error"] < 1e-4
    assert report["after"]["bytes"] < report["before"]["bytes"]
    small, net = onnx.load(folder / "small.onnx"), onnx.load(folder / "net.onnx")
    onnx.checker.check_model(small, full_check=True)
    assert small.graph.input == net.graph.input
    assert small.graph.output == net.graph.output
    (record,) = json.loads({p.key: p.value for p in small.metadata_props}["sartor.history"])
    assert record["tool"] == "prune"


def test_a_pipe_into_fuse(sartor: RunSartor, folder: Path) -> None:
    small = sartor(
        "prune", "--data", "images.h5", *COMMON, "--episodes", "0", cwd=folder, input=(folder / "net.onnx").read_bytes()
    )
    fused = sartor("fuse", "--no-measure", cwd=folder, input=small.stdout)
    assert fused.returncode == 0
    model = onnx.load_from_string(fused.stdout)
    assert model.functions
    records = json.loads({p.key: p.value for p in model.metadata_props}["sartor.history"])
    assert [record["tool"] for record in records] == ["prune", "fuse"]


def test_the_same_command_gives_the_same_bytes(sartor: RunSartor, folder: Path) -> None:
    outputs = [
        sartor("prune", "net.onnx", "--data", "images.h5", *COMMON, "--episodes", "3", cwd=folder).stdout for _ in "ab"
    ]
    assert outputs[0] == outputs[1]
    assert outputs[0]


@pytest.mark.parametrize("strategy", ["hill-climb", "ddpg"])
def test_a_resumed_search_ends_as_an_unbroken_one(sartor: RunSartor, folder: Path, strategy: str) -> None:
    chosen = ["--strategy", strategy]
    whole = prune(sartor, folder, *chosen, "--episodes", "6", "--save-history", "whole.h5", "-o", "whole.onnx")
    prune(sartor, folder, *chosen, "--episodes", "3", "--save-history", "part.h5", "--dry-run")
    again = prune(sartor, folder, *chosen, "--episodes", "6", "--resume", "part.h5", "-o", "again.onnx")
    assert (whole.returncode, again.returncode) == (0, 0), again.stderr
    with h5py.File(folder / "whole.h5") as left, h5py.File(folder / "part.h5") as right:
        for name in ("counts", "scores"):
            np.testing.assert_array_equal(left[f"episodes/{name}"][()], right[f"episodes/{name}"][()])
    weights = [
        [one.raw_data for one in onnx.load(folder / f"{name}.onnx").graph.initializer] for name in ("whole", "again")
    ]
    assert weights[0] == weights[1]


def test_a_killed_search_has_kept_its_episodes(folder: Path, sartor: RunSartor) -> None:
    script = Path(sys.executable).with_name("sartor")
    command = [script, "prune", "net.onnx", "--data", "images.h5", *COMMON, "--episodes", "100000"]
    command += ["--save-history", "run.h5", "--dry-run"]
    with subprocess.Popen(command, cwd=folder, stderr=subprocess.DEVNULL) as process:
        until = time.monotonic() + 120
        while not (folder / "run.h5").exists() and time.monotonic() < until:
            time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
    found = sartor("inspect", "run.h5", cwd=folder)
    assert found.returncode == 0
    with h5py.File(folder / "run.h5") as file:
        assert len(file["episodes/scores"]) >= 1


def test_transfer_between_budgets(sartor: RunSartor, folder: Path) -> None:
    prune(sartor, folder, "--strategy", "ddpg", "--episodes", "4", "--save-history", "runs.h5", "--dry-run")
    done = sartor(
        "prune", "net.onnx", "--data", "images.h5", "--params", "0.7", "--strategy", "ddpg", "--history", "runs.h5",
        "--episodes", "2", "--dry-run", "--json", "-@", "1", cwd=folder,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert b"the agent starts from runs.h5" in done.stderr
    assert json.loads(done.stdout)["budget"] == {"resource": "params", "ratio": 0.7}


def test_threads_change_nothing(sartor: RunSartor, folder: Path) -> None:
    runs = [
        sartor(
            "prune",
            "net.onnx",
            "--data",
            "images.h5",
            "--flops",
            "0.5",
            "--episodes",
            "4",
            "--no-history",
            "-@",
            threads,
            cwd=folder,
        )
        for threads in ("1", "2")
    ]
    assert runs[0].stdout
    assert runs[0].stdout == runs[1].stdout


def test_shards_are_merged(sartor: RunSartor, folder: Path) -> None:
    """Each searches for itself; the last command evaluates nothing, and takes the best of all, or the start.

    The best has to be better than the start once both are refitted again.
    """
    (folder / "runs").mkdir()
    episodes = []
    for shard in ("1/2", "2/2"):
        name = f"runs/{shard[0]}.h5"
        done = prune(sartor, folder, "--episodes", "5", "--shard", shard, "--save-history", name, "--dry-run")
        assert done.returncode == 0, done.stderr
        with h5py.File(folder / name) as file:
            episodes.append((file["episodes/counts"][()], file["episodes/scores"][()]))
    assert [len(scores) for _, scores in episodes] == [3, 2]
    assert not np.array_equal(episodes[0][0][1], episodes[1][0][1])
    done = prune(sartor, folder, "--episodes", "0", "--history", "runs", "--dry-run", "--json")
    report = json.loads(done.stdout)
    assert report["evaluated"] == 0
    counts, scores = (np.concatenate(column) for column in zip(*episodes, strict=True))
    assert [unit["after"] for unit in report["units"]] in (counts[np.argmax(scores)].tolist(), counts[0].tolist())
    assert report["after"]["scores"]["val"] >= scores.max()


def test_latency_and_distillation(sartor: RunSartor, folder: Path) -> None:
    done = sartor(
        "prune", "net.onnx", "--data", "images.h5", "--latency", "0.8", "--finetune", "2", "--distill", "--episodes",
        "0", "-@", "1", "-o", "small.onnx", "--report", "r.json", cwd=folder,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    report = json.loads((folder / "r.json").read_text())
    assert len(report["losses"]) == 2
    assert report["after"]["macs"] < report["before"]["macs"]
    onnx.checker.check_model(onnx.load(folder / "small.onnx"), full_check=True)


def test_a_search_by_latency_is_resumed_with_its_latencies(sartor: RunSartor, folder: Path) -> None:
    common = ["prune", "net.onnx", "--data", "images.h5", "--latency", "0.8", "-@", "1", "--dry-run"]
    for arguments in (["--episodes", "1", "--save-history", "run.h5"], ["--episodes", "3", "--resume", "run.h5"]):
        assert sartor(*common, *arguments, cwd=folder).returncode == 0
    with h5py.File(folder / "run.h5") as file:
        assert len(file["episodes/scores"]) == 3


def test_a_history_is_inspected(sartor: RunSartor, folder: Path) -> None:
    prune(sartor, folder, "--episodes", "2", "--save-history", "run.h5", "--dry-run")
    facts = json.loads(sartor("inspect", "run.h5", "--json", cwd=folder).stdout)
    found = facts["attributes"]
    assert (found["kind"], found["budget"], found["ratio"]) == ("sartor.prune.history", "flops", 0.5)
    assert (found["episodes"], found["best"]) == (2, pytest.approx(max(found["best"], 0)))
    assert b"episodes" in sartor("inspect", "run.h5", cwd=folder).stdout


def test_layers_that_are_kept(sartor: RunSartor, folder: Path) -> None:
    done = prune(sartor, folder, "--episodes", "0", "--keep", "conv_0", "--dry-run")
    assert done.returncode == 0
    lines = done.stdout.decode().splitlines()
    assert any(line.startswith("MACs ") for line in lines)
    assert "kept whole" in lines


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--data", "images.h5"], 2, "one budget is needed"),
        (["--data", "images.h5", "--flops", "0.5", "--params", "0.5"], 2, "one budget is needed"),
        (["--flops", "0.5"], 2, "--data: there is no data"),
        (["--data", "images.h5", "--flops", "1.5"], 2, "--flops: 1.5 is no share"),
        (["--data", "images.h5", "--flops", "0.0001"], 1, "of flops stay"),
        (["--data", "images.h5", "--latency", "2"], 2, "--latency: 2 is no share"),
        (["--data", "images.h5", "--flops", "0.5", "--distill"], 2, "there is nothing to distil"),
        (["--data", "images.h5", "--flops", "0.5", "--finetune", "1"], 65, "it has no labels train/y"),
        (["--data", "images.h5", "--flops", "0.5", "--shard", "3/2"], 2, "--shard 3/2: it is no part"),
        (["--data", "images.h5", "--flops", "0.5", "--shard", "one"], 2, "--shard one: it is no part"),
        (["--data", "net.onnx", "--flops", "0.5"], 65, "net.onnx"),
        (["--data", "missing.h5", "--flops", "0.5"], 65, "missing.h5"),
        (["--data", "images.h5", "--flops", "0.5", "--metric", "accuracy"], 65, "it has no labels y"),
        (["--data", "images.h5", "--flops", "0.5", "--metric", "f1"], 2, "no metric 'f1'"),
        (["--data", "images.h5", "--flops", "0.5", "--history", "images.h5"], 65, "no history of prune"),
        (["--data", "images.h5", "--flops", "0.5", "--resume", "images.h5"], 65, "no history of prune"),
        (["--data", "images.h5", "--flops", "0.5", "--keep", "*"], 1, "no channels can be removed"),
    ],
)
def test_bad_input(arguments: list[str], code: int, message: str, sartor: RunSartor, folder: Path) -> None:
    before = sorted(path.name for path in folder.iterdir())
    done = sartor("prune", "net.onnx", *arguments, "--episodes", "0", "-o", "small.onnx", cwd=folder)
    assert done.returncode == code, done.stderr
    error = done.stderr.decode().strip().splitlines()[-1]
    assert error.startswith("sartor prune: error: ")
    assert message in error
    assert sorted(path.name for path in folder.iterdir()) == before


def test_another_search_is_not_resumed(sartor: RunSartor, folder: Path) -> None:
    prune(sartor, folder, "--episodes", "1", "--save-history", "run.h5", "--dry-run")
    done = prune(sartor, folder, "--episodes", "2", "--seed", "9", "--resume", "run.h5", "--dry-run")
    assert done.returncode == 2
    assert b"its seed differ" in done.stderr
