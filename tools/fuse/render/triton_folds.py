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
    return f"tl.where({mask}, {tile.text}, {start(root, kind)})" if mask else tile.text


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
    """Fold the parts that all programs have kept of a reduction, some at a time along a free tile dimension."""
    at = values.offset(root.own, {})
    if len(at.dims) == 2:
        return Tile(_gathered(values, root, kind, at, values.shape(at.dims), "p", ""), at.depth, at.dims)
    dim = max({ROWS, COLUMNS} - at.dims)
    extent = ["1", "1"]
    for own in at.dims:
        extent[own] = values.blocks()[own]
    extent[dim] = "PARTS"
    part = f"(p + {values.lane(dim, 'PARTS').text})"
    name, fold = _gathered(values, root, kind, at, f"({', '.join(extent)})", part, ", PARTS"), fold_name(root)
    if not at.dims:
        return values.hold(Tile(f"tl.reduce(tl.reduce({name}, 1, {fold}), 0, {fold})", at.depth))
    return values.hold(Tile(f"tl.reduce({name}, {dim}, {fold}, keep_dims=True)", at.depth, at.dims))


def _gathered(values: Tiles, root: Root, kind: str, at: Tile, shape: str, part: str, step: str) -> str:
    """Walk over the parts, `step` more than one at a time, and name the tile into which they are folded."""
    count = values.count(atom.size for atom in root.own)
    place = f"{at.text} + {part} * {count}" if count else f"{at.text} + {part}"
    mask = " & ".join([*([f"({part} < programs)"] if step else []), *([at.mask] if at.mask else [])])
    guard = f", mask={mask}, other={start(root, kind)}" if mask else ""
    name = values.out.fresh("a")
    values.out.line(f"{name} = tl.full({shape}, {start(root, kind)}, {TYPES[kind]})", at.depth)
    values.out.line(f"for p in range(0, programs{step}):", at.depth)
    load = f"tl.load({values.slots[root]} + ({place}){guard})"
    values.out.line(f"    {name} = {fold_name(root)}({name}, {load})", at.depth)
    return name
