"""From a schedule to the source of a numba kernel (the interface is described in share/runtime/kernel.py)."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

from sartor.tools.fuse import ops
from sartor.tools.fuse.axes import Atom, NotEmittableError, Size, axis_size
from sartor.tools.fuse.program import (
    Affine,
    At,
    Concat,
    Const,
    Count,
    Elementwise,
    Iota,
    Load,
    Reduce,
    Take,
    Value,
)  # fmt: skip
from sartor.tools.fuse.render.sizes import Sizes
from sartor.tools.fuse.render.source import Placed, Source
from sartor.tools.fuse.schedule import Leaf, Loop, Root, Schedule, stored

MAX_TENSORS = 64
ALIGN = 64
Env = dict[Atom, Placed]


def render(schedule: Schedule) -> str:
    """Write the kernel's source: a function `kernel` of six arguments.

    Raises NotEmittableError for what the schedule or the interface can't express.
    """
    return _Kernel(schedule).source()


class _Kernel:
    def __init__(self, schedule: Schedule) -> None:
        self.schedule, self.layout = schedule, schedule.layout
        self.program = schedule.layout.program
        self.sizes = Sizes(self.program.inputs)
        self.out = Source()
        self.known = stored(schedule.roots)
        self.index: dict[Atom, Placed] = {}
        self.segments: dict[Atom, tuple[int, int]] = {}
        self.block: Placed | None = None
        self.accumulators: dict[Root, str] = {}
        present = [i for i, kind in enumerate(self.program.inputs) if kind is not None]
        self.tensor: dict[tuple[str, int] | Root, int] = {("in", i): n for n, i in enumerate(present)}
        self.tensor.update({("out", i): len(self.tensor) + i for i in range(len(self.program.outputs))})
        self.tensor.update({root: len(self.tensor) + i for i, root in enumerate(schedule.buffers)})
        self.slots = {root: f"m{i}" for i, root in enumerate(schedule.buffers)}
        if len(self.tensor) > MAX_TENSORS:
            raise NotEmittableError("a kernel of more than 64 tensors")

    # The whole function

    def source(self) -> str:
        """Put sizes, plan query and task loop together."""
        tasks = self._tasks()
        plan = self._plan()
        lines = ["def kernel(inputs, outputs, dims, scratch, begin, end):"]
        body = [*self.sizes.lines, "if begin < 0:", *("    " + line for line in plan), *self._pointers()]
        body += ["for task in range(begin, end):", *("    " + line for line in tasks), "return 0"]
        return "\n".join(lines + ["    " + line for line in body]) + "\n"

    def _tasks(self) -> list[str]:
        rest = "task"
        atoms = list(self.schedule.parallel)
        for atom in reversed(atoms):
            count = self._loop_count(atom)
            index = rest if atom is atoms[0] else f"{rest} % {count}"
            if self.schedule.tile and atom is self.schedule.tile[1]:
                self.block = self.out.hold(Placed(f"{factor(index)} * {self.schedule.tile[2]}"), "lo")
            else:
                self.index[atom] = self.out.hold(Placed(index), "k")
            if atom is not atoms[0]:
                rest = self.out.hold(Placed(f"{rest} // {count}"), "q").text
        self._branch(atoms, lambda: self._body(self.schedule.tree, ()))
        return self.out.blocks[0].lines

    def _branch(self, atoms: list[Atom], body: Callable[[], None]) -> None:
        """Run the body under `if`s where a parallel loop walks over a concatenation."""
        cut = next((atom for atom in atoms if len(self._pieces(atom)) > 1 and atom in self.index), None)
        if cut is None:
            body()
            return
        outer = self.index[cut]
        for low, high in self._pieces(cut):
            self.out.open()
            self.segments[cut], self.index[cut] = (low, high), Placed(outer.text, self.out.depth)
            self._branch(atoms[atoms.index(cut) + 1 :], body)
            self.out.close(f"if {outer.text} >= {low} and {outer.text} < {high}:")
        self.index[cut] = outer
        del self.segments[cut]

    def _plan(self) -> list[str]:
        counts = [self._loop_count(atom) for atom in self.schedule.parallel]
        total = [self.sizes.text(size) for size in self._volumes()]
        facts = [" * ".join(counts) or "1", self._scratch_end(), " + ".join(total)]
        for kind in self.program.outputs:
            facts += [self.sizes.text(axis_size(axis)) for axis in kind.axes]
        wrong = [f"if {check}: return 1" for check in dict.fromkeys(self.sizes.checks())]
        number = MAX_TENSORS - 1
        return [*wrong, *(f"store_i64(scratch, {i}, {fact}, {number})" for i, fact in enumerate(facts)), "return 0"]

    def _volumes(self) -> list[Size]:
        """Return the bytes of every input that is read and of every output."""
        seen: dict[int, Size] = {}
        for value in self.layout.values:
            if isinstance(value, Load):
                size = Size(ops.STORAGE[value.dtype].size)
                for atom in self.layout.flat(value.axes):
                    size = size * atom.size
                seen[value.position] = size
        out = []
        for value in self.program.outputs:
            size = Size(ops.STORAGE[value.dtype].size)
            for atom in self.layout.flat(value.axes):
                size = size * atom.size
            out.append(size)
        return [*seen.values(), *out]

    def _pointers(self) -> list[str]:
        lines = [f"x{i} = inputs[{i}]" for kind, i in self._named("in")]
        lines += [f"y{i} = outputs[{i}]" for kind, i in self._named("out")]
        offset = "0"
        for root, name in self.slots.items():
            lines.append(f"{name} = advance(scratch, {offset})")
            offset = f"{offset} + {self._slot_bytes(root)}"
        return lines

    def _named(self, kind: str) -> list[tuple[str, int]]:
        return [key for key in self.tensor if isinstance(key, tuple) and key[0] == kind]

    def _slot_bytes(self, root: Root) -> str:
        elements = " * ".join(self._stored_count(atom) for atom in self.schedule.buffers[root]) or "1"
        width = ops.STORAGE[root.value.dtype]
        size = 4 if width.memory == "f16" else width.size
        return f"({size} * {elements} + {ALIGN - 1}) // {ALIGN} * {ALIGN}"

    def _scratch_end(self) -> str:
        return " + ".join(self._slot_bytes(root) for root in self.slots) or "0"

    # Sizes and indices

    def size(self, atom: Atom) -> str:
        """Spell the number of iterations of a loop, ready to be a factor."""
        return factor(self.sizes.text(atom.size))

    def _loop_count(self, atom: Atom) -> str:
        tile = self.schedule.tile
        if not tile or atom is not tile[1]:
            return self.size(atom)
        if not atom.size.names:
            return str(-(-atom.size.factor // tile[2]))
        return f"(({self.size(atom)} + {tile[2] - 1}) // {tile[2]})"

    def _stored_count(self, atom: Atom) -> str:
        tile = self.schedule.tile
        return str(tile[2]) if tile and atom is tile[0] else self.size(atom)

    def _pieces(self, atom: Atom) -> list[tuple[int, int]]:
        """Cut a loop at the borders of every concatenation along it."""
        borders = {0}
        for value in self.layout.values:
            if isinstance(value, Concat) and self.layout.one(value.atom) is atom:
                position = 0
                for _, _, size in value.parts:
                    position += size.factor
                    borders.add(position)
        points = sorted(borders)
        return list(pairwise(points))

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

    # Values

    def value(self, value: Value, env: Env) -> Placed:
        """Evaluate a value at the current point of the loops."""
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
            at = self.offset(root.own, env, self.size)
            return self.out.hold(
                Placed(f"load_{kind}(y{root.output}, {at.text}, {self.tensor['out', root.output]})", at.depth)
            )
        if root not in self.slots:
            raise AssertionError("a value is read outside the loops that hold it")
        at = self.offset(self._slot_order(root), env, self._stored_count, shift=True)
        return self.out.hold(Placed(f"load_{kind}({self.slots[root]}, {at.text}, {self.tensor[root]})", at.depth))

    def _slot_order(self, root: Root) -> tuple[Atom, ...]:
        """Order a buffer's loops with the unit-stride one innermost."""
        unit = self.unit
        return tuple(sorted(self.schedule.buffers[root], key=lambda atom: atom is unit))

    @property
    def unit(self) -> Atom | None:
        """The blocked loop, or else the innermost loop of the output."""
        if self.schedule.tile:
            return self.schedule.tile[0]
        flat = self.layout.flat(self.program.outputs[0].axes)
        return flat[-1] if flat else None

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
                return self.out.hold(Placed(f"{ops.compute_type(value.dtype)}({count})"))
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

    # Loops

    def _body(self, items: tuple[Loop | Leaf, ...], above: tuple[Atom, ...]) -> None:
        for item in items:
            if isinstance(item, Leaf):
                for root in item.roots:
                    self._write(root)
            else:
                self._loop(item, above)

    def _loop(self, loop: Loop, above: tuple[Atom, ...]) -> None:
        parallel = set(self.schedule.parallel)
        opening = [root for root in loop.roots if root.folds and loop.atom in root.over and not root.over & set(above)]
        bound = parallel | set(above)
        for root in opening:
            self._begin(root, bound)
        variable = self.out.fresh("k")
        pieces = self._pieces(loop.atom)
        for low, high in pieces or [(0, 0)]:
            self.out.open()
            self.index[loop.atom] = Placed(variable, self.out.depth)
            if pieces:
                self.segments[loop.atom] = (low, high)
            self._body(loop.body, (*above, loop.atom))
            self.out.close(f"for {variable} in range({self._bounds(loop.atom, (low, high) if pieces else None)}):")
        del self.index[loop.atom]
        self.segments.pop(loop.atom, None)
        for root in opening:
            self._finish(root, bound)

    def _bounds(self, atom: Atom, piece: tuple[int, int] | None) -> str:
        tile = self.schedule.tile
        low, high = (str(piece[0]), str(piece[1])) if piece else ("0", self.size(atom))
        if tile and atom is tile[0] and self.block:
            end = f"min({self.block.text} + {tile[2]}, {high})"
            return f"{self.block.text}, {end}" if low == "0" else f"max({self.block.text}, {low}), {end}"
        return high if low == "0" else f"{low}, {high}"

    def _begin(self, root: Root, bound: set[Atom]) -> None:
        """Set an accumulator, or a buffer of them, to the neutral element."""
        assert isinstance(root.value, Reduce)
        kind = ops.compute_type(root.value.dtype)
        start = neutral(root.value.op, kind)
        if self._scalar(root, bound):
            name = self.out.fresh("a")
            self.out.line(f"{name} = {start}")
            self.accumulators[root] = name
            return
        order = self._slot_order(root)
        inner = [atom for atom in order if atom not in bound]
        assert order[len(order) - len(inner) :] == tuple(inner), "a buffer's inner loops are not innermost"
        base = (
            self.offset(order[: len(order) - len(inner)], {}, self._stored_count)
            if len(inner) < len(order)
            else Placed("0")
        )
        count = " * ".join(self._stored_count(atom) for atom in inner)
        i = self.out.fresh("j")
        self.out.line(f"for {i} in range({count}):")
        place = i if base.text == "0" else f"{factor(base.text)} * {count} + {i}"
        self.out.line(f"    store_{kind}({self.slots[root]}, {place}, {start}, {self.tensor[root]})")

    def _scalar(self, root: Root, bound: set[Atom]) -> bool:
        return set(root.own) <= bound

    def _finish(self, root: Root, bound: set[Atom]) -> None:
        """Make a finished accumulator readable in the block around its loops, and store it if others need it later."""
        name = self.accumulators.get(root)
        if name is None:
            return
        if root in self.slots:
            kind = ops.compute_type(root.value.dtype)
            at = self.offset(self._slot_order(root), {}, self._stored_count, shift=True)
            self.out.line(f"store_{kind}({self.slots[root]}, {at.text}, {name}, {self.tensor[root]})")
        self.out.remember((root.value, ()), Placed(name, self.out.depth))

    def _write(self, root: Root) -> None:
        place = self.value(root.expression, {}) if root.folds else self._fresh_value(root)
        kind = ops.compute_type(root.value.dtype)
        if root.folds:
            self._accumulate(root, place, kind)
        elif root.output is not None:
            at = self.offset(root.own, {}, self.size)
            memory = ops.STORAGE[root.value.dtype].memory
            self.out.line(f"store_{memory}(y{root.output}, {at.text}, {place.text}, {self.tensor['out', root.output]})")
        elif root in self.slots:
            at = self.offset(self._slot_order(root), {}, self._stored_count, shift=True)
            self.out.line(f"store_{kind}({self.slots[root]}, {at.text}, {place.text}, {self.tensor[root]})")
        if root.kept:
            self.out.blocks[-1].memo[(root.value, ())] = place

    def _fresh_value(self, root: Root) -> Placed:
        """Evaluate a kept value itself instead of reading it back."""
        if not root.kept:
            return self.value(root.value, {})
        return self._compute(root.value, {})

    def _accumulate(self, root: Root, place: Placed, kind: str) -> None:
        assert isinstance(root.value, Reduce)
        op, dtype = ops.REDUCTIONS[root.value.op], root.value.dtype
        name = self.accumulators.get(root)
        if name is not None:
            self.out.line(f"{name} = {kind}({ops.scalar_expression(op, dtype, [name, place.text])})")
            return
        at = self.offset(self._slot_order(root), {}, self._stored_count, shift=True)
        slot, number = self.slots[root], self.tensor[root]
        old = f"load_{kind}({slot}, {at.text}, {number})"
        folded = f"{kind}({ops.scalar_expression(op, dtype, [old, place.text])})"
        self.out.line(f"store_{kind}({slot}, {at.text}, {folded}, {number})")


def factor(text: str) -> str:
    """Put parentheses around a compound expression."""
    return f"({text})" if " " in text else text


def literal(value: float | int | bool, kind: str) -> str:
    """Spell a constant of a compute type."""
    if isinstance(value, float) and math.isinf(value):
        return f"{kind}({'-' * (value < 0)}inf)"
    return f"{kind}({value!r})"


def neutral(op: str, kind: str) -> str:
    """Spell the neutral element of a reduction."""
    if op in ("sum", "prod"):
        return f"{kind}({0 if op == 'sum' else 1})"
    if kind[0] == "f":
        return f"{kind}({'-' * (op == 'max')}inf)"
    bits = int(kind[1:])
    low, high = (0, 2**bits - 1) if kind[0] == "u" else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    return f"{kind}({low if op == 'max' else high})"


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
