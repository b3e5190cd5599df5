"""Find or build the custom-op library, and say what became of it."""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sartor.share import cache
from sartor.share.errors import UsageError

SOURCE = Path(__file__).with_name("ops.c")
_FLAGS = ("-std=gnu11", "-O2", "-fPIC", "-shared", "-pthread", "-fvisibility=default")
_COMPILERS = ("cc", "gcc", "clang")


@dataclass(frozen=True)
class LibraryState:
    """Where the library lies, or None, and a phrase for people."""

    path: Path | None
    status: str


def library_path() -> Path | None:
    """Return the custom-op library, built if need be, or None where sessions are cut into segments instead."""
    return _state().path


def library_status() -> str:
    """Say in a phrase whether the library is at hand and why not."""
    return _state().status


def load_library(path: Path) -> ctypes.CDLL:
    """Open the library and declare its functions."""
    library = ctypes.CDLL(str(path))
    handle, text, size = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_size_t
    library.sartor_new.argtypes, library.sartor_new.restype = [ctypes.c_int64], handle
    library.sartor_add_op.argtypes = [handle, text, text, size, size, handle, handle]
    library.sartor_add_op.restype = handle
    library.sartor_add_variant.argtypes = [handle, handle, handle, size, handle]
    library.sartor_add_variant.restype = ctypes.c_int
    library.sartor_use.argtypes, library.sartor_use.restype = [handle], None
    library.sartor_release.argtypes, library.sartor_release.restype = [handle], None
    library.sartor_references.argtypes, library.sartor_references.restype = [handle], ctypes.c_int64
    library.sartor_live.argtypes, library.sartor_live.restype = [], ctypes.c_int64
    return library


def _state() -> LibraryState:
    """Look at the environment anew at each call; only the work behind it is remembered."""
    wanted = os.environ.get("SARTOR_RUNTIME", "")
    if wanted == "segments":
        return LibraryState(None, "SARTOR_RUNTIME=segments: segments are used")
    if wanted not in ("", "library"):
        raise UsageError(
            "not a runtime", subject=f"SARTOR_RUNTIME={wanted}", remedy="Use library or segments, or unset it"
        )
    return _build(cache.cache_dir(), os.environ.get("CC", ""), os.environ.get("PATH", ""))


@functools.cache
def _build(folder: Path, wanted: str, search_path: str) -> LibraryState:
    """Take the library from the cache or compile it; the arguments are what the answer depends on."""
    name = _cache_name()
    path = cache.path_of(name)
    if path is not None and _opens(path):
        return LibraryState(path, f"in the cache ({path})")
    compiler = find_compiler(wanted, search_path)
    if compiler is None:
        return LibraryState(None, "no C compiler: segments are used")
    return _compile(compiler, name)


def find_compiler(wanted: str, search_path: str) -> tuple[str, ...] | None:
    """Return the command of `$CC` or of the first compiler on the path, or None."""
    for candidate in (shlex.split(wanted), *([name] for name in _COMPILERS)):
        if candidate and (program := shutil.which(candidate[0], path=search_path)):
            return (program, *candidate[1:])
    return None


def _cache_name() -> str:
    """Return the name of the library built from this source for this kind of machine."""
    # Not of the compiler: a node without one takes what another node built.
    identity = (*_FLAGS, platform.machine(), *platform.libc_ver())
    digest = hashlib.sha256(repr(identity).encode() + SOURCE.read_bytes())
    return f"ops_{digest.hexdigest()[:24]}.so"


def _compile(compiler: tuple[str, ...], name: str) -> LibraryState:
    """Compile the library into the cache."""
    with tempfile.TemporaryDirectory(prefix="sartor-cc-") as folder:
        built = Path(folder) / name
        command = [*compiler, *_FLAGS, "-o", str(built), str(SOURCE)]
        if problem := run_compiler(command, folder):
            return LibraryState(None, f"{problem}: segments are used")
        path = cache.put_file(name, built.read_bytes())
    if path is None or not _opens(path):
        return LibraryState(None, f"the library cannot be opened from {cache.cache_dir()}: segments are used")
    return LibraryState(path, f"built ({path})")


def run_compiler(command: Sequence[str], folder: str) -> str:
    """Run a compiler in a folder and say what went wrong, or nothing."""
    try:
        # What a compiler that is killed leaves behind goes with the folder.
        own = {**os.environ, "TMPDIR": folder}
        result = subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=120, env=own, cwd=folder
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"{command[0]} does not run ({error})"
    if result.returncode != 0:
        return f"{command[0]} failed ({(result.stderr.strip().splitlines() or [f'exit {result.returncode}'])[0]})"
    return ""


def _opens(path: Path) -> bool:
    """Tell whether the loader takes the library (a folder mounted noexec, another libc: it does not)."""
    try:
        load_library(path)
    except (OSError, AttributeError):
        return False
    return True
