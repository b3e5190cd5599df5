"""Control flow, run in Python."""

from __future__ import annotations

import sys
from typing import Any

import torch
from torch import Tensor

from sartor.share.lowering.frame import Frame
from sartor.share.lowering.registry import Op, Value, rule


@rule("If", host=(0,), framed=True)
def branch(op: Op, frame: Frame, condition: Tensor) -> tuple[Value, ...]:
    """Run one of two graphs."""
    chosen = "then_branch" if bool(condition) else "else_branch"
    return tuple(frame.run(op.blocks[chosen], []))


@rule("Loop", host=(0, 1), framed=True)
def loop(op: Op, frame: Frame, most: Tensor | None, condition: Tensor | None, *state: Value) -> tuple[Value, ...]:
    """Run a graph until its condition fails or a count is reached; scanned outputs are stacked."""
    limit = sys.maxsize if most is None else int(most)
    going, values = condition is None or bool(condition), list(state)
    scanned: list[list[Tensor]] = []
    count = 0
    while going and count < limit:
        entries = [torch.tensor(count), torch.tensor(going), *values]
        again, *outputs = frame.run(op.blocks["body"], entries)
        going, count = bool(again), count + 1
        values = outputs[: len(state)]
        scanned.append(outputs[len(state) :])
    return *values, *_stacked(op, frame, scanned, len(state))


def _stacked(op: Op, frame: Frame, scanned: list[list[Tensor]], states: int) -> list[Tensor]:
    """Stack what each run gave; after no run the results are empty."""
    if scanned:
        return [torch.stack(parts) for parts in zip(*scanned, strict=True)]
    ends = op.node.attributes["body"].as_graph().outputs[1 + states :]
    return [_empty(end, frame) for end in ends]


def _empty(value: Any, frame: Frame) -> Tensor:
    from sartor.share.lowering.dtypes import torch_type

    shape = [size if isinstance(size, int) else 0 for size in value.shape or ()]
    return torch.zeros([0, *shape], dtype=torch_type(value.dtype), device=frame.device)


@rule("Scan", framed=True)
def scan(op: Op, frame: Frame, *inputs: Tensor) -> tuple[Tensor, ...]:
    """Run a graph on each slice of the inputs, from the first or the last one on."""
    count = op.attr("num_scan_inputs")
    if op.version < 9:
        return _scan_batches(op, frame, inputs[1:])
    values, sources = list(inputs[: len(inputs) - count]), inputs[len(inputs) - count :]
    axes, back = op.attr("scan_input_axes") or [0] * count, op.attr("scan_input_directions") or [0] * count
    slices = [_slices(x, axis, bool(turn)) for x, axis, turn in zip(sources, axes, back, strict=True)]
    return tuple(_scan(op, frame, values, slices))


def _slices(x: Tensor, axis: int, backwards: bool) -> list[Tensor]:
    parts = list(x.unbind(axis))
    return parts[::-1] if backwards else parts


def _scan(op: Op, frame: Frame, values: list[Tensor], slices: list[list[Tensor]]) -> list[Tensor]:
    """Return the last states and the stacked outputs."""
    states = len(values)
    scanned: list[list[Tensor]] = []
    for parts in zip(*slices, strict=True):
        outputs = frame.run(op.blocks["body"], [*values, *parts])
        values = outputs[:states]
        scanned.append(outputs[states:])
    if not scanned:
        ends = op.node.attributes["body"].as_graph().outputs[states:]
        return [*values, *(_empty(end, frame) for end in ends)]
    columns = [list(parts) for parts in zip(*scanned, strict=True)]
    axes = op.attr("scan_output_axes") or [0] * len(columns)
    back = op.attr("scan_output_directions") or [0] * len(columns)
    stacked = [
        torch.stack(parts[::-1] if turn else parts, axis) for parts, axis, turn in zip(columns, axes, back, strict=True)
    ]
    return [*values, *stacked]


def _scan_batches(op: Op, frame: Frame, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Scan each sample on its own, as opset 8 has it: axis 0 is the batch, axis 1 the time."""
    count = op.attr("num_scan_inputs")
    back = op.attr("directions") or [0] * count
    samples = []
    for sample in range(inputs[0].shape[0]):
        rows = [x[sample] for x in inputs]
        states, sources = rows[: len(rows) - count], rows[len(rows) - count :]
        slices = [_slices(x, 0, bool(turn)) for x, turn in zip(sources, back, strict=True)]
        samples.append(_scan(op, frame, states, slices))
    return tuple(torch.stack(parts) for parts in zip(*samples, strict=True))


@rule("SequenceMap", framed=True)
def sequence_map(op: Op, frame: Frame, items: list[Tensor], *others: Value) -> tuple[list[Tensor], ...]:
    """Run a graph on each element of sequences; other inputs are the same each time."""
    results = []
    for index, item in enumerate(items):
        entries = [other[index] if isinstance(other, list) else other for other in others]
        results.append(frame.run(op.blocks["body"], [item, *entries]))
    count = len(op.node.outputs)
    return tuple([result[place] for result in results] for place in range(count))
