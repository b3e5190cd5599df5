"""Safetensors of torch's tensors: written whole, read by prefix, refused where damaged."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from sartor.share.artifact import read_safetensors_header, read_tensors, write_tensors
from sartor.share.errors import InputRefusedError, OutputError


def test_what_is_written_is_read_back_bit_by_bit(tmp_path: Path) -> None:
    tensors = {"model/a": torch.randn(3, 5), "adam/a": torch.randn(2).bfloat16(), "model/none": torch.empty(0, 4)}
    tensors["model/turned"] = torch.randn(4, 3).T
    write_tensors(tensors, tmp_path / "w.safetensors", {"step": "7"})
    found = read_tensors(tmp_path / "w.safetensors", "model/")
    assert set(found) == {"a", "none", "turned"}
    assert all(torch.equal(found[name], tensors[f"model/{name}"]) for name in found)
    assert read_safetensors_header(tmp_path / "w.safetensors").metadata == {"step": "7"}


def test_the_file_has_the_usual_mode_and_nothing_else_is_left(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write_tensors({"a": torch.ones(1)}, tmp_path / "w.safetensors", {})
    finally:
        os.umask(before)
    assert os.listdir(tmp_path) == ["w.safetensors"]
    assert (tmp_path / "w.safetensors").stat().st_mode & 0o777 == 0o640


def test_an_old_file_is_replaced(tmp_path: Path) -> None:
    for value in (1.0, 2.0):
        write_tensors({"a": torch.tensor([value])}, tmp_path / "w.safetensors", {})
    assert read_tensors(tmp_path / "w.safetensors")["a"].item() == 2.0


def test_a_missing_folder_and_a_cut_file_are_refused(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="there is no folder"):
        write_tensors({"a": torch.ones(1)}, tmp_path / "none" / "w.safetensors", {})
    write_tensors({"a": torch.ones(9)}, tmp_path / "w.safetensors", {})
    data = (tmp_path / "w.safetensors").read_bytes()
    (tmp_path / "w.safetensors").write_bytes(data[:-4])
    with pytest.raises(InputRefusedError):
        read_tensors(tmp_path / "w.safetensors")


def test_equal_tensors_give_equal_bytes(tmp_path: Path) -> None:
    metadata = {f"key {number}": 'a "text"\n\twith µ and \\ \x07' for number in range(12)}
    for name in ("a", "b"):
        write_tensors({"x": torch.ones(2), "y": torch.zeros(3, dtype=torch.int8)}, tmp_path / name, metadata)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert read_safetensors_header(tmp_path / "a").metadata == metadata
    assert torch.equal(read_tensors(tmp_path / "a")["x"], torch.ones(2))
