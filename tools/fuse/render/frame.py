"""The frame of a numba kernel: sizes, plan query, pointers, and the parts that its tasks are dealt out to.

The interface is described in share/runtime/kernel.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sartor.tools.fuse import ops
from sartor.tools.fuse.axes import Axes, NotEmittableError, Size, axis_size
from sartor.tools.fuse.homes import homes
from sartor.tools.fuse.program import At, Load, Value
from sartor.tools.fuse.render.numba import write_task
from sartor.tools.fuse.render.sizes import Sizes
from sartor.tools.fuse.render.values import MAX_TENSORS, Tensors, Values
from sartor.tools.fuse.schedule import Root, Schedule

ALIGN = 64


def render(schedules: Sequence[Schedule]) -> str:
    """Write the kernel of a program's parts: a function `kernel` of six arguments.

    Raises NotEmittableError for what the schedules or the interface can't express.
    """
    sizes = Sizes(schedules[0].layout.program.inputs)
    places = [homes(one) for one in schedules]
    tensors = _numbers(schedules, places)
    parts = [
        Values(one, place, sizes, tensors, f"p{i}" if i else "")
        for i, (one, place) in enumerate(zip(schedules, places, strict=True))
    ]
    tasks = [write_task(part) for part in parts]
    counts = [f"n{i} = {_tasks(part)}" for i, part in enumerate(parts)] if len(parts) > 1 else []
    plan = ["if begin < 0:", *("    " + line for line in _plan(parts, sizes))]
    body = [*sizes.lines, *counts, *plan, *_pointers(parts, tensors), *_deal(tasks), "return 0"]
    lines = ["def kernel(inputs, outputs, dims, scratch, begin, end):", *("    " + line for line in body)]
    return "\n".join(lines) + "\n"


def _deal(tasks: Sequence[Sequence[str]]) -> list[str]:
    """Deal the tasks out: first those of the first part, then those of the next (kernel packing)."""
    lines = []
    for i, body in enumerate(tasks):
        before = " - ".join(["", *(f"n{j}" for j in range(i))])
        begin = f"max(begin{before}, 0)" if before else "begin"
        end = f"end{before}" if i == len(tasks) - 1 else f"min(end{before}, n{i})"
        lines += [f"for task in range({begin}, {end}):", *("    " + line for line in body)]
    return lines


def _tasks(part: Values) -> str:
    """Spell the number of a part's tasks; none where a size that all of its outputs have is 0."""
    tasks = " * ".join(part.loop_count(atom) for atom in part.schedule.parallel) or "1"
    shapes = [{name for axis in kind.axes for name in axis_size(axis).names} for kind in part.program.outputs]
    some = " and ".join(f"{part.sizes.names[name]} > 0" for name in sorted(set.intersection(*shapes)))
    return f"(({tasks}) if {some} else 0)" if some else tasks


def _plan(parts: Sequence[Values], sizes: Sizes) -> list[str]:
    """Answer the plan query: refuse sizes, then tell tasks, scratch, traffic and the sizes of the outputs."""
    volumes = [sizes.text(size) for part in parts for size in _volumes(part)]
    scratch = [" + ".join(_slot_bytes(part, root) for root in part.slots) or "0" for part in parts]
    tasks = " + ".join(f"n{i}" for i in range(len(parts))) if len(parts) > 1 else _tasks(parts[0])
    # A task is one of one part, so that the parts may use the same scratch memory.
    facts = [tasks, f"max({', '.join(scratch)})" if len(parts) > 1 else scratch[0], " + ".join(volumes)]
    outputs = {part.program.position(i): value.axes for part in parts for i, value in enumerate(part.program.outputs)}
    facts += [sizes.text(axis_size(axis)) for position in sorted(outputs) for axis in outputs[position]]
    picked = frozenset(name for part in parts for name in _picked(part))
    wrong = [f"if {check}: return 1" for check in dict.fromkeys(sizes.checks(picked))]
    number = MAX_TENSORS - 1
    return [*wrong, *(f"store_i64(scratch, {i}, {fact}, {number})" for i, fact in enumerate(facts)), "return 0"]


def _picked(part: Values) -> set[str]:
    """Return the sizes of which one fixed element is read: none of them may be 0."""
    picks = [value.index for value in part.layout.values if isinstance(value, At) and not value.index.atom]
    return {name for index in picks if index.length for name in index.length.names}


def _volumes(part: Values) -> list[Size]:
    """Return the bytes of every input that is read and of every output."""
    read = {value.position: value for value in part.layout.values if isinstance(value, Load)}
    tensors: list[tuple[Value, Axes]] = [(value, value.axes) for value in read.values()]
    tensors += [(value, value.axes) for value in part.program.outputs]
    out = []
    for value, axes in tensors:
        size = Size(ops.STORAGE[value.dtype].size)
        for atom in part.layout.flat(axes):
            size = size * atom.size
        out.append(size)
    return out


def _pointers(parts: Sequence[Values], tensors: Tensors) -> list[str]:
    named = [key for key in tensors if isinstance(key, tuple)]
    lines = [f"x{i} = inputs[{i}]" for kind, i in named if kind == "in"]
    lines += [f"y{i} = outputs[{i}]" for kind, i in named if kind == "out"]
    for part in parts:
        offset = "0"
        for root, name in part.slots.items():
            lines.append(f"{name} = advance(scratch, {offset})")
            offset = f"{offset} + {_slot_bytes(part, root)}"
    return lines


def _slot_bytes(part: Values, root: Root) -> str:
    elements = " * ".join(part.stored_count(atom) for atom in part.schedule.buffers[root]) or "1"
    width = ops.STORAGE[root.value.dtype]
    size = 4 if width.memory == "f16" else width.size
    return f"({size} * {elements} + {ALIGN - 1}) // {ALIGN} * {ALIGN}"


def _numbers(schedules: Sequence[Schedule], places: Sequence[Mapping[Root, Root]]) -> Tensors:
    """Number the inputs, outputs and buffers of a kernel."""
    program = schedules[0].layout.program
    names: list[tuple[str, int] | Root] = [("in", i) for i, kind in enumerate(program.inputs) if kind is not None]
    positions = [one.layout.program.position(i) for one in schedules for i in range(len(one.layout.program.outputs))]
    names += [("out", i) for i in sorted(positions)]
    names += [root for one in places for root, home in one.items() if root is home]
    if len(names) > MAX_TENSORS:
        raise NotEmittableError("a kernel of more than 64 tensors")
    return {name: i for i, name in enumerate(names)}
