"""Letters of sequences and alignments as numbers: AlphaFold's order of residues, then unknown, gap and masked."""

from __future__ import annotations

from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

RESIDUES = "ARNDCQEGHILKMFPSTWYV"
UNKNOWN, GAP, MASKED = 20, 21, 22
CLASSES = 23
"""The twenty residues, unknown, gap, masked."""

READ_AS = MappingProxyType({"B": "D", "J": "X", "O": "X", "U": "C", "X": "X", "Z": "E"})
"""What letters of alignments are read as that are none of the twenty residues (AlphaFold's table for HHblits)."""

INSERTED, SKIPPED, REFUSED = 64, 65, 255
"""What other bytes of an alignment are: a letter between columns, nothing, or an error."""

_LETTERS = f"{RESIDUES}X-#"


def _numbers() -> NDArray[np.uint8]:
    """Return the number of every byte of a sequence; those that are no capital letter are unknown."""
    table = np.full(256, UNKNOWN, np.uint8)
    table[list(RESIDUES.encode())] = np.arange(len(RESIDUES))
    table[ord("-")] = GAP
    return table


def _aligned() -> NDArray[np.uint8]:
    """Return the number of every byte of an alignment; what can't be in one is refused."""
    table = np.full(256, REFUSED, np.uint8)
    for letter, meant in {**{letter: letter for letter in RESIDUES}, **READ_AS}.items():
        table[ord(letter)] = NUMBERS[ord(meant)]
    table[ord("-")] = GAP
    table[list(b"abcdefghijklmnopqrstuvwxyz")] = INSERTED
    # HH-suite writes a dot where other rows have an insertion; files of several alignments are parted by zero bytes.
    table[list(b". \t\r\n\0")] = SKIPPED
    return table


NUMBERS = _numbers()
ALIGNED = _aligned()
NUMBERS.flags.writeable = ALIGNED.flags.writeable = False


def encode(sequence: str) -> NDArray[np.uint8]:
    """Return the numbers (L,) of a sequence in capital letters; whatever is none of the twenty residues is unknown."""
    return NUMBERS[np.frombuffer(sequence.encode("ascii", "replace"), np.uint8)]


def decode(numbers: NDArray[np.uint8]) -> str:
    """Return the letters of numbers (L,): X is unknown, - a gap, # masked."""
    return "".join(_LETTERS[number] for number in numbers.tolist())
