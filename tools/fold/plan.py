"""What flows through the packing: what was asked for, what is counted on the way, what came of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from sartor.tools.fold.gather import Gathered
from sartor.tools.fold.index import Dropped


@dataclass(frozen=True)
class Options:
    """What is packed, and how.

    At most `templates` for a chain, released by the date `latest` (empty for any), chains with a resolution of at most
    `worst` angstroms, a file of `clusters`, the part of how many, about `shard_bytes` for a shard, and processes.
    """

    templates: int = 20
    latest: str = ""
    worst: float = 9.0
    clusters: str | None = None
    part: tuple[int, int] = (1, 1)
    shard_bytes: int = 1 << 30
    processes: int = 1


@dataclass(frozen=True)
class Packed:
    """What came of it: shards by name, counts, what was left out, and the hits that are no templates, by reason.

    `rows` were in the alignments that were read now; `seconds` is the time of all of it.
    """

    written: tuple[str, ...]
    kept: tuple[str, ...]
    chains: int
    sequences: int
    rows: int
    bytes: int
    dropped: tuple[Dropped, ...]
    left_out: Mapping[str, int]
    seconds: float


@dataclass
class Tally:
    """Counts what goes by."""

    written: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    dropped: list[Dropped] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)
    inputs: list[tuple[str, str]] = field(default_factory=list)
    chains: int = 0
    rows: int = 0
    bytes: int = 0

    def drop(self, dropped: Iterable[Dropped]) -> None:
        """Note what was left out."""
        self.dropped += dropped

    def count(self, gathered: Gathered) -> None:
        """Count a sequence that was read."""
        self.left_out.update(gathered.left_out)
        self.inputs += gathered.inputs
        self.rows += gathered.rows
        self.bytes += gathered.bytes
        self.chains += len(gathered.sequence.chains) if gathered.sequence else 0

    def add(self, other: Tally) -> None:
        """Add what another has counted; what a shard is made of stays with it."""
        self.written += other.written
        self.dropped += other.dropped
        self.left_out.update(other.left_out)
        self.chains, self.rows, self.bytes = (
            self.chains + other.chains, self.rows + other.rows, self.bytes + other.bytes
        )  # fmt: skip

    def keep(self, name: str, summary: Mapping[str, Any]) -> None:
        """Count a shard that an earlier run wrote, by its summary."""
        self.kept.append(name)
        self.dropped += (Dropped(**one) for one in summary["dropped"])
        self.left_out.update(summary["left_out"])
        self.chains += summary["chains"]

    def summary(self) -> dict[str, Any]:
        """Return what a shard tells of its packing."""
        return {
            "chains": self.chains,
            "dropped": [asdict(one) for one in self.dropped],
            "left_out": dict(self.left_out),
        }

    def packed(self, sequences: int, seconds: float) -> Packed:
        """Return what came of it."""
        return Packed(
            tuple(self.written), tuple(self.kept), self.chains, sequences, self.rows, self.bytes,
            tuple(self.dropped), dict(sorted(self.left_out.items())), seconds,
        )  # fmt: skip
