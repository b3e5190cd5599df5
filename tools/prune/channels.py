"""The channels of a model: the atoms along the axes of its values, its layers, and what changes when atoms go."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from sartor.tools.prune.atoms import Atoms, Labels

Axis = Labels | None
"""The atoms along an axis; None where nothing can be removed."""

Axes = tuple[Axis, ...]

Kept = Callable[[Labels], NDArray[np.bool_]]
"""Tells of atoms whether they stay."""


Rewrite = Callable[[ir.Node, Kept], None]
"""Changes a node in place for the atoms that stay."""


@dataclass(frozen=True, eq=False)
class Layer:
    """An operator that mixes channels by a constant weight: a convolution or a matrix product.

    `inputs` and `outputs` are the atoms along the channels of its data and of its result; `input_axis` and
    `output_axis` are where the weight has them.
    """

    node: ir.Node
    weight: ir.Value
    inputs: Labels
    outputs: Labels
    input_axis: int
    output_axis: int
    groups: int = 1


@dataclass(frozen=True, eq=False)
class Term:
    """Multiplications of a node for one sample: `fixed` times the sizes of some axes."""

    node: ir.Node
    factors: tuple[Labels, ...]
    fixed: int


@dataclass(frozen=True, eq=False)
class Edit:
    """A number or a list of a node that follows the channels: `apply` rewrites it in a copy of the node."""

    node: ir.Node
    labels: tuple[Labels, ...]
    apply: Rewrite


@dataclass
class Channels:
    """The atoms of every value of a graph, its layers, and what has to be rewritten when atoms are removed."""

    atoms: Atoms = field(default_factory=Atoms)
    axes: dict[ir.Value, Axes] = field(default_factory=dict)
    constants: dict[ir.Value, NDArray[Any]] = field(default_factory=dict)
    derived: set[ir.Value] = field(default_factory=set)
    """What is computed from constants alone, they included."""
    layers: list[Layer] = field(default_factory=list)
    terms: list[Term] = field(default_factory=list)
    edits: list[Edit] = field(default_factory=list)
    divided: dict[str, int] = field(default_factory=dict)
    """The reshapes that divide an axis, by what they do, and among how many factors the atoms may go to one."""
