"""Scheduling: which values get storage, and the tree of loops that computes them.

Roots are the values that are written somewhere: outputs, reductions, and temporaries (values that two loops need and
that cost more to compute twice than to keep). A loop may enclose a run of roots if its atom indexes all of them and
none of them needs the finished result of a reduction over it. Runs are made as long as possible, outermost loops first,
so that a row (softmax, LayerNorm and what hangs on them) is read from memory once and stays in cache. The loop with
unit stride is kept innermost; where it carries no reduction it is cut into blocks, which gives elementwise kernels
their tasks and column reductions their accumulators in cache.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from sartor.tools.fuse import ops
from sartor.tools.fuse.axes import Atom
from sartor.tools.fuse.layout import Layout, ranked, shifted_values
from sartor.tools.fuse.program import (
    Elementwise,
    Iota,
    Load,
    Program,
    Reduce,
    Take,
    Value,
    operands,
    walk,
)  # fmt: skip

KEEP_COST = 0.2
"""Nanoseconds an element above which a value that two loops need is kept instead of computed twice."""

FLAT_BLOCK, COLUMN_BLOCK = 2048, 128
"""Elements of a block of the unit-stride loop, in element-wise kernels and around reductions."""

ROW = 1024
"""Elements up to which reductions over other loops keep accumulators for a whole row, which is read as it lies."""


@dataclass(frozen=True, eq=False)
class Root:
    """A value that is written: a reduction, an output (its position) or a temporary; `kept` ones are read back.

    A `staged` one is an input that is read by the stride: what needs it runs in a loop of its own, which vectorises.
    """

    value: Value
    own: tuple[Atom, ...]
    over: frozenset[Atom]
    output: int | None = None
    kept: bool = False
    staged: bool = False

    @property
    def folds(self) -> bool:
        """Tell whether the root accumulates instead of storing."""
        return isinstance(self.value, Reduce) and self.output is None

    @property
    def expression(self) -> Value:
        """What the innermost loop evaluates."""
        return self.value.arg if isinstance(self.value, Reduce) and self.folds else self.value

    @property
    def domain(self) -> frozenset[Atom]:
        """All loops that the root runs in."""
        return self.over | frozenset(self.own)


@dataclass(frozen=True)
class Leaf:
    """Roots evaluated at one point of all their loops."""

    roots: tuple[Root, ...]


@dataclass(frozen=True)
class Loop:
    """A loop over an atom and what runs inside it; `roots` are all roots inside."""

    atom: Atom
    body: tuple[Loop | Leaf, ...]
    roots: tuple[Root, ...]


@dataclass(frozen=True)
class Schedule:
    """A kernel's loops: the parallel ones become tasks, `tile` is the blocked atom with its block size."""

    layout: Layout
    roots: tuple[Root, ...]
    parallel: tuple[Atom, ...]
    tree: tuple[Loop | Leaf, ...]
    tile: tuple[Atom, Atom, int] | None
    buffers: dict[Root, tuple[Atom, ...]]


def schedule(program: Program) -> Schedule:
    """Choose roots, loops and storage for a program.

    Raises NotEmittableError where an index map reaches through a stored value.
    """
    layout = Layout(program)
    roots = roots_of(layout)
    tree, tile = _tree(layout, roots)
    kept = (*_temporaries(layout, roots, tree), *_strided(layout, roots))
    if kept:
        roots = roots_of(layout, kept)
        tree, tile = _tree(layout, roots)
    parallel, body = _parallel(tree)
    return Schedule(layout, roots, parallel, body, tile, _buffers(roots, tree))


def strip(value: Value) -> Value:
    """Look through views."""
    while isinstance(value, Elementwise) and value.op == "view":
        value = value.args[0]
    return value


def stored(roots: Iterable[Root]) -> dict[Value, Root]:
    """Map the values that are read back, instead of evaluated again, to their roots."""
    return {root.value: root for root in roots if root.folds or root.kept}


def roots_of(layout: Layout, kept: tuple[Value, ...] = ()) -> tuple[Root, ...]:
    """List the values that are written, those first that need fewer of the others one after the other."""
    outputs = [strip(value) for value in layout.program.outputs]
    roots: dict[Value, Root] = {}
    for value in layout.values:
        own = layout.flat(value.axes)
        if isinstance(value, Reduce):
            roots[value] = Root(value, own, frozenset(layout.flat(value.over)))
        elif value in kept and not (value in outputs and exact(value)):
            roots[value] = Root(value, own, frozenset(), kept=True, staged=isinstance(value, Load))
    writes = [
        Root(
            value,
            layout.flat(whole.axes),
            frozenset(),
            position,
            value in kept and exact(value) and outputs.index(value) == position,
        )
        for position, (value, whole) in enumerate(zip(outputs, layout.program.outputs, strict=True))
    ]
    return _by_level([*roots.values(), *writes], layout)


def exact(value: Value) -> bool:
    """Tell whether memory holds a value as it is computed."""
    storage = ops.STORAGE[value.dtype]
    return storage.memory == storage.compute


