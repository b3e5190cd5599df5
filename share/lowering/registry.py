"""The table of operators: what each is in torch, which of its inputs steer it, and where its outputs live."""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeVar

import onnx_ir as ir

if TYPE_CHECKING:
    from sartor.share.lowering.frame import Block

Value = Any
"""A tensor, a list of tensors (sequence), an array of strings, or None (absent)."""

Function = Callable[..., Value]
F = TypeVar("F", bound=Function)


class Place(enum.Enum):
    """Where an operator's outputs live: see hosts.py."""

    DEVICE = enum.auto()
    SHAPE = enum.auto()
    FOLLOWS = enum.auto()
    GROWS = enum.auto()


class NotLoweredError(Exception):
    """Torch can't do what the operator asks for: the node runs in onnxruntime."""


@dataclass(frozen=True)
class Op:
    """One node as its rule sees it: attributes as Python values, nested graphs as blocks."""

    node: ir.Node
    version: int
    attributes: Mapping[str, Any]
    blocks: Mapping[str, Block] = field(default_factory=lambda: MappingProxyType({}))

    def attr(self, name: str, default: Any = None) -> Any:
        """Return an attribute, or the default where the node has none."""
        return self.attributes.get(name, default)

    def wants(self, index: int) -> bool:
        """Tell whether anybody asks for an output."""
        return index < len(self.node.outputs) and bool(self.node.outputs[index].name)

    def input_type(self, index: int) -> ir.DataType | None:
        """Return the ONNX type of an input as far as the model tells it."""
        value = self.node.inputs[index] if index < len(self.node.inputs) else None
        return None if value is None else value.dtype


@dataclass(frozen=True)
class Rule:
    """An operator in torch.

    The function takes the `Op`, the `Frame` if `framed`, and the inputs; it returns one value, or a tuple of values
    where the operator has several outputs. `host` are the positions of inputs whose values steer the operator and are
    read by Python. Where `scalars`, an input of rank 0 may stay on the host.
    """

    function: Function
    host: frozenset[int] = frozenset()
    place: Place = Place.DEVICE
    framed: bool = False
    scalars: bool = False


ALL = range(64)
"""Every input, of any operator that we know."""

RULES: dict[tuple[str, str], Rule] = {}
"""Rules by domain and operator; filled when `operators` is imported."""


def rule(
    *names: str,
    host: Iterable[int] = (),
    place: Place = Place.DEVICE,
    framed: bool = False,
    scalars: bool = False,
    domain: str = "",
) -> Callable[[F], F]:
    """Register a function as the rule of operators."""

    def register(function: F) -> F:
        entry = Rule(function, frozenset(host), place, framed, scalars)
        RULES.update({(domain, name): entry for name in names})
        return function

    return register


def rows(table: Mapping[str, Function], place: Place = Place.DEVICE, scalars: bool = False) -> None:
    """Register operators that are one torch function of their inputs in order, without attributes."""
    for name, function in table.items():
        RULES["", name] = Rule(_plain(function), frozenset(), place, False, scalars)


def _plain(function: Function) -> Function:
    return lambda _op, *inputs: function(*inputs)
