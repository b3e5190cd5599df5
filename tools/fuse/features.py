"""What a kernel does in one call, counted: the features in which the cost model is linear.

The schedule is walked as the renderer walks it: a value is evaluated in the outermost loop that its index allows, once
in a loop's body, and read back where it is stored. What an innermost loop does on every iteration is vectorised by
LLVM, unless it computes an index (a gather must be checked), stores at a stride or calls the C library; the iterations
that fill no vector count as not vectorised.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from math import ceil, prod

from sartor.tools.fuse import ops
from sartor.tools.fuse.axes import Atom, NotEmittableError, Size
from sartor.tools.fuse.coefficients import Caches
from sartor.tools.fuse.program import Affine, At, Concat, Const, Count, Elementwise, Iota, Load, Reduce, Take, Value
from sartor.tools.fuse.schedule import Leaf, Loop, Root, Schedule, stored, value_cost
from sartor.tools.fuse.traffic import LINE, Traffic, misses

LANES = 8
"""Iterations up to which what is left over of a vectorised loop is done one by one: LLVM halves its vectors once."""

L1_WAYS, L2_WAYS = 12, 16
"""Lines that a set of the first and of the second cache holds."""


@dataclass
class Work:
    """What one point of a loop or, added up, a whole call does; costs of operators in nanoseconds of ops.py."""

    light: float = 0.0
    expensive: float = 0.0
    chained: float = 0.0
    library: float = 0.0
    near: float = 0.0
    strided: float = 0.0
    strided_l2: float = 0.0
    strided_l3: float = 0.0
    gathered: float = 0.0
    scratch: float = 0.0


_UNDIVIDED = tuple(entry.name for entry in fields(Work) if entry.name not in ("light", "expensive", "chained"))
"""What costs the same in and outside vectors."""


@dataclass
class Counts:
    """A call's work: vectorised and not, with the runs of innermost loops and the accumulators finished."""

    task: float
    run: float = 0.0
    fold: float = 0.0
    scalar: float = 0.0
    scalar_expensive: float = 0.0
    work: Work = field(default_factory=Work)


COUNTED = tuple(entry.name for entry in fields(Counts) if entry.name != "work")
"""What is counted beside work."""


@dataclass(frozen=True)
class Index:
    """What stands for a loop's index: a step times the index of a loop, or a number computed at a depth."""

    atom: Atom | None
    step: int
    depth: int
    computed: bool = False


Env = dict[Atom, Index]


@dataclass
class _Block:
    """An open loop: iterations of it in a whole call, what it has evaluated, and its work at a point if innermost."""

    atom: Atom | None
    times: float
    memo: dict[object, int] = field(default_factory=dict)
    work: Work | None = None
    scalar: bool = False
    heaviest: float = 0.0


