"""The cost model: what a kernel costs, linear in counted features, and the traffic that fusion saves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from math import ceil

import onnx_ir as ir

from sartor.tools.fuse.coefficients import DEFAULTS, Caches, Coefficients, KernelRates, StockRates, names
from sartor.tools.fuse.features import Walk
from sartor.tools.fuse.regions import FREE
from sartor.tools.fuse.schedule import Schedule
from sartor.tools.fuse.score import bytes_of

INLINE_BYTES, CHUNK_BYTES, CHUNKS_A_THREAD = 128 << 10, 64 << 10, 8
"""How share/runtime/ops.c hands out work: calls that move less run in one thread; chunks are no smaller, nor more."""


def features(schedule: Schedule, axes: Mapping[str, int], threads: int, caches: Caches) -> KernelRates | None:
    """Count what a call costs, each feature in the unit of its rate; None for unknown sizes.

    What tasks share is divided by the threads that get to work, so that a prediction is linear in the rates.
    """
    if any(name not in axes for string in schedule.layout.memory() for atom in string for name in atom.size.names):
        return None
    walk = Walk(schedule, axes, caches)
    counts, work, far = walk.counts, walk.counts.work, walk.traffic.distances(caches)
    shared = {
        "task": counts.tasks,
        "run": counts.runs,
        "fold": counts.folds,
        "scalar": counts.scalar,
        "scalar_expensive": counts.scalar_expensive,
        **asdict(work),
        **asdict(far),
    }
    workers = effective_threads(counts.tasks, sum(one.size for one in walk.traffic.tensors.values()), threads)
    divided = {name: amount / workers for name, amount in shared.items()}
    arguments = len(schedule.layout.program.inputs) + len(schedule.layout.program.outputs)
    return KernelRates(call=1.0, argument=arguments, fork=float(workers > 1), **divided)


def effective_threads(tasks: float, moved: float, threads: int) -> float:
    """Return the threads that work at once on average, as share/runtime/ops.c hands out chunks of tasks."""
    if threads == 1 or tasks <= 1 or moved <= INLINE_BYTES:
        return 1.0
    chunk = max(ceil(CHUNK_BYTES / (moved // tasks + 1)), tasks // (CHUNKS_A_THREAD * threads))
    chunks = ceil(tasks / chunk)
    return chunks / ceil(chunks / threads)


def priced(rates: KernelRates | StockRates, amounts: KernelRates | StockRates) -> float:
    """Multiply amounts by rates in nanoseconds and return microseconds."""
    return float(sum(getattr(rates, name) * getattr(amounts, name) for name in names(rates))) / 1e3


def predicted_us(
    schedule: Schedule, axes: Mapping[str, int], threads: int, coefficients: Coefficients = DEFAULTS
) -> float | None:
    """Estimate the microseconds of a call; None for unknown sizes."""
    amounts = features(schedule, axes, threads, coefficients.caches)
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
