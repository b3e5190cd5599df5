"""A run of training: the same steps however often it is stopped, and nothing is lost when it goes wrong."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from tests.kits import fold_run_kit as kit

from sartor.share import history
from sartor.share.artifact import quickcheck, read_safetensors_header, read_tensors
from sartor.share.errors import GoalNotMetError, InputRefusedError, UsageError
from sartor.tools.fold.checkpoint import checkpoints
from sartor.tools.fold.train import train

SARTOR = Path(sys.executable).with_name("sartor")


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return kit.make_shards(tmp_path_factory.mktemp("proteins"))


@pytest.fixture(scope="module")
def unbroken(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a run of six steps."""
    folder = tmp_path_factory.mktemp("unbroken")
    train(kit.make_settings(folder), kit.options(shards, folder / "run", weights=str(folder / "w.safetensors")), ["x"])
    return folder


def command(shards: Path, folder: Path, *more: str) -> list[str]:
    """Return a command line that trains with the settings of the kit in a folder."""
    arguments = [str(shards), "--config", str(kit.settings_file(folder)), "--run-dir", str(folder / "run"), "-@", "1"]
    return [str(SARTOR), "fold-train", *arguments, *more]


def start(arguments: list[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True)


def wait_for_steps(run: Path, count: int, process: subprocess.Popen[str]) -> None:
    """Wait until a run has written down so many steps."""
    until = time.monotonic() + 120
    while time.monotonic() < until and process.poll() is None:
        if (run / "metrics.jsonl").exists() and len(kit.losses(run)) >= count:
            return
        time.sleep(0.01)
    raise AssertionError(f"the run ended or hung before step {count}: {process.stderr and process.stderr.read()}")


def test_a_run_leaves_what_it_should(unbroken: Path) -> None:
    run = unbroken / "run"
    assert [step for step, _, _ in kit.losses(run)] == [1, 2, 3, 4, 5, 6]
    assert [path.name for path in checkpoints(run)] == ["step-00000004.safetensors", "step-00000006.safetensors"]
    assert quickcheck(run) is None
    (record,) = history.read_run_directory(run)
    assert record.tool == "fold-train"
    assert record.seed == 0
    last = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])
    assert last["event"] == "evaluation"
    assert set(last["chains"]) == {"s000_A", "s001_A"}


def test_the_loss_falls(unbroken: Path) -> None:
    found = kit.losses(unbroken / "run")
    assert found[-1][1] < found[0][1]


def test_weights_are_the_average_under_names_of_openfold(unbroken: Path) -> None:
    header = read_safetensors_header(unbroken / "w.safetensors")
    assert "evoformer.blocks.0.msa_att_row.mha.linear_q.weight" in header.tensors
    assert history.read_safetensors(header.metadata)
    state = read_tensors(checkpoints(unbroken / "run")[-1], "average/")
    written = read_tensors(unbroken / "w.safetensors")
    name = "structure_module.linear_in.weight"
    assert torch.equal(written[name], state[name])
    assert not torch.equal(written[name], read_tensors(checkpoints(unbroken / "run")[-1], "parameter/")[name])


def test_a_run_in_two_parts_takes_the_same_steps(shards: Path, unbroken: Path, tmp_path: Path) -> None:
    train(kit.make_settings(tmp_path, steps=3), kit.options(shards, tmp_path / "run"), None)
    both = kit.options(shards, tmp_path / "run", "auto", weights=str(tmp_path / "w.safetensors"))
    train(kit.make_settings(tmp_path), both, ["x"])
    assert kit.losses(tmp_path / "run") == kit.losses(unbroken / "run")
    assert (tmp_path / "w.safetensors").read_bytes() == (unbroken / "w.safetensors").read_bytes()


def test_a_killed_run_takes_the_same_steps(shards: Path, unbroken: Path, tmp_path: Path) -> None:
    process = start(command(shards, tmp_path))
    wait_for_steps(tmp_path / "run", 3, process)
    process.kill()
    process.communicate()
    assert checkpoints(tmp_path / "run")[0].name == "step-00000002.safetensors"
    subprocess.run(command(shards, tmp_path, "--resume", "auto", "-q"), check=True)
    assert kit.losses(tmp_path / "run") == kit.losses(unbroken / "run")


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_ends_the_step_and_keeps_it(
    signum: signal.Signals, shards: Path, unbroken: Path, tmp_path: Path
) -> None:
    process = start(command(shards, tmp_path))
    wait_for_steps(tmp_path / "run", 1, process)
    process.send_signal(signum)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 75
    done = kit.losses(tmp_path / "run")[-1][0]
    assert said.splitlines()[-1] == (
        f"sartor fold-train: error: stopped by a signal after step {done}. Start it again with --resume auto"
    )
    assert checkpoints(tmp_path / "run")[-1].name == f"step-{done:08d}.safetensors"
    subprocess.run(command(shards, tmp_path, "--resume", "auto", "-q"), check=True)
    assert kit.losses(tmp_path / "run") == kit.losses(unbroken / "run")


