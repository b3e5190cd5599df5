"""What flows through the story of `fuse`: groups of nodes, what was measured of them, and the verdict."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import onnx_ir as ir

from sartor.share.runtime.kernel import FunctionCall

DOMAIN = "sartor.fuse"

PlanKind = Literal["search", "stitch-all", "off"]
"""How groups are chosen: by the explorer, as large as kernels can be, or not at all."""


@dataclass(frozen=True)
class LaunchPlan:
    """How a part of a group is launched on a GPU: programs, warps, rows and columns of the tiles of every phase.

    Registers, and bytes of them spilt, are those of a thread, bytes of shared memory those of a program; `occupancy`
    counts the programs that a multiprocessor holds at once, `waves` how often they fill the device. Where a choice was
    only predicted its resources are guesses.
    """

    composition: str
    programs: int
    warps: int
    tiles: tuple[tuple[int, int], ...]
    registers: int
    spills: int
    shared: int
    occupancy: int
    waves: float
    chosen: Literal["predicted", "compiled", "measured"]
    measured_us: float | None


@dataclass(frozen=True, eq=False)
class Group:
    """Nodes of one graph that one kernel can compute; `call` is the function and the types it is called with."""

    id: str
    graph: ir.Graph
    nodes: tuple[ir.Node, ...]
    inputs: tuple[ir.Value | None, ...]
    outputs: tuple[ir.Value, ...]
    call: FunctionCall
    composition: str = ""
    bytes_saved: int | None = None
    predicted_us: float | None = None
    launches: tuple[LaunchPlan, ...] = ()
    """How the parts are launched on a GPU; empty for the CPU, and where sizes are not known."""

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the member nodes, or their operators where they have none."""
        return tuple(node.name or node.op_type for node in self.nodes)


@dataclass(frozen=True)
class Measurement:
    """Microseconds of one group: as a kernel, and as onnxruntime runs the same nodes; or what kept it from a run."""

    measured_us: float | None = None
    baseline_us: float | None = None
    obstacle: str = ""


@dataclass(frozen=True)
class Verification:
    """How a kernel's results compare with those of its body; `reason` says what is wrong, or why nothing was compared.

    `max_error` (None where it is infinite) and `bound` are relative errors as accuracy.py defines them; `reference` is
    float64 or onnxruntime.
    """

    checked: bool = False
    ok: bool = True
    max_error: float | None = None
    bound: float | None = None
    reference: str | None = None
    runs: int = 0
    reason: str = "not asked for"


@dataclass(frozen=True)
class Verdict:
    """Whether a group is fused, and why."""

    group: Group
    measurement: Measurement
    kept: bool
    reason: str
    verified: Verification = field(default_factory=Verification)

    @property
    def ratio(self) -> float:
        """How many times faster than onnxruntime the group measured; 1 where it was not measured."""
        times = self.measurement
        if times.measured_us is None or times.baseline_us is None:
            return 1.0
        return times.baseline_us / times.measured_us


@dataclass(frozen=True)
class Plan:
    """All groups of a model with their verdicts, and the nodes that no group could take."""

    verdicts: tuple[Verdict, ...]
    refused: dict[str, str] = field(default_factory=dict)
    dispatches_before: int | None = None
    dispatches_after: int | None = None
    coefficients: str = "defaults"
    unmet: tuple[str, ...] = ()
    """Why nodes that have to lie in one kernel do not; such a plan is not carried out."""

    @property
    def kept(self) -> tuple[Group, ...]:
        """The groups that will be fused."""
        return tuple(verdict.group for verdict in self.verdicts if verdict.kept)
