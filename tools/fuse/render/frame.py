"""The frame of a numba kernel: sizes, plan query, pointers, and the parts that its tasks are dealt out to.

The interface is described in share/runtime/kernel.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sartor.tools.fuse import ops
from sartor.tools.fuse.axes import Axes, NotEmittableError, Size, axis_size
from sartor.tools.fuse.composition import slices
from sartor.tools.fuse.homes import homes
from sartor.tools.fuse.program import At, Load, Value
from sartor.tools.fuse.render.numba import write_task
from sartor.tools.fuse.render.sizes import Sizes
from sartor.tools.fuse.render.values import MAX_TENSORS, Tensors, Values, factor
from sartor.tools.fuse.schedule import Root, Schedule
from sartor.tools.fuse.work import work_of

ALIGN = 64


def render(schedules: Sequence[Schedule]) -> str:
    """Write the kernel of a program's parts: a function `kernel` of six arguments.

    Raises NotEmittableError for what the schedules or the interface can't express.
    """
    sizes = _sizes(schedules)
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


def _sizes(schedules: Sequence[Schedule]) -> Sizes:
    """Name the sizes of the inputs, then the numbers of blocks that phases cut loops into."""
    sizes = Sizes(schedules[0].layout.program.inputs)
    for layout in (one.layout for one in schedules):
        if cut := layout.program.cut:
            sizes.cut(cut.blocks.size, layout.loop(cut.atom).size, cut.length)
    return sizes


def _deal(tasks: Sequence[Sequence[str]]) -> list[str]:
    """Deal the tasks out: first those of the first part or phase, then those of the next."""
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
    outputs = _outputs(parts, shared=False)
    facts += [sizes.text(axis_size(axis)) for position in sorted(outputs) for axis in outputs[position].axes]
    if parts[-1].program.phase:
        count = sizes.text(slices([part.schedule for part in parts]))
        memory = " + ".join(_memory(parts, sizes).values()) or "0"
        facts += [memory, count if count.isdigit() else f"max({count}, 1)", *_phases(parts, sizes)]
    picked = frozenset(name for part in parts for name in _picked(part))
    wrong = [f"if {check}: return 1" for check in dict.fromkeys(sizes.checks(picked))]
    number = MAX_TENSORS - 1
    return [*wrong, *(f"store_i64(scratch, {i}, {fact}, {number})" for i, fact in enumerate(facts)), "return 0"]


def _phases(parts: Sequence[Values], sizes: Sizes) -> list[str]:
    """Spell the tasks of every phase and its nanoseconds of work."""
    facts = []
    for phase in range(parts[-1].program.phase + 1):
        here = [i for i, part in enumerate(parts) if part.program.phase == phase]
        facts.append(" + ".join(f"n{i}" for i in here))
        work = [size * Size(round(100 * cost)) for i in here for size, cost in work_of(parts[i].schedule)]
        facts.append(f"({' + '.join(map(sizes.text, work))}) // 100")
    return facts


def _outputs(parts: Sequence[Values], shared: bool) -> dict[int, Value]:
    """Map positions to what is written there: outputs of the kernel, or memory that phases share."""
    return {
        program.position(i): value
        for program in (part.program for part in parts)
        for i, value in enumerate(program.outputs)
        if program.is_shared(program.position(i)) == shared
    }


def _memory(parts: Sequence[Values], sizes: Sizes) -> dict[int, str]:
    """Spell the bytes of the memory that phases share, by its positions."""
    found = {}
    for position, value in sorted(_outputs(parts, shared=True).items()):
        elements = " * ".join(factor(sizes.text(axis_size(axis))) for axis in value.axes) or "1"
        found[position] = _aligned(ops.STORAGE[value.dtype].size, elements)
    return found


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
    program, memory = parts[0].program, _memory(parts, parts[0].sizes)
    count = len(program.inputs)
    lines = [f"x{i} = inputs[{i}]" for kind, i in named if kind == "in" and i < count]
    lines += [f"y{i} = outputs[{i}]" for kind, i in named if kind == "out" and i not in memory]
    offset = "0"
    for position, size in memory.items():
        lines.append(f"y{position} = advance(outputs[{min(memory)}], {offset})")
        offset = f"{offset} + {size}"
    lines += [f"x{i} = y{i - count}" for kind, i in named if kind == "in" and i >= count]
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
    return _aligned(size, elements)


def _aligned(size: int, elements: str) -> str:
    return f"({size} * {elements} + {ALIGN - 1}) // {ALIGN} * {ALIGN}"


def _numbers(schedules: Sequence[Schedule], places: Sequence[Mapping[Root, Root]]) -> Tensors:
    """Number the inputs, outputs and buffers of a kernel."""
    program = schedules[0].layout.program
    names: list[tuple[str, int] | Root] = [("in", i) for i, kind in enumerate(program.inputs) if kind is not None]
    positions = {one.layout.program.position(i) for one in schedules for i in range(len(one.layout.program.outputs))}
    names += [("out", i) for i in sorted(positions)]
    names += [root for one in places for root, home in one.items() if root is home]
    if len(names) > MAX_TENSORS:
        raise NotEmittableError("a kernel of more than 64 tensors")
    numbers = {name: i for i, name in enumerate(names)}
    # What a phase reads that another has written is one and the same tensor.
    count = len(program.inputs)
    loads = {value.position for one in schedules for value in one.layout.values if isinstance(value, Load)}
    return numbers | {("in", i): numbers["out", i - count] for i in sorted(loads) if i >= count}
