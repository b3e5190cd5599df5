"""Data movement, folded into index maps: no loop of its own."""

from __future__ import annotations

import onnx_ir as ir

from sartor.tools.fuse.axes import NotEmittableError, Size, axis_size, resolve
from sartor.tools.fuse.program import Const, Load, Value
from sartor.tools.fuse.rules.elementwise import like
from sartor.tools.fuse.rules.registry import Kind, Node, rule
from sartor.tools.fuse.tracer import (
    apply,
    cast,
    concat,
    const,
    expand,
    gather,
    iota,
    normalise,
    number,
    reindex,
    reshape,
    shape_of,
    take_slice,
    transpose,
    where,
)  # fmt: skip

D = ir.DataType


@rule("Transpose", kind=Kind.MOVEMENT)
def _transpose(node: Node) -> Value:
    x = node.arg(0)
    return transpose(x, node.attr("perm", None) or range(len(x.axes))[::-1])


@rule("Reshape", kind=Kind.MOVEMENT, parameters=(1,))
def _reshape(node: Node) -> Value:
    x, wanted = node.arg(0), node.integers(1, "shape")
    if wanted is None or (node.attr("allowzero", 0) and 0 in wanted):
        raise NotEmittableError("a reshape to an empty or computed shape")
    return reshape(x, concrete_shape(shape_of(x), wanted))


def concrete_shape(shape: tuple[Size, ...], wanted: list[int]) -> tuple[Size, ...]:
    """Fill in a Reshape's target: 0 keeps the input's size there, -1 takes what is left.

    Raises NotEmittableError where that is not possible.
    """
    sizes = [shape[i] if size == 0 and i < len(shape) else Size(max(size, 1)) for i, size in enumerate(wanted)]
    if -1 in wanted:
        total, known = Size(), Size()
        for size in shape:
            total *= size
        for i, size in enumerate(sizes):
            known = known if wanted[i] == -1 else known * size
        rest = total.over(known)
        if rest is None:
            raise NotEmittableError("a reshape does not divide")
        sizes[wanted.index(-1)] = rest
    return tuple(sizes)


@rule("Flatten", kind=Kind.MOVEMENT)
def flatten(node: Node) -> Value:
    """Join the axes before and from one axis."""
    x = node.arg(0)
    axis = node.attr("axis", 1)
    cut = axis if axis == len(x.axes) else normalise(axis, len(x.axes))
    return reindex(x, (sum(x.axes[:cut], ()), sum(x.axes[cut:], ())))


@rule("Squeeze", kind=Kind.MOVEMENT, parameters=(1,))
def squeeze(node: Node) -> Value:
    """Drop axes of size 1."""
    x, listed = node.arg(0), node.integers(1, "axes")
    if listed is None and any(axis_size(axis).names for axis in x.axes):
        raise NotEmittableError("a squeeze of axes whose sizes are not known")
    gone = (
        {normalise(a, len(x.axes)) for a in listed}
        if listed is not None
        else {i for i, axis in enumerate(x.axes) if not resolve(axis)}
    )
    if any(resolve(x.axes[i]) for i in gone):
        raise NotEmittableError("a squeeze of an axis larger than 1")
    return reindex(x, tuple(axis for i, axis in enumerate(x.axes) if i not in gone))


@rule("Unsqueeze", kind=Kind.MOVEMENT, parameters=(1,))
def unsqueeze(node: Node) -> Value:
    """Insert axes of size 1."""
    x, listed = node.arg(0), node.integers(1, "axes") or []
    rank = len(x.axes) + len(listed)
    new, rest = {normalise(a, rank) for a in listed}, iter(x.axes)
    return reindex(x, tuple(() if i in new else next(rest) for i in range(rank)))


@rule("Expand", kind=Kind.MOVEMENT, parameters=(1,))
def _expand(node: Node) -> Value:
    return expand(node.arg(0), tuple(Size(size) for size in node.integers(1, "shape") or []))


@rule("Slice", kind=Kind.MOVEMENT, parameters=(1, 2, 3, 4))
def _slice(node: Node) -> Value:
    x = node.arg(0)
    starts, ends = node.integers(1, "starts") or [], node.integers(2, "ends") or []
    axes = node.integers(3, "axes") or list(range(len(starts)))
    steps = (node.integers(4, "steps") if node.has(4) else None) or [1] * len(starts)
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        x = cut(x, normalise(axis, len(x.axes)), start, end, step)
    return x


def cut(x: Value, axis: int, start: int, end: int, step: int) -> Value:
    """Slice one axis with ONNX's clamping; a named size can only be taken whole or by one element."""
    size = axis_size(x.axes[axis])
    if size.names:
        return _cut_named(x, axis, start, end, step, size)
    length = size.factor
    first, last, step = slice(start, end if end > -length - 1 or step > 0 else None, step).indices(length)
    count = len(range(first, last, step))
    if count == 0:
        raise NotEmittableError("a slice is empty")
    return take_slice(x, axis, (first, None), step, Size(count))


