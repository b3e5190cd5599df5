"""The table of operators through which atoms spread, and what a rule may ask and do."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from sartor.share.folding import constant_of
from sartor.tools.prune.atoms import Labels
from sartor.tools.prune.channels import Axes, Axis, Channels, Edit, Layer, Rewrite, Term

LARGEST_CONSTANT = 1 << 16
"""Elements up to which the content of constants is looked at."""


class UntrackedError(Exception):
    """A rule can't follow the atoms through a node; all that it reads is kept."""


@dataclass(frozen=True)
class Node:
    """One ONNX node in the eyes of its rule."""

    node: ir.Node
    opset: int
    found: Channels
    factors: Mapping[str, int]

    @property
    def name(self) -> str:
        """What people call the node."""
        return f"{self.node.op_type} {self.node.name or self.node.outputs[0].name}"

    def has(self, index: int) -> bool:
        """Tell whether an input is present."""
        return index < len(self.node.inputs) and self.node.inputs[index] is not None

    @property
    def present(self) -> list[int]:
        """The positions of the inputs that are present."""
        return [i for i, value in enumerate(self.node.inputs) if value is not None]

    def value(self, index: int) -> ir.Value:
        """Return an input that must be present."""
        value = self.node.inputs[index]
        assert value is not None, f"input {index} of {self.node.op_type} is absent"
        return value

    def axes(self, index: int) -> Axes:
        """Return the atoms along the axes of an input; raises UntrackedError where its rank is unknown."""
        value = self.value(index)
        if value not in self.found.axes:
            if value.shape is None:
                raise UntrackedError(f"the rank of {value.name} is unknown")
            self.found.axes[value] = (None,) * len(value.shape)
        return self.found.axes[value]

    def sizes(self, index: int) -> list[int | None]:
        """Return the sizes of an input, None for those that have a name only; raises UntrackedError without any."""
        if self.value(index).shape is None:
            raise UntrackedError(f"the shape of {self.value(index).name} is unknown")
        return sizes_of(self.value(index))

    def constant(self, index: int) -> NDArray[Any] | None:
        """Return the integers of an input that no input of the model has a part in; None where there are none."""
        if not self.is_weight(index):
            return None
        value, known = self.value(index), self.found.constants
        if value not in known and value.producer() is not None and value.dtype is not None and value.dtype.is_integer():
            content = constant_of(value, self.opset)
            if content is not None and content.size <= LARGEST_CONSTANT:
                known[value] = content
        return known.get(value)

    def is_weight(self, index: int) -> bool:
        """Tell whether an input is known before the model runs."""
        return self.has(index) and self.value(index) in self.found.derived

    def integers(self, index: int, attribute: str) -> list[int] | None:
        """Return integers that were an attribute in old opsets and are an input in new ones; None where absent.

        Raises UntrackedError where they are computed.
        """
        if self.has(index):
            content = self.constant(index)
            if content is None:
                raise UntrackedError(f"{attribute} of {self.name} are computed")
            return [int(x) for x in content.reshape(-1)]
        listed = self.attr(attribute, None)
        return None if listed is None else [int(x) for x in listed]

    def attr(self, name: str, default: Any) -> Any:
        """Return an attribute's value or its default."""
        attribute = self.node.attributes.get(name)
        return default if attribute is None else attribute.value

    def put(self, axes: Iterable[Axis], index: int = 0) -> None:
        """Say which atoms an output carries."""
        self.found.axes[self.node.outputs[index]] = tuple(axes)

    def merge(self, left: Axis, right: Axis, reason: str) -> Axis:
        """Let the atoms of two axes of one size live and die together; those that meet a fixed axis stay."""
        if left is None or right is None:
            self.freeze((left, right), reason)
            return None
        self.found.atoms.merge(left, right)
        return left

    def freeze(self, axes: Iterable[Axis], reason: str) -> None:
        """Keep the atoms of axes."""
        for labels in axes:
            if labels is not None:
                self.found.atoms.freeze(labels, f"{self.name}: {reason}")

    def tie(self, labels: Labels, parts: int) -> None:
        """Let equal positions of equal parts of an axis live and die together."""
        rows = labels.reshape(parts, -1)
        self.found.atoms.merge(rows[:1], rows)

    def labels(self, index: int, axis: int) -> Labels:
        """Return the atoms along an axis, frozen ones where it is fixed; raises UntrackedError without a size."""
        found = self.axes(index)[axis]
        if found is not None:
            return found
        size = self.sizes(index)[axis]
        if size is None:
            raise UntrackedError(f"an axis of {self.value(index).name} has no size")
        made = self.found.atoms.fresh(size)
        self.found.atoms.freeze(made, f"{self.name}: a part of it keeps its channels")
        return made

    def edit(self, labels: Iterable[Labels], apply: Rewrite) -> None:
        """Rewrite something of the node when some of these atoms are removed."""
        self.found.edits.append(Edit(self.node, tuple(labels), apply))

    def layer(
        self, weight: int, inputs: Axis, outputs: Labels, input_axis: int, output_axis: int, groups: int = 1
    ) -> None:
        """Say that the node mixes channels by a weight; data that keeps all channels has the atoms of the weight."""
        read = self.labels(weight, input_axis) if inputs is None else inputs
        self.found.layers.append(Layer(self.node, self.value(weight), read, outputs, input_axis, output_axis, groups))

    def multiplies(self, axes: Iterable[tuple[Axis, int | None]], times: int = 1) -> None:
        """Say how many multiplications a sample takes: the product of axes, those without a size counting as 1."""
        known = list(axes)
        fixed = math.prod(size or 1 for labels, size in known if labels is None)
        self.found.terms.append(Term(self.node, tuple(one for one, _ in known if one is not None), fixed * times))


Spread = Callable[[Node], None]

RULES: dict[str, Spread] = {}
"""Operator type in the default domain -> rule; filled once, when the package is imported."""


def rule(*names: str) -> Callable[[Spread], Spread]:
    """Enter a rule under one or several operator types."""

    def enter(spread: Spread) -> Spread:
        RULES.update(dict.fromkeys(names, spread))
        return spread

    return enter


def sizes_of(value: ir.Value) -> list[int | None]:
    """Return the sizes of a value of known rank, None for those that have a name only."""
    assert value.shape is not None
    return [size if isinstance(size, int) else None for size in value.shape]


def new_constant(node: ir.Node, index: int, numbers: Sequence[int]) -> ir.Value:
    """Give a node integers of its own as an input; others may share what it had."""
    graph = node.graph
    assert isinstance(graph, ir.Graph)
    taken = {out.name for other in graph for out in other.outputs} | graph.initializers.keys()
    name = f"{node.outputs[0].name}_{index}"
    while name in taken:
        name += "_"
    value = ir.Value(name=name, const_value=ir.tensor(np.array(numbers, np.int64), name=name))
    value.type, value.shape = ir.TensorType(ir.DataType.INT64), ir.Shape([len(numbers)])
    graph.register_initializer(value)
    if index >= len(node.inputs):
        node.resize_inputs(index + 1)
    node.replace_input_with(index, value)
    return value
