"""A content-checked cache of compiled code on the local disk, shared by processes without locks.

An entry is one file, written whole under a temporary name and then renamed, so that a reader sees all of it or none of
it, and the last of two writers wins. Its last 32 bytes are the sha256 of the rest. A file that must lie on the disk as
it is, such as a shared library, is stored under the hash of its bytes, and the entry holds that name.
"""

from __future__ import annotations

import functools
import hashlib
import os
import stat
import tempfile
import threading
import warnings
from collections.abc import Mapping
from pathlib import Path

_DIGEST_BYTES = 32
_LOCK = threading.Lock()


def cache_dir() -> Path:
    """Return the folder of the cache, which exists and can be written."""
    wanted, private = _wanted_dir(os.environ)
    with _LOCK:
        return _usable_dir(wanted, private, os.getpid())


def get(name: str) -> bytes | None:
    """Return the bytes put under a name, or None where there are none or they are damaged."""
    try:
        stored = (cache_dir() / _checked(name)).read_bytes()
    except OSError:
        return None
    data, digest = stored[:-_DIGEST_BYTES], stored[-_DIGEST_BYTES:]
    return data if hashlib.sha256(data).digest() == digest else None


def put(name: str, data: bytes) -> None:
    """Keep bytes under a name; where the disk does not take them, warn and go on without."""
    try:
        _write(cache_dir() / _checked(name), data + hashlib.sha256(data).digest())
    except OSError as error:
        _warn_not_kept(name, error)


def put_file(name: str, data: bytes) -> Path | None:
    """Keep bytes as a file of their own and return its path, or None where the disk does not take them."""
    stem, suffix = os.path.splitext(_checked(name))
    target = f"{stem}-{hashlib.sha256(data).hexdigest()[:32]}{suffix}"
    try:
        _write(cache_dir() / target, data)
    except OSError as error:
        _warn_not_kept(name, error)
        return None
    put(name, target.encode())
    return cache_dir() / target


def path_of(name: str) -> Path | None:
    """Return the path of a file kept by `put_file`, or None where there is none or it is damaged."""
    target = get(name)
    if target is None:
        return None
    path = cache_dir() / _checked(target.decode())
    try:
        digest = hashlib.sha256(path.read_bytes()).hexdigest()[:32]
    except OSError:
        return None
    return path if path.stem.endswith(digest) else None


def _warn_not_kept(name: str, error: OSError) -> None:
    """Say that work will be done again."""
    warnings.warn(f"{cache_dir()}: cannot keep {name} ({error.strerror})", RuntimeWarning, stacklevel=3)


def _checked(name: str) -> str:
    """Return a name that stays inside the folder; raise ValueError otherwise."""
    if not name or name.startswith(".") or os.sep in name or "\0" in name:
        raise ValueError(f"not a cache name: {name!r}")
    return name


def _write(path: Path, data: bytes) -> None:
    """Write a file whole or not at all."""
    descriptor, part = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
        os.replace(part, path)
    except BaseException:
        os.unlink(part)
        raise


def _wanted_dir(environ: Mapping[str, str]) -> tuple[Path, bool]:
    """Return the folder that the environment asks for, and whether it lies in a place that others write to."""
    if explicit := environ.get("SARTOR_CACHE_DIR"):
        return Path(explicit).absolute(), False
    xdg = environ.get("XDG_CACHE_HOME", "")
    if os.path.isabs(xdg):
        return Path(xdg) / "sartor", False
    home = os.path.expanduser("~")
    if "SLURM_JOB_ID" in environ or not os.path.isabs(home):
        # Under Slurm home is often a network file system shared by a thousand tasks.
        local = environ.get("SLURM_TMPDIR") or environ.get("TMPDIR") or "/tmp"
        return Path(local) / f"sartor-{os.getuid()}", True
    return Path(home) / ".cache" / "sartor", False


@functools.cache
def _usable_dir(wanted: Path, private: bool, process: int) -> Path:
    """Create the folder, or a temporary one for this process with a warning."""
    reason = _why_unusable(wanted, private)
    if reason is None:
        return wanted
    _, path = _temporary_dir(process)
    warnings.warn(
        f"{wanted}: {reason}. Compiled code is lost when this process ends; set SARTOR_CACHE_DIR to a folder of yours",
        RuntimeWarning,
        stacklevel=4,
    )
    return path


@functools.cache
def _temporary_dir(process: int) -> tuple[tempfile.TemporaryDirectory[str], Path]:
    """Create the folder of one process; the first object removes it when the process ends."""
    folder = tempfile.TemporaryDirectory(prefix=f"sartor-{process}-")
    return folder, Path(folder.name)


def _why_unusable(path: Path, private: bool) -> str | None:
    """Create a folder if it is missing and say why it can't be used, or None."""
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        facts = path.lstat() if private else path.stat()
    except OSError as error:
        return f"cannot be created ({error.strerror})"
    if private and not _is_ours(facts):
        return "belongs to somebody else or lets others write"
    return None if os.access(path, os.W_OK | os.X_OK) else "cannot be written"


def _is_ours(facts: os.stat_result) -> bool:
    """Tell whether a folder is a real one of this user that nobody else can write to."""
    return stat.S_ISDIR(facts.st_mode) and facts.st_uid == os.getuid() and not facts.st_mode & 0o022
