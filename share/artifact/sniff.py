"""What a file is by its first bytes, and the refusal of what we do not read."""

from __future__ import annotations

import codecs
import os
import re
import stat
from enum import Enum
from pathlib import Path

from sartor.share.artifact.framing import starts_like_a_model
from sartor.share.errors import InputRefusedError

HEAD_SIZE = 4096
"""The bytes that `kind_of` wants to see."""


class Kind(Enum):
    """What an artifact is, or what a refused file looks like; the value completes "this is ..."."""

    ONNX = "an ONNX model"
    HDF5 = "an HDF5 file"
    SAFETENSORS = "a safetensors file"
    RUN_DIRECTORY = "a run directory"
    FOLDER = "a folder"
    EMPTY = "an empty file"
    GIT_LFS = "a git-lfs pointer"
    HTML = "an HTML page"
    TORCH = "a PyTorch archive"
    NPZ = "a NumPy .npz archive"
    NPY = "a NumPy .npy array"
    ZIP = "a zip archive"
    PICKLE = "a Python pickle"
    COMPRESSED = "a compressed file"
    TFLITE = "a TensorFlow Lite model"
    ORT = "an onnxruntime .ort model"
    JSON = "a JSON document"
    TEXT = "a text file"
    UNKNOWN = "data of an unknown kind"


_MAGIC = (
    (b"version https://git-lfs", Kind.GIT_LFS),
    (b"\x89HDF\r\n\x1a\n", Kind.HDF5),
    (b"\x93NUMPY", Kind.NPY),
    (b"\x1f\x8b", Kind.COMPRESSED),
    (b"\xfd7zXZ\x00", Kind.COMPRESSED),
    (b"\x28\xb5\x2f\xfd", Kind.COMPRESSED),
    (b"BZh", Kind.COMPRESSED),
    # Protocols 2 to 5 start with a version byte, 0 and 1 with the opcodes of a dict, list or class.
    (b"\x80\x02", Kind.PICKLE),
    (b"\x80\x03", Kind.PICKLE),
    (b"\x80\x04", Kind.PICKLE),
    (b"\x80\x05", Kind.PICKLE),
    (b"(dp0", Kind.PICKLE),
    (b"(lp0", Kind.PICKLE),
    (b"ccopy_reg\n", Kind.PICKLE),
)

_REMEDIES = {
    Kind.FOLDER: "Name a file",
    Kind.EMPTY: "The command that should have written it probably failed; make it again",
    Kind.GIT_LFS: "Fetch the file itself with `git lfs pull`",
    Kind.HTML: "The download probably failed; download the file again",
    Kind.TORCH: "Export the model with torch.onnx.export",
    Kind.ZIP: "Unpack it and name the file inside",
    Kind.PICKLE: "Pickles can run code and are never loaded; export the model as ONNX",
    Kind.COMPRESSED: "Decompress it first",
    Kind.TFLITE: "Convert it with tf2onnx",
    Kind.ORT: "Name the .onnx file that it was made from",
}

# An HDF5 file may start with a user block of 512 bytes or a doubling of that.
_HDF5_OFFSETS = (512, 1024, 2048)
# A lone bracket also starts an INI or TOML section.
_JSON_START = re.compile(r'[\[{]\s*["\[\]{}\d-]')
_TEXT_CONTROLS = frozenset(b"\t\n\r\f\x1b")


def identify(path: str | Path) -> Kind:
    """Tell what a path holds; raise InputRefusedError if it can't be read at all."""
    if stat.S_ISDIR(status_of(path).st_mode):
        return Kind.RUN_DIRECTORY if os.path.exists(os.path.join(path, "manifest.json")) else Kind.FOLDER
    refuse_device(path)
    try:
        with open(path, "rb") as file:
            return kind_of(file.read(HEAD_SIZE))
    except OSError as error:
        raise unreadable(path, error) from error


def kind_of(head: bytes) -> Kind:
    """Tell what a file is by its first HEAD_SIZE bytes."""
    if not head:
        return Kind.EMPTY
    # The size that a safetensors file begins with may look like the start of a pickle.
    if head[8:9] == b"{" and head[4:8] == bytes(4):
        return Kind.SAFETENSORS
    for magic, kind in _MAGIC:
        if head.startswith(magic):
            return kind
    if any(head[offset : offset + 8] == b"\x89HDF\r\n\x1a\n" for offset in _HDF5_OFFSETS):
        return Kind.HDF5
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return _archive(head)
    if head[4:8] in (b"TFL3", b"ORTM"):
        return Kind.TFLITE if head[4:8] == b"TFL3" else Kind.ORT
    if starts_like_a_model(head):
        return Kind.ONNX
    return _text(head)


def refuse_unless(kind: Kind, wanted: Kind, subject: str) -> None:
    """Raise InputRefusedError that says what the file is instead, unless it is what we want."""
    if kind is wanted:
        return
    raise InputRefusedError(
        f"this is {kind.value}, not {wanted.value}",
        subject=subject,
        remedy=_REMEDIES.get(kind, f"Name {wanted.value}"),
    )


def status_of(path: str | Path) -> os.stat_result:
    """Return the status of what a path leads to; raise InputRefusedError if there is nothing."""
    try:
        return os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        raise InputRefusedError(
            "there is no such file", subject=str(path), remedy="Check the name and the current folder"
        ) from None
    except ValueError:
        raise InputRefusedError(
            "no file can have this name", subject=repr(str(path)), remedy="Check the name"
        ) from None
    except OSError as error:
        raise unreadable(path, error) from error


def refuse_device(path: str | Path) -> None:
    """Raise InputRefusedError for a device, whose data may never end."""
    mode = status_of(path).st_mode
    if stat.S_ISCHR(mode) or stat.S_ISBLK(mode):
        raise InputRefusedError("this is a device, not a file", subject=str(path), remedy="Name a file")


def unreadable(path: str | Path, error: OSError) -> InputRefusedError:
    """Make the refusal of a file that the system does not let us read."""
    reason = (error.strerror or str(error)).lower()
    return InputRefusedError(
        f"reading failed ({reason})", subject=str(path), remedy="Check its permissions and the disk"
    )


def _archive(head: bytes) -> Kind:
    if b"data.pkl" in head:
        return Kind.TORCH
    return Kind.NPZ if b".npy" in head[:300] else Kind.ZIP


def _text(head: bytes) -> Kind:
    try:
        # The end of a full head may cut a character in two.
        text = codecs.getincrementaldecoder("utf-8")().decode(head, final=len(head) < HEAD_SIZE)
    except UnicodeDecodeError:
        return Kind.UNKNOWN
    if any(byte < 0x20 and byte not in _TEXT_CONTROLS for byte in head):
        return Kind.UNKNOWN
    start = text.lstrip("\ufeff \t\r\n")[:200].lower()
    if start.startswith(("<!doctype html", "<html", "<head", "<?xml")):
        return Kind.HTML
    return Kind.JSON if _JSON_START.match(start) else Kind.TEXT
