"""Letters of sequences and alignments as numbers: AlphaFold's order of residues, then unknown, gap and masked."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

RESIDUES = "ARNDCQEGHILKMFPSTWYV"
UNKNOWN, GAP, MASKED = 20, 21, 22
CLASSES = 23

INSERTED, SKIPPED, REFUSED = 64, 65, 255
"""What other bytes of an alignment are: a letter between columns, nothing, or an error."""

MEANT = {"B": "D", "Z": "E", "U": "C", "J": "X", "O": "X", "X": "X", "*": "X"}
"""Letters that stand for several residues, or for rare ones, and what they are read as (AlphaFold's HHblits table)."""


def _numbers() -> NDArray[np.uint8]:
    """Return the number of every byte of an alignment."""
    table = np.full(256, REFUSED, np.uint8)
    for number, letter in enumerate(RESIDUES):
        table[ord(letter)] = number
    for letter, meant in MEANT.items():
        table[ord(letter)] = UNKNOWN if meant == "X" else RESIDUES.index(meant)
    table[ord("-")] = GAP
    table[[ord(letter) for letter in "abcdefghijklmnopqrstuvwxyz."]] = INSERTED
    table[[ord(letter) for letter in " \t\r\n\0"]] = SKIPPED
    return table


NUMBERS = _numbers()


def encode(sequence: str) -> NDArray[np.uint8]:
    """Return the numbers of a sequence (L,) of upper-case letters; others are unknown."""
    numbers = NUMBERS[np.frombuffer(sequence.encode("ascii", "replace"), np.uint8)]
    return np.where(numbers < GAP, numbers, UNKNOWN).astype(np.uint8)


def decode(numbers: NDArray[np.uint8]) -> str:
    """Return the letters of numbers (L,)."""
    return "".join(f"{RESIDUES}X-"[number] for number in numbers)
