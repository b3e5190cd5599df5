"""Guarded opening of HDF5 files, by the exact line of each refusal."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from sartor.share.artifact import hdf5_item, open_hdf5, quickcheck
from sartor.share.errors import InputRefusedError

AGAIN = "Download, copy or export it again"
COPY_IN = "Copy the data into the file"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return the path of a good HDF5 file with groups, soft and hard links, and a circle of groups."""
    path = tmp_path / "d.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("group/x", data=np.arange(1000), chunks=(100,), compression="gzip")
        file["soft"] = h5py.SoftLink("/group/x")
        file["chain"] = h5py.SoftLink("soft")
        file["hard"] = file["group/x"]
        file["group/up"] = file["/"]
        layout = h5py.VirtualLayout(shape=(1000,), dtype=np.int64)
        layout[:] = h5py.VirtualSource(".", "group/x", shape=(1000,))
        file.create_virtual_dataset("own", layout)
    return path


def refusal(path: Path) -> str:
    with pytest.raises(InputRefusedError) as caught:
        open_hdf5(path)
    assert caught.value.exit_code == 65
    return str(caught.value).removeprefix(f"{path.parent}/")


def test_a_good_file_opens(path: Path) -> None:
    with open_hdf5(path) as file:
        assert file["chain"][5] == file["hard"][5] == file["own"][5] == 5
        assert file.mode == "r"
    with open_hdf5(path, mode="r+") as file:
        file.attrs["a"] = 1
    assert quickcheck(path) is None


def test_items_are_checked_when_they_are_taken(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        file["group/out"] = h5py.ExternalLink("other.h5", "/x")
        file.create_dataset("raw", shape=(4,), dtype=np.int32, external=[("other.raw", 0, 16)])
    with open_hdf5(path, whole=False) as file:
        assert hdf5_item(file, "group/x")[5] == hdf5_item(file["group"], "x")[5] == hdf5_item(file, "own")[5] == 5
        for name, reason in {
            "group/out": "'/group/out' is an external link",
            "group/out/x": "'/group/out' is an external link",
            "soft": "'/soft' is a soft link",
            "raw": "dataset '/raw' has external storage",
        }.items():
            with pytest.raises(InputRefusedError) as caught:
                hdf5_item(file, name)
            assert str(caught.value) == f"{path}: {reason}. {COPY_IN}"
        for name in ("no", "group/no", "group/x/no"):
            with pytest.raises(KeyError, match=f"there is no {name}"):
                hdf5_item(file, name)


def add_external_link(file: h5py.File) -> None:
    file["group/out"] = h5py.ExternalLink("other.h5", "/x")


def add_external_storage(file: h5py.File) -> None:
    file.create_dataset("group/out", shape=(4,), dtype=np.int32, external=[("other.raw", 0, 16)])


def add_virtual(file: h5py.File) -> None:
    layout = h5py.VirtualLayout(shape=(4,), dtype=np.int32)
    layout[:] = h5py.VirtualSource("other.h5", "x", shape=(4,))
    file.create_virtual_dataset("group/out", layout)


def add_dangling(file: h5py.File) -> None:
    file["group/out"] = h5py.SoftLink("/no/where")


def add_circular(file: h5py.File) -> None:
    file["group/out"] = h5py.SoftLink("/group/out")


@pytest.mark.parametrize(
    ("add", "reason"),
    [
        (add_external_link, "'/group/out' is an external link"),
        (add_external_storage, "dataset '/group/out' has external storage"),
        (add_virtual, "dataset '/group/out' is virtual, over other files"),
        (add_dangling, "'/group/out' is a soft link to '/no/where', which is not in the file"),
        (add_circular, "'/group/out' is a soft link to '/group/out', which is not in the file"),
    ],
)
def test_what_leaves_the_file_is_refused(add: Callable[[h5py.File], None], reason: str, path: Path) -> None:
    with h5py.File(path, "r+") as file:
        add(file)
    assert refusal(path) == f"d.h5: {reason}. {COPY_IN}"
    assert quickcheck(path) == reason


def test_a_truncated_file_is_refused(path: Path) -> None:
    data = path.read_bytes()
    os.truncate(path, len(data) - 1)
    assert refusal(path) == f"d.h5: the HDF5 file is cut short. {AGAIN}"
    os.truncate(path, 60)
    assert refusal(path) == f"d.h5: the HDF5 file is cut short. {AGAIN}"
    path.write_bytes(data[:96] + bytes(len(data) - 96))
    assert refusal(path) == f"d.h5: the HDF5 file is damaged. {AGAIN}"


def test_other_files_are_refused(tmp_path: Path, small_model: Path) -> None:
    with pytest.raises(InputRefusedError, match=r"net\.onnx: this is an ONNX model, not an HDF5 file\. Name an HDF5"):
        open_hdf5(small_model)
    with pytest.raises(InputRefusedError, match=r"no\.h5: there is no such file\."):
        open_hdf5(tmp_path / "no.h5")


def test_a_file_being_written_is_refused(path: Path) -> None:
    with h5py.File(path, "r+"):
        assert quickcheck(path) == "another process is writing it"


def test_quickcheck_survives_a_crash_of_the_library(path: Path) -> None:
    data = path.read_bytes()
    chance = random.Random(7)
    outcomes = {True: 0, False: 0}
    for _ in range(12):
        flipped = bytearray(data)
        for _ in range(40):
            flipped[chance.randrange(1, len(data))] ^= 1 << chance.randrange(8)
        path.write_bytes(flipped)
        outcomes[quickcheck(path) is None] += 1
    assert outcomes[False] > 3


def test_checksums_find_damage(path: Path) -> None:
    with h5py.File(path, "w", libver="v110") as file:
        file.create_dataset("group/x", data=np.arange(100))
    data = path.read_bytes()
    chance = random.Random(7)
    refused = 0
    for _ in range(200):
        flipped = bytearray(data)
        flipped[chance.randrange(8, len(data))] ^= 1 << chance.randrange(8)
        path.write_bytes(flipped)
        try:
            open_hdf5(path).close()
        except InputRefusedError:
            refused += 1
    assert refused > 20
