"""How dense coded matrices are, gate by gate, with a small map of where their weights lie."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sartor.share.tables import Table

if TYPE_CHECKING:
    import onnx_ir as ir

MAP_ROWS, MAP_COLUMNS = 8, 32
"""The most cells that a map of a matrix has."""

LEVELS = "·▁▂▃▄▅▆▇█"
"""Cells of a map: of no weights, and of up to so many eighths."""

DIGITS = 6


@dataclass(frozen=True)
class GateDensity:
    """The share of a gate's weights that is stored, and the same of each cell of the gate's part of the map."""

    gate: str
    density: float
    cells: tuple[tuple[float, ...], ...]

    def as_json(self) -> dict[str, Any]:
        """Return the gate as the JSON contracts spell it."""
        cells = [[round(cell, DIGITS) for cell in row] for row in self.cells]
        return {"gate": self.gate, "density": round(self.density, DIGITS), "map": cells}


@dataclass(frozen=True)
class MatrixDensity:
    """A matrix of one direction of a layer; all gates have as many rows."""

    layer: str
    kind: str
    matrix: str
    direction: int
    rows: int
    columns: int
    gates: tuple[GateDensity, ...]

    @property
    def density(self) -> float:
        """Return the share of all weights that is stored."""
        return math.fsum(gate.density for gate in self.gates) / len(self.gates)

    def as_json(self) -> dict[str, Any]:
        """Return the matrix as the JSON contracts spell it."""
        names = ("layer", "kind", "matrix", "direction", "rows", "columns")
        return {
            **{name: getattr(self, name) for name in names},
            "density": round(self.density, DIGITS),
            "gates": [gate.as_json() for gate in self.gates],
        }


DensityTeller = Callable[["ir.Model", str], tuple[MatrixDensity, ...]]
"""What a tool gives for its function domain: the coded matrices of a model, of which messages say the given name."""


def density_table(matrices: Sequence[MatrixDensity]) -> Table:
    """Lay out densities and maps; a gate takes as many lines as its part of the map has rows."""
    lines: list[tuple[str, ...]] = []
    for one in matrices:
        for gate in one.gates:
            head = (one.layer, one.kind, f"{one.matrix}{one.direction}", gate.gate, f"{gate.density:.2%}")
            maps = ["".join(LEVELS[math.ceil(cell * (len(LEVELS) - 1))] for cell in row) for row in gate.cells]
            lines += [(*(head if not place else ("",) * len(head)), row) for place, row in enumerate(maps)]
    return Table("densities", ("layer", "kind", "matrix", "gate", "density", "map"), tuple(lines))
