"""The accurate evaluator of the GPU: occupancy, waves, and the time of a planned kernel (FusionStitching, section 4).

With the resources of a compiled kernel the estimate is that of its machine code; before anything is compiled it is the
same with expected ones. A phase's programs run in waves of as many as the device holds at once,

    wave = max(program, bytes / bandwidth, instructions / issue rate)
    program = start + rounds * latency + parts * cache latency + folds * fold + instructions / issue rate of its warps

where a round is a group of loads that are under way together. That is L = warps / occupancy * instructions * CPI of the
paper with memory put in: few programs can't keep memory busy, because the bytes under way are latency times bandwidth
(Little's law), and a last wave that is not full takes as long as a program all the same. The bytes of a wave are its
share of what the phase moves through the second cache, and from memory what that does not hold; a tensor that the first
cache holds comes to each multiprocessor once. A multiprocessor draws no more than the width of its port. A call costs
its launches, its phases, and a barrier between any two of them.

Nothing of this was measured. The times are estimates: of a launch in a CUDA graph, of a barrier, of loads from a memory
that is busy (an idle one takes some 480 cycles), and of folds at some 25 cycles a shuffle.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from sartor.share.triton_ahead import Resources
from sartor.tools.fuse.coefficients import Caches, StockRates
from sartor.tools.fuse.gpu_facts import (
    PARTITIONS,
    REGISTER_UNIT,
    RESERVED_SHARED,
    SHARED_UNIT,
    WARP,
    DeviceFacts,
)  # fmt: skip
from sartor.tools.fuse.gpu_launch import Planned
from sartor.tools.fuse.gpu_work import Amounts, Counts, number
from sartor.tools.fuse.traffic import beyond

LAUNCH_US, BARRIER_US = 1.5, 2.0
"""Microseconds of a kernel in a CUDA graph, and of a barrier of the whole grid."""

START_US, LATENCY_US, CACHE_LATENCY_US = 0.2, 0.6, 0.3
"""Microseconds of a program besides what it does, of a load from memory, and of one from the second cache."""

FOLD_US, CROSS_US = 0.08, 0.08
"""Microseconds of a fold among the lanes of a warp, and besides among warps, which takes two barriers."""

CACHE_BYTES, PORT_BYTES = 24, 64
"""Bytes a cycle that the second cache gives for each multiprocessor, and that one of them takes at most."""

MOST_REGISTERS = 255
"""Registers that a thread can have."""


@dataclass(frozen=True)
class Estimate:
    """What a planned kernel costs: microseconds of the call, those of launches alone, those that memory and arithmetic
    need however many programs run; programs that a multiprocessor holds at once, waves of them, and the resources.
    """

    us: float
    launch_us: float
    busy_us: float
    occupancy: int
    waves: float
    resources: Resources

    @property
    def sound(self) -> bool:
        """Tell whether the kernel runs at all and keeps everything in registers."""
        return self.occupancy > 0 and self.resources.spills == 0


def occupancy(found: Resources, warps: int, facts: DeviceFacts) -> int:
    """Count the programs that a multiprocessor holds at once, as NVIDIA's calculator does (cuda_occupancy.h)."""
    of_warp = _units(found.registers * WARP, REGISTER_UNIT)
    of_program = _units(found.shared + RESERVED_SHARED, SHARED_UNIT)
    if of_warp * _units(warps, PARTITIONS) > facts.registers or found.shared > facts.program_shared:
        return 0
    by_registers = facts.registers // PARTITIONS // of_warp * PARTITIONS // warps
    return min(by_registers, facts.shared // of_program, facts.warps // warps, facts.programs)


def _units(amount: int, unit: int) -> int:
    """Round up to whole units."""
    return -(-amount // unit) * unit


def expected(planned: Planned, facts: DeviceFacts) -> Resources:
    """Guess what a kernel takes before it is compiled, from the elements of a thread and the dearest operator.

    Fitted to the registers that ptxas gave to 483 kernels for sm_90; half of the guesses are within 15 %.
    """
    warps = planned.launch.warps
    elements = max(rows * columns for rows, columns in planned.config.tiles) / (WARP * warps)
    dearest = max((work.dearest for work in planned.kernel.work), default=0.0)
    wanted = math.ceil(20 + max(elements, 1.0) * (1.2 + min((dearest / 30) ** 2, 5.0)))
    # The assembler knows how many warps have to fit.
    most = min(MOST_REGISTERS, facts.registers // (WARP * _units(warps, PARTITIONS)) // 8 * 8)
    return Resources(min(wanted, most), 4 * max(wanted - most, 0), 0)


def evaluate(planned: Planned, resources: Resources | None, facts: DeviceFacts) -> Estimate:
    """Estimate the time of a planned kernel on a device; without resources, with those that are to be expected."""
    found = resources or expected(planned, facts)
    held = occupancy(found, planned.launch.warps, facts)
    counted = _amounts(planned)
    footprint = sum({name: size for one in counted for name, size in one.held.items()}.values())
    room = planned.launch.grid if planned.launch.cooperative else max(held, 1) * facts.multiprocessors
    phases = [_Phase(one, planned.launch.warps, footprint, room, facts) for one in counted]
    # The counters of barriers are cleared by a launch of their own.
    launch_us = LAUNCH_US * (2 if planned.launch.cooperative else 1)
    between = BARRIER_US * (len(phases) - 1)
    us = launch_us + between + sum(phase.us() for phase in phases)
    waves = planned.launch.grid / (max(held, 1) * facts.multiprocessors)
    return Estimate(us, launch_us, between + sum(phase.busy_us() for phase in phases), held, waves, found)


def together(estimates: Sequence[Estimate], packed: bool) -> float:
    """Add up the microseconds of the parts of a call; packed into one launch they share the device."""
    if not packed:
        return sum(one.us for one in estimates)
    slowest = max(one.us - one.launch_us for one in estimates)
    return max(one.launch_us for one in estimates) + max(slowest, sum(one.busy_us for one in estimates))


def stock_rates(facts: DeviceFacts) -> tuple[StockRates, Caches]:
    """Return what operators cost that run as kernels of their own: a launch each, and their traffic."""
    near, far = _byte_us(facts)
    rates = StockRates(0.0, 1e3 * LAUNCH_US, 0.0, 1e3 * near, 0.0, 0.0, 1e3 * far)
    return rates, Caches(l3=facts.cache)


def _byte_us(facts: DeviceFacts) -> tuple[float, float]:
    """Return the microseconds of a byte through the second cache, and how many more it takes from memory."""
    near = 1e6 / (CACHE_BYTES * facts.multiprocessors * facts.clock)
    return near, max(1e6 / facts.bandwidth - near, 0.0)


def _amounts(planned: Planned) -> list[Amounts]:
    launch, names = planned.launch, planned.names
    phases = zip(planned.kernel.work, planned.config.tiles, strict=True)
    out = []
    for work, tile in phases:
        sizes = {axis: number(axis.size, names) for axis in work.phase.axes}
        counts = Counts(work, tile, sizes, launch.grid, launch.cooperative)
        out.append(counts.amounts(names, launch.warps, launch.constants.get("PARTS", 1)))
    return out


class _Phase:
    """A phase on a device; `footprint` are the bytes that the call touches, `room` the programs that run at once."""

    def __init__(self, amounts: Amounts, warps: int, footprint: float, room: int, facts: DeviceFacts) -> None:
        self.amounts, self.room, self.facts = amounts, max(room, 1), facts
        first = {name: min(moved, amounts.held[name]) for name, moved in amounts.moved.items()}
        again = sum(self._again(amounts.moved[name] - once, amounts.held[name]) for name, once in first.items())
        self.moved = sum(first.values()) + again
        reach = min(1.0, self.room / max(amounts.programs, 1)) * sum(amounts.held.values())
        far = sum(first.values()) * beyond(footprint, facts.cache) + again * beyond(reach, facts.cache)
        near_us, far_us = _byte_us(facts)
        self.memory_us = self.moved * near_us + far * far_us
        self.lanes = 1e-6 * facts.lanes * facts.clock
        own = amounts.instructions / max(amounts.programs, 1) / (self.lanes * min(warps, PARTITIONS) / PARTITIONS)
        fold = FOLD_US + (CROSS_US if warps > 1 else 0.0)
        waits = amounts.rounds * LATENCY_US + amounts.gathered * CACHE_LATENCY_US + amounts.folds * fold
        self.program_us = START_US + waits + own

    def _again(self, moved: float, held: float) -> float:
        """Count what the second cache gives of repeated accesses to a tensor; what is small stays in the first ones."""
        missed = beyond(held, self.facts.shared)
        return missed * moved + (1 - missed) * min(moved, held * self.facts.multiprocessors)

    def us(self) -> float:
        """Return the microseconds of all waves."""
        full, rest = divmod(self.amounts.programs, self.room)
        return sum(
            count * self._wave(programs) for count, programs in ((full, self.room), (1, rest)) if count * programs
        )

    def busy_us(self) -> float:
        """Return the microseconds that memory or arithmetic take at least."""
        return max(self.memory_us, self.amounts.instructions / (self.lanes * self.facts.multiprocessors))

    def _wave(self, programs: int) -> float:
        share, busy = programs / self.amounts.programs, min(programs, self.facts.multiprocessors)
        port = self.moved * 1e6 / (busy * PORT_BYTES * self.facts.clock)
        return max(self.program_us, share * max(self.memory_us, port, self.amounts.instructions / (busy * self.lanes)))