def _cut_named(x: Value, axis: int, start: int, end: int, step: int, size: Size) -> Value:
    whole = 10**9  # exporters write "to the end" as any large number
    if step == 1 and start == 0 and end >= whole:
        return x
    if step == 1 and start == -1 and end >= whole:
        return take_slice(x, axis, (-1, size), 1, Size())
    if step == -1 and start in (-1, whole) and end < -whole:
        return take_slice(x, axis, (-1, size), -1, size)
    raise NotEmittableError("a slice of a named size")


@rule("Split", kind=Kind.MOVEMENT, parameters=(1,))
def split(node: Node) -> list[Value]:
    """Cut an axis into pieces."""
    x, sizes = node.arg(0), node.integers(1, "split")
    axis = normalise(node.attr("axis", 0), len(x.axes))
    length = axis_size(x.axes[axis])
    if length.names:
        raise NotEmittableError("a split of a named size")
    if sizes is None:
        pieces = node.attr("num_outputs", 0) or len(node.node.outputs)
        width = -(-length.factor // pieces)
        sizes = [width] * (pieces - 1) + [length.factor - width * (pieces - 1)]
    if min(sizes) <= 0:
        raise NotEmittableError("a piece of a split is empty")
    starts = [sum(sizes[:i]) for i in range(len(sizes))]
    return [take_slice(x, axis, (start, None), 1, Size(size)) for start, size in zip(starts, sizes, strict=True)]


@rule("Concat", kind=Kind.MOVEMENT)
def _concat(node: Node) -> Value:
    values = node.args()
    return concat(values, normalise(node.attr("axis", 1), len(values[0].axes)))


@rule("Gather", kind=Kind.MOVEMENT)
def _gather(node: Node) -> Value:
    data, index = node.arg(0), node.arg(1)
    axis = normalise(node.attr("axis", 0), len(data.axes))
    if isinstance(index, Const):
        return _pick(data, index, axis)
    if not isinstance(data, Load) or index.dtype not in (D.INT32, D.INT64):
        raise NotEmittableError("a gather from a computed tensor")
    return gather(data, index, axis)


def _pick(data: Value, index: Const, axis: int) -> Value:
    """Gather one constant position: a slice of size 1 whose axis takes the shape of the index."""
    size, position = axis_size(data.axes[axis]), int(index.value)
    if (size.names and position >= 0) or (not size.names and not -size.factor <= position < size.factor):
        raise NotEmittableError("a constant index that may lie outside its axis")
    start = (position, None) if position >= 0 else (position, size)
    one = take_slice(data, axis, start, 1, Size())
    return reindex(one, (*one.axes[:axis], *index.axes, *one.axes[axis + 1 :]))


@rule("Pad", kind=Kind.MOVEMENT, parameters=(1, 2, 3))
def pad(node: Node) -> Value:
    """Surround with a constant."""
    x, pads = node.arg(0), node.integers(1, "pads") or []
    fill = node.parameter(2)
    value = number(fill) if fill is not None and fill.size else node.attr("value", 0.0)
    axes = node.integers(3, "axes") or list(range(len(x.axes)))
    if node.attr("mode", "constant") != "constant" or min(pads, default=0) < 0:
        raise NotEmittableError("padding that is not constant")
    for i, axis in enumerate(axes):
        x = _pad_axis(x, normalise(axis, len(x.axes)), pads[i], pads[i + len(axes)], like(value, x))
    return x


def _pad_axis(x: Value, axis: int, before: int, after: int, fill: Value) -> Value:
    def border(size: int) -> list[Value]:
        if not size:
            return []
        shape = tuple(Size(size) if i == axis else s for i, s in enumerate(shape_of(x)))
        return [expand(fill, shape)]

    return concat([*border(before), x, *border(after)], axis)


@rule("Trilu", kind=Kind.MOVEMENT, parameters=(1,))
def trilu(node: Node) -> Value:
    """Keep the upper or lower triangle of the last two axes."""
    x, diagonal = node.arg(0), node.parameter(1)
    offset = const(int(number(diagonal)) if diagonal is not None else 0, D.INT64)
    row, column = (reindex(iota(axis), (axis, ()) if i == 0 else (axis,)) for i, axis in enumerate(x.axes[-2:]))
    edge = apply("add", row, offset)
    keep = apply("less_equal", edge, column) if node.attr("upper", 1) else apply("less_equal", column, edge)
    return where(keep, x, cast(like(0, x), x.dtype))
