"""Measurement: a group is timed as a kernel and as onnxruntime runs the same nodes, in turn, on the same inputs.

Results go to the cache, so that the next run on the same machine decides the same without measuring.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass

import onnx_ir as ir

from sartor.share.cache import get, put
from sartor.share.errors import InputRefusedError, UsageError
from sartor.share.execute import run_session
from sartor.share.inputs import random_inputs, resolve_shapes
from sartor.share.runtime.kernel import TensorType
from sartor.share.timing import race
from sartor.tools.fuse.axes import NotEmittableError, parse_size, size_of
from sartor.tools.fuse.places import Place
from sartor.tools.fuse.plan import DOMAIN, Group, Measurement

SECONDS = 0.08
"""Time spent on one distinct group."""

GAIN = 1.03
"""How many times faster than onnxruntime a group must be to be kept: below that the difference may be noise."""


@dataclass(frozen=True)
class Setting:
    """Under which conditions groups are timed and compared: the sizes of named axes, the place, the seed."""

    axes: Mapping[str, int]
    place: Place
    seed: int


def axis_sizes(model: ir.Model, given: Mapping[str, tuple[int, ...]]) -> dict[str, int]:
    """Return the sizes of a model's named axes: those given, else the defaults of `sartor run`."""
    required = [value for value in model.graph.inputs if value.name not in model.graph.initializers]
    return dict(resolve_shapes(required, dict(given)).axes)


def measure(group: Group, setting: Setting) -> Measurement:
    """Time one group; a group whose sizes can't be filled in, or that onnxruntime does not run, is not timed."""
    shapes = concrete_shapes(group, setting.axes)
    if shapes is None:
        return Measurement(obstacle="its sizes are not known before run time")
    name = _entry(group, shapes, setting)
    found = get(name)
    if found is None:
        try:
            found = json.dumps(race_group(group, shapes, setting, SECONDS)).encode()
        except (InputRefusedError, UsageError) as error:
            return Measurement(obstacle=error.reason)
        put(name, found)
    times: dict[str, float] = json.loads(found)
    return Measurement(measured_us=times["kernel"], baseline_us=times["stock"])


def group_model(group: Group) -> ir.Model:
    """Make a model of one call with the types that it has in its model; weights of the group stay weights."""
    arguments = [_operand(index, value, group) for index, value in enumerate(group.inputs)]
    present = list(dict.fromkeys(value for value in arguments if value is not None))
    outputs = [ir.Value(name=f"y{i}", type=ir.TensorType(kind.dtype)) for i, kind in enumerate(group.call.outputs)]
    for out, kind in zip(outputs, group.call.outputs, strict=True):
        out.shape = ir.Shape([None] * kind.rank)
    function = group.call.function
    graph = ir.Graph(
        [value for value in present if value.const_value is None],
        outputs,
        nodes=[ir.Node(DOMAIN, function.name, arguments, outputs=outputs)],
        initializers=[value for value in present if value.const_value is not None],
        opset_imports={**function.opset_imports, DOMAIN: 1},
        name=function.name,
    )
    return ir.Model(graph, ir_version=10, functions=[function])


def _operand(index: int, value: ir.Value | None, group: Group) -> ir.Value | None:
    kind = group.call.inputs[index]
    if value is None or kind is None:
        return None
    made = ir.Value(name=f"x{index}", type=ir.TensorType(kind.dtype), shape=ir.Shape(kind.shape))
    made.const_value = None if value.is_graph_input() else value.const_value
    return made


def concrete_shapes(group: Group, axes: Mapping[str, int]) -> dict[str, tuple[int, ...]] | None:
    """Fill in the names of the shapes of a group's inputs, or return None where one is not known."""
    shapes: dict[str, tuple[int, ...]] = {}
    for index, kind in enumerate(group.call.inputs):
        if kind is None:
            continue
        shape = _concrete(kind, axes)
        if shape is None:
            return None
        shapes[f"x{index}"] = shape
    return shapes


def _concrete(kind: TensorType, axes: Mapping[str, int]) -> tuple[int, ...] | None:
    """Fill in the names of a shape; products of names and numbers (batch*sequence, 2*batch) are worked out."""
    try:
        sizes = [size_of(parse_size(dim), axes) for dim in kind.shape]
    except NotEmittableError:
        return None
    known = [size for size in sizes if size is not None]
    return tuple(known) if len(known) == len(sizes) else None


def _entry(group: Group, shapes: Mapping[str, tuple[int, ...]], setting: Setting) -> str:
    facts = [setting.place.identity(group.call), sorted(shapes.items()), *setting.place.facts, SECONDS]
    return f"m_{hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:32]}.json"


def race_group(
    group: Group, shapes: Mapping[str, tuple[int, ...]], setting: Setting, seconds: float
) -> dict[str, float]:
    """Time a group as a kernel and as its nodes one by one on the same random inputs; return microseconds a call.

    Raises InputRefusedError and UsageError where either does not run.
    """
    model, place = group_model(group), setting.place
    given = {value.name: shapes[value.name] for value in model.graph.inputs if value.name is not None}
    feed = random_inputs(model, given, [setting.seed])
    fused = place.open(model)
    if not place.kernels(fused):
        raise InputRefusedError("no session takes its kernel")
    stock = place.open(model, frozenset(function.name for function in model.functions.values()))
    run_session(stock, feed, "the group")
    a, b = place.runner(fused, feed), place.runner(stock, feed)
    result = race(a.call, b.call, seconds)
    return {"kernel": result.a.minimum / a.repeats, "stock": result.b.minimum / b.repeats}
