"""The configuration of a run: presets, each a whole one, and TOML that changes some of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from sartor.share.errors import UsageError
from sartor.tools.fold.data.config import DataConfig
from sartor.tools.fold.model.config import LossConfig, ModelConfig
from sartor.tools.fold.settings import overlay, read_toml

Clip = Literal["sample", "step"]


@dataclass(frozen=True)
class OptimiserConfig:
    """Adam, its rate by step, clipping and the average (AlphaFold 2, supplementary section 1.11.3 and 1.11.7).

    Gradients are clipped to a norm of `clip`, those of each sample before they are added up, or those of a whole step.
    `decay_after` steps the rate falls by `decay`, and again each `decay_every`.
    """

    rate: float = 1e-3
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-6
    warm_up: int = 1000
    decay: float = 0.95
    decay_after: int = 50_000
    decay_every: int = 50_000
    clip: float = 0.1
    clip_by: Clip = "sample"
    average: float = 0.999


@dataclass(frozen=True)
class TrainingConfig:
    """The steps of a run. A step takes `batch` samples, `pass_batch` of them at a time; gradients are added up."""

    steps: int = 80_000
    batch: int = 1
    pass_batch: int = 1
    seed: int = 0
    ahead: int = 4
    checkpoint_every: int = 500
    keep: int = 2
    log_every: int = 1

    def __post_init__(self) -> None:
        """Raise ValueError where the numbers can't go together."""
        if min(self.batch, self.pass_batch, self.steps, self.checkpoint_every, self.keep, self.log_every) < 1:
            raise ValueError("every number of 'training' but seed and ahead is at least 1")
        if self.batch % self.pass_batch:
            raise ValueError(f"training.batch, {self.batch}, is no multiple of pass_batch, {self.pass_batch}")


@dataclass(frozen=True)
class EvaluationConfig:
    """When and on what the average of the weights is judged; `chains` is how many at most, the shortest first."""

    every: int = 1000
    chains: int = 200
    recycles: int = 3
    bucket: int = 64


@dataclass(frozen=True)
class Config:
    """All of a run."""

    preset: str
    model: ModelConfig = field(default_factory=ModelConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    data: DataConfig = field(default_factory=DataConfig)
    optimiser: OptimiserConfig = field(default_factory=OptimiserConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)

    def __post_init__(self) -> None:
        """Raise ValueError where settings of different parts can't go together."""
        if self.optimiser.clip_by == "sample" and self.training.pass_batch != 1:
            raise ValueError("optimiser.clip_by is 'sample', so training.pass_batch is 1")


def _tiny() -> Config:
    """Return a run that a CPU can do in minutes: short crops, no templates, two Evoformer blocks.

    A few proteins are learned by heart, so nothing is dropped. Backbone errors are never clamped, as most would be at
    the start, and the structure counts for more than the masked residues. The rate stays high until helices turn: as
    long as their atoms lie on the axis, errors of frames hardly depend on how the frames are turned around it.
    """
    model = ModelConfig.tiny()
    stack = replace(model.evoformer, blocks=2, pair=replace(model.evoformer.pair, dropout=0.0), dropout=0.0)
    extra = replace(model.extra, pair=replace(model.extra.pair, dropout=0.0), dropout=0.0)
    return Config(
        "tiny",
        replace(model, templates=False, evoformer=stack, extra=extra, structure=replace(model.structure, dropout=0.0)),
        replace(LossConfig.tiny(), crop_size=24, fape=2.0, masked_msa=0.1),
        replace(DataConfig.tiny(), crop_size=24, clusters=8, extra=8, templates=0, clamped=0.0),
        OptimiserConfig(rate=2e-3, warm_up=20, decay_after=700, decay=0.8, decay_every=70, clip=100.0, clip_by="step",
                        average=0.98),
        TrainingConfig(steps=1200, checkpoint_every=100),
        EvaluationConfig(every=100, chains=16, recycles=1, bucket=8),
    )  # fmt: skip


def _initial_training() -> Config:
    model = replace(ModelConfig.initial_training(), precision="bf16", checkpointing=True)
    return Config("initial_training", model, LossConfig.initial_training(), DataConfig.initial_training())


def _finetuning() -> Config:
    return Config(
        "finetuning",
        replace(ModelConfig.finetuning(), precision="bf16", checkpointing=True),
        LossConfig.finetuning(),
        DataConfig.finetuning(),
        OptimiserConfig(rate=5e-4, warm_up=0, decay=1.0),
    )


PRESETS: dict[str, Callable[[], Config]] = {
    "tiny": _tiny,
    "initial_training": _initial_training,
    "finetuning": _finetuning,
}


def make_config(preset: str, path: str | None, changes: dict[str, dict[str, Any]]) -> Config:
    """Return a preset with the settings of a TOML file, and then those of the command line, in place of its own.

    A file may name the preset that it starts from. Raises UsageError for an unknown preset and InputRefusedError for
    what the file has wrong.
    """
    table = read_toml(path) if path else {}
    return overlay(from_table(table, preset, path or "configuration"), changes, "options")


def from_table(table: Mapping[str, Any], preset: str, subject: str) -> Config:
    """Return the preset that a table names, or another, with the table's settings; raises as `make_config` does."""
    name = str(table.get("preset", preset))
    if name not in PRESETS:
        remedy = f"There are {', '.join(PRESETS)}"
        raise UsageError("there is no such preset", subject=f"preset {name}", remedy=remedy)
    return overlay(PRESETS[name](), {key: value for key, value in table.items() if key != "preset"}, subject)
