"""A model as read, with the identity of the bytes that it came from."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from sartor.share.artifact.sniff import unreadable

if TYPE_CHECKING:
    import onnx_ir as ir

_CHUNK = 1 << 20


@dataclass(frozen=True)
class Model:
    """A model with where it came from; `source` is "-" and `path` None for standard input."""

    ir: ir.Model
    source: str
    path: Path | None
    file_sha256: str
    data_files: tuple[Path, ...] = ()

    @cached_property
    def sha256(self) -> str:
        """Return the digest of the model file, or of the digests of model file and data files, in order of name.

        Reads the data files once, in pieces; raises InputRefusedError if that fails.
        """
        if not self.data_files:
            return self.file_sha256
        digests = [self.file_sha256, *map(_sha256, self.data_files)]
        return hashlib.sha256("".join(digests).encode()).hexdigest()


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
    except OSError as error:
        raise unreadable(path, error) from error
    return digest.hexdigest()
