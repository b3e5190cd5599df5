"""Kernel packing: several independent kernels in one, told apart by the number of the program."""

from __future__ import annotations

from collections.abc import Sequence

from sartor.tools.fuse.render.triton import Part, function, module


def render_pack(parts: Sequence[Part]) -> str:
    """Write the module of a kernel of several parts; `end<i>` is the number of programs up to part i.

    The parameters of part i have the prefix `p<i>_`. Parts with barriers can't be packed: not all programs would come.
    """
    assert all("gate" not in part.tensors for part in parts), "a part with barriers is packed"
    functions = [
        function(f"part{i}", ("program", "programs", *part.parameters), part.lines) for i, part in enumerate(parts)
    ]
    named = [(f"p{i}_", part) for i, part in enumerate(parts)]
    values = [prefix + name for prefix, part in named for name in (*part.tensors, *part.sizes)]
    ends = [f"end{i}" for i in range(len(parts))]
    fixed = [f"{prefix}{name}: tl.constexpr" for prefix, part in named for name in part.constants]
    body = ["program = tl.program_id(0)"]
    for i, (prefix, part) in enumerate(named):
        own = [prefix + name for name in (*part.tensors, *part.sizes, *part.constants)]
        first = f" - end{i - 1}" if i else ""
        body.append(f"{'elif' if i else 'if'} program < end{i}:")
        body.append(f"    part{i}({', '.join([f'program{first}', f'end{i}{first}', *own])})")
    return module("\n\n".join([*functions, function("kernel", (*values, *ends, *fixed), body)]))
