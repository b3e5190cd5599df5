"""Run-time sizes: which input dimension tells a named size, and the checks that the plan query makes."""

from __future__ import annotations

from sartor.share.runtime.kernel import TensorType
from sartor.tools.fuse.axes import NotEmittableError, Size, parse_size


class Sizes:
    """The sizes of a kernel as expressions over `dims`, the sizes of all inputs one after the other."""

    def __init__(self, inputs: tuple[TensorType | None, ...]) -> None:
        self.names: dict[str, str] = {}
        self.lines: list[str] = []
        self._divisors: set[str] = set()
        self._axes = [parse_size(dim) for kind in inputs if kind is not None for dim in kind.shape]
        for exact in (True, False):
            for position, size in enumerate(self._axes):
                self._bind(position, size, exact)

    def _bind(self, position: int, size: Size, exact: bool) -> None:
        unknown = [name for name in size.names if name not in self.names]
        if len(unknown) != 1 or (exact and size != Size(1, size.names[:1])):
            return
        known = Size(size.factor, tuple(name for name in size.names if name in self.names))
        divisor = "" if known.is_one else f" // ({self.text(known)})"
        self._divisors.update(known.names)
        variable = f"s{len(self.names)}"
        self.lines.append(f"{variable} = dims[{position}]{divisor}")
        self.names[unknown[0]] = variable

    def cut(self, blocks: Size, whole: Size, length: int) -> None:
        """Name the number of blocks of some length in a loop, where a call tells it."""
        for name in set(blocks.names) - set(self.names):
            variable = f"s{len(self.names)}"
            self.lines.append(f"{variable} = ({self.text(whole)} + {length - 1}) // {length}")
            self.names[name] = variable

    def hide(self) -> str:
        """Add and name a variable that is 0 in every call that passes the checks, which the compiler can't know.

        Empty where every size of every input has a name.
        """
        position = next((i for i, size in enumerate(self._axes) if not size.names), None)
        if position is None:
            return ""
        line = f"zero = dims[{position}] - {self._axes[position].factor}"
        if line not in self.lines:
            self.lines.append(line)
        return "zero"

    def text(self, size: Size) -> str:
        """Spell a size.

        Raises NotEmittableError where no input tells one of its names.
        """
        for name in size.names:
            if name not in self.names:
                raise NotEmittableError(f"the size {name} is not that of an input")
        factors = [str(size.factor)] * (size.factor != 1 or not size.names)
        return " * ".join(factors + [self.names[name] for name in size.names])

    def checks(self, present: frozenset[str]) -> list[str]:
        """List the conditions under which the kernel's view of its inputs is wrong.

        Sizes may be 0 but for those in `present` and those by which others are found out.
        """
        wrong = [f"dims[{position}] != {self.text(size)}" for position, size in enumerate(self._axes)]
        return [*wrong, *(f"{self.names[name]} < 1" for name in sorted(present | self._divisors))]
