"""The story of `sartor fold-pack`: list chains, group them by sequence, read their files, write shards."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from sartor.share import history
from sartor.share.artifact import open_hdf5
from sartor.share.artifact.write import commit, remove_stale, resolve_target, staged
from sartor.share.console import Step, progress, warn
from sartor.share.errors import InputRefusedError, OutputError
from sartor.tools.fold.clusters import by_sequence, read_clusters
from sartor.tools.fold.gather import Choice, Gathered, gather
from sartor.tools.fold.index import Entry, Group, code_of, group_by_sequence, index_file, structure_files
from sartor.tools.fold.store import MADE_FROM, SCHEMA, Chain, write_shard
from sartor.tools.fold.workers import spread


@dataclass(frozen=True)
class Options:
    """What is packed: templates at most and released by a date, the part of parts, the size of shards, processes."""

    templates: int
    latest: str
    clusters: str | None
    part: tuple[int, int]
    shard_bytes: int
    processes: int


@dataclass(frozen=True)
class Packed:
    """What came of it: shards written and found, chains, rows of alignments, and what was left out and why, by name."""

    written: tuple[str, ...]
    kept: tuple[str, ...]
    chains: int
    sequences: int
    rows: int
    dropped: tuple[tuple[str, str], ...]
    seconds: float


def pack(structures: Path, alignments: Path, target: Path, options: Options, argv: Sequence[str] | None) -> Packed:
    """Pack structures and alignments into shards of a folder; those that are there already and the same stay.

    Without argv no history record is left. Raises InputRefusedError, OutputError, WriteError, UnavailableError.
    """
    started = time.monotonic()
    files = structure_files(structures)
    if not alignments.is_dir():
        remedy = "Give a folder of alignments"
        raise InputRefusedError("there is no such folder", subject=str(alignments), remedy=remedy)
    tally = Tally()
    entries = _indexed(files, options, tally)
    groups = list(group_by_sequence(entries, alignments))
    choice = Choice(options.templates, options.latest, {code_of(path): path for path in files})
    sizes = _cluster_sizes(entries, options)
    shards = _mine(_divided(groups, options.shard_bytes), options.part)
    _make_folder(target)
    with progress("sequences", sum(map(len, shards.values()))) as step:
        for number, members in shards.items():
            path, digest = target / f"proteins-{number:05d}.h5", _digest(members, sizes, options)
            if _is_there(path, digest):
                tally.kept.append(path.name)
                step(len(members))
                continue
            found = spread(partial(gather, clusters=sizes, choice=choice), members, options.processes)
            _write(path, tally.watch(found, step), digest, _record(digest, options, argv))
            tally.written.append(path.name)
    return tally.packed(len(groups), time.monotonic() - started)


@dataclass
class Tally:
    """Counts what goes by."""

    written: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    dropped: list[tuple[str, str]] = field(default_factory=list)
    chains: int = 0
    rows: int = 0

    def watch(self, gathered: Iterable[Gathered], step: Step) -> Iterator[Chain]:
        """Hand on chains."""
        for one in gathered:
            self.dropped += one.dropped
            self.chains += len(one.chains)
            self.rows += one.rows
            yield from one.chains
            step(1)

    def packed(self, sequences: int, seconds: float) -> Packed:
        """Return what came of it."""
        lists = (tuple(self.written), tuple(self.kept))
        return Packed(*lists, self.chains, sequences, self.rows, tuple(self.dropped), seconds)


def _indexed(files: Sequence[Path], options: Options, tally: Tally) -> list[Entry]:
    """List the chains of all files; raises InputRefusedError where none can be packed."""
    entries: list[Entry] = []
    with progress("structures", len(files)) as step:
        for found in spread(index_file, files, options.processes):
            entries += found.entries
            tally.dropped += found.dropped
            step(1)
    if not entries:
        reason = f"no chain of it can be packed ({'; '.join(f'{name}: {why}' for name, why in tally.dropped[:3])})"
        raise InputRefusedError(reason, subject=str(files[0].parent), remedy="Give other structures")
    return entries


def _cluster_sizes(entries: Sequence[Entry], options: Options) -> dict[str, int]:
    """Return the cluster size of each chain; one that a file of clusters does not name counts its own sequence."""
    sizes = by_sequence({entry.name: entry.sequence for entry in entries})
    if options.clusters is not None:
        told = read_clusters(Path(options.clusters))
        sizes = {name: told.get(name, size) for name, size in sizes.items()}
    return sizes


def _divided(groups: Sequence[Group], most: int) -> list[list[Group]]:
    """Divide groups, in their order, into shards of about so many bytes of input."""
    shards: list[list[Group]] = []
    room = 0
    for group in groups:
        size = sum(path.stat().st_size for path in group.inputs)
        if not shards or size > room:
            shards.append([])
            room = most
        shards[-1].append(group)
        room -= size
    return shards


def _mine(shards: Sequence[list[Group]], part: tuple[int, int]) -> dict[int, list[Group]]:
    """Return the shards of a part, by their number among all."""
    which, parts = part
    return {number: shard for number, shard in enumerate(shards) if number % parts == which - 1}


def _digest(groups: Sequence[Group], sizes: dict[str, int], options: Options) -> str:
    """Return a fingerprint of all that a shard is made of; files count by name, size and time of change."""
    files = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for group in groups for path in group.inputs]
    members = [(entry.name, entry.sequence, sizes[entry.name]) for group in groups for entry in group.entries]
    chosen = (SCHEMA, options.templates, options.latest)
    return hashlib.sha256(json.dumps([files, members, chosen]).encode()).hexdigest()


def _is_there(path: Path, digest: str) -> bool:
    """Tell whether a whole shard of the same contents is there."""
    if not path.exists():
        return False
    try:
        with open_hdf5(path) as file:
            return bool(file.attrs.get(MADE_FROM) == digest)
    except InputRefusedError as error:
        warn(f"{path.name}: {error.reason}: it is packed again")
        return False


def _write(path: Path, chains: Iterable[Chain], digest: str, record: history.Record | None) -> None:
    """Write a shard under another name and rename it when it is whole."""
    import h5py

    final = resolve_target(path)
    with staged(final.parent, final.name, str(path)) as part:
        with h5py.File(part.path, "w") as file:
            write_shard(file, chains)
            file.attrs[MADE_FROM] = digest
            if record is not None:
                history.append_hdf5(file, record)
        commit(part, final)
    remove_stale(final.parent, final.name)


def _record(digest: str, options: Options, argv: Sequence[str] | None) -> history.Record | None:
    if argv is None:
        return None
    parameters = {"templates": options.templates, "latest": options.latest, "part": list(options.part)}
    return history.make_record("fold-pack", argv, [digest], parameters, None, None)


def _make_folder(target: Path) -> None:
    """Make the folder of the shards; raises OutputError."""
    try:
        target.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = f"the folder can't be created ({(error.strerror or str(error)).lower()})"
        raise OutputError(reason, subject=str(target), remedy="Choose another place") from error
