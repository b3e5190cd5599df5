"""A network that can be pruned: its units in an order, its refitted weights, and the model for any counts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from sartor.tools.prune.calibrate import Statistics
from sartor.tools.prune.channels import Channels
from sartor.tools.prune.compact import Tuned, compact, kept_of
from sartor.tools.prune.kernels.window import weight_of
from sartor.tools.prune.problem import Counts, Floats
from sartor.tools.prune.units import Unit

MEMORY = 4096
"""Refitted layers that are remembered."""


class Network:
    """A model, its channels, its units, whose classes come from the most important on, and what its layers read."""

    def __init__(
        self, model: ir.Model, found: Channels, units: Sequence[Unit], statistics: Sequence[Statistics]
    ) -> None:
        self.model, self.found, self.statistics = model, found, tuple(statistics)
        self._roots = found.atoms.roots()
        self.units = tuple(self._ordered(unit) for unit in units)
        self._refits: dict[tuple[int, bytes], tuple[Floats, Floats]] = {}

    def _ordered(self, unit: Unit) -> Unit:
        """Sort the classes by the energy that the readers' weights draw from them; the first of equals first."""
        weight = np.zeros(self.found.atoms.count)
        for one in self.statistics:
            if one.layer in unit.readers:
                drawn = np.einsum("gkk,gko->k", one.gram, np.square(one.weight)) / max(one.energy, 1e-30)
                np.add.at(weight, self._roots[one.labels], drawn)
        order = np.argsort(-weight[unit.classes], kind="stable")
        return replace(unit, classes=unit.classes[order])

    def removed(self, counts: Counts) -> NDArray[np.int64]:
        """Return the atoms that go where so many classes of each unit stay."""
        gone = [unit.classes[count:] for unit, count in zip(self.units, counts, strict=True)]
        return np.concatenate(gone) if gone else np.zeros(0, np.int64)

    def pruned(self, counts: Counts) -> ir.Model:
        """Return the model in which so many classes of each unit stay, every layer refitted."""
        removed = self.removed(counts)
        return compact(self.model, self.found, removed, self._tuned(removed))

    def _tuned(self, removed: NDArray[np.int64]) -> Tuned:
        kept = kept_of(self.found, removed)
        tuned = Tuned({}, {})
        for i, one in enumerate(self.statistics):
            stay = kept(one.labels)
            if stay.all():
                continue
            weight, moved = self._refit(i, stay)
            self._put(tuned, one, weight, moved)
        return tuned

    def _refit(self, number: int, stay: NDArray[np.bool_]) -> tuple[Floats, Floats]:
        key = number, np.packbits(stay).tobytes()
        if key not in self._refits:
            if len(self._refits) >= MEMORY:
                self._refits.clear()
            self._refits[key] = self.statistics[number].refit(stay)
        return self._refits[key]

    @staticmethod
    def _put(tuned: Tuned, one: Statistics, weight: Floats, moved: Floats) -> None:
        layer, node = one.layer, one.layer.node
        content = weight_of(weight, one.window)
        flat = node.op_type == "Gemm" and layer.input_axis == 1
        assert isinstance(tuned.constants, dict)
        assert isinstance(tuned.biases, dict)
        tuned.constants[layer.weight] = content.T if flat else content
        if not one.biased:
            return
        bias = node.inputs[2] if len(node.inputs) > 2 else None
        if bias is None:
            tuned.biases[layer] = moved.reshape(-1)
        else:
            assert bias.const_value is not None
            tuned.constants[bias] = bias.const_value.numpy().astype(np.float64) + moved.reshape(-1)

    @cached_property
    def curves(self) -> tuple[Floats, ...]:
        """What is lost of each unit's readers when the first k classes stay, summed over readers, (classes + 1,)."""
        return tuple(self._curve(unit) for unit in self.units)

    def _curve(self, unit: Unit) -> Floats:
        whole = np.zeros(len(unit.classes) + 1)
        for one in self.statistics:
            if one.layer in unit.readers:
                roots = self._roots[one.labels]
                blocks = [roots == root for root in unit.classes]
                always = ~np.isin(roots, unit.classes)
                whole += self._share(one) * one.residuals(blocks, always)
        return whole

    def _share(self, one: Statistics) -> float:
        """Return the share of a layer in the energy of the sum that it is a part of (a branch of a residual block)."""
        mine = set(self._roots[one.layer.outputs].tolist())
        others = [
            other.energy
            for other in self.statistics
            if other is not one and mine & set(self._roots[other.layer.outputs].tolist())
        ]
        return one.energy / max(one.energy + sum(others), 1e-30)