class Walk:
    """Counts the work of one part of a kernel at given sizes of its loops; what it touches is added to `traffic`."""

    def __init__(self, schedule: Schedule, axes: Mapping[str, int], caches: Caches, traffic: Traffic) -> None:
        self.schedule, self.layout, self.axes, self.caches = schedule, schedule.layout, axes, caches
        self.known = stored(schedule.roots)
        self.blocked = schedule.tile is not None and schedule.tile[1] in schedule.parallel
        tasks = prod(self.count(atom) for atom in schedule.parallel)
        self.counts, self.traffic = Counts(tasks), traffic
        self.depths: dict[Atom, int] = dict.fromkeys(schedule.parallel, 0)
        if schedule.tile and self.blocked:
            self.depths[schedule.tile[0]] = 0
        self.segments: dict[Atom, tuple[int, int]] = {}
        self.blocks: list[_Block] = []
        self._branch([atom for atom in schedule.parallel if len(self.layout.pieces(atom)) > 1], tasks)

    def size(self, size: Size) -> int:
        """Fill in the names of a size; an axis that is empty counts as one element."""
        return prod((max(1, self.axes[name]) for name in size.names), start=size.factor)

    def count(self, atom: Atom) -> float:
        """Return the iterations of a loop; of a blocked one those of an average block."""
        tile = self.schedule.tile
        if tile and atom is tile[1]:
            return ceil(self.size(tile[0].size) / tile[2])
        size = self.size(atom.size)
        if tile and atom is tile[0] and self.blocked:
            return size / ceil(size / tile[2])
        return size

    def elements(self, atoms: tuple[Atom, ...]) -> int:
        """Return the elements of a tensor."""
        return prod(self.size(atom.size) for atom in atoms)

    def _branch(self, cut: list[Atom], tasks: float) -> None:
        """Walk over the loops once for every piece of the concatenations along parallel loops."""
        if not cut:
            self.blocks = [_Block(None, tasks)]
            self._items(self.schedule.tree, ())
            return
        for low, high in self.layout.pieces(cut[0]):
            self.segments[cut[0]] = (low, high)
            self._branch(cut[1:], tasks * (high - low) / self.size(cut[0].size))
        del self.segments[cut[0]]

    def _items(self, items: tuple[Loop | Leaf, ...], above: tuple[Atom, ...]) -> None:
        for item in items:
            if isinstance(item, Leaf):
                for root in item.roots:
                    self._write(root)
                self.traffic.end_pass()
            else:
                self._loop(item, above)

    def _loop(self, loop: Loop, above: tuple[Atom, ...]) -> None:
        bound = {*self.schedule.parallel, *above}
        for root in loop.roots:
            if root.folds and loop.atom in root.over and not root.over & set(above):
                self._begin(root, bound)
        whole = self.size(loop.atom.size)
        for low, high in self.layout.pieces(loop.atom) or [(0, whole)]:
            self.segments[loop.atom] = (low, high)
            with self._open(loop, self.count(loop.atom) * (high - low) / whole):
                self._items(loop.body, (*above, loop.atom))
        del self.segments[loop.atom]

    @contextmanager
    def _open(self, loop: Loop, count: float) -> Iterator[None]:
        outer = self.blocks[-1].times
        innermost = all(isinstance(item, Leaf) for item in loop.body)
        block = _Block(loop.atom, outer * count, work=Work() if innermost else None)
        before = self.depths.get(loop.atom)
        self.blocks.append(block)
        self.depths[loop.atom] = len(self.blocks) - 1
        yield
        self.blocks.pop()
        del self.depths[loop.atom]
        if before is not None:
            self.depths[loop.atom] = before
        if block.work is not None:
            self._close(block, block.work, outer)

    def _close(self, block: _Block, work: Work, runs: float) -> None:
        """Add the work of an innermost loop to the call's, parted into what fills vectors and what does not."""
        tail = (block.times / runs) % LANES * runs
        if self.blocked and self.schedule.tile and block.atom is self.schedule.tile[0]:
            # Blocks are whole vectors, all but the last.
            tail = self.size(block.atom.size) % LANES * runs / ceil(self.size(block.atom.size) / self.schedule.tile[2])
        slow = block.times if block.scalar else tail
        total, full = self.counts.work, block.times - slow
        self.counts.run += runs
        self.counts.scalar += work.light * slow
        self.counts.scalar_expensive += work.expensive * slow
        total.light += work.light * full
        total.expensive += work.expensive * full
        # LLVM interleaves the iterations of a loop with one dear operator, but not of longer ones.
        total.chained += (work.expensive - block.heaviest) * full
        for name in _UNDIVIDED:
            setattr(total, name, getattr(total, name) + getattr(work, name) * block.times)

    def _spend(self, depth: int, **work: float) -> None:
        """Count work at a point of the loop at a depth."""
        block = self.blocks[depth]
        for name, amount in work.items():
            if block.work is not None:
                setattr(block.work, name, getattr(block.work, name) + amount)
            elif name == "light":
                self.counts.scalar += amount * block.times
            elif name == "expensive":
                self.counts.scalar_expensive += amount * block.times
            else:
                setattr(self.counts.work, name, getattr(self.counts.work, name) + amount * block.times)

    def _begin(self, root: Root, bound: set[Atom]) -> None:
        if set(root.own) <= bound:
            self.counts.fold += self.blocks[-1].times
            return
        inner = prod(self.count(atom) for atom in self.schedule.buffers[root] if atom not in bound)
        self._spend(len(self.blocks) - 1, scratch=inner * _width(root.value))

    def _write(self, root: Root) -> None:
        here = len(self.blocks) - 1
        if root.kept:
            self._compute(root.value, {})
            self.blocks[-1].memo[self._key(root.value, {})] = here
        else:
            self._value(root.expression, {})
        if root.folds:
            assert isinstance(root.value, Reduce)
            self._operator(ops.SCALARS[ops.REDUCTIONS[root.value.op]].cost, ops.Class.LIGHT, root.value, here)
            buffered = root in self.schedule.buffers and not set(root.own) <= self._outside(root)
            self._spend(here, scratch=2 * _width(root.value) if buffered else 0.0)
        elif root.output is not None:
            self._access(self._output(root), root.value, root.own, {}, here)
        elif root in self.schedule.buffers:
            self._spend(here, scratch=_width(root.value))

    def _outside(self, root: Root) -> set[Atom]:
        """Return the loops around the loop in which a reduction starts."""
        out = set(self.schedule.parallel)
        for block in self.blocks[1:]:
            if block.atom in root.over:
                break
            if block.atom is not None:
                out.add(block.atom)
        return out

    def _value(self, value: Value, env: Env) -> int:
        """Count the evaluation of a value at the current point of the loops; return the depth where it happens."""
        env = {atom: env[atom] for atom in self.layout.flat(value.axes) if atom in env}
        key = self._key(value, env)
        for block in reversed(self.blocks):
            if key in block.memo:
                return block.memo[key]
        root = self.known.get(value)
        depth = self._compute(value, env) if root is None else self._read_back(root, env)
        self.blocks[depth].memo[key] = depth
        return depth

    def _key(self, value: Value, env: Env) -> object:
        """Name an evaluation; equal loads are one, as they are the same text to the renderer."""
        if isinstance(value, Load):
            return value.position, self.layout.flat(value.axes), frozenset(env.items())
        return value, frozenset(env.items())

    def _read_back(self, root: Root, env: Env) -> int:
        depth = self._depth(root.own, env)
        if root.output is not None:
            self._access(self._output(root), root.value, root.own, env, depth)
        elif root in self.schedule.buffers:
            self._spend(depth, scratch=_width(root.value))
        return depth

    def _output(self, root: Root) -> tuple[str, int]:
        assert root.output is not None
        return "out", self.layout.program.position(root.output)

    def _depth(self, atoms: tuple[Atom, ...], env: Env) -> int:
        return max((env[atom].depth if atom in env else self.depths[atom] for atom in atoms), default=0)

    def _compute(self, value: Value, env: Env) -> int:
        match value:
            case Load(position=position):
                own = self.layout.flat(value.axes)
                depth = self._depth(own, env)
                self._access(("in", position), value, own, env, depth)
                return depth
            case Iota(atom=atom):
                return self._operator(value_cost(value), ops.Class.LIGHT, value, self._at(atom, env).depth)
            case At(arg=arg, atom=atom, index=index):
                return self._value(arg, {**env, self.layout.one(atom): self._affine(index, env)})
            case Take(arg=arg, atom=atom, index=index):
                depth = self._value(index, env)
                self.blocks[depth].scalar = True
                self._operator(value_cost(value), ops.Class.LIGHT, value, depth)
                return self._value(arg, {**env, self.layout.one(atom): Index(None, 0, depth, True)})
            case Concat():
                return self._concat(value, env)
            case Elementwise(op=op, args=args):
                depth = max((self._value(arg, env) for arg in args), default=0)
                row = ops.SCALARS.get(op)
                return self._operator(value_cost(value), row.kind if row else ops.Class.LIGHT, value, depth)
            case Const() | Count():
                return 0
        raise AssertionError(f"{type(value).__name__} is stored")

    def _operator(self, cost: float, kind: ops.Class, value: Value, depth: int) -> int:
        """Count an operator at a point; wide elements fill more registers."""
        if isinstance(value, Elementwise) and value.op in ops.SCALARS:
            library = ops.unvectorised_cost(value.op, value.args[0].dtype)
            if library:
                self._spend(depth, library=library)
                return depth
        wide = cost * max(1.0, _width(value) / 4)
        if kind is ops.Class.LIGHT:
            self._spend(depth, light=wide)
        else:
            self._spend(depth, expensive=wide)
            self.blocks[depth].heaviest = max(self.blocks[depth].heaviest, wide)
        return depth

    def _at(self, atom: Atom, env: Env) -> Index:
        loop = self.layout.one(atom)
        return env.get(loop) or Index(loop, 1, self.depths[loop])

    def _affine(self, index: Affine, env: Env) -> Index:
        if index.atom is None:
            return Index(None, 0, 0)
        inner = self._at(index.atom, env)
        return Index(inner.atom, inner.step * index.step, inner.depth, inner.computed)

    def _concat(self, value: Concat, env: Env) -> int:
        atom, position = self.layout.one(value.atom), 0
        if atom in env:
            raise NotEmittableError("a concatenation is read at a changed index")
        low, high = self.segments[atom]
        for part, own, size in value.parts:
            if position <= low and high <= position + size.factor:
                inner = env if own is None else {**env, self.layout.one(own): Index(atom, 1, self.depths[atom])}
                return max(self._value(part, inner), self.depths[atom])
            position += size.factor
        raise AssertionError("a concatenation outside its loop")

    def _access(self, key: tuple[str, int], value: Value, own: tuple[Atom, ...], env: Env, depth: int) -> None:
        """Count a load or store: side by side in an innermost loop, at a stride, or at computed places."""
        block, width = self.blocks[depth], ops.STORAGE[value.dtype].size
        share = prod(self._share(atom) for atom in own)
        self.traffic.touch(key, block.times * width, self.elements(own) * width, share)
        if block.work is None:
            self._spend(depth, light=value_cost(value))
            return
        stride = self._stride(own, env, block, depth)
        if stride is None:
            self._spend(depth, gathered=1.0)
        elif stride * width < LINE and not (key[0] == "out" and stride > 1):
            self._spend(depth, near=float(width * max(1, stride)))
        else:
            self._spend(depth, **self._apart(block, depth, stride * width))
            block.scalar |= key[0] == "out"

    def _apart(self, block: _Block, depth: int, stride: int) -> dict[str, float]:
        """Count an access whose neighbours lie a stride of bytes away, and the caches that have lost its line."""
        steps = block.times / self.blocks[depth - 1].times
        l2, l3 = (misses(steps, stride, *cache) for cache in ((self.caches.l1, L1_WAYS), (self.caches.l2, L2_WAYS)))
        return {"strided": 1.0, "strided_l2": l2, "strided_l3": l3}

    def _share(self, atom: Atom) -> float:
        """Return the share of a loop that one task runs."""
        if atom in self.schedule.parallel:
            return 1 / self.count(atom)
        return self.count(atom) / self.size(atom.size)

    def _stride(self, own: tuple[Atom, ...], env: Env, block: _Block, depth: int) -> int | None:
        """Return the elements between neighbouring iterations of an innermost loop; None where they are computed."""
        total, below = 0, 1
        for atom in reversed(own):
            index = env.get(atom) or Index(atom, 1, 0)
            if index.computed and index.depth == depth:
                return None
            total += index.step * below if index.atom is block.atom else 0
            below *= self.size(atom.size)
        return abs(total)


def _width(value: Value) -> int:
    """Return the bytes of an element in a register or a buffer."""
    storage = ops.STORAGE[value.dtype]
    return 4 if storage.memory == "f16" else storage.size
