"""What fits into a GPU: shapes for the weights of a layer, and the largest layer that there would be one for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sartor.share.errors import InputRefusedError
from sartor.tools.sparse_rnn.activations import Activation
from sartor.tools.sparse_rnn.gpu.layout import depth_for, most_threads
from sartor.tools.sparse_rnn.gpu.shape import (
    LANES,
    PLANE_LANES,
    Part,
    Shape,
    Sync,
    Values,
    lanes_for,
    part_slots,
)  # fmt: skip
from sartor.tools.sparse_rnn.kernels.form import form_of
from sartor.tools.sparse_rnn.oracle import Cell

Array = NDArray[Any]

LARGEST_BATCH = LANES[-1]
LEAST_STATE_BYTES = 32
"""Programs write no less than a sector of the second-level cache, so that no two write the same one."""

WARPS = (16, 8)
"""How many warps a program may have, the best first; with few of them a thread has more registers."""

PLACE_LIMIT = 1 << 16
"""Places have 16 bits."""


@dataclass(frozen=True)
class Gpu:
    """A GPU: compute capability times ten, multiprocessors, and bytes of shared memory that a program may have."""

    capability: int
    processors: int
    shared: int


KNOWN = {"A100": Gpu(80, 108, 166_912), "H100": Gpu(90, 132, 232_448), "H200": Gpu(90, 132, 232_448)}
"""GPUs by name: NVIDIA's data sheets, and the CUDA programming guide's table of compute capabilities."""


@dataclass(frozen=True)
class Settings:
    """How a layer is to run: samples, how values are stored, and what the ablation turns off."""

    batch: int
    values: Values
    sync: Sync = "lamport"
    wide: bool = True


def programs_for(hidden: int, lanes: int, processors: int) -> int:
    """Return among how many programs the units of a direction are divided."""
    least = max(LEAST_STATE_BYTES // (2 * lanes), 1)
    return max(min(processors, hidden // least), 1)


def shapes(
    cell: Cell, hidden: int, counts: Sequence[Array], reverse: tuple[bool, ...], activations: tuple[Activation, ...],
    peepholes: bool, programs: int, settings: Settings, odd: bool,
) -> tuple[Shape, ...]:  # fmt: skip
    """Return shapes for rows of so many weights, `counts` [P, rows] a part; `odd` asks for odd K."""
    found = []
    lanes = lanes_for(settings.batch)
    # Two parts of many lanes do not find registers in 16 warps.
    for warps in WARPS[1:] if len(counts) > 1 and lanes >= PLANE_LANES else WARPS:
        parts = _parts(cell, counts, 32 * warps, odd)
        if parts is not None:
            found.append(
                Shape(
                    cell.kind, cell.linear_before_reset, activations, cell.clip, cell.input_forget, peepholes, reverse,
                    hidden, programs, lanes, warps, parts, settings.values, settings.sync,
                    settings.wide,
                )
            )  # fmt: skip
    return tuple(found)


def _parts(cell: Cell, counts: Sequence[Array], threads: int, odd: bool) -> tuple[Part, ...] | None:
    found = []
    for (first, slots), rows in zip(part_slots(cell), counts, strict=True):
        depth = depth_for(rows, threads)
        if depth is None:
            return None
        depth += odd and depth % 2 == 0
        found.append(Part(first, slots, depth, most_threads(rows, depth)))
    return tuple(found)


def fitting(candidates: Sequence[Shape], gpu: Gpu) -> Shape | None:
    """Return the first shape that a GPU holds."""
    return next((one for one in candidates if one.shared_bytes <= gpu.shared and one.places <= PLACE_LIMIT), None)


def largest_hidden(cell: Cell, density: float, settings: Settings, gpu: Gpu) -> int:
    """Return the most units that one direction may have where every row keeps a share of its weights."""

    def fits(hidden: int) -> bool:
        lanes = lanes_for(settings.batch)
        programs = programs_for(hidden, lanes, gpu.processors)
        units, weights = -(-hidden // programs), max(round(density * hidden), 1)
        counts = [np.full((1, units * len(part)), weights) for part in form_of(cell).parts]
        found = shapes(cell, hidden, counts, (False,), cell.of(0), True, programs, settings, False)
        return fitting(found, gpu) is not None

    # What fits is not quite monotonous: rows share threads more or less evenly.
    low, high = 1, PLACE_LIMIT
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return next((hidden for hidden in range(low + low // 50, low, -1) if fits(hidden)), low)


def refusal(name: str, cell: Cell, hidden: int, weights: int, settings: Settings, gpu: Gpu) -> InputRefusedError:
    """Return the error of a layer that does not fit: `weights` are those of a direction."""
    density = weights / (sum(map(len, form_of(cell).parts)) * hidden * hidden)
    if settings.batch > LARGEST_BATCH:
        reason = f"{settings.batch} samples at a time do not fit on one GPU"
        return InputRefusedError(reason, subject=name, remedy=f"Run at most {LARGEST_BATCH}")
    most = largest_hidden(cell, density, settings, gpu)
    reason = (
        f"{hidden} units at {density:.1%} with {settings.batch} samples do not fit into the shared memory of"
        f" {gpu.processors} multiprocessors"
    )
    return InputRefusedError(reason, subject=name, remedy=f"{most} units would, or fewer weights")
