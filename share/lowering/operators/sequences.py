"""Sequences, which are Python lists, and optional values, which are None where absent."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from sartor.share.lowering.frame import Frame
from sartor.share.lowering.registry import Op, Value, rule

Sequence = list[Tensor]


@rule("SequenceEmpty")
def sequence_empty(_op: Op) -> Sequence:
    """Return a sequence without elements."""
    return []


@rule("SequenceConstruct")
def sequence_construct(_op: Op, *items: Tensor) -> Sequence:
    """Return a sequence of the inputs."""
    return list(items)


@rule("SequenceLength", framed=True)
def sequence_length(_op: Op, frame: Frame, items: Sequence) -> Tensor:
    """Return the number of elements."""
    return torch.tensor(len(items), device=frame.device)


@rule("SequenceAt", host=(1,))
def sequence_at(_op: Op, items: Sequence, place: Tensor) -> Tensor:
    """Return an element."""
    return items[int(place)]


@rule("SequenceInsert", host=(2,))
def sequence_insert(_op: Op, items: Sequence, item: Tensor, place: Tensor | None = None) -> Sequence:
    """Return the sequence with one element more, at its end by default."""
    index = len(items) if place is None else int(place)
    index = index + len(items) if index < 0 else index
    return [*items[:index], item, *items[index:]]


@rule("SequenceErase", host=(1,))
def sequence_erase(_op: Op, items: Sequence, place: Tensor | None = None) -> Sequence:
    """Return the sequence without one element, the last one by default."""
    index = (len(items) - 1 if place is None else int(place)) % len(items)
    return [*items[:index], *items[index + 1 :]]


@rule("ConcatFromSequence")
def concatenate_sequence(op: Op, items: Sequence) -> Tensor:
    """Join the elements along an axis, a new one if `new_axis`."""
    join = torch.stack if op.attr("new_axis", 0) else torch.cat
    return join(items, op.attr("axis"))


@rule("SplitToSequence", host=(1,))
def split_to_sequence(op: Op, x: Tensor, sizes: Tensor | None = None) -> Sequence:
    """Cut along an axis into parts of one size or of given ones, or into slices, whose axis `keepdims` keeps."""
    axis = op.attr("axis", 0)
    if sizes is None:
        return list(_parts(x, 1, axis)) if op.attr("keepdims", 1) else list(x.unbind(axis))
    return list(torch.split_with_sizes(x, sizes.tolist(), axis) if sizes.dim() else _parts(x, int(sizes), axis))


def _parts(x: Tensor, size: int, axis: int) -> Iterable[Tensor]:
    return torch.tensor_split(x, list(range(size, x.shape[axis], size)), axis)


@rule("Optional")
def optional(_op: Op, value: Value = None) -> Value:
    """Pass a value through."""
    return value


@rule("OptionalHasElement", framed=True)
def optional_has_element(_op: Op, frame: Frame, value: Value = None) -> Tensor:
    """Tell whether there is a value."""
    return torch.tensor(value is not None, device=frame.device)


@rule("OptionalGetElement")
def optional_get_element(_op: Op, value: Value) -> Value:
    """Return the value."""
    return value
