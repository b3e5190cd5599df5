"""Safetensors files of torch's tensors: written atomically, read after their header was checked."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from sartor.share.artifact.safetensors_header import read_safetensors_header
from sartor.share.artifact.write import commit, refuse_terminal, remove_stale, resolve_target, staged, write_bytes
from sartor.share.errors import WriteError

if TYPE_CHECKING:
    from torch import Tensor


def write_tensors(tensors: Mapping[str, Tensor], target: str | Path, metadata: Mapping[str, str]) -> None:
    """Write tensors to a file, or to standard output for "-"; raises OutputError, WriteError, UsageError."""
    from safetensors import SafetensorError
    from safetensors.torch import save, save_file

    held = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    if str(target) == "-":
        refuse_terminal()
        data = save(held, dict(metadata))
        end = 8 + int.from_bytes(data[:8], "little")
        write_bytes(data[:8] + _settled(data[8:end]) + data[end:], "-")
        return
    final = resolve_target(Path(target))
    with staged(final.parent, final.name, str(target)) as part:
        mode = os.fstat(part.file.fileno()).st_mode
        try:
            save_file(held, part.path, dict(metadata))
        except SafetensorError as error:
            remedy = "Check the disk, or write elsewhere"
            raise WriteError(f"writing failed ({error})", subject=str(target), remedy=remedy) from error
        # The library writes a file of its own in place of the one that is there.
        os.chmod(part.path, mode)
        with part.path.open("rb+") as written:
            size = int.from_bytes(written.read(8), "little")
            header = written.read(size)
            written.seek(8)
            written.write(_settled(header))
            written.flush()
            os.fsync(written.fileno())
        commit(part, final)
    remove_stale(final.parent, final.name)


def _settled(header: bytes) -> bytes:
    """Return a header of the same length with its metadata in the order of their names; the library's is random."""
    table = json.loads(header)
    if "__metadata__" in table:
        table["__metadata__"] = dict(sorted(table["__metadata__"].items()))
    text = json.dumps(table, separators=(",", ":"), ensure_ascii=False).encode()
    assert len(text) <= len(header), "the library writes the most compact JSON"
    return text.ljust(len(header))


def read_tensors(path: str | Path, prefix: str = "") -> dict[str, Tensor]:
    """Read the tensors whose names begin with a prefix, which is cut off; raises InputRefusedError."""
    from safetensors import safe_open

    header = read_safetensors_header(path)
    with safe_open(path, framework="pt") as file:
        return {name.removeprefix(prefix): file.get_tensor(name) for name in header.tensors if name.startswith(prefix)}