def _by_level(roots: list[Root], layout: Layout) -> tuple[Root, ...]:
    """Sort by the longest chain of stored values, so that independent reductions share a pass."""
    position = {value: i for i, value in enumerate(layout.values)}
    known = stored(roots)
    level: dict[Root, int] = {}
    for root in sorted(roots, key=lambda root: position[root.value]):
        level[root] = 1 + max((level[other] for other in reads(root, known)), default=0)
    return tuple(sorted(level, key=lambda root: level[root]))


def reads(root: Root, known: dict[Value, Root]) -> set[Root]:
    """Return the roots whose stored values the expression of `root` needs."""
    out: set[Root] = set()
    seen: set[Value] = set()
    stack = [root.expression]
    while stack:
        value = stack.pop()
        if value in seen:
            continue
        seen.add(value)
        if value in known and known[value] is not root:
            out.add(known[value])
        else:
            stack.extend(operands(value))
    return out


def loops_of(layout: Layout, roots: Iterable[Root]) -> list[Atom]:
    """Order all loops as the largest tensors in memory have them, outermost first."""
    order = ranked(layout.memory())
    return list(dict.fromkeys([*order, *(atom for root in roots for atom in (*root.own, *root.over))]))


def _tree(layout: Layout, roots: tuple[Root, ...]) -> tuple[tuple[Loop | Leaf, ...], tuple[Atom, Atom, int] | None]:
    order = loops_of(layout, roots)
    unit = _unit(layout)
    tile = _tile(layout, roots, unit)
    domains = {root: root.domain | ({tile[1]} if tile else set()) for root in roots}
    if tile:
        order = [atom for atom in order if atom is not tile[1]]
        order.insert(order.index(tile[0]), tile[1])
    known = stored(roots)
    needs = {root: reads(root, known) for root in roots}
    return _Nest(order, unit, needs).build(roots, domains), tile


def _unit(layout: Layout) -> Atom | None:
    """Choose the loop with unit stride in the largest tensors; outputs count more, scattered stores being dear."""
    votes: dict[Atom, int] = {}
    inputs = len([value for value in layout.values if isinstance(value, Load)])
    blocks = layout.program.cut and layout.program.cut.blocks
    for i, whole in enumerate(layout.memory()):
        string = [atom for atom in whole if atom is not blocks]
        if string:
            votes[string[-1]] = votes.get(string[-1], 0) + (3 if i >= inputs else 2) * 4 ** len(string)
    return max(votes, key=lambda atom: votes[atom]) if votes else None


def _tile(layout: Layout, roots: tuple[Root, ...], unit: Atom | None) -> tuple[Atom, Atom, int] | None:
    """Cut the loop that the program says, or the unit-stride loop if it indexes every root and none reduces over it."""
    cut = layout.program.cut
    if cut is not None:
        return layout.loop(cut.atom), cut.blocks, cut.length
    if unit is None or any(unit in root.over or unit not in root.own for root in roots):
        return None
    if not any(root.over for root in roots):
        return unit, Atom(unit.size), FLAT_BLOCK
    short = not unit.size.names and unit.size.factor <= ROW
    return None if short else (unit, Atom(unit.size), COLUMN_BLOCK)


@dataclass(frozen=True)
class _Nest:
    """Builds the loop tree; `needs` are the direct dependences between roots."""

    order: list[Atom]
    unit: Atom | None
    needs: dict[Root, set[Root]]

    def build(self, roots: tuple[Root, ...], rest: dict[Root, frozenset[Atom]]) -> tuple[Loop | Leaf, ...]:
        """Nest `roots`, of which the loops `rest` are still to be opened."""
        out: list[Loop | Leaf] = []
        position = 0
        while position < len(roots):
            end, atoms = self._run(roots, position, rest)
            run = roots[position:end]
            if not atoms:
                out.append(Leaf(run))
            else:
                atom = min(atoms, key=self.order.index)
                inner = {root: rest[root] - {atom} for root in run}
                out.append(Loop(atom, self.build(run, inner), run))
            position = end
        return tuple(out)

    def _run(self, roots: tuple[Root, ...], start: int, rest: dict[Root, frozenset[Atom]]) -> tuple[int, set[Atom]]:
        atoms = self._candidates(roots[start : start + 1], rest)
        end = start + 1
        while end < len(roots):
            more = self._candidates(roots[start : end + 1], rest)
            both_done = not atoms and not rest[roots[end]]
            if not more and not both_done:
                break
            atoms, end = more, end + 1
        return end, atoms

    def _candidates(self, run: tuple[Root, ...], rest: dict[Root, frozenset[Atom]]) -> set[Atom]:
        common = set(frozenset.intersection(*(rest[root] for root in run)))
        needed = set().union(*(self.needs[root] for root in run)) & set(run)
        common -= {atom for root in needed for atom in root.over}
        if any(root.staged for root in needed):
            common.discard(self.unit)
        if self.unit in common and any(rest[root] != {self.unit} for root in run):
            common.discard(self.unit)
        return common


