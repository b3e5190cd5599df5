"""Atomic writing: a target holds its old content or the new, never a part; also through signals and full disks."""

from __future__ import annotations

import errno
import io
import os
import re
import secrets
import stat
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from sartor.share.errors import OutputError, UsageError, WriteError

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

STDOUT_SUBJECT = "standard output"

_STALE_SECONDS = 3600


@dataclass(frozen=True)
class Staged:
    """A temporary file beside its target; `subject` names the target as the user wrote it."""

    path: Path
    file: BinaryIO
    subject: str


def write_bytes(data: bytes, target: str | Path) -> None:
    """Write a whole artifact to a file, or to standard output for "-".

    Raises OutputError, WriteError, and UsageError if standard output is a terminal.
    """
    write_pieces([data], target)


def write_pieces(pieces: Sequence[bytes], target: str | Path) -> None:
    """Write a whole artifact, given in pieces, as `write_bytes` does."""
    if str(target) == "-":
        refuse_terminal()
        for piece in pieces:
            _write_stdout(piece)
        return
    with atomic(Path(target)) as file:
        file.writelines(pieces)


@contextmanager
def atomic(target: Path) -> Iterator[BinaryIO]:
    """Yield a file whose content replaces `target` at the end of the block, and vanishes if the block fails.

    A link is followed; a device or pipe is written straight. Raises OutputError and WriteError.
    """
    subject = str(target)
    final = resolve_target(target)
    if is_special(final):
        with _straight(final, subject) as file:
            yield file
        return
    with staged(final.parent, final.name, subject) as part:
        yield part.file
        commit(part, final)
    remove_stale(final.parent, final.name)


def check_target(target: str | Path) -> None:
    """Raise the error that writing to `target` would raise at its start, so that long work need not end in it."""
    if str(target) == "-":
        refuse_terminal()
        return
    final = resolve_target(Path(target))
    if not is_special(final):
        with staged(final.parent, final.name, str(target)):
            pass


def make_folder(target: Path) -> None:
    """Make a folder and those above it, unless it is there; raise OutputError."""
    try:
        target.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = f"the folder can't be made ({(error.strerror or str(error)).lower()})"
        raise OutputError(reason, subject=str(target), remedy="Choose another place") from error


def resolve_target(target: Path) -> Path:
    """Follow links to the file to replace; raise OutputError if that can't be a file."""
    final = Path(os.path.realpath(target))
    if final.is_dir():
        raise OutputError("this is a folder", subject=str(target), remedy="Name a file")
    if not final.parent.is_dir():
        reason = f"there is no folder {str(target.parent)!r}"
        raise OutputError(reason, subject=str(target), remedy="Create it first")
    return final


def is_special(path: Path) -> bool:
    """Tell whether a path is a device or a pipe, which can't be replaced."""
    return path.exists() and not stat.S_ISREG(path.stat().st_mode)


@contextmanager
def staged(folder: Path, name: str, subject: str) -> Iterator[Staged]:
    """Yield an open temporary file `.{name}.{random}.part`, removed at the end unless it was committed."""
    path = folder / f".{name}.{secrets.token_hex(8)}.part"
    # The try comes first, so that a signal right after the creation still removes the file.
    try:
        file = _create(path, subject)
        try:
            yield Staged(path, file, subject)
        finally:
            # What is still buffered belongs to a file that goes away, or was flushed by the commit.
            with suppress(WriteError):
                file.close()
    finally:
        path.unlink(missing_ok=True)


def commit(part: Staged, final: Path) -> None:
    """Bring a staged file to the disk and rename it; raise WriteError."""
    part.file.flush()
    try:
        os.fsync(part.file.fileno())
        os.replace(part.path, final)
        _sync_folder(final.parent)
    except OSError as error:
        raise write_error(error, part.subject) from error


def remove_stale(folder: Path, name: str) -> None:
    """Remove temporary files of `name` that killed runs left behind more than an hour ago."""
    pattern = re.compile(rf"\.{re.escape(name)}\.[0-9a-f]{{16}}\.part")
    oldest = time.time() - _STALE_SECONDS
    # Others may clean up at the same time; what can't be removed is no failure of this write.
    with suppress(OSError):
        for entry in os.scandir(folder):
            if pattern.fullmatch(entry.name) and entry.stat(follow_symlinks=False).st_mtime < oldest:
                os.unlink(entry.path)


def refuse_terminal() -> None:
    """Raise UsageError if standard output is a terminal, OutputError if it is closed."""
    # Python sets stdout to None when the shell closed it (`>&-`).
    if sys.stdout is None:
        raise OutputError("it is closed", subject=STDOUT_SUBJECT, remedy="Name a file with -o")
    if sys.stdout.isatty():
        raise UsageError(
            "binary data does not go to a terminal", subject=STDOUT_SUBJECT, remedy="Name a file with -o, or pipe it on"
        )


def write_error(error: OSError, subject: str) -> WriteError:
    """Make the error of a write that failed half way."""
    reason = (error.strerror or str(error)).lower()
    full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    remedy = "Free some space, or write elsewhere" if full else "Check the disk or the reader, and write again"
    return WriteError(f"writing failed ({reason})", subject=subject, remedy=remedy)


class _Sink(io.FileIO):
    """A raw file whose failing writes are our errors, so that other OSErrors of a block keep their meaning."""

    def __init__(self, descriptor: int, mode: str, subject: str) -> None:
        super().__init__(descriptor, mode)
        self._subject = subject

    def write(self, data: ReadableBuffer, /) -> int:
        """Write some of the bytes and return how many; raise WriteError."""
        try:
            return super().write(data)
        except OSError as error:
            raise write_error(error, self._subject) from error


def _create(path: Path, subject: str) -> BinaryIO:
    try:
        # Mode 666 is cut by the umask in the kernel; reading the umask from here would race with other threads.
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    except OSError as error:
        raise _create_error(error, subject) from error
    return io.BufferedRandom(_Sink(descriptor, "r+", subject))


@contextmanager
def _straight(path: Path, subject: str) -> Iterator[BinaryIO]:
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    except OSError as error:
        raise _create_error(error, subject) from error
    with _Sink(descriptor, "w", subject) as sink:
        file = io.BufferedWriter(sink)
        try:
            yield file
            file.flush()
        finally:
            # Not closed but let go of: closing would write what is buffered a second time after a failure.
            with suppress(WriteError):
                file.detach()


def _create_error(error: OSError, subject: str) -> OutputError:
    reason = (error.strerror or str(error)).lower()
    return OutputError(f"it can't be created ({reason})", subject=subject, remedy="Write to another folder")


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some network and FUSE file systems have no notion of syncing a folder.
        if error.errno != errno.EINVAL:
            raise
    finally:
        os.close(descriptor)


def _write_stdout(data: bytes) -> None:
    try:
        sys.stdout.flush()
        # The raw file, so that a failure leaves nothing buffered that the interpreter would try again at its end.
        raw = getattr(sys.stdout.buffer, "raw", sys.stdout.buffer)
        rest = memoryview(data)
        while rest:
            # A full pipe in non-blocking mode takes None.
            rest = rest[raw.write(rest) or 0 :]
    except BrokenPipeError:
        raise
    except OSError as error:
        raise write_error(error, STDOUT_SUBJECT) from error
