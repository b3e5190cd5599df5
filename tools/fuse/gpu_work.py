"""What the programs of a kernel do, counted from its schedule: loads and stores, operators, folds, what waits for what.

A phase is walked as the renderer walks it: a value is computed in the outermost loop that its index allows, once in a
loop's body, and read back where it is stored. What is counted depends on the schedule alone; how often it happens
follows from tile sizes and sizes (`Counts`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from sartor.tools.fuse import ops
from sartor.tools.fuse.axes import Atom, Size, parse_size, size_of
from sartor.tools.fuse.gpu_facts import WARP
from sartor.tools.fuse.gpu_schedule import Axis, GpuSchedule, Phase, Walk
from sartor.tools.fuse.program import At, Concat, Const, Count, Elementwise, Iota, Load, Take, Value
from sartor.tools.fuse.schedule import Leaf, Root, stored

INSTRUCTIONS: Mapping[str, float] = {
    "rint": 7,
    "sign": 4,
    "div": 10,
    "sqrt": 10,
    "exp": 19,
    "log": 30,
    "log1p": 35,
    "tanh": 43,
    "sigmoid": 51,
    "silu": 52,
    "erf": 45,
    "gelu": 67,
    "sin": 120,
    "cos": 120,
    "fmod": 80,
    "modulo": 30,
    "pow": 200,
    **dict.fromkeys(("tan", "asin", "acos", "atan", "sinh", "cosh", "asinh", "acosh", "atanh"), 240),
}
"""Instructions of the machine that a scalar operator takes an element where it is not one, float32, on sm_80 and sm_90.

Counted in what ptxas makes of them, those on float64 twice; of a division and a root what is nearly always run.
"""

SECTOR = 32
"""Bytes that a load of one element brings at least."""

Along = frozenset[Axis]
Inside = tuple[Axis, ...]
"""The loops around a statement, outermost first; the spread axis is one of them."""


@dataclass(frozen=True)
class Access:
    """Loads or stores of a tensor: its name, bytes an element, elements in all, the axes along which they vary.

    `run` is the axis along which neighbours lie side by side in memory; None where there is none. Of a tensor that has
    its elements once a program, each program leaves its own `part`, or reads those of all.
    """

    tensor: str
    width: int
    elements: Size
    along: Along
    inside: Inside
    run: Axis | None
    part: Literal["", "left", "read"] = ""


@dataclass
class PhaseWork:
    """What the programs of a phase do; `rounds` and `folds` are where they wait for memory and for each other's lanes.

    `gathered` are walks over the parts that programs have left, and whether one part is read at a time; `operators` are
    instructions an element, `dearest` those of the dearest operator.
    """

    phase: Phase
    accesses: list[Access] = field(default_factory=list)
    rounds: list[Inside] = field(default_factory=list)
    gathered: list[tuple[Inside, bool]] = field(default_factory=list)
    folds: list[Inside] = field(default_factory=list)
    operators: dict[tuple[Along, Inside], float] = field(default_factory=dict)
    dearest: float = 0.0


def count(schedule: GpuSchedule) -> tuple[PhaseWork, ...]:
    """Count what every phase of a schedule does."""
    return tuple(_Walker(schedule, phase).walk() for phase in schedule.phases)


@dataclass(frozen=True, eq=False)
class _Index:
    """What replaces a loop's position: the axes along which it varies, and the one along which its steps are of one."""

    along: Along
    run: Axis | None


_Env = dict[Atom, _Index]


