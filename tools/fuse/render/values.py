"""Expressions of a numba kernel: values, indices and sizes at one point of the loops."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from sartor.tools.fuse import ops
from sartor.tools.fuse.axes import Atom, NotEmittableError
from sartor.tools.fuse.program import (
    Affine,
    At,
    Concat,
    Const,
    Count,
    Elementwise,
    Iota,
    Load,
    Take,
    Value,
)  # fmt: skip
from sartor.tools.fuse.render.sizes import Sizes
from sartor.tools.fuse.render.source import Placed, Source
from sartor.tools.fuse.schedule import Root, Schedule, paths, stored

MAX_TENSORS = 64
Env = dict[Atom, Placed]
"""Loops that a slice, gather or concatenation has replaced by another index."""

Tensors = dict[tuple[str, int] | Root, int]
"""The number of every input, output and buffer of a kernel, by which loads and stores say what they touch."""


class Values:
    """Evaluates values at the current point of the loops of one part of a kernel; what is needed once goes to the block
    it belongs to.

    `index` holds the open loops' variables, `segments` the part of a concatenation that the open loops walk over, and
    `block` the first element of the current block of the unit-stride loop.
    """

    def __init__(
        self, schedule: Schedule, places: Mapping[Root, Root], sizes: Sizes, tensor: Tensors, suffix: str
    ) -> None:
        self.schedule, self.layout = schedule, schedule.layout
        self.program = schedule.layout.program
        self.sizes, self.tensor = sizes, tensor
        self.out = Source(suffix)
        self.known = stored(schedule.roots)
        self.index: dict[Atom, Placed] = {}
        self.segments: dict[Atom, tuple[int, int]] = {}
        self.block: Placed | None = None
        parallel, nests = schedule.parallel, paths(schedule.tree)
        self.nesting = {root: [*parallel, *(loop.atom for loop in nest)] for root, nest in nests.items()}
        self.homes = places
        own = [root for root, home in places.items() if root is home]
        self.slots = {root: f"m{i}{suffix}" for i, root in enumerate(own)}

    def position(self, root: Root) -> int:
        """Return the place of an output among those of the kernel."""
        assert root.output is not None
        return self.program.position(root.output)

    def size(self, atom: Atom) -> str:
        """Spell the number of iterations of a loop, ready to be a factor."""
        return factor(self.sizes.text(atom.size))

    def loop_count(self, atom: Atom) -> str:
        """Spell the number of iterations of a parallel loop, which may be one over blocks."""
        tile = self.schedule.tile
        if not tile or atom is not tile[1]:
            return self.size(atom)
        if self.program.cut:
            return self.size(atom)
        if not atom.size.names:
            return str(-(-atom.size.factor // tile[2]))
        return f"(({self.size(atom)} + {tile[2] - 1}) // {tile[2]})"

    def stored_count(self, atom: Atom) -> str:
        """Spell the number of elements of a buffer along an atom."""
        tile = self.schedule.tile
        return str(tile[2]) if tile and atom is tile[0] else self.size(atom)

    def pieces(self, atom: Atom) -> list[tuple[int, int]]:
        """Cut a loop at the borders of every concatenation along it."""
        return self.layout.pieces(atom)

    def _at(self, atom: Atom, env: Env) -> Placed:
        return env.get(atom) or self.index[atom]

    def offset(self, atoms: tuple[Atom, ...], env: Env, counts: Callable[[Atom], str], shift: bool = False) -> Placed:
        """Spell the position of an element in row-major order, the part of outer loops computed outside."""
        terms: dict[int, list[str]] = {}
        for position, atom in enumerate(atoms):
            at = self._at(atom, env)
            stride = " * ".join(counts(inner) for inner in atoms[position + 1 :])
            text = at.text
            if shift and self.schedule.tile and atom is self.schedule.tile[0] and self.block:
                text = f"({text} - {self.block.text})"
            terms.setdefault(at.depth, []).append(f"{text} * {stride}" if stride else text)
        total = Placed("0")
        for depth in sorted(terms):
            whole = terms[depth] if total.text == "0" else [total.text, *terms[depth]]
            total = Placed(" + ".join(whole), depth)
            if depth != max(terms):
                total = self.out.hold(total, "o")
        return total

    def value(self, value: Value, env: Env) -> Placed:
        """Evaluate a value at the current point of the loops."""
        # What an index outside a value's own axes is changed to makes no difference to it.
        env = {atom: env[atom] for atom in self.layout.flat(value.axes) if atom in env}
        key = (value, tuple(sorted((id(atom), place.text) for atom, place in env.items())))
        found = self.out.recall(key)
        if found is not None:
            return found
        if value in self.known:
            return self.out.remember(key, self._read_back(value, env))
        place = self._compute(value, env)
        return place if isinstance(value, Concat) else self.out.remember(key, place)

    def _read_back(self, value: Value, env: Env) -> Placed:
        root = self.known[value]
        kind = ops.compute_type(value.dtype)
        if root.output is not None:
            at, position = self.offset(root.own, env, self.size), self.position(root)
            return self.out.hold(
                Placed(f"load_{kind}(y{position}, {at.text}, {self.tensor['out', position]})", at.depth)
            )
        if root not in self.homes:
            raise AssertionError("a value is read outside the loops that hold it")
        at = self.slot_offset(root, env)
        return self.out.hold(Placed(f"load_{kind}({self.slot(root, at)})", at.depth))

    def slot(self, root: Root, at: Placed, value: str = "") -> str:
        """Spell the arguments of an access to the memory of a kept root: pointer, position, value, tensor."""
        home = self.homes[root]
        name, number = self.slots.get(home), self.tensor.get(home)
        if home.output is not None:
            name, number = f"y{self.position(home)}", self.tensor["out", self.position(home)]
        return ", ".join([f"{name}", at.text, *([value] if value else []), f"{number}"])

    def slot_offset(self, root: Root, env: Env) -> Placed:
        """Spell the position of an element of a kept root in its memory."""
        home = self.homes[root]
        if home.output is not None:
            return self.offset(home.own, env, self.size)
        return self.offset(self.slot_order(root), env, self.stored_count, shift=True)

    def slot_order(self, root: Root) -> tuple[Atom, ...]:
        """Order a buffer's loops as those in which it is made, so that what a loop makes lies together."""
        return tuple(sorted(self.schedule.buffers[root], key=self.nesting[root].index))

    def _compute(self, value: Value, env: Env) -> Placed:
        match value:
            case Load(position=position):
                at = self.offset(self.layout.flat(value.axes), env, self.size)
                memory = ops.STORAGE[value.dtype].memory
                return self.out.hold(
                    Placed(f"load_{memory}(x{position}, {at.text}, {self.tensor['in', position]})", at.depth)
                )
            case Const():
                return Placed(literal(value.value, ops.compute_type(value.dtype)))
            case Count(over=over):
                count = " * ".join(self.size(atom) for atom in self.layout.flat(over)) or "1"
                # The mean of nothing is 0, as in onnxruntime.
                known = all(not atom.size.names for atom in self.layout.flat(over))
                return self.out.hold(
                    Placed(f"{ops.compute_type(value.dtype)}({count if known else f'max({count}, 1)'})")
                )
            case Iota(atom=atom):
                at = self._at(self.layout.one(atom), env)
                return Placed(f"i64({at.text})", at.depth)
            case At(arg=arg, atom=atom, index=index):
                return self.value(arg, {**env, self.layout.one(atom): self._affine(index, env)})
            case Take():
                return self._take(value, env)
            case Concat():
                return self._concat(value, env)
            case Elementwise():
                return self._elementwise(value, env)
        raise AssertionError(f"{type(value).__name__} is stored")

    def _elementwise(self, value: Elementwise, env: Env) -> Placed:
        operands = [self.value(arg, env) for arg in value.args]
        if value.op == "view":
            return operands[0]
        texts = [operand.text for operand in operands]
        depth = max(operand.depth for operand in operands)
        kind = ops.compute_type(value.dtype)
        if value.op == "where":
            text = f"select({', '.join(texts)})"
        elif value.op == "cast":
            text = conversion(value.args[0], value, texts[0])
        else:
            text = f"{kind}({ops.scalar_expression(value.op, value.args[0].dtype, texts)})"
        return self.out.hold(Placed(text, depth))

    def _affine(self, index: Affine, env: Env) -> Placed:
        start = " + ".join(([self.sizes.text(index.length)] if index.length else []) + [str(index.offset)])
        if index.atom is None:
            return Placed(f"({start})")
        at = self._at(self.layout.one(index.atom), env)
        step = at.text if index.step == 1 else f"({index.step}) * {at.text}"
        return Placed(f"({start} + {step})", at.depth)

    def _take(self, value: Take, env: Env) -> Placed:
        atom = self.layout.one(value.atom)
        wanted, size = self.value(value.index, env), self.size(atom)
        index = self.out.hold(Placed(f"i64({wanted.text}) + ({size} if {wanted.text} < 0 else 0)", wanted.depth), "g")
        check = f"if {index.text} < 0 or {index.text} >= {size}: return 1"
        block = self.out.blocks[index.depth]
        if check not in block.names:
            block.names[check] = ""
            block.lines.append(check)
        return self.value(value.arg, {**env, atom: index})

    def _concat(self, value: Concat, env: Env) -> Placed:
        atom = self.layout.one(value.atom)
        if atom in env:
            raise NotEmittableError("a concatenation is read at a changed index")
        low, high = self.segments.get(atom, (0, 0))
        position = 0
        for part, own, size in value.parts:
            if position <= low and high <= position + size.factor:
                at = self.index[atom]
                inner = (
                    env if own is None else {**env, self.layout.one(own): Placed(f"({at.text} - {position})", at.depth)}
                )
                place = self.value(part, inner)
                return Placed(place.text, max(place.depth, at.depth))
            position += size.factor
        raise AssertionError("a concatenation outside its loop")

    def fresh_value(self, root: Root) -> Placed:
        """Evaluate a kept value itself instead of reading it back."""
        if not root.kept:
            return self.value(root.value, {})
        return self._compute(root.value, {})


def factor(text: str) -> str:
    """Put parentheses around a compound expression."""
    return f"({text})" if " " in text else text


def literal(value: float | int | bool, kind: str) -> str:
    """Spell a constant of a compute type."""
    if isinstance(value, float) and math.isinf(value):
        return f"{kind}({'-' * (value < 0)}inf)"
    return f"{kind}({value!r})"


def conversion(source: Value, target: Value, text: str) -> str:
    """Spell a cast; small integers are reached through a wider one, as C compilers do."""
    have, want = ops.compute_type(source.dtype), ops.compute_type(target.dtype)
    if ops.STORAGE[target.dtype].memory == "f16":
        return f"round_f16(f32({text}))"
    if want == "b1":
        return f"{text} != {have}(0)"
    if have[0] == "f" and want in ("i8", "i16", "u8", "u16"):
        return f"{want}(i32({text}))"
    return f"{want}(i64({text}))" if have[0] == "f" and want == "u32" else f"{want}({text})"
