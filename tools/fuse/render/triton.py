"""From a schedule for a GPU to the source of a Triton kernel.

`x` are inputs, `y` outputs, `m` scratch memory of the whole grid, `s` named sizes; `gate` counts arrivals at barriers,
`status` becomes 1 where a gathered index is out of range. Constants are the tile sizes `ROWS` and `COLS` of every
phase, `PARTS` (programs, rounded up to a power of two) and `INDEX`, the integer type of positions.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from sartor.tools.fuse import ops
from sartor.tools.fuse.gpu_schedule import Axis, GpuSchedule, Phase, Walk
from sartor.tools.fuse.program import Load
from sartor.tools.fuse.render.triton_folds import fold_name, folded, guarded, start, tile_dims
from sartor.tools.fuse.render.triton_formulas import formula
from sartor.tools.fuse.render.triton_ops import FORMULAS, TYPES
from sartor.tools.fuse.render.triton_tiles import Tile
from sartor.tools.fuse.render.triton_values import TritonValues
from sartor.tools.fuse.schedule import Leaf, Root

_HEADER = '"""A kernel that sartor has written."""\n\nimport triton\nimport triton.language as tl\n'


@dataclass(frozen=True)
class Part:
    """The body of a kernel: statements over `program` and `programs`, tensors, sizes and constants.

    `sizes` maps the variables to the sizes that they hold.
    """

    tensors: tuple[str, ...]
    sizes: dict[str, str]
    constants: tuple[str, ...]
    lines: tuple[str, ...]

    @property
    def parameters(self) -> tuple[str, ...]:
        """The parameters of a function around the statements."""
        return (*self.tensors, *self.sizes, *(f"{name}: tl.constexpr" for name in self.constants))


def render(part: Part) -> str:
    """Write the module of a kernel of one part, a function named `kernel`."""
    body = ["program, programs = tl.program_id(0), tl.num_programs(0)", *part.lines]
    return module(function("kernel", part.parameters, body))


def function(name: str, parameters: Sequence[str], body: Sequence[str]) -> str:
    """Write a function of Triton."""
    head = ["@triton.jit", f"def {name}({', '.join(parameters)}):"]
    return "\n".join([*head, *("    " + line for line in body)]) + "\n"


def module(text: str) -> str:
    """Put the imports and formulas that some functions call before them."""
    called = set(re.findall(r"\b(\w+)\b", text))
    formulas = [formula(name) for name in (f"{name}_f32" for name in FORMULAS) if name in called]
    names = ", ".join(name for name in helper_names() if name in called)
    imports = f"\nfrom sartor.tools.fuse.render.triton_helpers import {names}\n" if names else ""
    return "\n\n".join([_HEADER + imports, *formulas, text])


@cache
def helper_names() -> tuple[str, ...]:
    """List the functions of `triton_helpers.py`, without importing Triton."""
    source = Path(__file__).with_name("triton_helpers.py").read_text()
    return tuple(sorted(re.findall(r"@jit\ndef (\w+)\(", source)))


def render_part(schedule: GpuSchedule) -> Part:
    """Write the body of a kernel.

    Raises NotEmittableError where a size is not that of an input.
    """
    return _Kernel(schedule).part()


class _Kernel:
    def __init__(self, schedule: GpuSchedule) -> None:
        self.schedule = schedule
        self.values = TritonValues(schedule)
        self.out = self.values.out
        self.accumulators: dict[Root, str] = {}

    def part(self) -> Part:
        """Put the phases one after the other, with barriers between."""
        phases = self.schedule.phases
        for number, phase in enumerate(phases):
            self.values.phase = phase
            with self._scope():
                self._phase(phase)
            if phase is not phases[-1]:
                self.out.line(f"barrier(gate, {number}, programs)")
        sizes = {variable: name for name, variable in self.values.sizes.names.items()}
        lines = [f"{size} = tl.cast({size}, INDEX)" for size in sizes]
        return Part(self._tensors(), sizes, self._constants(), (*lines, *self.out.blocks[0].lines))

    def _tensors(self) -> tuple[str, ...]:
        layout = self.schedule.layout
        read = sorted({value.position for value in layout.values if isinstance(value, Load)})
        names = [f"x{i}" for i in read] + [f"y{i}" for i in range(len(layout.program.outputs))]
        names += self.values.slots.values()
        names += ["gate"] * (len(self.schedule.phases) > 1) + ["status"] * self.values.gathers
        return tuple(names)

    def _constants(self) -> tuple[str, ...]:
        names: list[str] = []
        for phase in self.schedule.phases:
            self.values.phase = phase
            dims = {axis.dim for axis in phase.axes}
            names += [name for dim, name in enumerate(self.values.blocks()) if dim in dims]
        parts = any(self.schedule.partial(root) for root in self.schedule.scratch)
        return (*names, *["PARTS"] * parts, "INDEX")

    @contextmanager
    def _scope(self) -> Iterator[None]:
        """Forget afterwards what was computed, because other phases have other tiles."""
        self.out.open()
        yield
        block = self.out.blocks.pop()
        self.out.blocks[-1].lines.extend(block.lines)

    def _phase(self, phase: Phase) -> None:
        for axis in phase.axes:
            if axis.whole:
                self.values.index[axis] = self._index(axis, "")
        if len(self.schedule.phases) == 1:
            self._single(phase)
        elif phase.spread is None:
            self.out.open()
            self._body(phase.tree)
            self.out.close("if program == 0:")
        else:
            self._shared(phase, phase.spread)
        self.values.index.clear()

    def _single(self, phase: Phase) -> None:
        """Compute one block of the spread axis, whose blocks are the programs."""
        axis = phase.spread
        if axis is not None:
            program = self.values.hold(Tile("tl.cast(program, INDEX)"), "p").text
            first = program if axis.dim is None else f"{program} * {self.values.blocks()[axis.dim]}"
            self.values.index[axis] = self._index(axis, first)
        self._body(phase.tree)

    def _shared(self, phase: Phase, axis: Axis) -> None:
        """Walk over every so-manieth block of the spread axis, keeping a part of the reductions over it."""
        parts = [root for root in phase.roots if phase.partial(root)]
        for root in parts:
            self._begin(root)
        block = "" if axis.dim is None else f" * {self.values.blocks()[axis.dim]}"
        size, variable = self._size(axis), self.out.fresh("k")
        self.out.open()
        self.values.index[axis] = self._index(axis, f"tl.cast({variable}, INDEX)")
        self._body(phase.tree)
        self.out.close(f"for {variable} in range(program{block}, {size}, programs{block}):")
        del self.values.index[axis]
        for root in parts:
            self._finish(root)

    def _size(self, axis: Axis) -> str:
        return self.values.count([axis.size]) or "1"

    def _index(self, axis: Axis, first: str) -> Tile:
        """Name the positions along an axis, from the first of a block on, with their mask."""
        depth = self.out.depth
        if axis.dim is None:
            return self.values.hold(Tile(first, depth), "k")
        lane = self.values.lane(axis.dim, self.values.blocks()[axis.dim])
        text = f"{first} + {lane.text}" if first else lane.text
        index = self.values.hold(Tile(text, depth, lane.dims), "k") if first else replace(lane, depth=depth)
        if not axis.masked:
            return index
        mask = self.values.hold(replace(index, text=f"{index.text} < {self._size(axis)}"), "b")
        return replace(index, mask=mask.text)

    def _body(self, items: tuple[Walk | Leaf, ...]) -> None:
        for item in items:
            if isinstance(item, Leaf):
                for root in item.roots:
                    self._write(root)
            else:
                self._walk(item)

    def _walk(self, walk: Walk) -> None:
        axis = walk.axis
        opening = [
            root for root in walk.roots if root.folds and axis.atoms[0] in root.over and root not in self.accumulators
        ]
        for root in opening:
            self._begin(root)
        variable = self.out.fresh("k")
        self.out.open()
        self.values.index[axis] = self._index(axis, f"tl.cast({variable}, INDEX)")
        self._body(walk.body)
        step = "" if axis.dim is None else f"0, {self._size(axis)}, {self.values.blocks()[axis.dim]}"
        self.out.close(f"for {variable} in range({step or self._size(axis)}):")
        del self.values.index[axis]
        for root in opening:
            self._finish(root)

    def _begin(self, root: Root) -> None:
        """Set an accumulator to the neutral element."""
        kind = ops.compute_type(root.value.dtype)
        name = self.out.fresh("a")
        shape = self.values.shape(tile_dims(self.values, root))
        self.out.line(f"{name} = tl.full({shape}, {start(root, kind)}, {TYPES[kind]})")
        self.accumulators[root] = name

    def _finish(self, root: Root) -> None:
        """Fold an accumulator's tile, and keep the result where it is needed."""
        self._keep(root, self.accumulators.pop(root), tile_dims(self.values, root))

    def _keep(self, root: Root, text: str, dims: frozenset[int]) -> None:
        text, left = folded(self.values, root, text, dims)
        tile = self.values.hold(Tile(text, self.out.depth, left), "r")
        partial = self.values.phase.partial(root)
        if not partial:
            self.out.remember((root.value, ()), tile)
        if root in self.values.slots:
            at = self.values.offset(root.own, {})
            if partial:
                count = self.values.count(atom.size for atom in root.own)
                share = f"tl.cast(program, INDEX) * {count}" if count else "program"
                at = replace(at, text=f"{share} + {at.text}")
            self._store(self.values.slots[root], at, tile.text, tile)
            if not partial:
                self.out.line("tl.debug_barrier()")

    def _write(self, root: Root) -> None:
        tile = self.values.value(root.expression, {})
        kind = ops.compute_type(root.value.dtype)
        if root.output is not None:
            at = self.values.offset(root.own, {})
            memory = ops.STORAGE[root.value.dtype].memory
            text = tile.text if memory == kind else f"{tile.text}.to({TYPES[memory]})"
            self._store(f"y{root.output}", at, text, tile)
        elif root in self.accumulators:
            name = self.accumulators[root]
            self.out.line(f"{name} = {fold_name(root)}({name}, {guarded(self.values, root, tile, kind)})")
        else:
            self._fold_tile(root, tile, kind)

    def _fold_tile(self, root: Root, tile: Tile, kind: str) -> None:
        """Reduce over axes that the tile holds whole."""
        axes = self.values.phase.axes_of(root.over)
        over = frozenset(axis.dim for axis in axes if axis.dim is not None)
        masked = frozenset(axis.dim for axis in axes if axis.dim is not None and axis.masked)
        text, dims = guarded(self.values, root, tile, kind), tile.dims | masked
        if not over <= dims:
            dims |= over
            text = f"tl.broadcast_to({text}, {self.values.shape(dims)})"
        self._keep(root, text, dims)

    def _store(self, pointer: str, at: Tile, text: str, tile: Tile) -> None:
        assert tile.dims <= at.dims, "a tile is stored where it does not fit"
        mask = f", mask={at.mask}" if at.mask else ""
        self.out.line(f"tl.store({pointer} + {at.text}, {text}{mask})")
