"""Tracing: the vocabulary in which the rules spell an ONNX operator as a tensor program."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from sartor.tools.fuse import ops
from sartor.tools.fuse.axes import Atom, Axes, Axis, NotEmittableError, Size, axis_size, fresh, regroup, resolve, unify
from sartor.tools.fuse.program import Affine, At, Concat, Const, Count, Elementwise, Iota, Reduce, Take, Value
from sartor.tools.fuse.program import Load as Load

D = ir.DataType


def shape_of(value: Value) -> tuple[Size, ...]:
    """Return the shape of a value."""
    return tuple(axis_size(axis) for axis in value.axes)


def normalise(axis: int, rank: int) -> int:
    """Count a negative axis from the end.

    Raises NotEmittableError outside the rank.
    """
    if not -rank <= axis < max(rank, 1):
        raise NotEmittableError(f"axis {axis} is outside rank {rank}")
    return axis % rank if rank else 0


def const(value: float | int | bool, dtype: ir.DataType) -> Value:
    """Make a scalar constant."""
    return Const(dtype, (), value)


def _broadcast(axes: Sequence[Axes]) -> Axes:
    rank = max(map(len, axes), default=0)
    out: list[Axis] = []
    for position in range(-rank, 0):
        here = [a[position] for a in axes if len(a) >= -position and resolve(a[position])]
        for other in here[1:]:
            unify(here[0], other)
        out.append(here[0] if here else ())
    return tuple(out)


def apply(op: str, *args: Value) -> Value:
    """Apply a scalar operator with broadcasting; operands have one type."""
    row = ops.SCALARS[op]
    dtype = args[0].dtype
    if any(arg.dtype != dtype for arg in args):
        raise NotEmittableError(f"{op} mixes element types")
    if not (row.floating if dtype in ops.FLOATING else row.integral):
        raise NotEmittableError(f"{op} of {dtype.name.lower()} is not known")
    result = D.BOOL if row.result is ops.Result.BOOL else dtype
    return Elementwise(result, _broadcast([a.axes for a in args]), op, args)


def where(condition: Value, yes: Value, no: Value) -> Value:
    """Choose between two values of one type by a bool."""
    return Elementwise(yes.dtype, _broadcast([condition.axes, yes.axes, no.axes]), "where", (condition, yes, no))


def cast(value: Value, dtype: ir.DataType) -> Value:
    """Convert to another element type, truncating towards zero as C does."""
    if dtype not in ops.STORAGE:
        raise NotEmittableError(f"element type {dtype.name.lower()} is not known")
    return value if value.dtype == dtype else Elementwise(dtype, value.axes, "cast", (value,))


def reduce(op: str, value: Value, axes: Sequence[int], keepdims: bool) -> Value:
    """Reduce over some axes; over none it is the value itself."""
    chosen = {normalise(axis, len(value.axes)) for axis in axes}
    over = tuple(value.axes[i] for i in sorted(chosen))
    kept = tuple(() if i in chosen else axis for i, axis in enumerate(value.axes) if keepdims or i not in chosen)
    if not any(resolve(axis) for axis in over):
        return reindex(value, kept)
    return Reduce(value.dtype, kept, op, value, over)


def mean(value: Value, axes: Sequence[int], keepdims: bool) -> Value:
    """Average over some axes."""
    over = tuple(value.axes[normalise(axis, len(value.axes))] for axis in axes)
    return apply("div", reduce("sum", value, axes, keepdims), Count(value.dtype, (), over))


def reindex(value: Value, axes: Axes) -> Value:
    """Give a value another arrangement of its axes (transpose, reshape, squeeze): no computation."""
    if value.axes == axes:
        return value
    return Elementwise(value.dtype, axes, "view", (value,))


def transpose(value: Value, order: Sequence[int]) -> Value:
    """Permute the axes."""
    return reindex(value, tuple(value.axes[i] for i in order))


def reshape(value: Value, shape: tuple[Size, ...]) -> Value:
    """Regroup the elements in row-major order."""
    return reindex(value, regroup(value.axes, shape))


def expand(value: Value, shape: tuple[Size, ...]) -> Value:
    """Broadcast to at least `shape`."""
    target = tuple(fresh(size) for size in shape)
    return reindex(value, _broadcast([value.axes, target]))


def single_atom(axis: Axis) -> Atom:
    """Return the one atom of an axis that is about to be sliced, gathered or joined."""
    atoms = resolve(axis)
    if len(atoms) != 1:
        raise NotEmittableError("an axis is both regrouped and cut")
    return atoms[0]


def take_slice(value: Value, axis: int, index: tuple[int, Size | None], step: int, size: Size) -> Value:
    """Keep `size` elements of an axis, from `index` (offset plus a named length) by `step`."""
    if not resolve(value.axes[axis]) or (size == axis_size(value.axes[axis]) and step == 1):
        return value
    atom = single_atom(value.axes[axis])
    out = fresh(size)
    affine = Affine(out[0] if out else None, step, index[0], index[1])
    return At(value.dtype, (*value.axes[:axis], out, *value.axes[axis + 1 :]), value, atom, affine)


def gather(data: Load, index: Value, axis: int) -> Value:
    """Pick elements of an input along an axis by an integer value."""
    if not resolve(data.axes[axis]):
        raise NotEmittableError("a gather from an axis of size 1")
    axes = (*data.axes[:axis], *index.axes, *data.axes[axis + 1 :])
    return Take(data.dtype, axes, data, single_atom(data.axes[axis]), index)


def concat(values: Sequence[Value], axis: int) -> Value:
    """Join values along an axis."""
    if len(values) == 1:
        return values[0]
    sizes = [axis_size(value.axes[axis]) for value in values]
    if any(size.names for size in sizes):
        raise NotEmittableError("a concatenation of named sizes")
    out = Atom(Size(sum(size.factor for size in sizes)))
    others = [(*value.axes[:axis], (), *value.axes[axis + 1 :]) for value in values]
    for axes in others[1:]:
        for left, right in zip(others[0], axes, strict=True):
            unify(left, right)
    axes = (*others[0][:axis], (out,), *others[0][axis + 1 :])
    parts = tuple(
        (value, single_atom(value.axes[axis]) if resolve(value.axes[axis]) else None, size)
        for value, size in zip(values, sizes, strict=True)
    )
    return Concat(values[0].dtype, axes, out, parts)


def iota(axis: Axis) -> Value:
    """Number the positions along an axis, as int64."""
    if not resolve(axis):
        return const(0, D.INT64)
    return Iota(D.INT64, (axis,), single_atom(axis))


def number(array: np.ndarray) -> float | int | bool:
    """Read the only element of an array."""
    item: float | int | bool = array.reshape(-1)[0].item()
    return item


def is_power(value: Value, exponent: float) -> bool:
    """Tell whether a value is the constant `exponent`."""
    return (
        isinstance(value, Const)
        and not isinstance(value.value, bool)
        and math.isclose(value.value, exponent, rel_tol=0, abs_tol=0)
    )
