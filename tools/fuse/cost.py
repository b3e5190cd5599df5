"""The cost model: what a kernel costs, linear in counted features, and the traffic that fusion saves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from itertools import groupby
from math import ceil

import onnx_ir as ir

from sartor.tools.fuse.axes import size_of
from sartor.tools.fuse.coefficients import DEFAULTS, Caches, Coefficients, KernelRates, StockRates, names
from sartor.tools.fuse.composition import slices
from sartor.tools.fuse.features import COUNTED, Walk, Work
from sartor.tools.fuse.schedule import Schedule
from sartor.tools.fuse.score import FREE, bytes_of
from sartor.tools.fuse.traffic import Distances, Traffic
from sartor.tools.fuse.work import work_of

INLINE_BYTES, CHUNK_BYTES, CHUNKS_A_THREAD = 128 << 10, 64 << 10, 8
"""How share/runtime/ops.c hands out work: calls that move less run in one thread; chunks are no smaller, nor more."""

INLINE_WORK, CHUNK_WORK = 10000, 2500
"""The like for one of several phases, in nanoseconds as ops.py has them."""

_WORK, _DISTANCES = (tuple(entry.name for entry in fields(kind)) for kind in (Work, Distances))


def features(parts: Sequence[Schedule], axes: Mapping[str, int], threads: int, caches: Caches) -> KernelRates | None:
    """Count what a call of a kernel of these parts costs, each feature in the unit of its rate.

    What tasks share is divided by the threads that get to work, so that a prediction is linear in the rates. Returns
    None for unknown sizes; raises NotEmittableError where there is no kernel.
    """
    sizes = _with_blocks(parts, axes)
    strings = [string for part in parts for string in part.layout.memory()]
    if any(name not in sizes for string in strings for atom in string for name in atom.size.names):
        return None
    phases = [_Phase(tuple(group), sizes, caches) for _, group in groupby(parts, lambda one: one.layout.program.phase)]
    count = size_of(slices(parts), sizes) or 1
    by_slice, workers = _workers(phases, count, threads)
    shared = dict.fromkeys((*COUNTED, *_WORK, *_DISTANCES), 0.0)
    for i, phase in enumerate(phases):
        recent = 1 / count if by_slice and i else 1.0
        for name, amount in phase.amounts(recent).items():
            shared[name] += amount / workers[i]
    forks = sum(one > 1 for one in (workers[:1] if by_slice else workers))
    program = parts[0].layout.program
    arguments = len(program.inputs) + len({i for part in parts for i in part.layout.program.outside})
    return KernelRates(call=1.0, argument=arguments, fork=float(forks), **shared)


class _Phase:
    """What the tasks between two barriers do: how many they are, the bytes of all tensors, and nanoseconds of work."""

    def __init__(self, parts: tuple[Schedule, ...], axes: Mapping[str, int], caches: Caches) -> None:
        self._caches, self._traffic = caches, Traffic()
        self._walks = [Walk(part, axes, caches, self._traffic) for part in parts]
        self.tasks = sum(walk.counts.task for walk in self._walks)
        self.moved = sum(tensor.size for tensor in self._traffic.tensors.values())
        self.work = sum(walk.size(size) * cost for walk in self._walks for size, cost in work_of(walk.schedule))

    def amounts(self, recent: float) -> dict[str, float]:
        """Return what is counted; `recent` is the share of the tensors that was touched since the phase before."""
        counts = [walk.counts for walk in self._walks]
        return {
            **{name: sum(getattr(one, name) for one in counts) for name in COUNTED},
            **{name: sum(getattr(one.work, name) for one in counts) for name in _WORK},
            **asdict(self._traffic.distances(self._caches, recent)),
        }


def _workers(phases: Sequence[_Phase], count: int, threads: int) -> tuple[bool, list[float]]:
    """Tell, as share/runtime/ops.c does, whether slices are handed out, and the threads at work in each phase."""
    moved = sum(phase.moved for phase in phases)
    if len(phases) == 1:
        return False, [effective_threads(phases[0].tasks, moved, threads)]
    rounds = ceil(count / threads)
    if threads == 1 or moved <= INLINE_BYTES or 5 * count >= 4 * threads * rounds:
        return True, [effective_threads(count, moved, threads)] * len(phases)
    return False, [effective_threads(one.tasks, one.work, threads, INLINE_WORK, CHUNK_WORK) for one in phases]


def _with_blocks(parts: Sequence[Schedule], axes: Mapping[str, int]) -> dict[str, int]:
    """Add the numbers of blocks that phases cut loops into, as far as sizes are known."""
    sizes = dict(axes)
    for layout in (part.layout for part in parts):
        if (cut := layout.program.cut) is None:
            continue
        whole = size_of(layout.loop(cut.atom).size, axes)
        if whole is not None:
            sizes.update(dict.fromkeys(cut.blocks.size.names, ceil(whole / cut.length)))
    return sizes


def effective_threads(
    tasks: float, amount: float, threads: int, inline: int = INLINE_BYTES, least: int = CHUNK_BYTES
) -> float:
    """Return the threads that work at once on average, as share/runtime/ops.c hands out chunks of tasks.

    `amount` is what the tasks move or take in all; `inline` stays in one thread, `least` in one chunk.
    """
    if threads == 1 or tasks <= 1 or amount <= inline:
        return 1.0
    chunk = max(ceil(least / (amount // tasks + 1)), tasks // (CHUNKS_A_THREAD * threads))
    chunks = ceil(tasks / chunk)
    return chunks / ceil(chunks / threads)


def priced(rates: KernelRates | StockRates, amounts: KernelRates | StockRates) -> float:
    """Multiply amounts by rates in nanoseconds and return microseconds."""
    return float(sum(getattr(rates, name) * getattr(amounts, name) for name in names(rates))) / 1e3


def predicted_us(
    parts: Sequence[Schedule], axes: Mapping[str, int], threads: int, coefficients: Coefficients = DEFAULTS
) -> float | None:
    """Estimate the microseconds of a call of a kernel of these parts; None for unknown sizes, errors as `features`."""
    amounts = features(parts, axes, threads, coefficients.caches)
    return None if amounts is None else priced(coefficients.kernel, amounts)


def bytes_saved(nodes: tuple[ir.Node, ...], outputs: tuple[ir.Value, ...], axes: Mapping[str, int]) -> int | None:
    """Count the bytes of intermediate tensors that are neither written nor read any more; None for unknown sizes."""
    inside, total = set(nodes), 0
    for node in nodes:
        for out in node.outputs:
            users = sum(use.node in inside for use in out.uses())
            if not users or node.op_type in FREE:
                continue
            size = bytes_of(out, axes)
            if size is None:
                return None
            total += size * (users + (out not in outputs))
    return total
