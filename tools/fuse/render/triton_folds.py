"""Reductions of a Triton kernel: folds within a tile, and of the parts that programs leave for each other."""

from __future__ import annotations

from sartor.tools.fuse.gpu_schedule import COLUMNS, ROWS
from sartor.tools.fuse.program import Reduce
from sartor.tools.fuse.render.triton_ops import TYPES, neutral
from sartor.tools.fuse.render.triton_tiles import Tile, Tiles
from sartor.tools.fuse.schedule import Root


def fold_name(root: Root) -> str:
    """Name the function that folds two values."""
    assert isinstance(root.value, Reduce)
    return f"fold_{root.value.op}"


def start(root: Root, kind: str) -> str:
    """Spell the number that a reduction starts from."""
    assert isinstance(root.value, Reduce)
    return neutral(root.value.op, kind)


def tile_dims(values: Tiles, root: Root) -> frozenset[int]:
    """Return the tile dimensions of all axes that a root runs over."""
    return frozenset(axis.dim for axis in values.phase.axes_of(root.domain) if axis.dim is not None)


def guarded(values: Tiles, root: Root, tile: Tile, kind: str) -> str:
    """Replace what lies beyond the borders of the reduced axes by the neutral element."""
    masks = [values.index[axis].mask for axis in values.phase.axes_of(root.over)]
    mask = " & ".join(dict.fromkeys(mask for mask in masks if mask))
    return f"tl.where({mask}, {tile.text}, {start(root, kind)}).to({TYPES[kind]})" if mask else tile.text


def folded(values: Tiles, root: Root, text: str, dims: frozenset[int]) -> tuple[str, frozenset[int]]:
    """Fold a tile of full shape along the reduced tile dimensions; what varies along none becomes a scalar."""
    over = sorted((axis.dim for axis in values.phase.axes_of(root.over) if axis.dim is not None), reverse=True)
    left = dims - set(over)
    if over and not left:
        text = f"tl.reduce(tl.reduce({text}, 1, {fold_name(root)}), 0, {fold_name(root)})"
        return text, left
    for dim in over:
        text = f"tl.reduce({text}, {dim}, {fold_name(root)}, keep_dims=True)"
    return text, left


def joined(values: Tiles, root: Root, kind: str) -> Tile:
    """Fold the parts that all programs have kept of a reduction, along a tile dimension that is free."""
    at = values.offset(root.own, {})
    count = values.count(atom.size for atom in root.own)
    slot, stride = values.slots[root], f" * {count}" if count else ""
    if len(at.dims) == 2:
        name = values.out.fresh("a")
        values.out.line(f"{name} = tl.full({values.shape(at.dims)}, {start(root, kind)}, {TYPES[kind]})", at.depth)
        mask = f", mask={at.mask}, other=0" if at.mask else ""
        values.out.line("for p in range(programs):", at.depth)
        values.out.line(
            f"    {name} = {fold_name(root)}({name}, tl.load({slot} + ({at.text} + p{stride}){mask}))", at.depth
        )
        return Tile(name, at.depth, at.dims)
    free = ROWS if COLUMNS in at.dims else COLUMNS
    lane = values.lane(free, "PARTS")
    mask = " & ".join([f"({lane.text} < programs)", *([at.mask] if at.mask else [])])
    text = f"tl.load({slot} + ({at.text} + {lane.text}{stride}), mask={mask}, other={start(root, kind)})"
    if not at.dims:
        return values.hold(Tile(f"tl.reduce(tl.reduce({text}, 1, {fold_name(root)}), 0, {fold_name(root)})", at.depth))
    return values.hold(Tile(f"tl.reduce({text}, {free}, {fold_name(root)}, keep_dims=True)", at.depth, at.dims))
