"""Safetensors headers: what they say, and the exact line of each refusal."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from sartor.share.artifact import TensorEntry, quickcheck, read_safetensors_header
from sartor.share.artifact.sniff import Kind, kind_of
from sartor.share.errors import InputRefusedError

AGAIN = "Download, copy or export it again"
GOOD = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


def save(path: Path, header: Any, size: int = 8) -> None:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + bytes(size))


def refusal(path: Path) -> str:
    with pytest.raises(InputRefusedError) as caught:
        read_safetensors_header(path)
    assert quickcheck(path) == caught.value.reason
    return str(caught.value).removeprefix(f"{path.parent}/")


def test_a_header_is_read(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    arrays = {
        "a": np.arange(6, dtype=np.float32).reshape(2, 3),
        "b": np.zeros((0, 4), np.int64),
        "c": np.ones(3, ml_dtypes.bfloat16),
    }
    safetensors.numpy.save_file(arrays, path, metadata={"k": "v"})
    header = read_safetensors_header(path)
    assert header.metadata == {"k": "v"}
    assert {name: (entry.dtype, entry.shape) for name, entry in header.tensors.items()} == {
        "a": ("F32", (2, 3)),
        "b": ("I64", (0, 4)),
        "c": ("BF16", (3,)),
    }
    entry = header.tensors["a"]
    assert np.frombuffer(path.read_bytes()[entry.begin : entry.end], np.float32).tolist() == [0, 1, 2, 3, 4, 5]
    assert quickcheck(path) is None


CASES: dict[str, tuple[Any, int, str]] = {
    "short": ({"a": GOOD}, 7, "the file is cut short, 76 bytes of 77 are here"),
    "long": ({"a": GOOD}, 9, "the file has 1 bytes after its last tensor"),
    "no JSON": (b"{nonsense}", 8, "the header is not JSON"),
    "twice": (b'{"a":1,"a":2}', 8, "the header is not JSON"),
    "metadata": ({"__metadata__": {"k": 1}, "a": GOOD}, 8, "the metadata in the header is not text"),
    "type": ({"a": GOOD | {"dtype": "F7"}}, 8, "tensor 'a' is not described as it should be"),
    "type list": ({"a": GOOD | {"dtype": []}}, 8, "tensor 'a' is not described as it should be"),
    "entry": ({"a": 3}, 8, "tensor 'a' is not described as it should be"),
    "negative": ({"a": GOOD | {"shape": [-2]}}, 8, "tensor 'a' is not described as it should be"),
    "size": ({"a": GOOD | {"shape": [3]}}, 8, "tensor 'a' has other bytes than its type and shape need"),
    "overlap": ({"a": GOOD, "b": GOOD}, 8, "tensor 'b' does not begin where the one before it ends"),
    "gap": (
        {"a": GOOD | {"data_offsets": [8, 16]}},
        16,
        "tensor 'a' does not begin where the one before it ends",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_a_damaged_header_is_refused(case: str, tmp_path: Path) -> None:
    header, size, reason = CASES[case]
    path = tmp_path / "w.safetensors"
    save(path, header, size)
    assert refusal(path) == f"w.safetensors: {reason}. {AGAIN}"


def test_a_header_that_claims_too_much_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    path.write_bytes((200_000_000).to_bytes(8, "little") + b"{}")
    assert refusal(path) == f"w.safetensors: the header claims 200,000,000 bytes. {AGAIN}"
    path.write_bytes((1000).to_bytes(8, "little") + b"{}")
    assert refusal(path) == f"w.safetensors: the file is cut short, 10 bytes of 1,008 are here. {AGAIN}"


def test_entries_lie_in_the_file(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    save(path, {"a": GOOD})
    begin = path.stat().st_size - 8
    assert read_safetensors_header(path).tensors == {"a": TensorEntry("F32", (2,), begin, begin + 8)}


@pytest.mark.parametrize("low", range(2, 6))
def test_a_size_that_looks_like_a_pickle(low: int) -> None:
    """The header's size is the first thing in a file; 0x80 and a protocol number start a pickle."""
    head = bytes([0x80, low, 0, 0, 0, 0, 0, 0]) + b'{"a":{"dtype":"F32"'
    assert kind_of(head) is Kind.SAFETENSORS
    assert kind_of(pickle.dumps({"a": 1}, protocol=low)) is Kind.PICKLE
