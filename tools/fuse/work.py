"""How much a schedule computes: points of its leaves, and nanoseconds at each."""

from __future__ import annotations

from collections.abc import Mapping
from functools import reduce
from operator import mul

from sartor.tools.fuse.axes import Size
from sartor.tools.fuse.program import Value, operands
from sartor.tools.fuse.schedule import Leaf, Root, Schedule, leaves, stored, value_cost

STORE_COST = 0.03
"""Nanoseconds an element of a store or a step of a reduction."""


def work_of(planned: Schedule) -> list[tuple[Size, float]]:
    """Count the points of every leaf, and the nanoseconds of what a point evaluates in the innermost loop."""
    known, layout, out = stored(planned.roots), planned.layout, []
    for leaf in leaves(planned.tree):
        loops = leaf.roots[0].domain
        cost = sum(value_cost(value) for value in _evaluated(leaf, known) if set(layout.flat(value.axes)) == loops)
        points = reduce(mul, (loop.size for loop in loops), Size())
        out.append((points, cost + STORE_COST * len(leaf.roots)))
    return out


def _evaluated(leaf: Leaf, known: Mapping[Value, Root]) -> set[Value]:
    """Return what the roots of a leaf compute, up to the values that are read back."""
    seen: set[Value] = set()
    stack = [root.expression for root in leaf.roots]
    while stack:
        value = stack.pop()
        if value not in seen:
            seen.add(value)
            stack.extend(operand for operand in operands(value) if operand not in known)
    return seen
