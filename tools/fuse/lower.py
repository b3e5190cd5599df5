"""Lowering: a function body and the types of one call become a tensor program."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from sartor.share.runtime.kernel import TensorType
from sartor.tools.fuse.axes import NotEmittableError, axis_size, resolve
from sartor.tools.fuse.program import Load, Program, Value, walk
from sartor.tools.fuse.rules import RULES
from sartor.tools.fuse.rules.registry import Node


def lower(function: ir.Function, inputs: tuple[TensorType | None, ...]) -> Program:
    """Translate every node of a function body.

    Raises NotEmittableError for the first thing that no kernel can do.
    """
    positions = {
        value: (i, kind)
        for i, (value, kind) in enumerate(zip(function.inputs, inputs, strict=True))
        if kind is not None
    }
    values: dict[ir.Value, Value] = {}
    constants: dict[ir.Value, np.ndarray] = {}
    opset = function.opset_imports.get("", 0)
    for node in function:
        _translate(Node(node, opset, values, constants, positions))
    outputs = tuple(_output(out, values) for out in function.outputs)
    program = Program(inputs, outputs, tuple(_type(value) for value in outputs))
    _check(program)
    return program


def constant_of(node: ir.Node) -> np.ndarray | None:
    """Return what a Constant node holds, if that is a tensor or numbers."""
    for name in ("value", "value_float", "value_int", "value_floats", "value_ints"):
        if name in node.attributes:
            held = node.attributes[name].value
            if isinstance(held, ir.TensorProtocol):
                return held.numpy()
            return np.array(held, np.float32 if "float" in name else np.int64)
    return None


def _translate(node: Node) -> None:
    op = node.node.op_type
    if node.node.domain not in ("", "ai.onnx"):
        raise NotEmittableError(f"{op} has no rule")
    if op == "Constant":
        held = constant_of(node.node)
        if held is None:
            raise NotEmittableError("a constant is not a tensor")
        node.constants[node.node.outputs[0]] = held
        return
    if op not in RULES:
        raise NotEmittableError(f"{op} has no rule")
    result = RULES[op].translate(node)
    results = [result] if isinstance(result, Value) else result
    node.values.update(zip(node.node.outputs, results, strict=False))


def _output(out: ir.Value, values: dict[ir.Value, Value]) -> Value:
    if out not in values:
        raise NotEmittableError("an output is not computed")
    return values[out]


def _type(value: Value) -> TensorType:
    sizes = [axis_size(axis) for axis in value.axes]
    return TensorType(value.dtype, tuple(str(size) if size.names else size.factor for size in sizes))


def _check(program: Program) -> None:
    """Refuse a value that two of its axes would index by the same loop, such as x + x.T of a computed x."""
    for value in walk(program.outputs):
        atoms = [atom for axis in value.axes for atom in resolve(axis)]
        if len(set(atoms)) != len(atoms):
            raise NotEmittableError("a tensor is used in two arrangements")
    if not any(isinstance(value, Load) for value in walk(program.outputs)):
        raise NotEmittableError("nothing is read")
