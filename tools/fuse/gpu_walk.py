"""Counting what a schedule's programs do, phase by phase, without sizes.

A phase is walked as the renderer walks it: a value is computed in the outermost loop that its index allows, once in a
loop's body, and read back where it is stored. Equal expressions are one.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from sartor.tools.fuse import ops
from sartor.tools.fuse.axes import Atom, Size, parse_size
from sartor.tools.fuse.gpu_schedule import Axis, GpuSchedule, Phase, Walk
from sartor.tools.fuse.gpu_work import Access, Along, Inside, Part, PhaseWork
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
    "softplus": 32,
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

GATHER, CHOICE = 6.0, 2.0
"""Instructions of the check of a gathered index, and of the choice of a part of a concatenation."""


def count(schedule: GpuSchedule) -> tuple[PhaseWork, ...]:
    """Count what every phase of a schedule does; numbers that vary along nothing outlive their phase."""
    out: list[PhaseWork] = []
    numbers: dict[object, _Held] = {}
    for phase in schedule.phases:
        walker = _Walker(schedule, phase, numbers)
        out.append(walker.walk())
        numbers = {key: found for key, found in walker.known[0].items() if not found.along}
    return tuple(out)


@dataclass(frozen=True)
class _Held:
    """An expression: a name that equal ones share, the axes along which it varies, the axis that it counts along."""

    name: object
    along: Along = frozenset()
    run: Axis | None = None


_Env = dict[Atom, _Held]
"""Loops that a slice, gather or concatenation has replaced by another index."""


class _Walker:
    """Walks over one phase; `path` are the open loops, `known` values and `held` expressions of each block around."""

    def __init__(self, schedule: GpuSchedule, phase: Phase, known: dict[object, _Held]) -> None:
        self.schedule, self.layout, self.phase = schedule, schedule.layout, phase
        self.stored = stored(schedule.roots)
        self.work = PhaseWork(phase)
        # The programs of a single phase are the blocks of its spread axis; of several, they walk over them.
        self.base: Inside = (phase.spread,) if phase.spread and len(schedule.phases) == 1 else ()
        self.path: list[Axis] = []
        self.known = [dict(known)]
        self.held: list[set[object]] = [set()]
        self.numbers: dict[object, int] = {}
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
        self.held.append(set())

    def _close(self) -> None:
        self.path.pop()
        self.known.pop()
        self.held.pop()

    def _items(self, items: tuple[Walk | Leaf, ...]) -> None:
        for item in items:
            if isinstance(item, Leaf):
                for root in item.roots:
                    self._root(root)
                continue
            over = [root for root in item.roots if root.folds and item.axis.atoms[0] in root.over]
            opening = [root for root in over if root not in self.running]
            self.running |= set(opening)
            self._open(item.axis)
            self._items(item.body)
            self._close()
            for root in opening:
                self._fold(root)

    def _root(self, root: Root) -> None:
        found = self._value(root.expression, {})
        self._wait()
        if root.output is not None:
            width = ops.STORAGE[root.value.dtype].size
            self._access(f"y{root.output}", width, self._places(root.own, {}), _size(root.own))
            return
        self._operate(1.0, found.along | self._along(root.domain), len(self.path))
        if root not in self.running:
            self._fold(root)

    def _wait(self) -> None:
        """Count a wait for all loads since the last one, which are under way at the same time."""
        self.work.rounds += sorted(self.waiting, key=len)
        self.waiting.clear()

    def _fold(self, root: Root) -> None:
        """Count the end of a reduction, and its way to memory where others read it there."""
        self.running.discard(root)
        if any(axis.dim is not None for axis in self.phase.axes_of(root.over)):
            self.work.folds.append(self._inside(len(self.path)))
        partial = self.phase.partial(root)
        if root in self.schedule.scratch:
            self._scratch(root, "left" if partial else "")
        if not partial:
            self.known[-1][root.value, frozenset()] = _Held(root, self._along(root.own))

    def _scratch(self, root: Root, part: Part) -> None:
        slot = f"m{self.schedule.scratch.index(root)}"
        width = ops.STORAGE[root.value.dtype].size
        self._access(slot, width, self._places(root.own, {}), _size(root.own), part)

    def _value(self, value: Value, env: _Env) -> _Held:
        """Count a value, unless it is there already."""
        env = {atom: env[atom] for atom in self.layout.flat(value.axes) if atom in env}
        key = (value, frozenset(env.items()))
        for block in self.known:
            if key in block:
                return block[key]
        found = self._read_back(self.stored[value]) if value in self.stored else self._compute(value, env)
        self.known[self._depth(found.along)][key] = found
        return found

    def _read_back(self, root: Root) -> _Held:
        partial = self.schedule.partial(root)
        self._scratch(root, "read" if partial else "")
        along = self._along(root.own)
        inside = self._inside(self._depth(along))
        if partial:
            self.work.gathered.append((inside, len({axis.dim for axis in along}) == 2))
        else:
            self.waiting.add(inside)
        return _Held(root, along)

    def _compute(self, value: Value, env: _Env) -> _Held:
        match value:
            case Load():
                return self._load(value, env)
            case Const() | Count():
                return _Held(value)
            case Iota(atom=atom):
                return self._at(self.layout.one(atom), env)
            case At(arg=arg, atom=atom, index=index):
                at = self._at(self.layout.one(index.atom), env) if index.atom else _Held(None)
                run = at.run if index.step == 1 else None
                moved = _Held((at.name, index.step, index.offset, index.length), at.along, run)
                return self._value(arg, {**env, self.layout.one(atom): moved})
            case Take(arg=arg, atom=atom, index=picked):
                found = self._value(picked, env)
                self._wait()
                place = self._hold(("index", found.name, atom.size), found.along, GATHER)
                return self._value(arg, {**env, self.layout.one(atom): place})
            case Concat(atom=atom, parts=parts):
                return self._concat(self._at(self.layout.one(atom), env), parts, env)
            case Elementwise(op="view", args=(arg,)):
                return self._value(arg, env)
            case Elementwise(op=op, args=args):
                operands = [self._value(arg, env) for arg in args]
                wide = 2.0 if ops.compute_type(args[0].dtype) == "f64" else 1.0
                name = (op, value.dtype, *(operand.name for operand in operands))
                return self._hold(name, _union(operands), wide * INSTRUCTIONS.get(op, 1.0))
        raise AssertionError(f"{type(value).__name__} is stored")

    def _concat(self, at: _Held, parts: tuple[tuple[Value, Atom | None, Size], ...], env: _Env) -> _Held:
        found, position = [at], 0
        for part, own, size in parts:
            shifted = _Held(("part", at.name, position, size), at.along, at.run)
            found.append(self._value(part, env if own is None else {**env, self.layout.one(own): shifted}))
            position += size.factor
        return self._hold(("concat", *(one.name for one in found)), _union(found), CHOICE * len(parts))

    def _load(self, value: Load, env: _Env) -> _Held:
        kind = self.layout.program.inputs[value.position]
        assert kind is not None
        places = self._places(self.layout.flat(value.axes), env)
        name, along = (f"x{value.position}", *(place.name for place in places)), _union(places)
        if self._is_new(name, along):
            elements = math.prod((parse_size(dim) for dim in kind.shape), start=Size())
            self._access(f"x{value.position}", ops.STORAGE[value.dtype].size, places, elements)
            self.waiting.add(self._inside(self._depth(along)))
        return _Held(self._number(name), along)

    def _access(self, tensor: str, width: int, places: list[_Held], elements: Size, part: Part = "") -> None:
        """Note loads or stores of a tensor whose loops are at some places."""
        along = _union(places)
        inside = self._inside(self._depth(along))
        run = places[-1].run if places else None
        self.work.accesses.append(Access(tensor, width, elements, along, inside, run, part))
        self._operate(1.0, along, self._depth(along))

    def _hold(self, name: tuple[object, ...], along: Along, instructions: float) -> _Held:
        """Count an expression, unless its block holds an equal one."""
        if self._is_new(name, along):
            self._operate(instructions, along, self._depth(along))
        return _Held(self._number(name), along)

    def _is_new(self, name: tuple[object, ...], along: Along) -> bool:
        block, number = self.held[self._depth(along)], self._number(name)
        if number in block:
            return False
        block.add(number)
        return True

    def _number(self, name: object) -> int:
        """Number names, so that those of large expressions stay small."""
        return self.numbers.setdefault(name, len(self.numbers))

    def _operate(self, instructions: float, along: Along, depth: int) -> None:
        key = along, self._inside(depth)
        self.work.operators[key] = self.work.operators.get(key, 0.0) + instructions
        self.work.dearest = max(self.work.dearest, instructions)

    def _places(self, atoms: Iterable[Atom], env: _Env) -> list[_Held]:
        return [self._at(atom, env) for atom in atoms]

    def _at(self, atom: Atom, env: _Env) -> _Held:
        if atom in env:
            return env[atom]
        axis = next(axis for axis in self.phase.axes if atom in axis.atoms)
        return _Held(atom, frozenset({axis}), axis if axis.atoms[-1] is atom else None)

    def _along(self, atoms: Iterable[Atom]) -> Along:
        return _union(self._places(atoms, {}))

    def _depth(self, along: Along) -> int:
        """Return how many loops are around what varies along some axes."""
        return max((i + 1 for i, axis in enumerate(self.path) if axis in along), default=0)

    def _inside(self, depth: int) -> Inside:
        return (*self.base, *self.path[:depth])


def _union(found: list[_Held]) -> Along:
    return frozenset[Axis]().union(*(one.along for one in found))


def _size(atoms: tuple[Atom, ...]) -> Size:
    return math.prod((atom.size for atom in atoms), start=Size())
