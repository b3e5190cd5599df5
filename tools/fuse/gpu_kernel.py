"""A kernel for a GPU: its source, its compositions, and the parameters of a launch for given sizes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product

from sartor.tools.fuse import ops
from sartor.tools.fuse.axes import Size, axis_size, parse_size, size_of
from sartor.tools.fuse.gpu_check import check_schedule, check_tiles
from sartor.tools.fuse.gpu_schedule import COLUMNS, ROWS, Axis, Form, GpuSchedule, Phase, gpu_schedule
from sartor.tools.fuse.gpu_walk import count
from sartor.tools.fuse.gpu_work import PhaseWork, number
from sartor.tools.fuse.program import At, Load, Program, Value, walk
from sartor.tools.fuse.render.triton import Part, render, render_part
from sartor.tools.fuse.schedule import Root, reads, stored

FORMS = tuple(Form(phased, whole) for phased in (False, True) for whole in (2, 1, 0))
"""All compositions, those that keep most in registers first."""

TILE_LIMIT = 16384
"""Elements of a tile beyond which registers spill."""

TARGETS = (1024, 2048, 512, 4096, 256, 8192)
"""Elements of a tile to aim at, the default first."""

USUAL_WARPS, MOST_WARPS = 16, 32
"""Warps of a program by default, and at most."""

COLUMN_BLOCK = 128
"""Columns of a tile whose rows and columns are both free."""

JOIN_BLOCKS = (64, 512)
"""Positions of a block that folds what all programs have kept at each of them, the default first."""

JOIN_SHARE = 512
"""Elements of a tile of such parts, for each warp."""

INT32_LIMIT = 2**31 - 2**20
"""Elements up to which positions, and a tile beyond them, fit 32 bits."""


class SizesRefusedError(Exception):
    """Sizes contradict the types that a kernel was made for."""


@dataclass(frozen=True)
class GpuKernel:
    """A program in one composition."""

    program: Program
    schedule: GpuSchedule
    part: Part
    source: str

    @cached_property
    def work(self) -> tuple[PhaseWork, ...]:
        """What the programs do in every phase."""
        return count(self.schedule)

    @cached_property
    def tensors(self) -> tuple[Size, ...]:
        """The elements of the tensors that are read and written."""
        loads = [value for value in _values(self.program) if isinstance(value, Load)]
        return tuple(math.prod(map(axis_size, value.axes), start=Size()) for value in (*loads, *self.program.outputs))

    @cached_property
    def joined(self) -> tuple[tuple[frozenset[int], ...], ...]:
        """The tile dimensions that index each reduction of which a phase reads the parts of all programs, by phase."""
        return tuple(_joined(self.schedule, phase) for phase in self.schedule.phases)


@dataclass(frozen=True)
class Config:
    """What may be tuned: rows and columns of every phase's tiles, and the warps of a program."""

    tiles: tuple[tuple[int, int], ...]
    warps: int


@dataclass(frozen=True)
class Launch:
    """The parameters of a launch: programs, constants but INDEX, its bits, warps, elements of every scratch buffer."""

    grid: int
    constants: dict[str, int]
    index_bits: int
    warps: int
    cooperative: bool
    scratch: tuple[int, ...]


def gpu_kernels(program: Program) -> tuple[GpuKernel, ...]:
    """Write a program's kernels in all compositions that differ and may fit.

    Raises NotEmittableError where there is none.
    """
    found: dict[str, GpuKernel] = {}
    for form in FORMS:
        schedule = gpu_schedule(program, form)
        check_schedule(schedule)
        part = render_part(schedule)
        source = render(part)
        found.setdefault(source, GpuKernel(program, schedule, part, source))
    return tuple(found.values())


def bind(program: Program, shapes: Sequence[Sequence[int] | None]) -> dict[str, int]:
    """Find the named sizes in the shapes of the inputs.

    Raises SizesRefusedError where they contradict the types.
    """
    pairs = [
        (parse_size(dim), size)
        for kind, shape in zip(program.inputs, shapes, strict=True)
        if kind is not None and shape is not None
        for dim, size in zip(kind.shape, shape, strict=True)
    ]
    names: dict[str, int] = {}
    for exact in (True, False):
        for size, found in pairs:
            _solve(names, size, found, exact)
    if any(size_of(size, names) != found for size, found in pairs):
        raise SizesRefusedError("the sizes are refused")
    picked = [value.index for value in _values(program) if isinstance(value, At) and not value.index.atom]
    if any(index.length and not size_of(index.length, names) for index in picked):
        raise SizesRefusedError("the sizes are refused")
    return names


def _solve(names: dict[str, int], size: Size, found: int, exact: bool) -> None:
    unknown = [name for name in size.names if name not in names]
    if len(unknown) != 1 or (exact and size != Size(1, size.names[:1])):
        return
    known = math.prod((size.factor, *(names[name] for name in size.names if name in names)))
    if known:
        names[unknown[0]] = found // known


def _values(program: Program) -> list[Value]:
    return list(walk(program.outputs))


def power_of_two(size: int) -> int:
    """Round up to a power of two."""
    return 1 << max(size - 1, 0).bit_length()


def extent(axis: Axis, names: Mapping[str, int]) -> int:
    """Count the positions along an axis, rounded up to a power of two."""
    return power_of_two(number(axis.size, names))


