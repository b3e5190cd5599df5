"""A shard that is being made: written whole under another name and then renamed, or left as it is."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from sartor.share import history
from sartor.share.artifact import make_folder, open_hdf5
from sartor.share.artifact.write import commit, remove_stale, resolve_target, staged
from sartor.share.console import warn
from sartor.share.errors import InputRefusedError, UsageError
from sartor.tools.fold.divide import other_parts
from sartor.tools.fold.gather import Choice
from sartor.tools.fold.index import Group
from sartor.tools.fold.plan import Options, Tally
from sartor.tools.fold.store import CONTENTS, SCHEMA, read_summary, require_shard
from sartor.tools.fold.writing import PackedSequence, write_shard, write_summary


@dataclass(frozen=True)
class Making:
    """A shard and all that it is made of; without argv it gets no history."""

    path: Path
    groups: Sequence[Group]
    clusters: Mapping[str, int]
    choice: Choice
    options: Options
    argv: Sequence[str] | None

    @cached_property
    def contents(self) -> str:
        """A fingerprint of names and sizes of files, of chains, and of choices."""
        files = [(path.name, path.stat().st_size) for path in self._inputs]
        chains = [
            (entry.name, entry.sequence, self.clusters[entry.name]) for group in self.groups for entry in group.entries
        ]
        # Templates come from any structure that there is.
        others = sorted(self.choice.structures) if self._has_templates else []
        made_of = (SCHEMA, files, chains, others, _parameters(self.options), self.argv is None)
        return hashlib.sha256(json.dumps(made_of).encode()).hexdigest()

    @cached_property
    def newest(self) -> int:
        """The time of the last change of any file that it is made of, in nanoseconds."""
        structures = self.choice.structures.values() if self._has_templates else ()
        return max(int(path.stat().st_mtime_ns) for path in {*self._inputs, *structures})

    @property
    def _inputs(self) -> list[Path]:
        return [path for group in self.groups for path in group.inputs]

    @property
    def _has_templates(self) -> bool:
        return any(group.templates for group in self.groups)


def _parameters(options: Options) -> dict[str, Any]:
    """Return the choices that decide what is in a shard."""
    return {
        "templates": options.templates,
        "latest": options.latest,
        "worst": options.worst,
        "part": list(options.part),
        "shard_bytes": options.shard_bytes,
    }


def open_folder(target: Path, part: tuple[int, int]) -> None:
    """Make the folder of the shards; raises OutputError, and UsageError where it has shards of other parts."""
    make_folder(target)
    others = other_parts(target, part)
    if others:
        reason = f"it has shards of another number of parts, such as {others[0]}"
        raise UsageError(reason, subject=str(target), remedy="Choose another folder, or the same --shard I/N")


def fresh_summary(making: Making) -> dict[str, Any] | None:
    """Return what a shard tells of its packing where it is there, whole, of the same files and newer; else None."""
    path = making.path
    if not path.exists():
        return None
    try:
        with open_hdf5(path, whole=False) as file:
            require_shard(file, path.name)
            if file.attrs.get(CONTENTS) != making.contents or path.stat().st_mtime_ns < making.newest:
                return None
            return read_summary(file, path.name)
    except InputRefusedError as error:
        warn(f"{path.name}: {error.reason}; it is packed again")
        return None


def write(making: Making, sequences: Iterable[PackedSequence], tally: Tally) -> int:
    """Write a shard and return how many chains it has; one without any is not left there.

    The tally has counted the sequences as they went by. Raises OutputError and WriteError.
    """
    import h5py

    final = resolve_target(making.path)
    with staged(final.parent, final.name, str(making.path)) as part:
        # Newer formats note the time in groups.
        with h5py.File(part.path, "w", libver="earliest") as file:
            chains = write_shard(file, sequences)
            write_summary(file, tally.summary())
            file.attrs[CONTENTS] = making.contents
            if making.argv is not None:
                history.append_hdf5(file, _record(making, tally))
        if chains:
            commit(part, final)
        else:
            final.unlink(missing_ok=True)
    remove_stale(final.parent, final.name)
    return chains


def _record(making: Making, tally: Tally) -> history.Record:
    assert making.argv is not None
    read = hashlib.sha256(json.dumps(sorted(tally.inputs)).encode()).hexdigest()
    return history.make_record("fold-pack", making.argv, [read], _parameters(making.options), None, None)
