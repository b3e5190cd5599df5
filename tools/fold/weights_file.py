"""The weights that a run ends with: the average, under OpenFold's names, with the settings that made the model."""

from __future__ import annotations

from sartor.share import history
from sartor.share.artifact import write_tensors
from sartor.tools.fold.checkpoint import State
from sartor.tools.fold.config import Config
from sartor.tools.fold.run import Run
from sartor.tools.fold.settings import as_toml

CONFIG_KEY = "sartor.fold.config"


def write_weights(state: State, config: Config, run: Run, target: str) -> None:
    """Write the average of the weights as safetensors; raises OutputError, WriteError and UsageError."""
    metadata = {CONFIG_KEY: as_toml(config)}
    for one in history.read_run_directory(run.folder):
        metadata = history.append_safetensors(metadata, one)
    with state.average.applied():
        write_tensors(state.model.state_dict(), target, metadata)
