"""What a kernel is compiled for: a cell, sizes, and how programs tell one another that a state is ready.

Letters: U units of a program, L lanes (samples, padded), K slots (weights of a thread), N threads of a program.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from sartor.tools.sparse_rnn.activations import Activation
from sartor.tools.sparse_rnn.kernels.form import form_of
from sartor.tools.sparse_rnn.oracle import GATES, Cell, Kind

Sync = Literal["counter", "flags", "lamport"]
Values = Literal["fp16", "bf16"]

SYNCS: tuple[Sync, ...] = ("counter", "flags", "lamport")

LANES = (2, 4, 8, 16)
"""How many samples a launch may have; a kernel for fewer takes less of shared memory."""

PLANE_LANES = 8
"""Lanes that one load of 128 bits brings."""

NARROW_LANES = 2

BANK_BYTES = 128
"""What shared memory delivers at a time: 32 banks of 4 bytes."""

GRANULE = 128
"""Shared memory is divided by so many bytes."""

LAMPORT_BUFFERS, OTHER_BUFFERS = 3, 2


@dataclass(frozen=True)
class Part:
    """Gates that are computed at once: `slots` of pre-activations from `first`; K weights a thread.

    `most` is the largest number of threads of a row.
    """

    first: int
    slots: int
    depth: int
    most: int


@dataclass(frozen=True)
class Shape:
    """Everything that the code of a kernel depends on; `directions` run in one launch, `programs` each."""

    kind: Kind
    linear_before_reset: bool
    activations: tuple[Activation, ...]
    clip: float | None
    input_forget: bool
    peepholes: bool
    reverse: tuple[bool, ...]
    hidden: int
    programs: int
    lanes: int
    warps: int
    parts: tuple[Part, ...]
    values: Values
    sync: Sync
    wide: bool = True

    @property
    def directions(self) -> int:
        """The directions of a launch."""
        return len(self.reverse)

    @property
    def threads(self) -> int:
        """The threads of a program."""
        return 32 * self.warps

    @property
    def most_units(self) -> int:
        """The most units that a program has."""
        return -(-self.hidden // self.programs)

    @property
    def units(self) -> int:
        """The same, padded to a power of two, as tensors are; enough for one warp."""
        return max(power_of_two(self.most_units), 32 // self.lanes)

    @property
    def slots(self) -> int:
        """Pre-activations of a unit."""
        return max(part.first + part.slots for part in self.parts)

    @property
    def input_slots(self) -> int:
        """How many of these, the first ones, an input adds to."""
        return len(GATES[self.kind])

    @property
    def vector(self) -> int:
        """Weights that a thread loads at once."""
        return (2 if self.lanes > PLANE_LANES else 4) if self.wide else 1

    @property
    def unrolled(self) -> int:
        """How many of these loads the inner loop has; more would not find registers."""
        return 1 if self.lanes > PLANE_LANES else 2

    @property
    def plane_lanes(self) -> int:
        """The lanes of a plane, which one look-up brings: of 128 bits at most, of 32 bits where they are not wide."""
        return min(self.lanes, PLANE_LANES if self.wide else NARROW_LANES)

    @property
    def planes(self) -> int:
        """In how many arrays the hidden state lies, each with all units."""
        return self.lanes // self.plane_lanes

    @property
    def unit_bytes(self) -> int:
        """The bytes of a unit in a plane."""
        return 2 * self.plane_lanes

    @property
    def banks(self) -> int:
        """How many units lie side by side in the banks."""
        return banks_of(self.lanes, self.wide)

    @property
    def word_lanes(self) -> int:
        """The lanes of an element of the hidden state in memory: a word of 64 bits, of 32 for two."""
        return min(self.plane_lanes, 4)

    @property
    def plane_words(self) -> int:
        """The words of a unit in a plane."""
        return self.plane_lanes // self.word_lanes

    @property
    def padding(self) -> int:
        """The distance between the partial sums of two lanes beyond N, so that these lie in different banks."""
        return 32 // self.lanes

    @property
    def partial_bytes(self) -> int:
        """The bytes of partial sums."""
        return (self.threads + self.padding) * self.lanes * 4

    @property
    def gate_bytes(self) -> int:
        """The bytes of pre-activations."""
        return self.slots * self.units * self.lanes * 4

    @property
    def zero(self) -> int:
        """The first place after the hidden state of a plane, one a bank, that holds zeros."""
        return -(-self.hidden // self.banks) * self.banks

    @property
    def places(self) -> int:
        """The places of a plane."""
        return self.zero + self.banks

    @property
    def zero_words(self) -> int:
        """The words of all planes that hold zeros."""
        return self.planes * BANK_BYTES // (2 * self.word_lanes)

    @property
    def overwrites_zeros(self) -> bool:
        """Whether sums and pre-activations reach those."""
        return self.partial_bytes + self.gate_bytes > self.zero * self.unit_bytes

    @property
    def state_bytes(self) -> int:
        """The bytes of the hidden state in shared memory, or of the sums that take its room."""
        used = max(self.planes * self.places * self.unit_bytes, self.partial_bytes + self.gate_bytes)
        return -(-used // GRANULE) * GRANULE

    @property
    def view_bytes(self) -> int:
        """The same, padded to a power of two, as views are that threads look up in; weights follow within it."""
        return power_of_two(self.state_bytes)

    @property
    def depth(self) -> int:
        """The weights of a thread, K of all parts."""
        return sum(part.depth for part in self.parts)

    @property
    def shared_bytes(self) -> int:
        """The bytes of shared memory that a program takes."""
        return max(self.state_bytes + self.depth * self.threads * 4, self.view_bytes)

    @property
    def buffers(self) -> int:
        """How many hidden states are in flight."""
        return LAMPORT_BUFFERS if self.sync == "lamport" else OTHER_BUFFERS

    @property
    def exchange_words(self) -> int:
        """The words of a hidden state of one direction in global memory."""
        return self.planes * self.hidden * self.plane_words

    def first_unit(self, program: int) -> int:
        """Return the place of the first unit of a program of a direction."""
        return program * self.hidden // self.programs


def power_of_two(count: int) -> int:
    """Return the least power of two that is not below a count."""
    return 1 << max(count - 1, 0).bit_length()


def banks_of(lanes: int, wide: bool) -> int:
    """Return how many units lie side by side in the banks of shared memory."""
    return BANK_BYTES // (2 * min(lanes, PLANE_LANES if wide else NARROW_LANES))


def lanes_for(batch: int) -> int:
    """Return the lanes for a batch."""
    return next(lanes for lanes in LANES if batch <= lanes)


def part_slots(cell: Cell) -> tuple[tuple[int, int], ...]:
    """Return the first slot and the number of slots of each part, both as tensors of powers of two have them."""
    parts = form_of(cell).parts
    if len(parts) == 1:
        return ((0, form_of(cell).slots),)
    return tuple((gates[0][1], len(gates)) for gates in parts)
