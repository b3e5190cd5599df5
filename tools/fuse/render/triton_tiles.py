"""Indices, masks and memory of a Triton kernel, as tiles at the current point of a phase's loops.

A tile has the rows and columns of the block, or extent 1 in a dimension that it does not vary along; scalars have
none. An index carries the mask of its valid positions, and every load is masked by its indices alone, so that nothing
outside a tensor is read whatever the expression around it does.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from sartor.tools.fuse.axes import Atom, Size
from sartor.tools.fuse.gpu_schedule import COLUMNS, ROWS, Axis, GpuSchedule, Phase
from sartor.tools.fuse.program import Take
from sartor.tools.fuse.render.sizes import Sizes
from sartor.tools.fuse.render.source import Placed, Source
from sartor.tools.fuse.render.triton_ops import TYPES
from sartor.tools.fuse.render.values import factor
from sartor.tools.fuse.schedule import stored


@dataclass(frozen=True)
class Tile(Placed):
    """An expression with the tile dimensions along which it varies; `mask` says where an index is valid."""

    dims: frozenset[int] = frozenset()
    mask: str = ""


Env = dict[Atom, Tile]
"""Loops that a slice, gather or concatenation has replaced by another index."""


class Tiles:
    """Keeps track of where a kernel's loops are; what is needed once goes to the block it belongs to.

    `phase` is the current phase, `index` the position along each open axis.
    """

    def __init__(self, schedule: GpuSchedule) -> None:
        self.schedule, self.layout = schedule, schedule.layout
        self.sizes = Sizes(schedule.layout.program.inputs)
        self.out = Source()
        self.known = stored(schedule.roots)
        self.phase: Phase = schedule.phases[0]
        self.index: dict[Axis, Tile] = {}
        self.slots = {root: f"m{i}" for i, root in enumerate(schedule.scratch)}
        self.gathers = any(isinstance(value, Take) for value in schedule.layout.values)

    def size(self, atom: Atom) -> str:
        """Spell the number of positions of a loop, ready to be a factor."""
        return factor(self.sizes.text(atom.size))

    def hold(self, tile: Tile, prefix: str = "t") -> Tile:
        """Keep an expression in a variable."""
        return replace(tile, text=self.out.hold(tile, prefix).text)

    def count(self, sizes: Iterable[Size]) -> str:
        """Spell a product of sizes, ready to be a factor; empty for 1."""
        product = Size()
        for size in sizes:
            product = product * size
        return "" if product.is_one else factor(self.sizes.text(product))

    def axis_of(self, atom: Atom) -> Axis:
        """Return the open axis that holds a loop."""
        return next(axis for axis in self.index if atom in axis.atoms)

    def at(self, atom: Atom, env: Env) -> Tile:
        """Give the position along a loop."""
        if atom in env:
            return env[atom]
        axis = self.axis_of(atom)
        place = axis.atoms.index(atom)
        return self._part(axis, place, place + 1)

    def _part(self, axis: Axis, start: int, end: int) -> Tile:
        """Give the position along neighbouring loops of an axis, in row-major order."""
        whole = self.index[axis]
        after = self.count(atom.size for atom in axis.atoms[end:])
        text = f"{whole.text} // {after}" if after else whole.text
        if start > 0:
            text = f"{factor(text)} % {self.count(atom.size for atom in axis.atoms[start:end])}"
        return whole if text == whole.text else self.hold(replace(whole, text=text), "k")

    def offset(self, atoms: tuple[Atom, ...], env: Env) -> Tile:
        """Give the position of an element in row-major order, the part of outer loops computed outside.

        Neighbouring loops of one axis stay together, so that the compiler sees what is contiguous.
        """
        terms: dict[int, list[Tile]] = {}
        for start, end in self._runs(atoms, env):
            at = self.at(atoms[start], env) if end == start + 1 else self._run(atoms[start:end])
            stride = self.count(atom.size for atom in atoms[end:])
            text = f"{factor(at.text)} * {stride}" if stride else at.text
            terms.setdefault(at.depth, []).append(replace(at, text=text))
        total = Tile("0")
        for depth in sorted(terms):
            parts = terms[depth] if total.text == "0" else [total, *terms[depth]]
            total = self._sum(parts, depth)
            if depth != max(terms) and not total.text.isidentifier():
                total = self.hold(total, "o")
        return total

    def _sum(self, parts: list[Tile], depth: int) -> Tile:
        masks = [part.mask for part in parts if part.mask]
        dims = frozenset[int]().union(*(part.dims for part in parts))
        return Tile(" + ".join(part.text for part in parts), depth, dims, " & ".join(dict.fromkeys(masks)))

    def _runs(self, atoms: tuple[Atom, ...], env: Env) -> list[tuple[int, int]]:
        """Cut a tensor's loops into longest pieces that are pieces of one axis each."""
        runs: list[tuple[int, int]] = []
        for place, atom in enumerate(atoms):
            if runs and atom not in env and atoms[place - 1] not in env:
                axis = self.axis_of(atom)
                at = axis.atoms.index(atom)
                if at and axis.atoms[at - 1] is atoms[place - 1]:
                    runs[-1] = (runs[-1][0], place + 1)
                    continue
            runs.append((place, place + 1))
        return runs

    def _run(self, atoms: tuple[Atom, ...]) -> Tile:
        axis = self.axis_of(atoms[0])
        start = axis.atoms.index(atoms[0])
        return self._part(axis, start, start + len(atoms))

    def load(self, pointer: str, at: Tile, dtype: str, memory: str) -> Tile:
        """Read elements in memory into the type that they are computed in."""
        text = (
            f"tl.load({pointer} + {at.text}, mask={at.mask}, other=0)" if at.mask else f"tl.load({pointer} + {at.text})"
        )
        if memory != dtype:
            text += f".to({TYPES[dtype]})"
        return self.hold(Tile(text, at.depth, at.dims))

    def blocks(self) -> tuple[str, str]:
        """Name the constants that hold the rows and columns of the current phase's tiles."""
        number = self.schedule.phases.index(self.phase)
        suffix = str(number) if len(self.schedule.phases) > 1 else ""
        return f"ROWS{suffix}", f"COLS{suffix}"

    def shape(self, dims: frozenset[int]) -> str:
        """Spell the shape of a tile that varies along some dimensions."""
        rows, columns = self.blocks()
        return f"({rows if ROWS in dims else 1}, {columns if COLUMNS in dims else 1})" if dims else "()"

    def lane(self, dim: int, extent: str) -> Tile:
        """Number the positions along a tile dimension."""
        across = ":, None" if dim == ROWS else "None, :"
        return self.hold(Tile(f"tl.cast(tl.arange(0, {extent})[{across}], INDEX)", 0, frozenset({dim})), "i")
