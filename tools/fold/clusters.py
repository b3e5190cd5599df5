"""How many chains are like a chain: from a file of clusters, or as many as have the same sequence."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

from sartor.share.errors import InputRefusedError


def read_clusters(path: str | Path) -> dict[str, int]:
    """Return how many members the cluster of each name has; a line of the file is a cluster of names.

    Names are a PDB code in any case, an underscore, and a chain (1abc_A) or the number of an entity (1ABC_1). Raises
    InputRefusedError where the file can't be read or has a name in two clusters.
    """
    try:
        lines = Path(path).read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = f"it can't be read ({getattr(error, 'strerror', None) or 'it is no text'})".lower()
        raise InputRefusedError(reason, subject=str(path), remedy="Give a text with a cluster a line") from None
    sizes: dict[str, int] = {}
    for number, line in enumerate(lines, 1):
        names = dict.fromkeys(map(_plain, line.split()))
        for name in names:
            if name in sizes:
                reason = f"line {number} has {name}, which is in an earlier cluster too"
                raise InputRefusedError(reason, subject=str(path), remedy="Let each chain be in one cluster")
        sizes.update(dict.fromkeys(names, len(names)))
    return sizes


def _plain(name: str) -> str:
    code, _, chain = name.partition("_")
    return f"{code.lower()}_{chain}"


def cluster_sizes(chains: Iterable[tuple[str, str, str]], told: Mapping[str, int]) -> dict[str, int]:
    """Return the size of each chain's cluster by name, from names, names by entity, and sequences.

    What nobody tells is how many of the chains have the same sequence.
    """
    chains = list(chains)
    times = Counter(sequence for _, _, sequence in chains)
    return {name: told.get(name, told.get(entity, times[sequence])) for name, entity, sequence in chains}
