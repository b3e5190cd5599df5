"""What flows through sparsification: what the user asked for, and what became of each layer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from sartor.tools.sparse_rnn.pattern import Pattern, Scope

ValueType = Literal["fp16", "fp32"]


@dataclass(frozen=True)
class Options:
    """What the user asked for; `density` is the share of weights that stays."""

    density: float
    pattern: Pattern
    scope: Scope = "gate"
    also_input: bool = False
    nodes: tuple[str, ...] = ()
    values: ValueType = "fp16"


@dataclass(frozen=True)
class Tuning:
    """How the model is trained meanwhile: samples, and the rate of Adam; `cubic` removes weights little by little."""

    data: str
    epochs: int
    rate: float
    distill: bool = False
    schedule: Literal["cubic", "oneshot"] = "cubic"
    seed: int = 0
    threads: int = 1


@dataclass(frozen=True)
class Results:
    """The quality on held-out samples, of the original and of the sparse model, and the mean loss of every epoch."""

    metric: str
    before: float
    after: float
    losses: tuple[float, ...]


@dataclass(frozen=True)
class GatePlan:
    """A gate of a matrix: the share of its weights that stays, and how far what stays is off, over the norm of all."""

    gate: str
    density: float
    error: float


@dataclass(frozen=True)
class MatrixPlan:
    """A matrix, R or W, of a direction of a layer: its gates, and its bytes before and after."""

    layer: str
    kind: str
    matrix: str
    direction: int
    hidden: int
    gates: tuple[GatePlan, ...]
    bytes_before: int
    bytes_after: int


@dataclass(frozen=True)
class Plan:
    """The outcome: every matrix, the nodes that stay as they are and why, the bytes of both models, what training gave,
    and what is worth knowing of how the model was read.
    """

    matrices: tuple[MatrixPlan, ...]
    refused: Mapping[str, str]
    bytes_before: int
    bytes_after: int
    results: Results | None = None
    notes: tuple[str, ...] = ()
