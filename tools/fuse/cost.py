"""A plain estimate of a kernel's time, and the traffic that fusion saves."""

from __future__ import annotations

from collections.abc import Mapping
from functools import reduce

import onnx_ir as ir

from sartor.tools.fuse import ops
from sartor.tools.fuse.axes import Atom, NotEmittableError, Size, parse_size
from sartor.tools.fuse.outline import tensor_type
from sartor.tools.fuse.program import Value, operands
from sartor.tools.fuse.regions import FREE
from sartor.tools.fuse.schedule import Root, Schedule, stored, value_cost

STREAM_NS_A_BYTE = 0.1
"""Nanoseconds to move a byte between memory and one core."""


def size_of(size: Size, axes: Mapping[str, int]) -> int | None:
    """Work out a size, or return None where a name is not known."""
    if any(name not in axes for name in size.names):
        return None
    return reduce(lambda total, name: total * axes[name], size.names, size.factor)


def predicted_us(schedule: Schedule, axes: Mapping[str, int], threads: int) -> float | None:
    """Estimate microseconds: operators on every point of their loops, and memory traffic; None for unknown sizes."""
    known = stored(schedule.roots)
    total = 0.0
    for root in schedule.roots:
        points = _points(root, axes)
        if points is None:
            return None
        total += points * _expression_cost(root, known)
    for string, width in _tensors(schedule):
        points = size_of(_volume(string), axes)
        total += 0 if points is None else points * width * STREAM_NS_A_BYTE
    return total / 1e3 / threads


def _points(root: Root, axes: Mapping[str, int]) -> int | None:
    return size_of(_volume(tuple(root.domain)), axes)


def _volume(atoms: tuple[Atom, ...]) -> Size:
    return reduce(lambda size, atom: size * atom.size, atoms, Size())


def _tensors(schedule: Schedule) -> list[tuple[tuple[Atom, ...], int]]:
    layout = schedule.layout
    return [(layout.flat(v.axes), ops.STORAGE[v.dtype].size) for v in layout.program.outputs]


def _expression_cost(root: Root, known: Mapping[Value, Root]) -> float:
    cost, seen = value_cost(root.value), set[Value]()
    stack = [root.expression]
    while stack:
        value = stack.pop()
        if value in seen or known.get(value) not in (None, root):
            continue
        seen.add(value)
        cost += value_cost(value)
        stack.extend(operands(value))
    return cost


def bytes_saved(nodes: tuple[ir.Node, ...], outputs: tuple[ir.Value, ...], axes: Mapping[str, int]) -> int | None:
    """Count the bytes of intermediate tensors that are neither written nor read any more; None for unknown sizes."""
    inside, total = set(nodes), 0
    for node in nodes:
        for out in node.outputs:
            users = sum(use.node in inside for use in out.uses())
            if not users or node.op_type in FREE:
                continue
            size = _bytes(out, axes)
            if size is None:
                return None
            total += size * (users + (out not in outputs))
    return total


def _bytes(value: ir.Value, axes: Mapping[str, int]) -> int | None:
    kind = tensor_type(value)
    if kind is None or kind.dtype not in ops.STORAGE:
        return None
    total: int | None = ops.STORAGE[kind.dtype].size
    for dim in kind.shape:
        try:
            number = size_of(parse_size(dim), axes)
        except NotEmittableError:
            return None
        total = None if total is None or number is None else total * number
    return total
