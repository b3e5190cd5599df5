"""What an agent sees of a unit: numbers without a network's scale, so that what was learned on one serves another."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from sartor.tools.prune.problem import Problem
    from sartor.tools.prune.units import Unit

KINDS = ("Conv", "depthwise", "ConvTranspose", "Gemm", "MatMul")
DYNAMIC = 5
"""Numbers of a state that change along a walk: the ratio before, target, what is left, what is to come, the base."""

AT = (0.25, 0.5, 0.75)
"""Ratios at which the residual of a unit is a feature."""


def facts_of(units: tuple[Unit, ...]) -> NDArray[np.float64]:
    """Describe units, (units, facts): kinds of their makers, logarithms of sizes, numbers of makers and readers."""
    return np.array([_facts(unit) for unit in units]).reshape(len(units), len(KINDS) + 6)


def _facts(unit: Unit) -> list[float]:
    maker = unit.makers[0]
    shape = [int(size) for size in maker.weight.shape or () if isinstance(size, int)]
    attributes = maker.node.attributes
    stride = attributes["strides"].as_ints()[0] if "strides" in attributes else 1
    kernel = shape[2] if len(shape) > 2 else 1
    kind = [float(any(layer.node.op_type == name for layer in unit.makers)) for name in KINDS]
    sizes = [np.log2(len(unit.classes)) / 12, np.log2(max(shape[maker.input_axis], 1)) / 12, np.log2(kernel) / 4]
    return [*kind, *sizes, float(stride > 1), np.log2(len(unit.makers)) / 4, np.log2(1 + len(unit.readers)) / 4]


def static_features(problem: Problem) -> NDArray[np.float32]:
    """Return what does not change along a walk, (units, features): facts, place, cost share, residuals."""
    whole = problem.costs.total(problem.sizes)
    rows = []
    for unit in range(problem.units):
        counts = problem.sizes.copy()
        counts[unit] = problem.least[unit]
        share = 1 - problem.costs.total(counts) / whole
        lost = [np.log10(1e-4 + problem.curves[unit][max(round(at * problem.sizes[unit]), 1)]) / 4 for at in AT]
        rows.append([*problem.facts[unit], unit / max(problem.units - 1, 1), share, *lost])
    return np.array(rows, np.float32)