def test_a_loss_that_is_not_finite_names_the_chain_and_keeps_the_state(shards: Path, tmp_path: Path) -> None:
    more = "\n[optimiser]\nrate = 1e30\nwarm_up = 0\n"
    text = kit.SETTINGS.replace("[optimiser]\nwarm_up = 2\n", "")
    (tmp_path / "settings.toml").write_text(text + more)
    from sartor.tools.fold.config import make_config

    config = make_config("tiny", str(tmp_path / "settings.toml"), {})
    with pytest.raises(GoalNotMetError, match=r"^s00\d_A.*: the loss is not finite in step \d\. Look at ") as caught:
        train(config, kit.options(shards, tmp_path / "run"), None)
    assert caught.value.exit_code == 1
    (samples,) = (tmp_path / "run").glob("nonfinite-step-*.safetensors")
    step = int(samples.stem[-8:])
    assert checkpoints(tmp_path / "run")[-1].name == f"step-{step - 1:08d}.safetensors"
    assert caught.value.subject.split(", ")[0] in read_safetensors_header(samples).metadata["chains"]


def test_a_folder_with_a_run_is_not_overwritten(shards: Path, unbroken: Path) -> None:
    with pytest.raises(UsageError, match=r"it holds a run of 6 steps\. Go on with --resume auto"):
        train(kit.make_settings(unbroken), kit.options(shards, unbroken / "run"), None)


def test_a_run_goes_on_only_as_it_began(shards: Path, unbroken: Path, tmp_path: Path) -> None:
    again = kit.options(shards, unbroken / "run", "auto")
    with pytest.raises(InputRefusedError, match=r"the run in it has another training\.seed"):
        train(kit.make_settings(tmp_path, seed=1), again, None)
    others = kit.make_shards(tmp_path, 3)
    with pytest.raises(InputRefusedError, match="the run in it was of other shards"):
        train(kit.make_settings(tmp_path), kit.options(others, unbroken / "run", "auto"), None)


def test_lines_of_mlperf(shards: Path, tmp_path: Path) -> None:
    train(kit.make_settings(tmp_path, steps=1), kit.options(shards, tmp_path / "run", mlperf=True), None)
    lines = (tmp_path / "run" / "mlperf.log").read_text().splitlines()
    assert all(line.startswith(":::MLLOG {") for line in lines)
    entries = [json.loads(line.removeprefix(":::MLLOG ")) for line in lines]
    assert [entry["key"] for entry in entries] == [
        "submission_benchmark", "run_start", "tracked_stats", "eval_accuracy", "run_stop",
    ]  # fmt: skip
    assert entries[-1]["value"] == {"status": "success"}
    assert entries[2]["metadata"]["step_num"] == 1


def test_seeds_differ(shards: Path, unbroken: Path, tmp_path: Path) -> None:
    train(kit.make_settings(tmp_path, seed=5, steps=2), kit.options(shards, tmp_path / "run"), None)
    assert kit.losses(tmp_path / "run")[0][1] != kit.losses(unbroken / "run")[0][1]


def test_no_run_without_something_to_train_on(tmp_path: Path) -> None:
    done = subprocess.run([SARTOR, "fold-train", "--run-dir", tmp_path / "run"], capture_output=True, text=True)
    assert done.returncode == 2
    assert "it is to be said once what to train on. Give SHARDS or --synthetic" in done.stderr


def test_settings_are_printed_and_read_back(tmp_path: Path) -> None:
    printed = subprocess.run(
        [SARTOR, "fold-train", "--preset", "tiny", "--print-config"], capture_output=True, check=True
    )
    (tmp_path / "c.toml").write_bytes(printed.stdout)
    again = subprocess.run(
        [SARTOR, "fold-train", "--config", tmp_path / "c.toml", "--print-config"], capture_output=True, check=True
    )
    assert again.stdout == printed.stdout
    (tmp_path / "c.toml").write_text("[model]\nc_zz = 1\n")
    done = subprocess.run([SARTOR, "fold-train", "--config", tmp_path / "c.toml"], capture_output=True, text=True)
    assert done.returncode == 65
    assert "there is no setting 'model.c_zz'. Did you mean 'c_z'?" in done.stderr
