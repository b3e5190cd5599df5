"""Checkpoints: all that a run needs to go on as if nothing had happened, each one file that is whole or not there."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sartor.share.artifact import read_safetensors_header, read_tensors, write_tensors
from sartor.share.errors import InputRefusedError
from sartor.tools.fold.model.alphafold import AlphaFold
from sartor.tools.fold.optimise.average import Average

FOLDER, KEY = "checkpoints", "sartor.fold"
_NAME = re.compile(r"step-(\d{8})\.safetensors")
MOMENTS = ("exp_avg", "exp_avg_sq")


@dataclass(frozen=True)
class State:
    """The parts of a run that change; nothing random is among them, as all draws are functions of seed and step."""

    model: AlphaFold
    adam: torch.optim.Adam
    average: Average


def save(state: State, step: int, run: Path, keep: int, about: dict[str, Any]) -> Path:
    """Write the state after a step, with facts that must be the same when it is read; keep only the last few.

    Raises OutputError and WriteError.
    """
    folder = run / FOLDER
    folder.mkdir(exist_ok=True)
    path = folder / f"step-{step:08d}.safetensors"
    write_tensors(_tensors(state), path, {KEY: json.dumps({"step": step, **about}, sort_keys=True)})
    for old in checkpoints(run)[:-keep]:
        old.unlink()
    return path


def _tensors(state: State) -> dict[str, Tensor]:
    out: dict[str, Tensor] = {}
    for (name, parameter), mean in zip(state.model.named_parameters(), state.average.values, strict=True):
        out[f"parameter/{name}"], out[f"average/{name}"] = parameter, mean
        for moment in MOMENTS:
            out[f"{moment}/{name}"] = state.adam.state[parameter].get(moment, torch.zeros_like(parameter))
    return out


def checkpoints(run: Path) -> list[Path]:
    """List the checkpoints of a run, the first first."""
    return sorted(path for path in run.glob(f"{FOLDER}/step-*.safetensors") if _NAME.fullmatch(path.name))


def facts_of(path: Path) -> dict[str, Any]:
    """Return the step of a checkpoint and what was noted with it; raises InputRefusedError."""
    text = read_safetensors_header(path).metadata.get(KEY)
    try:
        facts = json.loads(text or "")
    except ValueError:
        facts = None
    if not isinstance(facts, dict) or not isinstance(facts.get("step"), int):
        remedy = "Name the folder of a run of sartor fold-train"
        raise InputRefusedError("it is no checkpoint of a training", subject=str(path), remedy=remedy)
    return facts


@torch.no_grad()
def restore(state: State, path: Path) -> int:
    """Fill the state from a checkpoint and return its step; raises InputRefusedError where they do not fit."""
    step = int(facts_of(path)["step"])
    read = {part: read_tensors(path, f"{part}/") for part in ("parameter", "average", *MOMENTS)}
    for part, tensors in read.items():
        _require_fit(tensors, state, f"{path} ({part})")
    for (name, parameter), mean in zip(state.model.named_parameters(), state.average.values, strict=True):
        parameter.copy_(read["parameter"][name])
        mean.copy_(read["average"][name])
        moments = {moment: read[moment][name].to(parameter.device) for moment in MOMENTS}
        state.adam.state[parameter] = {"step": torch.tensor(float(step)), **moments}
    return step


def _require_fit(tensors: dict[str, Tensor], state: State, subject: str) -> None:
    wanted = {name: parameter.shape for name, parameter in state.model.named_parameters()}
    found = {name: tensor.shape for name, tensor in tensors.items()}
    if found != wanted:
        name = sorted(name for name in {*wanted, *found} if wanted.get(name) != found.get(name))[0]
        reason = f"{name!r} has the shape {list(found.get(name, ()))}, the model wants {list(wanted.get(name, ()))}"
        raise InputRefusedError(reason, subject=subject, remedy="Go on with the configuration that it was made with")
