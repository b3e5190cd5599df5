"""Operators that rearrange axes without touching elements: reshapes, transposes, and their kin."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from sartor.tools.prune.atoms import Labels
from sartor.tools.prune.channels import Axes, Axis, Kept, Rewrite
from sartor.tools.prune.rules.registry import Node, UntrackedError, new_constant, rule

Dim = int | str
"""The size of an axis, or its name."""


@dataclass(frozen=True)
class Block:
    """Axes of the input that become axes of the output, (begin, end) each, with no smaller such pair inside."""

    source: tuple[int, int]
    target: tuple[int, int]


@rule("Shape", "Size")
def shape(node: Node) -> None:
    """Numbers that follow the data; what reads them as a target is rewritten where channels go."""
    node.put((None,) * (node.node.op_type == "Shape"))


@rule("ConstantOfShape")
def constant_of_shape(node: Node) -> None:
    """A constant like others, whose target is rewritten where channels go."""
    result = node.node.outputs[0]
    target = node.constant(0)
    if target is None:
        raise UntrackedError(f"the shape of {result.name} is computed")
    sizes = [int(size) for size in target.reshape(-1)]
    axes = [node.found.atoms.fresh(size) for size in sizes]
    node.edit(axes, retarget(0, dict(enumerate(axes)), sizes))
    node.put(axes)


@rule("Transpose")
def transpose(node: Node) -> None:
    """Permute."""
    axes = node.axes(0)
    node.put(axes[i] for i in node.attr("perm", range(len(axes))[::-1]))


@rule("Squeeze")
def squeeze(node: Node) -> None:
    """Drop axes of size 1, which stays."""
    axes, sizes = node.axes(0), node.sizes(0)
    dropped = node.integers(1, "axes")
    gone = {i for i, size in enumerate(sizes) if size == 1} if dropped is None else {i % len(axes) for i in dropped}
    node.freeze((axes[i] for i in gone), "an axis of size 1 is dropped")
    node.put(labels for i, labels in enumerate(axes) if i not in gone)


@rule("Unsqueeze")
def unsqueeze(node: Node) -> None:
    """Add axes of size 1."""
    added, axes = node.integers(1, "axes"), iter(node.axes(0))
    assert added is not None
    rank = len(node.axes(0)) + len(added)
    places = {i % rank for i in added}
    node.put(None if i in places else next(axes) for i in range(rank))


@rule("Flatten")
def flatten(node: Node) -> None:
    """Make a matrix."""
    sizes, rank = dims(node.value(0)), len(node.axes(0))
    axis = node.attr("axis", 1)
    axis = axis % rank if axis != rank else rank
    labels = [_flat(node, (begin, end), sizes) for begin, end in ((0, axis), (axis, rank))]
    node.put(labels)


@rule("Reshape")
def reshape(node: Node) -> None:
    """Join axes, divide them, or both; the target is written anew where atoms go."""
    result = node.node.outputs[0]
    if result.shape is None:
        raise UntrackedError(f"the shape of {result.name} is unknown")
    before, after = dims(node.value(0)), dims(result)
    out: list[Axis] = [None] * len(after)
    for block in blocks(before, after):
        begin, end = block.target
        out[begin:end] = _regroup(node, block, before, after)
    _follow_target(node, out, after)
    node.put(out)


def _regroup(node: Node, block: Block, before: Sequence[Dim], after: Sequence[Dim]) -> Axes:
    """Follow the atoms through axes that are joined and divided again."""
    begin, end = block.target
    axes = node.axes(0)[slice(*block.source)]
    if end - begin == len(axes) == 1:
        return axes
    labels = _flat(node, block.source, before)
    if labels is None:
        return (None,) * (end - begin)
    if end - begin == 1:
        return (labels,)
    sizes = [size for size in after[begin:end] if isinstance(size, int)]
    if len(sizes) < end - begin:
        node.freeze((labels,), "an axis is divided by a size that has a name only")
        return (None,) * (end - begin)
    return _divide(node, labels, sizes)


def _divide(node: Node, labels: Labels, sizes: list[int]) -> Axes:
    """Divide an axis: one factor keeps atoms, along the others they live and die together."""
    places = [i for i, size in enumerate(sizes) if size > 1]
    key = f"{len(labels)} -> {'x'.join(map(str, sizes))}"
    node.found.divided[key] = max(len(places), 1)
    out: list[Axis] = [None] * len(sizes)
    if places:
        place = places[node.factors.get(key, 0)]
        grid = np.moveaxis(labels.reshape(sizes), place, 0).reshape(sizes[place], -1)
        node.found.atoms.merge(grid[:, :1], grid)
        out[place] = grid[:, 0].copy()
    return tuple(out)


def _flat(node: Node, source: tuple[int, int], sizes: Sequence[Dim]) -> Axis:
    """Join axes into one, of which at most one may lose atoms."""
    axes = node.axes(0)[slice(*source)]
    carrying = [i for i, labels in enumerate(axes) if labels is not None]
    if not carrying:
        return None
    node.freeze((axes[i] for i in carrying[1:]), "axes are joined that both have channels")
    place, labels = carrying[0], axes[carrying[0]]
    assert labels is not None
    outer = _repeats(sizes[source[0] : source[0] + place])
    inner = _repeats(sizes[source[0] + place + 1 : source[1]])
    if outer is None or inner is None:
        node.freeze((labels,), "it is joined with an axis whose size has a name only")
        return None
    return np.tile(labels.repeat(inner), outer)


def _repeats(sizes: Sequence[Dim]) -> int | None:
    """Return the product of sizes; None where one has a name only."""
    known = [size for size in sizes if isinstance(size, int)]
    return math.prod(known) if len(known) == len(sizes) else None


def blocks(before: Sequence[Dim], after: Sequence[Dim]) -> list[Block]:
    """Match the axes of a reshape, from the left: the smallest runs of equal size on both sides."""
    found, i, j = [], 0, 0
    while i < len(before) or j < len(after):
        first, second = i, j
        i, j = min(i + 1, len(before)), min(j + 1, len(after))
        while not _equal(before[first:i], after[second:j]):
            if i == len(before) and j == len(after):
                break
            left, right = _volume(before[first:i]), _volume(after[second:j])
            if j == len(after) or (i < len(before) and left < right):
                i += 1
            else:
                j += 1
        found.append(Block((first, i), (second, j)))
    return found


def _equal(left: Sequence[Dim], right: Sequence[Dim]) -> bool:
    return _volume(left) == _volume(right) and _named(left) == _named(right)


def _volume(sizes: Sequence[Dim]) -> int:
    return math.prod(size for size in sizes if isinstance(size, int))


def _named(sizes: Sequence[Dim]) -> list[str]:
    return sorted(size for size in sizes if isinstance(size, str))


def dims(value: ir.Value) -> list[Dim]:
    """Return the sizes of a value, or their names; one without a name has a name of its own.

    Raises UntrackedError where the rank is unknown.
    """
    if value.shape is None:
        raise UntrackedError(f"the shape of {value.name} is unknown")
    return [
        size if isinstance(size, int) else str(size.value or f"{value.name}:{i}") for i, size in enumerate(value.shape)
    ]


def _follow_target(node: Node, out: Sequence[Axis], after: Sequence[Dim]) -> None:
    """Write the sizes of axes that lose atoms into the target, whatever computes the others."""
    carrying = {i: labels for i, labels in enumerate(out) if labels is not None}
    if carrying:
        node.edit(carrying.values(), retarget(1, carrying, after))


def retarget(index: int, carrying: dict[int, Labels], after: Sequence[Dim]) -> Rewrite:
    """Rewrite the input that tells a shape; sizes that have a name only are taken from what it was.

    A single one is left to Reshape to work out, which no other operator does.
    """

    def apply(node: ir.Node, kept: Kept) -> None:
        numbers = [size if isinstance(size, int) else None for size in after]
        for axis, labels in carrying.items():
            numbers[axis] = int(kept(labels).sum())
        named = [i for i, size in enumerate(numbers) if size is None]
        if len(named) > (node.op_type == "Reshape"):
            _patch(node, index, numbers)
            return
        new_constant(node, index, [-1 if size is None else size for size in numbers])

    return apply


def _patch(node: ir.Node, index: int, numbers: Sequence[int | None]) -> None:
    """Overwrite elements of a computed shape: where a number is known it holds, elsewhere the shape."""
    source, graph = node.inputs[index], node.graph
    assert source is not None
    assert graph is not None
    known = new_constant(node, index, [size or 0 for size in numbers])
    mask = ir.tensor(np.array([size is not None for size in numbers]))
    choose = ir.node("Constant", [], {"value": mask}, num_outputs=1)
    where = ir.node("Where", [choose.outputs[0], known, source], num_outputs=1)
    for one, name in ((choose, "known"), (where, "target")):
        one.outputs[0].name = f"{node.outputs[0].name}_{name}"
        one.name = one.outputs[0].name
    graph.insert_before(node, [choose, where])
    node.replace_input_with(index, where.outputs[0])


@rule("Expand")
def expand(node: Node) -> None:
    """Spread axes of size 1 to a target."""
    result = node.node.outputs[0]
    if result.shape is None:
        raise UntrackedError(f"the shape of {result.name} is unknown")
    axes, sizes, after = node.axes(0), node.sizes(0), dims(result)
    out: list[Axis] = [None] * len(after)
    for back in range(1, len(axes) + 1):
        if sizes[-back] == 1 and after[-back] != 1:
            node.freeze((axes[-back],), "it is spread over other channels")
        else:
            out[-back] = axes[-back]
    _follow_target(node, out, after)
    node.put(out)


@rule("Tile")
def tile(node: Node) -> None:
    """Repeat axes."""
    axes, repeats = node.axes(0), node.integers(1, "repeats")
    assert repeats is not None
    node.put(labels if labels is None else np.tile(labels, times) for labels, times in zip(axes, repeats, strict=True))


@rule("DepthToSpace")
def depth_to_space(node: Node) -> None:
    """Channels (block, block, c), or (c, block, block), become c: what goes to one place stays together."""
    data, count = node.axes(0), node.attr("blocksize", 1) ** 2
    if data[1] is None:
        node.put((None,) * 4)
        return
    last = node.attr("mode", "DCR") == "CRD"
    grid = data[1].reshape((-1, count) if last else (count, -1))
    grid = grid.T if last else grid
    node.found.atoms.merge(grid[:1], grid)
    node.put((data[0], grid[0].copy(), None, None))


@rule("SpaceToDepth")
def space_to_depth(node: Node) -> None:
    """Channels c become (block, block, c)."""
    data, count = node.axes(0), node.attr("blocksize", 1) ** 2
    node.put((data[0], None if data[1] is None else np.tile(data[1], count), None, None))
