"""How a cell is laid out for kernels: instruction sets, blocks of units, and where gates stand in a block.

A block is `units` vectors of hidden units, a vector has `lanes` of them. For every sample a block holds pre-activations
[units, slots, lanes]: what its gates are computed from. The input weights add to one slot a gate. The recurrent weights
come in parts, one after the other where the second reads what the first computed; a part is a list of gates with the
slots that they add to. Letters: V vectors of a part's block (units times gates), L lanes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from sartor.share.kernels.machine import has_feature
from sartor.tools.sparse_rnn.oracle import Cell

ValueType = Literal["f16", "f32"]


@dataclass(frozen=True)
class Machine:
    """An instruction set: lanes of a vector, columns that one look-up reaches, registers for vectors."""

    name: str
    lanes: int
    columns: int
    registers: int
    features: tuple[str, ...] = ()

    def lookup_rows(self, vectors: int) -> tuple[int, ...]:
        """Return how many samples at once a look-up product serves, the most first."""
        tables = max(self.columns // self.lanes, 1)
        most = max(row for row in range(1, 5) if row * (vectors + tables) + 3 <= self.registers or row == 1)
        return tuple(range(most, 0, -1))

    def dense_rows(self, vectors: int) -> int:
        """Return how many rows at once a dense product serves at most."""
        return max((self.registers - 1 - vectors) // vectors, 1)


MACHINES = (
    Machine("avx512", 16, 32, 32, ("avx512f", "avx512bw", "avx512vl", "fma")),
    Machine("avx2", 8, 8, 16, ("avx2", "fma", "f16c")),
    Machine("portable", 4, 32, 16),
)


def this_machine() -> Machine:
    """Return the first instruction set that this processor has."""
    return next(one for one in MACHINES if all(map(has_feature, one.features)))


@dataclass(frozen=True)
class Form:
    """Where the gates of a cell stand; `bias` tells a slot's biases: of W, of R, or both."""

    units: int
    slots: int
    inputs: tuple[int, ...]
    parts: tuple[tuple[tuple[int, int], ...], ...]
    bias: tuple[tuple[str, int], ...]

    def places(self, part: int) -> tuple[int, ...]:
        """Return, a vector of a part, its place among the vectors of pre-activations."""
        return tuple(unit * self.slots + slot for unit in range(self.units) for _, slot in self.parts[part])

    def gates(self, part: int) -> tuple[int, ...]:
        """Return the gates of a part."""
        return tuple(gate for gate, _ in self.parts[part])

    @property
    def input_places(self) -> tuple[int, ...]:
        """Return the like of `places` for the input weights."""
        return tuple(unit * self.slots + slot for unit in range(self.units) for slot in self.inputs)


def form_of(cell: Cell) -> Form:
    """Return the form of a cell. A block of few gates takes more units, so that sums in flight hide latency."""
    both = "WR"
    if cell.kind == "LSTM":
        gates = (0, 1, 2, 3)
        return Form(1, 4, gates, (tuple(zip(gates, gates, strict=True)),), tuple((both, gate) for gate in gates))
    if cell.kind == "RNN":
        return Form(4, 1, (0,), (((0, 0),),), ((both, 0),))
    if cell.linear_before_reset:
        # The reset gate scales the recurrent part alone, which so needs a slot of its own.
        return Form(1, 4, (0, 1, 2), (((0, 0), (1, 1), (2, 3)),), ((both, 0), (both, 1), ("W", 2), ("R", 2)))
    return Form(2, 3, (0, 1, 2), (((0, 0), (1, 1)), ((2, 2),)), tuple((both, gate) for gate in (0, 1, 2)))
