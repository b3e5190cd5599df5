"""The cost model: what a kernel costs, linear in counted features, and the traffic that fusion saves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from math import ceil

import onnx_ir as ir

from sartor.tools.fuse.axes import size_of
from sartor.tools.fuse.coefficients import DEFAULTS, Caches, Coefficients, KernelRates, StockRates, names
from sartor.tools.fuse.features import Walk, Work
from sartor.tools.fuse.schedule import Schedule
from sartor.tools.fuse.score import FREE, bytes_of
from sartor.tools.fuse.traffic import Traffic

INLINE_BYTES, CHUNK_BYTES, CHUNKS_A_THREAD = 128 << 10, 64 << 10, 8
"""How share/runtime/ops.c hands out work: calls that move less run in one thread; chunks are no smaller, nor more."""


def features(parts: Sequence[Schedule], axes: Mapping[str, int], threads: int, caches: Caches) -> KernelRates | None:
    """Count what a call of a kernel of these parts costs, each feature in the unit of its rate.

    What tasks share is divided by the threads that get to work, so that a prediction is linear in the rates. Returns
    None for unknown sizes; raises NotEmittableError where there is no kernel.
    """
    sizes = _with_blocks(parts, axes)
    strings = [string for part in parts for string in part.layout.memory()]
    if any(name not in sizes for string in strings for atom in string for name in atom.size.names):
        return None
    phases = [
        _phase([part for part in parts if part.layout.program.phase == number], sizes, threads, caches)
        for number in range(1 + parts[-1].layout.program.phase)
    ]
    shared = {name: sum(phase[name] for phase in phases) for name in phases[0]}
    program = parts[0].layout.program
    arguments = len(program.inputs) + len({i for part in parts for i in part.layout.program.outside})
    return KernelRates(call=1.0, argument=arguments, **shared)


def _phase(parts: Sequence[Schedule], axes: Mapping[str, int], threads: int, caches: Caches) -> dict[str, float]:
    """Count what the tasks between two barriers do; what comes first in a phase is as far off as the whole of it."""
    traffic = Traffic()
    counts = [Walk(part, axes, caches, traffic).counts for part in parts]
    shared = {
        **{
            name: sum(getattr(part, name) for part in counts)
            for name in ("task", "run", "fold", "scalar", "scalar_expensive")
        },
        **{name: sum(getattr(part.work, name) for part in counts) for name in asdict(Work())},
        **asdict(traffic.distances(caches)),
    }
    workers = effective_threads(shared["task"], sum(one.size for one in traffic.tensors.values()), threads)
    return {"fork": float(workers > 1), **{name: amount / workers for name, amount in shared.items()}}


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