class _Walker:
    """Walks over one phase; `path` are the open loops, `known` the values computed in each block around."""

    def __init__(self, schedule: GpuSchedule, phase: Phase) -> None:
        self.schedule, self.layout, self.phase = schedule, schedule.layout, phase
        self.stored = stored(schedule.roots)
        self.work = PhaseWork(phase)
        # The programs of a single phase are the blocks of its spread axis; of several, they walk over them.
        self.base: Inside = (phase.spread,) if phase.spread and len(schedule.phases) == 1 else ()
        self.path: list[Axis] = []
        self.known: list[dict[object, Along]] = [{}]
        self.running: set[Root] = set()
        self.waiting: set[Inside] = set()

    def walk(self) -> PhaseWork:
        """Count the phase."""
        parts = [root for root in self.phase.roots if self.phase.partial(root)]
        self.running |= set(parts)
        if self.phase.spread and not self.base:
            self._open(self.phase.spread)
            self._items(self.phase.tree)
            self._close()
        else:
            self._items(self.phase.tree)
        for root in parts:
            self._fold(root)
        return self.work

    def _open(self, axis: Axis) -> None:
        self.path.append(axis)
        self.known.append({})

    def _close(self) -> None:
        self.path.pop()
        self.known.pop()

    def _items(self, items: tuple[Walk | Leaf, ...]) -> None:
        for item in items:
            if isinstance(item, Leaf):
                for root in item.roots:
                    self._root(root)
                continue
            opening = [
                root
                for root in item.roots
                if root.folds and item.axis.atoms[0] in root.over and root not in self.running
            ]
            self.running |= set(opening)
            self._open(item.axis)
            self._items(item.body)
            self._close()
            for root in opening:
                self._fold(root)

    def _root(self, root: Root) -> None:
        along = self._value(root.expression, {})
        # What one expression loads is under way at the same time.
        self.work.rounds += sorted(self.waiting, key=len)
        self.waiting.clear()
        if root.output is not None:
            self._access(f"y{root.output}", ops.STORAGE[root.value.dtype].size, root.own, {}, self._size(root.own))
            return
        self._operate(1.0, along | self._along(root.domain), len(self.path))
        if root not in self.running:
            self._fold(root)

    def _fold(self, root: Root) -> None:
        """Count the end of a reduction, and its way to memory where others read it there."""
        self.running.discard(root)
        inside = self._inside(len(self.path))
        if any(axis.dim is not None for axis in self.phase.axes_of(root.over)):
            self.work.folds.append(inside)
        partial = self.phase.partial(root)
        if root in self.schedule.scratch:
            self._scratch(root, "left" if partial else "")
        if not partial:
            self.known[-1][root.value, frozenset()] = self._along(root.own)

    def _scratch(self, root: Root, part: Literal["", "left", "read"]) -> None:
        slot = f"m{self.schedule.scratch.index(root)}"
        width = ops.STORAGE[root.value.dtype].size
        self._access(slot, width, root.own, {}, self._size(root.own), part)

    def _value(self, value: Value, env: _Env) -> Along:
        """Count a value, unless it is there already, and return the axes along which it varies."""
        env = {atom: env[atom] for atom in self.layout.flat(value.axes) if atom in env}
        key = (value, frozenset(env.items()))
        for block in self.known:
            if key in block:
                return block[key]
        if value in self.stored:
            along = self._read_back(self.stored[value])
        else:
            along = self._compute(value, env)
        self.known[self._depth(along)][key] = along
        return along

    def _read_back(self, root: Root) -> Along:
        partial = self.schedule.partial(root)
        self._scratch(root, "read" if partial else "")
        along = self._along(root.own)
        inside = self._inside(self._depth(along))
        if partial:
            self.work.gathered.append((inside, len({axis.dim for axis in along}) == 2))
        else:
            self.waiting.add(inside)
        return along

    def _compute(self, value: Value, env: _Env) -> Along:
        match value:
            case Load(position=position):
                return self._load(value, position, env)
            case Const() | Count():
                return frozenset()
            case Iota(atom=atom):
                return self._at(self.layout.one(atom), env).along
            case At(arg=arg, atom=atom, index=index):
                at = self._at(self.layout.one(index.atom), env) if index.atom else _Index(frozenset(), None)
                run = at.run if index.step == 1 else None
                return self._value(arg, {**env, self.layout.one(atom): _Index(at.along, run)})
            case Take(arg=arg, atom=atom, index=picked):
                along = self._value(picked, env)
                self.work.rounds += sorted(self.waiting, key=len)
                self.waiting.clear()
                return self._value(arg, {**env, self.layout.one(atom): _Index(along, None)})
            case Concat(atom=atom, parts=parts):
                return self._concat(self._at(self.layout.one(atom), env), parts, env)
            case Elementwise(op=op, args=args):
                along = frozenset[Axis]().union(*(self._value(arg, env) for arg in args))
                if op != "view":
                    wide = 2.0 if ops.compute_type(args[0].dtype) == "f64" else 1.0
                    self._operate(wide * INSTRUCTIONS.get(op, 1.0), along, self._depth(along))
                return along
        raise AssertionError(f"{type(value).__name__} is stored")

    def _concat(self, at: _Index, parts: tuple[tuple[Value, Atom | None, Size], ...], env: _Env) -> Along:
        along = at.along
        for part, own, _ in parts:
            along |= self._value(part, env if own is None else {**env, self.layout.one(own): at})
        self._operate(2.0 * len(parts), along, self._depth(along))
        return along

    def _load(self, value: Load, position: int, env: _Env) -> Along:
        kind = self.layout.program.inputs[position]
        assert kind is not None
        elements = math.prod((parse_size(dim) for dim in kind.shape), start=Size())
        atoms = self.layout.flat(value.axes)
        along = self._access(f"x{position}", ops.STORAGE[value.dtype].size, atoms, env, elements)
        self.waiting.add(self._inside(self._depth(along)))
        return along

    def _access(
        self,
        tensor: str,
        width: int,
        atoms: tuple[Atom, ...],
        env: _Env,
        elements: Size,
        part: Literal["", "left", "read"] = "",
    ) -> Along:
        """Note loads or stores of a tensor with these loops, and return the axes along which they vary."""
        at = [self._at(atom, env) for atom in atoms]
        along = frozenset[Axis]().union(*(index.along for index in at))
        inside = self._inside(self._depth(along))
        self.work.accesses.append(Access(tensor, width, elements, along, inside, at[-1].run if at else None, part))
        self._operate(1.0, along, self._depth(along))
        return along

    def _operate(self, instructions: float, along: Along, depth: int) -> None:
        key = along, self._inside(depth)
        self.work.operators[key] = self.work.operators.get(key, 0.0) + instructions
        self.work.dearest = max(self.work.dearest, instructions)

    def _at(self, atom: Atom, env: _Env) -> _Index:
        if atom in env:
            return env[atom]
        axis = next(axis for axis in self.phase.axes if atom in axis.atoms)
        return _Index(frozenset({axis}), axis if axis.atoms[-1] is atom else None)

    def _along(self, atoms: tuple[Atom, ...] | frozenset[Atom]) -> Along:
        return frozenset(self.phase.axes_of(atoms))

    def _depth(self, along: Along) -> int:
        """Return how many loops are around what varies along some axes."""
        return max((i + 1 for i, axis in enumerate(self.path) if axis in along), default=0)

    def _inside(self, depth: int) -> Inside:
        return (*self.base, *self.path[:depth])

    def _size(self, atoms: tuple[Atom, ...]) -> Size:
        return math.prod((atom.size for atom in atoms), start=Size())


