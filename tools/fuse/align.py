"""Joining loops that walk over the same axis of an input, so that a GPU program holds what it has read.

Tracing makes new loops for every use of an input, and a reduction drops some of them before they meet the others: in
`x - mean(x)` the mean has a loop of its own. Loops of equal size that no value needs apart may be one.
"""

from __future__ import annotations

from itertools import combinations

import onnx_ir as ir

from sartor.share.runtime.kernel import TensorType
from sartor.tools.fuse.axes import Atom, Axes, resolve
from sartor.tools.fuse.layout import Layout
from sartor.tools.fuse.lower import lower
from sartor.tools.fuse.program import Load, Program, Reduce, Value, walk


def gpu_program(function: ir.Function, inputs: tuple[TensorType | None, ...]) -> Program:
    """Lower a function and join its loops.

    Raises NotEmittableError for the first thing that no kernel can do.
    """
    program = lower(function, inputs)
    values = list(walk(program.outputs))
    loads = [value for value in values if isinstance(value, Load)]
    for left, right in combinations(loads, 2):
        if left.position == right.position:
            _join(program, values, left, right)
    return program


def _join(program: Program, values: list[Value], left: Load, right: Load) -> None:
    for first, second in zip(left.axes, right.axes, strict=True):
        pair = resolve(first), resolve(second)
        if [atom.size for atom in pair[0]] != [atom.size for atom in pair[1]]:
            continue
        for x, y in zip(*pair, strict=True):
            if x is not y and not _apart(program, values, x, y):
                x.parts = (y,)


def _apart(program: Program, values: list[Value], x: Atom, y: Atom) -> bool:
    """Tell whether some value is indexed by, or reduces over, both loops, or an index map tells them apart."""
    # Loops that an index map cuts are never merged, so that the layout names them as they are.
    if {x, y} & Layout(program).cut():
        return True
    return any({x, y} <= _atoms(value) for value in values)


def _atoms(value: Value) -> set[Atom]:
    axes: Axes = (*value.axes, *value.over) if isinstance(value, Reduce) else value.axes
    return {atom for axis in axes for atom in resolve(axis)}
