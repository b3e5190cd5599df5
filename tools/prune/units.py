"""Units: channels about which one decision is made, how many of them stay; and what a decision costs.

Two classes of atoms belong to one unit if they occur equally often along every axis: whichever of them goes, the sizes
of all tensors are the same. A unit is what the search decides about; which classes go follows from an order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

import numpy as np

from sartor.tools.prune.atoms import Labels
from sartor.tools.prune.channels import Channels, Layer
from sartor.tools.prune.kernels.resources import AxisCount, NodeCost
from sartor.tools.prune.spread import removable


@dataclass(frozen=True, eq=False)
class Unit:
    """Channels of which any number from 1 on may stay.

    `classes` are the roots of the classes of atoms, in the order in which they lie along the first layer that makes
    them; `makers` and `readers` are the layers that write and read them.
    """

    name: str
    classes: Labels
    makers: tuple[Layer, ...]
    readers: tuple[Layer, ...]


@dataclass(frozen=True)
class Resources:
    """What a model takes as a function of the classes that stay: multiplications of a sample, and parameters."""

    macs: tuple[NodeCost, ...]
    parameters: tuple[NodeCost, ...]


def find_units(found: Channels, keep: Iterable[str] = ()) -> tuple[Unit, ...]:
    """Divide what can be removed into units; layers whose node's name matches a glob of `keep` keep their outputs."""
    roots = found.atoms.roots()
    frozen = _kept_by_name(found, tuple(keep))
    classes = np.setdiff1d(np.unique(roots[removable(found)]), np.unique(roots[frozen]))
    marks: dict[int, list[tuple[int, int]]] = {int(root): [] for root in classes}
    for number, labels in enumerate(_axes(found)):
        for root, times in zip(*np.unique(roots[labels], return_counts=True), strict=True):
            if int(root) in marks:
                marks[int(root)].append((number, int(times)))
    alike: dict[tuple[tuple[int, int], ...], list[int]] = {}
    for root, mark in marks.items():
        alike.setdefault(tuple(mark), []).append(root)
    return tuple(_unit(found, roots, members) for members in alike.values())


def resources(found: Channels, units: Sequence[Unit]) -> Resources:
    """Express multiplications and parameters by the classes that stay."""
    count = axis_counter(found, units)
    macs = tuple(NodeCost(term.fixed, tuple(count(labels) for labels in term.factors)) for term in found.terms)
    weights = [value for value in found.derived if value.is_initializer() and value in found.axes]
    parameters = tuple(
        NodeCost(1, tuple(count(labels) for labels in found.axes[value] if labels is not None))
        for value in sorted(weights, key=lambda value: str(value.name))
        if value.dtype is not None and value.dtype.is_floating_point()
    )
    return Resources(macs, parameters)


def axis_counter(found: Channels, units: Sequence[Unit]) -> Callable[[Labels], AxisCount]:
    """Return what expresses the size of an axis by the classes that stay."""
    roots, classes = found.atoms.roots(), np.array([len(unit.classes) for unit in units])
    owner = np.full(found.atoms.count, -1)
    for number, unit in enumerate(units):
        owner[unit.classes] = number
    owner = owner[roots]

    def count(labels: Labels) -> AxisCount:
        # An axis has all classes of a unit or none, each as often as any other.
        held, times = np.unique(owner[labels], return_counts=True)
        free = held >= 0
        multiples = times[free] // classes[held[free]] if free.any() else times[:0]
        return AxisCount(int(times[~free].sum()), tuple(zip(held[free].tolist(), multiples.tolist(), strict=True)))

    return count


def _axes(found: Channels) -> list[Labels]:
    """List the axes along which classes are told apart."""
    out = [labels for layer in found.layers for labels in (layer.inputs, layer.outputs)]
    out += [labels for term in found.terms for labels in term.factors]
    out += [labels for value in found.derived for labels in found.axes.get(value, ()) if labels is not None]
    return out + [labels for edit in found.edits for labels in edit.labels]


def _kept_by_name(found: Channels, globs: tuple[str, ...]) -> Labels:
    held = [layer.outputs for layer in found.layers if any(fnmatchcase(str(layer.node.name), one) for one in globs)]
    return np.concatenate(held) if held else np.zeros(0, np.int64)


def _unit(found: Channels, roots: Labels, members: list[int]) -> Unit:
    inside = np.zeros(found.atoms.count, bool)
    inside[members] = True
    makers = tuple(layer for layer in found.layers if inside[roots[layer.outputs]].any())
    readers = tuple(layer for layer in found.layers if inside[roots[layer.inputs]].any())
    along = roots[makers[0].outputs]
    _, first = np.unique(along[inside[along]], return_index=True)
    classes = along[inside[along]][np.sort(first)]
    return Unit(str(makers[0].node.name or makers[0].node.outputs[0].name), classes, makers, readers)
