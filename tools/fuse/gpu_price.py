"""What a call costs on a GPU before anything is compiled: its traffic, its launches, its barriers."""

from __future__ import annotations

import math
from collections.abc import Mapping

from sartor.tools.fuse import ops
from sartor.tools.fuse.axes import NotEmittableError, parse_size, size_of
from sartor.tools.fuse.coefficients import Coefficients
from sartor.tools.fuse.gpu_call import GpuCall
from sartor.tools.fuse.gpu_kernel import scratch_bytes
from sartor.tools.fuse.gpu_launch import Planned
from sartor.tools.fuse.traffic import beyond

PROCESSORS = 132
"""Multiprocessors that kernels are planned for: those of an H100 and an H200."""


def gpu_price(
    call: GpuCall, axes: Mapping[str, int], unknown: int | None, rates: Coefficients
) -> tuple[str, float | None]:
    """Return the composition of a call and its microseconds; `unknown` is the size of axes that are not given.

    Every input and output moves once, scratch memory is written and read; beyond the cache of the device bytes cost
    more. Without a size the time is None and the composition that of a call of unknown sizes.
    """
    names = {name: axes.get(name, unknown) for name in call.names}
    known = {name: size for name, size in names.items() if size is not None}
    if len(known) < len(names):
        return _composition(call.planned(dict.fromkeys(names, 128), PROCESSORS)), None
    planned = call.planned(known, PROCESSORS)
    moved = _tensors(call, known) + sum(2 * scratch_bytes(one.kernel, one.launch) for one in planned)
    kernel, barriers = rates.kernel, sum(len(one.kernel.schedule.phases) - 1 for one in planned)
    far = moved * beyond(moved, rates.caches.l3)
    launches = 1 if call.packs(planned) else len(planned)
    time = launches * kernel.call + barriers * kernel.fork + moved * kernel.near + far * kernel.memory
    return _composition(planned), time / 1e3


def _tensors(call: GpuCall, names: Mapping[str, int]) -> int:
    """Count the bytes of the inputs and outputs."""
    total = 0
    for kind in (*call.types.inputs, *call.types.outputs):
        if kind is None:
            continue
        try:
            sizes = [size_of(parse_size(dim), names) for dim in kind.shape]
        except NotEmittableError:
            continue
        total += ops.STORAGE[kind.dtype].size * math.prod(size for size in sizes if size is not None)
    return total


def _composition(planned: tuple[Planned, ...]) -> str:
    """Name how values are handed on (FusionStitching, table 1; AStitch for `global`)."""
    if len(planned) > 1:
        return "packing"
    (one,) = planned
    if len(one.kernel.schedule.phases) > 1:
        return "global"
    if not any(root.folds for root in one.kernel.schedule.roots):
        return "thread"
    return "warp" if one.launch.warps == 1 else "block"