@dataclass(frozen=True)
class Amounts:
    """A phase in numbers: programs that work, and what they do.

    One program: loads one after the other, loads of parts, folds. All of them: lanes times instructions, and by tensor
    the bytes that are moved and those that there are.
    """

    programs: int
    rounds: float
    gathered: float
    folds: float
    instructions: float
    moved: Mapping[str, float]
    held: Mapping[str, float]


class Counts:
    """Works out the amounts of a phase for tile sizes, sizes of axes, and a grid; `walking` programs take several
    blocks each.
    """

    def __init__(
        self, work: PhaseWork, tile: tuple[int, int], sizes: Mapping[Axis, int], grid: int, walking: bool
    ) -> None:
        self.work, self.tile, self.sizes, self.grid = work, tile, sizes, grid
        spread = work.phase.spread
        self.trips = {axis: 1 if axis.whole else self._blocks(axis) for axis in work.phase.axes}
        self.blocks = 1 if spread is None else self.trips[spread]
        self.programs = min(self.blocks, grid) if walking else self.blocks
        # How often one program runs what is inside an axis.
        self.own = {**self.trips, **({} if spread is None else {spread: -(-self.blocks // max(self.programs, 1))})}

    def _blocks(self, axis: Axis) -> int:
        return -(-self.sizes[axis] // (1 if axis.dim is None else self.tile[axis.dim]))

    def times(self, inside: Inside) -> int:
        """Count how often a program runs what is inside some loops."""
        return math.prod(self.own[axis] for axis in inside)

    def amounts(self, names: Mapping[str, int], warps: int, parts: int) -> Amounts:
        """Count everything; `parts` are those that are read at a time of what the programs have left."""
        work = self.work
        moved: dict[str, float] = {}
        held: dict[str, float] = {}
        for access in work.accesses:
            size = number(access.elements, names) * (self.grid if access.part else 1)
            moved[access.tensor] = moved.get(access.tensor, 0.0) + self._moved(access, size)
            held[access.tensor] = float(size * access.width)
        gathered = sum(self.times(at) * -(-self.grid // (1 if single else parts)) for at, single in work.gathered)
        return Amounts(
            self.programs,
            float(sum(map(self.times, work.rounds))),
            float(gathered),
            float(sum(map(self.times, work.folds))),
            sum(self._issued(along, inside, warps) * n for (along, inside), n in work.operators.items()),
            moved,
            held,
        )

    def _again(self, along: Along, inside: Inside) -> int:
        """Count how often all programs together repeat what varies along some axes."""
        spread = self.work.phase.spread
        apart = spread is not None and spread not in along and spread not in inside
        return math.prod(self.trips[axis] for axis in inside if axis not in along) * (self.programs if apart else 1)

    def _moved(self, access: Access, size: int) -> float:
        """Count bytes in whole sectors, of which neighbours in a tile share one where they are neighbours in memory."""
        elements = min(math.prod(self.sizes[axis] for axis in access.along), size)
        sector = max(1.0, SECTOR / (access.width * self._run(access)))
        times = self._again(access.along, access.inside) * (self.grid if access.part == "read" else 1)
        return elements * access.width * sector * times

    def _run(self, access: Access) -> int:
        """Count the elements of a tile that lie side by side in memory."""
        run = access.run
        if run is None or run.dim is None:
            return 1
        if self.sizes[run] > self.tile[run.dim]:
            return self.tile[run.dim]
        along = math.prod(min(self.tile[a.dim], self.sizes[a]) for a in access.along if a.dim is not None)
        return max(along, 1)

    def _issued(self, along: Along, inside: Inside, warps: int) -> float:
        """Count lanes that run an instruction, idle ones and those that repeat a scalar included."""
        lanes = math.prod(self.tile[axis.dim] for axis in along if axis.dim is not None)
        times = math.prod(self.trips[axis] for axis in along) * self._again(along, inside)
        return float(max(lanes, WARP * warps) * times)


def number(size: Size, names: Mapping[str, int]) -> int:
    """Work out a size whose names are all known."""
    found = size_of(size, names)
    assert found is not None, "a size is not that of an input"
    return found
