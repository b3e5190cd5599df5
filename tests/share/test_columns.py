"""The table of an HDF5 file."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest

from sartor.share.columns import SHOWN, column_table, read_columns


def columns_of(path: Path, **datasets: object) -> dict[str, list[object]] | None:
    with h5py.File(path, "w") as file:
        for name, values in datasets.items():
            file[f"table/{name}"] = values
    with h5py.File(path) as file:
        return read_columns(file)


def test_columns_are_numbers_and_texts(tmp_path: Path) -> None:
    names = np.array(["a", "\u00fc"], h5py.string_dtype())
    found = columns_of(tmp_path / "x.h5", name=names, length=np.array([1, 2], np.int32), share=np.array([0.5, 1e-9]))
    assert found == {"name": ["a", "\u00fc"], "length": [1, 2], "share": [0.5, 1e-9]}
    table = column_table(found)
    assert (table.title, table.columns) == ("table of 2 rows", ("length", "name", "share"))
    assert table.rows == (("1", "a", "0.5"), ("2", "\u00fc", "1e-09"))


def test_an_attribute_tells_the_order(tmp_path: Path) -> None:
    columns_of(tmp_path / "x.h5", c=[1], a=[2], b=[3])
    with h5py.File(tmp_path / "x.h5", "r+") as file:
        file["table"].attrs["columns"] = "b d c"
        assert list(read_columns(file) or ()) == ["b", "c", "a"]


@pytest.mark.parametrize("datasets", [{}, {"a": [1, 2], "b": [1]}, {"a": [[1, 2]]}, {"a": 3}])
def test_what_is_no_table(tmp_path: Path, datasets: dict[str, object]) -> None:
    assert columns_of(tmp_path / "x.h5", **datasets) is None
    with h5py.File(tmp_path / "y.h5", "w") as file:
        file["table"] = [1, 2]
        assert read_columns(file) is None


def test_a_long_table_is_cut_for_people() -> None:
    rows = column_table({"a": list(range(SHOWN + 7)), "b": list(range(SHOWN + 7))}).rows
    assert len(rows) == SHOWN + 1
    assert rows[-1] == ("and 7 more", "")
    assert column_table(None).rows == ()
