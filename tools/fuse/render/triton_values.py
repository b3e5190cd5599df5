"""Expressions of a Triton kernel: values at the current point of a phase's loops."""

from __future__ import annotations

from dataclasses import replace

from sartor.tools.fuse import ops
from sartor.tools.fuse.axes import Atom
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
from sartor.tools.fuse.render.triton_folds import joined
from sartor.tools.fuse.render.triton_ops import TYPES, conversion, literal, scalar_expression
from sartor.tools.fuse.render.triton_tiles import Env, Tile, Tiles
from sartor.tools.fuse.render.values import factor


class TritonValues(Tiles):
    """Evaluates values at the current point of a kernel's loops."""

    def value(self, value: Value, env: Env) -> Tile:
        """Evaluate a value at the current point of the loops."""
        # What an index outside a value's own axes is changed to makes no difference to it.
        env = {atom: env[atom] for atom in self.layout.flat(value.axes) if atom in env}
        key = (value, tuple(sorted((id(atom), tile.text, tile.mask) for atom, tile in env.items())))
        found = self.out.recall(key)
        if found is not None:
            assert isinstance(found, Tile)
            return found
        tile = self._read_back(value, env) if value in self.known else self._compute(value, env)
        self.out.remember(key, tile)
        return tile

    def _read_back(self, value: Value, env: Env) -> Tile:
        root = self.known[value]
        assert root in self.slots, "a value is read outside the loops that hold it"
        assert not env, "a reduction is read at a changed index"
        kind = ops.compute_type(value.dtype)
        if self.schedule.partial(root):
            return joined(self, root, kind)
        return self.load(self.slots[root], self.offset(root.own, env), kind, kind)

    def _compute(self, value: Value, env: Env) -> Tile:
        match value:
            case Load(position=position):
                storage = ops.STORAGE[value.dtype]
                return self.load(
                    f"x{position}", self.offset(self.layout.flat(value.axes), env), storage.compute, storage.memory
                )
            case Const():
                return self.hold(Tile(literal(value.value, ops.compute_type(value.dtype))), "c")
            case Count(over=over):
                return self._count(value, over)
            case Iota(atom=atom):
                at = self.at(self.layout.one(atom), env)
                return self.hold(Tile(f"tl.cast({at.text}, tl.int64)", at.depth, at.dims))
            case At(arg=arg, atom=atom, index=index):
                return self.value(arg, {**env, self.layout.one(atom): self._affine(index, env)})
            case Take():
                return self._take(value, env)
            case Concat():
                return self._concat(value, env)
            case Elementwise():
                return self._elementwise(value, env)
        raise AssertionError(f"{type(value).__name__} is stored")

    def _count(self, value: Value, over: tuple[tuple[Atom, ...], ...]) -> Tile:
        atoms = self.layout.flat(over)
        text = self.count(atom.size for atom in atoms) or "1"
        if any(atom.size.names for atom in atoms):
            # The mean of nothing is 0, as in onnxruntime.
            text = f"tl.maximum({text}, 1)"
        return self.hold(Tile(f"tl.cast({text}, {TYPES[ops.compute_type(value.dtype)]})"), "c")

    def _elementwise(self, value: Elementwise, env: Env) -> Tile:
        operands = [self.value(arg, env) for arg in value.args]
        if value.op == "view":
            return operands[0]
        texts = [operand.text for operand in operands]
        dims = frozenset[int]().union(*(operand.dims for operand in operands))
        if value.op == "where":
            text = f"tl.where({', '.join(texts)})"
        elif value.op == "cast":
            text = conversion(value.args[0], value, texts[0])
        else:
            text = scalar_expression(value.op, ops.compute_type(value.args[0].dtype), texts)
        return self.hold(Tile(text, max(operand.depth for operand in operands), dims))

    def _affine(self, index: Affine, env: Env) -> Tile:
        start = " + ".join(
            ([self.sizes.text(index.length)] if index.length else [])
            + [str(index.offset)] * (index.offset != 0 or not index.length)
        )
        if index.atom is None:
            return Tile(start)
        at = self.at(self.layout.one(index.atom), env)
        step = at.text if index.step == 1 else f"({index.step}) * {factor(at.text)}"
        return replace(at, text=step if start == "0" else f"{start} + {step}")

    def _take(self, value: Take, env: Env) -> Tile:
        atom = self.layout.one(value.atom)
        wanted, size = self.value(value.index, env), self.size(atom)
        # The index is compared in its own type, which may be wider than that of positions.
        counted = f"{wanted.text} + tl.where({wanted.text} < 0, {size}, 0)"
        wide = self.hold(replace(wanted, text=counted), "g")
        inside = self.hold(replace(wide, text=f"({wide.text} >= 0) & ({wide.text} < {size})"), "b")
        index = self.hold(replace(wide, text=f"tl.cast({wide.text}, INDEX)"), "g")
        valid = [self.at(own, env).mask for own in self.layout.flat(value.index.axes)]
        valid = [mask for mask in dict.fromkeys(valid) if mask]
        outside = " & ".join([f"({inside.text} == 0)", *valid])
        line = f"tl.store(status + tl.cast({inside.text}, tl.int32) * 0, 1, mask={outside})"
        block = self.out.blocks[index.depth]
        if line not in block.names:
            block.names[line] = ""
            block.lines.append(line)
        return self.value(value.arg, {**env, atom: replace(index, mask=" & ".join([inside.text, *valid]))})

    def _concat(self, value: Concat, env: Env) -> Tile:
        """Choose among the parts by position; each is read within its own borders only."""
        at = self.at(self.layout.one(value.atom), env)
        position = 0
        tile: Tile | None = None
        for part, own, size in value.parts:
            low, high = position, position + size.factor
            inside = self.hold(replace(at, text=f"({at.text} >= {low}) & ({at.text} < {high})"), "b")
            shifted = f"{at.text} - {low}" if low else at.text
            mask = f"{at.mask} & {inside.text}" if at.mask else inside.text
            inner = env if own is None else {**env, self.layout.one(own): replace(at, text=shifted, mask=mask)}
            here = self.value(part, inner)
            tile = here if tile is None else self._choose(inside, here, tile)
            position = high
        assert tile is not None
        return tile

    def _choose(self, condition: Tile, yes: Tile, no: Tile) -> Tile:
        dims = condition.dims | yes.dims | no.dims
        text = f"tl.where({condition.text}, {yes.text}, {no.text})"
        return self.hold(Tile(text, max(condition.depth, yes.depth, no.depth), dims))
