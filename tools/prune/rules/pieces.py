"""Operators that join axes, cut them, or pick from them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, pairwise

import numpy as np
import onnx_ir as ir

from sartor.tools.prune.atoms import Labels
from sartor.tools.prune.channels import Axis, Kept, Rewrite
from sartor.tools.prune.rules.elementwise import meet
from sartor.tools.prune.rules.registry import Node, UntrackedError, new_constant, rule

END = 2**31
"""Exporters write "to the end" as any large number."""


@rule("Concat")
def concat(node: Node) -> None:
    """Lay the atoms end to end along the axis, merge them along the others."""
    rank = len(node.axes(node.present[0]))
    axis = node.attr("axis", 0) % rank
    without = [
        (node.axes(i)[:axis] + node.axes(i)[axis + 1 :], node.sizes(i)[:axis] + node.sizes(i)[axis + 1 :])
        for i in node.present
    ]
    out = list(meet(node, without)) if rank > 1 else []
    carrying = any(node.axes(i)[axis] is not None for i in node.present)
    out.insert(axis, np.concatenate([node.labels(i, axis) for i in node.present]) if carrying else None)
    node.put(out)


@rule("Split")
def split(node: Node) -> None:
    """Cut the atoms along the axis; equal parts may become unequal, so the sizes are written down."""
    axes = node.axes(0)
    axis = node.attr("axis", 0) % len(axes)
    labels = axes[axis]
    parts: Sequence[Axis] = [None] * len(node.node.outputs)
    if labels is not None:
        parts = _parts(node, labels)
        node.edit((labels,), _set_sizes(parts))
    for i, part in enumerate(parts):
        node.put((*axes[:axis], part, *axes[axis + 1 :]), i)


def _parts(node: Node, labels: Labels) -> list[Labels]:
    sizes = node.integers(1, "split")
    count = len(node.node.outputs)
    if sizes is None:
        step = -(-len(labels) // count)
        sizes = [min(step, len(labels) - i * step) for i in range(count)]
    return [labels[begin:end] for begin, end in pairwise(accumulate(sizes, initial=0))]


def _set_sizes(parts: Sequence[Axis]) -> Rewrite:
    def apply(node: ir.Node, kept: Kept) -> None:
        sizes = [int(kept(part).sum()) for part in parts if part is not None]
        node.attributes.pop("num_outputs", None)
        if "split" in node.attributes:
            node.attributes["split"] = ir.AttrInt64s("split", sizes)
        else:
            new_constant(node, 1, sizes)

    return apply


@rule("Slice")
def cut(node: Node) -> None:
    """Cut the atoms along axes, forwards and without gaps; other steps keep all."""
    axes = list(node.axes(0))
    starts, ends = node.integers(1, "starts"), node.integers(2, "ends")
    assert starts is not None
    assert ends is not None
    where = node.integers(3, "axes") or list(range(len(starts)))
    steps = node.integers(4, "steps") or [1] * len(starts)
    ranges: dict[int, tuple[Labels, int, int]] = {}
    for i, axis in enumerate(one % len(axes) for one in where):
        labels = axes[axis]
        if labels is None:
            continue
        begin, end, _ = slice(starts[i], ends[i], steps[i]).indices(len(labels))
        if steps[i] != 1:
            node.freeze((labels,), "a slice leaves gaps")
            axes[axis] = None
        elif (begin, end) != (0, len(labels)):
            ranges[i] = (labels, begin, end)
            axes[axis] = labels[begin:end]
        else:
            ranges[i] = (labels, 0, END)
    if ranges:
        node.edit((labels for labels, _, _ in ranges.values()), _set_ends(ranges, starts, ends))
    node.put(axes)


def _set_ends(ranges: dict[int, tuple[Labels, int, int]], starts: list[int], ends: list[int]) -> Rewrite:
    def apply(node: ir.Node, kept: Kept) -> None:
        first, last = list(starts), list(ends)
        for i, (labels, begin, end) in ranges.items():
            first[i] = int(kept(labels[:begin]).sum())
            last[i] = END if end == END else int(kept(labels[:end]).sum())
        if "starts" in node.attributes:
            node.attributes["starts"] = ir.AttrInt64s("starts", first)
            node.attributes["ends"] = ir.AttrInt64s("ends", last)
        else:
            new_constant(node, 1, first)
            new_constant(node, 2, last)

    return apply


@rule("Gather")
def gather(node: Node) -> None:
    """Pick atoms by constant indices; computed ones, or a single one, keep all."""
    axes, wanted = node.axes(0), node.axes(1)
    axis = node.attr("axis", 0) % len(axes)
    labels, indices = axes[axis], node.constant(1)
    node.freeze(wanted, "indices are picked by")
    middle: tuple[Axis, ...] = (None,) * len(wanted)
    if labels is not None:
        if indices is None or indices.ndim != 1:
            node.freeze((labels,), "single elements of it are picked")
        else:
            middle = (labels[indices],)
            node.edit((labels,), _set_indices(labels, indices))
    node.put((*axes[:axis], *middle, *axes[axis + 1 :]))


def _set_indices(labels: Labels, indices: np.ndarray) -> Rewrite:
    def apply(node: ir.Node, kept: Kept) -> None:
        stay = kept(labels)
        place = np.cumsum(stay) - 1
        positions = indices % len(labels)
        new_constant(node, 1, [int(place[i]) for i in positions if stay[i]])

    return apply


@rule("Pad")
def pad(node: Node) -> None:
    """Identity on axes that get no padding."""
    axes, sizes = list(node.axes(0)), node.integers(1, "pads")
    assert sizes is not None
    where = node.integers(3, "axes") if node.has(3) else list(range(len(axes)))
    assert where is not None
    for i, axis in enumerate(where):
        if sizes[i] or sizes[i + len(where)]:
            node.freeze((axes[axis],), "it is padded")
            axes[axis] = None
    node.put(axes)


@rule("Resize", "Upsample")
def resize(node: Node) -> None:
    """Identity on axes that keep their size."""
    axes, result = list(node.axes(0)), node.node.outputs[0]
    if result.shape is None:
        raise UntrackedError(f"the shape of {result.name} is unknown")
    for axis, (before, after) in enumerate(zip(node.sizes(0), result.shape, strict=True)):
        if before != after:
            node.freeze((axes[axis],), "it is resized")
            axes[axis] = None
    sizes = 3 if node.has(3) else None
    carrying = {i: labels for i, labels in enumerate(axes) if labels is not None}
    if sizes is not None and carrying:
        _follow_sizes(node, carrying)
    node.put(axes)


def _follow_sizes(node: Node, carrying: dict[int, Labels]) -> None:
    wanted = node.constant(3)
    where = node.attr("axes", range(len(node.axes(0))))
    if wanted is None or wanted.size != len(list(where)):
        # The target is computed from the data, whose channels it then follows, or names no channels.
        return
    numbers = [int(x) for x in wanted]

    def apply(copy: ir.Node, kept: Kept) -> None:
        new_constant(
            copy, 3, [int(kept(carrying[a]).sum()) if a in carrying else n for a, n in zip(where, numbers, strict=True)]
        )

    node.edit(carrying.values(), apply)
