"""How many chains are like a chain: from a file of clusters, or as many as have the same sequence."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from sartor.share.errors import InputRefusedError


def read_clusters(path: Path) -> dict[str, int]:
    """Return the size of the cluster of each chain, named as in `1abc_A`; a line of the file is a cluster.

    Raises InputRefusedError where a chain is in two clusters.
    """
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = f"it can't be read ({error})"
        raise InputRefusedError(reason, subject=str(path), remedy="Give a text with a cluster a line") from None
    sizes: dict[str, int] = {}
    for number, line in enumerate(lines, 1):
        members = [_plain(name) for name in line.split()]
        for name in members:
            if name in sizes:
                reason = f"line {number} has {name}, which is in another cluster already"
                raise InputRefusedError(reason, subject=str(path), remedy="A chain is in one cluster")
        sizes.update(dict.fromkeys(members, len(members)))
    return sizes


def _plain(name: str) -> str:
    """Return a chain's name with its code in lower case."""
    code, _, chain = name.partition("_")
    return f"{code.lower()}_{chain}"


def by_sequence(sequences: Mapping[str, str]) -> dict[str, int]:
    """Return for each chain how many have its sequence."""
    times = Counter(sequences.values())
    return {name: times[sequence] for name, sequence in sequences.items()}
