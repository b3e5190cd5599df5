"""The story of `sartor fold-pack`: list chains, group them by sequence, read their files, write shards."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from sartor.share.console import Step, detail, progress, warn
from sartor.share.errors import InputRefusedError
from sartor.tools.fold.clusters import cluster_sizes, read_clusters
from sartor.tools.fold.divide import divided, in_part, leftovers, shard_name
from sartor.tools.fold.gather import Choice, Gathered, gather
from sartor.tools.fold.index import (
    Dropped,
    Entry,
    Folders,
    Group,
    alignment_folders,
    group_by_sequence,
    index_file,
    names_of,
    structure_files,
)
from sartor.tools.fold.plan import Options, Packed, Tally
from sartor.tools.fold.shard import Making, fresh_summary, open_folder, write
from sartor.tools.fold.workers import spread
from sartor.tools.fold.writing import PackedSequence


def pack(structures: Path, alignments: Path, target: Path, options: Options, argv: Sequence[str] | None) -> Packed:
    """Pack structures and alignments into shards in a folder; those that are there already and whole stay.

    Without argv no history record is left. Raises InputRefusedError, OutputError, WriteError, UsageError and
    UnavailableError.
    """
    started = time.monotonic()
    (files, twice), folders = structure_files(structures), alignment_folders(alignments)
    told = read_clusters(options.clusters) if options.clusters else {}
    open_folder(target, options.part)
    tally = Tally()
    tally.drop(one for one in twice if in_part(one.name, options.part))
    entries = _index(files, folders, options, tally)
    sizes = cluster_sizes(((one.name, f"{one.code}_{one.entity}", one.sequence) for one in entries), told)
    groups = [group for group in group_by_sequence(entries, folders) if in_part(group.sequence, options.part)]
    choice = Choice(options.templates, options.latest, files)
    shards = divided(groups, options)
    with progress("sequences", len(groups)) as step:
        for number, members in enumerate(shards):
            path = target / shard_name(options.part, number)
            making = Making(path, members, sizes, choice, options, argv)
            _pack_shard(making, tally, step)
    for path in leftovers(target, options.part, len(shards)):
        path.unlink()
        detail(f"{path.name}: removed, as nothing belongs into it any more")
    if groups and not tally.chains:
        raise _nothing(structures, tally)
    return tally.packed(len(groups), time.monotonic() - started)


def _index(files: dict[str, Path], folders: Folders, options: Options, tally: Tally) -> list[Entry]:
    """List the chains of all files; raises InputRefusedError where none can be packed."""
    entries: list[Entry] = []
    with progress("structures", len(files)) as step:
        for found in spread(index_file, files.values(), options.worst, options.processes):
            entries += found.entries
            _drop([one for one in found.dropped if in_part(one.name, options.part)], tally)
            step(1)
    if not entries:
        raise _nothing(next(iter(files.values())).parent, tally)
    named = {name for entry in entries for name in names_of(entry)}
    idle = sorted((folders.alignments.keys() | folders.templates.keys()) - named)
    reason = "no chain that can be packed has this name"
    tally.drop(Dropped("alignment", name, reason) for name in idle if in_part(name, options.part))
    return entries


def _pack_shard(making: Making, tally: Tally, step: Step) -> None:
    """Write a shard, unless it is there, whole and of the same files."""
    summary = fresh_summary(making)
    if summary is not None:
        tally.keep(making.path.name, summary)
        step(len(making.groups))
        return
    own = Tally()
    if write(making, _watched(making, own, step), own):
        own.written.append(making.path.name)
    tally.add(own)


def _watched(making: Making, tally: Tally, step: Step) -> Iterator[PackedSequence]:
    """Read the groups of a shard and hand on what is to be written, counting what goes by."""
    shared = (making.clusters, making.choice)
    for gathered in spread(_gather, making.groups, shared, making.options.processes):
        tally.count(gathered)
        _drop(gathered.dropped, tally)
        if gathered.sequence is not None:
            yield gathered.sequence
        step(1)


def _drop(dropped: Sequence[Dropped], tally: Tally) -> None:
    """Note what was left out, and tell people at once of files that are damaged."""
    tally.drop(dropped)
    for one in dropped:
        if one.kind == "file":
            warn(f"{one.name}: {one.reason}")


def _gather(group: Group, shared: tuple[Mapping[str, int], Choice]) -> Gathered:
    return gather(group, *shared)


def _nothing(folder: Path, tally: Tally) -> InputRefusedError:
    shown = "; ".join(f"{one.name}: {one.reason}" for one in tally.dropped[:3])
    return InputRefusedError(f"no chain of it can be packed ({shown})", subject=str(folder), remedy="Give others")
