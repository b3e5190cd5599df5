"""The weights that a run ends with: the average, under OpenFold's names, with the settings that made the model."""

from __future__ import annotations

import torch

from sartor.share import history
from sartor.share.artifact import Kind, identify, read_safetensors_header
from sartor.share.errors import UsageError
from sartor.tools.fold.checkpoint import State
from sartor.tools.fold.config import Config, from_table, make_config
from sartor.tools.fold.model.alphafold import AlphaFold
from sartor.tools.fold.run import Run
from sartor.tools.fold.settings import as_toml, parse_toml
from sartor.tools.fold.weights.load import load_weights
from sartor.tools.fold.weights.save import write_safetensors

DEFAULT = "initial_training"
CONFIG_KEY = "sartor.fold.config"


def write_weights(state: State, config: Config, run: Run, target: str) -> None:
    """Write the average of the weights as safetensors; raises OutputError, WriteError and UsageError."""
    metadata = {CONFIG_KEY: as_toml(config)}
    for one in history.read_run_directory(run.folder):
        metadata = history.append_safetensors(metadata, one)
    with state.average.applied():
        write_safetensors(state.model, target, metadata)


def open_model(weights: str, preset: str | None, path: str | None, device: torch.device) -> tuple[AlphaFold, Config]:
    """Make a model of weights, with the settings that they tell, or those that are given.

    Raises InputRefusedError for weights that do not fit, and UsageError where the settings are not known.
    """
    told = settings_of(weights)
    if told is None and preset is None and path is None:
        remedy = "Give --preset, or --config of the run that made them"
        raise UsageError("these weights do not tell their settings", subject=weights, remedy=remedy)
    config = told if told is not None and preset is None and path is None else make_config(preset or DEFAULT, path, {})
    model = AlphaFold(config.model)
    load_weights(model, weights)
    return model.to(device).eval(), config


def settings_of(weights: str) -> Config | None:
    """Return the settings that a file of weights tells, None where it tells none."""
    if identify(weights) is not Kind.SAFETENSORS:
        return None
    text = read_safetensors_header(weights).metadata.get(CONFIG_KEY)
    if text is None:
        return None
    return from_table(parse_toml(text, weights), DEFAULT, weights)
