"""Packs are read as they were written, or refused by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from sartor.share import history
from sartor.share.errors import InputRefusedError
from sartor.share.packs import Entry, read_packs, write_packs

ENTRIES = {
    "LSTM_b": Entry({"layout": 1, "instruction_set": "avx2"}, {"data": np.arange(70, dtype=np.uint8)}),
    "GRU_a": Entry({"layout": 1}, {"w": np.ones((3, 1, 4), np.float32), "none": np.zeros((0, 2), np.uint8)}),
}


@pytest.fixture
def pack(tmp_path: Path) -> Path:
    """Return a file with two entries and a record."""
    record = history.make_record("sparsify-rnn", ["m.onnx"], ["0" * 64], {}, None, None)
    write_packs(ENTRIES, {"layout": 1}, [record], tmp_path / "p.h5")
    return tmp_path / "p.h5"


def test_what_is_written_is_read(pack: Path) -> None:
    read = read_packs(pack)
    assert read.subject == str(pack)
    assert read.entries.keys() == ENTRIES.keys()
    for name, entry in ENTRIES.items():
        assert read.entries[name].facts == entry.facts
        assert read.entries[name].arrays.keys() == entry.arrays.keys()
        for key, array in entry.arrays.items():
            np.testing.assert_array_equal(read.entries[name].arrays[key], array)
            assert read.entries[name].arrays[key].dtype == array.dtype
    with h5py.File(pack) as file:
        assert [one.tool for one in history.read_hdf5(file)] == ["sparsify-rnn"]


def test_the_same_entries_give_the_same_bytes(pack: Path, tmp_path: Path) -> None:
    before = pack.read_bytes()
    record = history.make_record("sparsify-rnn", ["m.onnx"], ["0" * 64], {}, None, None)
    write_packs(dict(reversed(ENTRIES.items())), {"layout": 1}, [record], pack)
    assert pack.read_bytes() == before
    assert list(tmp_path.iterdir()) == [pack]


def set_attribute(place: str, name: str, value: Any) -> Callable[[h5py.File], None]:
    return lambda file: file[place].attrs.__setitem__(name, value)


def put(name: str, **options: Any) -> Callable[[h5py.File], None]:
    """Put an array of the same numbers in place of another, stored otherwise."""

    def change(file: h5py.File) -> None:
        array = file[name][()]
        del file[name]
        file.create_dataset(name, **({"data": array} | options))

    return change


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (set_attribute("/", "kind", "something else"), "this is no pack of a model"),
        (set_attribute("/", "schema", 2), "its schema is 2, not 1"),
        (set_attribute("LSTM_b", "layout", 2), "the pack is damaged"),
        (set_attribute("LSTM_b", "sha256", "0" * 64), "the pack is damaged"),
        (lambda file: file["LSTM_b"].attrs.__delitem__("sha256"), "the pack is damaged"),
        (lambda file: file["LSTM_b/data"].__setitem__(3, 0), "the pack is damaged"),
        (lambda file: file.__delitem__("GRU_a"), "the pack is damaged"),
        (lambda file: file["GRU_a"].__delitem__("none"), "the pack is damaged"),
        (lambda file: file.__setitem__("loose", np.zeros(3)), "the pack is damaged"),
        (put("LSTM_b/data", data=np.arange(70).reshape(7, 10).astype(np.uint8)), "the pack is damaged"),
        (put("LSTM_b/data", compression="gzip"), "the pack is damaged"),
        (put("LSTM_b/data", data=None, shape=(1 << 50,), dtype="u1"), "the pack is damaged"),
        (put("LSTM_b/data", data=np.array([b"text"])), "the pack is damaged"),
    ],
)
def test_others_are_refused(change: Callable[[h5py.File], None], reason: str, pack: Path) -> None:
    with h5py.File(pack, "r+") as file:
        change(file)
    with pytest.raises(InputRefusedError) as caught:
        read_packs(pack)
    assert (caught.value.subject, caught.value.reason) == (str(pack), reason)


def test_files_cut_short_or_of_another_kind_are_refused(pack: Path) -> None:
    whole = pack.read_bytes()
    for data in (whole[: len(whole) // 2], whole[:-1], b"", b"text", bytes(100), whole[:100]):
        pack.write_bytes(data)
        with pytest.raises(InputRefusedError, match=r"p\.h5"):
            read_packs(pack)
    with pytest.raises(InputRefusedError, match="missing"):
        read_packs(pack.with_name("missing.h5"))


def test_no_changed_byte_passes(pack: Path) -> None:
    """Whatever byte of the arrays changes, the pack is refused."""
    whole = bytearray(pack.read_bytes())
    place = whole.index(bytes(range(70)))
    for at in range(place, place + 70, 9):
        changed = bytearray(whole)
        changed[at] ^= 1
        pack.write_bytes(changed)
        with pytest.raises(InputRefusedError, match="the pack is damaged"):
            read_packs(pack)