def fits(kernel: GpuKernel, names: Mapping[str, int]) -> bool:
    """Tell whether the axes that tiles hold whole are small enough."""
    return all(_fixed(phase, names) <= TILE_LIMIT for phase in kernel.schedule.phases)


def _fixed(phase: Phase, names: Mapping[str, int]) -> int:
    return math.prod(extent(axis, names) for axis in phase.axes if axis.whole)


def programs(kernel: GpuKernel, config: Config, names: Mapping[str, int]) -> int:
    """Count the programs that have something to do in some phase."""
    return max(blocks(phase, tile, names) for phase, tile in zip(kernel.schedule.phases, config.tiles, strict=True))


def blocks(phase: Phase, tile: tuple[int, int], names: Mapping[str, int]) -> int:
    """Count the blocks of a phase's spread axis."""
    if phase.spread is None:
        return 1
    block = 1 if phase.spread.dim is None else tile[phase.spread.dim]
    return -(-number(phase.spread.size, names) // block)


def configurations(kernel: GpuKernel, names: Mapping[str, int]) -> tuple[Config, ...]:
    """List tile sizes and warps worth trying, the default first."""
    found: dict[Config, None] = {}
    for target, join in product(TARGETS, JOIN_BLOCKS):
        phases = zip(kernel.schedule.phases, kernel.joined, strict=True)
        tiles = tuple(
            _tile(phase, dict.fromkeys(frozenset[int]().union(*dims), join), target, names) for phase, dims in phases
        )
        warps = min(max(max(rows * columns for rows, columns in tiles) // 256, 1), USUAL_WARPS)
        for tried in (warps, min(2 * warps, MOST_WARPS), max(warps // 2, 1)):
            found[Config(tiles, tried)] = None
    return tuple(found)


def _joined(schedule: GpuSchedule, phase: Phase) -> tuple[frozenset[int], ...]:
    """Return the tile dimensions that index each reduction of which a phase reads the parts of all programs."""
    known = stored(schedule.roots)
    read = set[Root]().union(*(reads(root, known) for root in phase.roots))
    parts = [root for root in schedule.scratch if root in read and schedule.partial(root) and root not in phase.roots]
    # A loop of the reduction may be one of several on an axis here.
    axes = [[axis for axis in phase.axes if set(axis.atoms) & set(root.own)] for root in parts]
    return tuple(frozenset(axis.dim for axis in found if axis.dim is not None) for found in axes)


def _tile(phase: Phase, limits: Mapping[int, int], target: int, names: Mapping[str, int]) -> tuple[int, int]:
    """Choose rows and columns: all of a whole axis, the rest up to the target, or a limit, for the others."""
    tile = {axis.dim: extent(axis, names) for axis in phase.axes if axis.whole}
    free = {axis.dim: extent(axis, names) for axis in phase.axes if axis.dim is not None and not axis.whole}
    room = max(target // math.prod(tile.values()), 1)
    for dim in (COLUMNS, ROWS):
        if dim in free:
            narrow = len(free) == 2 and dim == COLUMNS and phase.spread is not None and phase.spread.dim == COLUMNS
            most = limits.get(dim, COLUMN_BLOCK if narrow else room)
            tile[dim] = min(most, room, free[dim])
            room = max(room // tile[dim], 1)
    return tile.get(ROWS, 1), tile.get(COLUMNS, 1)


def plan_launch(kernel: GpuKernel, config: Config, names: Mapping[str, int], processors: int) -> Launch:
    """Work out the parameters of a launch; of a grid with barriers all programs must run at the same time."""
    phases = kernel.schedule.phases
    check_tiles(kernel.schedule, config.tiles, names)
    count = programs(kernel, config, names)
    grid = min(count, processors) if len(phases) > 1 else count
    constants: dict[str, int] = {}
    for i, (rows, columns) in enumerate(config.tiles):
        suffix = str(i) if len(phases) > 1 else ""
        constants |= {f"ROWS{suffix}": rows, f"COLS{suffix}": columns}
    joins = zip(kernel.joined, config.tiles, strict=True)
    indexed = [math.prod(tile[dim] for dim in dims) for joined, tile in joins for dims in joined]
    most = max(JOIN_SHARE * config.warps // max(indexed, default=1), 1)
    constants["PARTS"] = min(power_of_two(grid), most)
    wanted = {name: value for name, value in constants.items() if name in kernel.part.constants}
    scratch = tuple(_elements(kernel, root, grid, names) for root in kernel.schedule.scratch)
    largest = max(*(number(size, names) for size in kernel.tensors), *scratch, 0)
    bits = 64 if largest > INT32_LIMIT else 32
    return Launch(grid, wanted, bits, config.warps, len(phases) > 1, scratch)


def _elements(kernel: GpuKernel, root: Root, grid: int, names: Mapping[str, int]) -> int:
    elements = math.prod(number(atom.size, names) for atom in root.own)
    return elements * (grid if kernel.schedule.partial(root) else 1)


def scratch_bytes(kernel: GpuKernel, launch: Launch) -> int:
    """Count the bytes of scratch memory of a launch."""
    roots = zip(kernel.schedule.scratch, launch.scratch, strict=True)
    return sum(ops.STORAGE[root.value.dtype].size * elements for root, elements in roots)


def shapes(program: Program, names: Mapping[str, int]) -> list[tuple[int, ...]]:
    """Work out the shapes of the outputs."""
    return [tuple(number(axis_size(axis), names) for axis in value.axes) for value in program.outputs]
