"""What the programs of a kernel do: loads and stores, operators, folds, what waits for what, and how often.

What is done follows from the schedule alone (gpu_walk.py counts it), how often from tile sizes and sizes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from sartor.tools.fuse.axes import Size, size_of
from sartor.tools.fuse.gpu_facts import WARP
from sartor.tools.fuse.gpu_schedule import Axis, Phase

SECTOR = 32
"""Bytes that a load of one element brings at least."""

Along = frozenset[Axis]
"""The axes along which something varies."""

Inside = tuple[Axis, ...]
"""The loops around a statement, outermost first; the spread axis is one of them."""


Part = Literal["", "left", "read"]
"""Of a tensor that has its elements once a program: each leaves its own part, or reads those of all."""


@dataclass(frozen=True)
class Access:
    """Loads or stores of a tensor: its name, bytes an element, elements in all, the axes along which they vary.

    `run` is the axis along which neighbours lie side by side in memory; None where there is none.
    """

    tensor: str
    width: int
    elements: Size
    along: Along
    inside: Inside
    run: Axis | None
    part: Part = ""


@dataclass
class PhaseWork:
    """What the programs of a phase do; `rounds` and `folds` are where they wait for memory and for each other's lanes.

    `gathered` are walks over the parts that programs have left, and whether one part is read at a time; `operators` are
    instructions an element, `dearest` those of the dearest operator.
    """

    phase: Phase
    accesses: list[Access] = field(default_factory=list)
    rounds: list[Inside] = field(default_factory=list)
    gathered: list[tuple[Inside, bool]] = field(default_factory=list)
    folds: list[Inside] = field(default_factory=list)
    operators: dict[tuple[Along, Inside], float] = field(default_factory=dict)
    dearest: float = 0.0


@dataclass(frozen=True)
class Amounts:
    """A phase in numbers: programs that work, and what they do.

    One program: loads one after the other, loads of parts, folds. All of them: lanes times instructions, and by tensor
    the bytes that are moved and those that there are.
    """

    programs: int
    rounds: float
    gathered: float
    folds: float
    instructions: float
    moved: Mapping[str, float]
    held: Mapping[str, float]


class Counts:
    """Works out the amounts of a phase for tile sizes, sizes of axes, and a grid; `walking` programs take several
    blocks each.
    """

    def __init__(
        self, work: PhaseWork, tile: tuple[int, int], sizes: Mapping[Axis, int], grid: int, walking: bool
    ) -> None:
        self.work, self.tile, self.sizes, self.grid = work, tile, sizes, grid
        spread = work.phase.spread
        self.trips = {axis: 1 if axis.whole else self._blocks(axis) for axis in work.phase.axes}
        self.blocks = 1 if spread is None else self.trips[spread]
        self.programs = min(self.blocks, grid) if walking else self.blocks
        # How often one program runs what is inside an axis.
        self.own = {**self.trips, **({} if spread is None else {spread: -(-self.blocks // max(self.programs, 1))})}

    def _blocks(self, axis: Axis) -> int:
        return -(-self.sizes[axis] // (1 if axis.dim is None else self.tile[axis.dim]))

    def times(self, inside: Inside) -> int:
        """Count how often a program runs what is inside some loops."""
        return math.prod(self.own[axis] for axis in inside)

    def amounts(self, names: Mapping[str, int], warps: int, parts: int) -> Amounts:
        """Count everything; `parts` are those that are read at a time of what the programs have left."""
        work = self.work
        moved: dict[str, float] = {}
        held: dict[str, float] = {}
        for access in work.accesses:
            size = number(access.elements, names) * (self.grid if access.part else 1)
            moved[access.tensor] = moved.get(access.tensor, 0.0) + self._moved(access, size)
            held[access.tensor] = float(size * access.width)
        gathered = sum(self.times(at) * -(-self.grid // (1 if single else parts)) for at, single in work.gathered)
        return Amounts(
            self.programs,
            float(sum(map(self.times, work.rounds))),
            float(gathered),
            float(sum(map(self.times, work.folds))),
            sum(self._issued(along, inside, warps) * n for (along, inside), n in work.operators.items()),
            moved,
            held,
        )

    def _again(self, along: Along, inside: Inside) -> int:
        """Count how often all programs together repeat what varies along some axes."""
        spread = self.work.phase.spread
        apart = spread is not None and spread not in along and spread not in inside
        return math.prod(self.trips[axis] for axis in inside if axis not in along) * (self.programs if apart else 1)

    def _moved(self, access: Access, size: int) -> float:
        """Count bytes in whole sectors, of which neighbours in a tile share one where they are neighbours in memory."""
        elements = min(math.prod(self.sizes[axis] for axis in access.along), size)
        sector = max(1.0, SECTOR / (access.width * self._run(access)))
        times = self._again(access.along, access.inside) * (self.grid if access.part == "read" else 1)
        return elements * access.width * sector * times

    def _run(self, access: Access) -> int:
        """Count the elements of a tile that lie side by side in memory."""
        run = access.run
        if run is None or run.dim is None:
            return 1
        if self.sizes[run] > self.tile[run.dim]:
            return self.tile[run.dim]
        along = math.prod(min(self.tile[a.dim], self.sizes[a]) for a in access.along if a.dim is not None)
        return max(along, 1)

    def _issued(self, along: Along, inside: Inside, warps: int) -> float:
        """Count lanes that run an instruction, idle ones and those that repeat a scalar included."""
        lanes = math.prod(self.tile[axis.dim] for axis in along if axis.dim is not None)
        times = math.prod(self.trips[axis] for axis in along) * self._again(along, inside)
        return float(max(lanes, WARP * warps) * times)


def number(size: Size, names: Mapping[str, int]) -> int:
    """Work out a size whose names are all known."""
    found = size_of(size, names)
    assert found is not None, "a size is not that of an input"
    return found
