"""What flows through pruning: what the user asked for, and what came out of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from sartor.tools.prune.strategies.base import Transfer

Resource = Literal["flops", "params", "latency"]
StrategyName = Literal["auto", "ddpg", "hill-climb", "random"]
Start = Literal["prior", "uniform"]


@dataclass(frozen=True)
class Budget:
    """How much of a resource may stay, as a share of the original."""

    resource: Resource
    ratio: float


@dataclass(frozen=True)
class Options:
    """What the user asked for."""

    budget: Budget
    metric: str | None = None
    histories: tuple[str, ...] = ()
    save_history: str | None = None
    transfer: Transfer = "augmented"
    assistant: bool = True
    strategy: StrategyName = "auto"
    start: Start = "prior"
    episodes: int = 100
    round_to: int | None = None
    keep: tuple[str, ...] = ()
    least_ratio: float = 0.1
    samples: int = 512
    seed: int = 0
    threads: int = 1
    device: str = "cpu"
    resume: str | None = None
    shard: tuple[int, int] = (1, 1)
    finetune: int = 0
    distill: bool = False

    @property
    def search(self) -> StrategyName:
        """The strategy that is meant: what learns from history where there is some."""
        if self.strategy != "auto":
            return self.strategy
        return "ddpg" if self.histories else "hill-climb"


@dataclass(frozen=True)
class Measure:
    """What a model takes and how good it is; `score` by split."""

    scores: dict[str, float]
    macs: int
    parameters: int
    bytes: int
    latency_us: float


@dataclass(frozen=True)
class UnitPlan:
    """A unit before and after, the share of its readers' output that is lost, and why nothing of it went, if so."""

    name: str
    layers: tuple[str, ...]
    before: int
    after: int
    residual: float


@dataclass(frozen=True)
class Plan:
    """The outcome: the budget, what became of each unit, the search, fine-tuning, and both models measured."""

    budget: Budget
    metric: str
    units: tuple[UnitPlan, ...]
    kept: Sequence[tuple[str, str]]
    strategy: str
    start: str
    episodes: int
    evaluated: int
    seconds: float
    scores: tuple[float, ...]
    losses: tuple[float, ...]
    before: Measure
    after: Measure
    error: float
    notes: tuple[str, ...] = field(default=())
