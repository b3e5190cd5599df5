"""Measurement: a group is timed as a kernel and as onnxruntime runs the same nodes, in turn, on the same inputs.

Results go to the cache, so that the next run on the same machine decides the same without measuring.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from sartor.share.cache import get, put
from sartor.share.errors import InputRefusedError, UsageError
from sartor.share.execute import run_session
from sartor.share.inputs import random_inputs, resolve_shapes
from sartor.share.runtime import kernels_of, load
from sartor.share.runtime.kernel import TensorType
from sartor.share.timing import race
from sartor.tools.fuse.axes import NotEmittableError
from sartor.tools.fuse.compile import object_name
from sartor.tools.fuse.kernel import kernel_source
from sartor.tools.fuse.plan import DOMAIN, Group, Measurement

SECONDS = 0.08
"""Time spent on one distinct group."""

GAIN = 1.03
"""How many times faster than onnxruntime a group must be to be kept: below that the difference may be noise."""


@dataclass(frozen=True)
class Setting:
    """Under which conditions groups are timed: the sizes of named axes, threads, seed."""

    axes: Mapping[str, int]
    threads: int
    seed: int


def axis_sizes(model: ir.Model, given: Mapping[str, tuple[int, ...]]) -> dict[str, int]:
    """Return the sizes of a model's named axes: those given, else the defaults of `sartor run`."""
    required = [value for value in model.graph.inputs if value.name not in model.graph.initializers]
    return dict(resolve_shapes(required, dict(given)).axes)


def measure(group: Group, setting: Setting) -> Measurement:
    """Time one group; a group whose sizes can't be filled in, or that onnxruntime does not run, is not timed."""
    model = group_model(group, setting.axes)
    if model is None:
        return Measurement(obstacle="its sizes are not known before run time")
    name = _entry(group, model, setting)
    found = get(name)
    if found is None:
        try:
            found = json.dumps(_race(model, setting)).encode()
        except (InputRefusedError, UsageError) as error:
            return Measurement(obstacle=error.reason)
        put(name, found)
    times: dict[str, float] = json.loads(found)
    return Measurement(measured_us=times["kernel"], baseline_us=times["stock"])


def group_model(group: Group, axes: Mapping[str, int]) -> ir.Model | None:
    """Make a model of one call with concrete sizes; weights of the group stay weights."""
    inputs: list[ir.Value] = []
    weights: list[ir.Value] = []
    arguments: list[ir.Value | None] = []
    for index, (value, kind) in enumerate(zip(group.inputs, group.call.inputs, strict=True)):
        if value is None or kind is None:
            arguments.append(None)
            continue
        shape = _concrete(kind, axes)
        if shape is None:
            return None
        made = ir.Value(name=f"x{index}", type=ir.TensorType(kind.dtype), shape=ir.Shape(shape))
        constant = value.const_value is not None and not value.is_graph_input()
        made.const_value = value.const_value if constant else None
        (weights if constant else inputs).append(made)
        arguments.append(made)
    outputs = [ir.Value(name=f"y{i}", type=ir.TensorType(kind.dtype)) for i, kind in enumerate(group.call.outputs)]
    for out, kind in zip(outputs, group.call.outputs, strict=True):
        out.shape = ir.Shape([None] * kind.rank)
    function = group.call.function
    call = ir.Node(DOMAIN, function.name, arguments, outputs=outputs)
    opsets = {**function.opset_imports, DOMAIN: 1}
    graph = ir.Graph(inputs, outputs, nodes=[call], initializers=weights, opset_imports=opsets, name=function.name)
    return ir.Model(graph, ir_version=10, functions=[function])


def _concrete(kind: TensorType, axes: Mapping[str, int]) -> list[int] | None:
    """Fill in the names of a shape; expressions over them (batch*sequence, 2*batch) are worked out."""
    from sartor.tools.fuse.axes import parse_size

    shape = []
    for dim in kind.shape:
        try:
            size = parse_size(dim)
        except NotEmittableError:
            return None
        number = size.factor
        for name in size.names:
            if name not in axes:
                return None
            number *= axes[name]
        shape.append(number)
    return shape


def _entry(group: Group, model: ir.Model, setting: Setting) -> str:
    import onnxruntime

    shapes = [list(value.shape.numpy()) if value.shape else [] for value in (*model.graph.inputs, *_weights(model))]
    _, source = kernel_source(group.call)
    text = json.dumps([object_name(source), shapes, setting.threads, onnxruntime.__version__, SECONDS])
    return f"m_{hashlib.sha256(text.encode()).hexdigest()[:32]}.json"


def _weights(model: ir.Model) -> list[ir.Value]:
    return list(model.graph.initializers.values())


def _race(model: ir.Model, setting: Setting) -> dict[str, float]:
    feed = random_inputs(model, {}, [setting.seed])
    fused = load(model, threads=setting.threads)
    if not kernels_of(fused):
        raise InputRefusedError("no session takes its kernel")
    stock = load(model, threads=setting.threads, skip=frozenset(function.name for function in model.functions.values()))
    run_session(stock, feed, "the group")
    result = race(runner(fused, feed), runner(stock, feed), SECONDS)
    return {"kernel": result.a.minimum, "stock": result.b.minimum}


def runner(session: Any, feed: Mapping[str, np.ndarray]) -> Callable[[], object]:
    """Return a call that runs a session on fixed inputs with as little overhead as its interface allows."""
    if not hasattr(session, "io_binding") or any(array.dtype == object for array in feed.values()):
        return lambda: session.run(None, dict(feed))
    binding = session.io_binding()
    for name, array in feed.items():
        # np.ascontiguousarray would make a scalar a vector.
        binding.bind_cpu_input(name, np.require(array, requirements="C"))
    for output in session.get_outputs():
        binding.bind_output(output.name)
    return lambda: session.run_with_iobinding(binding)
