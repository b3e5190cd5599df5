"""The table of operators that can be fused, and what a rule may ask about the node it translates."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

import numpy as np
import onnx_ir as ir

from sartor.share.runtime.kernel import TensorType
from sartor.tools.fuse import ops
from sartor.tools.fuse.axes import NotEmittableError, fresh, parse_size
from sartor.tools.fuse.program import Const, Load, Value


class Kind(Enum):
    """The classes of memory-intensive operators (FusionStitching, section 2)."""

    LIGHT = "light"
    EXPENSIVE = "expensive"
    REDUCE = "reduce"
    MOVEMENT = "movement"


@dataclass(frozen=True)
class Node:
    """One ONNX node in the eyes of its rule."""

    node: ir.Node
    opset: int
    values: dict[ir.Value, Value]
    constants: dict[ir.Value, np.ndarray]
    inputs: dict[ir.Value, tuple[int, TensorType]]

    @property
    def arity(self) -> int:
        """The number of inputs, trailing absent ones not counted."""
        present = [i for i, value in enumerate(self.node.inputs) if value is not None]
        return present[-1] + 1 if present else 0

    def has(self, index: int) -> bool:
        """Tell whether an input is present."""
        return index < len(self.node.inputs) and self.node.inputs[index] is not None

    def arg(self, index: int) -> Value:
        """Return an input as a value; a kernel input becomes a new Load.

        Raises NotEmittableError for a constant tensor of more than one element, which only a parameter may be.
        """
        source = self.node.inputs[index] if self.has(index) else None
        if source is None:
            raise NotEmittableError(f"input {index} is absent")
        if source in self.values:
            return self.values[source]
        if source in self.constants:
            return self._scalar(self.constants[source])
        if source not in self.inputs:
            raise NotEmittableError("an input comes from an operator without a rule")
        position, kind = self.inputs[source]
        if kind.dtype not in ops.STORAGE:
            raise NotEmittableError(f"element type {kind.dtype.name.lower()} is not known")
        return Load(kind.dtype, tuple(fresh(parse_size(dim)) for dim in kind.shape), position)

    def _scalar(self, array: np.ndarray) -> Value:
        if array.size != 1:
            raise NotEmittableError("a constant tensor is an operand")
        return Const(ir.DataType.from_numpy(array.dtype), ((),) * array.ndim, array.reshape(-1)[0].item())

    def args(self) -> list[Value]:
        """Return all inputs as values."""
        return [self.arg(i) for i in range(self.arity)]

    def parameter(self, index: int) -> np.ndarray | None:
        """Return an input that must be constant; None where it is absent.

        Raises NotEmittableError where it is computed.
        """
        if not self.has(index):
            return None
        source = self.node.inputs[index]
        if source is None or source not in self.constants:
            raise NotEmittableError(f"input {index} of {self.node.op_type} is not constant")
        return self.constants[source]

    def integers(self, index: int, attribute: str) -> list[int] | None:
        """Return integers that were an attribute in old opsets and are an input in new ones."""
        value = self.parameter(index)
        if value is not None:
            return [int(x) for x in value.reshape(-1)]
        listed = self.attr(attribute, None)
        return None if listed is None else [int(x) for x in listed]

    def attr(self, name: str, default: Any) -> Any:
        """Return an attribute's value or its default, which is a float32 as all attributes are."""
        attribute = self.node.attributes.get(name)
        if attribute is not None:
            return attribute.value
        return float(np.float32(default)) if isinstance(default, float) else default


Translate = Callable[[Node], Value | Sequence[Value]]


@dataclass(frozen=True)
class Rule:
    """One operator: its class, the inputs that must be constant, and its translation."""

    kind: Kind
    translate: Translate
    parameters: tuple[int, ...] = ()


RULES: dict[str, Rule] = {}
"""Operator type in the default domain -> rule; filled once, when the package is imported."""


def rule(*names: str, kind: Kind, parameters: tuple[int, ...] = ()) -> Callable[[Translate], Translate]:
    """Enter a translation under one or several operator types."""

    def enter(translate: Translate) -> Translate:
        RULES.update({name: Rule(kind, translate, parameters) for name in names})
        return translate

    return enter
