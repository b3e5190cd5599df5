"""Python text under construction: nested blocks, each remembering what it has computed already."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Block:
    """The body of a loop or branch; `names` maps expressions to the variables that hold them."""

    lines: list[str] = field(default_factory=list)
    names: dict[str, str] = field(default_factory=dict)
    memo: dict[object, Placed] = field(default_factory=dict)


@dataclass(frozen=True)
class Placed:
    """An expression and the depth of the outermost block in which it can be evaluated."""

    text: str
    depth: int = 0


class Source:
    """A stack of open blocks; what depends on outer loops only is written to the outer block."""

    def __init__(self, suffix: str = "") -> None:
        self.blocks = [Block()]
        self._suffix = suffix
        self._count = 0

    @property
    def depth(self) -> int:
        """The depth of the innermost open block."""
        return len(self.blocks) - 1

    def fresh(self, prefix: str) -> str:
        """Make a new variable name."""
        self._count += 1
        return f"{prefix}{self._count}{self._suffix}"

    def line(self, text: str, depth: int | None = None) -> None:
        """Append a statement to a block, by default the innermost."""
        self.blocks[self.depth if depth is None else depth].lines.append(text)

    def hold(self, value: Placed, prefix: str = "t") -> Placed:
        """Keep an expression in a variable of the block that it belongs to, once."""
        block = self.blocks[value.depth]
        if value.text not in block.names:
            name = self.fresh(prefix)
            block.lines.append(f"{name} = {value.text}")
            block.names[value.text] = name
        return Placed(block.names[value.text], value.depth)

    def recall(self, key: object) -> Placed | None:
        """Look a value up in the open blocks."""
        return next((block.memo[key] for block in reversed(self.blocks) if key in block.memo), None)

    def remember(self, key: object, value: Placed) -> Placed:
        """Note where a value is kept."""
        self.blocks[value.depth].memo[key] = value
        return value

    def open(self) -> None:
        """Start a nested block."""
        self.blocks.append(Block())

    def close(self, header: str) -> None:
        """End the innermost block and place it, under its header, in the one around it."""
        block = self.blocks.pop()
        self.blocks[-1].lines.append(header)
        self.blocks[-1].lines.extend("    " + line for line in block.lines or ["pass"])
