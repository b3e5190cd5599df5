"""A network that can be pruned: its units in an order, its refitted weights, and the model for any counts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from sartor.tools.prune.calibrate import Reading, content_of
from sartor.tools.prune.channels import Channels
from sartor.tools.prune.compact import Tuned, compact, kept_of
from sartor.tools.prune.kernels.saliency import Part
from sartor.tools.prune.places import Place
from sartor.tools.prune.problem import Counts, Floats
from sartor.tools.prune.refit import Nested, Refit, nest, refit, refit_first
from sartor.tools.prune.refit_order import Consumer, backward_greedy
from sartor.tools.prune.units import Unit

MEMORY = 4096
"""Refitted layers that are remembered."""


class Network:
    """A model, its channels, its units, whose classes come from the most important on, and what its layers read."""

    def __init__(
        self, model: ir.Model, found: Channels, units: Sequence[Unit], readings: Sequence[Reading], place: Place
    ) -> None:
        self.model, self.found, self.readings, self.place = model, found, tuple(readings), place
        self._roots = found.atoms.roots()
        self.units = tuple(self._ordered(unit) for unit in units)
        self._refits: dict[tuple[int, bytes], tuple[Floats, Floats]] = {}
        self._nested: dict[int, Nested] = {}

    def _ordered(self, unit: Unit) -> Unit:
        """Sort the classes by what their loss costs the readers, or by their weights where no reader is refitted."""
        consumers = [
            Consumer(one.statistics, self._columns(one, unit)) for one in self.readings if one.layer in unit.readers
        ]
        order = backward_greedy(consumers) if consumers else self._by_weight(unit)
        return replace(unit, classes=unit.classes[order])

    def _by_weight(self, unit: Unit) -> NDArray[np.int64]:
        """Order the classes by the norm of all weights that hold them."""
        place = np.full(self.found.atoms.count, -1)
        place[unit.classes] = np.arange(len(unit.classes))
        parts = [
            Part(weight.const_value.numpy().astype(np.float32), axis, place[self._roots[labels]])
            for layer in (*unit.makers, *unit.readers)
            if (weight := layer.weight).const_value is not None
            for axis, labels in enumerate(self.found.axes[weight])
            if labels is not None
        ]
        squares = self.place.saliency(parts, len(unit.classes)).squares
        return np.argsort(-squares, kind="stable")

    def _columns(self, one: Reading, unit: Unit) -> NDArray[np.int64]:
        """Return the columns of each class (classes, columns of a class); all classes have equally many."""
        roots = self._roots[one.labels]
        order = np.argsort(roots, kind="stable")
        first = np.searchsorted(roots[order], unit.classes)
        times = int(np.count_nonzero(roots == unit.classes[0]))
        return np.asarray(order[first[:, None] + np.arange(times)])

    def removed(self, counts: Counts) -> NDArray[np.int64]:
        """Return the atoms that go where so many classes of each unit stay."""
        gone = [unit.classes[count:] for unit, count in zip(self.units, counts, strict=True)]
        return np.concatenate(gone) if gone else np.zeros(0, np.int64)

    def pruned(self, counts: Counts) -> ir.Model:
        """Return the model in which so many classes of each unit stay, every layer refitted."""
        removed = self.removed(counts)
        kept = kept_of(self.found, removed)
        constants: dict[ir.Value, NDArray[Any]] = {}
        biases: dict[Any, NDArray[Any]] = {}
        for number, one in enumerate(self.readings):
            stay = kept(one.labels)
            if not stay.all():
                weight, bias = self._refit(number, stay, counts)
                put(constants, biases, one, weight, bias)
        return compact(self.model, self.found, removed, Tuned(constants, biases))

    def _refit(self, number: int, stay: NDArray[np.bool_], counts: Counts) -> tuple[Floats, Floats]:
        """Return the weights [G, K, O] of a layer, zero where columns go, and its bias [G, O]."""
        key = number, np.packbits(stay).tobytes()
        if key not in self._refits:
            if len(self._refits) >= MEMORY:
                self._refits.clear()
            self._refits[key] = spread(self._fitted(number, stay, counts), self.readings[number])
        return self._refits[key]

    def _fitted(self, number: int, stay: NDArray[np.bool_], counts: Counts) -> Refit:
        """Refit a layer; where it reads one unit, by the factor that serves all counts."""
        one = self.readings[number]
        read = [u for u, unit in enumerate(self.units) if one.layer in unit.readers]
        if len(read) > 1:
            return refit(one.statistics, np.flatnonzero(stay))
        (unit,) = read
        return refit_first(self._nest(number, self.units[unit]), int(counts[unit]))

    def _nest(self, number: int, unit: Unit) -> Nested:
        if number not in self._nested:
            one = self.readings[number]
            self._nested[number] = nest(one.statistics, self._columns(one, unit), np.arange(len(unit.classes)))
        return self._nested[number]

    @cached_property
    def curves(self) -> tuple[Floats, ...]:
        """What is lost of each unit's readers when the first k classes stay, summed over readers, (classes + 1,)."""
        return tuple(self._curve(unit) for unit in self.units)

    def _curve(self, unit: Unit) -> Floats:
        whole = np.zeros(len(unit.classes) + 1)
        for one in self.readings:
            if one.layer in unit.readers:
                order = np.arange(len(unit.classes))
                whole += self._share(one) * nest(one.statistics, self._columns(one, unit), order).curve
        return whole

    def _share(self, one: Reading) -> float:
        """Return the share of a layer in the energy of the sum that it is a part of (a branch of a residual block)."""
        mine = set(self._roots[one.layer.outputs].tolist())
        others = [
            other.energy
            for other in self.readings
            if other is not one and mine & set(self._roots[other.layer.outputs].tolist())
        ]
        return one.energy / max(one.energy + sum(others), 1e-30)


def spread(fitted: Refit, one: Reading) -> tuple[Floats, Floats]:
    """Return refitted weights with zeros for the columns that go [G, K, O], and the bias [G, O]."""
    whole = np.zeros_like(one.statistics.weight)
    whole[:, fitted.columns] = fitted.weight
    return whole, fitted.bias


def put(
    constants: dict[ir.Value, NDArray[Any]], biases: dict[Any, NDArray[Any]], one: Reading, weight: Floats, bias: Floats
) -> None:
    """Note the new content of a layer's weight and bias, laid out as its operator has them."""
    layer, node = one.layer, one.layer.node
    constants[layer.weight] = content_of(weight, layer, one.window)
    if not one.biased:
        return
    held = node.inputs[2] if len(node.inputs) > 2 else None
    if held is None:
        biases[layer] = bias.reshape(-1)
    else:
        constants[held] = bias.reshape(-1)
