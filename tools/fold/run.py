"""A run's folder: its configuration, its history, whether it goes on, and what must not change when it does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sartor.share import history
from sartor.share.artifact import make_folder, write_bytes
from sartor.share.errors import InputRefusedError, UsageError
from sartor.tools.fold.checkpoint import checkpoints, facts_of
from sartor.tools.fold.config import Config, make_config
from sartor.tools.fold.options import Resume
from sartor.tools.fold.settings import as_toml, differences

CONFIG = "config.toml"

FREE = ("training.steps", "training.ahead", "training.checkpoint_every", "training.keep", "training.log_every",
        "evaluation.every", "evaluation.chains", "evaluation.recycles", "evaluation.bucket")  # fmt: skip
"""Settings that may change when a run goes on: they leave its steps as they are."""


@dataclass(frozen=True)
class Run:
    """A folder that is ready; `start` is the checkpoint to go on from, None at the beginning."""

    folder: Path
    start: Path | None


def open_run(folder: Path, config: Config, data: str, resume: Resume) -> Run:
    """Make the folder of a run, or find where the run in it stopped.

    Raises UsageError where there is a run and it was not asked to go on, InputRefusedError where configuration or data
    are others than those it began with, and OutputError.
    """
    make_folder(folder)
    kept = checkpoints(folder)
    if kept and resume == "never":
        remedy = "Go on with --resume auto, or name another folder"
        raise UsageError(f"it holds a run of {facts_of(kept[-1])['step']} steps", subject=str(folder), remedy=remedy)
    if kept:
        _require_same(folder, config, data, facts_of(kept[-1]))
    write_bytes(as_toml(config).encode(), folder / CONFIG)
    if not (folder / "manifest.json").exists():
        write_bytes(b"{}\n", folder / "manifest.json")
    return Run(folder, kept[-1] if kept else None)


def _require_same(folder: Path, config: Config, data: str, facts: dict[str, Any]) -> None:
    before = make_config(config.preset, str(folder / CONFIG), {})
    changed = [name for name in differences(before, config) if name not in FREE]
    if changed:
        remedy = "Go on with what it began with, or name another folder"
        raise InputRefusedError(f"the run in it has another {changed[0]}", subject=str(folder), remedy=remedy)
    if facts.get("data") != data:
        remedy = "Go on with the shards it began with, or name another folder"
        raise InputRefusedError("the run in it was of other shards", subject=str(folder), remedy=remedy)


def record(run: Run, config: Config, data: str, argv: Sequence[str]) -> None:
    """Append to the history of a run that it was begun or went on."""
    before = history.read_run_directory(run.folder)
    made = history.make_record(
        "fold-train", argv, [data], {"config": as_toml(config)}, config.training.seed, history.last_id(before)
    )
    history.append_run_directory(run.folder, made)
