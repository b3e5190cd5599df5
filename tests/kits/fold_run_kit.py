"""Runs of training small enough for tests: two made-up proteins, a model of a few thousand weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from sartor.tools.fold.config import Config, make_config
from sartor.tools.fold.options import Options
from sartor.tools.fold.pack import pack
from sartor.tools.fold.plan import Options as PackOptions
from sartor.tools.fold.synthetic import write_proteins

SETTINGS = """
preset = "tiny"
[model]
c_m = 8
c_e = 8
c_z = 8
c_s = 16
[model.evoformer]
blocks = 1
[model.structure]
blocks = 2
[data]
crop_size = 16
clusters = 4
extra = 4
[optimiser]
warm_up = 2
[training]
steps = 6
batch = 2
pass_batch = 1
checkpoint_every = 2
[evaluation]
every = 100
chains = 2
"""


def make_shards(folder: Path, count: int = 2) -> Path:
    """Make up proteins and pack them."""
    pack(*write_proteins(folder, count, 0), folder / "shards", PackOptions(), None)
    return folder / "shards"


def settings_file(folder: Path, more: str = "") -> Path:
    """Write the settings, with more of them at the end."""
    path = folder / "settings.toml"
    path.write_text(SETTINGS + more)
    return path


def make_settings(folder: Path, **training: Any) -> Config:
    """Return the settings with other numbers of `training`."""
    return make_config("tiny", str(settings_file(folder)), {"training": training})


def options(shards: Path, run: Path, resume: Any = "never", **more: Any) -> Options:
    """Return what is asked of a run that trains and judges on shards."""
    asked: dict[str, Any] = {
        "judged": None, "weights": None, "trunk": None, "mlperf": False, "device": "cpu",
        "threads": 1,
    }  # fmt: skip
    return Options(source=str(shards), run=run, resume=resume, **{**asked, **more})


def losses(run: Path) -> list[tuple[int, float, list[str]]]:
    """Return step, loss and chains of every step of a run."""
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [(row["step"], row["loss"], row["chains"]) for row in rows if row["event"] == "step"]