def _parallel(tree: tuple[Loop | Leaf, ...]) -> tuple[tuple[Atom, ...], tuple[Loop | Leaf, ...]]:
    atoms: list[Atom] = []
    while len(tree) == 1 and isinstance(tree[0], Loop) and not any(tree[0].atom in r.over for r in tree[0].roots):
        if not tree[0].body or (isinstance(tree[0].body[0], Leaf) and atoms):
            break
        atoms.append(tree[0].atom)
        tree = tree[0].body
    return tuple(atoms), tree


def paths(tree: tuple[Loop | Leaf, ...], above: tuple[Loop, ...] = ()) -> dict[Root, tuple[Loop, ...]]:
    """Map every root to the loops around it, outermost first."""
    out: dict[Root, tuple[Loop, ...]] = {}
    for item in tree:
        if isinstance(item, Leaf):
            out.update(dict.fromkeys(item.roots, above))
        else:
            out.update(paths(item.body, (*above, item)))
    return out


def _buffers(roots: tuple[Root, ...], tree: tuple[Loop | Leaf, ...]) -> dict[Root, tuple[Atom, ...]]:
    """Give scratch memory, and the atoms that index it, to what is needed outside the loops in which it is made."""
    where, known = paths(tree), stored(roots)
    users: dict[Root, list[Root]] = {}
    for root in roots:
        for other in reads(root, known):
            users.setdefault(other, []).append(root)
    out = {}
    for root in roots:
        shared = {loop.atom for loop in where[root] if all(loop in where[user] for user in users.get(root, []))}
        atoms = tuple(atom for atom in root.own if atom not in shared)
        if root.output is None and atoms:
            out[root] = atoms
    return out


def _temporaries(layout: Layout, roots: tuple[Root, ...], tree: tuple[Loop | Leaf, ...]) -> tuple[Value, ...]:
    """Find dear values that two leaves need, from the outputs down, so that the whole of an expression is kept."""
    where = paths(tree)
    leaf = {root: i for i, item in enumerate(leaves(tree)) for root in item.roots}
    parallel = {loop.atom for loop in _shared_loops(where)}
    shifted = shifted_values(layout)
    wide = {value for value in layout.values if any(atom not in parallel for atom in layout.flat(value.axes))}
    cost: dict[Value, float] = {}
    for value in layout.values:
        spent = value_cost(value) + sum(cost[a] for a in operands(value) if not isinstance(a, Reduce))
        # What does not change within a task is computed outside its loops.
        cost[value] = spent if value in wide else 0.0
    need: dict[Value, set[int]] = {value: set() for value in layout.values}
    for root in roots:
        need[root.expression].add(leaf[root])
    kept: list[Value] = []
    for value in reversed(layout.values):
        if isinstance(value, Reduce):
            continue
        computed = isinstance(value, Elementwise) and value.op != "view"
        if len(need[value]) > 1 and cost[value] >= KEEP_COST and value in wide and computed and value not in shifted:
            kept.append(value)
            need[value] = {min(need[value])}
        for operand in operands(value):
            if not isinstance(operand, Reduce):
                need[operand] |= need[value]
    return tuple(kept)


def _strided(layout: Layout, roots: tuple[Root, ...]) -> tuple[Value, ...]:
    """Find inputs that the unit-stride loop reads by another stride for work that is worth vectorising.

    LLVM leaves a loop with such a read scalar, with all that hangs on it.
    """
    unit, shifted = _unit(layout), shifted_values(layout)
    out: list[Value] = []
    for root in roots:
        values = [value for value in walk((root.expression,)) if unit in layout.flat(value.axes)]
        if sum(map(value_cost, values)) < KEEP_COST or unit not in root.domain:
            continue
        loads = [value for value in values if isinstance(value, Load) and value not in shifted]
        out += [value for value in loads if layout.flat(value.axes)[-1] is not unit]
    return tuple(dict.fromkeys(out))


def leaves(tree: tuple[Loop | Leaf, ...]) -> list[Leaf]:
    """List the leaves in the order in which they run."""
    out: list[Leaf] = []
    for item in tree:
        out.extend([item] if isinstance(item, Leaf) else leaves(item.body))
    return out


def _shared_loops(where: dict[Root, tuple[Loop, ...]]) -> list[Loop]:
    chains = list(where.values())
    return [loop for loop in chains[0] if all(loop in chain for chain in chains)]


def value_cost(value: Value) -> float:
    """Return the nanoseconds an element of one operator, its operands not counted."""
    match value:
        case Elementwise(op="view"):
            return 0.0
        case Elementwise(op="where"):
            return ops.WHERE_COST
        case Elementwise(op="cast"):
            return ops.CAST_COST
        case Elementwise(op=op, args=args):
            return ops.unvectorised_cost(op, args[0].dtype) or ops.SCALARS[op].cost
        case Load() | Take() | Iota():
            return 0.03
    return 0.0
